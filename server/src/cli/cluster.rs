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
use crate::membership::change::{Change, What};
use crate::membership::status::MembersStatus;

/// Between two questions how far a drain is.
const LOOK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster status --config /etc/rove/rove.toml
  rove-server cluster status --config rove.toml --json
  rove-server cluster transfer-leader 3 2 --config rove.toml    node 2 is to lead partition 3
  rove-server cluster drain --config rove.toml                  before maintenance of this node
  rove-server cluster drain --undo --config rove.toml
  rove-server cluster replace 3 --config rove.toml              node 3 has lost its disk, and runs with an empty one
  rove-server cluster add 4 --config rove.toml                  node 4 is new, and runs
  rove-server cluster remove 3 --config rove.toml

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
    /// Take in a new node, and wait until it is in every partition and has its votes.
    Add(MemberArgs),
    /// Rebuild a node that has lost its data directory, and wait until it is in every partition and has its votes again.
    Replace(MemberArgs),
    /// Take a node out, and wait until it is in no group any more.
    Remove(RemoveArgs),
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

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster add 4 --config rove.toml
  rove-server cluster add 4 --address chat4.example:7684 --config rove.toml
  rove-server cluster replace 3 --config rove.toml

Start the node first, with an empty data directory, its certificate, and all nodes in its cluster.peers, itself too: it waits, and
`rove-server cluster status` names it. Any node that serves may be asked. If the command is interrupted the change goes on; say
`rove-server cluster status` to see how far it is.")]
struct MemberArgs {
    /// Which node.
    node: u64,
    /// Where the other nodes reach it, if not where it says itself (add) or where they did before (replace).
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Also while another change is under way or the nodes run different versions.
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    target: Target,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server cluster drain --config node-3/rove.toml     on node 3, if it still runs
  rove-server cluster remove 3 --config node-1/rove.toml
  rove-server cluster remove 3 --json --config node-1/rove.toml

Any other node may be asked. Its leaders go elsewhere first, then it leaves each group; when that is done it is not talked to any
more, and may be stopped. Its data directory is of no further use. If the command is interrupted the change goes on.")]
struct RemoveArgs {
    /// Which node.
    node: u64,
    /// Also while another change is under way, or too few others are ready: it goes when they are.
    #[arg(long)]
    force: bool,
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
            ClusterCommand::Add(args) => args.run(What::Add).await,
            ClusterCommand::Replace(args) => args.run(What::Replace).await,
            ClusterCommand::Remove(RemoveArgs { node, force, target }) => {
                change(target, Change { what: What::Remove, node: *node, address: None, force: *force }).await
            }
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
        let config = Config::read(&self.config)?;
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

impl MemberArgs {
    async fn run(&self, what: What) -> Result<(), ClusterCliError> {
        let Self { node, address, force, target } = self;
        change(target, Change { what, node: *node, address: address.clone(), force: *force }).await
    }
}

/// Makes a change, and waits until every group has followed.
async fn change(target: &Target, change: Change) -> Result<(), ClusterCliError> {
    let mut now: MembersStatus = target.ask(Method::POST, "/v1/members", Some(&change)).await?;
    let mut said = String::new();
    while !now.is_settled() {
        let progress = now.progress();
        if !target.json && said != progress {
            super::say(&progress);
            said = progress;
        }
        tokio::time::sleep(LOOK).await;
        now = target.ask(Method::GET, "/v1/members", NOTHING).await?;
    }
    target.print(&now, &done(&change, &now));
    Ok(())
}

/// What has been reached. With more nodes than votes a node is in every group and votes in some.
fn done(change: &Change, now: &MembersStatus) -> String {
    let Change { what, node, .. } = change;
    let votes = now.groups.iter().filter(|group| group.voters.contains(node)).count();
    let places = format!("it is in all {} partitions, and votes in {votes} of them", now.groups.len());
    match what {
        What::Add => format!("node {node} is a member of the cluster: {places}"),
        What::Replace => format!("node {node} has its places again: {places}"),
        What::Remove => format!("node {node} is not a member of the cluster any more, and may be stopped"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::membership::status::GroupStatus;

    #[test]
    fn no_more_votes_are_claimed_for_a_node_than_it_has() {
        let group = |voters: &[u64], learners: &[u64]| GroupStatus {
            nodes: voters.to_vec(),
            voters: voters.to_vec(),
            learners: learners.to_vec(),
            settled: true,
        };
        let groups = vec![group(&[1, 2, 3], &[4]), group(&[2, 3, 4], &[1]), group(&[1, 3, 4], &[2])];
        let now = MembersStatus { groups, ..MembersStatus::default() };
        let said = |what, node| done(&Change { what, node, address: None, force: false }, &now);
        assert_eq!(
            said(What::Add, 4),
            "node 4 is a member of the cluster: it is in all 3 partitions, and votes in 2 of them"
        );
        assert_eq!(
            said(What::Replace, 3),
            "node 3 has its places again: it is in all 3 partitions, and votes in 3 of them"
        );
        assert_eq!(said(What::Remove, 5), "node 5 is not a member of the cluster any more, and may be stopped");
    }
}
