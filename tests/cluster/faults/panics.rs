//! F8: a thread of a node panics between two steps, and the node ends by that.

use std::net::SocketAddr;
use std::time::Duration;

use http::Method;
use rove_client::Trust;
use serde_json::json;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Fired, Tally, kills, snapshots};
use crate::api::Api;
use crate::arena::Arena;

/// Where a debug build of the server is told when to panic.
pub(crate) const CRASH_AT: &str = "ROVE_CRASH_AT";
/// Points of `crash_points.rs`, and up to how many times each is passed: those of the load are passed some hundred times a second, the
/// directory's only when somebody signs up.
const POINTS: [(&str, u64); 3] = [("persisted", 300), ("applied", 300), ("directory-applied", 2)];
/// Of seven partitions, any of the first few.
const INSTALLS: u64 = 3;
/// A debug build starts on a busy machine, and then passes the point often enough.
const ENDS_WITHIN: Duration = Duration::from_secs(60);
/// Often enough for the directory's point, and little beside the load.
const SIGNS_UP_EVERY: Duration = Duration::from_millis(200);

/// Starts a node that is to panic.
fn arm(arena: &mut Arena, node: u64, point: &str, most: u64) -> String {
    let told = format!("{point}:{}", 1 + arena.rng.below(most));
    arena.nodes.start_with(node, Some((CRASH_AT, told.clone())));
    told
}

/// Waits until it has ended by that, and by nothing else.
async fn panicked(arena: &mut Arena, node: u64, told: &str, since: usize) -> Result<(), String> {
    let ended = arena.nodes.ends_within(node, ENDS_WITHIN).await;
    let said = arena.nodes.log(node).get(since..).is_some_and(|news| news.contains(CRASH_AT));
    if said && ended.is_some_and(|status| status.code() == Some(1)) {
        return Ok(());
    }
    Err(format!("node {node} was to panic at {told}; it ended: {ended:?}: {}", arena.nodes.last_words(node)))
}

/// Somebody signs up through a node, again and again: the directory has something to apply.
async fn sign_ups(address: SocketAddr, trust: Trust, since: usize) {
    let mut every = tokio::time::interval(SIGNS_UP_EVERY);
    for number in 0_u64.. {
        every.tick().await;
        // A leader may just have gone: then it is the next one that counts.
        let Ok(mut api) = Api::connect(address, &trust).await else { continue };
        let body = json!({ "handle": format!("late{since}x{number}"), "password": "correct horse battery" });
        let _ = api.ask(Method::POST, "/v1/sign-up", body.to_string().into()).await;
    }
}

/// F8: one node after the other ends by a panic at one of the points, and comes back.
pub(super) async fn between_steps(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = Tally::of(POINTS.map(|(point, _)| point));
    let mut round = 0;
    while round == 0 || Instant::now() < until {
        for (number, (node, other)) in (0..).zip([(1, 2), (2, 3), (3, 1)]) {
            arena.nodes.kill(node);
            let since = arena.nodes.log(node).len();
            // Each node at each of them.
            let place = fired.turn(round + number);
            let (point, most) = POINTS[place];
            let told = arm(arena, node, point, most);
            // They end with this.
            let mut others = JoinSet::new();
            others.spawn(sign_ups(arena.nodes.home(other).clients, arena.nodes.trust.clone(), since));
            panicked(arena, node, &told, since).await?;
            drop(others);
            fired.count(place, true);
            arena.nodes.start(node);
            arena.nodes.serves(node).await?;
            let what = format!("node {node} is in step again after {told}");
            arena.until(&what, kills::RECOVERS_WITHIN, |arena| arena.watch.in_step(node)).await?;
        }
        arena.accepts_everywhere().await?;
        round += 1;
    }
    Ok(Fired::Each(fired))
}

/// F8, at the end of a snapshot's install: before the log says that it begins there.
pub(super) async fn after_install(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let (node, since) = snapshots::away(arena).await;
        let told = arm(arena, node, "installed", INSTALLS);
        panicked(arena, node, &told, since).await?;
        fired += 1;
        arena.nodes.start(node);
        arena.nodes.serves(node).await?;
        let what = format!("node {node} catches up after {told}");
        let caught_up = arena.until(&what, snapshots::CATCHES_UP_WITHIN, |arena| arena.watch.in_step(node)).await;
        caught_up.map_err(|error| format!("{error}: {}", arena.state()))?;
    }
    Ok(Fired::Times(fired))
}
