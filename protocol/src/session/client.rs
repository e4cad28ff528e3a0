//! The client's end: what servers may send, and what we may ask for.

use std::collections::VecDeque;

use super::Misuse;
use super::outstanding::Outstanding;
use crate::error::Violation;
use crate::ids::{ConversationId, PostNo, RequestId, Seq};
use crate::limits;
use crate::message::{self, ControlDown, ConversationDown, FetchDown, InboxDown, Limits};
use crate::registry::FrameType;

fn out_of_state<T>(frame: FrameType, when: &'static str) -> Result<T, Violation> {
    Err(Violation::OutOfState { frame, when })
}

/// The control stream: `Welcome` once, then answers to what was asked. `GoAway` may come at any time.
#[derive(Debug, Clone)]
pub struct Control {
    welcomed: bool,
    closed: bool,
    requests: Outstanding,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// `Hello` goes out with the stream's type.
    pub fn new() -> Self {
        Self { welcomed: false, closed: false, requests: Outstanding::new(limits::REQUESTS_IN_FLIGHT) }
    }

    /// A request is about to be sent.
    ///
    /// # Errors
    /// [`Misuse`] if it must not be sent: before `Welcome`, after the end, too many, an id in use.
    pub fn sent(&mut self, id: RequestId) -> Result<(), Misuse> {
        if !self.is_open() {
            return Err(Misuse::OutOfState("welcomed"));
        }
        if self.requests.contains(id.0) {
            return Err(Misuse::Duplicate(id.0));
        }
        if self.requests.is_full() {
            return Err(Misuse::TooMany { what: "requests", limit: self.requests.limit() });
        }
        self.requests.add(id.0);
        Ok(())
    }

    /// A frame has come.
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for an answer before `Welcome`, a second `Welcome` and anything after `Closed`;
    /// [`Violation::Unasked`] for an answer to no request.
    pub fn on_frame(&mut self, frame: ControlDown) -> Result<ControlDown, Violation> {
        if self.closed {
            return out_of_state(frame.frame_type(), "after Closed");
        }
        match &frame {
            ControlDown::Welcome(_) if self.welcomed => return out_of_state(FrameType::Welcome, "after Welcome"),
            ControlDown::Welcome(welcome) => {
                self.welcomed = true;
                self.requests = Outstanding::new(usize::from(welcome.limits.requests));
            }
            ControlDown::Response(_) if !self.welcomed => return out_of_state(FrameType::Response, "before Welcome"),
            ControlDown::Response(response) => {
                if !self.requests.remove(response.id.0) {
                    return Err(Violation::Unasked { frame: FrameType::Response, number: response.id.0 });
                }
            }
            ControlDown::GoAway(_) => {}
            ControlDown::Closed(_) => self.closed = true,
        }
        Ok(frame)
    }

    /// Whether requests may be sent.
    pub fn is_open(&self) -> bool {
        self.welcomed && !self.closed
    }

    /// How many requests are unanswered.
    pub fn unanswered(&self) -> usize {
        self.requests.len()
    }
}

/// A conversation stream: `Opened` first, then every seq after the cursor, and answers to our posts.
#[derive(Debug, Clone)]
pub struct Conversation {
    opened: bool,
    closed: bool,
    cursor: Seq,
    posts: Outstanding,
}

impl Conversation {
    /// `Open` goes out with this cursor; posts may follow in the same flight, as many as every server allows.
    pub fn new(after: Seq) -> Self {
        Self::with_limits(after, &Limits::default())
    }

    /// The same, with the limits of `Welcome`.
    pub fn with_limits(after: Seq, limits: &Limits) -> Self {
        Self {
            opened: false,
            closed: false,
            cursor: after,
            posts: Outstanding::new(usize::from(limits.unanswered_posts)),
        }
    }

    /// A post is about to be sent: the first time, or again after a refusal that did not consume its number.
    ///
    /// # Errors
    /// [`Misuse`] if it must not be sent: the stream is over, or too many are unanswered.
    pub fn posted(&mut self, post_no: PostNo) -> Result<(), Misuse> {
        if self.closed {
            return Err(Misuse::OutOfState("open any more"));
        }
        if self.posts.is_full() {
            return Err(Misuse::TooMany { what: "posts", limit: self.posts.limit() });
        }
        self.posts.add(post_no.0);
        Ok(())
    }

    /// A frame has come. After an event or an unavailable range the cursor is past it.
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for anything but `Closed` before `Opened`, a second `Opened` and anything after
    /// `Closed`; [`Violation::SeqOrder`] for a seq that is not the next, or a head below the cursor;
    /// [`Violation::Unasked`] for an answer to no post.
    pub fn on_frame(&mut self, frame: ConversationDown) -> Result<ConversationDown, Violation> {
        if self.closed {
            return out_of_state(frame.frame_type(), "after Closed");
        }
        match &frame {
            ConversationDown::Closed(_) => self.closed = true,
            ConversationDown::Opened(_) if self.opened => return out_of_state(FrameType::Opened, "after Opened"),
            ConversationDown::Opened(opened) => {
                if opened.head < self.cursor {
                    return Err(Violation::SeqOrder { expected: self.cursor.0, got: opened.head.0 });
                }
                self.opened = true;
            }
            _ if !self.opened => return out_of_state(frame.frame_type(), "before Opened"),
            ConversationDown::Event(event) => advance(&mut self.cursor, event.seq, event.seq)?,
            ConversationDown::Unavailable(range) => advance(&mut self.cursor, range.from, range.to)?,
            ConversationDown::Posted(posted) => self.answered(FrameType::Posted, posted.post_no)?,
            ConversationDown::Refused(refused) => self.answered(FrameType::Refused, refused.post_no)?,
            ConversationDown::Receipt(_) => {}
        }
        Ok(frame)
    }

