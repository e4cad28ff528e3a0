//! One session: from `Hello` to the end of the connection.
//!
//! A session is one task with the control stream, the datagrams and the requests under way, and one task for each other
//! stream. Whatever breaks the rules closes the connection with its code; the tasks see that as the end of everything they
//! wait for.
//!
//! Until the session is authenticated only the control stream is read: other streams wait in QUIC's buffers, which the small
//! first credit bounds (D4). Until the handshake is complete too, a session is not in the registry (D5): it posts and
//! reads, and nobody is told of it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use rove_core::command::Actor;
use rove_protocol::error::Violation;
use rove_protocol::frame::RawFrame;
use rove_protocol::ids::AccountId;
use rove_protocol::limits;
use rove_protocol::message::{ControlUp, GoAway, Hello, Limits, Message as _, Response, Suspend, Welcome};
use rove_protocol::registry::{ClientState, ErrorCode, StreamType};
use rove_protocol::session::server::{Admission, Control, Streams};
use rove_protocol::transport::{self, Connection as _, ReadError, TransportError};
use rove_quic::{Connection, RecvStream, SendStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tracing::debug;

use super::datagrams::Datagrams;
use super::early::{Begun, Confirm, Confirmed, Passage, confirmation};
use super::entry::{Entry, Failed, authenticate, enter, entered, given_up, late};
use super::frames::{Duplex, Incoming, Outgoing};
use super::hub::{Link, Subscriber};
use super::stats::{Counted, EdgeStats, Gauge};
use super::{Shared, control, conversation, fetch, inbox};
use crate::leaving::{Turn, Wave};

/// The minor version of `rove/1` spoken here.
const MINOR: u16 = 0;

/// How long a session is told that it still works if it may stay for as long as the node has no majority.
const STAY: Duration = Duration::from_secs(60);

/// Which streams go first when a connection is narrow (D6).
mod priority {
    pub(super) const CONTROL: i32 = 30;
    pub(super) const CONVERSATION: i32 = 20;
    pub(super) const INBOX: i32 = 10;
    pub(super) const FETCH: i32 = 0;
}

/// Closes the connection and remembers with what.
#[derive(Clone)]
struct Closer {
    connection: Connection,
    code: Arc<Mutex<Option<ErrorCode>>>,
}

impl Link for Closer {
    fn close(&self, code: ErrorCode, reason: &str) {
        self.code.lock().get_or_insert(code);
        transport::Connection::close(&self.connection, code, reason);
    }
    fn datagram(&self, datagram: Bytes) {
        self.connection.send_datagram(datagram);
    }
}

/// What the tasks of a session share.
pub(super) struct Session {
    pub(super) edge: Arc<Shared>,
    pub(super) connection: Connection,
    pub(super) subscriber: Arc<Subscriber>,
    pub(super) limits: Limits,
    streams: Mutex<Streams>,
    confirmed: Confirmed,
}

impl Session {
    /// Whose it is.
    pub(super) fn account(&self) -> AccountId {
        self.subscriber.account
    }

    /// Who acts.
    pub(super) fn actor(&self) -> Actor {
        Actor { account: self.subscriber.account, device: self.subscriber.device }
    }

    /// The client broke the rules.
    fn fail(&self, violation: &Violation) {
        self.subscriber.link.close(violation.code(), &violation.to_string());
    }
}

/// Serves a connection that speaks `rove/1` until it is gone.
pub(super) fn run(edge: Arc<Shared>, begun: Begun) -> impl Future<Output = ()> + Send {
    let connection = begun.connection.clone();
    let closer = Closer { connection: connection.clone(), code: Arc::default() };
    // What only the beginning needs is gone with it: an idle session is to be small.
    let beginning = Box::pin(begin(edge.clone(), begun, closer.clone()));
    async move {
        if let Some(serving) = beginning.await {
            serving.await;
        }
        let ended = Box::pin(connection.closed()).await;
        let ours = *closer.code.lock();
        match (ours, ended) {
            (Some(code), _) | (None, TransportError::Closed { code, .. }) => edge.stats().closed(code),
            (None, _) => EdgeStats::add(&edge.stats().lost, 1),
        }
    }
}

/// From the first packet to `Welcome`; what serves the session from then on. Without one the connection is closed.
async fn begin(edge: Arc<Shared>, mut begun: Begun, closer: Closer) -> Option<BoxFuture<'static, ()>> {
    let deadline = Instant::now() + Duration::from_millis(limits::HELLO_DEADLINE_MS);
    let greeted = tokio::time::timeout_at(deadline, greet(&edge, &mut begun, &closer, deadline)).await;
    let failed = match greeted {
        Ok(Ok(greeted)) => return Some(Box::pin(serve(Box::new(greeted)))),
        Ok(Err(failed)) => failed,
        Err(_) => late("Hello"),
    };
    let (code, reason) = failed.verdict()?;
    debug!(%code, reason, "no session");
    if let Some(mut handshake) = begun.handshake {
        // Before that QUIC keeps the code to itself (RFC 9000, section 10.2.3).
        let _ = tokio::time::timeout_at(deadline, handshake.complete()).await;
    }
    closer.close(code, &reason);
    None
}

