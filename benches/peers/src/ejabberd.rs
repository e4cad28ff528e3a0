//! ejabberd: an XMPP server. Pairs of accounts, one sends messages over TLS, the other receives them; without an archive, and with
//! each message kept in one (XEP-0313), in Mnesia or in SQLite.
//!
//! Stanzas are found by their tags, not parsed: these are ours, and the server's are in one form. <https://www.rfc-editor.org/rfc/rfc6120>

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::BytesMut;

use crate::link::{Codec, Event, Pair, Wire, message, number};
use crate::process::{LOOK_EVERY, START_TIMEOUT, Server, free_ports, output, stop};
use crate::results::{Results, Row};
use crate::syncs;
use crate::tls::{Stream, Tls};
use crate::work::{self, Done, Hears, Plan};

const WITHOUT: Row = Row { id: "ejabberd", name: "ejabberd, no archive, TLS" };
const MNESIA: Row = Row { id: "ejabberd-mnesia", name: "ejabberd, archive in Mnesia, TLS" };
const SQLITE: Row = Row { id: "ejabberd-sqlite", name: "ejabberd, archive in SQLite, TLS" };

/// Sender and receiver, each with an account and a session.
const PAIRS: usize = 32;
/// Undelivered messages of a pair.
const WINDOW: usize = 16;
/// With an archive in the way of every message, so that what is under way at the end has its turn in time.
const WINDOW_ARCHIVE: usize = 4;
/// Accounts: for the sessions that are idle at the same time, and those before them.
const ACCOUNTS: usize = 540;

const SCRIPT: &str = "/usr/sbin/ejabberdctl";

/// One round.
pub(crate) async fn round(plan: &Plan, results: &mut Results) -> Result<()> {
    results.version("ejabberd", &format!("ejabberd {}", version()?));
    let dir = work::fresh_dir(&plan.dir, "ejabberd")?;
    let tls = Tls::make(dir.path())?;
    for row in [WITHOUT, MNESIA, SQLITE] {
        let dir = work::fresh_dir(&plan.dir, row.id)?;
        let outcome = measure(plan, results, row, dir.path(), &tls).await;
        outcome.with_context(|| row.name)?;
    }
    Ok(())
}

fn version() -> Result<String> {
    let said = output("dpkg-query", &["--show", "--showformat", "${Version}", "ejabberd"])?;
    Ok(said.trim().to_owned())
}

async fn measure(plan: &Plan, results: &mut Results, row: Row, dir: &Path, tls: &Tls) -> Result<()> {
    let (server, at) = start(row, dir, tls).await?;
    let (what, pid) = (row.name, server.pid());
    let archive = row != WITHOUT;
    register(tls, at, if archive { 2 * PAIRS } else { ACCOUNTS }).await?;
    let mut pairs = Vec::new();
    for number in 0..PAIRS {
        pairs.push(pair(tls, at, number).await?);
    }
    let window = if archive { WINDOW_ARCHIVE } else { WINDOW };
    results.add(plan, row, &work::throughput(plan, what, pairs, window, Done::Delivered, &[pid]).await?);
    if plan.round == 1 {
        let link = pair(tls, at, 0).await?;
        results.fsync(row, syncs::count(link, Done::Delivered, &[pid], dir).await?);
    }
    // An archive takes fewer than a thousand a second: what is delivered then is a queue that grows.
    if !archive {
        let hears = Hears { acknowledgements: false, deliveries: true };
        results.add(plan, row, &work::deliveries(plan, what, pair(tls, at, 0).await?, hears, &[pid]).await?);
        let open = |number| session(tls, at, number % ACCOUNTS);
        results.add(plan, row, &work::connections(plan, what, open, pid).await?);
        results.add(plan, row, &work::idle(what, open, pid).await?);
    }
    stop(vec![server]).await;
    Ok(())
}

