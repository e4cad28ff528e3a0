//! F16, F17: a node finds its files damaged. It must not take part, and must say why; the others must not care.

use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use tokio::time::Instant;

use super::{Fired, Tally};
use crate::arena::Arena;

/// A node that refuses its files does so at once.
const REFUSES_WITHIN: Duration = Duration::from_secs(30);
/// What is synced is written down once a second at most; what was synced since is not covered. So a node runs on for longer than that
/// before its files are damaged.
const COVERED_AFTER: Duration = Duration::from_secs(3);

/// Copies a directory with everything in it.
pub(super) fn copy(from: &Path, to: &Path) -> Result<(), String> {
    let status = Command::new("cp").arg("-a").arg(from).arg(to).status().map_err(|error| format!("cp: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cp -a {} {}: {status}", from.display(), to.display())) }
}

fn failed(path: &Path) -> impl Fn(std::io::Error) -> String + use<> {
    let path = path.to_owned();
    move |error| format!("{}: {error}", path.display())
}

/// Files of a directory whose name is as wanted, the largest first.
fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Result<Vec<PathBuf>, String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(failed(dir))? {
        let entry = entry.map_err(failed(dir))?;
        if wanted(&entry.file_name().to_string_lossy()) {
            found.push((entry.metadata().map_err(failed(dir))?.len(), entry.path()));
        }
    }
    found.sort();
    if found.is_empty() {
        return Err(format!("{} has none of the files that are looked for", dir.display()));
    }
    Ok(found.into_iter().rev().map(|(_, path)| path).collect())
}

fn raft_logs(data: &Path) -> Result<Vec<PathBuf>, String> {
    files(&data.join("raft"), |name| name.ends_with(".raftlog"))
}

/// Bytes of a file up to its last one that is not zero: the rest was allocated ahead.
fn written(bytes: &[u8]) -> usize {
    bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1)
}

/// Damages the data of a node that was killed, has it refuse that, and puts back what it was.
async fn refused(
    arena: &mut Arena,
    node: u64,
    what: &str,
    damage: impl FnOnce(&Path) -> Result<(), String>,
) -> Result<(), String> {
    arena.pass(COVERED_AFTER).await;
    arena.nodes.kill(node);
    let data = arena.nodes.data(node);
    let whole = data.with_extension("whole");
    copy(&data, &whole)?;
    damage(&data)?;
    let said_before = arena.nodes.log(node).len();
    arena.nodes.start(node);
    let ended = arena.nodes.ends_within(node, REFUSES_WITHIN).await;
    let said = arena.nodes.log(node)[said_before..].to_owned();
    let verdict = match ended {
        None => Err(format!("node {node} runs although {what}: {}", arena.nodes.last_words(node))),
        Some(status) if status.code() != Some(1) => {
            Err(format!("node {node} ended with {status} because {what}: {said}"))
        }
        // Whoever reads it must be told what to do.
        Some(_)
            if !["put the data directory back", "restore", "rebuild"].iter().any(|advice| said.contains(advice)) =>
        {
            Err(format!("node {node} does not say what to do when {what}: {said}"))
        }
        Some(_) => Ok(()),
    };
    // The others go on meanwhile, and it comes back with the disk that it had.
    arena.nodes.kill(node);
    fs::remove_dir_all(&data).map_err(failed(&data))?;
    fs::rename(&whole, &data).map_err(failed(&whole))?;
    let others = arena.accepts_everywhere().await;
    arena.nodes.start(node);
    arena.nodes.serves(node).await?;
    verdict.and(others)
}

/// F16: one bit, in the middle of what is written of the log.
pub(super) async fn flipped_bit(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = arena.watch.busiest();
        let place = arena.rng.between(30, 70);
        refused(arena, node, "a bit of its log was flipped", |data| {
            let path = raft_logs(data)?.swap_remove(0);
            let bytes = fs::read(&path).map_err(failed(&path))?;
            let at = written(&bytes) * usize::try_from(place).unwrap_or(50) / 100;
            let file = fs::File::options().write(true).open(&path).map_err(failed(&path))?;
            file.write_at(&[bytes[at] ^ 0x10], at as u64).map_err(failed(&path))?;
            Ok(())
        })
        .await?;
        fired += 1;
    }
    Ok(Fired::Times(fired))
}

/// Damages something in a data directory.
type Damage = fn(&Path) -> Result<(), String>;

/// Cuts a file off in the middle of so many bytes.
fn cut(path: &Path, length: u64) -> Result<(), String> {
    let file = fs::File::options().write(true).open(path).map_err(failed(path))?;
    file.set_len(length / 2).map_err(failed(path))
}

fn remove(paths: &[PathBuf]) -> Result<(), String> {
    paths.iter().try_for_each(|path| fs::remove_file(path).map_err(failed(path)))
}

fn manifests(data: &Path) -> Result<Vec<PathBuf>, String> {
    files(&data.join("state"), |name| name.starts_with("MANIFEST-"))
}

/// What F17 does in turn: the log, and the files that RocksDB begins with.
const LOSSES: [(&str, Damage); 5] = [
    ("its log was cut off", |data| {
        let path = raft_logs(data)?.swap_remove(0);
        let bytes = fs::read(&path).map_err(failed(&path))?;
        cut(&path, written(&bytes) as u64)
    }),
    ("its log is gone", |data| remove(&raft_logs(data)?)),
    ("MANIFEST was cut off", |data| {
        let path = manifests(data)?.swap_remove(0);
        cut(&path, fs::metadata(&path).map_err(failed(&path))?.len())
    }),
    ("MANIFEST is gone", |data| remove(&manifests(data)?)),
    ("CURRENT is gone", |data| remove(&[data.join("state").join("CURRENT")])),
];

/// F17: one of them after the other.
pub(super) async fn lost_files(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let mut troubles = Vec::new();
    let (mut fired, mut round) = (Tally::of(LOSSES.map(|(what, _)| what)), 0);
    while round == 0 || Instant::now() < until {
        let place = fired.turn(round);
        let (what, damage) = LOSSES[place];
        let node = arena.watch.busiest();
        // All of them are tried: each is a finding of its own.
        troubles.extend(refused(arena, node, what, damage).await.err());
        fired.count(place, true);
        round += 1;
    }
    if troubles.is_empty() { Ok(Fired::Each(fired)) } else { Err(troubles.join("\n")) }
}