/// An authenticated session whose `Welcome` is queued.
struct Greeted {
    session: Arc<Session>,
    entry: Entry,
    confirm: Confirm,
    control: Control,
    incoming: Incoming,
    outgoing: Outgoing,
    state: ClientState,
}

/// Reads `Hello` and checks it. The session enters the registry before `Welcome`, unless it has come early.
async fn greet(edge: &Arc<Shared>, begun: &mut Begun, closer: &Closer, deadline: Instant) -> Result<Greeted, Failed> {
    let connection = begun.connection.clone();
    let early = begun.handshake.is_some();
    let (confirm, confirmed) = confirmation(early);
    let limits = Limits::default();
    let mut streams = Streams::new(&limits);
    let mut control = Control::with_limits(&limits);
    let (send, recv) = match begun.first.take() {
        Some(first) => first,
        None => connection.accept().await.map_err(ReadError::from)?,
    };
    // Before `Hello` nothing has an effect, so nothing waits: behind a frame that waited, `Hello` would never be seen, and
    // without it nobody would say that the wait is over.
    let mut incoming = Incoming::new(recv, limits::FRAME_BEFORE_WELCOME, Passage::open());
    let Some(stream_type) = incoming.stream_type().await? else { return Err(ended()) };
    if let Admission::Stop(code) = streams.accept(stream_type)? {
        return Err(Failed::Code(code, "the first stream is not the control stream"));
    }
    let hello = hello(&mut incoming, &mut control).await?;
    incoming.set_passage(confirmed.passage());
    let authenticated = match authenticate(edge, &hello).await {
        Ok(authenticated) => authenticated,
        Err(code) => {
            EdgeStats::add(&edge.stats().unauthenticated, 1);
            return Err(Failed::Code(code, "not authenticated"));
        }
    };
    let id = edge.hub.next_session();
    let account = authenticated.account;
    let subscriber = Arc::new(Subscriber::new(id, account, hello.device, Box::new(closer.clone())));
    debug!(session = %id, %account, device = %hello.device, early, client = hello.client, "session");
    let state = hello.state;
    let enter = enter(edge.clone(), subscriber.clone(), hello, authenticated);
    let entry = match begun.handshake.take() {
        None => Entry::Registered(enter.await?),
        Some(handshake) => {
            EdgeStats::add(&edge.stats().early_sessions, 1);
            let entered = async {
                handshake.completed().await;
                enter.await
            };
            Entry::Entering(Box::pin(async move {
                let entered = tokio::time::timeout_at(deadline, entered).await;
                entered.unwrap_or_else(|_| Err(late("the end of the handshake")))
            }))
        }
    };
    control.welcomed();
    incoming.set_limit(limits.frame as usize);
    connection.quinn().set_receive_window(quinn::VarInt::from_u32(rove_quic::config::SERVER_WINDOW));
    let mut outgoing = Outgoing::new(send);
    outgoing.set_priority(priority::CONTROL);
    outgoing.answer(welcome(edge, &subscriber, &limits).to_frame());
    let session =
        Session { edge: edge.clone(), connection, subscriber, limits, streams: Mutex::new(streams), confirmed };
    Ok(Greeted { session: Arc::new(session), entry, confirm, control, incoming, outgoing, state })
}

/// Reads the frames up to `Hello`.
async fn hello(incoming: &mut Incoming, control: &mut Control) -> Result<Hello, Failed> {
    loop {
        let Some(frame) = incoming.next().await? else { return Err(ended()) };
        let Some(frame) = ControlUp::decode(frame).map_err(Violation::from)? else { continue };
        match control.on_frame(frame)? {
            ControlUp::Hello(hello) => return Ok(hello),
            // The machine lets nothing else through.
            ControlUp::Request(_) | ControlUp::Suspend(_) => return Err(Failed::Code(ErrorCode::Internal, "order")),
        }
    }
}

/// The client gave up before it said who it is.
fn ended() -> Failed {
    Failed::Code(ErrorCode::None, "the control stream ended")
}

fn welcome(edge: &Shared, subscriber: &Subscriber, limits: &Limits) -> Welcome {
    Welcome {
        session: subscriber.session,
        account: subscriber.account,
        node: edge.node.id(),
        // The first is the only one so far: whatever the client knows beyond it is not spoken.
        minor: MINOR,
        server_time_ms: edge.hub.now_ms(),
        heartbeat_ms: u32::try_from(edge.hub.heartbeat().as_millis()).unwrap_or(u32::MAX),
        limits: limits.clone(),
        alternatives: edge.alternatives(),
    }
}

