//! The control stream: `Hello`, `Welcome`, then requests.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rove_protocol::error::Violation;
use rove_protocol::ids::{AccountId, RequestId};
use rove_protocol::limits;
use rove_protocol::message::{
    AccountRef, Accounts, Body, ControlDown, GetAccounts, GoAway, Hello, Message, Response, Suspend, Watch, Welcome,
};
use rove_protocol::registry::{ClientState, ErrorCode, Method, StreamType};
use rove_protocol::session::client::Control as Machine;
use rove_protocol::transport::{Connection as _, FrameReader, SendStream as _};
use rove_protocol::wire::{List, Wire};
use rove_quic::{Connection, RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::{CONTROL_PRIORITY, Fault, Job, Session, TaskEnd};
use crate::Error;
use crate::inner::{Inner, request_frame};
use crate::net::{Early, EarlyData};
use crate::types::AccountInfo;

/// A connection that has said `Hello`.
pub(crate) struct Established {
    pub(crate) connection: Connection,
    /// With which node: `host:port`.
    pub(crate) at: String,
    /// If the handshake is not complete.
    pub(super) early: Option<Early>,
    send: SendStream,
    reader: FrameReader<RecvStream>,
    machine: Machine,
    /// Known already if somebody waited for it.
    pub(crate) welcome: Option<Arc<Welcome>>,
}

/// How long one successor may take to its `Welcome`: the old session works meanwhile, but not for long.
const SUCCESSOR_TIMEOUT: Duration = Duration::from_secs(4);

fn client_state(foreground: bool) -> ClientState {
    if foreground { ClientState::Foreground } else { ClientState::Background }
}

/// Opens the control stream and says `Hello`.
pub(super) async fn hello(
    inner: &Arc<Inner>,
    at: &str,
    connection: Connection,
    early: Option<Early>,
) -> Result<Established, Error> {
    let (mut send, recv) = connection.open().await?;
    send.set_priority(CONTROL_PRIORITY);
    let hello = {
        let state = inner.state.lock();
        let mut name = inner.options.name.clone();
        while name.len() > limits::CLIENT_NAME {
            name.pop();
        }
        Hello {
            device: state.account.device,
            secret: state.account.secret.clone(),
            minor: 0,
            state: client_state(state.foreground),
            client: name,
        }
    };
    let mut out = Vec::new();
    StreamType::Control.put(&mut out);
    hello.put_frame(&mut out);
    send.write(out.into()).await?;
    Ok(Established {
        connection,
        at: at.to_owned(),
        early,
        send,
        reader: FrameReader::new(recv),
        machine: Machine::new(),
        welcome: None,
    })
}

/// A session on the first of these nodes that serves, up to its `Welcome`.
pub(super) async fn first_successor(inner: &Arc<Inner>, places: &[String]) -> Result<Box<Established>, Fault> {
    let mut last = Fault::Closed(ErrorCode::Unavailable);
    for at in places {
        let successor = tokio::time::timeout(SUCCESSOR_TIMEOUT, successor(inner, at)).await;
        match successor.unwrap_or(Err(Fault::Closed(ErrorCode::Timeout))) {
            Ok(established) => return Ok(Box::new(established)),
            Err(fault) => last = fault,
        }
    }
    Err(last)
}

async fn successor(inner: &Arc<Inner>, at: &str) -> Result<Established, Fault> {
    let mut established = super::establish(inner, at).await.map_err(Fault::Ours)?;
    if let Some(mut early) = established.early.take() {
        let decided = tokio::select! {
            decided = early.decided() => decided,
            error = established.connection.closed() => return Err(error.into()),
        };
        inner.network.decided(decided);
        if decided == EarlyData::Rejected {
            established = hello(inner, at, established.connection, None).await.map_err(Fault::Ours)?;
        }
    }
    loop {
        let Some(frame) = established.reader.next().await? else { return Err(Fault::Closed(ErrorCode::Unavailable)) };
        let Some(frame) = ControlDown::decode(frame).map_err(Violation::from)? else { continue };
        match established.machine.on_frame(frame)? {
            ControlDown::Welcome(welcome) => {
                established.welcome = Some(Arc::new(welcome));
                return Ok(established);
            }
            ControlDown::Closed(closed) => return Err(Fault::Closed(closed.code)),
            ControlDown::GoAway(_) | ControlDown::Response(_) => return Err(Fault::Closed(ErrorCode::GoingAway)),
        }
    }
}

/// Who waits for an answer.
enum Waiting {
    Call(oneshot::Sender<Response>),
    Names(Vec<AccountId>),
    Watch,
}

struct Control {
    session: Session,
    send: SendStream,
    machine: Machine,
    waiting: HashMap<u64, Waiting>,
    last_id: u64,
    told_foreground: bool,
    told_watched: Option<Vec<AccountId>>,
}

/// Runs the stream to its end.
pub(super) async fn run(
    session: Session,
    established: Established,
    mut jobs: mpsc::Receiver<Job>,
    welcome: watch::Sender<Option<Arc<Welcome>>>,
    go_away: mpsc::Sender<GoAway>,
    stop: CancellationToken,
) -> TaskEnd {
    let Established { send, mut reader, machine, .. } = established;
    let inner = session.inner.clone();
    let told_foreground = inner.state.lock().foreground;
    let mut control =
        Control { session, send, machine, waiting: HashMap::new(), last_id: 0, told_foreground, told_watched: None };
    let result: Result<(), Fault> = async {
        control.ask().await?;
        loop {
            let room = control.machine.is_open() && control.machine.unanswered() < limits::REQUESTS_IN_FLIGHT / 2;
            tokio::select! {
                frame = reader.next() => {
                    let Some(frame) = frame? else { return Err(Fault::Closed(ErrorCode::Unavailable)) };
                    let Some(frame) = ControlDown::decode(frame).map_err(Violation::from)? else { continue };
                    control.session.heard();
                    match control.machine.on_frame(frame)? {
                        ControlDown::Welcome(message) => {
                            welcome.send_replace(Some(Arc::new(message)));
                            control.ask().await?;
                        }
                        ControlDown::Response(response) => control.answered(response).await?,
                        // One is enough; a second says the same.
                        ControlDown::GoAway(message) => _ = go_away.try_send(message),
                        ControlDown::Closed(closed) => return Err(Fault::Closed(closed.code)),
                    }
                }
                Some(job) = jobs.recv(), if room => {
                    control.request(job.method, job.body, Waiting::Call(job.answer)).await?;
                }
                () = inner.ask.notified(), if room => control.ask().await?,
                () = stop.cancelled() => {
                    control.send.write(Suspend { state: ClientState::Leaving }.to_frame().into()).await?;
                    control.send.finish();
                    return Ok(());
                }
            }
        }
    }
    .await;
    match result {
        Ok(()) => TaskEnd::Goodbye,
        Err(fault) => TaskEnd::Fault(fault),
    }
}

impl Control {
    async fn request(&mut self, method: Method, body: Bytes, waiting: Waiting) -> Result<(), Fault> {
        self.last_id += 1;
        if self.machine.sent(RequestId(self.last_id)).is_err() {
            // Dropping the sender says that the session did not answer: the caller asks again.
            return Ok(());
        }
        self.waiting.insert(self.last_id, waiting);
        self.session.activity.set_requests(self.machine.unanswered());
        self.session.awaits();
        self.send.write(request_frame(self.last_id, method, body).to_frame().into()).await?;
        Ok(())
    }

    /// Asks what the client itself wants to know, and says what the app is doing.
    async fn ask(&mut self) -> Result<(), Fault> {
        if !self.machine.is_open() {
            return Ok(());
        }
        let (foreground, watched, nameless) = {
            let mut state = self.session.inner.state.lock();
            let nameless: Vec<AccountId> = state.nameless.iter().copied().take(limits::ACCOUNTS_PER_REQUEST).collect();
            for account in &nameless {
                state.nameless.remove(account);
            }
            (state.foreground, state.watched.clone(), nameless)
        };
        if foreground != self.told_foreground {
            self.told_foreground = foreground;
            self.send.write(Suspend { state: client_state(foreground) }.to_frame().into()).await?;
        }
        // A new session watches nobody, so an empty set need not be told.
        let told = self.told_watched.as_ref();
        if told != Some(&watched) && !(told.is_none() && watched.is_empty()) {
            let accounts: List<AccountRef> = watched.iter().map(|account| AccountRef { account: *account }).collect();
            self.told_watched = Some(watched);
            self.request(Method::Watch, Watch { accounts }.encode_body().into(), Waiting::Watch).await?;
        }
        if !nameless.is_empty() {
            let accounts: List<AccountRef> = nameless.iter().map(|account| AccountRef { account: *account }).collect();
            let body = GetAccounts { accounts }.encode_body().into();
            self.request(Method::GetAccounts, body, Waiting::Names(nameless)).await?;
        }
        Ok(())
    }

    async fn answered(&mut self, response: Response) -> Result<(), Fault> {
        self.session.activity.set_requests(self.machine.unanswered());
        match self.waiting.remove(&response.id.0) {
            Some(Waiting::Call(answer)) => {
                // Whoever asked may have given up.
                let _ = answer.send(response);
            }
            Some(Waiting::Names(asked)) if response.code == ErrorCode::None => {
                let accounts = Accounts::decode_body(response.body).map_err(Violation::from)?;
                {
                    let mut state = self.session.inner.state.lock();
                    for info in accounts.accounts.into_vec() {
                        let info = AccountInfo { account: info.account, handle: info.handle, name: info.name };
                        state.named(info);
                    }
                    // Those it does not name are not asked for again.
                    for account in asked {
                        state.nameless.remove(&account);
                    }
                }
                self.session.inner.flush().await.map_err(Fault::Ours)?;
                self.session.inner.list.send_modify(|version| *version += 1);
                self.ask().await?;
            }
            // Named when they are needed next time; watched with the next session or change.
            Some(Waiting::Names(_)) => tracing::debug!(code = %response.code, "accounts were not named"),
            Some(Waiting::Watch) if response.code != ErrorCode::None => {
                tracing::debug!(code = %response.code, "the watch set was not taken");
                self.told_watched = None;
            }
            Some(Waiting::Watch) | None => {}
        }
        Ok(())
    }
}
