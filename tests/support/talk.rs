//! What people do in a conversation, and what they hold of it afterwards.

use rove_client::ids::Seq;
use rove_client::{Conversation, Outcome};

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
