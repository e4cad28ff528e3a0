//! `rove list`, `rove new-group`.

use std::path::Path;
use std::time::Duration;

use jiff::tz::TimeZone;
use rove_client::registry::ConversationKind;
use rove_client::{Client, ConversationSummary, TimelineItem};
use serde_json::json;

use super::args::{ListArgs, NewGroupArgs};
use super::error::Failure;
use super::output::{local, print_json, print_line};
use super::{profile, target};
use crate::ui::wrap::{clean_line, cut, pad};

/// How long the server may take to name one account; without a name its number is shown.
const NAMING: Duration = Duration::from_secs(2);
/// Columns of a title.
const TITLE: usize = 28;
/// Columns of the last message: with the rest it makes some hundred.
const LAST: usize = 44;

/// Lists the conversations.
///
/// # Errors
/// See [`Failure`].
pub async fn run(at: Option<&Path>, args: &ListArgs) -> Result<(), Failure> {
    let client = profile::open(at).await?;
    if let Err(failure) = target::synced(&client, Duration::from_secs(args.wait)).await {
        eprintln!("rove: {failure}; this is what is known here");
    }
    for mut summary in client.conversations()?.list() {
        name_peer(&client, &mut summary).await;
        if args.json {
            print_json(&to_json(&summary))?;
        } else {
            print_line(&to_text(&summary, &TimeZone::system()))?;
        }
    }
    client.close().await;
    Ok(())
}

/// The other's handle, if the list was quicker than the server's answer to who that is.
async fn name_peer(client: &Client, summary: &mut ConversationSummary) {
    if let Some(peer) = summary.peer.as_mut().filter(|peer| peer.handle.is_empty())
        && let Ok(Ok(info)) = tokio::time::timeout(NAMING, client.account_info(peer.account)).await
    {
        *peer = info;
    }
}

fn to_json(summary: &ConversationSummary) -> serde_json::Value {
    json!({
        "conversation": summary.id.to_string(),
        "kind": summary.kind.to_string(),
        "title": summary.title,
        "role": summary.role.to_string(),
        "peer": summary.peer.as_ref().map(|peer| json!({ "account": peer.account.0, "handle": peer.handle })),
        "head": summary.head.0,
        "read": summary.read.0,
        "unread": summary.unread,
        "queued": summary.queued,
        "last": summary.last.as_ref().map(|last| json!({
            "seq": last.seq.map(|seq| seq.0),
            "time_ms": last.time_ms,
            "author": last.author.0,
            "text": last.text(),
        })),
    })
}

fn to_text(summary: &ConversationSummary, zone: &TimeZone) -> String {
    let name = match &summary.peer {
        Some(peer) if !peer.handle.is_empty() => peer.handle.clone(),
        Some(peer) => format!("account {}", peer.account),
        None => format!("#{}", summary.title),
    };
    let unread = if summary.unread > 0 { format!("{} unread", summary.unread) } else { String::new() };
    let last = summary.last.as_ref().and_then(TimelineItem::text).map(clean_line).unwrap_or_default();
    let when = summary.last.as_ref().map(|last| local(last.time_ms, zone)).unwrap_or_default();
    let kind = if summary.kind == ConversationKind::Direct { "direct" } else { "group" };
    let line = format!(
        "{}  {}  {}  {:>11}  {}  {}",
        summary.id,
        pad(kind, 6),
        pad(&cut(&clean_line(&name), TITLE, "…"), TITLE),
        unread,
        pad(&when, 19),
        cut(&last, LAST, "…"),
    );
    line.trim_end().to_owned()
}

/// Makes a group.
///
/// # Errors
/// See [`Failure`].
pub async fn new_group(at: Option<&Path>, args: &NewGroupArgs) -> Result<(), Failure> {
    let client = profile::open(at).await?;
    let handles: Vec<String> = args.handles.iter().map(|handle| handle.trim_start_matches('@').to_owned()).collect();
    let id = crate::group::create(&client, &args.title, &handles).await?;
    if args.json {
        print_json(&json!({ "conversation": id.to_string() }))?;
    } else {
        print_line(&id.to_string())?;
    }
    client.close().await;
    Ok(())
}
