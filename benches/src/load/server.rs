//! A real `rove-server`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_quic::Trust;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::error::{LoadError, io};
use super::http::Http;

/// A node with an empty data directory listens within a second; a loaded machine may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the server's own deadline for draining.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// From listening to serving: the node replays its log, and reaches the leaders of all partitions.
const READY_TIMEOUT: Duration = Duration::from_secs(300);
/// A process that was killed is gone at once, unless the disk keeps it.
const END_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks at whether it serves, or has ended: what is measured with it takes tens of milliseconds at least.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The configuration's name in its directory.
pub(super) const CONFIG: &str = "rove.toml";

/// A process of a server's. If it is dropped while it runs it is killed, by its own id, and gone: whoever removes its directory next must
/// not have it write there meanwhile.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        // Fails if it has ended, which is what is wanted.
        let _ = self.0.start_kill();
        let killed = Instant::now();
        // There is nothing to await with: the runtime may be ending.
        while matches!(self.0.try_wait(), Ok(None)) && killed.elapsed() < END_TIMEOUT {
            std::thread::sleep(LOOK_EVERY);
        }
    }
}

/// A running server. Killed, by its own process id, if it is dropped before [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    process: Process,
    pid: u32,
    started: Instant,
    quic: SocketAddr,
    trust: Trust,
    /// Where its output goes.
    log: PathBuf,
}

/// `rove-server` beside the running program.
///
/// # Errors
/// [`LoadError::Io`] if the program does not know where it is.
pub fn beside_this_program() -> Result<PathBuf, LoadError> {
    let this = std::env::current_exe().map_err(io("finding this program"))?;
    Ok(this.with_file_name("rove-server"))
}

impl Server {
    /// Makes a configuration and a certificate in `dir`, for a server that listens on `listen`; `keys` (lines of TOML) and
    /// `tables` are added.
    ///
    /// # Errors
    /// [`LoadError::Server`] with what `rove-server init` says.
    pub async fn configure(binary: &Path, dir: &Path, listen: &str, keys: &str, tables: &str) -> Result<(), LoadError> {
        run(Command::new(binary).args(["init", "--listen", listen, "--dir"]).arg(dir)).await?;
        let config = dir.join(CONFIG);
        let text = std::fs::read_to_string(&config).map_err(io("reading the configuration"))?;
        // The load signs up many accounts from one address, on whatever cores there are.
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let accounts = format!("[accounts]\nrate_limits = false\nhash_concurrency = {cores}");
        let text = format!("{keys}\n{text}\n{accounts}\n{tables}");
        std::fs::write(&config, text).map_err(io("writing the configuration"))
    }

    /// Starts what is configured in `dir`, and waits until it listens.
    ///
    /// # Errors
    /// [`LoadError::Server`] with the end of its log if it does not listen.
    pub async fn start(binary: &Path, dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join("log");
        let log = std::fs::File::create(&path).map_err(io("making the server's log"))?;
        let started = Instant::now();
        let child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(dir.join(CONFIG))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .map_err(io("starting rove-server"))?;
        let mut process = Process(child);
        let pid = process.0.id().ok_or(LoadError::Ended("the server"))?;
        match tokio::time::timeout(START_TIMEOUT, listening(&mut process.0)).await {
            Ok(Some((quic, pin))) => Ok(Self { process, pid, started, quic, trust: Trust::Pins(vec![pin]), log: path }),
            _ => Err(LoadError::Server(std::fs::read_to_string(path).unwrap_or_default())),
        }
    }

    /// Waits until `/readyz` says that it serves; how long that took from its start.
    ///
    /// # Errors
    /// [`LoadError::Server`] with why it does not.
    pub async fn ready(&self) -> Result<Duration, LoadError> {
        let mut why = String::new();
        while self.started.elapsed() < READY_TIMEOUT {
            // One connection for all questions: a node that has just started has better things to do than handshakes.
            let asked = async {
                let http = Http::connect(self).await?;
                loop {
                    let (status, text) = http.sender().get("/readyz").await?;
                    if status.is_success() {
                        return Ok::<_, LoadError>(self.started.elapsed());
                    }
                    String::from_utf8_lossy(&text).trim().clone_into(&mut why);
                    tokio::time::sleep(LOOK_EVERY).await;
                }
            };
            match tokio::time::timeout(READY_TIMEOUT.saturating_sub(self.started.elapsed()), asked).await {
                Ok(Ok(took)) => return Ok(took),
                Ok(Err(error)) => why = error.to_string(),
                Err(_) => break,
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(LoadError::Server(format!("it is not ready: {why}")))
    }

    /// Ends it at once, without a word to anybody.
    ///
    /// # Errors
    /// [`LoadError::Io`].
    pub async fn kill(&mut self) -> Result<(), LoadError> {
        self.process.0.kill().await.map_err(io("killing the server"))
    }

    /// Where clients connect.
    pub fn quic(&self) -> SocketAddr {
        self.quic
    }

    /// Whom they trust.
    pub fn trust(&self) -> &Trust {
        &self.trust
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Lets it drain and waits for its end.
    ///
    /// # Errors
    /// [`LoadError::Server`] if it does not end in time, or not with 0.
    pub async fn stop(mut self) -> Result<(), LoadError> {
        // Fails only if it is gone already, which waiting for it tells.
        let _ = kill(Pid::from_raw(self.pid.cast_signed()), Signal::SIGTERM);
        let status = tokio::time::timeout(STOP_TIMEOUT, self.process.0.wait())
            .await
            .map_err(|_| LoadError::Server("it did not stop in time".to_owned()))?
            .map_err(io("waiting for the server"))?;
        if status.success() {
            return Ok(());
        }
        let log = std::fs::read_to_string(self.log).unwrap_or_default();
        Err(LoadError::Server(format!("it ended with {status}\n{log}")))
    }
}

/// Runs a command to its end; what it printed.
///
/// # Errors
/// [`LoadError::Server`] with what it says if it fails.
pub(super) async fn run(command: &mut Command) -> Result<Vec<u8>, LoadError> {
    let output = command.kill_on_drop(true).output().await.map_err(io("running rove-server"))?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(LoadError::Server(String::from_utf8_lossy(&output.stderr).into_owned()))
}

/// The address and the pin in the line a server prints once it listens.
pub async fn listening(child: &mut Child) -> Option<(SocketAddr, [u8; 32])> {
    let mut lines = BufReader::new(child.stdout.as_mut()?).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(fields) = line.strip_prefix("listening ") else { continue };
        let field = |name: &str| fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        let pin = URL_SAFE_NO_PAD.decode(field("pin")?).ok()?;
        return Some((field("quic")?.parse().ok()?, pin.try_into().ok()?));
    }
    None
}