/// Serves an authenticated session.
async fn serve(greeted: Box<Greeted>) {
    let Greeted { session, entry, confirm, control, mut incoming, mut outgoing, state } = *greeted;
    let edge = session.edge.clone();
    let _counted = Counted::new(edge.stats(), |stats| &stats.sessions);
    let mut main = Main::new(&session, control);
    let mut wave = edge.wave();
    let (mut registered, mut entering) = match entry {
        Entry::Registered(registered) => {
            main.state(state);
            (Some(registered), None)
        }
        Entry::Entering(entering) => (None, Some(entering)),
    };
    let mut tasks: JoinSet<()> = JoinSet::new();
    let connection = session.connection.clone();
    let ended = loop {
        tokio::select! {
            entered = entered(&mut entering) => {
                entering = None;
                match entered {
                    Ok(entered) => {
                        registered = Some(entered);
                        main.state(state);
                        confirm.confirm();
                    }
                    Err(failed) => if let Some((code, reason)) = failed.verdict() {
                        session.subscriber.link.close(code, &reason);
                    },
                }
            }
            frame = incoming.next() => match frame {
                Ok(Some(frame)) => if let Err(violation) = main.frame(frame) {
                    session.fail(&violation);
                },
                Ok(None) => {
                    session.subscriber.link.close(ErrorCode::None, "the control stream ended");
                    break connection.closed().await;
                }
                Err(ReadError::Violation(violation)) => session.fail(&violation),
                Err(ReadError::Transport(error)) => {
                    if let Some((code, reason)) = given_up(&error) {
                        session.subscriber.link.close(code, &reason);
                    }
                    break connection.closed().await;
                }
            },
            written = outgoing.write_some(), if !outgoing.is_empty() => if let Err(error) = written {
                if let Some((code, reason)) = given_up(&error) {
                    session.subscriber.link.close(code, &reason);
                }
                break connection.closed().await;
            },
            // Answers that are not written count as unanswered: who does not read cannot ask for more.
            Some(response) = main.requests.next(), if outgoing.answers_waiting() < limits::REQUESTS_IN_FLIGHT => {
                if main.control.answered(response.id) {
                    outgoing.answer(response.to_frame());
                }
            }
            accepted = connection.accept() => match accepted {
                Ok((send, recv)) => {
                    tasks.spawn(Box::pin(stream(session.clone(), send, recv)));
                }
                Err(error) => break error,
            },
            Some(joined) = tasks.join_next() => if joined.is_err_and(|error| error.is_panic()) {
                tracing::error!(session = %session.subscriber.session, "a stream's task panicked");
                session.subscriber.link.close(ErrorCode::Internal, "internal error");
            },
            // Until then QUIC keeps the newest of them.
            datagram = connection.read_datagram(), if registered.is_some() => match datagram {
                Ok(datagram) => match main.datagrams.received(datagram) {
                    Ok(Some(later)) => main.datagrams.later(later),
                    Ok(None) => {}
                    Err(violation) => session.fail(&violation),
                },
                Err(error) => break error,
            },
            () = main.datagrams.work() => {}
            () = session.subscriber.presence_wake.notified() => main.datagrams.presence(),
            Ok(()) = wave.changed(), if main.drain.is_none() => main.asked(wave.borrow_and_update().as_ref()),
            () = until(main.go.map(|turn| turn.at)), if main.go.is_some() => outgoing.answer(main.goes().to_frame()),
            () = until(main.drain), if main.drain.is_some() => {
                session.subscriber.link.close(ErrorCode::GoingAway, "the node is leaving");
                break connection.closed().await;
            }
        }
    };
    // A clean end is a goodbye: nobody has to wait for the lease.
    let is_there = registered.is_some();
    if is_there && (main.left || matches!(ended, TransportError::Closed { code: ErrorCode::None, .. })) {
        edge.hub.goodbye(session.account(), session.subscriber.session);
    }
    tasks.shutdown().await;
}

fn go_away(edge: &Shared, stay: Duration) -> GoAway {
    EdgeStats::add(&edge.stats().told_to_go, 1);
    GoAway {
        code: ErrorCode::GoingAway,
        deadline_ms: u32::try_from(stay.as_millis()).unwrap_or(u32::MAX),
        alternatives: edge.alternatives(),
    }
}

/// Waits for a time that may not be set. Boxed: it seldom is, and a timer is large.
pub(super) async fn until(at: Option<Instant>) {
    match at {
        Some(at) => Box::pin(tokio::time::sleep_until(at)).await,
        None => std::future::pending().await,
    }
}

