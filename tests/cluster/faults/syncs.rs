//! F2, F13: a node dies in the middle of a sync of its disk, or the sync fails. By `strace`, where there is one that may attach.

use std::fs;
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::Instant;

use super::Fired;
use crate::arena::Arena;
use crate::nodes::NODES;

/// A node syncs its log many times a second under load.
const ENDS_WITHIN: Duration = Duration::from_secs(20);
/// Syncs after which a node is killed, at most: counted for each of its threads.
const DEEPEST: u64 = 40;
/// What a node says at the end that was told of a failed sync, whoever of its libraries was told: it stops, and why.
const STOPS: &str = "the node cannot go on";
const WHY: [&str; 4] = ["fdatasync", "fsync", "Input/output error", "disk I/O error"];

/// A tracer that is attached to a process. Let go of when dropped: the process goes on.
struct Tracer(Child);

impl Drop for Tracer {
    fn drop(&mut self) {
        // It lets go of what it traces when it is interrupted, and may be gone already, with it.
        let _ = kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGINT);
        let _ = self.0.wait();
    }
}

/// Attaches a tracer that does `what` at syncs; it writes what it did to a file.
fn attach(arena: &Arena, node: u64, what: &str) -> Result<(Tracer, std::path::PathBuf), String> {
    let pid = arena.nodes.pid(node).ok_or("the node is gone")?;
    let out = arena.nodes.home(node).dir.join("trace");
    let _ = fs::remove_file(&out);
    let child = Command::new("strace")
        .args(["-f", "-q", "-e", "trace=fdatasync,fsync", "-e", &format!("inject=fdatasync,fsync:{what}"), "-o"])
        .arg(&out)
        .args(["-p", &pid.to_string()])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("strace cannot be run: {error}"))?;
    Ok((Tracer(child), out))
}

/// Attaches to a node in turn, waits for it to end by what is done, and starts it again.
async fn again(
    arena: &mut Arena,
    until: Instant,
    mut what: impl FnMut(&mut Arena) -> String,
    injected: impl Fn(&str) -> bool,
    as_it_should: impl Fn(ExitStatus, &str) -> bool,
) -> Result<Fired, String> {
    let mut fired = 0;
    while fired == 0 || Instant::now() < until {
        let node = if fired % 2 == 0 { arena.watch.busiest() } else { arena.rng.pick(&NODES).unwrap_or(1) };
        let what = what(arena);
        let since = arena.nodes.log(node).len();
        let (mut tracer, out) = match attach(arena, node, &what) {
            Ok(attached) => attached,
            Err(why) if fired == 0 => return Ok(Fired::Skipped(why)),
            Err(why) => return Err(why),
        };
        let ended = arena.nodes.ends_within(node, ENDS_WITHIN).await;
        let traced = fs::read_to_string(&out).unwrap_or_default();
        if !injected(&traced) {
            if fired == 0 && tracer.0.try_wait().is_ok_and(|ended| ended.is_some()) && ended.is_none() {
                return Ok(Fired::Skipped("strace may not attach to a process here".to_owned()));
            }
            return Err(format!("strace did nothing to node {node} ({what}); it ended: {ended:?}"));
        }
        let Some(status) = ended else {
            return Err(format!("node {node} goes on after {what}: {}", arena.nodes.last_words(node)));
        };
        let log = arena.nodes.log(node);
        let said = log.get(since..).unwrap_or_default();
        if !as_it_should(status, said.lines().last().unwrap_or_default()) {
            return Err(format!("node {node} ended ({status}) other than it should after {what}: {said}"));
        }
        fired += 1;
        drop(tracer);
        arena.nodes.start(node);
        arena.nodes.serves(node).await?;
        arena.accepts_everywhere().await?;
    }
    Ok(Fired::Times(fired))
}

/// F2.
pub(super) async fn kill_at_sync(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let what = |arena: &mut Arena| format!("signal=KILL:when={}", arena.rng.between(1, DEEPEST));
    let killed = |status: ExitStatus, _: &str| status.signal() == Some(Signal::SIGKILL as i32);
    again(arena, until, what, |traced| traced.contains("killed by SIGKILL"), killed).await
}

/// F13: nobody knows what reached the disk, so the node must stop, loudly.
pub(super) async fn fail_once(arena: &mut Arena, until: Instant) -> Result<Fired, String> {
    let what = |arena: &mut Arena| format!("error=EIO:when={}", arena.rng.between(1, DEEPEST));
    let says_so = |status: ExitStatus, last: &str| {
        status.code() == Some(1) && last.contains(STOPS) && WHY.iter().any(|words| last.contains(words))
    };
    again(arena, until, what, |traced| traced.contains("(INJECTED)"), says_so).await
}
