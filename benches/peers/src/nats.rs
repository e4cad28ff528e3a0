//! NATS JetStream: three servers, one stream on files with three replicas.
//!
//! The protocol is text: `PUB subject reply length`, answered with a `MSG` on the reply's subject once the stream has it.
//! <https://docs.nats.io/reference/reference-protocols/nats-protocol>

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BytesMut};
use rove_benches::say;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::link::{Codec, Event, MESSAGE, Pair, Wire, line, message, number};
use crate::process::{LOOK_EVERY, START_TIMEOUT, Server, free_ports, output, pids, stop};
use crate::results::{Results, Row};
use crate::syncs;
use crate::work::{self, Done, Hears, Plan};

const BY_DEFAULT: Row = Row { id: "jetstream", name: "JetStream R3, three servers" };
const SYNC_ALWAYS: Row = Row { id: "jetstream-sync", name: "JetStream R3, `sync_interval: always`" };

/// Publications under way.
const WINDOW: usize = 256;

const PROGRAM: &str = "nats-server";

/// One round: as the server is by default, and with a sync before each acknowledgement where its version can.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    let version = output(PROGRAM, &["--version"])?.trim().to_owned();
    results.version("nats", &version);
    let setting = can_sync(&plan.dir)?;
    if !setting {
        results.note(&format!(
            "{version} has no `sync_interval` (2.10 has): it syncs every two minutes, and has no other figures."
        ));
    }
    measure(plan, results, BY_DEFAULT, false).await?;
    if setting { measure(plan, results, SYNC_ALWAYS, true).await } else { Ok(()) }
}

/// Whether the server knows the setting: it reads a configuration and says so.
fn can_sync(dir: &Path) -> Result<bool> {
    let dir = work::fresh_dir(dir, "nats")?;
    let path = dir.path().join("sync.conf");
    std::fs::write(&path, format!("jetstream {{ store_dir: \"{}\", sync_interval: always }}\n", dir.path().display()))?;
    let said = output(PROGRAM, &["-t", "-c", &path.display().to_string()])?;
    Ok(!said.contains("unknown field"))
}

async fn measure(plan: &Plan, results: &mut Results, row: Row, sync: bool) -> Result<()> {
    let dir = work::fresh_dir(&plan.dir, "nats")?;
    let mut cluster = Cluster::start(dir.path(), sync).await?;
    let servers = pids(&cluster.servers);
    let what = row.name;

    let publisher = cluster.publisher(cluster.leader).await?;
    let report = work::throughput(plan, what, vec![publisher], WINDOW, Done::Acknowledged, &servers).await?;
    results.add(plan, row, &report);
    let [near, far] = cluster.followers();
    let pair = Pair { sender: cluster.publisher(near).await?, receiver: cluster.consumer(far).await? };
    let hears = Hears { acknowledgements: true, deliveries: true };
    results.add(plan, row, &work::deliveries(plan, what, pair, hears, &servers).await?);
    let publisher = cluster.publisher(near).await?;
    results.add(plan, row, &work::acknowledgements(plan, what, publisher, &servers).await?);
    if plan.round == 1 {
        let publisher = cluster.publisher(near).await?;
        results.fsync(row, syncs::count(publisher, Done::Acknowledged, &servers, dir.path()).await?);
    }
    let publisher = cluster.publisher(near).await?;
    let leader = cluster.leader;
    results.add(plan, row, &work::silence(what, publisher, || cluster.servers[leader].kill()).await?);
    stop(cluster.servers).await;
    Ok(())
}

struct Cluster {
    servers: Vec<Server>,
    clients: [SocketAddr; 3],
    /// Which of them leads the stream.
    leader: usize,
}

impl Cluster {
    async fn start(dir: &Path, sync: bool) -> Result<Self> {
        let ports = free_ports::<6>()?;
        let routes: Vec<_> = ports[3..].iter().map(|port| format!("nats-route://127.0.0.1:{port}")).collect();
        let mut servers = Vec::new();
        for node in 0..3 {
            let name = format!("n{node}");
            let config = dir.join(format!("{name}.conf"));
            let store = dir.join(&name);
            let sync = if sync { "sync_interval: always" } else { "" };
            std::fs::write(
                &config,
                format!(
                    "server_name: {name}\nlisten: 127.0.0.1:{}\njetstream {{ store_dir: \"{}\"\n{sync} }}\n\
                     cluster {{ name: peers, listen: 127.0.0.1:{}, routes: {routes:?} }}\n",
                    ports[node],
                    store.display(),
                    ports[3 + node]
                ),
            )?;
            servers.push(Server::start(&name, PROGRAM, &["-c".to_owned(), config.display().to_string()], &[], dir)?);
        }
        let clients = [0, 1, 2].map(|node| SocketAddr::from((Ipv4Addr::LOCALHOST, ports[node])));
        for (server, at) in servers.iter_mut().zip(clients) {
            server.listens(at).await?;
        }
        let mut this = Self { servers, clients, leader: 0 };
        this.leader = this.make_stream().await?;
        Ok(this)
    }

