//! Where the node sends what happened.

use std::sync::Arc;

use rove_core::command::Effect;
use rove_protocol::ids::{DeviceId, PartitionId};

/// Hears what the state writer applied. Implemented by the edge's fan-out.
///
/// Called on the state writer's thread, after the rows are written and in the order of each partition's log: it must not block,
/// and what it is told is not told again.
pub trait EffectSink: Send + Sync + 'static {
    /// What one round of `partition` did, in order.
    fn publish(&self, partition: PartitionId, effects: &[Effect]);

    /// The state of `partition` jumped: a snapshot took its place, and what lies between was applied elsewhere and is not published
    /// here. `last_hi` is the time part of its last message id (D10). Called where [`EffectSink::publish`] is.
    fn reset(&self, partition: PartitionId, last_hi: u64);
}

/// Hears what the directory decided. Called on the directory writer's thread: it must not block.
pub trait DirectorySink: Send + Sync + 'static {
    /// The device was revoked, or its account suspended: its sessions end now.
    fn device_revoked(&self, device: DeviceId);

    /// The devices that would want to hear it now. When the directory jumps, as a snapshot takes its place, those that were revoked
    /// meanwhile are told from them.
    fn devices(&self) -> Vec<DeviceId>;
}

/// Everybody who wants to hear.
#[derive(Clone)]
pub struct Sinks {
    /// Conversations.
    pub effects: Arc<dyn EffectSink>,
    /// The directory.
    pub directory: Arc<dyn DirectorySink>,
}

/// Hears nothing: for tests and tools.
pub struct NoSink;

impl EffectSink for NoSink {
    fn publish(&self, _partition: PartitionId, _effects: &[Effect]) {}
    fn reset(&self, _partition: PartitionId, _last_hi: u64) {}
}

impl DirectorySink for NoSink {
    fn device_revoked(&self, _device: DeviceId) {}
    fn devices(&self) -> Vec<DeviceId> {
        Vec::new()
    }
}

impl Sinks {
    /// Nobody listens.
    pub fn none() -> Self {
        Self { effects: Arc::new(NoSink), directory: Arc::new(NoSink) }
    }
}
