//! HTTP/1.1 and HTTP/2 over TLS on TCP.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use super::FIELDS;

/// Connections there may be. Each costs about 50 KiB with TLS; this API is for curl, load balancers and clients that
/// cannot do UDP, not for sessions.
const CONNECTIONS: usize = 1_024;
/// How patient the server is with a client.
#[derive(Debug, Clone, Copy)]
struct Patience {
    /// With a TLS handshake, which takes two round trips.
    handshake: Duration,
    /// With the head of a request, which arrives in one piece unless somebody holds on to the connection; and with the next
    /// request of an HTTP/1.1 connection.
    head: Duration,
    /// With an HTTP/2 connection without a sign of life; it is then asked for one, and closed after [`Patience::head`].
    idle: Duration,
}

const PATIENCE: Patience =
    Patience { handshake: Duration::from_secs(10), head: Duration::from_secs(15), idle: Duration::from_secs(30) };
/// Requests at once on one HTTP/2 connection.
const STREAMS: u32 = 32;
/// What one HTTP/2 stream may send ahead: a whole body.
const WINDOW: u32 = 64 * 1024;
/// How long connections may take to finish their requests once the server stops: a little more than a queue of hashes.
const DRAIN: Duration = Duration::from_secs(10);
/// How long to wait when the system has no more file descriptors: some will have been closed by then.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections until `shutdown`, then lets the requests under way finish, bounded.
pub async fn serve_tcp(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
) {
    serve_patiently(listener, tls, router, shutdown, PATIENCE).await;
}

async fn serve_patiently(
    listener: TcpListener,
    tls: Arc<rustls::ServerConfig>,
    router: Router,
    shutdown: CancellationToken,
    patience: Patience,
) {
    let acceptor = TlsAcceptor::from(tls);
    let room = Arc::new(Semaphore::new(CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // First room, then a connection: who finds none waits in the system's queue.
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let Ok(permit) = permit else { break };
        let (stream, peer) = tokio::select! {
            () = shutdown.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a TCP connection");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            },
        };
        let (acceptor, router, shutdown) = (acceptor.clone(), router.clone(), shutdown.clone());
        connections.spawn(async move {
            let _permit = permit;
            let Some(stream) = handshake(stream, peer, acceptor, patience, &shutdown).await else { return };
            serve(stream, peer, router, patience, shutdown).await;
        });
    }
    drop(listener);
    let finished = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(DRAIN, finished).await.is_err() {
        connections.shutdown().await;
    }
}

/// What goes wrong here is the client's affair.
async fn handshake(
    stream: TcpStream,
    peer: SocketAddr,
    acceptor: TlsAcceptor,
    patience: Patience,
    shutdown: &CancellationToken,
) -> Option<TlsStream<TcpStream>> {
    // Answers are written whole: waiting for more only delays them. A socket that refuses is about to fail anyway.
    let _ = stream.set_nodelay(true);
    let handshake = tokio::time::timeout(patience.handshake, acceptor.accept(stream));
    let done = tokio::select! {
        () = shutdown.cancelled() => return None,
        done = handshake => done,
    };
    match done {
        Ok(Ok(stream)) => return Some(stream),
        Ok(Err(error)) => tracing::debug!(%peer, %error, "TLS handshake failed"),
        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
    }
    None
}

/// One connection. Whatever goes wrong on it is the client's affair.
async fn serve(
    stream: TlsStream<TcpStream>,
    peer: SocketAddr,
    router: Router,
    patience: Patience,
    shutdown: CancellationToken,
) {
    let service = hyper::service::service_fn(move |request: http::Request<Incoming>| {
        let mut request = request.map(Body::new);
        request.extensions_mut().insert(ConnectInfo(peer));
        let router = router.clone();
        async move { Ok::<_, Infallible>(router.oneshot(request).await.unwrap_or_else(|never| match never {})) }
    });
    // What TLS agreed on decides: guessing from the first bytes would wait for them without end.
    let h2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let builder = if h2 { builder(patience).http2_only() } else { builder(patience).http1_only() };
    let connection = builder.serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%peer, %error, "HTTP connection ended");
    }
}