    /// Makes the stream, which fails until the servers have found each other; which server leads it.
    async fn make_stream(&mut self) -> Result<usize> {
        let stream = json!({
            "name": STREAM, "subjects": [SUBJECT], "retention": "limits", "storage": "file", "num_replicas": 3,
            "max_consumers": -1, "max_msgs": -1, "max_bytes": -1, "max_age": 0, "discard": "old",
        });
        let deadline = Instant::now() + START_TIMEOUT;
        let mut wire = connect(self.clients[0]).await?;
        let (create, mut last) = (format!("$JS.API.STREAM.CREATE.{STREAM}"), Value::Null);
        while Instant::now() < deadline {
            let answer = request(&mut wire, &create, &stream);
            if let Ok(answer) = tokio::time::timeout(Duration::from_secs(2), answer).await {
                last = answer?;
                let leader = last["cluster"]["leader"].as_str().and_then(|name| name.strip_prefix('n')?.parse().ok());
                if let Some(leader) = leader {
                    return Ok(leader);
                }
            }
            tokio::time::sleep(LOOK_EVERY).await;
            for server in &mut self.servers {
                server.alive()?;
            }
        }
        bail!("no stream could be made: {last}")
    }

    /// The two that do not lead the stream.
    fn followers(&self) -> [usize; 2] {
        [(self.leader + 1) % 3, (self.leader + 2) % 3]
    }

    async fn publisher(&self, node: usize) -> Result<Wire<TcpStream, Nats>> {
        let mut wire = connect(self.clients[node]).await?;
        let replies = format!("SUB {REPLIES}.* 1\r\nPING\r\n");
        wire.ask(replies.as_bytes(), pong).await?;
        Ok(wire.with(Nats::default()))
    }

    /// Receives from the stream what comes from now on.
    async fn consumer(&self, node: usize) -> Result<Wire<TcpStream, Nats>> {
        let mut wire = connect(self.clients[node]).await?;
        wire.ask(format!("SUB {DELIVERIES} 2\r\nPING\r\n").as_bytes(), pong).await?;
        let consumer = json!({
            "stream_name": STREAM,
            "config": { "deliver_subject": DELIVERIES, "deliver_policy": "new", "ack_policy": "none", "replay_policy": "instant" },
        });
        let answer = request(&mut wire, &format!("$JS.API.CONSUMER.CREATE.{STREAM}"), &consumer).await?;
        if answer["name"].is_null() {
            bail!("no consumer could be made: {answer}");
        }
        Ok(wire.with(Nats::default()))
    }
}

const STREAM: &str = "load";
const SUBJECT: &str = "load.posts";
const REPLIES: &str = "_INBOX.acks";
const DELIVERIES: &str = "_INBOX.deliveries";
/// What a request outside of the measured work is answered on.
const ANSWER: &str = "_INBOX.answer";

async fn connect(at: SocketAddr) -> Result<Wire<TcpStream, ()>> {
    let stream = TcpStream::connect(at).await.context("connecting to NATS")?;
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream, ());
    let hello =
        format!("CONNECT {{\"verbose\":false,\"pedantic\":false,\"headers\":false}}\r\nSUB {ANSWER} 3\r\nPING\r\n");
    wire.ask(hello.as_bytes(), pong).await?;
    Ok(wire)
}

/// Passes over lines up to the answer to a `PING`.
fn pong(input: &mut BytesMut) -> Result<Option<()>> {
    while let Some(line) = line(input) {
        if line.starts_with(b"-ERR") {
            bail!("NATS: {}", String::from_utf8_lossy(&line));
        }
        if line.starts_with(b"PONG") {
            return Ok(Some(()));
        }
    }
    Ok(None)
}

