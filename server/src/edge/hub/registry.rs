//! The sessions of this node: by number, by device, by account.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use rove_protocol::ids::{AccountId, DeviceId, SessionId};

use super::Subscriber;

#[derive(Default)]
pub(super) struct Registry {
    sessions: HashMap<SessionId, Arc<Subscriber>>,
    devices: HashMap<DeviceId, SessionId>,
    /// The accounts that have a session here, with their sessions.
    pub(super) accounts: BTreeMap<AccountId, Vec<Arc<Subscriber>>>,
}

impl Registry {
    /// Adds a session; the one it replaces comes back, already out of the registry.
    pub(super) fn add(&mut self, subscriber: &Arc<Subscriber>) -> Option<Arc<Subscriber>> {
        let older = self.of_device(subscriber.device).cloned();
        if let Some(older) = &older {
            self.remove(older);
        }
        self.sessions.insert(subscriber.session, subscriber.clone());
        self.devices.insert(subscriber.device, subscriber.session);
        self.accounts.entry(subscriber.account).or_default().push(subscriber.clone());
        older
    }

    /// Removes a session, if it is still there.
    pub(super) fn remove(&mut self, subscriber: &Subscriber) {
        if self.sessions.remove(&subscriber.session).is_none() {
            return;
        }
        if self.devices.get(&subscriber.device) == Some(&subscriber.session) {
            self.devices.remove(&subscriber.device);
        }
        if let Some(sessions) = self.accounts.get_mut(&subscriber.account) {
            sessions.retain(|session| session.session != subscriber.session);
            if sessions.is_empty() {
                self.accounts.remove(&subscriber.account);
            }
        }
    }

    pub(super) fn session(&self, session: SessionId) -> Option<&Arc<Subscriber>> {
        self.sessions.get(&session)
    }

    /// The sessions of an account.
    pub(super) fn of(&self, account: AccountId) -> &[Arc<Subscriber>] {
        self.accounts.get(&account).map_or(&[], Vec::as_slice)
    }

    /// The session of a device.
    pub(super) fn of_device(&self, device: DeviceId) -> Option<&Arc<Subscriber>> {
        self.devices.get(&device).and_then(|session| self.sessions.get(session))
    }

    /// Every session.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<Subscriber>> {
        self.sessions.values()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }
}
