//! The real `rove-server` binary, in a directory of its own, on ports of its own.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rove_client::{ServerAddress, Trust};

use crate::PATIENCE;

/// A process, killed by its own id when dropped.
#[derive(Debug)]
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A running server. Killed, by its own process id, when dropped.
#[derive(Debug)]
pub struct Server {
    dir: PathBuf,
    child: Process,
    /// Where clients connect; the same after a restart.
    pub quic: SocketAddr,
    /// Where HTTP/1.1 and HTTP/2 are served; the same after a restart.
    pub https: SocketAddr,
    pin: [u8; 32],
}

/// The binary `name` of this build, next to the test that runs.
///
/// # Panics
/// If it has not been built: `cargo build --workspace` does, and `make test` calls it first.
pub fn binary(name: &str) -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    // target/debug/deps/test-0123 → target/debug/name
    let path = test.ancestors().nth(2).expect("a test lies in deps/").join(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// A server that was started and does not listen yet.
#[derive(Debug)]
pub struct Starting {
    dir: PathBuf,
    child: Process,
    lines: mpsc::Receiver<String>,
}

impl Starting {
    /// Starts a server on what `dir` has.
    pub(crate) fn spawn(dir: PathBuf, ports: Option<(SocketAddr, SocketAddr)>) -> Self {
        Self::spawn_as(Command::new(binary("rove-server")), dir, ports)
    }

    /// The same of another binary, or in another environment.
    fn spawn_as(mut command: Command, dir: PathBuf, ports: Option<(SocketAddr, SocketAddr)>) -> Self {
        let log = File::options().create(true).append(true).open(dir.join("log")).expect("a log file");
        command.arg("serve").arg("--config").arg(dir.join("rove.toml"));
        if let Some((quic, https)) = ports {
            command.arg("--listen-quic").arg(quic.to_string()).arg("--listen-https").arg(https.to_string());
        }
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().expect("rove-server serve starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if line.starts_with("listening ") && sender.send(line).is_err() {
                    return;
                }
            }
        });
        Self { dir, child: Process(child), lines }
    }

    /// Waits until the process ends instead.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(mut self) -> ExitStatus {
        end_of(&mut self.child.0)
    }

    /// Waits until it listens: it has replayed its log, or that takes longer than it waits itself.
    ///
    /// # Panics
    /// If it never does.
    pub fn listening(self) -> Server {
        let Self { dir, child, lines } = self;
        let line = lines.recv_timeout(PATIENCE).unwrap_or_else(|_| {
            panic!("the server never listened:\n{}", std::fs::read_to_string(dir.join("log")).unwrap_or_default())
        });
        let field = |name: &str| {
            line.split_whitespace()
                .find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
                .unwrap_or_else(|| panic!("no {name} in {line:?}"))
        };
        let address = format!("rove://{}?pin={}", field("quic"), field("pin"));
        let Trust::Pins(pins) = address.parse::<ServerAddress>().expect("a rove:// address").trust else {
            panic!("the address has no pin: {address}")
        };
        Server {
            quic: field("quic").parse().expect("an address"),
            https: field("https").parse().expect("an address"),
            pin: pins[0],
            dir,
            child,
        }
    }
}

/// Makes a configuration and a certificate in `dir`, with `keys` (lines of TOML, outside of any table) and `tables` added.
pub(crate) fn configure(dir: &Path, node: u16, listen: &str, keys: &str, tables: &str) {
    run(&["init", "--listen", listen, "--dir", dir.to_str().expect("a path of a test is text")]);
    let config = dir.join("rove.toml");
    let mut text = std::fs::read_to_string(&config).expect("init wrote the configuration");
    text = text.replace("\nnode_id = 1\n", &format!("\nnode_id = {node}\n"));
    text.push_str(keys);
    // Tests sign up many accounts from one address.
    text.push_str("\n[accounts]\nrate_limits = false\n");
    text.push_str(tables);
    std::fs::write(&config, text).expect("the configuration can be changed");
}

/// Runs `rove-server` with these arguments to its end, and returns what it printed.
///
/// # Panics
/// If it fails.
pub fn run(arguments: &[&str]) -> String {
    let output = Command::new(binary("rove-server")).args(arguments).output().expect("rove-server runs");
    assert!(output.status.success(), "{arguments:?} failed: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

impl Server {
    /// Makes a configuration and a certificate in `dir` and starts.
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, "")
    }

    /// The same, with `keys` (lines of TOML, outside of any table) added to the configuration.
    pub fn start_with(dir: &Path, keys: &str) -> Self {
        configure(dir, 1, "127.0.0.1:0", keys, "");
        Self::spawn(dir.to_owned(), None)
    }

    fn spawn(dir: PathBuf, ports: Option<(SocketAddr, SocketAddr)>) -> Self {
        Starting::spawn(dir, ports).listening()
    }

    /// What clients are given.
    pub fn address(&self) -> ServerAddress {
        ServerAddress::pinned(self.quic.ip().to_string(), self.quic.port(), vec![self.pin])
    }

    /// The directory with configuration, certificate, data and log.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.0.id()
    }

    /// What the server has logged so far, over all its lives.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log")).expect("the log can be read")
    }

    /// SIGKILL: gone at once, whatever it was doing.
    pub fn kill(&mut self) {
        self.child.0.kill().expect("the process is ours");
        self.child.0.wait().expect("the process is ours");
    }

    /// Starts it again on the same data and the same ports, after [`Server::kill`] or [`Server::terminate`].
    pub fn restart(&mut self) {
        let next = Self::spawn(self.dir.clone(), Some((self.quic, self.https)));
        *self = next;
    }

    /// The same, and does not wait until it listens.
    pub fn begin(&self) -> Starting {
        Starting::spawn(self.dir.clone(), Some((self.quic, self.https)))
    }

    /// The same, as the server of a later day (`rove-server-next`), which applies by one version more.
    pub fn begin_upgraded(&self) -> Starting {
        let later = Command::new(binary("examples/rove-server-next"));
        Starting::spawn_as(later, self.dir.clone(), Some((self.quic, self.https)))
    }

    /// The same as [`Server::restart`], on a machine whose clock is fast.
    pub fn restart_with_clock_ahead(&mut self, ahead: Duration) {
        let mut command = Command::new(binary("rove-server"));
        command.env("ROVE_CLOCK_AHEAD_MS", ahead.as_millis().to_string());
        let next = Starting::spawn_as(command, self.dir.clone(), Some((self.quic, self.https))).listening();
        *self = next;
    }

    /// The same, as a server (`rove-server-far`) that has no version of the protocol between nodes in common with this one.
    pub fn begin_too_new(&self) -> Starting {
        let newer = Command::new(binary("examples/rove-server-far"));
        Starting::spawn_as(newer, self.dir.clone(), Some((self.quic, self.https)))
    }

    /// SIGTERM, and waits for it to drain.
    pub fn terminate(&mut self) -> ExitStatus {
        kill(Pid::from_raw(self.child.0.id().cast_signed()), Signal::SIGTERM).expect("the process is ours");
        self.ended()
    }

    /// Waits until it ends.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) -> ExitStatus {
        end_of(&mut self.child.0)
    }
}

fn end_of(child: &mut Child) -> ExitStatus {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait().expect("the process is ours") {
            return status;
        }
        assert!(Instant::now() < deadline, "the server did not end within {PATIENCE:?}");
        // Waiting for another process: there is nothing to be told by, so it is asked now and then.
        std::thread::sleep(Duration::from_millis(10));
    }
}
