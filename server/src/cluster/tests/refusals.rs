//! Nodes that must not come in, and what is said about them.

use std::time::SystemTime;

use quinn::ConnectionError;
use rove_protocol::wire::put_varint;

use super::super::frame::{Body as _, Hello};
use super::super::pki::make_node_between;
use super::super::registry::{CloseCode, StreamType};
use super::super::trust;
use super::*;

/// Somebody who does everything by hand.
pub(super) struct Stranger {
    endpoint: quinn::Endpoint,
    client: quinn::ClientConfig,
}

impl Stranger {
    pub(super) fn new(files: &Files) -> Self {
        Self::with(trust::unchecked(files).client)
    }

    fn with(client: quinn::ClientConfig) -> Self {
        Self { endpoint: quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap(), client }
    }

    pub(super) async fn connect(&self, fixture: &Fixture, to: u64) -> Result<quinn::Connection, ConnectionError> {
        let name = pki::node_name("chat", NodeId(to));
        let connecting = self.endpoint.connect_with(self.client.clone(), fixture.addresses[&to], &name);
        soon("a handshake", connecting.unwrap()).await
    }

    /// Connects to node 1, says `hello`, and returns why the connection ended.
    async fn knock(&self, fixture: &Fixture, hello: &Hello) -> ConnectionError {
        let connection = match self.connect(fixture, 1).await {
            Ok(connection) => connection,
            Err(error) => return error,
        };
        // The connection may be refused before all is written.
        let _control = say(&connection, hello).await;
        soon("a refusal", connection.closed()).await
    }
}

/// Opens the control stream with a `Hello`.
pub(super) async fn say(
    connection: &quinn::Connection,
    hello: &Hello,
) -> Option<(quinn::SendStream, quinn::RecvStream)> {
    let (mut send, recv) = connection.open_bi().await.ok()?;
    let mut bytes = Vec::new();
    put_varint(&mut bytes, StreamType::CONTROL.0);
    bytes.extend_from_slice(&hello.to_frame());
    send.write_all(&bytes).await.ok()?;
    Some((send, recv))
}

pub(super) fn hello(node: u64) -> Hello {
    Hello {
        cluster: "chat".to_owned(),
        node: NodeId(node),
        store: [2; 16],
        incarnation: 1,
        lowest: 1,
        highest: 1,
        program: String::new(),
        formation: Bytes::new(),
    }
}

fn alert(error: &ConnectionError) -> Option<u64> {
    match error {
        ConnectionError::ConnectionClosed(close) => Some(u64::from(close.error_code) - 0x100),
        _ => None,
    }
}

pub(super) fn code(error: &ConnectionError) -> CloseCode {
    match error {
        ConnectionError::ApplicationClosed(close) => CloseCode(u32::try_from(close.error_code.into_inner()).unwrap()),
        other => panic!("{other:?}"),
    }
}

/// Node 1, with a peer 2 that is not there, and what it logs.
fn alone() -> (Fixture, TestNode, Lines) {
    let lines = Lines::listen();
    let fixture = Fixture::new(2);
    let one = fixture.start(1);
    (fixture, one, lines)
}

/// That a stranger with these files gets this alert, twice, and that it is said once.
async fn refused_by_tls(fixture: &Fixture, lines: &Lines, stranger: Stranger, expected: u64, words: &[&str]) {
    for _ in 0..2 {
        let error = stranger.knock(fixture, &hello(2)).await;
        assert_eq!(alert(&error), Some(expected), "{error:?}");
    }
    eventually("a warning", || lines.warnings(words) > 0).await;
    assert_eq!(lines.warnings(words), 1, "{words:?}");
}

