//! mosquitto: an MQTT broker, QoS 1 over TLS. Pairs of clients: one publishes to a topic, the other is subscribed to it.
//!
//! <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html>

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use bytes::{Buf as _, BufMut as _, BytesMut};

use crate::link::{Codec, Event, MESSAGE, Pair, Wire, message, number};
use crate::process::{Server, free_ports, output, stop};
use crate::results::{Results, Row};
use crate::syncs;
use crate::tls::{Stream, Tls};
use crate::work::{self, Done, Hears, Plan};

const ROW: Row = Row { id: "mosquitto", name: "mosquitto, QoS 1, TLS" };

/// Publisher and subscriber, each with connections of their own.
const PAIRS: usize = 32;
/// Undelivered messages of a pair: below the 20 that the broker has under way to a client by default.
const WINDOW: usize = 16;

const PROGRAM: &str = "mosquitto";

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    let help = output(PROGRAM, &["-h"])?;
    results.version("mosquitto", help.lines().next().unwrap_or_default());
    results.note("mosquitto keeps what is under way in memory and writes it to its file every half hour and at its end (`persistence true`).");
    let dir = work::fresh_dir(&plan.dir, "mosquitto")?;
    let tls = Tls::make(dir.path())?;
    let (server, at) = start(dir.path(), &tls).await?;
    let (what, pid) = (ROW.name, server.pid());

    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        pairs.push(pair(&tls, at, number).await?);
    }
    results.add(plan, ROW, &work::throughput(plan, what, pairs, WINDOW, Done::Delivered, &[pid]).await?);
    let hears = Hears { acknowledgements: true, deliveries: true };
    results.add(plan, ROW, &work::deliveries(plan, what, pair(&tls, at, 0).await?, hears, &[pid]).await?);
    let link = pair(&tls, at, 0).await?;
    results.add(plan, ROW, &work::acknowledgements(plan, what, link, &[pid]).await?);
    if plan.round == 1 {
        let link = pair(&tls, at, 0).await?;
        results.fsync(ROW, syncs::count(link, Done::Acknowledged, &[pid], dir.path()).await?);
    }
    let open = |number| connect(&tls, at, format!("idle-{number}"));
    results.add(plan, ROW, &work::connections(plan, what, open, pid).await?);
    results.add(plan, ROW, &work::idle(what, open, pid).await?);
    stop(vec![server]).await;
    Ok(())
}

async fn start(dir: &Path, tls: &Tls) -> Result<(Server, SocketAddr)> {
    let [port] = free_ports()?;
    let config = dir.join("mosquitto.conf");
    // As a package is configured, with TLS. Without `set_tcp_nodelay` the times would be those of Nagle's algorithm.
    std::fs::write(
        &config,
        format!(
            "listener {port} 127.0.0.1\ncertfile {}\nkeyfile {}\nallow_anonymous true\nset_tcp_nodelay true\n\
             persistence true\npersistence_location {}/\nlog_dest stderr\nlog_type error\nuser {}\n",
            tls.certificate.display(),
            tls.key.display(),
            dir.display(),
            // Started by root it would become another user, who may not read here.
            output("id", &["-un"])?.trim(),
        ),
    )?;
    let args = ["-c".to_owned(), config.display().to_string()];
    let mut server = Server::start("mosquitto", PROGRAM, &args, &[], dir)?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    server.listens(at).await?;
    Ok((server, at))
}

type Client = Wire<Stream, Mqtt>;

async fn connect(tls: &Tls, at: SocketAddr, name: String) -> Result<Client> {
    let mut wire = Wire::new(tls.connect(at).await?, Mqtt { topic: String::new(), next: 0, sent: VecDeque::new() });
    let mut body = b"\0\x04MQTT\x04\x02\0\0".to_vec();
    put_text(&mut body, &name);
    let mut request = Vec::new();
    put_packet(&mut request, CONNECT, &body);
    wire.ask(&request, |input| answer(input, CONNACK)).await.context("connecting to mosquitto")?;
    Ok(wire)
}

async fn pair(tls: &Tls, at: SocketAddr, number: usize) -> Result<Pair<Client, Client>> {
    let topic = format!("load/{number}");
    let sender = connect(tls, at, format!("sender-{number}")).await?.with(Mqtt {
        topic: topic.clone(),
        next: 0,
        sent: VecDeque::new(),
    });
    let mut receiver = connect(tls, at, format!("receiver-{number}")).await?;
    let mut body = 1_u16.to_be_bytes().to_vec();
    put_text(&mut body, &topic);
    body.push(1);
    let mut request = Vec::new();
    put_packet(&mut request, SUBSCRIBE, &body);
    receiver.ask(&request, |input| answer(input, SUBACK)).await.context("subscribing")?;
    Ok(Pair { sender, receiver })
}

const CONNECT: u8 = 0x10;
const CONNACK: u8 = 0x20;
const PUBLISH: u8 = 0x30;
const PUBACK: u8 = 0x40;
const SUBSCRIBE: u8 = 0x82;
const SUBACK: u8 = 0x90;
/// Of a publication: delivered at least once.
const QOS_1: u8 = 0x02;

