//! F31: leaders are moved as fast as an operator's command can be given, of all partitions.

use std::process::Stdio;
use std::time::Duration;

use rove_protocol::ids::PartitionId;
use rove_tests::server::binary;
use tokio::process::Command;
use tokio::time::{Instant, timeout};

use super::Fired;
use crate::arena::Arena;
use crate::nodes::NODES;
use crate::recorder::PARTITIONS;

/// A command that takes longer has failed.
const ANSWERED_WITHIN: Duration = Duration::from_secs(10);

/// Who leads a partition, as the nodes say.
fn leader(arena: &Arena, partition: PartitionId) -> Option<u64> {
    NODES.into_iter().find(|node| arena.watch.led_by(*node).contains(&partition))
}

/// F31. It fires as often as somebody else led a moment after the command than before it.
pub(super) async fn storm(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let (mut fired, mut refused) = (0, 0);
    let mut last: Option<(PartitionId, Option<u64>)> = None;
    while fired == 0 || Instant::now() < until {
        for number in 1..=PARTITIONS {
            let partition = PartitionId(number);
            let to = arena.rng.pick(&NODES).unwrap_or(1);
            let before = leader(arena, partition);
            let answered = transfer(arena, partition, to).await?;
            refused += u64::from(!answered);
            if let Some((moved, from)) = last.replace((partition, before)) {
                let now = leader(arena, moved);
                fired += u64::from(now.is_some() && from.is_some() && now != from);
            }
        }
        if Instant::now() > until + ANSWERED_WITHIN {
            return Err(format!("no leader was moved; {refused} commands were refused"));
        }
    }
    arena.accepts_everywhere().await.map_err(|error| format!("after the storm: {error}: {}", arena.state()))?;
    Ok(Fired::Times(fired))
}

/// Whether the command says that it has been done; it may say that it cannot be done now.
async fn transfer(arena: &Arena, partition: PartitionId, to: u64) -> Result<bool, String> {
    let command = Command::new(binary("rove-server"))
        .args(["cluster", "transfer-leader", &partition.0.to_string(), &to.to_string(), "--config"])
        .arg(arena.nodes.home(1).dir.join("rove.toml"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status();
    let ended = timeout(ANSWERED_WITHIN, command).await;
    let status = ended.map_err(|_| format!("moving {partition} to node {to} takes too long"))?;
    Ok(status.map_err(|error| format!("rove-server cannot be run: {error}"))?.success())
}
