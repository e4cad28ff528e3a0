//! The server's end: what clients may send.
//!
//! Streams of a session that is not authenticated yet may carry frames already (D4). It is the shell that leaves them
//! unread until [`Control::is_open`]; the machines here judge each stream by itself.

use super::outstanding::Outstanding;
use crate::error::Violation;
use crate::limits;
use crate::message::{ControlUp, ConversationUp, FetchUp, InboxUp, Limits};
use crate::registry::{ErrorCode, FrameType, StreamType};

use crate::ids::{PostNo, RequestId};

/// Where the control stream is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ControlState {
    AwaitHello,
    Authenticating,
    Open,
}

/// The control stream: `Hello` once and first, nothing until it is answered, then requests.
#[derive(Debug, Clone)]
pub struct Control {
    state: ControlState,
    requests: Outstanding,
}

impl Default for Control {
    fn default() -> Self {
        Self::new()
    }
}

impl Control {
    /// A new connection, with the limits of [`Limits::default`].
    pub fn new() -> Self {
        Self::with_limits(&Limits::default())
    }

    /// A new connection that `Welcome` will tell these limits.
    pub fn with_limits(limits: &Limits) -> Self {
        Self { state: ControlState::AwaitHello, requests: Outstanding::new(usize::from(limits.requests)) }
    }

    /// A frame has come. `Hello` is to be checked by the shell, which then says [`Control::welcomed`] or closes the
    /// connection; a request is to be answered with [`Control::answered`].
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for anything before `Hello` or before `Welcome`, for a second `Hello` and for a
    /// request with the id of one that is unanswered; [`Violation::Limit`] for too many unanswered requests.
    pub fn on_frame(&mut self, frame: ControlUp) -> Result<ControlUp, Violation> {
        let out_of_state = |when| Err(Violation::OutOfState { frame: frame.frame_type(), when });
        match (self.state, &frame) {
            (ControlState::AwaitHello, ControlUp::Hello(_)) => self.state = ControlState::Authenticating,
            (ControlState::AwaitHello, _) => return out_of_state("before Hello"),
            (_, ControlUp::Hello(_)) => return out_of_state("after Hello"),
            (ControlState::Authenticating, _) => return out_of_state("before Welcome"),
            (ControlState::Open, ControlUp::Request(request)) => {
                if self.requests.contains(request.id.0) {
                    return out_of_state("with the id of an unanswered request");
                }
                if self.requests.is_full() {
                    return Err(too_many("unanswered requests", &self.requests));
                }
                self.requests.add(request.id.0);
            }
            (ControlState::Open, ControlUp::Suspend(_)) => {}
        }
        Ok(frame)
    }

    /// `Welcome` goes out: the session is authenticated. Of no effect unless `Hello` has come.
    pub fn welcomed(&mut self) {
        if self.state == ControlState::Authenticating {
            self.state = ControlState::Open;
        }
    }

    /// The answer to a request goes out. False if there was no such request: then nothing must be sent.
    pub fn answered(&mut self, id: RequestId) -> bool {
        self.requests.remove(id.0)
    }

    /// Whether the session is authenticated: other streams may be read.
    pub fn is_open(&self) -> bool {
        self.state == ControlState::Open
    }

    /// Whether `Hello` has come, so that its deadline is met.
    pub fn has_hello(&self) -> bool {
        self.state != ControlState::AwaitHello
    }

    /// How many requests are unanswered.
    pub fn unanswered(&self) -> usize {
        self.requests.len()
    }
}

/// What to do with a stream the client has opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// Serve it, and say [`Streams::ended`] when it is over.
    Serve(StreamType),
    /// Reset and stop this stream with the code; the connection goes on.
    Stop(ErrorCode),
}

/// The streams of a session: which, and how many.
///
/// QUIC orders nothing between streams: a client that ends one stream and opens another may be seen to open first. So
/// one stream too many is stopped, and only what can never be right is a violation.
#[derive(Debug, Clone)]
pub struct Streams {
    control: bool,
    inbox: bool,
    conversations: usize,
    conversation_limit: usize,
    fetches: usize,
    fetch_limit: usize,
}

impl Streams {
    /// No stream yet.
    pub fn new(limits: &Limits) -> Self {
        Self {
            control: false,
            inbox: false,
            conversations: 0,
            conversation_limit: usize::from(limits.conversation_streams),
            fetches: 0,
            fetch_limit: usize::from(limits.fetch_streams),
        }
    }

    /// The type of a stream has come, those of the connection's first stream before any other.
    ///
    /// # Errors
    /// [`Violation::StreamUnexpected`] if the first stream is not the control stream, or another one is.
    pub fn accept(&mut self, stream_type: u64) -> Result<Admission, Violation> {
        let known = u32::try_from(stream_type).map(StreamType).ok().filter(|known| known.name().is_some());
        if !self.control || known == Some(StreamType::Control) {
            if self.control || known != Some(StreamType::Control) {
                return Err(Violation::StreamUnexpected { stream_type });
            }
            self.control = true;
            return Ok(Admission::Serve(StreamType::Control));
        }
        let Some(known) = known else { return Ok(Admission::Stop(ErrorCode::UnknownStreamType)) };
        let has_room = match known {
            StreamType::Inbox => !std::mem::replace(&mut self.inbox, true),
            StreamType::Conversation => take_place(&mut self.conversations, self.conversation_limit),
            StreamType::Fetch => take_place(&mut self.fetches, self.fetch_limit),
            _ => return Ok(Admission::Stop(ErrorCode::UnknownStreamType)),
        };
        Ok(if has_room { Admission::Serve(known) } else { Admission::Stop(ErrorCode::LimitExceeded) })
    }