/// Starts Erlang with it, as its script does, but as a node without a name: no other node, and no `epmd`, is needed or looked for.
async fn start(row: Row, dir: &Path, tls: &Tls) -> Result<(Server, SocketAddr)> {
    let [port] = free_ports()?;
    let at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (config, data) = (dir.join("ejabberd.yml"), dir.join("data"));
    std::fs::create_dir(&data)?;
    let archive = match row {
        MNESIA => "  mod_mam: {default: always, db_type: mnesia}\n".to_owned(),
        SQLITE => "  mod_mam: {default: always, db_type: sql}\n".to_owned(),
        _ => String::new(),
    };
    std::fs::write(
        &config,
        format!(
            "hosts: [localhost]\nloglevel: error\ncertfiles: [\"{}\"]\nauth_method: internal\nauth_password_format: plain\n\
             registration_timeout: infinity\ndefault_db: mnesia\nsql_type: sqlite\nsql_database: \"{}\"\n\
             listen:\n  - {{port: {port}, ip: \"127.0.0.1\", module: ejabberd_c2s, tls: true, max_stanza_size: 262144}}\n\
             modules:\n  mod_register: {{}}\n  mod_roster: {{}}\n{archive}",
            tls.both.display(),
            data.join("archive.sqlite").display(),
        ),
    )?;
    let script = std::fs::read_to_string(SCRIPT).with_context(|| format!("reading {SCRIPT}"))?;
    let libraries =
        script.lines().find_map(|line| line.strip_prefix("ERL_LIBS=")).context("no ERL_LIBS in the script")?;
    let envs = [
        ("ERL_LIBS", libraries.trim_matches(['\'', '"']).to_owned()),
        ("EJABBERD_CONFIG_PATH", config.display().to_string()),
        ("EJABBERD_LOG_PATH", dir.join("server.log").display().to_string()),
        ("ERL_CRASH_DUMP", dir.join("crash.dump").display().to_string()),
        ("HOME", dir.display().to_string()),
    ];
    // A path is a string of Erlang: in quotes. The limits are those of the script.
    let data = format!("\"{}\"", data.display());
    let args = ["-noinput", "+K", "true", "+P", "250000", "-mnesia", "dir", &data, "-s", "ejabberd"].map(str::to_owned);
    let mut server = Server::start("ejabberd", "erl", &args, &envs, dir)?;
    server.listens(at).await?;
    // It listens before it has loaded its certificate.
    let deadline = Instant::now() + START_TIMEOUT;
    while let Err(error) = tls.connect(at).await {
        server.alive()?;
        if Instant::now() > deadline {
            return Err(error);
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    Ok((server, at))
}

type Client = Wire<Stream, Xmpp>;

const OPEN: &str = "<?xml version='1.0'?><stream:stream to='localhost' xmlns='jabber:client' \
                    xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>";
const FEATURES: &str = "</stream:features>";
const PASSWORD: &str = "a long enough password";
/// The name, beside its account's, of a session that others write to. The server names the others: one that follows another of the same
/// account at once must not be in the way of that one's end.
const RESOURCE: &str = "r";

async fn connect(tls: &Tls, at: SocketAddr, codec: Xmpp) -> Result<Client> {
    let mut wire = Wire::new(tls.connect(at).await?, codec);
    wire.ask(OPEN.as_bytes(), until(FEATURES)).await.context("opening a stream")?;
    Ok(wire)
}

/// Makes that many accounts: `u0`, `u1`, ….
async fn register(tls: &Tls, at: SocketAddr, accounts: usize) -> Result<()> {
    let mut wire = connect(tls, at, Xmpp::default()).await?;
    for number in 0..accounts {
        let request = format!(
            "<iq type='set' id='r{number}'><query xmlns='jabber:iq:register'><username>u{number}</username>\
             <password>{PASSWORD}</password></query></iq>"
        );
        wire.ask(request.as_bytes(), until("type='result'")).await.context("making an account")?;
    }
    Ok(())
}

/// Logs in as `uNUMBER`.
async fn session(tls: &Tls, at: SocketAddr, number: usize) -> Result<Client> {
    log_in(tls, at, number, None, Xmpp::default()).await
}

async fn log_in(tls: &Tls, at: SocketAddr, number: usize, resource: Option<&str>, codec: Xmpp) -> Result<Client> {
    let mut wire = connect(tls, at, codec).await?;
    let proof = STANDARD.encode(format!("\0u{number}\0{PASSWORD}"));
    let auth = format!("<auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' mechanism='PLAIN'>{proof}</auth>");
    wire.ask(auth.as_bytes(), until("<success")).await.context("logging in")?;
    wire.ask(OPEN.as_bytes(), until(FEATURES)).await.context("opening a stream once more")?;
    let resource = resource.map(|name| format!("<resource>{name}</resource>")).unwrap_or_default();
    let bind = format!("<iq type='set' id='b'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>{resource}</bind></iq>");
    wire.ask(bind.as_bytes(), until("</iq>")).await.context("binding a resource")?;
    // What is sent to all of the account's sessions comes back to this one as well.
    wire.ask(b"<presence/>", until("<presence")).await.context("being present")?;
    Ok(wire)
}

async fn pair(tls: &Tls, at: SocketAddr, number: usize) -> Result<Pair<Client, Client>> {
    let (sender, receiver) = (2 * number, 2 * number + 1);
    let receiving = log_in(tls, at, receiver, Some(RESOURCE), Xmpp::default()).await?;
    let to = format!("u{receiver}@localhost/{RESOURCE}");
    Ok(Pair { sender: log_in(tls, at, sender, Some(RESOURCE), Xmpp { to }).await?, receiver: receiving })
}

/// Passes over everything up to the end of `word`; a refusal is an error.
fn until(word: &str) -> impl FnMut(&mut BytesMut) -> Result<Option<()>> {
    move |input| {
        if let Some(place) = find(input, word.as_bytes()) {
            let _ = input.split_to(place + word.len());
            return Ok(Some(()));
        }
        if find(input, b"<failure").or(find(input, b"type='error'")).or(find(input, b"<stream:error")).is_some() {
            bail!("ejabberd: {}", String::from_utf8_lossy(input));
        }
        Ok(None)
    }
}

fn find(input: &[u8], word: &[u8]) -> Option<usize> {
    let first = *word.first()?;
    let mut from = 0;
    // Most bytes are not the first one, which is found quickly.
    while let Some(place) = input.get(from..)?.iter().position(|byte| *byte == first) {
        from += place;
        if input[from..].starts_with(word) {
            return Some(from);
        }
        from += 1;
    }
    None
}

/// Chat messages to one session.
#[derive(Debug, Default)]
struct Xmpp {
    to: String,
}

const BODY: &[u8] = b"<body>";
const END: &[u8] = b"</message>";

impl Codec for Xmpp {
    fn encode(&mut self, number: u64, out: &mut Vec<u8>) {
        out.extend_from_slice(format!("<message type='chat' to='{}' id='m{number}'><body>", self.to).as_bytes());
        out.extend_from_slice(&message(number));
        out.extend_from_slice(b"</body></message>");
    }

    fn decode(&mut self, input: &mut BytesMut, _out: &mut Vec<u8>) -> Result<Option<Event>> {
        let Some(end) = find(input, END) else { return Ok(None) };
        let stanza = input.split_to(end + END.len());
        let body = find(&stanza, BODY).context("a message without a body")? + BODY.len();
        let number = number(&stanza[body..]).context("a message without a number")?;
        let refused = find(&stanza[..body], b"type='error'").is_some();
        Ok(Some(if refused { Event::Refused(number) } else { Event::Delivered(number) }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_found_among_other_stanzas_and_in_pieces() {
        let mut said = b"<presence from='a'/>".to_vec();
        Xmpp { to: "u1@localhost/r".to_owned() }.encode(3, &mut said);
        said.extend_from_slice(b"<message type='error' id='m4'><body>");
        said.extend_from_slice(&message(4));
        said.extend_from_slice(b"</body><error/></message>");
        let (mut input, mut events) = (BytesMut::new(), Vec::new());
        for byte in said {
            input.extend_from_slice(&[byte]);
            events.extend(Xmpp::default().decode(&mut input, &mut Vec::new()).unwrap());
        }
        assert_eq!(events, [Event::Delivered(3), Event::Refused(4)]);
        assert!(input.is_empty());
    }

    #[test]
    fn what_is_waited_for_is_found_and_a_refusal_is_an_error() {
        let mut input = BytesMut::from(&b"<iq type='result' id='b'/>rest"[..]);
        assert!(until("id='b'/>")(&mut input).unwrap().is_some());
        assert_eq!(&input[..], b"rest");
        assert!(until("<success")(&mut BytesMut::from(&b"<failure/>"[..])).is_err());
        assert!(until("<success")(&mut BytesMut::from(&b"<succ"[..])).unwrap().is_none());
    }
}