async fn request(wire: &mut Wire<TcpStream, ()>, subject: &str, body: &Value) -> Result<Value> {
    let body = body.to_string();
    let request = format!("PUB {subject} {ANSWER} {}\r\n{body}\r\n", body.len());
    let answer = wire.ask(request.as_bytes(), |input| {
        loop {
            match unit(input)? {
                Some(Unit::Message { subject, payload }) if &subject[..] == ANSWER.as_bytes() => {
                    return Ok(Some(serde_json::from_slice(&payload)?));
                }
                Some(_) => {}
                None => return Ok(None),
            }
        }
    });
    answer.await
}

/// What a server says.
enum Unit {
    Ping,
    Message { subject: BytesMut, payload: BytesMut },
    Other,
}

/// Takes one, if it is there whole.
fn unit(input: &mut BytesMut) -> Result<Option<Unit>> {
    let Some(end) = input.windows(2).position(|two| two == b"\r\n") else { return Ok(None) };
    if !input.starts_with(b"MSG ") {
        let line = input.split_to(end);
        input.advance(2);
        return match &line[..] {
            b"PING" => Ok(Some(Unit::Ping)),
            error if error.starts_with(b"-ERR") => bail!("NATS: {}", String::from_utf8_lossy(error)),
            _ => Ok(Some(Unit::Other)),
        };
    }
    let head = std::str::from_utf8(&input[4..end])?;
    let (subject, length) = head.split_once(' ').context("a message without a subject")?;
    let (from, until) = (4, 4 + subject.len());
    let length: usize = length.rsplit(' ').next().unwrap_or_default().parse().context("a message without a length")?;
    if input.len() < end + 2 + length + 2 {
        return Ok(None);
    }
    let mut head = input.split_to(end + 2);
    let payload = input.split_to(length);
    input.advance(2);
    head.truncate(until);
    head.advance(from);
    Ok(Some(Unit::Message { subject: head, payload }))
}

/// Publications with the number in the reply's subject.
#[derive(Debug, Default)]
struct Nats {}

impl Codec for Nats {
    fn encode(&mut self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("PUB {SUBJECT} {REPLIES}.{number} {MESSAGE}\r\n").as_bytes());
        out.extend_from_slice(&message(number));
        out.extend_from_slice(b"\r\n");
    }

    fn decode(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>> {
        while let Some(unit) = unit(input)? {
            match unit {
                Unit::Ping => out.extend_from_slice(b"PONG\r\n"),
                Unit::Other => {}
                Unit::Message { subject, payload } => {
                    let reply = subject.strip_prefix(REPLIES.as_bytes()).and_then(|rest| rest.strip_prefix(b"."));
                    if let Some(reply) = reply {
                        let of = std::str::from_utf8(reply)?.parse()?;
                        let refused = payload.windows(7).any(|bytes| bytes == b"\"error\"");
                        if refused {
                            say(format_args!("NATS: {}", String::from_utf8_lossy(&payload)));
                        }
                        return Ok(Some(if refused { Event::Refused(of) } else { Event::Acknowledged(of) }));
                    }
                    if let Some(number) = number(&payload) {
                        return Ok(Some(Event::Delivered(number)));
                    }
                }
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_server_says_is_understood_whole_and_in_pieces() {
        let said_on = |subject: &str, payload: &[u8]| {
            [format!("MSG {subject} {}\r\n", payload.len()).as_bytes(), payload, b"\r\n"].concat()
        };
        let said = [
            b"INFO {}\r\nPING\r\n".to_vec(),
            said_on("_INBOX.acks.7 1", br#"{"stream":"load","seq":1}"#),
            said_on("_INBOX.deliveries 2 $JS.ACK.x", &message(9)),
        ];
        let (mut codec, mut input, mut out, mut events) = (Nats::default(), BytesMut::new(), Vec::new(), Vec::new());
        for byte in said.concat() {
            input.extend_from_slice(&[byte]);
            events.extend(codec.decode(&mut input, &mut out).unwrap());
        }
        assert_eq!(events, [Event::Acknowledged(7), Event::Delivered(9)]);
        assert_eq!(out, b"PONG\r\n");
    }

    #[test]
    fn an_error_of_the_stream_is_a_refusal_and_one_of_the_server_ends_it() {
        let decode = |bytes: &[u8]| Nats::default().decode(&mut BytesMut::from(bytes), &mut Vec::new());
        let refusal = b"MSG _INBOX.acks.8 1 22\r\n{\"error\":{\"code\":503}}\r\n";
        assert_eq!(decode(refusal).unwrap(), Some(Event::Refused(8)));
        assert!(decode(b"-ERR 'Authorization Violation'\r\n").is_err());
    }
}