/// The session's own task.
struct Main {
    session: Arc<Session>,
    control: Control,
    requests: FuturesUnordered<BoxFuture<'static, Response>>,
    datagrams: Datagrams,
    /// The client said that it leaves.
    left: bool,
    /// When the connection is closed because the node leaves.
    drain: Option<Instant>,
    /// Its turn to be told to go elsewhere.
    go: Option<Turn>,
}

impl Main {
    fn new(session: &Arc<Session>, control: Control) -> Self {
        Self {
            datagrams: Datagrams::new(session.clone()),
            session: session.clone(),
            control,
            requests: FuturesUnordered::new(),
            left: false,
            drain: None,
            go: None,
        }
    }

    /// It is asked to go elsewhere when its turn comes, or not any more: then it may stay, unless it was told already.
    fn asked(&mut self, wave: Option<&Wave>) {
        self.go = wave.map(Wave::turn);
    }

    /// Its turn has come.
    fn goes(&mut self) -> GoAway {
        let stay = self.go.take().and_then(|turn| turn.stay);
        self.drain = stay.map(|stay| Instant::now() + stay);
        go_away(&self.session.edge, stay.unwrap_or(STAY))
    }

    /// A frame of the control stream.
    fn frame(&mut self, frame: RawFrame) -> Result<(), Violation> {
        let Some(frame) = ControlUp::decode(frame)? else { return Ok(()) };
        match self.control.on_frame(frame)? {
            ControlUp::Request(request) => {
                EdgeStats::add(&self.session.edge.stats().requests, 1);
                self.requests.push(Box::pin(control::answer(self.session.clone(), request)));
            }
            ControlUp::Suspend(Suspend { state }) => self.state(state),
            // The machine lets none through.
            ControlUp::Hello(_) => {}
        }
        Ok(())
    }

    /// The app's state is told or has changed. In the background the lease is left to run out: apps come back.
    fn state(&mut self, state: ClientState) {
        let (hub, subscriber) = (&self.session.edge.hub, &self.session.subscriber);
        self.left = state == ClientState::Leaving;
        match state {
            ClientState::Foreground => hub.beat(subscriber.account, subscriber.session),
            ClientState::Leaving => hub.goodbye(subscriber.account, subscriber.session),
            _ => {}
        }
    }
}

/// What a stream is, once that is known, until its end.
type Serving = BoxFuture<'static, Result<(), ReadError>>;

/// One stream that the client opened.
fn stream(session: Arc<Session>, send: SendStream, recv: RecvStream) -> impl Future<Output = ()> + Send {
    let opened = Box::pin(opened(session.clone(), send, recv));
    async move {
        let result = match opened.await {
            Ok(Some((stream_type, serving))) => {
                let result = serving.await;
                session.streams.lock().ended(stream_type);
                result
            }
            Ok(None) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(ReadError::Violation(violation)) = result {
            session.fail(&violation);
        }
    }
}

/// Reads what kind of stream it is; what serves it, if there may be one more.
async fn opened(
    session: Arc<Session>,
    send: SendStream,
    recv: RecvStream,
) -> Result<Option<(StreamType, Serving)>, ReadError> {
    let mut incoming = Incoming::new(recv, session.limits.frame as usize, session.confirmed.passage());
    let mut outgoing = Outgoing::new(send);
    let Some(stream_type) = incoming.stream_type().await? else { return Ok(None) };
    let admission = session.streams.lock().accept(stream_type)?;
    match admission {
        Admission::Serve(stream_type) => {
            let serving = serving(session, stream_type, incoming, outgoing);
            Ok(Some((stream_type, serving)))
        }
        Admission::Stop(code) => {
            incoming.stop(code);
            outgoing.reset(code);
            Ok(None)
        }
    }
}

fn serving(session: Arc<Session>, stream_type: StreamType, incoming: Incoming, mut outgoing: Outgoing) -> Serving {
    let edge = session.edge.clone();
    let duplex = move |priority: i32, counter: Gauge| {
        outgoing.set_priority(priority);
        Box::new(Duplex { incoming, outgoing, counted: Counted::new(edge.stats(), counter) })
    };
    match stream_type {
        StreamType::Conversation => {
            let duplex = duplex(priority::CONVERSATION, |stats| &stats.conversation_streams);
            Box::pin(conversation::serve(session, duplex))
        }
        StreamType::Inbox => {
            let duplex = duplex(priority::INBOX, |stats| &stats.inbox_streams);
            Box::pin(inbox::serve(session, duplex))
        }
        StreamType::Fetch => {
            let duplex = duplex(priority::FETCH, |stats| &stats.fetch_streams);
            Box::pin(fetch::serve(session, duplex))
        }
        // The machine lets no other through.
        _ => Box::pin(std::future::ready(Ok(()))),
    }
}
