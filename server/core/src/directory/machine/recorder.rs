//! The state hash: every change goes through here on its way to the store.

use rove_protocol::ids::{AccountId, DeviceId};
use serde::Serialize;
use xxhash_rust::xxh3::Xxh3;

use crate::directory::error::DirectoryError;
use crate::directory::rows::{
    AccessTokenRow, AccountRow, DeviceRow, Digest, FamilyId, IdempotencyRow, Meta, OutboxRow, RefreshTokenRow,
};
use crate::directory::store::{DirectoryRead, DirectoryTx};
use crate::membership::MemberMap;

/// Passes changes on and folds them into the chain.
pub(super) struct Recorder<'a, T: DirectoryTx + ?Sized> {
    tx: &'a mut T,
    hash: Xxh3,
}

/// One number for each kind of change, so that equal bytes of different kinds are different links of the chain.
#[derive(Clone, Copy)]
enum Change {
    Account = 1,
    Device,
    AccessToken,
    RefreshToken,
    Idempotency,
    Outbox,
    RemoveOutbox,
    RemoveFamily,
    RemoveTokensOf,
    Purge,
    Meta,
    Members,
    ApplyVersion,
}

impl<'a, T: DirectoryTx + ?Sized> Recorder<'a, T> {
    /// Begins the link of the chain for the entry `index`, after `previous`.
    pub(super) fn new(tx: &'a mut T, previous: u64, index: u64) -> Self {
        let mut hash = Xxh3::new();
        hash.update(&previous.to_be_bytes());
        hash.update(&index.to_be_bytes());
        Self { tx, hash }
    }

    /// The chain with this entry.
    pub(super) fn finish(mut self, meta: &Meta) -> u64 {
        // Writing into memory cannot fail; if it did, it would on every replica alike.
        let _ = self.fold(Change::Meta, meta);
        self.hash.digest()
    }

    /// That from here on entries are applied as `version` does.
    pub(super) fn apply_version(&mut self, version: u16) -> Result<(), DirectoryError> {
        self.fold(Change::ApplyVersion, &version)
    }

    fn fold(&mut self, change: Change, value: &(impl Serialize + ?Sized)) -> Result<(), DirectoryError> {
        let bytes = postcard::to_allocvec(value).map_err(|error| DirectoryError::Store(error.to_string()))?;
        self.hash.update(&[change as u8]);
        self.hash.update(&(bytes.len() as u64).to_be_bytes());
        self.hash.update(&bytes);
        Ok(())
    }
}

impl<T: DirectoryTx + ?Sized> DirectoryRead for Recorder<'_, T> {
    fn meta(&self) -> Result<Meta, DirectoryError> {
        self.tx.meta()
    }
    fn account(&self, id: AccountId) -> Result<Option<AccountRow>, DirectoryError> {
        self.tx.account(id)
    }
    fn account_by_handle(&self, key: &str) -> Result<Option<AccountRow>, DirectoryError> {
        self.tx.account_by_handle(key)
    }
    fn device(&self, id: DeviceId) -> Result<Option<DeviceRow>, DirectoryError> {
        self.tx.device(id)
    }
    fn devices_of(&self, account: AccountId) -> Result<Vec<DeviceRow>, DirectoryError> {
        self.tx.devices_of(account)
    }
    fn access_token(&self, token: &Digest) -> Result<Option<AccessTokenRow>, DirectoryError> {
        self.tx.access_token(token)
    }
    fn refresh_token(&self, token: &Digest) -> Result<Option<RefreshTokenRow>, DirectoryError> {
        self.tx.refresh_token(token)
    }
    fn idempotency(&self, key: &Digest) -> Result<Option<IdempotencyRow>, DirectoryError> {
        self.tx.idempotency(key)
    }
    fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError> {
        self.tx.outbox(limit)
    }
    fn members(&self) -> Result<Option<MemberMap>, DirectoryError> {
        self.tx.members()
    }
}

impl<T: DirectoryTx + ?Sized> DirectoryTx for Recorder<'_, T> {
    fn put_meta(&mut self, meta: &Meta) -> Result<(), DirectoryError> {
        self.tx.put_meta(meta)
    }
    fn put_account(&mut self, row: &AccountRow) -> Result<(), DirectoryError> {
        self.fold(Change::Account, row)?;
        self.tx.put_account(row)
    }
    fn put_device(&mut self, row: &DeviceRow) -> Result<(), DirectoryError> {
        self.fold(Change::Device, row)?;
        self.tx.put_device(row)
    }
    fn put_access_token(&mut self, row: &AccessTokenRow) -> Result<(), DirectoryError> {
        self.fold(Change::AccessToken, row)?;
        self.tx.put_access_token(row)
    }
    fn put_refresh_token(&mut self, row: &RefreshTokenRow) -> Result<(), DirectoryError> {
        self.fold(Change::RefreshToken, row)?;
        self.tx.put_refresh_token(row)
    }
    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), DirectoryError> {
        self.fold(Change::Idempotency, row)?;
        self.tx.put_idempotency(row)
    }
    fn put_outbox(&mut self, row: &OutboxRow) -> Result<(), DirectoryError> {
        self.fold(Change::Outbox, row)?;
        self.tx.put_outbox(row)
    }
    fn put_members(&mut self, map: &MemberMap) -> Result<(), DirectoryError> {
        self.fold(Change::Members, map)?;
        self.tx.put_members(map)
    }
    fn remove_outbox(&mut self, number: u64) -> Result<(), DirectoryError> {
        self.fold(Change::RemoveOutbox, &number)?;
        self.tx.remove_outbox(number)
    }
    fn remove_family(&mut self, family: FamilyId) -> Result<(), DirectoryError> {
        self.fold(Change::RemoveFamily, &family)?;
        self.tx.remove_family(family)
    }
    fn remove_tokens_of(&mut self, device: DeviceId) -> Result<(), DirectoryError> {
        self.fold(Change::RemoveTokensOf, &device)?;
        self.tx.remove_tokens_of(device)
    }
    fn purge(&mut self, now_ms: u64, limit: usize) -> Result<(), DirectoryError> {
        self.fold(Change::Purge, &(now_ms, limit as u64))?;
        self.tx.purge(now_ms, limit)
    }
}
