//! The directory's state machine: one entry of its log in, changed rows and effects out.

mod recorder;
mod sign_in;
#[cfg(test)]
mod tests;
mod tokens;

use rove_protocol::ids::{AccountId, DeviceId};
use rove_protocol::registry::ErrorCode;

use self::recorder::Recorder;
use super::command::{DirectoryCommand, DirectoryEffect, DirectoryOutcome};
use super::error::DirectoryError;
use super::rows::{AccountRow, AccountState, DeviceRow, Meta, OutboxRow};
use super::store::{DirectoryRead, DirectoryTx};
use super::{DEVICES, PURGED_PER_COMMAND};
use crate::apply_version::ApplyVersions;
use crate::command::{Actor, Batch, Gate};
use crate::membership::MemberMap;

/// Applies the directory's log. Holds nothing but the counters of the last applied entry.
#[derive(Debug, Clone)]
pub struct DirectoryMachine {
    versions: ApplyVersions,
    meta: Meta,
}

impl DirectoryMachine {
    /// Continues where `store` stands.
    ///
    /// # Errors
    /// Those of the store, and [`DirectoryError::ApplyVersion`].
    pub fn load(store: &(impl DirectoryRead + ?Sized)) -> Result<Self, DirectoryError> {
        Self::load_with(store, ApplyVersions::THIS)
    }

    /// The same, of a binary that has `versions` of apply.
    ///
    /// # Errors
    /// As [`DirectoryMachine::load`].
    pub fn load_with(store: &(impl DirectoryRead + ?Sized), versions: ApplyVersions) -> Result<Self, DirectoryError> {
        let meta = store.meta()?;
        versions.check(meta.apply_version)?;
        Ok(Self { versions, meta })
    }

    /// The version of apply that is in force (D8).
    pub fn apply_version(&self) -> u16 {
        self.meta.apply_version
    }

    /// The last applied index.
    pub fn applied(&self) -> u64 {
        self.meta.applied
    }

    /// The chain over every change so far: equal on every replica that applied the same entries.
    pub fn state_hash(&self) -> u64 {
        self.meta.state_hash
    }

    /// Applies one committed entry: its changes and the applied index go into `tx`, what to tell whom is appended to
    /// `effects`, to be acted on once `tx` is committed. Empty data (a new leader's entry) only moves the index; an
    /// entry at or below the applied index does nothing.
    ///
    /// # Errors
    /// The store's, and entries that are missing or do not decode. The machine is then as before: roll `tx` back.
    pub fn apply(
        &mut self,
        tx: &mut (impl DirectoryTx + ?Sized),
        index: u64,
        data: &[u8],
        effects: &mut Vec<DirectoryEffect>,
    ) -> Result<(), DirectoryError> {
        if index <= self.meta.applied {
            return Ok(());
        }
        if index != self.meta.applied + 1 {
            return Err(DirectoryError::Gap { expected: self.meta.applied + 1, got: index });
        }
        let told = effects.len();
        match self.apply_next(tx, index, data, effects) {
            Ok(meta) => {
                self.meta = meta;
                Ok(())
            }
            Err(error) => {
                effects.truncate(told);
                Err(error)
            }
        }
    }

    fn apply_next(
        &self,
        tx: &mut (impl DirectoryTx + ?Sized),
        index: u64,
        data: &[u8],
        effects: &mut Vec<DirectoryEffect>,
    ) -> Result<Meta, DirectoryError> {
        let mut meta = self.meta.clone();
        meta.applied = index;
        let recorder = Recorder::new(tx, meta.state_hash, index);
        let mut step = Step { tx: recorder, versions: self.versions, meta, effects };
        if !data.is_empty() {
            let batch = Batch::decode(data).map_err(|source| DirectoryError::Entry { index, source })?;
            // The directory's clock never goes back, whatever the leaders' do.
            step.meta.time_ms = step.meta.time_ms.max(batch.time_ms);
            for envelope in &batch.commands {
                let command = DirectoryCommand::decode(&envelope.command)
                    .map_err(|source| DirectoryError::Entry { index, source })?;
                let outcome = step.run(command)?;
                if envelope.origin.ticket != 0 {
                    step.effects.push(DirectoryEffect::Answer { origin: envelope.origin, outcome });
                }
            }
            step.tx.purge(step.meta.time_ms, PURGED_PER_COMMAND * batch.commands.len())?;
        }
        let Step { tx: recorder, mut meta, .. } = step;
        meta.state_hash = recorder.finish(&meta);
        tx.put_meta(&meta)?;
        Ok(meta)
    }
}

/// One entry being applied.
struct Step<'a, T: DirectoryTx + ?Sized> {
    tx: Recorder<'a, T>,
    versions: ApplyVersions,
    meta: Meta,
    effects: &'a mut Vec<DirectoryEffect>,
}

