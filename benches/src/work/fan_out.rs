//! What the hub does with an event of a conversation that many have open, without its locks and the waking of tasks: it encodes the
//! frame once, finds out which members are online, and each of their streams takes a reference to the frame.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use rove_core::fanout::audience;
use rove_protocol::frame::put_frame;
use rove_protocol::ids::AccountId;
use rove_protocol::message::Body as _;
use rove_protocol::registry::{FrameType, Role};

use crate::sample;

/// A conversation whose members are all online.
#[derive(Debug)]
pub struct FanOut {
    members: BTreeMap<AccountId, Role>,
    online: BTreeSet<AccountId>,
    body: Bytes,
    /// What each stream has taken of the last event.
    taken: Vec<Bytes>,
}

impl FanOut {
    /// With so many members.
    pub fn to(members: u64) -> Self {
        let accounts = || (1..=members).map(AccountId);
        Self {
            members: accounts().map(|account| (account, Role::Member)).collect(),
            online: accounts().collect(),
            body: sample::event(1).encode_body().into(),
            taken: Vec::new(),
        }
    }

    /// One event, to all of them.
    ///
    /// # Panics
    /// If somebody was left out.
    pub fn publish(&mut self) {
        self.taken.clear();
        let mut frame = Vec::with_capacity(self.body.len() + 8);
        put_frame(FrameType::Event, &self.body, &mut frame);
        let frame = Bytes::from(frame);
        audience(&self.members, &self.online, &mut |_| self.taken.push(frame.clone()));
        assert_eq!(self.taken.len(), self.members.len());
    }
}