#[tokio::test]
async fn certificates_that_tls_refuses_are_refused_with_what_to_do() {
    let (fixture, one, lines) = alone();
    let other = Fixture::new(2);
    // Of another authority for the same name: its signature is wrong, though it names the right node.
    let files = Files { ca: fixture.files(1).ca, ..other.files(2) };
    let words = ["127.0.0.1", "not of the cluster's authority", "pki node"];
    refused_by_tls(&fixture, &lines, Stranger::new(&files), 51, &words).await;

    let (dir, then) = (fixture.dir.path().join("old"), SystemTime::now() - Duration::from_secs(86_400));
    let old = make_node_between(&fixture.ca(), NodeId(2), &dir, then, then + Duration::from_secs(60)).unwrap();
    let files = Files { certificate: old.certificate, key: old.key, ..fixture.files(2) };
    refused_by_tls(&fixture, &lines, Stranger::new(&files), 45, &["expired", "pki node"]).await;

    // No certificate, as a client has none; and a client's protocol.
    let mut roots = rustls::RootCertStore::empty();
    let ca =
        <rustls_pki_types::CertificateDer<'_> as rustls_pki_types::pem::PemObject>::from_pem_file(fixture.files(1).ca);
    roots.add(ca.unwrap()).unwrap();
    let client = |alpn: &[u8]| {
        let provider = rove_quic::provider();
        let tls =
            rustls::ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&rustls::version::TLS13]);
        let mut tls = tls.unwrap().with_root_certificates(roots.clone()).with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let crypto = quinn::crypto::rustls::QuicClientConfig::try_from(tls).unwrap();
        Stranger::with(quinn::ClientConfig::new(Arc::new(crypto)))
    };
    refused_by_tls(&fixture, &lines, client(registry::ALPN), 116, &["has no certificate"]).await;
    refused_by_tls(&fixture, &lines, client(b"rove/1"), 120, &["does not speak rove-cluster/1"]).await;
    assert!(!one.peer(2).connected);
    one.stop().await;
}

#[tokio::test]
async fn a_certificate_of_the_chat_port_is_refused() {
    let (fixture, one, lines) = alone();
    let chat = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let file = |name| fixture.dir.path().join(name);
    std::fs::write(file("cert.pem"), chat.cert.pem()).unwrap();
    std::fs::write(file("key.pem"), chat.signing_key.serialize_pem()).unwrap();
    let files = Files { ca: fixture.files(1).ca, certificate: file("cert.pem"), key: file("key.pem") };
    refused_by_tls(&fixture, &lines, Stranger::new(&files), 48, &["not of the cluster's authority"]).await;
    let own = Trust::load(files, "chat", NodeId(1)).unwrap_err().to_string();
    assert!(own.contains("authority in cluster.ca"), "{own}");
    one.stop().await;
}

#[tokio::test]
async fn a_hello_that_does_not_fit_the_certificate_or_the_cluster_is_refused() {
    let (fixture, one, lines) = alone();
    for node in [3, 9] {
        make_node(&fixture.ca(), NodeId(node), fixture.dir.path(), 10).unwrap();
    }
    let other_cluster = Hello { cluster: "other".to_owned(), ..hello(2) };
    let cases = [
        (3, hello(2), CloseCode::OTHER_NODE, &["not that of node 2", "node-2.chat.rove"]),
        (1, hello(1), CloseCode::OWN_ID, &["two nodes have the id 1", "node_id"]),
        (9, hello(9), CloseCode::UNKNOWN_NODE, &["node 9 is not among", "cluster.peers"]),
        (2, other_cluster, CloseCode::OTHER_CLUSTER, &["cluster \"other\", not \"chat\"", "cluster.name"]),
    ];
    for (certificate, hello, expected, words) in cases {
        let stranger = Stranger::new(&fixture.files(certificate));
        for _ in 0..2 {
            let error = stranger.knock(&fixture, &hello).await;
            assert_eq!(code(&error), expected, "{error}");
            assert!(error.to_string().contains(words[0]), "the other end is told why: {error}");
        }
        assert_eq!(lines.warnings(words), 1, "{words:?}");
    }
    assert!(one.ear.heard.lock().is_empty());
    one.stop().await;
}

