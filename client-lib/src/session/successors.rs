//! A session on another node, made while this one goes on: because its node is leaving, or has been silent for long.

use std::sync::Arc;

use rove_client_core::doubt::Doubt;
use rove_protocol::message::GoAway;
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::Connection as _;
use tokio::task::JoinSet;

use super::activity::Activity;
use super::control::{Established, first_successor};
use super::{Fault, TaskEnd};
use crate::inner::{Inner, random};

/// Nodes that are tried, one after the other, in place of one that is leaving.
const SUCCESSORS: usize = 4;

/// What is under way to other nodes.
#[derive(Default)]
pub(super) struct Successors {
    /// Since when another node is asked because this one is silent.
    doubted_at_ms: Option<u64>,
    doubt: Doubt,
    /// What [`Activity::networks`] said last.
    networks: usize,
}

impl Successors {
    /// The node is leaving and names others. With nowhere to go the session ends with it, and the same address is tried again.
    pub(super) fn leave(inner: &Arc<Inner>, going: &GoAway, tasks: &mut JoinSet<TaskEnd>) {
        let others = going.alternatives.iter().take(SUCCESSORS).map(|alternative| alternative.address.clone());
        let others: Vec<String> = others.collect();
        tracing::info!(code = %going.code, deadline_ms = going.deadline_ms, ?others, "the node is leaving");
        begin(inner, others, tasks);
    }

    /// Whether no other node is asked because of silence.
    pub(super) fn trusts(&self) -> bool {
        self.doubted_at_ms.is_none()
    }

    /// The node has been silent for long: another, if there is one, is asked meanwhile, unless that was in vain just now.
    pub(super) fn doubt(&mut self, inner: &Arc<Inner>, activity: &Activity, tasks: &mut JoinSet<TaskEnd>) {
        let networks = activity.networks();
        if std::mem::replace(&mut self.networks, networks) != networks {
            self.doubt.reset();
        }
        if !self.doubt.asks(activity.heard_ms(), activity.prompt_ms(), inner.now_ms()) {
            return;
        }
        let others = inner.places.lock().elsewhere();
        tracing::debug!(?others, "the node is silent");
        if begin(inner, others, tasks) {
            self.doubted_at_ms = Some(inner.now_ms());
        }
    }

    /// Another node has answered, or none. Returns the session to go on with, unless this node was heard after it was doubted.
    pub(super) fn decide(
        &mut self,
        inner: &Inner,
        activity: &Activity,
        outcome: Result<Box<Established>, Fault>,
    ) -> Option<Box<Established>> {
        let doubted_at_ms = self.doubted_at_ms.take();
        let heard = doubted_at_ms.is_some_and(|at_ms| activity.heard_ms() > at_ms);
        if heard || (doubted_at_ms.is_some() && outcome.is_err()) {
            self.doubt.asked_in_vain(inner.now_ms(), random());
        }
        match outcome {
            Ok(successor) if heard => {
                successor.connection.close(ErrorCode::None, "not needed");
                None
            }
            Ok(successor) => Some(successor),
            // The old session goes on until the node, or its silence, ends it.
            Err(fault) => {
                tracing::debug!(?fault, "no successor yet");
                None
            }
        }
    }
}

/// Asks the others in turn; false if there are none.
fn begin(inner: &Arc<Inner>, others: Vec<String>, tasks: &mut JoinSet<TaskEnd>) -> bool {
    let any = !others.is_empty();
    if any {
        let inner = inner.clone();
        tasks.spawn(async move { TaskEnd::Successor(first_successor(&inner, &others).await) });
    }
    any
}
