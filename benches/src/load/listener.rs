//! A member that listens to one conversation.

use std::time::Instant;

use rove_protocol::ids::{PostNo, Seq, WriterId};
use rove_protocol::message::{Body as _, Closed, Event};
use rove_protocol::registry::FrameType;

use super::error::LoadError;
use super::session::Conversation;

/// Reads the posts of a writer from a conversation's stream, until `posts` of them have come; `each` is told the number of each and
/// when it came. What came before, creating the group say, is passed over.
///
/// # Errors
/// Those of the stream, an event that is missing (D3), and a post that is not the next one.
pub async fn hear(
    conversation: &mut Conversation,
    writer: WriterId,
    posts: u64,
    mut each: impl FnMut(PostNo, Instant),
) -> Result<(), LoadError> {
    let (mut heard, mut last) = (0, None);
    let frames = &mut conversation.stream.frames;
    while heard < posts {
        let frame = frames.next().await?.ok_or(LoadError::Ended("the conversation"))?;
        if frame.frame_type == FrameType::Closed {
            return Err(LoadError::Refused { what: "the conversation", code: Closed::decode_body(frame.body)?.code });
        }
        if frame.frame_type != FrameType::Event {
            continue;
        }
        let event = Event::decode_body(frame.body)?;
        if last.is_some_and(|last: Seq| event.seq != last.next()) {
            return Err(LoadError::Server(format!("event {} does not follow the last one", event.seq)));
        }
        last = Some(event.seq);
        if event.writer != writer {
            continue;
        }
        heard += 1;
        if event.post_no.0 != heard {
            return Err(LoadError::Server(format!("post {} out of order", event.post_no)));
        }
        each(event.post_no, Instant::now());
    }
    Ok(())
}
