//! `rove send`.

use std::io::Read as _;
use std::path::Path;
use std::time::Duration;

use rove_client::Outcome;
use serde_json::json;

use super::args::SendArgs;
use super::error::Failure;
use super::output::{print_json, print_line};
use super::{profile, target};

/// Posts one message and waits for its outcome.
///
/// # Errors
/// See [`Failure`].
pub async fn run(at: Option<&Path>, args: SendArgs) -> Result<(), Failure> {
    let text = text(&args.text)?;
    let client = profile::open(at).await?;
    let id = target::find(&client, &args.target).await?;
    let conversation = client.open_conversation(id).await?;
    let post = conversation.post(&text).await?;
    let outcome = tokio::time::timeout(Duration::from_secs(args.timeout), post.outcome()).await;
    let Ok(outcome) = outcome else {
        let why = target::why_not(&client);
        client.close().await;
        return Err(Failure::unreachable(format!(
            "no acknowledgement after {} s ({why}). The message is queued in this profile and is sent when rove runs again",
            args.timeout
        )));
    };
    let posted = match outcome? {
        Outcome::Posted { seq, message_id, time_ms } => {
            if args.json {
                print_json(&json!({
                    "conversation": id.to_string(),
                    "seq": seq.0,
                    "message_id": message_id.to_string(),
                    "time_ms": time_ms,
                }))
            } else {
                print_line(&format!("seq {seq}, message id {message_id}"))
            }
        }
        Outcome::Refused(code) => Err(Failure::refused(code)),
    };
    client.close().await;
    posted
}

/// The words, or standard input to its end without the last line feed.
fn text(words: &[String]) -> Result<String, Failure> {
    let text = if words == ["-"] {
        let mut bytes = Vec::new();
        // One byte more than is allowed is enough to say that it is too long.
        let most = u64::try_from(rove_protocol::limits::BODY).unwrap_or(u64::MAX) + 2;
        std::io::stdin()
            .lock()
            .take(most)
            .read_to_end(&mut bytes)
            .map_err(|error| Failure::failed(format!("standard input: {error}")))?;
        let text = String::from_utf8(bytes).map_err(|_| Failure::usage("standard input is not UTF-8 text"))?;
        text.strip_suffix('\n').unwrap_or(&text).to_owned()
    } else {
        words.join(" ")
    };
    if text.trim().is_empty() {
        return Err(Failure::usage("there is nothing to say"));
    }
    Ok(text)
}
