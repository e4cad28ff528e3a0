//! What both ends configure.
//!
//! D6: the windows of all streams together are at most the window of the connection, so a stream that nobody reads can
//! hold up nothing but itself. quinn's own defaults are an unlimited connection window and 1.25 MB a stream: a client
//! that never reads could be handed hundreds of megabytes, so everything is set here.
//!
//! **What a server allows may grow and must not shrink** (RFC 9000, section 7.4.1): a client that comes back with 0-RTT
//! sends by the limits it was told the last time, and a connection on which the server then says less is an error. That
//! is [`SERVER_STREAM_WINDOW`], [`limits::CREDIT_BEFORE_WELCOME`], [`limits::BIDI_STREAMS`], [`UNI_STREAMS`] and
//! [`SERVER_DATAGRAM_RECEIVE`]. Who lowers one of them all the same must let every node forget its TLS sessions first.

#![allow(clippy::cast_possible_truncation, reason = "constants far below what is cut off")]

use std::sync::Arc;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use rove_protocol::limits;

/// Window of one stream towards the server: one [`limits::FRAME`]. Frames are taken out as they arrive, so a window
/// never has to hold more than the one that is under way.
pub const SERVER_STREAM_WINDOW: u32 = 32 * 1024;
/// Window of one stream towards a client: four times a server's, as replay flows this way. At a round trip of 100 ms
/// one stream replays 1.2 MiB/s.
pub const CLIENT_STREAM_WINDOW: u32 = 128 * 1024;
/// Unidirectional streams a client may open. `rove/1` has none; HTTP/3, on the same port, has three and one of grease.
pub const UNI_STREAMS: u32 = 4;
/// Window of a connection towards the server once its session is authenticated: every stream's window.
pub const SERVER_WINDOW: u32 = SERVER_STREAM_WINDOW * (limits::BIDI_STREAMS as u32 + UNI_STREAMS);
/// Window of a connection towards a client: every stream's window.
pub const CLIENT_WINDOW: u32 = CLIENT_STREAM_WINDOW * (limits::BIDI_STREAMS as u32 + UNI_STREAMS);
/// Bytes a server keeps, unacknowledged, for one connection. A slow reader slows itself long before it costs memory,
/// and acknowledgements of posts wait behind at most this much.
pub const SERVER_SEND_WINDOW: u64 = 256 * 1024;
/// Bytes a client keeps, unacknowledged: 32 full bodies.
pub const CLIENT_SEND_WINDOW: u64 = 512 * 1024;
/// Datagrams waiting to be read. A client gets bursts of presence (16 KiB lost a third of one), a server gets one
/// heartbeat every 15 s and a little typing.
pub const CLIENT_DATAGRAM_RECEIVE: usize = 64 * 1024;
/// See [`CLIENT_DATAGRAM_RECEIVE`].
pub const SERVER_DATAGRAM_RECEIVE: usize = 16 * 1024;
/// Datagrams waiting to be sent: the presence of every account a session may watch, which is 10 KiB, and typing. The
/// oldest are dropped beyond it.
pub const DATAGRAM_SEND: usize = 32 * 1024;
/// Packets that a client may take without acknowledging them, if it knows how to be asked (draft-ietf-quic-ack-frequency): every third
/// packet of a fan-out was an acknowledgement otherwise. Few enough that a window still opens steadily, and what is lost
/// or late is acknowledged at once as ever.
pub const ACK_AFTER: u32 = 8;
/// Silence after which a connection is gone: three heartbeats of 20 s, like the lease of presence.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The round trip assumed until one is measured. The first retransmission comes after three of it: with RFC 9002's
/// 333 ms a lost first packet costs a second, and mobile networks answer within 100 ms.
pub const INITIAL_RTT: Duration = Duration::from_millis(100);
/// Bytes by which a larger datagram must be larger to be tried for. More than half of what lies between 1200 bytes and the 1452 that a
/// path of 1500 takes: then quinn tries 1452 at once, with one datagram of nothing each way for a new connection, and only
/// where that is lost 1325. With its own 20 it sends four to come from 1200 to 1436.
pub const MTU_STEP: u16 = 127;
/// Handshakes that wait to be accepted; more are refused. quinn's own is 65,536.
pub const MAX_INCOMING: usize = 4_096;
/// Bytes buffered for one connection that waits to be accepted, for 0-RTT and the `Hello` flight.
pub const INCOMING_BUFFER: u64 = limits::CREDIT_BEFORE_WELCOME;
/// Bytes buffered for all connections that wait to be accepted.
pub const INCOMING_BUFFER_TOTAL: u64 = 32 * 1024 * 1024;
/// TLS sessions a server remembers. Each hand-shake leaves two, each resumption uses one up: these are the last 65,536
/// connections and more, and some 50 MB. Whoever is forgotten pays a round trip.
pub const TLS_SESSIONS: usize = 131_072;
/// TLS sessions a client remembers: the eight newest of one server, as rustls counts. All nodes of a cluster have one
/// name, and so are one server.
pub const CLIENT_TLS_SESSIONS: usize = 8;

