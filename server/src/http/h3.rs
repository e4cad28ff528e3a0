//! HTTP/3, on connections that the edge has accepted.

mod bounded;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use ::h3::server::{RequestResolver, RequestStream};
use axum::Router;
use axum::body::Body;
use axum::extract::ConnectInfo;
use bytes::{Buf as _, Bytes};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

use self::bounded::Bounded;
use super::{BODY, FIELDS};

/// Requests at once on one connection. The transport allows no more streams either, but a client that opens and resets
/// (S19) frees a stream at once: its work counts until it has stopped.
const REQUESTS: usize = 32;
/// The head of a request arrives within this time, and then its body.
const RECEIVE: Duration = Duration::from_secs(15);
/// An answer that nobody takes is given up.
const SEND: Duration = Duration::from_secs(30);
/// How long the requests under way may take once the server stops.
const DRAIN: Duration = Duration::from_secs(10);
/// So often in a row nothing must come to be the end of a body. Nobody has a reason to send more than one empty piece at a time.
const PAUSES: usize = 3;
/// How long a client may take to close after its last answer; the connection is closed for it then.
const LINGER: Duration = Duration::from_secs(1);

type Stream = RequestStream<bounded::BidiStream, Bytes>;

/// Serves one HTTP/3 connection until its client closes it, or, after `shutdown`, until its requests are answered: it is
/// told with GOAWAY.
pub async fn serve_h3(connection: quinn::Connection, router: Router, shutdown: CancellationToken) {
    let peer = connection.remote_address();
    if let Err(error) = serve(connection, router, shutdown).await
        && !error.is_h3_no_error()
    {
        tracing::debug!(%peer, %error, "HTTP/3 connection ended");
    }
}

async fn serve(
    connection: quinn::Connection,
    router: Router,
    shutdown: CancellationToken,
) -> Result<(), ::h3::error::ConnectionError> {
    let mut h3 = ::h3::server::builder()
        .max_field_section_size(u64::from(FIELDS))
        .build(Bounded::new(h3_quinn::Connection::new(connection.clone())))
        .await?;
    let room = Arc::new(Semaphore::new(REQUESTS));
    let mut requests = JoinSet::new();
    loop {
        // First room, then a request: what there is no room for waits in the transport, which lets the client send no more.
        let permit = tokio::select! {
            () = shutdown.cancelled() => break,
            permit = room.clone().acquire_owned() => permit,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = h3.accept() => accepted?,
        };
        let (Some(resolver), Ok(permit)) = (accepted, permit) else { break };
        while requests.try_join_next().is_some() {}
        let (router, connection) = (router.clone(), connection.clone());
        requests.spawn(async move {
            let _permit = permit;
            answer(resolver, router, connection).await;
        });
    }
    h3.shutdown(0).await?;
    let drained = async {
        loop {
            tokio::select! {
                done = requests.join_next() => if done.is_none() { break },
                // Keeps the connection going, and turns away what was sent before GOAWAY arrived.
                more = h3.accept() => match more {
                    Ok(Some(_)) => {}
                    _ => break,
                },
            }
        }
    };
    if tokio::time::timeout(DRAIN, drained).await.is_ok() {
        // Closing now would throw away what is still on its way.
        let _ = tokio::time::timeout(LINGER, connection.closed()).await;
    }
    requests.shutdown().await;
    Ok(())
}

/// One request. Its errors are the client's: it went away, or broke the rules of HTTP/3, which h3 answers.
async fn answer(resolver: RequestResolver<Bounded, Bytes>, router: Router, connection: quinn::Connection) {
    let head = tokio::time::timeout(RECEIVE, resolver.resolve_request()).await;
    let Ok(Ok((request, mut stream))) = head else { return };
    let body = match tokio::time::timeout(RECEIVE, receive(&mut stream)).await {
        Ok(Ok(body)) => body,
        Ok(Err(_)) => return,
        Err(_) => return stream.stop_stream(::h3::error::Code::H3_REQUEST_CANCELLED),
    };
    respond(stream, request.map(|()| Body::from(body)), router, &connection).await;
}

/// The body; of one that is too large, as much as the router needs to refuse it in the same words as over TCP.
///
/// h3 0.0.8 takes an empty DATA frame for the end of the body. The end is where nothing comes after it either: a body would be cut
/// short otherwise, and a client that has only to end its request be told to stop sending it.
async fn receive(stream: &mut Stream) -> Result<Bytes, ::h3::error::StreamError> {
    let mut body = Vec::new();
    let mut pauses = 0;
    while pauses < PAUSES {
        let Some(mut chunk) = stream.recv_data().await? else {
            pauses += 1;
            continue;
        };
        pauses = 0;
        body.extend_from_slice(&chunk.copy_to_bytes(chunk.remaining()));
        if body.len() > BODY {
            stream.stop_sending(::h3::error::Code::H3_NO_ERROR);
            break;
        }
    }
    Ok(body.into())
}

async fn respond(mut stream: Stream, mut request: Request<Body>, router: Router, connection: &quinn::Connection) {
    request.extensions_mut().insert(ConnectInfo(connection.remote_address()));
    // A client that is gone needs no answer; its work ends here and not only when the answer cannot be written.
    let response = tokio::select! {
        response = router.oneshot(request) => response.unwrap_or_else(|never| match never {}),
        _ = connection.closed() => return,
    };
    let _ = tokio::time::timeout(SEND, send(&mut stream, response)).await;
}

async fn send(stream: &mut Stream, response: Response<Body>) -> Result<(), ::h3::error::StreamError> {
    let (parts, mut body) = response.into_parts();
    let head = Response::from_parts(parts, ());
    let empty = head.status() == StatusCode::NO_CONTENT;
    stream.send_response(head).await?;
    while let Some(Ok(frame)) = body.frame().await {
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
            && !empty
        {
            stream.send_data(data).await?;
        }
    }
    stream.finish().await
}
