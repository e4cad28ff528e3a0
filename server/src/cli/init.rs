//! `rove-server init`.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::Args;

use super::config::{DEFAULT_PORT, commented};
use crate::tls::{self, Identity, TlsError};

/// The configuration's file.
const CONFIG: &str = "rove.toml";

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  rove-server init                                     ./rove.toml, ./cert.pem, ./key.pem
  rove-server init --dir /etc/rove --host chat.example
  rove-server init --dir here --listen 127.0.0.1:0     any free port, for tests

The certificate is self-signed, for localhost and this machine's name: clients pin its key. For the public, put a
certificate of an authority in its place.")]
pub(super) struct InitArgs {
    /// Where to write; made if it is not there.
    #[arg(long, value_name = "DIR", default_value = ".")]
    dir: PathBuf,
    /// Address for both the UDP and the TCP port.
    #[arg(long, value_name = "ADDRESS", default_value_t = SocketAddr::from(([0u16; 8], DEFAULT_PORT)))]
    listen: SocketAddr,
    /// The name (or address) by which clients reach this machine.
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
}

/// Why nothing was written, or not all of it.
#[derive(Debug, thiserror::Error)]
pub(super) enum InitError {
    #[error("{path}: {source}; check that the directory exists and may be written by this user")]
    Write { path: PathBuf, source: std::io::Error },
    #[error("{0} is there already and is left as it is; remove it first, or choose another --dir")]
    Exists(PathBuf),
    #[error(transparent)]
    Tls(#[from] TlsError),
}

pub(super) fn run(args: &InitArgs) -> Result<(), InitError> {
    let config = args.dir.join(CONFIG);
    if config.exists() {
        return Err(InitError::Exists(config));
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| InitError::Write { path, source }
    };
    fs::create_dir_all(&args.dir).map_err(failed(&args.dir))?;
    let identity = certificate(&args.dir, args.host.as_deref())?;
    let advertise = args.host.as_ref().filter(|_| args.listen.port() != 0);
    let advertise = advertise.map(|host| authority(host, args.listen.port()));
    let text = commented(args.listen, args.listen, advertise.as_deref());
    let mut file = OpenOptions::new().write(true).create_new(true).open(&config).map_err(failed(&config))?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed(&config))?;

    super::say(&format!("wrote {}; start with: rove-server serve --config {0}", config.display()));
    if args.listen.port() == 0 {
        super::say("the port is chosen at each start; the address for clients is printed then");
    } else {
        let host = args.host.clone().unwrap_or_else(|| reachable(args.listen));
        super::print(&format!("rove://{}?pin={}", authority(&host, args.listen.port()), identity.pin()));
    }
    Ok(())
}

/// The certificate of a directory, made if there is none.
pub(super) fn certificate(dir: &Path, host: Option<&str>) -> Result<Identity, TlsError> {
    let (cert, key) = (dir.join("cert.pem"), dir.join("key.pem"));
    if !cert.exists() && !key.exists() {
        tls::make_development_certificate(&cert, &key, host)?;
    }
    Identity::load(&cert, &key)
}

/// Where clients on this machine or, as far as can be told from here, elsewhere reach an address.
pub(super) fn reachable(listen: SocketAddr) -> String {
    if listen.ip().is_unspecified() {
        tls::host_name().unwrap_or_else(|| "localhost".to_owned())
    } else {
        listen.ip().to_string()
    }
}

/// `host:port`, with brackets where they are needed.
pub(super) fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

#[cfg(test)]
mod tests {
    use super::super::config::Config;
    use super::*;

    fn args(dir: &Path) -> InitArgs {
        InitArgs { dir: dir.join("etc"), listen: "127.0.0.1:0".parse().unwrap(), host: None }
    }

    #[test]
    fn what_init_writes_is_what_serve_reads() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        run(&args).unwrap();
        let config = Config::load(&args.dir.join(CONFIG)).unwrap();
        assert_eq!(config.listen_quic, args.listen);
        Identity::load(&config.tls_cert, &config.tls_key).unwrap();
    }

    #[test]
    fn init_never_writes_over_a_configuration() {
        let dir = tempfile::tempdir().unwrap();
        let args = args(dir.path());
        run(&args).unwrap();
        fs::write(args.dir.join(CONFIG), "mine").unwrap();
        assert!(matches!(run(&args), Err(InitError::Exists(_))));
        assert_eq!(fs::read_to_string(args.dir.join(CONFIG)).unwrap(), "mine");
    }

    #[test]
    fn addresses_are_written_as_urls_want_them() {
        assert_eq!(authority("::1", 5), "[::1]:5");
        assert_eq!(authority("chat.example", 5), "chat.example:5");
        assert_eq!(reachable("127.0.0.1:5".parse().unwrap()), "127.0.0.1");
    }
}
