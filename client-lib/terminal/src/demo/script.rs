//! Two people follow a script; one of them moves in the middle.

use std::collections::BTreeMap;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use rove_client::ids::{ConversationId, Seq};
use rove_client::{Client, Conversation, Outcome};
use tokio::task::JoinSet;

use super::DemoError;

/// A loopback round trip takes a millisecond; a loaded machine may take much longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who says what. `None` is the move.
const SCRIPT: &[Option<(Who, &str)>] = &[
    Some((Who::Alice, "Good morning! Are we still on for lunch?")),
    Some((Who::Bob, "Yes. The place by the station, half past twelve?")),
    Some((Who::Alice, "Perfect. I'm leaving the office now.")),
    Some((Who::Bob, "Take an umbrella, it looks like rain.")),
    Some((Who::Alice, "Walking out of the Wi-Fi…")),
    None,
    Some((Who::Alice, "…and on LTE. Did anything get lost?")),
    Some((Who::Bob, "Not a word.")),
    Some((Who::Alice, "Ça marche. 火车站见 🚉")),
    Some((Who::Bob, "See you there!")),
];

/// Posts of the burst that is under way while Alice moves a second time.
const BURST: usize = 100;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Alice,
    Bob,
}

pub(super) struct Person<'a> {
    pub(super) name: &'static str,
    pub(super) client: &'a Client,
    pub(super) conversation: Conversation,
}

/// What one post came to.
pub(super) struct Line {
    pub(super) seq: Seq,
    pub(super) text: String,
    pub(super) acknowledged: Duration,
    pub(super) delivered: Duration,
}

impl Line {
    /// The heading of a table of lines.
    pub(super) fn print_heading() {
        println!("{:>4}  {:5}  {:>9}  {:>9}  text", "seq", "who", "acked", "delivered");
    }

    pub(super) fn print(&self, who: &str) {
        let (acknowledged, delivered) = (millis(self.acknowledged), millis(self.delivered));
        println!("{:>4}  {who:5}  {acknowledged:>6.2} ms  {delivered:>6.2} ms  {}", self.seq, self.text);
    }
}

/// Plays the script and checks what both hold at the end. True only if nothing was lost, doubled or out of order, and
/// neither had to reconnect.
pub(super) async fn play(alice: &Client, bob: &Client, id: ConversationId) -> Result<bool, DemoError> {
    let (at_alice, at_bob) = tokio::try_join!(alice.open_conversation(id), bob.open_conversation(id))?;
    let alice = Person { name: "alice", client: alice, conversation: at_alice };
    let bob = Person { name: "bob", client: bob, conversation: at_bob };
    println!("Two accounts, one conversation ({id}), one node, every post fsynced before it is acknowledged.\n");
    Line::print_heading();

    let mut said: BTreeMap<Seq, String> = BTreeMap::new();
    let mut in_order = true;
    let mut trips = Vec::new();
    for step in SCRIPT {
        let Some((who, text)) = step else {
            move_to_another_socket(&alice)?;
            continue;
        };
        let (from, to) = if *who == Who::Alice { (&alice, &bob) } else { (&bob, &alice) };
        let line = say(from, to, text).await?;
        line.print(from.name);
        trips.push(line.acknowledged);
        in_order &= said.keys().next_back().is_none_or(|last| *last < line.seq);
        in_order &= said.insert(line.seq, line.text).is_none();
    }

    in_order &= burst(&alice, &bob, &mut said, &mut trips).await?;
    let stats = [alice.client.stats(), bob.client.stats()];
    let reconnects: u64 = stats.iter().map(|stats| stats.reconnects).sum();
    let rebinds: u64 = stats.iter().map(|stats| stats.rebinds).sum();
    let moved = (format!("{rebinds} changes of address, {reconnects} reconnects"), rebinds >= 2 && reconnects == 0);
    report([&alice, &bob], &said, in_order, moved, &mut trips).await
}

fn move_to_another_socket(person: &Person<'_>) -> Result<(), DemoError> {
    let socket = UdpSocket::bind("127.0.0.1:0").map_err(|error| DemoError::Io { what: "binding a socket", error })?;
    let port = socket.local_addr().map_or(0, |address| address.port());
    person.client.network_changed(Some(socket))?;
    println!("      ~~~~~  {} moves to another UDP socket: 127.0.0.1:{port}  ~~~~~", person.name);
    Ok(())
}

/// Posts and waits for both the acknowledgement and the arrival at the other one.
pub(super) async fn say(from: &Person<'_>, to: &Person<'_>, text: &str) -> Result<Line, DemoError> {
    let start = Instant::now();
    let post = from.conversation.post(text).await?;
    let seq = acknowledged(post.outcome()).await?;
    let took = start.elapsed();
    holds(&to.conversation, seq).await?;
    Ok(Line { seq, text: text.to_owned(), acknowledged: took, delivered: start.elapsed() })
}

