//! `rove history`.

use std::path::Path;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use rove_client::ids::Seq;
use rove_client::{Client, Conversation, StoredEvent};

use super::args::HistoryArgs;
use super::error::Failure;
use super::output::{author, event_json, event_text, print_json, print_line};
use super::{profile, target};

/// Events fetched at once (`limits::PAGE_EVENTS`).
const PAGE: u32 = 512;

/// Prints past events.
///
/// # Errors
/// See [`Failure`].
pub async fn run(at: Option<&Path>, args: HistoryArgs) -> Result<(), Failure> {
    let zone = TimeZone::system();
    let since = args.since.as_deref().map(|text| parse_date(text, &zone)).transpose()?;
    let client = profile::open(at).await?;
    let id = target::find(&client, &args.target).await?;
    let conversation = client.open_conversation(id).await?;
    in_step(&client, &conversation).await;
    let events = match since {
        Some(since) => first_since(&conversation, since, args.limit).await?,
        None => last_before(&conversation, args.before.map(Seq), args.limit).await?,
    };
    for event in &events {
        let author = author(&client, event).await;
        if args.json {
            print_json(&event_json(id, &author, event))?;
        } else {
            print_line(&event_text(&author, event, &zone))?;
        }
    }
    client.close().await;
    Ok(())
}

/// Waits until the conversation is in step with its head, or says that it is not.
async fn in_step(client: &Client, conversation: &Conversation) {
    let mut updates = conversation.updates();
    let arrived = async {
        client.synced().await?;
        while conversation.cursor() < conversation.head() {
            if updates.changed().await.is_err() {
                break;
            }
        }
        Ok::<(), rove_client::Error>(())
    };
    match tokio::time::timeout(target::PATIENCE, arrived).await {
        Ok(Ok(())) => {}
        _ => eprintln!("rove: {}; this is what is known here", target::why_not(client)),
    }
}

async fn last_before(
    conversation: &Conversation,
    before: Option<Seq>,
    limit: usize,
) -> Result<Vec<StoredEvent>, Failure> {
    let before = before.unwrap_or_else(|| conversation.head().next()).min(conversation.head().next());
    let count = u64::try_from(limit).unwrap_or(u64::MAX);
    let after = Seq(before.0.saturating_sub(1).saturating_sub(count));
    if let Err(error) = hold_from(conversation, after.next()).await {
        eprintln!("rove: older messages: {}", crate::explain::error(&error));
    }
    let mut events = conversation.events_after(after, limit).await?;
    events.retain(|event| event.seq < before);
    Ok(events)
}

async fn first_since(conversation: &Conversation, since_ms: u64, limit: usize) -> Result<Vec<StoredEvent>, Failure> {
    // Backwards until something older is held; then forwards.
    loop {
        let first = conversation.events_after(Seq(0), 1).await?.first().map(|event| (event.seq, event.event.time_ms));
        match first {
            Some((seq, time)) if time >= since_ms && seq > Seq(1) => {
                let held = conversation.fetch_older(seq, PAGE).await;
                if held.as_ref().is_ok_and(|held| *held < seq) {
                    continue;
                }
                if let Err(error) = held {
                    eprintln!("rove: older messages: {}", crate::explain::error(&error));
                }
                break;
            }
            _ => break,
        }
    }
    let mut found: Vec<StoredEvent> = Vec::new();
    let mut after = Seq(0);
    while found.len() < limit {
        let page = conversation.events_after(after, PAGE as usize).await?;
        let Some(last) = page.last() else { break };
        after = last.seq;
        found.extend(page.into_iter().filter(|event| event.event.time_ms >= since_ms));
    }
    found.truncate(limit);
    Ok(found)
}

/// Makes sure that everything from `first` on is held.
///
/// # Errors
/// Why it cannot be fetched.
pub async fn hold_from(conversation: &Conversation, first: Seq) -> Result<(), rove_client::Error> {
    let mut before = conversation.cursor().next();
    while before > first {
        let want = u32::try_from(before.0 - first.0).unwrap_or(u32::MAX).min(PAGE);
        let held = conversation.fetch_older(before, want).await?;
        if held >= before {
            // The beginning, as far as this account may see it.
            break;
        }
        before = held;
    }
    Ok(())
}

/// A date or a time: with an offset, or in the user's zone.
fn parse_date(text: &str, zone: &TimeZone) -> Result<u64, Failure> {
    let at = text.parse::<jiff::Timestamp>().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned_datetime(zone.clone()).ok()?.timestamp())
    });
    let wrong = || {
        Failure::usage(format!("{text:?} is no date: write 2026-11-24, 2026-11-24T12:30 or 2026-11-24T12:30:00+01:00"))
    };
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok()).ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_of_the_users_zone_unless_they_say_otherwise() {
        let zone = TimeZone::fixed(jiff::tz::offset(1));
        let midnight = 1_795_478_400_000 - 3_600_000;
        assert_eq!(parse_date("2026-11-24", &zone).unwrap(), midnight);
        assert_eq!(parse_date("2026-11-24T09:30", &zone).unwrap(), midnight + 9 * 3_600_000 + 1_800_000);
        assert_eq!(parse_date("2026-11-24T00:00:00Z", &zone).unwrap(), midnight + 3_600_000);
        assert_eq!(parse_date("yesterday", &zone).unwrap_err().exit_code(), 2);
    }
}