fn put_text(out: &mut Vec<u8>, text: &str) {
    out.put_u16(u16::try_from(text.len()).unwrap_or(u16::MAX));
    out.extend_from_slice(text.as_bytes());
}

fn put_packet(out: &mut Vec<u8>, first: u8, body: &[u8]) {
    out.push(first);
    put_length(out, body.len());
    out.extend_from_slice(body);
}

fn put_length(out: &mut Vec<u8>, mut length: usize) {
    loop {
        let byte = u8::try_from(length % 128).unwrap_or(0);
        length /= 128;
        out.push(if length > 0 { byte | 0x80 } else { byte });
        if length == 0 {
            return;
        }
    }
}

/// Takes a packet, if it is there whole: its first byte and its body.
fn packet(input: &mut BytesMut) -> Result<Option<(u8, BytesMut)>> {
    let (mut length, mut shift, mut place) = (0_usize, 0, 1);
    loop {
        let Some(byte) = input.get(place) else { return Ok(None) };
        length |= usize::from(byte & 0x7f) << shift;
        place += 1;
        if byte & 0x80 == 0 {
            break;
        }
        shift += 7;
        if shift > 21 {
            bail!("a packet's length is too long");
        }
    }
    if input.len() < place + length {
        return Ok(None);
    }
    let first = input[0];
    input.advance(place);
    Ok(Some((first, input.split_to(length))))
}

/// The answer of that kind, whose last byte says whether it was taken.
fn answer(input: &mut BytesMut, kind: u8) -> Result<Option<()>> {
    let Some((first, body)) = packet(input)? else { return Ok(None) };
    match body.last() {
        Some(code) if first == kind && *code < 0x80 && (kind != CONNACK || *code == 0) => Ok(Some(())),
        _ => bail!("mosquitto answered {first:#x} {body:?}"),
    }
}

/// Publications to a topic.
#[derive(Debug)]
struct Mqtt {
    topic: String,
    /// The next packet's identifier, less one.
    next: u16,
    /// Identifiers and numbers that are not acknowledged: they are in the order in which they were sent.
    sent: VecDeque<(u16, u64)>,
}

impl Codec for Mqtt {
    fn encode(&mut self, number: u64, out: &mut Vec<u8>) {
        self.next = self.next % u16::MAX + 1;
        self.sent.push_back((self.next, number));
        out.push(PUBLISH | QOS_1);
        put_length(out, 2 + self.topic.len() + 2 + MESSAGE);
        put_text(out, &self.topic);
        out.put_u16(self.next);
        out.extend_from_slice(&message(number));
    }

    fn decode(&mut self, input: &mut BytesMut, out: &mut Vec<u8>) -> Result<Option<Event>> {
        while let Some((first, mut body)) = packet(input)? {
            match first & 0xf0 {
                PUBACK if body.len() >= 2 => {
                    let identifier = body.get_u16();
                    let (sent, number) = self.sent.pop_front().context("an acknowledgement of nothing")?;
                    if sent != identifier {
                        bail!("mosquitto acknowledges out of order");
                    }
                    return Ok(Some(Event::Acknowledged(number)));
                }
                PUBLISH if body.len() >= 2 => {
                    let topic = usize::from(body.get_u16());
                    if body.len() < topic + 2 {
                        bail!("a publication is cut off");
                    }
                    body.advance(topic);
                    let identifier = body.get_u16();
                    put_packet(out, PUBACK, &identifier.to_be_bytes());
                    return Ok(Some(Event::Delivered(number(&body).context("a message without a number")?)));
                }
                _ => {}
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_publication_is_read_as_it_was_written_and_is_acknowledged() {
        let mut sender = Mqtt { topic: "load/7".to_owned(), next: u16::MAX, sent: VecDeque::new() };
        let mut receiver = Mqtt { topic: String::new(), next: 0, sent: VecDeque::new() };
        let (mut sent, mut answers) = (Vec::new(), Vec::new());
        sender.encode(5, &mut sent);
        let mut input = BytesMut::new();
        for byte in &sent[..sent.len() - 1] {
            input.put_u8(*byte);
            assert_eq!(receiver.decode(&mut input, &mut answers).unwrap(), None);
        }
        input.put_u8(sent[sent.len() - 1]);
        assert_eq!(receiver.decode(&mut input, &mut answers).unwrap(), Some(Event::Delivered(5)));
        assert_eq!(answers, [PUBACK, 2, 0, 1], "identifiers begin again with 1");
        let mut input = BytesMut::from(&answers[..]);
        assert_eq!(sender.decode(&mut input, &mut Vec::new()).unwrap(), Some(Event::Acknowledged(5)));
    }

    #[test]
    fn a_refusal_is_an_error() {
        assert!(answer(&mut BytesMut::from(&b"\x20\x02\0\0"[..]), CONNACK).unwrap().is_some());
        assert!(answer(&mut BytesMut::from(&b"\x20\x02\0\x05"[..]), CONNACK).is_err());
        assert!(answer(&mut BytesMut::from(&b"\x90\x03\0\x01\x80"[..]), SUBACK).is_err());
    }
}
