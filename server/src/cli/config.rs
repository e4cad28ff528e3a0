//! The configuration file.
//!
//! Every key has a default that works on one machine. What is wrong is said at start, with the key and what to do; a key that
//! does not exist is an error, as it is a key that was misspelt.

mod cluster;

use std::net::{Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use rove_core::fanout::PullThreshold;
use rove_protocol::ids::NodeId;
use serde::Deserialize;

use crate::cluster::TrustError;
use crate::http::{HashLimits, Lifetimes};
use crate::node::{DEFAULT_PARTITIONS, KEPT_FOR_PEERS, MAX_PARTITIONS};
use crate::release::Release;

pub use cluster::{ClusterSection, DEFAULT_CLUSTER_PORT, PeerEntry};

/// The port of everything: unassigned at IANA, and the one clients assume.
pub const DEFAULT_PORT: u16 = 7_683;
/// A reserve of the disk is at most a TiB: more is a mistake in the unit.
const MAX_DISK_RESERVE: u64 = 1 << 20;
/// Tokens live at most ten years: longer is a mistake in the unit.
const LONGEST_DAYS: u64 = 3_650;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("configuration {path}: {source}; `rove-server init` writes one")]
    Read {
        /// Which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not TOML, has a key that does not exist, or a value of the wrong type.
    #[error("configuration {path}: {source}")]
    Parse {
        /// Which file.
        path: PathBuf,
        /// Where and what.
        source: Box<toml::de::Error>,
    },
    /// A value that can never work.
    #[error("{key} = {value}: {advice}")]
    Value {
        /// The key, with its table.
        key: &'static str,
        /// The value.
        value: String,
        /// What would work.
        advice: String,
    },
    /// A file of `[cluster]` that cannot be used.
    #[error(transparent)]
    Trust(#[from] TrustError),
}

fn wrong(key: &'static str, value: &dyn std::fmt::Display, advice: impl Into<String>) -> ConfigError {
    ConfigError::Value { key, value: value.to_string(), advice: advice.into() }
}

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// A node's configuration. Relative paths are relative to the file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// This node's number in the cluster; not 0, and never another one for the same data.
    pub node_id: u64,
    /// Where the log, the conversations and the directory are kept.
    pub data_dir: PathBuf,
    /// UDP: `rove/1` and HTTP/3.
    pub listen_quic: SocketAddr,
    /// TCP: HTTP/1.1 and HTTP/2.
    pub listen_https: SocketAddr,
    /// `host:port` at which clients reach the QUIC port; empty: as it listens.
    pub advertise: String,
    /// Where the node stands, for clients that prefer the near one.
    pub region: String,
    /// The certificate chain, in PEM.
    pub tls_cert: PathBuf,
    /// Its private key, in PEM.
    pub tls_key: PathBuf,
    /// Pins of the next certificate's key, announced to clients beside the current one.
    pub next_pins: Vec<String>,
    /// Raft groups that share the conversations; fixed when the data directory is made.
    pub partitions: u16,
    /// Seconds after which what was applied is made durable at the latest, so that a restart replays no more.
    pub flush_s: u64,
    /// MiB of the disk of `data_dir` below which new commands are refused; 0: none.
    pub disk_reserve: u64,
    /// QUIC connections there may be.
    pub max_connections: usize,
    /// QUIC connections one address may have.
    pub max_connections_per_address: usize,
    /// A conversation that is opened while it has more members than this, and
    pub pull_members: u32,
    /// more of them online than this, is told only where its head is: clients fetch (D14).
    pub pull_active: u32,
    /// Seconds between a client's heartbeats.
    pub heartbeat_s: u64,
    /// Seconds that sessions are given to go elsewhere when the node stops.
    pub drain_s: u64,
    /// How log lines look.
    pub log_format: LogFormat,
    /// What is logged: a level or directives.
    pub log_level: String,
    /// Accounts.
    pub accounts: Accounts,
    /// The other nodes; without it, this one is alone.
    pub cluster: Option<ClusterSection>,
    /// The release of the program. Not in the file.
    #[serde(skip)]
    pub release: Release,
}

