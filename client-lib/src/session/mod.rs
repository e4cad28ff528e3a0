//! One session: an authenticated connection and the tasks on it.
//!
//! Every stream is one task that reads and writes at the same time; all of them work on the client's state and end with
//! the session, which owns them. Streams are opened in the same flight as `Hello` (D4), which may be early data (D5): if
//! that is rejected, nothing of it has reached the server, and the session starts again on the same connection.

mod activity;
mod control;
mod conversation;
mod datagrams;
mod fetch;
mod inbox;
mod successors;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_protocol::error::Violation;
use rove_protocol::ids::ConversationId;
use rove_protocol::limits;
use rove_protocol::message::{GoAway, Limits, Response, Welcome};
use rove_protocol::registry::{ErrorCode, Method};
use rove_protocol::transport::{Connection as _, ReadError, TransportError};
use rove_quic::Connection;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Error;
use crate::inner::Inner;
use crate::net::{Dialled, Early, EarlyData};
use activity::Activity;
pub(crate) use control::Established;
pub(crate) use fetch::FetchedPage;
use successors::Successors;

/// What competes for the path goes in this order (D6).
pub(crate) const CONTROL_PRIORITY: i32 = 30;
pub(crate) const CONVERSATION_PRIORITY: i32 = 20;
pub(crate) const INBOX_PRIORITY: i32 = 10;
pub(crate) const FETCH_PRIORITY: i32 = 0;

/// How long a goodbye may take.
const GOODBYE: Duration = Duration::from_millis(500);
/// How long the server may take from the handshake to `Welcome`. It cuts silence at 5 s itself; this is its disk's share.
const WELCOME_TIMEOUT: Duration = Duration::from_secs(10);

/// Why a task, and with it the session, ended.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The transport or the peer.
    Read(ReadError),
    /// Our own side: the store, without which nothing may be acknowledged or sent; or another node was not reached.
    Ours(Error),
    /// Heartbeats are not answered.
    DeadPath,
    /// `Closed` on the control or inbox stream.
    Closed(ErrorCode),
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        Self::Read(error)
    }
}

impl From<TransportError> for Fault {
    fn from(error: TransportError) -> Self {
        Self::Read(ReadError::Transport(error))
    }
}

impl From<Violation> for Fault {
    fn from(violation: Violation) -> Self {
        Self::Read(ReadError::Violation(violation))
    }
}

impl Fault {
    /// What was sent before the handshake was complete is lost, and nothing else.
    fn is_early_data_rejected(&self) -> bool {
        matches!(
            self,
            Self::Read(ReadError::Transport(TransportError::EarlyDataRejected))
                | Self::Ours(Error::Transport(TransportError::EarlyDataRejected))
        )
    }

    /// The server has said nothing that we have understood.
    fn is_silence(&self) -> bool {
        matches!(
            self,
            Self::Read(ReadError::Transport(TransportError::Lost(_)))
                | Self::Ours(Error::Transport(TransportError::Lost(_)))
                | Self::Closed(ErrorCode::Timeout)
        )
    }

    pub(crate) fn code(&self) -> ErrorCode {
        match self {
            Self::Read(ReadError::Transport(error)) => crate::error::transport_code(error),
            Self::Read(ReadError::Violation(violation)) => violation.code(),
            Self::Ours(error) => error.code(),
            Self::DeadPath => ErrorCode::Timeout,
            Self::Closed(code) => *code,
        }
    }
}

/// How a session ended.
pub(crate) enum End {
    /// The client is closed.
    Stopped,
    /// For this reason.
    Lost(Fault),
    /// Another session is ready to go on (make before break), or this one starts again because its early data was
    /// rejected.
    Handover(Box<Established>),
    /// The handshake was not completed. `others` if the server has addresses that have not been tried.
    Unreached { fault: Fault, others: bool },
}

/// What a task did.
enum TaskEnd {
    Fault(Fault),
    Conversation(ConversationId),
    Goodbye,
    /// The successor of a node that is leaving.
    Successor(Result<Box<Established>, Fault>),
}

/// A request on its way to the control stream.
pub(crate) struct Job {
    pub(crate) method: Method,
    pub(crate) body: Bytes,
    pub(crate) answer: oneshot::Sender<Response>,
}

/// How calls reach the session.
#[derive(Clone)]
pub(crate) struct SessionHandle {
    requests: mpsc::Sender<Job>,
    fetches: mpsc::Sender<fetch::Job>,
    connection: Connection,
}

impl SessionHandle {
    /// Asks something; `None` if the session ends first.
    pub(crate) async fn request(&self, method: Method, body: Bytes) -> Option<Response> {
        let (answer, response) = oneshot::channel();
        self.requests.send(Job { method, body, answer }).await.ok()?;
        response.await.ok()
    }

    /// Fetches a page; `None` if the session ends first.
    pub(crate) async fn fetch(&self, fetch: rove_protocol::message::Fetch) -> Option<Result<FetchedPage, ErrorCode>> {
        let (answer, page) = oneshot::channel();
        self.fetches.send(fetch::Job { fetch, answer }).await.ok()?;
        page.await.ok()
    }

