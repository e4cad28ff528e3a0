//! `rove-server dev`.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;

use clap::Args;

use super::CliError;
use super::config::{Accounts, Config, DEFAULT_PORT, LogFormat};
use super::init::{InitError, certificate};
use super::run::{self, Announce};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server dev                                         data in ./rove-data, port 7683 on this machine only
  rove-server dev --temporary --listen 127.0.0.1:0        any free port, nothing left behind
  rove-server dev --data-dir /tmp/rove --listen 0.0.0.0:7683

Not for production: its certificate is self-signed and attempts to sign up are not limited.")]
pub(super) struct DevArgs {
    /// Address for both the UDP and the TCP port; port 0 is the system's choice.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, DEFAULT_PORT)))]
    listen: SocketAddr,
    /// Where data and certificate are kept.
    #[arg(long, value_name = "DIR", default_value = "rove-data", conflicts_with = "temporary")]
    data_dir: PathBuf,
    /// Keep data and certificate in a directory that goes with the process.
    #[arg(long)]
    temporary: bool,
    /// Also write the line that says where the node listens to this file.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// How log lines look.
    #[arg(long, value_name = "FORMAT", default_value = "text", value_parser = format)]
    log_format: LogFormat,
    /// What is logged: a level, or directives such as `info,rove_server=debug`.
    #[arg(long, value_name = "LEVEL", env = "ROVE_LOG", default_value = "info")]
    log_level: String,
}

fn format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("use text or json".to_owned()),
    }
}

/// A directory that goes with the process, unless the process is killed.
struct Scratch(Option<PathBuf>);

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(dir) = &self.0 {
            // What cannot be removed now is the system's to clean up.
            let _ = fs::remove_dir_all(dir);
        }
    }
}

pub(super) fn run(args: &DevArgs) -> Result<(), CliError> {
    super::logging::start(args.log_format, &args.log_level)?;
    let dir = if args.temporary {
        std::env::temp_dir().join(format!("rove-dev-{}", std::process::id()))
    } else {
        args.data_dir.clone()
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&dir)
        .map_err(|source| InitError::Write { path: dir.clone(), source })?;
    let _scratch = Scratch(args.temporary.then(|| dir.clone()));
    certificate(&dir, None).map_err(InitError::from)?;
    let config = Config {
        data_dir: dir.clone(),
        listen_quic: args.listen,
        listen_https: args.listen,
        tls_cert: dir.join("cert.pem"),
        tls_key: dir.join("key.pem"),
        accounts: Accounts { rate_limits: false, ..Accounts::default() },
        ..Config::default()
    };
    run::run(&config, args.ready_file.as_deref(), Announce::LineAndAddress)?;
    Ok(())
}
