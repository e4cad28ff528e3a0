//! `rove demo`: a server, two people, one conversation, and a move in the middle of it.
//!
//! On a terminal the user is one of the two and the other one answers. Without a terminal both follow a script, one of
//! them changes its UDP socket half-way, and what happened is checked and printed. With `--at` the nodes are a cluster's, which runs
//! already, and a command does something to them meanwhile.

mod companion;
mod failover;
mod script;
mod server;

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::process::ExitCode;

use rove_client::{Client, Options, ServerAddress, StoreLocation};

use server::DemoServer;

/// Long enough for the server's rules; the accounts live as long as the demo.
const PASSWORD: &str = "a demo password";

/// A node, two accounts and a conversation, from nothing, and nothing left behind.
#[derive(Debug, clap::Args)]
pub struct DemoArgs {
    /// The rove-server binary [default: the one beside this program]
    #[arg(long, value_name = "FILE")]
    server_binary: Option<PathBuf>,

    /// Play the script even on a terminal
    #[arg(long)]
    script: bool,

    /// Keep the data directory, and say where it is
    #[arg(long)]
    keep: bool,

    /// Use a cluster that runs: alice begins at the first, bob at the second of these addresses
    #[arg(long, value_name = "ADDRESS", num_args = 1, conflicts_with_all = ["server_binary", "script", "keep"])]
    at: Vec<ServerAddress>,

    /// While both post, run this with sh: it kills and starts nodes, say
    #[arg(long, value_name = "COMMAND", requires = "at")]
    meanwhile: Option<String>,
}

/// Why the demo did not work.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The server's binary is missing.
    #[error("{0} is not there: build it with `cargo build --release`, or name it with --server-binary")]
    NoBinary(PathBuf),
    /// The server did not start.
    #[error("the server did not start: {0}")]
    Server(String),
    /// A file or a socket failed.
    #[error("{what}: {error}")]
    Io {
        /// What was being done.
        what: &'static str,
        /// What the system said.
        error: std::io::Error,
    },
    /// The client library failed.
    #[error(transparent)]
    Client(#[from] rove_client::Error),
    /// The terminal chat failed.
    #[error("the terminal chat failed: {0}")]
    Chat(String),
}

/// Runs the demo. The exit code is 0 only if everything held.
///
/// # Errors
/// [`DemoError`], when there was nothing to check.
pub async fn run(args: DemoArgs) -> Result<ExitCode, DemoError> {
    if let [first, .., second] = args.at.as_slice() {
        let held = failover::play(first, second, args.meanwhile.as_deref()).await?;
        return Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE });
    }
    if !args.at.is_empty() {
        return Err(DemoError::Server("--at is wanted twice: once for each of the two people".to_owned()));
    }
    let binary = args.server_binary.map_or_else(server::beside_this_program, Ok)?;
    let server = DemoServer::start(&binary, args.keep).await?;
    let outcome = with_server(&server, args.script || !std::io::stdout().is_terminal()).await;
    // Stopped and cleaned up whatever happened.
    let stopped = server.stop().await;
    let held = outcome?;
    stopped?;
    Ok(if held { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn with_server(server: &DemoServer, scripted: bool) -> Result<bool, DemoError> {
    let (alice, bob) = tokio::try_join!(sign_up(server, "alice"), sign_up(server, "bob"))?;
    let conversation = alice.create_direct("bob").await?;
    let held = if scripted {
        script::play(&alice, &bob, conversation).await?
    } else {
        companion::chat(&alice, &bob, conversation).await?
    };
    alice.close().await;
    bob.close().await;
    Ok(held)
}

async fn sign_up(server: &DemoServer, handle: &str) -> Result<Client, DemoError> {
    let store = StoreLocation::File(server.dir().join(format!("{handle}.db")));
    let options = Options { name: "rove demo".to_owned(), ..Options::new(store) };
    Ok(Client::sign_up(server.address(), handle, PASSWORD, options).await?)
}
