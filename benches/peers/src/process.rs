//! The servers that are measured: each a process of this one, in a group of its own, and ended with this one whatever happens.

use std::fs::File;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use tokio::net::TcpStream;

/// The slowest of them, on a loaded machine.
pub(crate) const START_TIMEOUT: Duration = Duration::from_secs(30);
/// A server that has not ended by then is killed: its data is thrown away anyhow.
const STOP_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at something that is waited for.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(20);

/// A running server.
#[derive(Debug)]
pub(crate) struct Server {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Server {
    /// Starts it. What it prints goes to `NAME.log` in `dir`.
    pub(crate) fn start(
        name: &str,
        program: &str,
        args: &[String],
        envs: &[(&str, String)],
        dir: &Path,
    ) -> Result<Self> {
        let path = dir.join(format!("{name}.log"));
        let log = File::create(&path).with_context(|| format!("making {}", path.display()))?;
        // Killed by the kernel if this process is killed and cannot do it. `setpriv` becomes the program: the id is the program's.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--", program])
            .args(args)
            .envs(envs.iter().map(|(key, value)| (*key, value.as_str())))
            .current_dir(dir)
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("starting {program}"))?;
        Ok(Self { name: name.to_owned(), child, log: path })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it takes connections there.
    pub(crate) async fn listens(&mut self, at: SocketAddr) -> Result<()> {
        let deadline = Instant::now() + START_TIMEOUT;
        while TcpStream::connect(at).await.is_err() {
            self.alive()?;
            if Instant::now() > deadline {
                bail!("{} does not listen on {at}:\n{}", self.name, self.last_words());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Whether it runs; if not, its last words are the error.
    pub(crate) fn alive(&mut self) -> Result<()> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_words()),
        }
    }

    /// Waits until it ends by itself, as it must.
    pub(crate) async fn finished(mut self) -> Result<()> {
        loop {
            match self.child.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => bail!("{} ended with {status}:\n{}", self.name, self.last_words()),
                None => tokio::time::sleep(LOOK_EVERY).await,
            }
        }
    }

    /// `kill -9`, as a power failure of one machine looks to the others.
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().with_context(|| format!("killing {}", self.name))?;
        self.child.wait()?;
        Ok(())
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }

    fn ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Its group first, as long as its id is taken: what it started and left is ended with it.
        let _ = killpg(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGKILL);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Asks them to end, all at once, and waits a little.
pub(crate) async fn stop(mut servers: Vec<Server>) {
    for server in servers.iter_mut().filter_map(|server| (!server.ended()).then_some(server.pid())) {
        let _ = kill(Pid::from_raw(server.cast_signed()), Signal::SIGTERM);
    }
    let deadline = Instant::now() + STOP_TIMEOUT;
    while Instant::now() < deadline && !servers.iter_mut().all(Server::ended) {
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Their ids.
pub(crate) fn pids(servers: &[Server]) -> Vec<u32> {
    servers.iter().map(Server::pid).collect()
}

/// Ports of 127.0.0.1 that nobody uses now.
pub(crate) fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut ports = [0; N];
    // All of them are held until the last is found: each is another one.
    let mut held = Vec::new();
    for port in &mut ports {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

/// What a command prints, on both streams.
pub(crate) fn output(program: &str, args: &[&str]) -> Result<String> {
    let output = Command::new(program).args(args).output().with_context(|| format!("running {program}"))?;
    Ok(format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)))
}

/// Whether there is such a program on the path.
pub(crate) fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn free_ports_differ() {
        let [a, b, c] = free_ports().unwrap();
        assert!(a != b && b != c && a != c);
    }

    #[tokio::test]
    async fn a_server_that_ends_at_once_is_told_with_its_last_words() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "echo not today; exit 3".to_owned()];
        let mut server = Server::start("quitter", "sh", &args, &[], dir.path()).unwrap();
        let [port] = free_ports().unwrap();
        let error = server.listens((Ipv4Addr::LOCALHOST, port).into()).await.unwrap_err().to_string();
        assert!(error.contains("not today") && error.contains('3'), "{error}");
    }

    #[tokio::test]
    async fn what_a_server_started_is_ended_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let args = ["-c".to_owned(), "sleep 600 & echo $! >child; wait".to_owned()];
        let server = Server::start("parent", "sh", &args, &[], dir.path()).unwrap();
        let child = loop {
            let text = std::fs::read_to_string(dir.path().join("child")).unwrap_or_default();
            if let Ok(pid) = text.trim().parse::<i32>() {
                break Pid::from_raw(pid);
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        drop(server);
        // Nobody may be left to take its end from it: a zombie is ended too.
        let gone = || match std::fs::read_to_string(format!("/proc/{child}/stat")) {
            Ok(stat) => stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z')),
            Err(_) => true,
        };
        while !gone() {
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }
}
