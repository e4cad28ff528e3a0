//! F4, F26 and F32: a node was away while the others wrote more than they keep for it, so that it needs snapshots.

use std::fs;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::{Fired, Tally, links};
use crate::arena::Arena;
use crate::nodes::{NODES, Nodes};
use crate::relay::Rule;

/// How long the node is away: the load writes more than is kept many times over, and the others flush what they have applied.
const AWAY: Duration = Duration::from_secs(4);
/// A snapshot begins within this: the node starts, the connection comes back, and the leader notices.
const BEGINS_WITHIN: Duration = Duration::from_secs(20);
/// All partitions have come, one after the other, and what was written meanwhile.
pub(super) const CATCHES_UP_WITHIN: Duration = Duration::from_secs(60);
/// A few hundred kilobytes take about a second, so that there is a middle to be killed in.
const PACED: Rule = Rule { cut: false, loss: 0, twice: 0, jitter_ms: 0, rate: 4_000_000 };
/// As in F26: what everybody writes is already more than this carries.
const SLOW: Rule = Rule { cut: false, loss: 0, twice: 0, jitter_ms: 0, rate: 256_000 };
/// How long the slow link holds, once a snapshot is on it: many election time-outs.
const HOLDS: Duration = Duration::from_secs(6);

const BEGUN: &str = "a snapshot is coming in";
const TAKEN: &str = "a snapshot takes the place of the state";
const INSTALLED: &str = "a snapshot is installed";
const LEADERLESS: &str = "no leader of the partition can be reached";

/// The nodes keep little and flush often, so that seconds are enough to need a snapshot.
pub(super) fn keep_little(nodes: &mut Nodes) -> Result<(), String> {
    for node in NODES {
        let path = nodes.home(node).dir.join("rove.toml");
        let failed = |error: std::io::Error| format!("{}: {error}", path.display());
        let config = fs::read_to_string(&path).map_err(failed)?;
        let config = config.replace("\n# flush_s = 30\n", "\nflush_s = 1\n");
        let config = config.replace("\n[cluster]\n", "\n[cluster]\nkeep_log = 20\n");
        if !(config.contains("\nflush_s = 1\n") && config.contains("\nkeep_log = 20\n")) {
            return Err(format!("{} has no place for what is kept", path.display()));
        }
        fs::write(&path, config).map_err(failed)?;
    }
    Ok(())
}

/// Kills a node that leads little, and lets the others go on without it. Returns it, and where its log ended.
pub(super) async fn away(arena: &mut Arena) -> (u64, usize) {
    let node = NODES.into_iter().min_by_key(|node| arena.watch.led_by(*node).len()).unwrap_or(3);
    arena.nodes.kill(node);
    arena.pass(AWAY).await;
    (node, arena.nodes.log(node).len())
}

fn says(arena: &Arena, node: u64, since: usize, words: &str) -> bool {
    arena.nodes.log(node).get(since..).is_some_and(|news| news.contains(words))
}

/// F32: the node dies in turn when its snapshot is half there, when raft has taken it, and when it is installed; each time it comes back
/// and catches up.
pub(super) async fn killed_installs(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let moments = [BEGUN, TAKEN, INSTALLED];
    let (mut fired, mut round) = (Tally::of(moments), 0);
    while round == 0 || Instant::now() < until {
        let place = fired.turn(round);
        let words = moments[place];
        let (node, since) = away(arena).await;
        links::others(node).for_each(|other| arena.mesh.links.set(other, node, PACED));
        arena.nodes.start(node);
        let what = format!("node {node} says: {words}");
        let said = arena.until(&what, BEGINS_WITHIN, |arena| says(arena, node, since, words)).await;
        said.map_err(|error| format!("{error}: {}", arena.nodes.last_words(node)))?;
        // Anywhere in it.
        let later = arena.rng.below(if words == BEGUN { 500 } else { 20 });
        arena.pass(Duration::from_millis(later)).await;
        arena.nodes.kill(node);
        arena.mesh.links.heal();
        arena.nodes.start(node);
        arena.nodes.serves(node).await?;
        let what = format!("node {node} catches up after it was killed at {words:?}");
        let caught_up = arena.until(&what, CATCHES_UP_WITHIN, |arena| arena.watch.in_step(node)).await;
        caught_up.map_err(|error| format!("{error}: {}", arena.state()))?;
        if !says(arena, node, since, INSTALLED) {
            return Err(format!("node {node} has caught up without a snapshot"));
        }
        fired.count(place, true);
        round += 1;
    }
    Ok(Fired::Each(fired))
}

/// F4: a node stands still until it needs snapshots, with all its sessions, and then goes on as if nothing had been.
pub(super) async fn paused(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = arena.watch.busiest();
        let since = arena.nodes.log(node).len();
        if !arena.nodes.signal(node, Signal::SIGSTOP) {
            return Err(format!("node {node} is gone: {}", arena.nodes.last_words(node)));
        }
        arena.pass(AWAY).await;
        arena.nodes.signal(node, Signal::SIGCONT);
        let what = format!("node {node} says: {INSTALLED}");
        let said = arena.until(&what, BEGINS_WITHIN, |arena| says(arena, node, since, INSTALLED)).await;
        said.map_err(|error| format!("{error}: {}", arena.nodes.last_words(node)))?;
        let what = format!("node {node} catches up after it stood still");
        let caught_up = arena.until(&what, CATCHES_UP_WITHIN, |arena| arena.watch.in_step(node)).await;
        caught_up.map_err(|error| format!("{error}: {}", arena.state()))?;
        fired += 1;
    }
    Ok(Fired::Times(fired))
}

/// F26: a snapshot on a link of 256 kbit/s. The node goes on to hear its leaders meanwhile.
pub(super) async fn slow(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let (node, since) = away(arena).await;
        links::others(node).for_each(|other| arena.mesh.links.set(other, node, SLOW));
        arena.nodes.start(node);
        let what = format!("node {node} says: {BEGUN}");
        let said = arena.until(&what, BEGINS_WITHIN, |arena| says(arena, node, since, BEGUN)).await;
        said.map_err(|error| format!("{error}: {}", arena.nodes.last_words(node)))?;
        let since = arena.nodes.log(node).len();
        arena.pass(HOLDS).await;
        if says(arena, node, since, LEADERLESS) {
            return Err(format!(
                "node {node} hears no leader while a snapshot comes: {}",
                arena.nodes.last_words(node)
            ));
        }
        arena.mesh.links.heal();
        arena.nodes.serves(node).await?;
        let what = format!("node {node} catches up when its link is good again");
        let caught_up = arena.until(&what, CATCHES_UP_WITHIN, |arena| arena.watch.in_step(node)).await;
        caught_up.map_err(|error| format!("{error}: {}", arena.state()))?;
        fired += 1;
    }
    Ok(Fired::Times(fired))
}
