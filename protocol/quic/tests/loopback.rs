//! The seam against a real quinn server on the loopback interface.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::net::SocketAddr;

use bytes::Bytes;
use quinn::Endpoint;
use rove_protocol::registry::{ALPN, ErrorCode};
use rove_protocol::transport::{Connection as _, RecvStream as _, SendStream as _, TransportError};
use rove_quic::{Connection, Trust, client_tls, server_config, spki_pin};

struct Server {
    endpoint: Endpoint,
    address: SocketAddr,
    pin: [u8; 32],
}

fn server() -> Server {
    let key = rcgen::generate_simple_self_signed(vec!["rove.test".to_owned()]).unwrap();
    let certificate = key.cert.der().clone();
    let private = rustls::pki_types::PrivateKeyDer::try_from(key.signing_key.serialize_der()).unwrap();
    let provider = rove_quic::provider();
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], private)
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec(), b"h3".to_vec()];
    let endpoint = Endpoint::server(server_config(tls).unwrap(), "127.0.0.1:0".parse().unwrap()).unwrap();
    let address = endpoint.local_addr().unwrap();
    Server { endpoint, address, pin: spki_pin(&certificate).unwrap() }
}

fn client() -> Endpoint {
    Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap()
}

async fn pair(server: &Server, client: &Endpoint) -> (Connection, Connection) {
    let config = client_tls(&Trust::Pins(vec![[0; 32], server.pin]), ALPN).unwrap();
    let dial = client.connect_with(config, server.address, "rove.test").unwrap();
    let accept = async { server.endpoint.accept().await.unwrap().await.unwrap() };
    let (dialled, accepted) = tokio::join!(dial, accept);
    (dialled.unwrap().into(), accepted.into())
}

#[tokio::test]
async fn a_stream_carries_bytes_both_ways_and_ends() {
    let (server, client) = (server(), client());
    let (near, far) = pair(&server, &client).await;
    let (mut send, mut recv) = near.open().await.unwrap();
    send.write(Bytes::from_static(b"ping")).await.unwrap();
    send.finish();
    let (mut back, mut incoming) = far.accept().await.unwrap();
    assert_eq!(incoming.read().await.unwrap().unwrap(), "ping");
    assert_eq!(incoming.read().await.unwrap(), None);
    back.write(Bytes::from_static(b"pong")).await.unwrap();
    back.finish();
    assert_eq!(recv.read().await.unwrap().unwrap(), "pong");
    assert_eq!(recv.read().await.unwrap(), None);
    assert_eq!(back.stopped().await, TransportError::Stopped(ErrorCode::None));
}

#[tokio::test]
async fn one_datagram_each_way_finds_out_that_the_path_takes_1452_bytes() {
    let (server, client) = (server(), client());
    let (near, far) = pair(&server, &client).await;
    let path = |connection: &Connection| connection.quinn().stats().path;
    let (mut send, mut recv) = near.open().await.unwrap();
    send.write(Bytes::from_static(b"ping")).await.unwrap();
    let (mut back, mut incoming) = far.accept().await.unwrap();
    // Some rounds more when both know: nothing else is tried.
    let mut more = 10;
    while more > 0 {
        back.write(incoming.read().await.unwrap().unwrap()).await.unwrap();
        send.write(recv.read().await.unwrap().unwrap()).await.unwrap();
        more -= i32::from([&near, &far].map(path).iter().all(|path| path.current_mtu == 1452));
    }
    assert_eq!([&near, &far].map(|end| path(end).sent_plpmtud_probes), [1, 1]);
}

#[tokio::test]
async fn reset_stop_and_close_carry_their_codes() {
    let (server, client) = (server(), client());
    let (near, far) = pair(&server, &client).await;
    let (mut send, mut recv) = near.open().await.unwrap();
    send.write(Bytes::from_static(b"x")).await.unwrap();
    let (mut back, mut incoming) = far.accept().await.unwrap();
    incoming.stop(ErrorCode::UnknownStreamType);
    assert_eq!(send.stopped().await, TransportError::Stopped(ErrorCode::UnknownStreamType));
    back.reset(ErrorCode::Busy);
    assert_eq!(recv.read().await, Err(TransportError::Reset(ErrorCode::Busy)));
    far.close(ErrorCode::Replaced, "newer");
    let expected = TransportError::Closed { code: ErrorCode::Replaced, reason: "newer".to_owned() };
    assert_eq!(near.closed().await, expected);
    assert!(matches!(far.closed().await, TransportError::Lost(_)));
}

#[tokio::test]
async fn datagrams_arrive() {
    let (server, client) = (server(), client());
    let (near, far) = pair(&server, &client).await;
    assert!(near.max_datagram() >= rove_protocol::limits::DATAGRAM);
    near.send_datagram(Bytes::from_static(b"heartbeat"));
    assert_eq!(far.read_datagram().await.unwrap(), "heartbeat");
}

#[tokio::test]
async fn a_server_with_another_key_is_refused() {
    let (server, client) = (server(), client());
    let config = client_tls(&Trust::Pins(vec![[7; 32]]), ALPN).unwrap();
    let dial = client.connect_with(config, server.address, "rove.test").unwrap();
    let accept = async { server.endpoint.accept().await.unwrap().await };
    let (dialled, accepted) = tokio::join!(dial, accept);
    assert!(dialled.is_err() && accepted.is_err());
}

#[tokio::test]
async fn a_stream_nobody_reads_does_not_hold_up_another() {
    let (server, client) = (server(), client());
    let (near, far) = pair(&server, &client).await;
    far.quinn().set_receive_window(quinn::VarInt::from_u32(rove_quic::config::SERVER_WINDOW));
    let (mut stuck, _unread) = near.open().await.unwrap();
    let full = Bytes::from(vec![0; rove_quic::config::SERVER_STREAM_WINDOW as usize]);
    stuck.write(full).await.unwrap();
    let (mut live, _other) = near.open().await.unwrap();
    live.write(Bytes::from_static(b"live")).await.unwrap();
    let (_a, _unread_there) = far.accept().await.unwrap();
    let (_b, mut incoming) = far.accept().await.unwrap();
    assert_eq!(incoming.read().await.unwrap().unwrap(), "live");
}

#[test]
fn trust_without_a_pin_and_bytes_that_are_no_certificate_are_errors() {
    assert!(client_tls(&Trust::Pins(Vec::new()), ALPN).is_err());
    assert!(spki_pin(b"not a certificate").is_err());
}
