//! A session on another node, made while this one goes on: because its node is leaving, or has been silent for long.

use std::sync::Arc;

use rove_protocol::message::GoAway;
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::Connection as _;
use tokio::task::JoinSet;

use super::control::{Established, first_successor};
use super::{Fault, TaskEnd};
use crate::inner::Inner;

/// Nodes that are tried, one after the other, in place of one that is leaving.
const SUCCESSORS: usize = 4;

/// What is under way to other nodes.
#[derive(Default)]
pub(super) struct Successors {
    /// Since when another node is asked because this one is silent.
    doubted_at_ms: Option<u64>,
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

    /// The node has been silent for long: another, if there is one, is asked meanwhile.
    pub(super) fn doubt(&mut self, inner: &Arc<Inner>, tasks: &mut JoinSet<TaskEnd>) {
        let others = inner.places.lock().elsewhere();
        tracing::debug!(?others, "the node is silent");
        if begin(inner, others, tasks) {
            self.doubted_at_ms = Some(inner.now_ms());
        }
    }

    /// Another node has answered, or none. Returns the session to go on with, unless this node was heard after it was doubted, at
    /// `heard_ms`.
    pub(super) fn decide(
        &mut self,
        outcome: Result<Box<Established>, Fault>,
        heard_ms: u64,
    ) -> Option<Box<Established>> {
        let doubted_at_ms = self.doubted_at_ms.take();
        match outcome {
            Ok(successor) if doubted_at_ms.is_some_and(|at_ms| heard_ms > at_ms) => {
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
