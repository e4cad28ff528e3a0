//! F20, F21: a node comes back with a disk that has forgotten what it acknowledged. The cluster must notice, and not let it take part
//! before an operator has it rebuilt, under a new number.

use std::fs;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use rove_protocol::registry::ErrorCode;
use tokio::time::Instant;

use super::Fired;
use super::damage::copy;
use super::rebuild::{rebuild, start_empty};
use crate::api::Api;
use crate::arena::Arena;
use crate::nodes::NODES;

/// Peers introduce themselves as soon as they are connected.
const NOTICED_WITHIN: Duration = Duration::from_secs(20);
/// How often a node is asked whether it is ready: nobody tells.
const LOOK_EVERY: Duration = Duration::from_millis(100);
/// What happens meanwhile is what the old copy does not know.
const MEANWHILE: Duration = Duration::from_secs(2);

/// Whether a node wants to be sent clients.
async fn is_ready(arena: &Arena, node: u64) -> bool {
    let Ok(mut api) = Api::connect(arena.nodes.home(node).clients, &arena.nodes.trust).await else { return false };
    matches!(api.ask(Method::GET, "/readyz", Bytes::new()).await, Ok((200, _)))
}

/// Starts `node` on what it has, waits until somebody says `words` of it, and sees that it neither leads nor takes posts nor wants clients.
/// It shows those who come what it has, as a node does that is cut off, or waits.
async fn noticed(arena: &mut Arena, node: u64, words: &str) -> Result<(), String> {
    let before = NODES.map(|node| arena.nodes.log(node).len());
    arena.nodes.start(node);
    let what = format!("somebody says of node {node}: {words}");
    let said = |arena: &mut Arena| {
        let mut news = NODES.iter().zip(before).map(|(node, before)| arena.nodes.log(*node)[before..].to_owned());
        news.any(|news| news.contains(words))
    };
    let noticed = arena.until(&what, NOTICED_WITHIN, said).await;
    noticed.map_err(|error| format!("{error}; node {node} says: {}", arena.nodes.last_words(node)))?;
    // Nobody tells it that it is out: it finds out that no peer speaks to it.
    let deadline = Instant::now() + NOTICED_WITHIN;
    while is_ready(arena, node).await {
        if Instant::now() > deadline {
            return Err(format!("node {node} is ready with a disk that has forgotten"));
        }
        arena.pass(LOOK_EVERY).await;
    }
    // It is given the time for an election or two, so that it would be seen to take part.
    let taken = arena.recorder.answers(node, ErrorCode::None);
    arena.pass(MEANWHILE).await;
    let taken = arena.recorder.answers(node, ErrorCode::None) - taken;
    let leads = arena.watch.of(node).is_some_and(|views| views.iter().any(|view| view.leads));
    let (ready, ended) = (is_ready(arena, node).await, arena.nodes.ended(node));
    if leads || ready || taken > 0 || ended.is_some_and(|status| status.success()) {
        return Err(format!(
            "node {node} has a disk that has forgotten; leads: {leads}, ready: {ready}, took {taken} posts, ended: {ended:?}: {}",
            arena.nodes.last_words(node)
        ));
    }
    arena.accepts_everywhere().await
}

/// F20, once.
async fn copy_of(arena: &mut Arena, node: u64) -> Result<(), String> {
    let data = arena.nodes.data(node);
    let old = data.with_extension("old");
    arena.nodes.kill(node);
    copy(&data, &old)?;
    arena.nodes.start(node);
    arena.nodes.serves(node).await?;
    arena.accepts_everywhere().await?;
    arena.pass(MEANWHILE).await;
    arena.nodes.kill(node);
    let failed = |error: std::io::Error| format!("{}: {error}", data.display());
    fs::remove_dir_all(&data).map_err(failed)?;
    fs::rename(&old, &data).map_err(failed)?;
    noticed(arena, node, "old copy of its data directory").await?;
    // The disk that it had is lost: it begins anew.
    arena.nodes.kill(node);
    start_empty(arena, node)?;
    rebuild(arena, node).await
}

/// F20, again and again.
pub(super) async fn copy_back(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = arena.watch.busiest();
        copy_of(arena, node).await?;
        fired += 1;
    }
    Ok(Fired::Times(fired))
}

/// F21.
pub(super) async fn empty(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = arena.watch.busiest();
        arena.nodes.kill(node);
        let data = arena.nodes.data(node);
        fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
        noticed(arena, node, "has another data directory").await?;
        rebuild(arena, node).await?;
        fired += 1;
    }
    Ok(Fired::Times(fired))
}
