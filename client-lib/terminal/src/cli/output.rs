//! Events as text and as JSON.

use std::fmt::Write as _;
use std::io::{self, Write};

use jiff::tz::TimeZone;
use rove_client::ids::{ConversationId, Seq};
use rove_client::registry::{ContentType, EventKind};
use rove_client::{Client, StoredEvent};
use serde_json::{Value, json};

use super::error::Failure;
use crate::ui::wrap::{clean, clean_line};

/// One JSON object on one line, at once.
///
/// # Errors
/// Nobody reads any more.
pub fn print_json(value: &Value) -> Result<(), Failure> {
    print_line(&json_line(value))
}

/// One line, at once.
///
/// # Errors
/// Nobody reads any more.
pub fn print_line(line: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(Failure::output)
}

/// JSON in which no character could steer a terminal: those of C1 and DEL are escaped too.
fn json_line(value: &Value) -> String {
    let mut out = String::new();
    for character in value.to_string().chars() {
        if matches!(character, '\u{7f}'..='\u{9f}') {
            // Writing to a String cannot fail.
            let _ = write!(out, "\\u{:04x}", u32::from(character));
        } else {
            out.push(character);
        }
    }
    out
}

/// An event for machines. Ids of 64 bits are strings: JSON's numbers are exact to 53 bits only.
pub fn event_json(conversation: ConversationId, author: &str, stored: &StoredEvent) -> Value {
    let event = &stored.event;
    let mut value = json!({
        "type": "event",
        "conversation": conversation.to_string(),
        "seq": stored.seq.0,
        "message_id": event.message_id.to_string(),
        "time_ms": event.time_ms,
        "time": rfc_3339(event.time_ms),
        "kind": event.kind.to_string(),
        "author": event.author.0,
        "handle": author,
        "device": event.device.0,
        "writer": event.writer.to_string(),
        "post_no": event.post_no.0,
        "refers_to": event.refers_to.0,
        "content_type": event.content_type.to_string(),
    });
    match (event.content_type, stored.text()) {
        (ContentType::Text, Some(text)) => value["text"] = json!(text),
        (ContentType::None, _) => {}
        _ => value["body_hex"] = json!(hex(&event.body)),
    }
    value
}

/// Seqs that will never be sent, for machines.
pub fn unavailable_json(conversation: ConversationId, from: Seq, to: Seq) -> Value {
    json!({ "type": "unavailable", "conversation": conversation.to_string(), "from": from.0, "to": to.0 })
}

/// An event for people.
pub fn event_text(author: &str, stored: &StoredEvent, zone: &TimeZone) -> String {
    let event = &stored.event;
    let time = local(event.time_ms, zone);
    let author = clean_line(author);
    match (event.kind, event.content_type, stored.text()) {
        (EventKind::Message, ContentType::Text, Some(text)) => {
            // Further lines are set in, so that none can pass for a message of somebody else.
            let text = clean(text).replace('\n', "\n    ");
            format!("{time} {author}: {text}")
        }
        (kind, ContentType::Text, Some(text)) => {
            format!("{time} * {author} {} {}: {}", deed(kind), event.refers_to, clean_line(text))
        }
        (kind, ..) => format!("{time} * {author} {}", deed(kind)),
    }
}

/// What an event does, in words.
fn deed(kind: EventKind) -> String {
    match kind {
        EventKind::Edit => "edited",
        EventKind::Deletion => "took a message back",
        EventKind::Reaction => "reacted to",
        EventKind::Created => "made this conversation",
        EventKind::MembersChanged => "changed the members",
        EventKind::SettingsChanged => "changed the title",
        other => return format!("did something this version does not know ({other})"),
    }
    .to_owned()
}

/// Two digits a byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a String cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn timestamp(ms: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

fn rfc_3339(ms: u64) -> String {
    timestamp(ms).map(|time| time.to_string()).unwrap_or_default()
}

/// Date and time in a zone.
pub fn local(ms: u64, zone: &TimeZone) -> String {
    timestamp(ms).map_or_else(
        || "(no known time)".to_owned(),
        |time| time.to_zoned_datetime(zone.clone()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
    )
}

/// What to call the author of an event: the handle, or the account's number if the server cannot be asked.
pub async fn author(client: &Client, stored: &StoredEvent) -> String {
    let account = stored.event.author;
    if account == client.account() {
        return client.handle().to_owned();
    }
    match tokio::time::timeout(super::target::PATIENCE, client.account_info(account)).await {
        Ok(Ok(info)) => info.handle,
        _ => format!("#{account}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use rove_client::Event;
    use rove_client::ids::{AccountId, DeviceId, MessageId, PostNo, WriterId};
    use rove_protocol::extension::Extensions;
    use rove_protocol::wire::List;

    fn stored(text: &str) -> StoredEvent {
        let event = Event {
            seq: Seq(3),
            message_id: MessageId(9_007_199_254_740_993),
            time_ms: 1_795_510_800_123,
            kind: EventKind::Message,
            author: AccountId(7),
            device: DeviceId(8),
            writer: WriterId([1; 16]),
            post_no: PostNo(2),
            refers_to: Seq(0),
            content_type: ContentType::Text,
            crypto_epoch: 0,
            mentions: List::default(),
            body: text.as_bytes().to_vec().into(),
            extensions: Extensions::default(),
        };
        StoredEvent { seq: event.seq, encoded: Bytes::default(), event }
    }

    #[test]
    fn an_event_is_one_line_of_json_and_reads_back() {
        let line = json_line(&event_json(ConversationId([2; 16]), "bob", &stored("a\n\u{9b}31m \"x\"")));
        assert!(!line.contains(['\n', '\u{9b}']));
        let value: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(value["text"], "a\n\u{9b}31m \"x\"");
        assert_eq!(value["message_id"], "9007199254740993");
        assert_eq!(value["time"], "2026-11-24T09:00:00.123Z");
        assert_eq!((value["seq"].as_u64(), value["kind"].as_str()), (Some(3), Some("Message")));
    }

    #[test]
    fn no_words_can_pass_for_a_line_of_somebody_else() {
        let text = event_text("bob", &stored("yes\n2026-11-24 09:00:00 alice: I agree\u{1b}[2J"), &TimeZone::UTC);
        assert_eq!(text, "2026-11-24 09:00:00 bob: yes\n    2026-11-24 09:00:00 alice: I agree\u{fffd}[2J");
    }
}