#[tokio::test]
async fn nodes_whose_versions_do_not_overlap_say_both_ranges() {
    let lines = Lines::listen();
    let fixture = Fixture::new(2);
    let one = TestNode::start(ClusterConfig { versions: (1, 2), ..fixture.config(1) });
    let two = TestNode::start(ClusterConfig { versions: (3, 4), ..fixture.config(2) });
    let said = |node: &TestNode, peer, words: &[&str]| {
        let error = node.peer(peer).last_error.unwrap_or_default();
        words.iter().all(|word| error.contains(word))
    };
    // Whichever dialled: its own view, or the other's words.
    eventually("a reason at both", || {
        said(&one, 2, &["1 to 2", "3 to 4", "upgrade"]) && said(&two, 1, &["1 to 2", "3 to 4", "upgrade"])
    })
    .await;
    assert!(lines.warnings(&["node 2", "1 to 2", "3 to 4"]) >= 1);
    assert!(!one.peer(2).connected && !two.peer(1).connected);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn the_highest_common_version_is_spoken() {
    let fixture = Fixture::new(2);
    let one = TestNode::start(ClusterConfig { versions: (1, 3), ..fixture.config(1) });
    let two = TestNode::start(ClusterConfig { versions: (2, 5), ..fixture.config(2) });
    assert_eq!(one.ear.up(2).await.version, 3);
    assert_eq!(two.ear.up(1).await.version, 3);
    one.stop().await;
    two.stop().await;
}

#[tokio::test]
async fn a_node_that_may_not_come_back_as_it_is_is_told_why() {
    let lines = Lines::listen();
    let fixture = Fixture::new(2);
    let ear = Arc::new(Ear::default());
    *ear.allowed.lock() = Some("incarnation 1 was seen before: an old copy of the disk".to_owned());
    let one = TestNode::start_with(fixture.config(1), ear.clone());
    let two = fixture.start(2);
    let told = || two.peer(1).last_error.is_some_and(|error| error.contains("an old copy of the disk"));
    eventually("the reason at the other end", told).await;
    assert!(lines.warnings(&["node 2", "an old copy"]) >= 1);
    assert!(!one.peer(2).connected);
    *ear.allowed.lock() = None;
    one.ear.up(2).await;
    two.ear.up(1).await;
    one.stop().await;
    two.stop().await;
}

/// Listens where node 2 should be, and counts who comes.
async fn impostor(fixture: &Fixture, server: quinn::ServerConfig, dials: usize) -> quinn::Endpoint {
    let runtime = Arc::new(quinn::TokioRuntime);
    let endpoint = quinn::Endpoint::new(quinn::EndpointConfig::default(), Some(server), fixture.socket(2), runtime);
    let endpoint = endpoint.unwrap();
    for _ in 0..dials {
        let incoming = soon("a dial", endpoint.accept()).await.unwrap();
        // It fails, as the dialling node does not go on.
        let _ = soon("its end", incoming.accept().unwrap()).await;
    }
    endpoint
}

#[tokio::test]
async fn a_dialled_node_must_have_the_peers_certificate() {
    let other = Fixture::new(2);
    let fixtures = [Fixture::new(3), Fixture::new(2)];
    // Node 3 at the address of node 2; and a node 2 of another authority.
    let servers = [trust::unchecked(&fixtures[0].files(3)).server, trust::unchecked(&other.files(2)).server];
    let words = [
        ["no connection with node 2", "not that of the node which was dialled"],
        ["no connection with node 2", "not of the cluster's authority"],
    ];
    for ((fixture, server), words) in fixtures.iter().zip(servers).zip(words) {
        let lines = Lines::listen();
        let one = fixture.start(1);
        let endpoint = impostor(fixture, (*server).clone(), 3).await;
        eventually("the reason", || one.peer(2).last_error.is_some_and(|error| error.contains(words[1]))).await;
        assert_eq!(lines.warnings(&words), 1, "three dials, one line");
        one.stop().await;
        endpoint.close(quinn::VarInt::from_u32(0), b"");
    }
}
