//! Whether a server has its data on the disk before it acknowledges: not believed, but counted with strace, while messages go out
//! one at a time.
//!
//! A server that syncs for each message has at least one `fsync` or `fdatasync` for each of them, and one that syncs now and then
//! has none in so short a time. (What writes to a file that was opened with `O_SYNC` would not be seen.)

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::timeout;

use crate::link::{Event, Link};
use crate::process::{LOOK_EVERY, Server, installed};
use crate::work::Done;

/// Messages while it is counted.
const MESSAGES: u64 = 20;
/// strace attaches to every thread, and a server that is traced is slow.
const PATIENCE: Duration = Duration::from_secs(20);

/// How many syncs there were for each message, in words; `None` if there is no strace.
pub(crate) async fn count<L: Link>(mut link: L, done: Done, servers: &[u32], dir: &Path) -> Result<Option<String>> {
    if !installed("strace") {
        return Ok(None);
    }
    let trace = dir.join("syncs.trace");
    let mut args: Vec<String> =
        ["-f", "-e", "trace=fsync,fdatasync,sync_file_range,msync", "-o"].map(str::to_owned).into();
    args.push(trace.display().to_string());
    args.extend(servers.iter().flat_map(|pid| ["-p".to_owned(), pid.to_string()]));
    let mut strace = Server::start("strace", "strace", &args, &[], dir)?;
    attached(&mut strace, dir, servers.len()).await?;
    timeout(PATIENCE, one_by_one(&mut link, done)).await.context("messages were lost while syncs were counted")??;
    kill(Pid::from_raw(strace.pid().cast_signed()), Signal::SIGINT)?;
    let deadline = Instant::now() + PATIENCE;
    while strace.alive().is_ok() && Instant::now() < deadline {
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok(Some(words(&std::fs::read_to_string(trace)?)))
}

/// strace says so for each process.
async fn attached(strace: &mut Server, dir: &Path, processes: usize) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = std::fs::read_to_string(dir.join("strace.log"))?;
        if log.lines().filter(|line| line.contains(" attached")).count() >= processes {
            return Ok(());
        }
        strace.alive()?;
        if Instant::now() > deadline {
            bail!("strace does not attach:\n{log}");
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn one_by_one<L: Link>(link: &mut L, done: Done) -> Result<()> {
    for number in 0..MESSAGES {
        link.send(number)?;
        loop {
            match (done, link.next().await?) {
                (Done::Acknowledged, Event::Acknowledged(other)) | (Done::Delivered, Event::Delivered(other))
                    if other == number =>
                {
                    break;
                }
                (_, Event::Refused(number)) => bail!("message {number} was refused"),
                _ => {}
            }
        }
    }
    Ok(())
}

/// What a trace says.
fn words(trace: &str) -> String {
    // A call that another thread interrupts has a second line, which says `resumed`.
    let calls = trace.lines().filter(|line| line.contains("sync") && line.contains('(') && !line.contains(" resumed>"));
    let calls = calls.filter(|line| !line.contains("+++") && !line.contains("---")).count() as u64;
    let counted = format!("{calls} syncs for {MESSAGES} messages, one at a time");
    if calls >= MESSAGES { format!("yes ({counted})") } else { format!("**no** ({counted})") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_two_lines_is_counted_once_and_signals_are_not() {
        let call = "12 fdatasync(7 <unfinished ...>\n13 fsync(8) = 0\n12 <... fdatasync resumed>) = 0\n12 +++ exited with 0 +++\n";
        assert!(words(call).starts_with("**no** (2 syncs"));
        assert!(words(&"1 fsync(3) = 0\n".repeat(20)).starts_with("yes (20 syncs"));
    }
}