    /// Sends a datagram, or loses it.
    pub(crate) fn datagram(&self, datagram: Bytes) {
        self.connection.send_datagram(datagram);
    }

    /// The path's round trip.
    pub(crate) fn rtt(&self) -> Duration {
        self.connection.quinn().rtt()
    }
}

/// What the tasks of a session share.
#[derive(Clone)]
pub(crate) struct Session {
    pub(crate) inner: Arc<Inner>,
    pub(crate) connection: Connection,
    pub(crate) handle: SessionHandle,
    activity: Arc<Activity>,
    welcome: watch::Receiver<Option<Arc<Welcome>>>,
}

impl Session {
    /// What the session may use; until `Welcome`, what every server allows.
    fn limits(&self) -> Limits {
        self.welcome.borrow().as_ref().map_or_else(Limits::default, |welcome| welcome.limits.clone())
    }

    /// Something was sent that must be answered.
    fn awaits(&self) {
        self.activity.awaits(self.inner.now_ms());
    }

    /// Something has come.
    fn heard(&self) {
        self.activity.heard(self.inner.now_ms());
    }

    /// Waits for `Welcome`. Its sender lives as long as the session.
    async fn welcomed(&self) -> Option<Arc<Welcome>> {
        let mut welcome = self.welcome.clone();
        welcome.wait_for(Option::is_some).await.ok().and_then(|welcome| welcome.clone())
    }
}

/// Connects to the node `at` (`host:port`) and says `Hello`.
pub(crate) async fn establish(inner: &Arc<Inner>, at: &str) -> Result<Established, Error> {
    let others = inner.places.lock().count() > 1;
    let Dialled { connection, early } = inner.network.connect(&inner.server, at, others).await?;
    let connection = Connection::from(connection);
    let is_early = early.is_some();
    match control::hello(inner, at, connection.clone(), early).await {
        // Decided in between.
        Err(Error::Transport(TransportError::EarlyDataRejected)) if is_early => {
            inner.network.decided(EarlyData::Rejected);
            control::hello(inner, at, connection, None).await
        }
        established => established,
    }
}

/// Runs a session to its end. `welcomed` is called once `Welcome` has come.
pub(crate) async fn run(
    inner: &Arc<Inner>,
    mut established: Box<Established>,
    mut welcomed: impl FnMut(&str, &Welcome),
) -> End {
    let at = established.at.clone();
    let mut early = established.early.take();
    let patience = early.as_ref().and_then(|early| early.patience);
    let patience = patience.map(|patience| tokio::time::Instant::now() + patience);
    let connection = established.connection.clone();
    let (requests, jobs) = mpsc::channel(limits::REQUESTS_IN_FLIGHT);
    let (fetches, fetch_jobs) = mpsc::channel(limits::FETCHES_IN_FLIGHT);
    let (welcome_sender, welcome) = watch::channel(established.welcome.clone());
    let (go_away, mut going_away) = mpsc::channel::<GoAway>(1);
    let handle = SessionHandle { requests, fetches, connection: connection.clone() };
    let session =
        Session { inner: inner.clone(), connection: connection.clone(), handle, activity: Arc::default(), welcome };
    let mut tasks: JoinSet<TaskEnd> = JoinSet::new();
    let stop = inner.stop.child_token();
    tasks.spawn(control::run(session.clone(), *established, jobs, welcome_sender, go_away, stop.clone()));
    tasks.spawn(inbox::run(session.clone()));
    tasks.spawn(datagrams::run(session.clone()));
    tasks.spawn(fetch::run(session.clone(), fetch_jobs));
    let mut streams: BTreeMap<ConversationId, CancellationToken> = BTreeMap::new();
    reselect(&session, &mut tasks, &mut streams);
    let mut welcome = session.welcome.clone();
    let mut deadline = Some(tokio::time::Instant::now() + WELCOME_TIMEOUT);
    let mut announced = false;
    let mut successors = Successors::default();
    let over = loop {
        if !announced && let Some(welcome) = welcome.borrow().clone() {
            announced = true;
            deadline = None;
            inner.state.lock().session = Some(session.handle.clone());
            welcomed(&at, &welcome);
        }
        tokio::select! {
            decided = decided(&mut early), if early.is_some() => {
                inner.network.decided(decided);
                early = None;
                if decided == EarlyData::Rejected {
                    break Over::Rejected;
                }
            }
            () = sleep_until(patience), if early.is_some() && patience.is_some() => {
                break Over::Lost(Fault::Closed(ErrorCode::Timeout));
            }
            ended = tasks.join_next() => match ended {
                Some(Ok(TaskEnd::Conversation(id))) => {
                    streams.remove(&id);
                    reselect(&session, &mut tasks, &mut streams);
                }
                // Whichever notices first.
                Some(Ok(TaskEnd::Fault(fault))) if fault.is_early_data_rejected() => {
                    inner.network.decided(EarlyData::Rejected);
                    break Over::Rejected;
                }
                Some(Ok(TaskEnd::Fault(fault))) => break Over::Lost(fault),
                Some(Ok(TaskEnd::Goodbye)) => break Over::Stopped,
                Some(Ok(TaskEnd::Successor(outcome))) => {
                    if let Some(successor) = successors.decide(inner, &session.activity, outcome) {
                        break Over::Handover(successor);
                    }
                }
                Some(Err(error)) => {
                    tracing::error!(%error, "a task of the session failed");
                    break Over::Lost(Fault::Closed(ErrorCode::Internal));
                }
                None => break Over::Lost(Fault::Closed(ErrorCode::Internal)),
            },
            () = inner.reselect.notified() => reselect(&session, &mut tasks, &mut streams),
            changed = welcome.changed(), if !announced => if changed.is_err() {
                break Over::Lost(lost_reason(&connection).await);
            },
            Some(going) = going_away.recv() => Successors::leave(inner, &going, &mut tasks),
            () = session.activity.doubted(), if announced && successors.trusts() => {
                successors.doubt(inner, &session.activity, &mut tasks);
            }
            error = connection.closed() => break Over::Lost(error.into()),
            () = sleep_until(deadline), if !announced => break Over::Lost(Fault::Closed(ErrorCode::Timeout)),
            () = stop.cancelled() => break Over::Stopped,
        }
    };
    inner.state.lock().session = None;
    end(&mut tasks, &connection, &over).await;
    forget_streams(inner);
    match over {
        Over::Stopped => End::Stopped,
        Over::Handover(established) => End::Handover(established),
        Over::Lost(fault) if early.is_some() && fault.is_silence() => {
            End::Unreached { fault, others: patience.is_some() }
        }
        Over::Lost(fault) => End::Lost(fault),
        Over::Rejected => match control::hello(inner, &at, connection, None).await {
            Ok(established) => End::Handover(Box::new(established)),
            Err(error) => End::Lost(Fault::Ours(error)),
        },
    }
}

