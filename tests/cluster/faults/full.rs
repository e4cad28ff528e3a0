//! F18: the disk is almost full: the node says so, refuses posts, shows what it has and stays up. Or it is really full: the node stops when
//! it needs room, and says so. Nothing that was acknowledged is lost, and it goes on when there is room.
//!
//! Each node's data directory is a small file system of its own in memory, where that may be mounted.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use rove_protocol::registry::ErrorCode;
use tokio::time::Instant;

use super::{Fired, Tally};
use crate::arena::Arena;
use crate::nodes::{NODES, Nodes};

/// Room for what a run writes, several times over: it is full when the test fills it.
const SIZE: &str = "size=512m";
/// A node looks at its disk once a second, and its clients post all the time.
const NOTICES_WITHIN: Duration = Duration::from_secs(20);
/// A node writes into files that it has already, until it begins a new one or flushes its state, which it does every half minute.
const NEEDS_ROOM_WITHIN: Duration = Duration::from_secs(90);
/// What is left of a disk that is almost full: less than the reserve of these nodes (128 MiB), and more than is written meanwhile.
const LEFT: u64 = 96 << 20;
/// What a node says then, and when there is more again.
const ALMOST: &str = "is almost full";
const ROOM: &str = "has room again";
/// With what a node ends that finds no room at all: in the words of the system (which RocksDB passes on), of the log's library and of
/// SQLite.
const ENDS: &str = "the node cannot go on";
const FULL: [&str; 3] = ["No space left", "StorageFull", "disk is full"];
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

/// Waits until a node says `words`, after what it had said before.
async fn says(arena: &mut Arena, node: u64, since: usize, words: &str) -> Result<(), String> {
    let what = format!("node {node} says: {words}");
    let said = |arena: &mut Arena| arena.nodes.log(node).get(since..).is_some_and(|news| news.contains(words));
    arena.until(&what, NOTICES_WITHIN, said).await
}

/// The node refuses posts while its disk is almost full, shows what it has, and stays up; then it takes posts again.
async fn almost(arena: &mut Arena, node: u64) -> Result<(), String> {
    let data = arena.nodes.data(node);
    let since = arena.nodes.log(node).len();
    almost_fill_up(&data)?;
    says(arena, node, since, ALMOST).await?;
    let refused = arena.recorder.answers(node, ErrorCode::Busy);
    let what = format!("node {node}, whose disk is almost full, refuses a post as Busy");
    arena.until(&what, NOTICES_WITHIN, |arena| arena.recorder.answers(node, ErrorCode::Busy) > refused).await?;
    arena.read_everything(node).await.map_err(|error| format!("while its disk is almost full: {error}"))?;
    let ended = arena.nodes.ended(node);
    if ended.is_some() || !arena.nodes.runs(node) {
        return Err(format!("node {node} ended ({ended:?}) although its disk was not full: {}", arena.nodes.log(node)));
    }
    let since = arena.nodes.log(node).len();
    fs::remove_file(data.join(BALLAST)).map_err(|error| error.to_string())?;
    says(arena, node, since, ROOM).await?;
    let taken = arena.recorder.answers(node, ErrorCode::None);
    let what = format!("node {node}, whose disk has room again, takes a post");
    arena.until(&what, NOTICES_WITHIN, |arena| arena.recorder.answers(node, ErrorCode::None) > taken).await?;
    arena.accepts_everywhere().await
}

/// Writes until nothing more fits.
fn fill_up(data: &Path) -> Result<(), String> {
    let path = data.join(BALLAST);
    let mut file = File::options().create(true).append(true).open(&path).map_err(|error| error.to_string())?;
    for block in [vec![1; 1 << 20], vec![1; 4096], vec![1; 1]] {
        while file.write_all(&block).is_ok() {}
    }
    Ok(())
}

/// The node stops when it needs room and there is none, and says so; the others go on. With room again it does as well.
async fn full(arena: &mut Arena, node: u64) -> Result<(), String> {
    let data = arena.nodes.data(node);
    let since = arena.nodes.log(node).len();
    let deadline = Instant::now() + NEEDS_ROOM_WITHIN;
    let ended = loop {
        // Again and again: the ballast takes what is freed meanwhile.
        fill_up(&data)?;
        let ended = arena.nodes.ends_within(node, Duration::from_millis(200)).await;
        if ended.is_some() || Instant::now() >= deadline {
            break ended;
        }
    };
    let said = arena.nodes.log(node)[since..].to_owned();
    let told =
        said.lines().last().is_some_and(|last| last.contains(ENDS) && FULL.iter().any(|words| last.contains(words)));
    let others = if ended.is_some() { arena.accepts_everywhere().await } else { Ok(()) };
    // Before anything is judged: a node that is to be healed needs room.
    fs::remove_file(data.join(BALLAST)).map_err(|error| error.to_string())?;
    match ended {
        None => return Err(format!("node {node} needs no room on its full disk for {NEEDS_ROOM_WITHIN:?}: {said}")),
        Some(status) if status.code() != Some(1) || !told => {
            return Err(format!("node {node} ended ({status}) without saying that its disk is full: {said}"));
        }
        Some(_) => others?,
    }
    arena.nodes.start(node);
    arena.nodes.serves(node).await.map_err(|error| format!("with room again: {error}"))?;
    arena.accepts_everywhere().await
}

/// F18.
pub(super) async fn fill(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let (mut fired, mut round) = (Tally::of(["almost full", "full"]), 0);
    while round == 0 || Instant::now() < until {
        let node = if round % 2 == 0 { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) };
        almost(arena, node).await?;
        fired.count(0, true);
        full(arena, node).await?;
        fired.count(1, true);
        round += 1;
    }
    Ok(Fired::Each(fired))
}
