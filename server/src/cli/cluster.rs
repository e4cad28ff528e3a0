//! `rove-server cluster`: what an operator asks a running node.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use http::Method;
use serde::Serialize;

use super::config::{Config, ConfigError};
use crate::admin::client::{AdminError, ask};
use crate::admin::status::{Status, progress};
use crate::admin::{Drain, TransferLeader};
use crate::leaving::{DrainPhase, DrainProgress};

/// Between two questions how far a drain is.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster status --config /etc/rove/rove.toml
  rove-server cluster status --config rove.toml --json
  rove-server cluster transfer-leader 3 2 --config rove.toml    node 2 is to lead partition 3
  rove-server cluster drain --config rove.toml                  before maintenance of this node
  rove-server cluster drain --undo --config rove.toml

The node whose configuration is named must run on this machine, as this user: it is asked over admin.sock in its data
directory.")]
pub(super) struct ClusterArgs {
    #[command(subcommand)]
    command: ClusterCommand,
}

#[derive(Debug, Subcommand)]
enum ClusterCommand {
    /// Show the nodes and the partitions, as this node sees them.
    Status(StatusArgs),
    /// Have another node lead a partition.
    TransferLeader(TransferArgs),
    /// Move leaders and then sessions away from this node, and wait until that is done.
    Drain(DrainArgs),
}

#[derive(Debug, Args)]
struct Target {
    /// The configuration of a node that runs on this machine.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Answer in JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster status --config rove.toml
  rove-server cluster status --config rove.toml --json | jq '.warnings'

The node that was asked has a *. `applied` is how far each node has applied the partition's log, and -N that it lacks N
committed entries.")]
struct StatusArgs {
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster transfer-leader 0 2 --config rove.toml    node 2 is to lead the directory

Any node may be asked: it tells the one that leads. Posts wait for some milliseconds meanwhile.")]
struct TransferArgs {
    /// Which partition; 0 is the directory.
    partition: u16,
    /// Which node is to lead it.
    node: u64,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster drain --config rove.toml           returns when the node may be stopped
  rove-server cluster drain --undo --config rove.toml    the node serves again

SIGTERM does the same before the node stops; this is for looking whether all went well before.")]
struct DrainArgs {
    /// Take it back: the node serves again.
    #[arg(long)]
    undo: bool,
    #[command(flatten)]
    target: Target,
}

/// Why it was not done.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClusterCliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Admin(#[from] AdminError),
    #[error("the runtime cannot start: {0}")]
    Runtime(std::io::Error),
}

pub(super) fn run(args: &ClusterArgs) -> Result<(), ClusterCliError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(ClusterCliError::Runtime)?.block_on(async {
        match &args.command {
            ClusterCommand::Status(StatusArgs { target }) => status(target).await,
            ClusterCommand::TransferLeader(args) => transfer(args).await,
            ClusterCommand::Drain(args) => drain(args).await,
        }
    })
}

impl Target {
    async fn ask<T: serde::de::DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&(impl Serialize + Sync)>,
    ) -> Result<T, ClusterCliError> {
        let config = Config::load(&self.config)?;
        Ok(ask(&config.data_dir, method, path, body).await?)
    }

    /// Prints one or the other.
    fn print(&self, json: &impl Serialize, text: &str) {
        if self.json {
            super::print(&serde_json::to_string(json).unwrap_or_default());
        } else {
            super::print(text.trim_end());
        }
    }
}

/// No body.
const NOTHING: Option<&()> = None;

async fn status(target: &Target) -> Result<(), ClusterCliError> {
    let status: Status = target.ask(Method::GET, "/v1/status", NOTHING).await?;
    target.print(&status, &status.table());
    Ok(())
}

async fn transfer(args: &TransferArgs) -> Result<(), ClusterCliError> {
    let body = TransferLeader { partition: args.partition, node: args.node };
    let () = args.target.ask(Method::POST, "/v1/transfer-leader", Some(&body)).await?;
    args.target.print(&body, &format!("node {} leads partition {}", args.node, args.partition));
    Ok(())
}

async fn drain(args: &DrainArgs) -> Result<(), ClusterCliError> {
    let body = Drain { undo: args.undo };
    let mut now: DrainProgress = args.target.ask(Method::POST, "/v1/drain", Some(&body)).await?;
    let mut said = None;
    while !args.undo && !matches!(now.phase, DrainPhase::Drained | DrainPhase::Serving) {
        if !args.target.json && said.as_ref() != Some(&now) {
            super::say(&progress(&now));
        }
        said = Some(now);
        tokio::time::sleep(LOOK).await;
        now = args.target.ask(Method::GET, "/v1/drain", NOTHING).await?;
    }
    args.target.print(&now, &progress(&now));
    Ok(())
}