/// Ends the connection, unless it goes on, and the tasks.
async fn end(tasks: &mut JoinSet<TaskEnd>, connection: &Connection, over: &Over) {
    match over {
        Over::Stopped => {
            // The control task says goodbye by itself.
            let _ = tokio::time::timeout(GOODBYE, async {
                while let Some(ended) = tasks.join_next().await {
                    if matches!(ended, Ok(TaskEnd::Goodbye | TaskEnd::Fault(_))) {
                        break;
                    }
                }
            })
            .await;
            connection.close(ErrorCode::None, "goodbye");
        }
        Over::Handover(_) => connection.close(ErrorCode::None, "moved to another node"),
        Over::Lost(fault) => connection.close(fault.code(), ""),
        Over::Rejected => {}
    }
    tasks.shutdown().await;
}

/// Why a session is over, as its own loop sees it.
enum Over {
    Stopped,
    Lost(Fault),
    Handover(Box<Established>),
    /// Its early data was rejected: the connection is as good as new.
    Rejected,
}

/// What became of early data; never if there is none.
async fn decided(early: &mut Option<Early>) -> EarlyData {
    match early {
        Some(early) => early.decided().await,
        None => std::future::pending().await,
    }
}

/// The reason of a connection whose tasks have noticed its end already.
async fn lost_reason(connection: &Connection) -> Fault {
    match tokio::time::timeout(GOODBYE, connection.closed()).await {
        Ok(error) => error.into(),
        Err(_) => Fault::Closed(ErrorCode::Internal),
    }
}

async fn sleep_until(deadline: Option<tokio::time::Instant>) {
    match deadline {
        Some(deadline) => tokio::time::sleep_until(deadline).await,
        None => std::future::pending().await,
    }
}

/// Starts and ends conversation streams so that the right ones are there.
fn reselect(
    session: &Session,
    tasks: &mut JoinSet<TaskEnd>,
    streams: &mut BTreeMap<ConversationId, CancellationToken>,
) {
    let limit = usize::from(session.limits().conversation_streams);
    let selection = session.inner.state.lock().streams.selection(limit);
    for (id, token) in streams.iter() {
        if !selection.contains(id) {
            token.cancel();
        }
    }
    for id in selection {
        // A stream that is being cancelled still counts: its end brings us here again.
        if streams.len() >= limit {
            break;
        }
        if let std::collections::btree_map::Entry::Vacant(entry) = streams.entry(id) {
            let token = CancellationToken::new();
            entry.insert(token.clone());
            let session = session.clone();
            tasks.spawn(async move {
                match conversation::run(&session, id, token).await {
                    Ok(()) => TaskEnd::Conversation(id),
                    Err(fault) => TaskEnd::Fault(fault),
                }
            });
        }
    }
}

/// No conversation has a stream any more.
fn forget_streams(inner: &Inner) {
    let mut state = inner.state.lock();
    state.inbox_synced = false;
    for conv in state.conversations.values_mut() {
        conv.outbox.stream_lost();
        conv.machine = None;
        conv.typing.clear();
    }
}
