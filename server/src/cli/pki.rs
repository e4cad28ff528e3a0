//! `rove-server pki`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use rove_protocol::ids::NodeId;

use crate::cluster::pki::{self, NODE_DAYS, PkiError};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server pki ca --cluster chat --out ca            once, on one machine
  rove-server pki node --ca ca --node 1 --out node-1    for each node; the directory goes to it

Keep ca.key away from the nodes: whoever has it can make a node. Certificates are renewed with `pki node` into a new directory; a
running node reads files that were replaced.")]
pub(super) struct PkiArgs {
    #[command(subcommand)]
    command: PkiCommand,
}

#[derive(Debug, Subcommand)]
enum PkiCommand {
    /// Make the authority of a cluster: ca.pem, ca.key, ca.cluster.
    Ca(CaArgs),
    /// Make the certificate of a node: node-N.pem, node-N.key, and ca.pem beside them.
    Node(NodeArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server pki ca --cluster chat --out ca")]
struct CaArgs {
    /// The cluster's name: a-z, 0-9 and -.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Where to write; made if it is not there. Nothing is written over.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server pki node --ca ca --node 1 --out node-1
  rove-server pki node --ca ca --node 1 --out node-1-renewed --days 365")]
struct NodeArgs {
    /// The authority's directory, from `pki ca`.
    #[arg(long, value_name = "DIR")]
    ca: PathBuf,
    /// The node's id, as in node_id.
    #[arg(long, value_name = "N")]
    node: NodeId,
    /// Where to write; made if it is not there. Nothing is written over.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// How long it is good.
    #[arg(long, value_name = "DAYS", default_value_t = NODE_DAYS, value_parser = clap::value_parser!(u32).range(1..=3_650))]
    days: u32,
}

pub(super) fn run(args: &PkiArgs) -> Result<(), PkiError> {
    let written = match &args.command {
        PkiCommand::Ca(CaArgs { cluster, out }) => pki::make_authority(out, cluster)?,
        PkiCommand::Node(NodeArgs { ca, node, out, days }) => pki::make_node(ca, *node, out, *days)?,
    };
    super::say(&format!("wrote {} and {}", written.certificate.display(), written.key.display()));
    Ok(())
}
