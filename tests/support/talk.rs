//! What people do in a conversation, and what they hold of it afterwards.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use rove_client::ids::Seq;
use rove_client::{Conversation, Outcome};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::within_patience;

/// Events of a conversation in any test: more would be another kind of test.
const EVENTS: usize = 100_000;

/// Posts and waits for the acknowledgement.
///
/// # Panics
/// If the post is refused.
pub async fn say(conversation: &Conversation, text: &str) -> Seq {
    let handle = conversation.post(text).await.expect("the outbox has room");
    match within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives") {
        Outcome::Posted { seq, .. } => seq,
        Outcome::Refused(code) => panic!("{text:?} was refused: {code}"),
    }
}

/// Between two posts of one who posts on and on: a load that no machine is too slow for.
const BEAT: Duration = Duration::from_millis(20);

/// People who post on and on, and what they were told.
#[derive(Debug)]
pub struct Posting {
    people: JoinSet<BTreeMap<Seq, String>>,
    conversations: Vec<Conversation>,
    acknowledged: watch::Sender<u64>,
    stop: watch::Sender<bool>,
}

impl Posting {
    /// Has one post in each of `conversations`, which are one seen by several, with so many posts unanswered at most.
    pub fn start(conversations: &[&Conversation], in_flight: usize) -> Self {
        let (acknowledged, stop) = (watch::Sender::new(0), watch::Sender::new(false));
        let mut people = JoinSet::new();
        for (person, conversation) in conversations.iter().enumerate() {
            let (conversation, acknowledged) = ((*conversation).clone(), acknowledged.clone());
            people.spawn(post_on(conversation, format!("person {person}"), in_flight, acknowledged, stop.subscribe()));
        }
        let conversations = conversations.iter().map(|one| (*one).clone()).collect();
        Self { people, conversations, acknowledged, stop }
    }

    /// Waits until `posts` more are acknowledged.
    ///
    /// # Panics
    /// If that never happens.
    pub async fn progress(&self, posts: u64) {
        let mut acknowledged = self.acknowledged.subscribe();
        let enough = *acknowledged.borrow_and_update() + posts;
        let reached = acknowledged.wait_for(|count| *count >= enough);
        within_patience("progress of those who post", reached).await.expect("they post");
    }

    /// Has them stop, and looks whether everybody holds exactly what was acknowledged, each one's posts in their order. Returns how
    /// many there are.
    ///
    /// # Panics
    /// If a post failed, or was lost, or is there twice.
    pub async fn everything_is_there(mut self) -> usize {
        self.stop.send_replace(true);
        let mut told = BTreeMap::new();
        while let Some(person) = within_patience("the last posts", self.people.join_next()).await {
            let person = person.expect("nobody was refused");
            let said: Vec<usize> =
                person.values().filter_map(|text| text.split(' ').next_back()?.parse().ok()).collect();
            assert_eq!(said, (0..person.len()).collect::<Vec<_>>(), "first in, first out");
            for (seq, text) in person {
                assert_eq!(told.insert(seq, text), None, "{seq} was given twice");
            }
        }
        let last = *told.keys().next_back().expect("there are posts");
        let told: Vec<_> = told.into_values().collect();
        for conversation in &self.conversations {
            holds(conversation, last).await;
            assert_eq!(texts(conversation).await, told, "the log is exactly what was acknowledged");
        }
        told.len()
    }
}

/// Posts `name 0`, `name 1` and so on, and returns which seq was told for each.
async fn post_on(
    conversation: Conversation,
    name: String,
    in_flight: usize,
    acknowledged: watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
) -> BTreeMap<Seq, String> {
    let (mut told, mut number) = (BTreeMap::new(), 0);
    let mut waiting = VecDeque::new();
    let mut beat = tokio::time::interval(BEAT);
    beat.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        let stopping = *stop.borrow_and_update();
        if !stopping && waiting.len() < in_flight {
            beat.tick().await;
            let text = format!("{name} {number}");
            let handle = conversation.post(&text).await.expect("the outbox has room");
            number += 1;
            waiting.push_back((text, handle));
            continue;
        }
        let Some((text, handle)) = waiting.pop_front() else { return told };
        let outcome = within_patience("the acknowledgement", handle.outcome()).await.expect("the client lives");
        let Outcome::Posted { seq, .. } = outcome else { panic!("{text:?}: {outcome:?}") };
        assert_eq!(told.insert(seq, text), None, "one seq, one post");
        acknowledged.send_modify(|count| *count += 1);
    }
}

/// Waits until `conversation` holds everything up to `seq`.
///
/// # Panics
/// If it never does.
pub async fn holds(conversation: &Conversation, seq: Seq) {
    let mut updates = conversation.updates();
    within_patience(&format!("holding {seq}"), async {
        while conversation.cursor() < seq {
            updates.changed().await.expect("the client lives");
        }
    })
    .await;
}

/// The texts of the messages in the store, in the order of the log.
///
/// # Panics
/// If the seqs are not dense.
pub async fn texts(conversation: &Conversation) -> Vec<String> {
    let events = conversation.events_after(Seq(0), EVENTS).await.expect("the store reads");
    for (event, seq) in events.iter().zip(1..) {
        assert_eq!(event.seq, Seq(seq), "seqs are dense");
    }
    let posts = events.iter().filter(|event| event.event.post_no.0 > 0);
    posts.map(|event| event.text().expect("UTF-8").to_owned()).collect()
}