/// Limits around accounts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Accounts {
    /// Whether attempts to sign up, log in and refresh are limited, by address and by account.
    pub rate_limits: bool,
    /// Password hashes at once; each takes a core and 19 MiB. 0: half of the cores.
    pub hash_concurrency: usize,
    /// Password hashes that may wait.
    pub hash_queue: usize,
    /// How long an access token is good, in minutes.
    pub access_token_minutes: u64,
    /// How long a refresh token is good, in days.
    pub refresh_token_days: u64,
}

impl Default for Config {
    fn default() -> Self {
        let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, DEFAULT_PORT));
        let pull = PullThreshold::default();
        Self {
            node_id: 1,
            data_dir: "data".into(),
            listen_quic: any,
            listen_https: any,
            advertise: String::new(),
            region: String::new(),
            tls_cert: "cert.pem".into(),
            tls_key: "key.pem".into(),
            next_pins: Vec::new(),
            partitions: DEFAULT_PARTITIONS,
            flush_s: 30,
            // What the others' logs and a compaction write in some minutes of a busy hour.
            disk_reserve: 512,
            // Some 4 GB of memory.
            max_connections: 100_000,
            // Carriers put thousands of people behind one address.
            max_connections_per_address: 10_000,
            pull_members: pull.members,
            pull_active: pull.active,
            // Below 30 s, the shortest time after which a NAT forgets; above what drains a battery.
            heartbeat_s: 20,
            // A client needs a round trip or two to be elsewhere.
            drain_s: 5,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            accounts: Accounts::default(),
            cluster: None,
            release: Release::THIS,
        }
    }
}

impl Default for Accounts {
    fn default() -> Self {
        let lifetimes = Lifetimes::default();
        Self {
            rate_limits: true,
            hash_concurrency: 0,
            hash_queue: HashLimits::default().queued,
            access_token_minutes: lifetimes.access_ms / 60_000,
            refresh_token_days: lifetimes.refresh_ms / 86_400_000,
        }
    }
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], each with the key and what to do.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let config = Self::read(path)?;
        if let Some(cluster) = &config.cluster {
            cluster.check_files(NodeId(config.node_id))?;
        }
        Ok(config)
    }

    /// The same without a look at the files of `[cluster]`: a node that runs can be asked, and drained, when its certificate has expired.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.check()?;
        let dir = path.parent().unwrap_or(Path::new(""));
        for path in [&mut config.data_dir, &mut config.tls_cert, &mut config.tls_key] {
            // Joining an absolute path leaves it as it is.
            *path = dir.join(&path);
        }
        if let Some(cluster) = &mut config.cluster {
            cluster.resolve(dir);
        }
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if self.node_id == 0 {
            return Err(wrong("node_id", &0, "use 1 or more, another number for each node of the cluster"));
        }
        if !(1..=MAX_PARTITIONS).contains(&self.partitions) {
            return Err(wrong(
                "partitions",
                &self.partitions,
                format!("use 1 to {MAX_PARTITIONS}; {DEFAULT_PARTITIONS} suits three nodes"),
            ));
        }
        for (key, path) in [("data_dir", &self.data_dir), ("tls_cert", &self.tls_cert), ("tls_key", &self.tls_key)] {
            if path.as_os_str().is_empty() {
                return Err(wrong(key, &"\"\"", "give a path, absolute or relative to this file"));
            }
        }
        if !self.advertise.is_empty() && !is_authority(&self.advertise) {
            return Err(wrong(
                "advertise",
                &self.advertise,
                "give host:port as clients reach the QUIC port, such as chat.example:7683",
            ));
        }
        for pin in &self.next_pins {
            if !is_pin(pin) {
                return Err(wrong(
                    "next_pins",
                    pin,
                    "give base64url of the SHA-256 of the key's SubjectPublicKeyInfo, 43 characters",
                ));
            }
        }
        if self.max_connections == 0 || self.max_connections_per_address == 0 {
            return Err(wrong(
                "max_connections",
                &self.max_connections,
                "use 1 or more, for max_connections_per_address too",
            ));
        }
        if !(15..=25).contains(&self.heartbeat_s) {
            return Err(wrong(
                "heartbeat_s",
                &self.heartbeat_s,
                "use 15 to 25: NATs forget after 30 s, batteries mind less than 15",
            ));
        }
        if self.drain_s > 300 {
            return Err(wrong("drain_s", &self.drain_s, "use at most 300"));
        }
        if !(1..=600).contains(&self.flush_s) {
            return Err(wrong("flush_s", &self.flush_s, "use 1 to 600: a restart replays what came in that time"));
        }
        if self.disk_reserve > MAX_DISK_RESERVE {
            return Err(wrong("disk_reserve", &self.disk_reserve, "it is in MiB: use at most 1048576, or 0 for none"));
        }
        if let Some(cluster) = &self.cluster {
            cluster.check(self.node())?;
        }
        self.accounts.check()
    }

    /// When conversations are pulled instead of sent.
    pub fn pull(&self) -> PullThreshold {
        PullThreshold { members: self.pull_members, active: self.pull_active }
    }

    /// The node's number.
    pub fn node(&self) -> NodeId {
        NodeId(self.node_id)
    }
}

