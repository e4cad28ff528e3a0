//! Where a server is and how it is recognised: `rove://host:port?pin=…`, or several nodes of a cluster:
//! `rove://host:port,host2:port2?pin=…`.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
pub use rove_quic::Trust;

use crate::Error;

/// The UDP port of a server that does not name another: unassigned at IANA, above the privileged ones.
pub const DEFAULT_PORT: u16 = 7683;

/// The most nodes an address may name: a cluster has three to nine.
const MAX_NODES: usize = 9;

/// The most pins an address may carry: the current key, the next one, and one of each for a second operator.
const MAX_PINS: usize = 4;

/// A server (or the one name of a cluster) and whom to trust there.
///
/// ```
/// use rove_client::{ServerAddress, Trust};
///
/// let address: ServerAddress = "rove://chat.example:4433".parse()?;
/// assert_eq!((address.host.as_str(), address.port), ("chat.example", 4433));
/// assert_eq!(address.trust, Trust::System);
/// assert_eq!(address.to_string(), "rove://chat.example:4433");
/// # Ok::<(), rove_client::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerAddress {
    /// A DNS name or an IP address, without brackets.
    pub host: String,
    /// The UDP port.
    pub port: u16,
    /// Other nodes of the same cluster to begin with if this one does not answer, as `host:port`. Their certificate is that of `host`: a
    /// cluster has one TLS name and one key. Only the first connection needs them; after that a client knows the nodes from the cluster.
    pub others: Vec<String>,
    /// The system's roots, or pinned keys.
    pub trust: Trust,
}

impl ServerAddress {
    /// A server with one of these keys: SHA-256 of the certificate's SubjectPublicKeyInfo.
    pub fn pinned(host: impl Into<String>, port: u16, pins: Vec<[u8; 32]>) -> Self {
        Self { host: host.into(), port, others: Vec::new(), trust: Trust::Pins(pins) }
    }

    /// The nodes it names, the first first, each as `host:port`.
    pub fn nodes(&self) -> Vec<String> {
        std::iter::once(authority(&self.host, self.port)).chain(self.others.iter().cloned()).collect()
    }
}

fn authority(host: &str, port: u16) -> String {
    if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
}

fn invalid(what: &str) -> Error {
    Error::Address(what.to_owned())
}

impl FromStr for ServerAddress {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let rest = text.strip_prefix("rove://").ok_or_else(|| invalid("it does not begin with rove://"))?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let authority = authority.strip_suffix('/').unwrap_or(authority);
        let mut nodes = authority.split(',').map(node);
        let (host, port) = nodes.next().unwrap_or_else(|| Err(invalid("it names no host")))?;
        let others = nodes.map(|other| other.map(|(host, port)| self::authority(host, port)));
        let others: Vec<String> = others.collect::<Result<_, _>>()?;
        if others.len() >= MAX_NODES {
            return Err(invalid("it names more than nine nodes"));
        }
        let mut pins = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if key != "pin" {
                // An older client must still reach a server whose address says more.
                continue;
            }
            let bytes =
                URL_SAFE_NO_PAD.decode(value.trim_end_matches('=')).map_err(|_| invalid("a pin is not base64url"))?;
            pins.push(<[u8; 32]>::try_from(bytes).map_err(|_| invalid("a pin is not 32 bytes"))?);
        }
        if pins.len() > MAX_PINS {
            return Err(invalid("it has more than four pins"));
        }
        let trust = if pins.is_empty() { Trust::System } else { Trust::Pins(pins) };
        Ok(Self { host: host.to_owned(), port, others, trust })
    }
}

/// One node's host and port.
fn node(authority: &str) -> Result<(&str, u16), Error> {
    let (host, port) = split_authority(authority)?;
    if host.is_empty() || host.contains(['/', '@', '#', ' ']) {
        return Err(invalid("its host is not a name or an address"));
    }
    Ok((host, port))
}

/// `host`, `host:port`, `[v6]` or `[v6]:port`.
fn split_authority(authority: &str) -> Result<(&str, u16), Error> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        let (host, after) = rest.split_once(']').ok_or_else(|| invalid("a bracket is not closed"))?;
        (
            host,
            if after.is_empty() {
                None
            } else {
                Some(after.strip_prefix(':').ok_or_else(|| invalid("after its host comes no port"))?)
            },
        )
    } else {
        match authority.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => return Err(invalid("an IPv6 address needs brackets")),
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    match port.map(str::parse::<u16>) {
        None => Ok((host, DEFAULT_PORT)),
        Some(Ok(port)) if port > 0 => Ok((host, port)),
        Some(_) => Err(invalid("its port is not a number from 1 to 65535")),
    }
}

impl fmt::Display for ServerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rove://{}", self.nodes().join(","))?;
        if let Trust::Pins(pins) = &self.trust {
            for (index, pin) in pins.iter().enumerate() {
                let separator = if index == 0 { '?' } else { '&' };
                write!(f, "{separator}pin={}", URL_SAFE_NO_PAD.encode(pin))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_back_from_its_text() {
        for address in [
            ServerAddress { host: "chat.example".into(), port: 4433, others: Vec::new(), trust: Trust::System },
            ServerAddress {
                others: vec!["[::1]:7".into(), "b.example:7683".into()],
                ..ServerAddress::pinned("a.example", 1, vec![[1; 32]])
            },
            ServerAddress::pinned("::1", 1, vec![[7; 32], [255; 32]]),
            ServerAddress::pinned("127.0.0.1", 65535, vec![[0; 32]]),
        ] {
            assert_eq!(address.to_string().parse::<ServerAddress>().unwrap(), address);
        }
    }

    #[test]
    fn what_is_not_an_address_is_a_typed_error() {
        for text in [
            "",
            "http://x",
            "rove://",
            "rove://x:0",
            "rove://x:99999",
            "rove://::1",
            "rove://[::1",
            "rove://x?pin=AAAA",
            "rove://a b",
            "rove://a,",
            "rove://a,,b",
            "rove://a,b:0",
            "rove://a,b,c,d,e,f,g,h,i,j",
        ] {
            assert!(matches!(text.parse::<ServerAddress>(), Err(Error::Address(_))), "{text}");
        }
    }

    #[test]
    fn unknown_parameters_are_skipped_and_the_port_has_a_default() {
        let address: ServerAddress = "rove://chat.example/?region=eu".parse().unwrap();
        assert_eq!((address.port, address.trust), (DEFAULT_PORT, Trust::System));
        let several: ServerAddress = "rove://a:1,b,[::1]:3".parse().unwrap();
        assert_eq!(several.nodes(), ["a:1", "b:7683", "[::1]:3"]);
    }
}
