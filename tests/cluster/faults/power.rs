//! F10, F11: the power fails, on one node or on all at once. Whatever was written and not synced is gone.
//!
//! Each node's data directory is a small ext4 of its own on a loop device, where that may be mounted. The kernel can shut such a file
//! system down as if its device had lost power (`EXT4_IOC_SHUTDOWN`, made for xfstests): nothing of what is in memory reaches the device
//! any more, neither data nor journal. Mounted again, it is what a machine finds after a power failure.
//!
//! The processes are killed first: a sync that is under way while its file system is shut down may return without an error, which no
//! program lives to see when the power fails.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::Instant;

use super::Fired;
use crate::arena::Arena;
use crate::nodes::{NODES, Nodes};

/// Room for what a run writes, several times over; the file takes only what is written.
const SIZE: &str = "1G";
/// Between two failures everybody talks, so that something is always half written.
const CALM: Duration = Duration::from_millis(1_500);
/// Written and never synced: that it is gone afterwards proves that what is not synced is lost.
const PROBE: &str = "not-synced";
/// Writes a probe into each of the file systems that it is given, and shuts them all down without a flush
/// (`EXT4_GOING_FLAGS_NOLOGFLUSH`).
const SHUT_DOWN: &str = "import fcntl, os, struct, sys
for path in sys.argv[2:]:
    with open(os.path.join(path, sys.argv[1]), 'w') as probe:
        probe.write(sys.argv[1])
for fd in [os.open(path, os.O_RDONLY) for path in sys.argv[2:]]:
    fcntl.ioctl(fd, 0x8004587d, struct.pack('I', 2))";

/// Runs a command that must succeed. What it printed.
pub(super) fn run(command: &mut Command) -> Result<String, String> {
    let output = command.stdin(Stdio::null()).output().map_err(|error| error.to_string())?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// The file that is the disk of a node.
fn disk(nodes: &Nodes, node: u64) -> std::path::PathBuf {
    nodes.home(node).dir.join("disk")
}

/// Mounts it, as most systems mount theirs: on an error it turns read-only.
fn mount_one(nodes: &Nodes, node: u64) -> Result<(), String> {
    let data = nodes.data(node);
    run(Command::new("mount").args(["-o", "loop,errors=remount-ro"]).arg(disk(nodes, node)).arg(data)).map(drop)
}

/// Makes a new file system and mounts it.
fn mount_empty(nodes: &Nodes, node: u64) -> Result<(), String> {
    run(Command::new("mkfs.ext4").args(["-q", "-F"]).arg(disk(nodes, node)))?;
    mount_one(nodes, node)?;
    // A data directory is empty before its first start.
    fs::remove_dir(nodes.data(node).join("lost+found")).map_err(|error| error.to_string())
}

/// Gives a node that does not run a disk with nothing on it.
pub(super) fn mount_new(nodes: &Nodes, node: u64) -> Result<(), String> {
    run(Command::new("umount").arg(nodes.data(node)))?;
    mount_empty(nodes, node)
}

/// Unmounts it and mounts it again.
pub(super) fn mount_again(nodes: &Nodes, node: u64) -> Result<(), String> {
    run(Command::new("umount").arg(nodes.data(node)))?;
    mount_one(nodes, node)
}

/// Makes and mounts them. They are let go of with the nodes.
pub(super) fn mount(nodes: &mut Nodes) -> Result<(), String> {
    nodes.mounted = true;
    let made = NODES.into_iter().try_for_each(|node| {
        fs::create_dir_all(nodes.data(node)).map_err(|error| error.to_string())?;
        run(Command::new("truncate").args(["-s", SIZE]).arg(disk(nodes, node)))?;
        mount_empty(nodes, node)
    });
    made.and_then(|()| run(Command::new("python3").arg("--version")).map(drop))
        .map_err(|error| format!("no disks to take the power from (it takes root, loop devices and python3): {error}"))
}

/// The power of `nodes` fails at once, and comes back. Says whether something was lost on each of them.
async fn fail(arena: &mut Arena, nodes: &[u64]) -> Result<bool, String> {
    arena.pass(CALM).await;
    let data: Vec<_> = nodes.iter().map(|node| arena.nodes.data(*node)).collect();
    for node in nodes {
        arena.nodes.signal(*node, Signal::SIGKILL);
    }
    for node in nodes {
        arena.nodes.kill(*node);
    }
    run(Command::new("python3").args(["-c", SHUT_DOWN, PROBE]).args(&data))?;
    for node in nodes {
        mount_again(&arena.nodes, *node)?;
    }
    let lost = data.iter().all(|path| is_lost(path));
    for node in nodes {
        arena.nodes.start(*node);
    }
    for node in nodes {
        arena.nodes.serves(*node).await?;
    }
    arena.accepts_everywhere().await?;
    Ok(lost)
}

/// Whether the probe, or what is in it, is gone.
fn is_lost(data: &Path) -> bool {
    !fs::read(data.join(PROBE)).is_ok_and(|found| found == PROBE.as_bytes())
}

/// F10.
pub(super) async fn one(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = if fired % 2 == 0 { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) };
        if !fail(arena, &[node]).await? {
            return Err(format!("node {node} lost nothing, so its power did not fail"));
        }
        fired += 1;
    }
    Ok(Fired::Times(fired))
}

/// F11.
pub(super) async fn all(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        if !fail(arena, &NODES).await? {
            return Err("a node lost nothing, so its power did not fail".to_owned());
        }
        fired += 1;
    }
    Ok(Fired::Times(fired))
}