impl Accounts {
    fn check(&self) -> Result<(), ConfigError> {
        if self.hash_concurrency > 1_024 {
            return Err(wrong(
                "accounts.hash_concurrency",
                &self.hash_concurrency,
                "use 0 for half of the cores, or a number of cores",
            ));
        }
        if self.hash_queue > 65_536 {
            return Err(wrong(
                "accounts.hash_queue",
                &self.hash_queue,
                "use at most 65536: whoever waits longer than seconds gives up",
            ));
        }
        if !(1..=24 * 60).contains(&self.access_token_minutes) {
            return Err(wrong("accounts.access_token_minutes", &self.access_token_minutes, "use 1 to 1440"));
        }
        if !(1..=LONGEST_DAYS).contains(&self.refresh_token_days) {
            return Err(wrong(
                "accounts.refresh_token_days",
                &self.refresh_token_days,
                format!("use 1 to {LONGEST_DAYS}"),
            ));
        }
        Ok(())
    }

    /// How much hashing there may be at once.
    pub fn hashes(&self) -> HashLimits {
        let defaults = HashLimits::default();
        let concurrent = if self.hash_concurrency == 0 { defaults.concurrent } else { self.hash_concurrency };
        HashLimits { concurrent, queued: self.hash_queue }
    }

    /// How long tokens live.
    pub fn lifetimes(&self) -> Lifetimes {
        Lifetimes { access_ms: self.access_token_minutes * 60_000, refresh_ms: self.refresh_token_days * 86_400_000 }
    }
}

/// `host:port`.
fn is_authority(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0))
}

fn is_pin(text: &str) -> bool {
    use base64::Engine as _;
    base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(text).is_ok_and(|bytes| bytes.len() == 32)
}

