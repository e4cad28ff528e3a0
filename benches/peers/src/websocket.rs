//! The floor of what others build on: a bare echo over a WebSocket over TLS, a server of this program on tokio-tungstenite. It
//! stores nothing and knows nobody.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, BytesMut};
use futures::{FutureExt as _, SinkExt as _, StreamExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use crate::link::{Codec, Event, Wire, line, message, number};
use crate::process::{Server, free_ports, stop};
use crate::results::{Results, Row};
use crate::tls::{Stream, Tls, acceptor};
use crate::work::{self, Done, Plan};

const UNDER_WAY_16: Row = Row { id: "websocket-16", name: "bare WebSocket over TLS, echo, 16 under way" };
const UNDER_WAY_1: Row = Row { id: "websocket-1", name: "bare WebSocket over TLS, echo, 1 under way" };

const CONNECTIONS: usize = 100;

/// The name of the server's command of this program.
pub(crate) const COMMAND: &str = "websocket-server";

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    let dir = work::fresh_dir(&plan.dir, "websocket")?;
    let tls = Tls::make(dir.path())?;
    let [port] = free_ports()?;
    let program = std::env::current_exe()?.display().to_string();
    let files = [&tls.certificate, &tls.key].map(|path| path.display().to_string());
    let args: Vec<_> = [COMMAND.to_owned(), port.to_string()].into_iter().chain(files).collect();
    let mut server = Server::start("websocket", &program, &args, &[], dir.path())?;
    let (at, pid) = (SocketAddr::from((Ipv4Addr::LOCALHOST, port)), server.pid());
    server.listens(at).await?;
    for (row, window) in [(UNDER_WAY_16, 16), (UNDER_WAY_1, 1)] {
        let mut links = Vec::new();
        for _ in 0..CONNECTIONS {
            links.push(connect(&tls, at).await?);
        }
        let report = work::throughput(plan, row.name, links, window, Done::Acknowledged, &[pid]).await?;
        results.add(plan, row, &report);
        results.fsync(row, Some("stores nothing".to_owned()));
    }
    let (what, open) = (UNDER_WAY_16.name, |_| connect(&tls, at));
    results.add(plan, UNDER_WAY_16, &work::connections(plan, what, open, pid).await?);
    results.add(plan, UNDER_WAY_16, &work::idle(what, open, pid).await?);
    stop(vec![server]).await;
    Ok(())
}

async fn connect(tls: &Tls, at: SocketAddr) -> Result<Wire<Stream, WebSocket>> {
    let mut wire = Wire::new(tls.connect(at).await?, WebSocket {});
    // The key is any: the answer to it proves that the server speaks the protocol, which ours does.
    let request = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let mut upgraded = false;
    let answer = wire.ask(request.as_bytes(), |input| {
        while let Some(line) = line(input) {
            if line.is_empty() {
                return if upgraded { Ok(Some(())) } else { bail!("no WebSocket") };
            }
            upgraded |= line.starts_with(b"HTTP/1.1 101");
        }
        Ok(None)
    });
    answer.await.context("the WebSocket's handshake")?;
    Ok(wire)
}

/// A final frame of bytes.
const BINARY: u8 = 0x82;
/// The length is in the two bytes that follow.
const TWO_BYTES: u8 = 126;
const MASKED: u8 = 0x80;
/// Before the payload: the two bytes of the frame, and its length.
const HEAD: usize = 4;

/// Frames of one message each.
#[derive(Debug)]
struct WebSocket {}

impl Codec for WebSocket {
    fn encode(&mut self, number: u64, out: &mut Vec<u8>) {
        let message = message(number);
        out.extend_from_slice(&[BINARY, MASKED | TWO_BYTES]);
        out.put_u16(u16::try_from(message.len()).unwrap_or(u16::MAX));
        // A mask of zeros: the server has its work with it all the same.
        out.put_u32(0);
        out.extend_from_slice(&message);
    }

    fn decode(&mut self, input: &mut BytesMut, _out: &mut Vec<u8>) -> Result<Option<Event>> {
        if input.len() < HEAD {
            return Ok(None);
        }
        if input[..2] != [BINARY, TWO_BYTES] {
            bail!("a frame that is no echo: {:?}", &input[..2]);
        }
        let length = usize::from(u16::from_be_bytes([input[2], input[3]]));
        if input.len() < HEAD + length {
            return Ok(None);
        }
        input.advance(HEAD);
        let payload = input.split_to(length);
        Ok(Some(Event::Acknowledged(number(&payload).context("a message without a number")?)))
    }
}

/// The server. Ends when it is killed.
pub(crate) async fn serve(port: u16, certificate: PathBuf, key: PathBuf) -> Result<()> {
    let acceptor = acceptor(Path::new(&certificate), &key)?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let (stream, _) = accepted?;
                connections.spawn(echo(stream, acceptor.clone()));
            }
            // What a connection ended with is its client's affair.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// Room for what comes at once; by default it would be 128 KiB for each connection, idle or not.
const BUFFER: usize = 8 * 1_024;

async fn echo(stream: TcpStream, acceptor: TlsAcceptor) -> Result<()> {
    stream.set_nodelay(true)?;
    let config = WebSocketConfig::default().read_buffer_size(BUFFER);
    let mut socket = tokio_tungstenite::accept_async_with_config(acceptor.accept(stream).await?, Some(config)).await?;
    while let Some(first) = socket.next().await {
        let mut echoed = first?;
        // Everything that has come goes back with one write.
        loop {
            if echoed.is_binary() {
                socket.feed(echoed).await?;
            }
            match socket.next().now_or_never() {
                Some(Some(next)) => echoed = next?,
                Some(None) => return Ok(()),
                None => break,
            }
        }
        socket.flush().await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_echo_is_understood_and_anything_else_is_an_error() {
        let mut echo = BytesMut::from(&[BINARY, TWO_BYTES, 0, 200][..]);
        echo.extend_from_slice(&message(4));
        let mut half = BytesMut::from(&echo[..50]);
        assert_eq!(WebSocket {}.decode(&mut half, &mut Vec::new()).unwrap(), None);
        assert_eq!(WebSocket {}.decode(&mut echo, &mut Vec::new()).unwrap(), Some(Event::Acknowledged(4)));
        assert!(WebSocket {}.decode(&mut BytesMut::from(&[0x88, 0, 0, 0][..]), &mut Vec::new()).is_err());
    }
}
