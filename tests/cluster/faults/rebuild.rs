//! F30, and how F20 and F21 end: a node whose disk is lost is rebuilt on an empty one, as an operator does it.

use std::fs;
use std::time::Duration;

use rove_tests::cluster::command;
use serde_json::Value;
use tokio::time::Instant;

use super::Fired;
use crate::arena::Arena;
use crate::nodes::NODES;

/// Seven partitions of a few megabytes, on a busy machine, with elections in between.
const REBUILT_WITHIN: Duration = Duration::from_secs(60);
/// How often the cluster is asked how far it is: a step of a change takes some tens of milliseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);
/// Leaders killed while one node is rebuilt: each at another step of some partition.
const KILLS: usize = 4;

/// Empties the disk of `node`, which does not run, and starts it.
pub(super) fn start_empty(arena: &mut Arena, node: u64) -> Result<(), String> {
    let data = arena.nodes.data(node);
    fs::remove_dir_all(&data).map_err(|error| format!("{}: {error}", data.display()))?;
    arena.nodes.start(node);
    Ok(())
}

/// `rove-server cluster …` on a node: what it prints, or what it says instead.
async fn ask(arena: &Arena, node: u64, line: String) -> Result<String, String> {
    let config = arena.nodes.home(node).dir.join("rove.toml");
    let asked = tokio::task::spawn_blocking(move || command(&config, &line.split(' ').collect::<Vec<_>>()));
    let (code, out, error) = asked.await.map_err(|error| error.to_string())?;
    if code == Some(0) { Ok(out) } else { Err(error) }
}

/// What a node says of the members.
async fn members(arena: &Arena, node: u64) -> Option<Value> {
    let status = ask(arena, node, "status --json".to_owned()).await.ok()?;
    serde_json::from_str::<Value>(&status).ok().map(|status| status["members"].clone())
}

/// Waits until `asked` has heard of the empty disk of `node`.
async fn noticed_by(arena: &Arena, asked: u64, node: u64) -> Result<(), String> {
    let deadline = Instant::now() + REBUILT_WITHIN;
    loop {
        let waits = |members: Value| {
            let mut waiting = members["waiting"].as_array().into_iter().flatten();
            waiting.any(|stranger| stranger["node"] == node && stranger["empty"] == true)
        };
        if members(arena, asked).await.is_some_and(waits) {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("node {asked} does not hear of the empty disk of node {node}"));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Has `node`, which runs on an empty disk, rebuilt, and waits until it serves again.
pub(super) async fn rebuild(arena: &mut Arena, node: u64) -> Result<(), String> {
    let asked = NODES.into_iter().find(|other| *other != node).unwrap_or(1);
    noticed_by(arena, asked, node).await?;
    let replacing = ask(arena, asked, format!("replace {node}"));
    let replaced = tokio::time::timeout(REBUILT_WITHIN, replacing).await;
    replaced.map_err(|_| format!("node {node} is not rebuilt within {REBUILT_WITHIN:?}"))??;
    arena.nodes.serves(node).await?;
    arena.until("the rebuilt node is in step", REBUILT_WITHIN, |arena| arena.watch.in_step(node)).await
}

/// Who is in each group, as a node says.
fn groups(members: &Value) -> Vec<(String, bool)> {
    let groups = members["groups"].as_array().into_iter().flatten();
    let one = |group: &Value| (format!("{}{}", group["voters"], group["learners"]), group["settled"] == true);
    groups.map(one).collect()
}

/// Kills whichever of `nodes` leads the partition, and starts it again.
async fn kill_leader(arena: &mut Arena, partition: usize, nodes: &[u64]) -> Result<(), String> {
    let leads = |node: &&u64| {
        let views = arena.watch.of(**node);
        views.and_then(|views| views.get(partition).copied()).is_some_and(|view| view.leads)
    };
    let leader = nodes.iter().find(leads).copied().unwrap_or(nodes[0]);
    arena.nodes.kill(leader);
    arena.nodes.start(leader);
    arena.nodes.serves(leader).await
}

/// F30, once: while a node is rebuilt, whoever leads a partition dies whenever that has taken a step.
async fn once(arena: &mut Arena, node: u64) -> Result<u64, String> {
    arena.nodes.kill(node);
    start_empty(arena, node)?;
    let others: Vec<u64> = NODES.into_iter().filter(|other| *other != node).collect();
    noticed_by(arena, others[0], node).await?;
    // The command may die with the node that it asked: the change goes on.
    let config = arena.nodes.home(others[0]).dir.join("rove.toml");
    let number = node.to_string();
    let replacing = tokio::task::spawn_blocking(move || command(&config, &["replace", &number]));
    let (mut before, mut killed) = (Vec::new(), 0);
    let deadline = Instant::now() + 2 * REBUILT_WITHIN;
    loop {
        let now = match members(arena, others[killed % 2]).await {
            Some(members) => groups(&members),
            None => Vec::new(),
        };
        let begun = now.iter().any(|(_, settled)| !settled) || killed > 0;
        if begun && !now.is_empty() && now.iter().all(|(_, settled)| *settled) {
            break;
        }
        let step = now.iter().zip(&before).position(|(now, before)| now != before);
        if let Some(partition) = step.filter(|_| killed < KILLS) {
            kill_leader(arena, partition, &others).await?;
            killed += 1;
        }
        before = now;
        if Instant::now() > deadline {
            return Err(format!("node {node} is not rebuilt: {before:?}; it says: {}", arena.nodes.last_words(node)));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    // Whether it saw the end or its node's: the groups say that it is done.
    let _ = replacing.await;
    arena.nodes.serves(node).await?;
    arena.accepts_everywhere().await?;
    Ok(killed as u64)
}

/// F30, again and again.
pub(super) async fn under_kills(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = arena.watch.busiest();
        fired += once(arena, node).await?;
    }
    Ok(Fired::Times(fired))
}
