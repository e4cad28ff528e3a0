//! The demo's own server: a real `rove-server dev` in a directory of its own.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_client::ServerAddress;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use super::DemoError;

/// A node with an empty data directory listens within a second; a loaded machine may take longer.
const START_TIMEOUT: Duration = Duration::from_secs(30);
/// The server's own deadline for draining is shorter.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// A running server. Killed if it is dropped before [`DemoServer::stop`].
#[derive(Debug)]
pub(super) struct DemoServer {
    child: Child,
    address: ServerAddress,
    dir: PathBuf,
    keep: bool,
}

/// `rove-server` next to the running binary.
pub(super) fn beside_this_program() -> Result<PathBuf, DemoError> {
    let this = std::env::current_exe().map_err(|error| DemoError::Io { what: "finding this program", error })?;
    Ok(this.with_file_name("rove-server"))
}

impl DemoServer {
    /// Starts it and waits until it listens.
    pub(super) async fn start(binary: &Path, keep: bool) -> Result<Self, DemoError> {
        if !binary.exists() {
            return Err(DemoError::NoBinary(binary.to_owned()));
        }
        let dir = std::env::temp_dir().join(format!("rove-demo-{}", std::process::id()));
        let io = |what| move |error| DemoError::Io { what, error };
        std::fs::create_dir_all(&dir).map_err(io("making the demo's directory"))?;
        let log = std::fs::File::create(dir.join("server.log")).map_err(io("making the server's log"))?;
        let mut child = Command::new(binary)
            .args(["dev", "--listen", "127.0.0.1:0", "--data-dir"])
            .arg(dir.join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(log)
            .kill_on_drop(true)
            .spawn()
            .map_err(io("starting the server"))?;
        let Ok(Some(address)) = tokio::time::timeout(START_TIMEOUT, listening(&mut child)).await else {
            let log = std::fs::read_to_string(dir.join("server.log")).unwrap_or_default();
            return Err(DemoError::Server(log));
        };
        Ok(Self { child, address, dir, keep })
    }

    /// What clients are given.
    pub(super) fn address(&self) -> &ServerAddress {
        &self.address
    }

    /// Where everything of this demo is.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// Lets it drain, waits for its end and removes the directory.
    pub(super) async fn stop(mut self) -> Result<(), DemoError> {
        if let Some(id) = self.child.id() {
            let _ = kill(Pid::from_raw(id.cast_signed()), Signal::SIGTERM);
        }
        let status = match tokio::time::timeout(STOP_TIMEOUT, self.child.wait()).await {
            Ok(status) => status.map_err(|error| DemoError::Io { what: "waiting for the server", error })?,
            Err(_) => return Err(DemoError::Server("it did not stop in time".to_owned())),
        };
        if self.keep {
            println!("kept: {}", self.dir.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.dir);
        }
        if status.success() { Ok(()) } else { Err(DemoError::Server(format!("it ended with {status}"))) }
    }
}

/// The address in the line the server prints once it listens.
async fn listening(child: &mut Child) -> Option<ServerAddress> {
    let mut lines = BufReader::new(child.stdout.as_mut()?).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Some(fields) = line.strip_prefix("listening ") else { continue };
        let field = |name: &str| fields.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
        return format!("rove://{}?pin={}", field("quic")?, field("pin")?).parse().ok();
    }
    None
}
