//! The seam between the directory and what keeps it.

use rove_protocol::ids::{AccountId, DeviceId};

use super::error::DirectoryError;
use super::rows::{
    AccessTokenRow, AccountRow, AccountState, DeviceRow, Digest, FamilyId, IdempotencyRow, Meta, OutboxRow,
    RefreshTokenRow,
};
use crate::membership::MemberMap;

/// Reads. All are point look-ups or bounded.
pub trait DirectoryRead {
    /// The counters; the default ones in a new store.
    fn meta(&self) -> Result<Meta, DirectoryError>;
    /// An account by its id.
    fn account(&self, id: AccountId) -> Result<Option<AccountRow>, DirectoryError>;
    /// An account by the key of its handle, see [`Handle::key`](super::Handle::key).
    fn account_by_handle(&self, key: &str) -> Result<Option<AccountRow>, DirectoryError>;
    /// Those of `ids` that exist, in the order asked.
    fn accounts(&self, ids: &[AccountId]) -> Result<Vec<AccountRow>, DirectoryError> {
        ids.iter().filter_map(|id| self.account(*id).transpose()).collect()
    }
    /// A device by its id, revoked ones too.
    fn device(&self, id: DeviceId) -> Result<Option<DeviceRow>, DirectoryError>;
    /// Whether a device may have a session: it is not revoked, and its account is active.
    fn admits(&self, device: DeviceId) -> Result<bool, DirectoryError> {
        let Some(row) = self.device(device)?.filter(|row| row.revoked_ms.is_none()) else { return Ok(false) };
        Ok(self.account(row.account)?.is_some_and(|account| account.state == AccountState::Active))
    }
    /// The devices of an account that are not revoked, by ascending id.
    fn devices_of(&self, account: AccountId) -> Result<Vec<DeviceRow>, DirectoryError>;
    /// An access token, expired ones too as long as they are kept.
    fn access_token(&self, token: &Digest) -> Result<Option<AccessTokenRow>, DirectoryError>;
    /// A refresh token, used and expired ones too as long as they are kept.
    fn refresh_token(&self, token: &Digest) -> Result<Option<RefreshTokenRow>, DirectoryError>;
    /// What an idempotency key did.
    fn idempotency(&self, key: &Digest) -> Result<Option<IdempotencyRow>, DirectoryError>;
    /// The oldest rows of the outbox, by ascending number, at most `limit`.
    fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError>;
    /// Who the nodes of the cluster are; nothing while they are those that it was formed with.
    fn members(&self) -> Result<Option<MemberMap>, DirectoryError>;
}

/// Reads and writes of one transaction; reads see its own writes. A row replaces the one with the same key.
pub trait DirectoryTx: DirectoryRead {
    /// Writes the counters.
    fn put_meta(&mut self, meta: &Meta) -> Result<(), DirectoryError>;
    /// Writes an account. Its handle's key must not be another account's.
    fn put_account(&mut self, row: &AccountRow) -> Result<(), DirectoryError>;
    /// Writes a device.
    fn put_device(&mut self, row: &DeviceRow) -> Result<(), DirectoryError>;
    /// Writes an access token.
    fn put_access_token(&mut self, row: &AccessTokenRow) -> Result<(), DirectoryError>;
    /// Writes a refresh token.
    fn put_refresh_token(&mut self, row: &RefreshTokenRow) -> Result<(), DirectoryError>;
    /// Writes an idempotency key.
    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), DirectoryError>;
    /// Writes a row of the outbox.
    fn put_outbox(&mut self, row: &OutboxRow) -> Result<(), DirectoryError>;
    /// Writes who the nodes of the cluster are.
    fn put_members(&mut self, map: &MemberMap) -> Result<(), DirectoryError>;
    /// Removes the rows of the outbox up to `number`.
    fn remove_outbox(&mut self, number: u64) -> Result<(), DirectoryError>;
    /// Removes every token of a family.
    fn remove_family(&mut self, family: FamilyId) -> Result<(), DirectoryError>;
    /// Removes every token of a device.
    fn remove_tokens_of(&mut self, device: DeviceId) -> Result<(), DirectoryError>;
    /// Removes what expired at or before `now_ms`, the earliest first (then by key), at most `limit` rows of each kind:
    /// access tokens, refresh tokens, idempotency keys.
    fn purge(&mut self, now_ms: u64, limit: usize) -> Result<(), DirectoryError>;
}

/// A store as a whole: what the contract suite runs against.
pub trait DirectoryStore {
    /// Runs `work` in one transaction: all of it is kept if it succeeds, nothing if it fails.
    fn transaction(
        &mut self,
        work: &mut dyn FnMut(&mut dyn DirectoryTx) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError>;
    /// Reads what is committed.
    fn read(
        &self,
        work: &mut dyn FnMut(&dyn DirectoryRead) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError>;
}