pub(super) async fn acknowledged(
    outcome: impl Future<Output = Result<Outcome, rove_client::Error>>,
) -> Result<Seq, DemoError> {
    match tokio::time::timeout(PATIENCE, outcome).await {
        Ok(Ok(Outcome::Posted { seq, .. })) => Ok(seq),
        Ok(Ok(Outcome::Refused(code))) => Err(DemoError::Server(format!("a post was refused: {code}"))),
        Ok(Err(error)) => Err(error.into()),
        Err(_) => Err(DemoError::Server("a post was not acknowledged in time".to_owned())),
    }
}

/// Waits until everything up to `seq` has arrived.
async fn holds(conversation: &Conversation, seq: Seq) -> Result<(), DemoError> {
    let mut updates = conversation.updates();
    let arrived = async {
        while conversation.cursor() < seq {
            if updates.changed().await.is_err() {
                break;
            }
        }
    };
    tokio::time::timeout(PATIENCE, arrived)
        .await
        .map_err(|_| DemoError::Server(format!("the event at {seq} did not arrive in time")))
}

/// Both post at once, as fast as it goes, and Alice moves while her posts are under way.
async fn burst(
    alice: &Person<'_>,
    bob: &Person<'_>,
    said: &mut BTreeMap<Seq, String>,
    trips: &mut Vec<Duration>,
) -> Result<bool, DemoError> {
    println!("\nNow both post {BURST} messages at once, and alice moves while hers are under way.");
    let mut posts = JoinSet::new();
    for number in 0..BURST {
        if number == BURST / 2 {
            move_to_another_socket(alice)?;
        }
        for person in [alice, bob] {
            let text = format!("{} {number}", person.name);
            let start = Instant::now();
            let post = person.conversation.post(&text).await?;
            let name = person.name;
            posts.spawn(async move { (name, number, text, acknowledged(post.outcome()).await, start.elapsed()) });
        }
    }
    let mut seqs: BTreeMap<(&str, usize), Seq> = BTreeMap::new();
    let mut once = true;
    while let Some(done) = posts.join_next().await {
        let Ok((name, number, text, seq, took)) = done else { return Ok(false) };
        let seq = seq?;
        trips.push(took);
        once &= said.insert(seq, text).is_none();
        seqs.insert((name, number), seq);
    }
    // First in, first out: the seqs of one person rise with the numbers.
    let fifo = ["alice", "bob"].iter().all(|person| {
        let of_person: Vec<_> = seqs.iter().filter(|((name, _), _)| name == person).map(|(_, seq)| *seq).collect();
        of_person.windows(2).all(|pair| pair[0] < pair[1])
    });
    Ok(once && fifo)
}

/// Compares what both hold with what was acknowledged, and prints it.
pub(super) async fn report(
    [alice, bob]: [&Person<'_>; 2],
    said: &BTreeMap<Seq, String>,
    in_order: bool,
    moved: (String, bool),
    trips: &mut [Duration],
) -> Result<bool, DemoError> {
    let last = said.keys().next_back().copied().unwrap_or_default();
    holds(&alice.conversation, last).await?;
    holds(&bob.conversation, last).await?;
    let (of_alice, of_bob) = (read(&alice.conversation).await?, read(&bob.conversation).await?);
    trips.sort_unstable();
    let at = |share: usize| trips.get(trips.len() * share / 100).copied().map_or(0.0, millis);

    println!();
    let checks = [
        (format!("{} posts acknowledged, each at a seq of its own, in order", said.len()), in_order),
        ("alice holds exactly these, dense from 1".to_owned(), of_alice.as_ref() == Some(said)),
        ("bob holds exactly these, dense from 1".to_owned(), of_bob.as_ref() == Some(said)),
        moved,
    ];
    for (what, held) in &checks {
        println!("{}  {what}", if *held { "ok    " } else { "FAILED" });
    }
    println!("post → acknowledgement: p50 {:.2} ms, p99 {:.2} ms over {} posts", at(50), at(99), trips.len());
    Ok(checks.iter().all(|(_, held)| *held))
}

/// The messages a person holds, by seq; `None` if a seq is missing.
async fn read(conversation: &Conversation) -> Result<Option<BTreeMap<Seq, String>>, DemoError> {
    let events = conversation.events_after(Seq(0), usize::MAX).await?;
    let dense = events.iter().zip(1..).all(|(event, expected)| event.seq == Seq(expected));
    let posts = events.iter().filter(|event| event.event.post_no.0 > 0);
    let texts = posts.map(|event| (event.seq, event.text().unwrap_or_default().to_owned())).collect();
    Ok(dense.then_some(texts))
}

pub(super) fn millis(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1_000.0
}