    /// A stream that was served is over in both directions. The end of the control stream ends the session.
    pub fn ended(&mut self, stream_type: StreamType) {
        match stream_type {
            StreamType::Inbox => self.inbox = false,
            StreamType::Conversation => self.conversations = self.conversations.saturating_sub(1),
            StreamType::Fetch => self.fetches = self.fetches.saturating_sub(1),
            _ => {}
        }
    }
}

fn take_place(taken: &mut usize, limit: usize) -> bool {
    let has_room = *taken < limit;
    if has_room {
        *taken += 1;
    }
    has_room
}

/// A conversation stream: `Open` once and first, then posts and marks, in the same flight if the client likes.
#[derive(Debug, Clone)]
pub struct Conversation {
    open: bool,
    opened: bool,
    posts: Outstanding,
}

impl Conversation {
    /// A new stream of a session with these limits.
    pub fn new(limits: &Limits) -> Self {
        Self { open: false, opened: false, posts: Outstanding::new(usize::from(limits.unanswered_posts)) }
    }

    /// A frame has come. Posts may come before [`Conversation::opened`]; none is answered before it.
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for anything before `Open` and for a second `Open`; [`Violation::Limit`] for too many
    /// unanswered posts.
    pub fn on_frame(&mut self, frame: ConversationUp) -> Result<ConversationUp, Violation> {
        match &frame {
            ConversationUp::Open(_) if self.open => {
                return Err(Violation::OutOfState { frame: FrameType::Open, when: "after Open" });
            }
            ConversationUp::Open(_) => self.open = true,
            _ if !self.open => {
                return Err(Violation::OutOfState { frame: frame.frame_type(), when: "before Open" });
            }
            ConversationUp::Post(post) => {
                if self.posts.is_full() {
                    return Err(too_many("unanswered posts", &self.posts));
                }
                self.posts.add(post.post_no.0);
            }
            ConversationUp::Mark(_) => {}
        }
        Ok(frame)
    }

    /// `Opened` goes out. Of no effect unless `Open` has come.
    pub fn opened(&mut self) {
        self.opened = self.open;
    }

    /// `Posted` or `Refused` goes out. False if there was no such post unanswered, or the stream is not opened: then
    /// nothing must be sent.
    pub fn answered(&mut self, post_no: PostNo) -> bool {
        self.opened && self.posts.remove(post_no.0)
    }

    /// Whether events, receipts and answers may go out.
    pub fn is_open(&self) -> bool {
        self.opened
    }

    /// How many posts are unanswered.
    pub fn unanswered(&self) -> usize {
        self.posts.len()
    }
}

/// The inbox stream: `InboxOpen`, once.
#[derive(Debug, Clone, Default)]
pub struct Inbox {
    open: bool,
}

impl Inbox {
    /// A new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame has come.
    ///
    /// # Errors
    /// [`Violation::OutOfState`] for a second `InboxOpen`.
    pub fn on_frame(&mut self, frame: InboxUp) -> Result<InboxUp, Violation> {
        if std::mem::replace(&mut self.open, true) {
            return Err(Violation::OutOfState { frame: frame.frame_type(), when: "after InboxOpen" });
        }
        Ok(frame)
    }

    /// Whether lines may go out.
    pub fn is_open(&self) -> bool {
        self.open
    }
}

/// A fetch stream: pages one after the other, a few asked for ahead.
#[derive(Debug, Clone, Default)]
pub struct Fetch {
    unanswered: usize,
}

impl Fetch {
    /// A new stream.
    pub fn new() -> Self {
        Self::default()
    }

    /// A frame has come.
    ///
    /// # Errors
    /// [`Violation::Limit`] for more than [`limits::FETCHES_IN_FLIGHT`] unanswered ones.
    pub fn on_frame(&mut self, frame: FetchUp) -> Result<FetchUp, Violation> {
        if self.unanswered >= limits::FETCHES_IN_FLIGHT {
            return Err(Violation::Limit { what: "unanswered fetches", limit: limits::FETCHES_IN_FLIGHT as u64 });
        }
        self.unanswered += 1;
        Ok(frame)
    }

    /// The page of the oldest unanswered fetch has gone out. False if there was none.
    pub fn answered(&mut self) -> bool {
        let any = self.unanswered > 0;
        self.unanswered = self.unanswered.saturating_sub(1);
        any
    }

    /// How many are unanswered.
    pub fn unanswered(&self) -> usize {
        self.unanswered
    }
}

fn too_many(what: &'static str, outstanding: &Outstanding) -> Violation {
    Violation::Limit { what, limit: outstanding.limit() as u64 }
}
