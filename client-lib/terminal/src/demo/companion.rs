//! The user chats as Alice; Bob answers.

use std::time::Duration;

use rove_client::ids::{AccountId, ConversationId, Seq};
use rove_client::{Client, Conversation};
use tokio_util::sync::CancellationToken;

use super::DemoError;

/// How long Bob seems to type: long enough to be seen, short enough not to be waited for.
const TYPING: Duration = Duration::from_millis(1_200);

/// What Bob says, in turn. He is no conversationalist.
const ANSWERS: &[&str] = &[
    "Hi! This is a real node: your message was fsynced before its ✓ appeared.",
    "Two ticks mean that I have it, and when they change colour I have read it.",
    "Every message has a place in the log: 1, 2, 3, … Nothing is ever missing in between.",
    "If your network changed now, we would both not notice.",
    "Try a second terminal: `rove tail` prints a conversation as JSON.",
    "That is all I can say, but I go on listening. Ctrl-C ends the demo and cleans up.",
];

/// Runs the terminal chat as `alice` in conversation `id` until the user leaves it.
pub(super) async fn chat(alice: &Client, bob: &Client, id: ConversationId) -> Result<bool, DemoError> {
    let at_bob = bob.open_conversation(id).await?;
    let over = CancellationToken::new();
    let (shown, answered) = tokio::join!(
        async {
            let shown = crate::ui::run(alice.clone(), Some(id)).await;
            over.cancel();
            shown
        },
        answer(&at_bob, bob.account(), &over),
    );
    answered?;
    shown.map_err(|error| DemoError::Chat(error.to_string()))?;
    Ok(true)
}

/// Reads what comes, and answers each message of somebody else.
async fn answer(conversation: &Conversation, own: AccountId, over: &CancellationToken) -> Result<(), DemoError> {
    let mut updates = conversation.updates();
    let mut seen = Seq(0);
    let mut answers = ANSWERS.iter().chain(ANSWERS.last().into_iter().cycle());
    while !over.is_cancelled() {
        for event in conversation.events_after(seen, usize::MAX).await? {
            seen = event.seq;
            conversation.mark_read(seen).await?;
            if event.event.author == own || event.event.post_no.0 == 0 {
                continue;
            }
            conversation.set_typing(true);
            tokio::select! {
                () = tokio::time::sleep(TYPING) => {}
                () = over.cancelled() => return Ok(()),
            }
            conversation.set_typing(false);
            if let Some(text) = answers.next() {
                conversation.post(text).await?;
            }
        }
        tokio::select! {
            changed = updates.changed() => if changed.is_err() { return Ok(()) },
            () = over.cancelled() => {}
        }
    }
    Ok(())
}
