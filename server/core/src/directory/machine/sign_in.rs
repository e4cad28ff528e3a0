//! Signing up and in.

use rove_protocol::ids::{AccountId, DeviceId};
use rove_protocol::registry::ErrorCode;

use super::Step;
use crate::directory::IDEMPOTENCY_MS;
use crate::directory::command::{Credentials, DirectoryOutcome, NewDevice};
use crate::directory::error::DirectoryError;
use crate::directory::handle::Handle;
use crate::directory::rows::{
    AccessTokenRow, AccountRow, AccountState, DeviceRow, Digest, FamilyId, IdempotencyRow, RefreshTokenRow,
};
use crate::directory::store::{DirectoryRead, DirectoryTx};

impl<T: DirectoryTx + ?Sized> Step<'_, T> {
    pub(super) fn sign_up(
        &mut self,
        handle: &Handle,
        name: String,
        password_hash: String,
        device: NewDevice,
        idempotency: Option<Digest>,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        if let Some(row) = self.remembered(idempotency)? {
            return Ok(DirectoryOutcome::Repeated { account: row.account, device: row.device });
        }
        if self.tx.account_by_handle(handle.key())?.is_some() {
            return Ok(DirectoryOutcome::Failed(ErrorCode::NameTaken));
        }
        self.meta.last_account += 1;
        let account = AccountRow {
            id: AccountId(self.meta.last_account),
            handle: handle.as_str().to_owned(),
            handle_key: handle.key().to_owned(),
            name,
            password_hash,
            state: AccountState::Active,
            created_ms: self.meta.time_ms,
        };
        self.tx.put_account(&account)?;
        self.new_device(account.id, device, idempotency)
    }

    pub(super) fn add_device(
        &mut self,
        account: AccountId,
        verified: &str,
        device: NewDevice,
        idempotency: Option<Digest>,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        if let Err(code) = self.proven(account, verified)? {
            return Ok(DirectoryOutcome::Failed(code));
        }
        // The reply to the first request was lost: the same device again, with credentials somebody has received.
        if let Some(row) = self.remembered(idempotency)?
            && row.account == account
            && let Ok((_, known)) = self.active(account, row.device)?
        {
            return self.issue_anew(known, &device.credentials);
        }
        if self.full(account)? {
            return Ok(DirectoryOutcome::Failed(ErrorCode::LimitExceeded));
        }
        self.new_device(account, device, idempotency)
    }

    pub(super) fn reissue(
        &mut self,
        account: AccountId,
        device: DeviceId,
        verified: &str,
        credentials: &Credentials,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        if let Err(code) = self.proven(account, verified)? {
            return Ok(DirectoryOutcome::Failed(code));
        }
        match self.active(account, device)? {
            Ok((_, row)) => self.issue_anew(row, credentials),
            Err(code) => Ok(DirectoryOutcome::Failed(code)),
        }
    }

    /// Whether the password that was verified is still the account's, and the account may do anything.
    fn proven(&self, account: AccountId, verified: &str) -> Result<Result<(), ErrorCode>, DirectoryError> {
        Ok(match self.tx.account(account)? {
            Some(row) if row.password_hash == verified => match row.state {
                AccountState::Active => Ok(()),
                AccountState::Suspended => Err(ErrorCode::Revoked),
            },
            _ => Err(ErrorCode::Unauthenticated),
        })
    }

    /// What the key did, if it is still remembered.
    fn remembered(&self, key: Option<Digest>) -> Result<Option<IdempotencyRow>, DirectoryError> {
        let Some(key) = key else { return Ok(None) };
        Ok(self.tx.idempotency(&key)?.filter(|row| row.expires_ms > self.meta.time_ms))
    }

    fn new_device(
        &mut self,
        account: AccountId,
        device: NewDevice,
        idempotency: Option<Digest>,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        self.meta.last_device += 1;
        let row = DeviceRow {
            id: DeviceId(self.meta.last_device),
            account,
            name: device.name,
            secret: device.credentials.secret,
            created_ms: self.meta.time_ms,
            revoked_ms: None,
        };
        self.tx.put_device(&row)?;
        if let Some(key) = idempotency {
            let expires_ms = self.meta.time_ms.saturating_add(IDEMPOTENCY_MS);
            self.tx.put_idempotency(&IdempotencyRow { key, account, device: row.id, expires_ms })?;
        }
        self.new_family(account, row.id, &device.credentials)?;
        Ok(DirectoryOutcome::SignedIn { account, device: row.id })
    }

    fn issue_anew(
        &mut self,
        mut row: DeviceRow,
        credentials: &Credentials,
    ) -> Result<DirectoryOutcome, DirectoryError> {
        row.secret = credentials.secret;
        self.tx.put_device(&row)?;
        self.tx.remove_tokens_of(row.id)?;
        self.new_family(row.account, row.id, credentials)?;
        Ok(DirectoryOutcome::SignedIn { account: row.account, device: row.id })
    }

    fn new_family(
        &mut self,
        account: AccountId,
        device: DeviceId,
        credentials: &Credentials,
    ) -> Result<(), DirectoryError> {
        self.meta.last_family += 1;
        let family = FamilyId(self.meta.last_family);
        let Credentials { access, refresh, .. } = credentials;
        self.tx.put_access_token(&AccessTokenRow {
            token: access.token,
            account,
            device,
            family,
            expires_ms: self.meta.time_ms.saturating_add(access.lifetime_ms),
        })?;
        self.tx.put_refresh_token(&RefreshTokenRow {
            token: refresh.token,
            account,
            device,
            family,
            expires_ms: self.meta.time_ms.saturating_add(refresh.lifetime_ms),
            used_ms: None,
            successor: None,
        })
    }
}
