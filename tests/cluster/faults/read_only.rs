//! F18r: the file system under a running node turns read-only, as ext4 does when its device reports an error. The node stops and says why, is
//! not started again in vain, and goes on when the file system may be written; or is rebuilt if it finds that something is missing.
//!
//! Each node's data directory is a small ext4 of its own, mounted as most systems mount theirs; the kernel is told to take it for damaged.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::Fired;
use super::power::{mount_again, mount_new, run};
use super::rebuild::rebuild;
use crate::arena::Arena;
use crate::nodes::NODES;

/// A node writes with every post.
const STOPS_WITHIN: Duration = Duration::from_secs(20);
/// With what it ends: that it cannot go on, and why, in the words of the system, of SQLite, or of the log's library, which only says what failed.
const ENDS: &str = "the node cannot go on";
const WHY: [&str; 4] = ["Read-only file system", "ReadOnlyFilesystem", "readonly database", "fdatasync"];
/// A debug build starts and catches up.
const GOES_ON_WITHIN: Duration = Duration::from_secs(60);
/// What it says whose disk has less than was synced.
const FORGOTTEN: &str = "acknowledged entries are missing";
/// And with what it does not start.
const REFUSES: &str = "file system that is read-only";

/// Where the kernel is told that it has found an error in the node's file system.
fn trigger(arena: &Arena, node: u64) -> Result<PathBuf, String> {
    let device = run(Command::new("findmnt").args(["-n", "-o", "SOURCE"]).arg(arena.nodes.data(node)))?;
    Ok(Path::new("/sys/fs/ext4").join(device.trim_start_matches("/dev/")).join("trigger_fs_error"))
}

fn damage(arena: &Arena, node: u64) -> Result<(), String> {
    let path = trigger(arena, node)?;
    fs::write(&path, "1").map_err(|error| format!("{}: {error}", path.display()))
}

/// The node ends by itself, and in one line says that it does and why.
async fn ends(arena: &mut Arena, node: u64, since: usize, line: &str, why: &[&str]) -> Result<(), String> {
    let ended = arena.nodes.ends_within(node, STOPS_WITHIN).await;
    let said = arena.nodes.log(node)[since..].to_owned();
    let told = said.lines().any(|said| said.contains(line) && why.iter().any(|why| said.contains(why)));
    match ended {
        Some(status) if status.code() == Some(1) && told => Ok(()),
        ended => Err(format!("node {node} on a read-only file system: ended: {ended:?}, saying {said}")),
    }
}

/// It stops, and does not start again.
async fn stays_away(arena: &mut Arena, node: u64) -> Result<(), String> {
    let since = arena.nodes.log(node).len();
    damage(arena, node)?;
    ends(arena, node, since, ENDS, &WHY).await?;
    arena.accepts_everywhere().await?;
    let since = arena.nodes.log(node).len();
    arena.nodes.start(node);
    ends(arena, node, since, REFUSES, &[""]).await
}

/// Starts it on what its disk has. Whether it goes on with that: the kernel may have called a sync done that it then could not finish, and
/// then a node that was told what it has forgotten must not.
async fn goes_on(arena: &mut Arena, node: u64) -> Result<bool, String> {
    let since = arena.nodes.log(node).len();
    arena.nodes.start(node);
    let what = format!("node {node} is in step again, or ends");
    // One that ends instead says why below.
    let _ = arena.nodes.serves(node).await;
    let settled = |arena: &mut Arena| arena.nodes.ended(node).is_some() || arena.watch.in_step(node);
    arena.until(&what, GOES_ON_WITHIN, settled).await?;
    if arena.nodes.runs(node) {
        return Ok(true);
    }
    let said = arena.nodes.log(node)[since..].to_owned();
    if said.contains(FORGOTTEN) { Ok(false) } else { Err(format!("node {node} with its disk mounted again: {said}")) }
}

async fn turn_one(arena: &mut Arena, node: u64) -> Result<bool, String> {
    let stayed = stays_away(arena, node).await;
    // Before anything is judged: a node that is to be healed needs its disk.
    arena.nodes.kill(node);
    mount_again(&arena.nodes, node)?;
    stayed?;
    let went_on = goes_on(arena, node).await?;
    if !went_on {
        mount_new(&arena.nodes, node)?;
        arena.nodes.start(node);
        rebuild(arena, node).await?;
    }
    arena.accepts_everywhere().await?;
    Ok(went_on)
}

/// F18r.
pub(super) async fn turn(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    if !trigger(arena, NODES[0]).is_ok_and(|path| path.exists()) {
        return Ok(Fired::Skipped(
            "this kernel cannot be told that an ext4 has an error, or findmnt is missing".to_owned(),
        ));
    }
    let (mut fired, mut rebuilt) = (0, 0);
    while fired == 0 || Instant::now() < until {
        let node = if fired % 2 == 0 { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) };
        rebuilt += u64::from(!turn_one(arena, node).await?);
        fired += 1;
    }
    if rebuilt > 0 {
        eprintln!(
            "    F18r: {rebuilt} of {fired} disks had forgotten a sync that the kernel had called done; the nodes were rebuilt"
        );
    }
    Ok(Fired::Times(fired))
}
