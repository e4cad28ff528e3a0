//! F1, F3, F4: processes that end or stand still at any instant.

use std::time::Duration;

use nix::sys::signal::Signal;
use rove_protocol::ids::PartitionId;
use tokio::time::Instant;

use super::Fired;
use super::stale::Asker;
use crate::arena::Arena;
use crate::nodes::NODES;

/// Two election time-outs of at most 10 ticks of 50 ms: whoever stood still so long has been replaced, and who died as well.
pub(crate) const TWO_ELECTIONS: Duration = Duration::from_secs(1);
/// Partitions must take posts again within this after a kill, or the run has failed. What is aimed at is [`TWO_ELECTIONS`]; a long run has
/// a budget of kills after which it takes longer, and this only ends the wait.
pub(super) const RECOVERS_WITHIN: Duration = Duration::from_secs(20);

/// F1: whoever leads most dies. The others must take posts on the partitions it led; then it comes back.
pub(super) async fn leader(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        // Everybody is where they belong before the next one dies.
        let calm = 1_500 + arena.rng.below(1_500);
        arena.pass(Duration::from_millis(calm)).await;
        let node = arena.watch.busiest();
        let led = arena.watch.led_by(node);
        arena.recorder.wait_for(&led);
        fired += u64::from(arena.nodes.kill(node));
        let what = format!("after the death of node {node}, which led {led:?}, its partitions take posts");
        let recovered = arena.until(&what, RECOVERS_WITHIN, |arena| arena.recorder.nothing_waits()).await;
        recovered.map_err(|error| format!("{error}: {}", arena.state()))?;
        arena.nodes.start(node);
        arena.nodes.serves(node).await?;
        let what = format!("node {node} is in step again");
        arena.until(&what, RECOVERS_WITHIN, |arena| arena.watch.in_step(node)).await?;
    }
    Ok(Fired::Times(fired))
}

/// F3: all die at once, and all come back.
pub(super) async fn all(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        arena.pass(Duration::from_millis(1_500)).await;
        fired += u64::from(NODES.into_iter().filter(|node| arena.nodes.kill(*node)).count() == NODES.len());
        for node in NODES {
            arena.nodes.start(node);
        }
        for node in NODES {
            arena.nodes.serves(node).await?;
        }
        arena.accepts_everywhere().await?;
    }
    Ok(Fired::Times(fired))
}

/// F4: a leader stands still until others lead, and then goes on as if nothing had been. It must not deny what it has missed.
pub(super) async fn pause(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        arena.pass(Duration::from_millis(500)).await;
        let node = arena.watch.busiest();
        let led = arena.watch.led_by(node);
        let partition = arena.rng.pick(&led).unwrap_or(PartitionId(1));
        let asker = Asker::at(arena, node, partition).await?;
        if !arena.nodes.signal(node, Signal::SIGSTOP) {
            return Err(format!("node {node} is gone: {}", arena.nodes.last_words(node)));
        }
        arena.pass(TWO_ELECTIONS).await;
        // It fired if another one leads meanwhile what it led.
        let others = NODES.into_iter().filter(|other| *other != node);
        let replaced = others.flat_map(|other| arena.watch.led_by(other)).any(|partition| led.contains(&partition));
        fired += u64::from(replaced);
        let asked = asker.ask(arena).await;
        arena.nodes.signal(node, Signal::SIGCONT);
        asked?.answered().await?;
        arena.accepts_everywhere().await?;
    }
    Ok(Fired::Times(fired))
}