    fn answered(&mut self, frame: FrameType, post_no: PostNo) -> Result<(), Violation> {
        if self.posts.remove(post_no.0) { Ok(()) } else { Err(Violation::Unasked { frame, number: post_no.0 }) }
    }

    /// The last seq accounted for.
    pub fn cursor(&self) -> Seq {
        self.cursor
    }

    /// Whether `Opened` has come and `Closed` has not.
    pub fn is_open(&self) -> bool {
        self.opened && !self.closed
    }

    /// How many posts are unanswered.
    pub fn unanswered(&self) -> usize {
        self.posts.len()
    }
}

/// Moves the cursor over `from..=to`, which must be what comes next (D3).
fn advance(cursor: &mut Seq, from: Seq, to: Seq) -> Result<(), Violation> {
    let expected = cursor.next();
    // The cursor at the last of all seqs has no next one.
    if from != expected || expected == *cursor {
        return Err(Violation::SeqOrder { expected: expected.0, got: from.0 });
    }
    *cursor = to;
    Ok(())
}

/// The inbox stream: lines and marks of being in step, until `Closed`.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    synced: bool,
    closed: bool,
}

impl Inbox {
    /// `InboxOpen` goes out.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame has come.
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for anything after `Closed`.
    pub fn on_frame(&mut self, frame: InboxDown) -> Result<InboxDown, Violation> {
        if self.closed {
            return out_of_state(frame.frame_type(), "after Closed");
        }
        match &frame {
            InboxDown::InboxLine(_) => {}
            InboxDown::InboxSynced(_) => self.synced = true,
            InboxDown::Closed(_) => self.closed = true,
        }
        Ok(frame)
    }

    /// Whether everything that had changed when the inbox was opened has come.
    pub fn is_synced(&self) -> bool {
        self.synced
    }
}

/// What is known of the page that is coming in.
#[derive(Debug, Clone, Default)]
struct PageSoFar {
    first: Seq,
    last: Seq,
    events: u32,
}

/// A fetch stream: the pages that were asked for, in that order.
#[derive(Debug, Clone, Default)]
pub struct Fetch {
    asked: VecDeque<(ConversationId, u32)>,
    page: PageSoFar,
    closed: bool,
}

impl Fetch {
    /// A new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A fetch is about to be sent.
    ///
    /// # Errors
    /// [`Misuse`] if it must not be sent: the stream is over, or too many are unanswered.
    pub fn sent(&mut self, fetch: &message::Fetch) -> Result<(), Misuse> {
        if self.closed {
            return Err(Misuse::OutOfState("open any more"));
        }
        if self.asked.len() >= limits::FETCHES_IN_FLIGHT {
            return Err(Misuse::TooMany { what: "fetches", limit: limits::FETCHES_IN_FLIGHT });
        }
        self.asked.push_back((fetch.conversation, fetch.limit));
        Ok(())
    }

    /// A frame has come. It belongs to the oldest unanswered fetch.
    ///
    /// # Errors
    /// [`Violation::Unasked`] if nothing was asked or a page is another conversation's; [`Violation::SeqOrder`] for
    /// seqs that do not follow on each other or are not those the page names; [`Violation::Limit`] for more events
    /// than asked for; [`Violation::OutOfState`] for anything after `Closed`.
    pub fn on_frame(&mut self, frame: FetchDown) -> Result<FetchDown, Violation> {
        if self.closed {
            return out_of_state(frame.frame_type(), "after Closed");
        }
        match &frame {
            FetchDown::Closed(_) => self.closed = true,
            FetchDown::Event(event) => {
                let limit = self.asked(FrameType::Event, event.seq)?;
                self.extend(event.seq, event.seq)?;
                self.page.events += 1;
                if self.page.events > limit {
                    return Err(Violation::Limit { what: "events in a page", limit: u64::from(limit) });
                }
            }
            FetchDown::Unavailable(range) => {
                self.asked(FrameType::Unavailable, range.from)?;
                self.extend(range.from, range.to)?;
            }
            FetchDown::Page(page) => {
                let Some((conversation, _)) = self.asked.pop_front() else { return Err(unasked_page(page)) };
                if conversation != page.conversation {
                    return Err(unasked_page(page));
                }
                let seen = std::mem::take(&mut self.page);
                for (expected, got) in [(seen.first, page.first), (seen.last, page.last)] {
                    if expected != got {
                        return Err(Violation::SeqOrder { expected: expected.0, got: got.0 });
                    }
                }
            }
        }
        Ok(frame)
    }

    /// The limit of the oldest unanswered fetch.
    fn asked(&self, frame: FrameType, seq: Seq) -> Result<u32, Violation> {
        match self.asked.front() {
            Some((_, limit)) => Ok(*limit),
            None => Err(Violation::Unasked { frame, number: seq.0 }),
        }
    }

    fn extend(&mut self, from: Seq, to: Seq) -> Result<(), Violation> {
        if self.page.last == Seq(0) {
            if from == Seq(0) {
                return Err(Violation::SeqOrder { expected: 1, got: 0 });
            }
            self.page.first = from;
            self.page.last = to;
            return Ok(());
        }
        advance(&mut self.page.last, from, to)
    }

    /// How many fetches are unanswered.
    pub fn unanswered(&self) -> usize {
        self.asked.len()
    }
}

fn unasked_page(page: &message::Page) -> Violation {
    Violation::Unasked { frame: FrameType::Page, number: page.first.0 }
}
