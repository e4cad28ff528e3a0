//! F18: the disk is almost full: the node says so, refuses posts and stays up. Or it is really full: the node says so, and may stop. Nothing
//! that was acknowledged is lost, and it goes on when there is room.
//!
//! Each node's data directory is a small file system of its own in memory, where that may be mounted.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::time::Instant;

use super::Fired;
use crate::arena::Arena;
use crate::nodes::{NODES, Nodes};

/// Room for what a run writes, several times over: it is full when the test fills it.
const SIZE: &str = "size=512m";
/// How long a disk stays full at most: a node writes into files that it has already, until it begins a new one or flushes its state.
const FULL_FOR: Duration = Duration::from_secs(40);
/// How long it stays full after the node has noticed.
const NOTICED_FOR: Duration = Duration::from_secs(2);
/// What is left of a disk that is almost full: less than the reserve of these nodes (128 MiB), and more than is written meanwhile.
const LEFT: u64 = 96 << 20;
/// What a node says then.
const ALMOST: &str = "is almost full";
/// The file that fills it.
const BALLAST: &str = "ballast";

/// Mounts them. They are let go of with the nodes.
pub(super) fn mount(nodes: &mut Nodes) -> Result<(), String> {
    nodes.mounted = true;
    for node in NODES {
        let data = nodes.data(node);
        fs::create_dir_all(&data).map_err(|error| error.to_string())?;
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", SIZE, "rove-faults"])
            .arg(&data)
            .stderr(Stdio::null())
            .status();
        if !mounted.is_ok_and(|status| status.success()) {
            return Err("a file system in memory may not be mounted here (it takes root)".to_owned());
        }
    }
    Ok(())
}

/// Writes until there is no more than [`LEFT`].
fn almost_fill_up(data: &Path) -> Result<(), String> {
    let error = |error: std::io::Error| error.to_string();
    let mut file = File::create(data.join(BALLAST)).map_err(error)?;
    let block = vec![1; 1 << 20];
    loop {
        let space = statvfs(data).map_err(|errno| errno.to_string())?;
        if space.blocks_available() * space.fragment_size() <= LEFT {
            return Ok(());
        }
        file.write_all(&block).map_err(error)?;
    }
}

/// The node refuses posts while its disk is almost full, and stays up; then it takes them again.
async fn almost(arena: &mut Arena, node: u64) -> Result<(), String> {
    let data = arena.nodes.data(node);
    let said_before = arena.nodes.log(node).len();
    almost_fill_up(&data)?;
    let deadline = Instant::now() + FULL_FOR;
    while !arena.nodes.log(node)[said_before..].contains(ALMOST) {
        if Instant::now() >= deadline {
            return Err(format!("node {node} does not notice that its disk is almost full"));
        }
        arena.pass(Duration::from_millis(200)).await;
    }
    arena.pass(NOTICED_FOR).await;
    let ended = arena.nodes.ended(node);
    fs::remove_file(data.join(BALLAST)).map_err(|error| error.to_string())?;
    if ended.is_some() || !arena.nodes.runs(node) {
        return Err(format!("node {node} ended ({ended:?}) although its disk was not full: {}", arena.nodes.log(node)));
    }
    arena.nodes.serves(node).await.map_err(|error| format!("with room again: {error}"))?;
    arena.accepts_everywhere().await
}

/// Writes until nothing more fits.
fn fill_up(data: &Path) -> Result<(), String> {
    let path = data.join(BALLAST);
    let mut file = File::create(&path).map_err(|error| error.to_string())?;
    for block in [vec![1; 1 << 20], vec![1; 4096], vec![1; 1]] {
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

/// F18.
pub(super) async fn fill(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    let mut round = 0;
    while round == 0 || Instant::now() < until {
        let node = if round % 2 == 0 { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) };
        almost(arena, node).await?;
        fired += 1;
        let data = arena.nodes.data(node);
        let said_before = arena.nodes.log(node).len();
        fill_up(&data)?;
        // What else writes meanwhile finds no room either: the ballast takes what is freed.
        let mut deadline = Instant::now() + FULL_FOR;
        let mut noticed = false;
        while Instant::now() < deadline {
            arena.pass(Duration::from_millis(200)).await;
            fill_up_more(&data);
            if !noticed && is_told(&arena.nodes.log(node)[said_before..]) {
                noticed = true;
                deadline = Instant::now() + NOTICED_FOR;
            }
        }
        let said = arena.nodes.log(node)[said_before..].to_owned();
        let ended = arena.nodes.ended(node);
        // Before anything is judged: a node that is to be healed needs room.
        fs::remove_file(data.join(BALLAST)).map_err(|error| error.to_string())?;
        let told = is_told(&said);
        fired += u64::from(told);
        if ended.is_some() && !told {
            return Err(format!("node {node} ended ({ended:?}) without saying that its disk is full: {said}"));
        }
        if !arena.nodes.runs(node) {
            arena.nodes.start(node);
        }
        arena.nodes.serves(node).await.map_err(|error| format!("with room again: {error}"))?;
        arena.accepts_everywhere().await?;
        round += 1;
    }
    Ok(Fired::Times(fired))
}

/// Whether a node says that its disk is full.
fn is_told(said: &str) -> bool {
    [ALMOST, "No space left", "os error 28", "StorageFull"].iter().any(|words| said.contains(words))
}

fn fill_up_more(data: &Path) {
    if let Ok(mut file) = File::options().append(true).open(data.join(BALLAST)) {
        while file.write_all(&[1; 4096]).is_ok() {}
    }
}
