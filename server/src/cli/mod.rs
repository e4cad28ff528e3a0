//! The command line: `rove-server init`, `pki`, `serve`, `dev` and `cluster`.
//!
//! Exit codes: 0 after a clean stop, 1 if the node cannot start or go on, 2 for a command line or a configuration that is
//! wrong, 3 if the node was removed from its cluster, 130 after a second signal. Messages for people go to standard error; standard output has only what programs
//! read: the line that says where the server listens, and the addresses for clients.

mod cluster;
pub mod config;
mod dev;
mod init;
mod join;
mod logging;
mod members;
mod pki;
mod run;

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};
use rove_core::formation::FormationError;

use self::config::ConfigError;
use self::run::RunError;
use crate::release::Release;

/// The Rove chat server.
#[derive(Debug, Parser)]
#[command(name = "rove-server", version, about, subcommand_required = true, arg_required_else_help = true)]
#[command(after_help = "Examples:
  rove-server dev                         a server to try things with, in ./rove-data
  rove-server init --dir /etc/rove        a commented configuration and a development certificate
  rove-server pki ca --cluster chat --out ca   an authority for the certificates of several nodes
  rove-server serve --config /etc/rove/rove.toml
  rove-server cluster status --config /etc/rove/rove.toml")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Write a commented configuration and a development certificate.
    Init(init::InitArgs),
    /// Make the authority of a cluster, and certificates of its nodes.
    Pki(pki::PkiArgs),
    /// Run a node.
    Serve(ServeArgs),
    /// Run a node for development: a certificate and data of its own, no limits on sign-ups.
    Dev(dev::DevArgs),
    /// Ask a running node: show the cluster, move a leader, drain, add, replace or remove a node.
    Cluster(cluster::ClusterArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server serve --config /etc/rove/rove.toml
  rove-server serve --config rove.toml --listen-quic 127.0.0.1:0 --listen-https 127.0.0.1:0

Once the node serves, one line on standard output says where (a port of 0 is the system's choice):
  listening quic=127.0.0.1:7683 https=127.0.0.1:7683 pin=…

SIGTERM or SIGINT: sessions are told to go elsewhere, the log is flushed, exit code 0. A second one ends at once.")]
struct ServeArgs {
    /// The configuration file.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// UDP address for rove/1 and HTTP/3, instead of listen_quic.
    #[arg(long, value_name = "ADDRESS")]
    listen_quic: Option<SocketAddr>,
    /// TCP address for HTTP/1.1 and HTTP/2, instead of listen_https.
    #[arg(long, value_name = "ADDRESS")]
    listen_https: Option<SocketAddr>,
    /// Also write the line that says where the node listens to this file.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// What is logged, instead of log_level: a level, or directives such as `info,rove_server=debug`.
    #[arg(long, value_name = "LEVEL", env = "ROVE_LOG")]
    log_level: Option<String>,
}

/// Why the program ends before it should.
#[derive(Debug, thiserror::Error)]
enum CliError {
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Run(#[from] RunError),
    #[error("{0}")]
    Init(#[from] init::InitError),
    #[error(transparent)]
    Pki(#[from] crate::cluster::pki::PkiError),
    #[error(transparent)]
    Cluster(#[from] cluster::ClusterCliError),
}

impl CliError {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Config(_) | Self::Run(RunError::Tls(_)) | Self::Cluster(cluster::ClusterCliError::Config(_)) => 2,
            Self::Run(RunError::Out(FormationError::Removed { .. })) => 3,
            Self::Run(_) | Self::Init(_) | Self::Pki(_) | Self::Cluster(_) => 1,
        }
    }
}

/// Runs the program with the arguments of the process.
pub fn main() -> ExitCode {
    main_as(Release::THIS)
}

/// The same, as another release: tests make programs of it.
pub fn main_as(release: Release) -> ExitCode {
    let done = match Cli::parse().command {
        Command::Init(args) => init::run(&args).map_err(CliError::from),
        Command::Pki(args) => pki::run(&args).map_err(CliError::from),
        Command::Serve(args) => serve(args, release),
        Command::Dev(args) => dev::run(&args),
        Command::Cluster(args) => cluster::run(&args).map_err(CliError::from),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&format!("rove-server: {error}"));
            ExitCode::from(error.exit_code())
        }
    }
}

fn serve(args: ServeArgs, release: Release) -> Result<(), CliError> {
    let mut config = config::Config::load(&args.config)?;
    config.release = release;
    config.listen_quic = args.listen_quic.unwrap_or(config.listen_quic);
    config.listen_https = args.listen_https.unwrap_or(config.listen_https);
    config.log_level = args.log_level.unwrap_or(config.log_level);
    logging::start(config.log_format, &config.log_level)?;
    run::run(&config, args.ready_file.as_deref(), run::Announce::Line)?;
    Ok(())
}

/// A line for whoever sits there.
fn say(text: &str) {
    // If nobody reads standard error there is nobody to tell that.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A line for whatever program reads along.
fn print(text: &str) {
    let mut out = std::io::stdout();
    let _ = writeln!(out, "{text}").and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_an_example() {
        for command in Cli::command().get_subcommands() {
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Examples:"), "{}", command.get_name());
        }
    }
}