/// A configuration with every key and what it means, for `listen`. Keys at their default are comments, so that a later
/// version's better default is taken.
pub fn commented(listen_quic: SocketAddr, listen_https: SocketAddr, advertise: Option<&str>) -> String {
    let defaults = Config::default();
    let accounts = Accounts::default();
    let advertise = advertise.map_or_else(
        || "# advertise = \"chat.example:7683\"".to_owned(),
        |address| format!("advertise = {}", toml::Value::from(address)),
    );
    format!(
        r#"# The configuration of a Rove node. Lines that begin with # are comments; a commented key shows its default.
# Relative paths are relative to this file.

# This node's number in the cluster; never another one for the same data.
node_id = {node_id}

# Where the log, the conversations and the accounts are kept.
data_dir = "data"

# Where to listen. UDP carries rove/1 and HTTP/3, TCP carries HTTP/1.1 and HTTP/2. Port 0 is the system's choice.
listen_quic = "{listen_quic}"
listen_https = "{listen_https}"

# host:port at which clients reach the QUIC port, if it is not where the node listens.
{advertise}

# The operator's name for where the node stands; clients prefer their own region.
# region = ""

# The certificate chain and its private key, in PEM. Clients check the name, or pin the key.
tls_cert = "cert.pem"
tls_key = "key.pem"

# Pins of the next certificate's key, announced to clients beside the current one.
# next_pins = []

# Raft groups that share the conversations. Fixed once there is data.
# partitions = {partitions}

# Seconds after which what was applied is made durable at the latest; a restart replays what came since.
# flush_s = {flush_s}

# MiB of the disk of data_dir below which new posts and requests are answered with Busy, while everything else goes on.
# disk_reserve = {disk_reserve}

# QUIC connections there may be, and how many of them from one address.
# max_connections = {max_connections}
# max_connections_per_address = {max_per_address}

# A conversation that is opened while it has more members than the first, and more of them online than the second, is not
# sent event by event: clients are told its newest seq and fetch.
# pull_members = {pull_members}
# pull_active = {pull_active}

# Seconds between a client's heartbeats, 15 to 25.
# heartbeat_s = {heartbeat_s}

# Seconds that sessions are given to go elsewhere when the node stops. 500 a second are told to, more if all of them could
# not be told in half of this.
# drain_s = {drain_s}

# "text" or "json"; a level (error, warn, info, debug, trace) or directives such as "info,rove_server=debug".
# log_format = "text"
# log_level = "{log_level}"

# Accounts. To change one of these, remove the # before [accounts] too.
# [accounts]

# Limits on attempts to sign up, log in and refresh, by address and by account. Off only for load tests.
# rate_limits = {rate_limits}

# Password hashes at once (each takes a core and 19 MiB; 0: half of the cores), and how many may wait.
# hash_concurrency = {hash_concurrency}
# hash_queue = {hash_queue}

# How long tokens are good.
# access_token_minutes = {access_minutes}
# refresh_token_days = {refresh_days}

# Several nodes as one: the same on each but for certificate and key. `rove-server pki` makes the files.
#   [cluster]
#   name = "chat"
#   listen = "[::]:{cluster_port}"
#   ca = "ca.pem"
#   certificate = "node-1.pem"
#   key = "node-1.key"
# Entries of each log kept for a node that is behind; one that lacks more is sent a snapshot.
#   keep_log = {keep_log}
# All nodes, this one too:
#   [[cluster.peers]]
#   node = 1
#   address = "10.0.0.1:{cluster_port}"
"#,
        cluster_port = DEFAULT_CLUSTER_PORT,
        keep_log = KEPT_FOR_PEERS,
        node_id = defaults.node_id,
        partitions = defaults.partitions,
        flush_s = defaults.flush_s,
        disk_reserve = defaults.disk_reserve,
        max_connections = defaults.max_connections,
        max_per_address = defaults.max_connections_per_address,
        pull_members = defaults.pull_members,
        pull_active = defaults.pull_active,
        heartbeat_s = defaults.heartbeat_s,
        drain_s = defaults.drain_s,
        log_level = defaults.log_level,
        rate_limits = accounts.rate_limits,
        hash_concurrency = accounts.hash_concurrency,
        hash_queue = accounts.hash_queue,
        access_minutes = accounts.access_token_minutes,
        refresh_days = accounts.refresh_token_days,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rove.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path).map(|mut config| {
            for path in [&mut config.data_dir, &mut config.tls_cert, &mut config.tls_key] {
                *path = path.strip_prefix(dir.path()).map(Path::to_owned).unwrap_or(path.clone());
            }
            config
        })
    }

    /// The commented file with every comment that is a key made a key.
    fn uncommented(text: &str) -> String {
        let key = |line: &str| {
            let rest = line.strip_prefix("# ")?;
            let name = rest.split(" =").next()?;
            let is_key = rest.contains(" = ") && name.chars().all(|c| c.is_ascii_lowercase() || c == '_');
            (is_key || rest == "[accounts]").then(|| rest.to_owned())
        };
        text.lines().map(|line| key(line).unwrap_or_else(|| line.to_owned()) + "\n").collect()
    }

    #[test]
    fn an_empty_file_is_all_defaults() {
        assert_eq!(load("").unwrap(), Config::default());
    }

    #[test]
    fn the_written_file_says_what_the_defaults_are() {
        let any = Config::default().listen_quic;
        let text = commented(any, any, None);
        assert_eq!(load(&text).unwrap(), Config::default());
        let all = uncommented(&text).replace("advertise = \"chat.example:7683\"", "advertise = \"\"");
        assert_eq!(load(&all).unwrap(), Config::default());
        let written: toml::Table = toml::from_str(&all).unwrap();
        assert_eq!(written.len(), 21, "every key is written");
        assert_eq!(written["accounts"].as_table().unwrap().len(), 5);
    }

    #[test]
    fn a_table_may_be_added_at_the_end_of_the_written_file() {
        let any = Config::default().listen_quic;
        let text = commented(any, any, Some("chat.example:1")) + "\n[accounts]\nrate_limits = false\n";
        let config = load(&text).unwrap();
        assert!(!config.accounts.rate_limits);
        assert_eq!(config.advertise, "chat.example:1");
    }

    #[test]
    fn every_error_names_its_key() {
        for (text, key) in [
            ("data_dirr = \"x\"", "data_dirr"),
            ("partitions = 0", "partitions"),
            ("partitions = \"six\"", "partitions"),
            ("partitions = 257", "partitions"),
            ("node_id = 0", "node_id"),
            ("data_dir = \"\"", "data_dir"),
            ("listen_quic = \"localhost\"", "listen_quic"),
            ("advertise = \"chat.example\"", "advertise"),
            ("next_pins = [\"x\"]", "next_pins"),
            ("heartbeat_s = 5", "heartbeat_s"),
            ("drain_s = 3600", "drain_s"),
            ("flush_s = 0", "flush_s"),
            ("disk_reserve = 1048577", "disk_reserve"),
            ("disk_reserve = -1", "disk_reserve"),
            ("log_format = \"xml\"", "log_format"),
            ("[accounts]\nrate_limit = true", "rate_limit"),
            ("[accounts]\naccess_token_minutes = 0", "accounts.access_token_minutes"),
            ("[accounts]\nrefresh_token_days = 99999", "accounts.refresh_token_days"),
        ] {
            let message = load(text).unwrap_err().to_string();
            assert!(message.contains(key), "{text}: {message}");
        }
    }

    #[test]
    fn a_reserve_of_the_disk_is_nothing_to_a_tebibyte() {
        for reserve in [0, MAX_DISK_RESERVE] {
            assert_eq!(load(&format!("disk_reserve = {reserve}")).unwrap().disk_reserve, reserve);
        }
    }

    #[test]
    fn paths_are_relative_to_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rove.toml");
        std::fs::write(&path, "data_dir = \"here\"\ntls_key = \"/elsewhere/key.pem\"").unwrap();
        let config = Config::load(&path).unwrap();
        assert_eq!(config.data_dir, dir.path().join("here"));
        assert_eq!(config.tls_key, Path::new("/elsewhere/key.pem"));
    }

    #[test]
    fn a_missing_file_says_how_to_get_one() {
        let message = Config::load(Path::new("/none/rove.toml")).unwrap_err().to_string();
        assert!(message.contains("rove-server init"), "{message}");
    }
}
