//! `rove tail`.

use std::path::Path;

use jiff::tz::TimeZone;
use rove_client::Conversation;
use rove_client::ids::Seq;

use super::args::TailArgs;
use super::error::Failure;
use super::output::{author, event_json, event_text, print_json, print_line, unavailable_json};
use super::{history, profile, target};

/// Events read from the store at once.
const PAGE: usize = 256;

/// Prints events as they come, until there were enough, the user interrupts, or nobody reads any more.
///
/// # Errors
/// See [`Failure`].
pub async fn run(at: Option<&Path>, args: TailArgs) -> Result<(), Failure> {
    let client = profile::open(at).await?;
    let id = target::find(&client, &args.target).await?;
    let conversation = client.open_conversation(id).await?;
    let followed = tokio::select! {
        followed = follow(&client, &conversation, &args) => followed,
        interrupted = tokio::signal::ctrl_c() => {
            interrupted.map_err(|error| Failure::failed(format!("waiting for the interrupt: {error}")))
        }
    };
    client.close().await;
    followed
}

async fn follow(client: &rove_client::Client, conversation: &Conversation, args: &TailArgs) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let id = conversation.id();
    let mut updates = conversation.updates();
    let mut cursor = if let Some(after) = args.after {
        let after = Seq(after);
        // What is held may begin later than what was asked for.
        in_step(client, conversation).await?;
        history::hold_from(conversation, after.next()).await?;
        after
    } else {
        in_step(client, conversation).await?;
        conversation.head()
    };
    let mut left = args.count.unwrap_or(u64::MAX);
    while left > 0 {
        updates.borrow_and_update();
        // Read before the events: whatever is missing up to here will never come.
        let whole = conversation.cursor();
        let page = conversation.events_after(cursor, PAGE).await?;
        let full = page.len() == PAGE;
        for event in page {
            // Beyond it there may be holes that are still being filled.
            if event.seq > whole {
                break;
            }
            pass_over(args, id, &mut cursor, Seq(event.seq.0 - 1))?;
            let author = author(client, &event).await;
            if args.json {
                print_json(&event_json(id, &author, &event))?;
            } else {
                print_line(&event_text(&author, &event, &zone))?;
            }
            cursor = event.seq;
            left -= 1;
            if left == 0 {
                return Ok(());
            }
        }
        if full {
            continue;
        }
        pass_over(args, id, &mut cursor, whole)?;
        if updates.changed().await.is_err() {
            return Err(Failure::failed(target::why_not(client)));
        }
    }
    Ok(())
}

/// Tells of seqs that will never come, and goes on after them.
fn pass_over(args: &TailArgs, id: rove_client::ids::ConversationId, cursor: &mut Seq, to: Seq) -> Result<(), Failure> {
    if to <= *cursor {
        return Ok(());
    }
    if args.json {
        print_json(&unavailable_json(id, cursor.next(), to))?;
    } else {
        print_line(&format!("* {} to {to} are not available", cursor.next()))?;
    }
    *cursor = to;
    Ok(())
}

/// Waits, as long as it takes, until the conversation is in step with its head for the first time.
async fn in_step(client: &rove_client::Client, conversation: &Conversation) -> Result<(), Failure> {
    if target::synced(client, target::PATIENCE).await.is_err() {
        eprintln!("rove: {}; waiting", target::why_not(client));
        client.synced().await?;
    }
    let mut updates = conversation.updates();
    while conversation.cursor() < conversation.head() {
        if updates.changed().await.is_err() {
            return Err(Failure::failed(target::why_not(client)));
        }
    }
    Ok(())
}