fn shared() -> TransportConfig {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.minimum_change(MTU_STEP);
    let mut config = TransportConfig::default();
    config
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_TIMEOUT.as_millis() as u32))))
        // Heartbeats are the keep-alive: a client in the background is to fall silent.
        .keep_alive_interval(None)
        .initial_rtt(INITIAL_RTT)
        .mtu_discovery_config(Some(mtu))
        .datagram_send_buffer_size(DATAGRAM_SEND);
    config
}

/// How a server's connections behave: little credit ([`limits::CREDIT_BEFORE_WELCOME`]) until the edge raises it to
/// [`SERVER_WINDOW`] with the `Welcome`.
pub fn server_transport() -> TransportConfig {
    let mut config = shared();
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_AFTER));
    config
        .ack_frequency_config(Some(acks))
        .max_concurrent_bidi_streams(VarInt::from_u32(limits::BIDI_STREAMS as u32))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(SERVER_STREAM_WINDOW))
        .receive_window(VarInt::from_u32(limits::CREDIT_BEFORE_WELCOME as u32))
        .send_window(SERVER_SEND_WINDOW)
        .datagram_receive_buffer_size(Some(SERVER_DATAGRAM_RECEIVE));
    config
}

/// How a client's connections behave. Servers open no streams, except HTTP/3's unidirectional ones.
pub fn client_transport() -> TransportConfig {
    let mut config = shared();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(0))
        .max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS))
        .stream_receive_window(VarInt::from_u32(CLIENT_STREAM_WINDOW))
        .receive_window(VarInt::from_u32(CLIENT_WINDOW))
        .send_window(CLIENT_SEND_WINDOW)
        .datagram_receive_buffer_size(Some(CLIENT_DATAGRAM_RECEIVE));
    config
}

/// Makes a server remember its clients' TLS sessions in `sessions`, and take 0-RTT from those it remembers.
///
/// What may be done with it is for the caller to see to: [`rove_protocol::session::EarlyGate`].
pub fn accept_early_data(tls: &mut rustls::ServerConfig, sessions: Arc<crate::SessionStore>) {
    tls.session_storage = sessions;
    // RFC 9001, section 4.6.1: the only value QUIC allows beside 0. Flow control bounds what comes.
    tls.max_early_data_size = u32::MAX;
}

/// A server of `rove/1` on this TLS configuration, whose ALPN names (`rove/1`, `h3`) and certificate are the caller's:
/// [`server_transport`], migration on, and bounds on what waits to be accepted.
///
/// # Errors
/// The TLS configuration lacks what QUIC needs (TLS 1.3 and its first cipher suite).
pub fn server_config(tls: rustls::ServerConfig) -> Result<ServerConfig, crate::TlsError> {
    let crypto = quinn::crypto::rustls::QuicServerConfig::try_from(tls)
        .map_err(|error| crate::TlsError::Config(error.to_string()))?;
    let mut config = ServerConfig::with_crypto(Arc::new(crypto));
    config
        .transport_config(Arc::new(server_transport()))
        .migration(true)
        .max_incoming(MAX_INCOMING)
        .incoming_buffer_size(INCOMING_BUFFER)
        .incoming_buffer_size_total(INCOMING_BUFFER_TOTAL);
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_windows_of_all_streams_together_are_at_most_the_connections() {
        let streams = limits::BIDI_STREAMS as u64 + u64::from(UNI_STREAMS);
        assert!(u64::from(SERVER_STREAM_WINDOW) * streams <= u64::from(SERVER_WINDOW));
        assert!(u64::from(CLIENT_STREAM_WINDOW) * streams <= u64::from(CLIENT_WINDOW));
    }

    #[test]
    fn what_clients_remember_of_a_server_does_not_shrink() {
        let told = [u64::from(SERVER_STREAM_WINDOW), limits::CREDIT_BEFORE_WELCOME, limits::BIDI_STREAMS as u64];
        let published = [32 * 1024, 64 * 1024, 40];
        assert!(told.iter().zip(published).all(|(told, published)| *told >= published), "{told:?}");
        const { assert!(UNI_STREAMS >= 4 && SERVER_DATAGRAM_RECEIVE >= 16 * 1024) };
    }

    #[test]
    fn a_flight_before_welcome_fits_a_hello_and_a_full_post() {
        assert!((limits::FRAME_BEFORE_WELCOME + limits::FRAME) as u64 <= limits::CREDIT_BEFORE_WELCOME);
    }
}
