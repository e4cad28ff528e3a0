//! A member that listens to one conversation.

use std::time::Instant;

use rove_protocol::frame::RawFrame;
use rove_protocol::ids::{PostNo, Seq, WriterId};
use rove_protocol::message::{Body as _, Closed, Event};
use rove_protocol::registry::FrameType;
use tokio::sync::watch;

use super::error::LoadError;
use super::session::Conversation;

/// Reads the posts of a writer from a conversation, until `total` of them have come, which may become known later; `each` is told
/// the number of each and when it came. What else there is, the creation of the group say, is passed over.
///
/// # Errors
/// Those of the stream, an event that is missing (D3), and a post that is not the next one.
pub async fn hear(
    conversation: &mut Conversation,
    writer: WriterId,
    mut total: watch::Receiver<u64>,
    mut each: impl FnMut(PostNo, Instant),
) -> Result<(), LoadError> {
    let frames = &mut conversation.stream.frames;
    let mut heard = Heard { writer, posts: 0, last: None };
    let (mut end, mut may_change) = (*total.borrow_and_update(), true);
    while heard.posts < end {
        tokio::select! {
            biased;
            frame = frames.next() => {
                let frame = frame?.ok_or(LoadError::Ended("the conversation"))?;
                if let Some(number) = heard.frame(frame)? {
                    each(number, Instant::now());
                }
            }
            changed = total.changed(), if may_change => {
                may_change = changed.is_ok();
                end = *total.borrow_and_update();
            }
        }
    }
    Ok(())
}

struct Heard {
    writer: WriterId,
    posts: u64,
    last: Option<Seq>,
}

impl Heard {
    /// The number of the post if it is one of the writer's.
    fn frame(&mut self, frame: RawFrame) -> Result<Option<PostNo>, LoadError> {
        if frame.frame_type == FrameType::Closed {
            return Err(LoadError::Refused { what: "the conversation", code: Closed::decode_body(frame.body)?.code });
        }
        if frame.frame_type != FrameType::Event {
            return Ok(None);
        }
        let event = Event::decode_body(frame.body)?;
        if self.last.is_some_and(|last| event.seq != last.next()) {
            return Err(LoadError::Server(format!("event {} does not follow the last one", event.seq)));
        }
        self.last = Some(event.seq);
        if event.writer != self.writer {
            return Ok(None);
        }
        self.posts += 1;
        if event.post_no.0 != self.posts {
            return Err(LoadError::Server(format!("post {} out of order", event.post_no)));
        }
        Ok(Some(event.post_no))
    }
}

#[cfg(test)]
mod tests {

    use super::*;
    use crate::sample;

    fn event(seq: u64, number: u64) -> RawFrame {
        let mut event = sample::event(seq);
        event.post_no = PostNo(number);
        RawFrame { frame_type: FrameType::Event, body: event.encode_body().into() }
    }

    #[test]
    fn a_missing_event_and_a_missing_post_are_errors() {
        let writer = sample::event(1).writer;
        let mut heard = Heard { writer, posts: 0, last: None };
        assert_eq!(heard.frame(event(5, 1)).unwrap(), Some(PostNo(1)));
        assert!(heard.frame(event(7, 2)).is_err());
        let mut heard = Heard { writer, posts: 0, last: None };
        assert!(heard.frame(event(5, 2)).is_err());
        let mut other = Heard { writer: WriterId([9; 16]), posts: 0, last: None };
        assert_eq!(other.frame(event(1, 44)).unwrap(), None, "somebody else's");
    }
}
