//! F22 to F26 and F29: the network between the nodes.
//!
//! All of it goes through the relays, so that neither rights nor tools are needed. Each counts datagrams that were lost, repeated or
//! delayed: a rule that nothing met did not fire.

use std::time::Duration;

use tokio::time::Instant;

use super::{Fired, Tally};
use crate::arena::Arena;
use crate::nodes::NODES;
use crate::relay::{Counts, Rule};

/// How long a fault holds: several elections.
const HOLDS: Duration = Duration::from_secs(3);
/// How long all is well in between.
const CALM: Duration = Duration::from_secs(1);
/// Nothing passes.
const CUT: Rule = Rule { cut: true, loss: 0, twice: 0, jitter_ms: 0, rate: 0 };

/// Sets the rules of each variant in turn, lets them hold, and heals, again and again. Fires as often as something came of it.
async fn again(
    arena: &mut Arena,
    until: Instant,
    variants: &[&'static str],
    mut set: impl FnMut(&mut Arena, u64),
    met: impl Fn(Counts) -> u64,
) -> Result<Fired, String> {
    let (mut fired, mut round) = (Tally::of(variants.iter().copied()), 0);
    while round == 0 || Instant::now() < until {
        let before = met(arena.mesh.links.counts());
        set(arena, round);
        arena.pass(HOLDS).await;
        fired.count(fired.turn(round), met(arena.mesh.links.counts()) > before);
        arena.mesh.links.heal();
        arena.accepts_everywhere().await.map_err(|error| format!("after the fault: {error}: {}", arena.state()))?;
        arena.pass(CALM).await;
        round += 1;
    }
    Ok(Fired::Each(fired))
}

/// A node: in turn whoever leads most, and any.
fn victim(arena: &mut Arena, round: u64) -> u64 {
    if round.is_multiple_of(2) { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) }
}

pub(super) fn others(node: u64) -> impl Iterator<Item = u64> {
    NODES.into_iter().filter(move |other| *other != node)
}

/// F22: one node hears nobody and is heard by nobody.
pub(super) async fn partition(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let set = |arena: &mut Arena, round| {
        let node = victim(arena, round);
        others(node).for_each(|other| arena.mesh.links.set_both(node, other, CUT));
    };
    again(arena, until, &["cut"], set, |counts| counts.dropped).await
}

/// F23: in turn a node is not heard by anybody, hears nobody, and is not heard by one of the others.
pub(super) async fn one_way(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let set = |arena: &mut Arena, round| {
        let node = victim(arena, round);
        for (number, other) in others(node).enumerate() {
            match round % 3 {
                0 => arena.mesh.links.set(node, other, CUT),
                1 => arena.mesh.links.set(other, node, CUT),
                _ if number == 0 => arena.mesh.links.set(node, other, CUT),
                _ => {}
            }
        }
    };
    let variants = ["nobody hears it", "it hears nobody", "one does not hear it"];
    again(arena, until, &variants, set, |counts| counts.dropped).await
}

/// F24: two nodes hear the third, but not each other.
pub(super) async fn bridge(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let set = |arena: &mut Arena, round| {
        let bridge = victim(arena, round);
        let ends: Vec<u64> = others(bridge).collect();
        arena.mesh.links.set_both(ends[0], ends[1], CUT);
    };
    again(arena, until, &["cut"], set, |counts| counts.dropped).await
}

/// F25: loss of 1, 10 and 30 %, repeats, and half a second of jitter, which reorders.
pub(super) async fn noise(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let set = |arena: &mut Arena, round: u64| {
        let (loss, jitter_ms) = [(10, 500), (100, 20), (300, 5), (100, 100)][usize::try_from(round % 4).unwrap_or(0)];
        let rule = Rule { loss, twice: 50, jitter_ms, ..Rule::default() };
        for node in NODES {
            others(node).for_each(|other| arena.mesh.links.set(node, other, rule));
        }
    };
    let variants = ["1 %, 500 ms", "10 %, 20 ms", "30 %, 5 ms", "10 %, 100 ms"];
    // Each of the three has to have happened.
    again(arena, until, &variants, set, |counts| counts.dropped.min(counts.repeated).min(counts.delayed)).await
}

/// F26: what goes to one follower passes at 256 kbit/s.
pub(super) async fn slow(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let set = |arena: &mut Arena, _| {
        let busiest = arena.watch.busiest();
        let follower = others(busiest).next().unwrap_or(1);
        let rule = Rule { rate: 256_000, ..Rule::default() };
        others(follower).for_each(|other| arena.mesh.links.set(other, follower, rule));
    };
    again(arena, until, &["slow"], set, |counts| counts.delayed).await
}

/// F29: a link is there for a second and gone for a second.
pub(super) async fn flap(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    let node = arena.watch.busiest();
    let other = others(node).next().unwrap_or(1);
    while fired == 0 || Instant::now() < until {
        let before = arena.mesh.links.counts().dropped;
        arena.mesh.links.set_both(node, other, CUT);
        arena.pass(Duration::from_secs(1)).await;
        fired += u64::from(arena.mesh.links.counts().dropped > before);
        arena.mesh.links.heal();
        arena.pass(Duration::from_secs(1)).await;
    }
    arena.accepts_everywhere().await.map_err(|error| format!("after the fault: {error}: {}", arena.state()))?;
    Ok(Fired::Times(fired))
}
