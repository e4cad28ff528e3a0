//! Two people on two nodes of a cluster go on talking while something happens to the nodes.

use std::collections::BTreeMap;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rove_client::ids::Seq;
use rove_client::{Client, ConnectionState, Options, ServerAddress, StoreLocation};
use tokio::process::Command;

use super::script::{Line, Person, acknowledged, millis, report, say};
use super::{DemoError, PASSWORD};

/// Both say something this often: a silence of a few tens of milliseconds shows, and a log on a slow disk keeps up.
const PACE: Duration = Duration::from_millis(20);
/// How long they talk before and after the command.
const AROUND: Duration = Duration::from_secs(1);
/// How long the command may take: a node is killed, started, and catches up.
const COMMAND: Duration = Duration::from_secs(60);

/// What is said before anything happens.
const GREETINGS: [&str; 4] =
    ["Hello from the first node!", "And hello from the second.", "Shall we see what happens?", "Go ahead."];

/// Plays it. True only if nothing was lost, doubled or out of order.
pub(super) async fn play(
    first: &ServerAddress,
    second: &ServerAddress,
    meanwhile: Option<&str>,
) -> Result<bool, DemoError> {
    let (alice, bob) = tokio::try_join!(sign_up(first, "alice"), sign_up(second, "bob"))?;
    let id = alice.create_direct("bob").await?;
    let (at_alice, at_bob) = tokio::try_join!(alice.open_conversation(id), bob.open_conversation(id))?;
    let people = [
        Person { name: "alice", client: &alice, conversation: at_alice },
        Person { name: "bob", client: &bob, conversation: at_bob },
    ];
    println!("Two accounts, one conversation ({id}): alice at {}, bob at {}.\n", where_is(&alice), where_is(&bob));
    let mut said: BTreeMap<Seq, String> = BTreeMap::new();
    let mut trips = Vec::new();
    Line::print_heading();
    for (text, index) in GREETINGS.iter().zip([0, 1].into_iter().cycle()) {
        let line = say(&people[index], &people[1 - index], text).await?;
        line.print(people[index].name);
        trips.push(line.acknowledged);
        said.insert(line.seq, line.text);
    }
    println!("\nBoth post every {} ms, and meanwhile: {}", PACE.as_millis(), meanwhile.unwrap_or("nothing"));
    let (talk_stop, stopped) = tokio::sync::watch::channel(false);
    let talk = async {
        let (of_alice, of_bob) =
            tokio::try_join!(talk(&people[0], stopped.clone()), talk(&people[1], stopped.clone()))?;
        Ok::<_, DemoError>([of_alice, of_bob])
    };
    let happen = async {
        tokio::time::sleep(AROUND).await;
        let done = happen(meanwhile).await;
        tokio::time::sleep(AROUND).await;
        talk_stop.send_replace(true);
        done
    };
    let (talked, happened) = tokio::join!(talk, happen);
    happened?;
    let mut in_order = true;
    let mut silences = Vec::new();
    for (person, mut talked) in people.iter().zip(talked?) {
        silences.push(format!("{} {:.0} ms", person.name, millis(talked.silence)));
        in_order &= talked.lines.windows(2).all(|pair| pair[0].0 < pair[1].0);
        trips.append(&mut talked.trips);
        for (seq, text) in talked.lines {
            in_order &= said.insert(seq, text).is_none();
        }
    }
    println!("\nlongest wait for an acknowledgement: {}", silences.join(", "));
    let reconnects = [&alice, &bob].map(|client| client.stats().reconnects);
    let moved = format!("alice is at {}, bob at {}; reconnects: {reconnects:?}", where_is(&alice), where_is(&bob));
    let held = report([&people[0], &people[1]], &said, in_order, (moved, true), &mut trips).await?;
    drop(people);
    alice.close().await;
    bob.close().await;
    Ok(held)
}

async fn sign_up(server: &ServerAddress, handle: &str) -> Result<Client, DemoError> {
    let options = Options { name: "rove demo".to_owned(), ..Options::new(StoreLocation::Memory) };
    let client = Client::sign_up(server, handle, PASSWORD, options).await?;
    client.connected().await?;
    Ok(client)
}

fn where_is(client: &Client) -> String {
    match &*client.state().borrow() {
        ConnectionState::Connected { node, .. } => format!("node {node}"),
        _ => "no node".to_owned(),
    }
}

/// What one person's talking came to.
#[derive(Default)]
struct Talked {
    lines: Vec<(Seq, String)>,
    trips: Vec<Duration>,
    silence: Duration,
}

/// Posts until told to stop, each when the one before is acknowledged.
async fn talk(person: &Person<'_>, mut stop: tokio::sync::watch::Receiver<bool>) -> Result<Talked, DemoError> {
    let mut talked = Talked::default();
    let mut pace = tokio::time::interval(PACE);
    while !*stop.borrow_and_update() {
        pace.tick().await;
        let text = format!("{} {}", person.name, talked.lines.len());
        let start = Instant::now();
        let seq = acknowledged(person.conversation.post(&text).await?.outcome()).await?;
        let took = start.elapsed();
        talked.silence = talked.silence.max(took);
        talked.trips.push(took);
        talked.lines.push((seq, text));
    }
    Ok(talked)
}

async fn happen(command: Option<&str>) -> Result<(), DemoError> {
    let Some(command) = command else { return Ok(()) };
    let io = |error| DemoError::Io { what: "running the command", error };
    let mut child =
        Command::new("sh").args(["-c", command]).stdin(Stdio::null()).kill_on_drop(true).spawn().map_err(io)?;
    match tokio::time::timeout(COMMAND, child.wait()).await {
        Ok(status) => {
            let status = status.map_err(io)?;
            if status.success() { Ok(()) } else { Err(DemoError::Server(format!("the command failed: {status}"))) }
        }
        Err(_) => Err(DemoError::Server("the command took too long".to_owned())),
    }
}
