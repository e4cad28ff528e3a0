//! The directory in maps, for tests and the simulator.

use std::collections::BTreeMap;

use rove_protocol::ids::{AccountId, DeviceId};

use super::error::DirectoryError;
use super::rows::{
    AccessTokenRow, AccountRow, DeviceRow, Digest, FamilyId, IdempotencyRow, Meta, OutboxRow, RefreshTokenRow,
};
use super::store::{DirectoryRead, DirectoryStore, DirectoryTx};
use crate::membership::MemberMap;

/// A directory in memory. Used as a transaction directly, it has no way back; through
/// [`DirectoryStore::transaction`] it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MemoryDirectory {
    meta: Meta,
    accounts: BTreeMap<AccountId, AccountRow>,
    handles: BTreeMap<String, AccountId>,
    devices: BTreeMap<DeviceId, DeviceRow>,
    access: BTreeMap<Digest, AccessTokenRow>,
    refresh: BTreeMap<Digest, RefreshTokenRow>,
    idempotency: BTreeMap<Digest, IdempotencyRow>,
    outbox: BTreeMap<u64, OutboxRow>,
    members: Option<MemberMap>,
}

impl DirectoryRead for MemoryDirectory {
    fn meta(&self) -> Result<Meta, DirectoryError> {
        Ok(self.meta.clone())
    }
    fn account(&self, id: AccountId) -> Result<Option<AccountRow>, DirectoryError> {
        Ok(self.accounts.get(&id).cloned())
    }
    fn account_by_handle(&self, key: &str) -> Result<Option<AccountRow>, DirectoryError> {
        Ok(self.handles.get(key).and_then(|id| self.accounts.get(id)).cloned())
    }
    fn device(&self, id: DeviceId) -> Result<Option<DeviceRow>, DirectoryError> {
        Ok(self.devices.get(&id).cloned())
    }
    fn devices_of(&self, account: AccountId) -> Result<Vec<DeviceRow>, DirectoryError> {
        let mine = self.devices.values().filter(|row| row.account == account && row.revoked_ms.is_none());
        Ok(mine.cloned().collect())
    }
    fn access_token(&self, token: &Digest) -> Result<Option<AccessTokenRow>, DirectoryError> {
        Ok(self.access.get(token).cloned())
    }
    fn refresh_token(&self, token: &Digest) -> Result<Option<RefreshTokenRow>, DirectoryError> {
        Ok(self.refresh.get(token).cloned())
    }
    fn idempotency(&self, key: &Digest) -> Result<Option<IdempotencyRow>, DirectoryError> {
        Ok(self.idempotency.get(key).cloned())
    }
    fn outbox(&self, limit: usize) -> Result<Vec<OutboxRow>, DirectoryError> {
        Ok(self.outbox.values().take(limit).cloned().collect())
    }
    fn members(&self) -> Result<Option<MemberMap>, DirectoryError> {
        Ok(self.members.clone())
    }
}

impl DirectoryTx for MemoryDirectory {
    fn put_meta(&mut self, meta: &Meta) -> Result<(), DirectoryError> {
        self.meta = meta.clone();
        Ok(())
    }
    fn put_account(&mut self, row: &AccountRow) -> Result<(), DirectoryError> {
        if self.handles.get(&row.handle_key).is_some_and(|owner| *owner != row.id) {
            return Err(DirectoryError::Store(format!("the handle {} has an owner", row.handle_key)));
        }
        if let Some(old) = self.accounts.insert(row.id, row.clone()) {
            self.handles.remove(&old.handle_key);
        }
        self.handles.insert(row.handle_key.clone(), row.id);
        Ok(())
    }
    fn put_device(&mut self, row: &DeviceRow) -> Result<(), DirectoryError> {
        self.devices.insert(row.id, row.clone());
        Ok(())
    }
    fn put_access_token(&mut self, row: &AccessTokenRow) -> Result<(), DirectoryError> {
        self.access.insert(row.token, row.clone());
        Ok(())
    }
    fn put_refresh_token(&mut self, row: &RefreshTokenRow) -> Result<(), DirectoryError> {
        self.refresh.insert(row.token, row.clone());
        Ok(())
    }
    fn put_idempotency(&mut self, row: &IdempotencyRow) -> Result<(), DirectoryError> {
        self.idempotency.insert(row.key, row.clone());
        Ok(())
    }
    fn put_outbox(&mut self, row: &OutboxRow) -> Result<(), DirectoryError> {
        self.outbox.insert(row.number, row.clone());
        Ok(())
    }
    fn put_members(&mut self, map: &MemberMap) -> Result<(), DirectoryError> {
        self.members = Some(map.clone());
        Ok(())
    }
    fn remove_outbox(&mut self, number: u64) -> Result<(), DirectoryError> {
        self.outbox.retain(|key, _| *key > number);
        Ok(())
    }
    fn remove_family(&mut self, family: FamilyId) -> Result<(), DirectoryError> {
        self.access.retain(|_, row| row.family != family);
        self.refresh.retain(|_, row| row.family != family);
        Ok(())
    }
    fn remove_tokens_of(&mut self, device: DeviceId) -> Result<(), DirectoryError> {
        self.access.retain(|_, row| row.device != device);
        self.refresh.retain(|_, row| row.device != device);
        Ok(())
    }
    fn purge(&mut self, now_ms: u64, limit: usize) -> Result<(), DirectoryError> {
        fn purge<R>(table: &mut BTreeMap<Digest, R>, now_ms: u64, limit: usize, expires: impl Fn(&R) -> u64) {
            let mut expired: Vec<(u64, Digest)> = table
                .iter()
                .map(|(key, row)| (expires(row), *key))
                .filter(|(expires_ms, _)| *expires_ms <= now_ms)
                .collect();
            expired.sort_unstable();
            for (_, key) in expired.into_iter().take(limit) {
                table.remove(&key);
            }
        }
        purge(&mut self.access, now_ms, limit, |row| row.expires_ms);
        purge(&mut self.refresh, now_ms, limit, |row| row.expires_ms);
        purge(&mut self.idempotency, now_ms, limit, |row| row.expires_ms);
        Ok(())
    }
}

impl DirectoryStore for MemoryDirectory {
    fn transaction(
        &mut self,
        work: &mut dyn FnMut(&mut dyn DirectoryTx) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        let mut copy = self.clone();
        work(&mut copy)?;
        *self = copy;
        Ok(())
    }
    fn read(
        &self,
        work: &mut dyn FnMut(&dyn DirectoryRead) -> Result<(), DirectoryError>,
    ) -> Result<(), DirectoryError> {
        work(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_keeps_what_every_directory_store_keeps() {
        crate::directory::contract::suite(MemoryDirectory::default);
    }
}
