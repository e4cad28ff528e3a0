//! A real `rove-server`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_quic::Trust;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::error::{LoadError, io};

/// A node with an empty data directory listens within a second; a loaded machine may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// Longer than the server's own deadline for draining.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// The configuration's name in its directory.
pub(super) const CONFIG: &str = "rove.toml";

/// A running server. Killed, by its own process id, if it is dropped before [`Server::stop`].
#[derive(Debug)]
pub struct Server {
    child: Child,
    pid: u32,
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
        let mut child = Command::new(binary)
            .arg("serve")
            .arg("--config")
            .arg(dir.join(CONFIG))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("starting rove-server"))?;
        let pid = child.id().ok_or(LoadError::Ended("the server"))?;
        match tokio::time::timeout(START_TIMEOUT, listening(&mut child)).await {
            Ok(Some((quic, pin))) => Ok(Self { child, pid, quic, trust: Trust::Pins(vec![pin]), log: path }),
            _ => Err(LoadError::Server(std::fs::read_to_string(path).unwrap_or_default())),
        }
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
        let status = tokio::time::timeout(STOP_TIMEOUT, self.child.wait())
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

/// Runs a command to its end.
///
/// # Errors
/// [`LoadError::Server`] with what it says if it fails.
pub(super) async fn run(command: &mut Command) -> Result<(), LoadError> {
    let output = command.output().await.map_err(io("running rove-server"))?;
    if output.status.success() {
        return Ok(());
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