fn builder(patience: Patience) -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(patience.head)
        .max_headers(64)
        .max_buf_size(FIELDS as usize)
        .half_close(false);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(STREAMS)
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(2 * WINDOW)
        .max_header_list_size(FIELDS)
        .keep_alive_interval(patience.idle)
        .keep_alive_timeout(patience.head);
    builder
}

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use rustls_pki_types::ServerName;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Notify;
    use tokio::task::JoinHandle;
    use tokio_rustls::TlsConnector;

    use super::*;
    use crate::tls::{Identity, make_development_certificate};

    /// Everything here is over within this time, or never.
    const LONG: Duration = Duration::from_secs(20);

    struct Server {
        address: SocketAddr,
        tls: Arc<rustls::ClientConfig>,
        shutdown: CancellationToken,
        task: JoinHandle<()>,
    }

    impl Server {
        async fn start(router: Router, patience: Patience) -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (cert, key) = (dir.path().join("cert.pem"), dir.path().join("key.pem"));
            make_development_certificate(&cert, &key, None).unwrap();
            let identity = Identity::load(&cert, &key).unwrap();
            let mut roots = rustls::RootCertStore::empty();
            roots.add(identity.chain()[0].clone()).unwrap();
            let provider = rove_quic::provider();
            let tls = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth();
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let address = listener.local_addr().unwrap();
            let shutdown = CancellationToken::new();
            let served = identity.tcp().unwrap().into();
            let task = tokio::spawn(serve_patiently(listener, served, router, shutdown.clone(), patience));
            Self { address, tls: tls.into(), shutdown, task }
        }

        async fn connect(&self) -> tokio_rustls::client::TlsStream<TcpStream> {
            let stream = TcpStream::connect(self.address).await.unwrap();
            let name = ServerName::try_from("localhost").unwrap();
            TlsConnector::from(self.tls.clone()).connect(name, stream).await.unwrap()
        }
    }

    /// Everything up to the end of the connection, however it ends.
    async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
        let mut bytes = Vec::new();
        let _ = tokio::time::timeout(LONG, stream.read_to_end(&mut bytes)).await.expect("the connection ends");
        String::from_utf8_lossy(&bytes).into_owned()
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_never_finishes_is_cut_off() {
        let short = Duration::from_millis(50);
        let patience = Patience { handshake: short, head: short, idle: short };
        let server = Server::start(Router::new(), patience).await;
        let mut no_handshake = TcpStream::connect(server.address).await.unwrap();
        assert_eq!(rest(&mut no_handshake).await, "");
        // The handshake itself may take longer here than such patience: then there is nothing left to show.
        let server = Server::start(Router::new(), Patience { handshake: LONG, ..patience }).await;
        let mut silent = server.connect().await;
        assert_eq!(rest(&mut silent).await, "");
        let mut slow = server.connect().await;
        slow.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n").await.unwrap();
        assert!(!rest(&mut slow).await.contains("200"));
    }

    #[tokio::test]
    async fn on_shutdown_the_request_under_way_is_answered_and_the_connection_ends() {
        let (began, go_on) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (began_there, go_on_there) = (began.clone(), go_on.clone());
        let slow = get(move || async move {
            began_there.notify_one();
            go_on_there.notified().await;
            "done"
        });
        let server = Server::start(Router::new().route("/slow", slow), PATIENCE).await;
        let mut idle = server.connect().await;
        let mut busy = server.connect().await;
        busy.write_all(b"GET /slow HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
        began.notified().await;
        server.shutdown.cancel();
        assert_eq!(rest(&mut idle).await, "");
        go_on.notify_one();
        let answer = rest(&mut busy).await;
        assert!(answer.starts_with("HTTP/1.1 200 OK") && answer.ends_with("done"), "{answer}");
        tokio::time::timeout(LONG, server.task).await.expect("the server ends").unwrap();
        assert!(TcpStream::connect(server.address).await.is_err(), "nobody listens any more");
    }

    #[tokio::test]
    async fn fields_larger_than_the_limit_are_refused() {
        let server = Server::start(Router::new(), PATIENCE).await;
        let mut stream = server.connect().await;
        let head = format!("GET / HTTP/1.1\r\nhost: localhost\r\nx: {}\r\n\r\n", "x".repeat(2 * FIELDS as usize));
        // The server may close before everything is written.
        let _ = stream.write_all(head.as_bytes()).await;
        let answer = rest(&mut stream).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
}