impl<T: DirectoryTx + ?Sized> Step<'_, T> {
    fn run(&mut self, command: DirectoryCommand) -> Result<DirectoryOutcome, DirectoryError> {
        match command {
            DirectoryCommand::SignUp { handle, name, password_hash, device, idempotency } => {
                self.sign_up(&handle, name, password_hash, device, idempotency)
            }
            DirectoryCommand::AddDevice { account, verified, device, idempotency } => {
                self.add_device(account, &verified, device, idempotency)
            }
            DirectoryCommand::Reissue { account, device, verified, credentials } => {
                self.reissue(account, device, &verified, &credentials)
            }
            DirectoryCommand::RotateRefresh { presented, access, refresh } => {
                self.rotate(&presented, &access, &refresh)
            }
            DirectoryCommand::RevokeDevice { actor, device } => self.revoke_device(actor, device),
            DirectoryCommand::SuspendAccount { account } => self.suspend(account),
            DirectoryCommand::RestoreAccount { account } => self.restore(account),
            DirectoryCommand::GateDone { number } => {
                let number = number.min(self.meta.last_gate);
                self.tx.remove_outbox(number)?;
                self.effects.push(DirectoryEffect::GatesDone(number));
                Ok(DirectoryOutcome::Done)
            }
            DirectoryCommand::ChangeMembers { map } => self.change_members(map),
            DirectoryCommand::RaiseApplyVersion { version, members } => self.raise(version, members),
        }
    }

    fn change_members(&mut self, map: MemberMap) -> Result<DirectoryOutcome, DirectoryError> {
        if !map.may_follow(self.tx.members()?.as_ref()) {
            return Ok(DirectoryOutcome::Overtaken);
        }
        self.tx.put_members(&map)?;
        self.effects.push(DirectoryEffect::Members(map));
        Ok(DirectoryOutcome::Done)
    }

    fn raise(&mut self, version: u16, members: u64) -> Result<DirectoryOutcome, DirectoryError> {
        if version <= self.meta.apply_version {
            return Ok(DirectoryOutcome::Done);
        }
        // Nobody may have come meanwhile who was not asked.
        if self.tx.members()?.map_or(0, |map| map.version) != members {
            return Ok(DirectoryOutcome::Overtaken);
        }
        self.versions.check(version)?;
        self.meta.apply_version = version;
        self.tx.apply_version(version)?;
        self.effects.push(DirectoryEffect::ApplyVersion(version));
        self.gate(Gate::ApplyVersion(version))
    }

    /// The account and device if both may act, or why not.
    fn active(
        &self,
        account: AccountId,
        device: DeviceId,
    ) -> Result<Result<(AccountRow, DeviceRow), ErrorCode>, DirectoryError> {
        let (Some(account), Some(device)) = (self.tx.account(account)?, self.tx.device(device)?) else {
            return Ok(Err(ErrorCode::Unauthenticated));
        };
        if device.account != account.id {
            return Ok(Err(ErrorCode::Unauthenticated));
        }
        if account.state == AccountState::Suspended || device.revoked_ms.is_some() {
            return Ok(Err(ErrorCode::Revoked));
        }
        Ok(Ok((account, device)))
    }

    fn revoke_device(&mut self, actor: Actor, device: DeviceId) -> Result<DirectoryOutcome, DirectoryError> {
        if let Err(code) = self.active(actor.account, actor.device)? {
            return Ok(DirectoryOutcome::Failed(code));
        }
        // Another account's device is not told apart from none at all.
        let Some(mut row) = self.tx.device(device)?.filter(|row| row.account == actor.account) else {
            return Ok(DirectoryOutcome::Failed(ErrorCode::NotFound));
        };
        if row.revoked_ms.is_some() {
            return Ok(DirectoryOutcome::Done);
        }
        row.revoked_ms = Some(self.meta.time_ms);
        self.tx.put_device(&row)?;
        self.tx.remove_tokens_of(device)?;
        self.effects.push(DirectoryEffect::DeviceRevoked(device));
        self.gate(Gate::DeviceRevoked(device))
    }

    fn suspend(&mut self, account: AccountId) -> Result<DirectoryOutcome, DirectoryError> {
        let Some(mut row) = self.tx.account(account)? else {
            return Ok(DirectoryOutcome::Failed(ErrorCode::NotFound));
        };
        if row.state == AccountState::Suspended {
            return Ok(DirectoryOutcome::Done);
        }
        row.state = AccountState::Suspended;
        self.tx.put_account(&row)?;
        for device in self.tx.devices_of(account)? {
            self.effects.push(DirectoryEffect::DeviceRevoked(device.id));
        }
        self.gate(Gate::AccountSuspended(account))
    }

    fn restore(&mut self, account: AccountId) -> Result<DirectoryOutcome, DirectoryError> {
        let Some(mut row) = self.tx.account(account)? else {
            return Ok(DirectoryOutcome::Failed(ErrorCode::NotFound));
        };
        if row.state == AccountState::Active {
            return Ok(DirectoryOutcome::Done);
        }
        row.state = AccountState::Active;
        self.tx.put_account(&row)?;
        self.gate(Gate::AccountRestored(account))
    }

    /// Puts a gate into the outbox.
    fn gate(&mut self, gate: Gate) -> Result<DirectoryOutcome, DirectoryError> {
        self.meta.last_gate += 1;
        let number = self.meta.last_gate;
        self.tx.put_outbox(&OutboxRow { number, gate })?;
        self.effects.push(DirectoryEffect::OutboxGrew);
        Ok(DirectoryOutcome::Gated { number })
    }

    /// Whether the account has as many devices as it may.
    fn full(&self, account: AccountId) -> Result<bool, DirectoryError> {
        Ok(self.tx.devices_of(account)?.len() >= DEVICES)
    }
}
