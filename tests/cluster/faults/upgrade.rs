//! F33: a rolling upgrade to a binary that applies by one version more, leaders dying while there are two kinds, and somebody who starts the
//! old binary after it.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::Fired;
use crate::arena::Arena;
use crate::nodes::{Binary, NODES};

/// How long there is nothing but load between two restarts.
const MEANWHILE: Duration = Duration::from_secs(1);
/// A node drains, hands its leaders over and flushes within this.
const STOPS_WITHIN: Duration = Duration::from_secs(30);
/// To be in step again, or for the version to be raised once all can: both are looked at every second at most.
const SETTLES_WITHIN: Duration = Duration::from_secs(30);
/// What every node says when it is in force there.
const RAISED: &str = "the apply version is raised";
/// What the old binary says on a disk on which the new version is in force.
const REFUSED: &str = "apply version 2 is in force, and this binary has 1: start the binary";

/// Fires with each restart that leaves two kinds of binaries in the cluster, and each time an old one is refused.
pub(super) async fn rolling(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    let mut old = NODES.to_vec();
    while let Some(node) = arena.rng.pick(&old) {
        old.retain(|other| *other != node);
        arena.pass(MEANWHILE).await;
        stop(arena, node).await?;
        arena.nodes.install(node, Binary::Next);
        back(arena, node).await?;
        if !old.is_empty() {
            fired += 1;
            // Whichever kind it is of, the others go on with what it has said.
            let leader = arena.watch.busiest();
            arena.nodes.kill(leader);
            arena.accepts_everywhere().await?;
            back(arena, leader).await?;
        }
    }
    let raised = |arena: &mut Arena| NODES.into_iter().all(|node| arena.nodes.log(node).contains(RAISED));
    arena.until("the apply version is raised everywhere", SETTLES_WITHIN, raised).await?;
    arena.accepts_everywhere().await?;
    loop {
        let node = arena.watch.busiest();
        stop(arena, node).await?;
        arena.nodes.install(node, Binary::This);
        arena.nodes.start(node);
        let ended = arena.nodes.ends_within(node, SETTLES_WITHIN).await;
        let said = arena.nodes.last_words(node);
        if !said.contains(REFUSED) || ended.is_none_or(|status| status.success()) {
            return Err(format!("node {node} is to be refused with an old binary ({ended:?}): {said}"));
        }
        fired += 1;
        arena.nodes.install(node, Binary::Next);
        back(arena, node).await?;
        if Instant::now() >= until {
            return Ok(Fired::Times(fired));
        }
        arena.pass(MEANWHILE).await;
    }
}

/// As an operator stops it.
async fn stop(arena: &mut Arena, node: u64) -> Result<(), String> {
    arena.nodes.signal(node, Signal::SIGTERM);
    match arena.nodes.ends_within(node, STOPS_WITHIN).await {
        Some(status) if status.success() => Ok(()),
        other => Err(format!("node {node} does not stop as it should ({other:?}): {}", arena.nodes.last_words(node))),
    }
}

async fn back(arena: &mut Arena, node: u64) -> Result<(), String> {
    arena.nodes.start(node);
    arena.nodes.serves(node).await?;
    let what = format!("node {node} is in step again");
    arena.until(&what, SETTLES_WITHIN, |arena| arena.watch.in_step(node)).await
}
