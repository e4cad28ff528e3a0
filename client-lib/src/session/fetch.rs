//! The fetch stream: pages of history, one after the other. Opened when the first is wanted.

use rove_protocol::error::Violation;
use rove_protocol::message::{Event, Fetch, FetchDown, Message, Page, Unavailable};
use rove_protocol::registry::{ErrorCode, StreamType};
use rove_protocol::session::client::Fetch as Machine;
use rove_protocol::transport::{Connection as _, FrameReader, ReadError, SendStream as _, TransportError};
use rove_protocol::wire::Wire;
use rove_quic::{RecvStream, SendStream};
use tokio::sync::{mpsc, oneshot};

use super::{FETCH_PRIORITY, Fault, Session, TaskEnd};

/// A page that is wanted.
pub(crate) struct Job {
    pub(super) fetch: Fetch,
    pub(super) answer: oneshot::Sender<Result<FetchedPage, ErrorCode>>,
}

/// A page that has come.
#[derive(Debug, Default)]
pub(crate) struct FetchedPage {
    /// Ascending by seq.
    pub(crate) events: Vec<Event>,
    /// Ascending by seq, between the events.
    pub(crate) unavailable: Vec<Unavailable>,
    pub(crate) page: Option<Page>,
}

struct Stream {
    send: SendStream,
    reader: FrameReader<RecvStream>,
    machine: Machine,
}

pub(super) async fn run(session: Session, mut jobs: mpsc::Receiver<Job>) -> TaskEnd {
    let mut open = None;
    while let Some(job) = jobs.recv().await {
        match fetch(&session, &mut open, &job.fetch).await {
            Ok(result) => {
                if result.is_err() {
                    open = None;
                }
                // Whoever asked may have given up.
                let _ = job.answer.send(result);
            }
            Err(fault) => return TaskEnd::Fault(fault),
        }
    }
    // The session is over: it holds the other end.
    TaskEnd::Fault(Fault::Closed(ErrorCode::None))
}

/// One page, or why the server refuses it.
async fn fetch(
    session: &Session,
    open: &mut Option<Stream>,
    fetch: &Fetch,
) -> Result<Result<FetchedPage, ErrorCode>, Fault> {
    let stream = if let Some(stream) = open {
        stream
    } else {
        let (mut send, recv) = session.connection.open().await?;
        send.set_priority(FETCH_PRIORITY);
        let mut out = Vec::new();
        StreamType::Fetch.put(&mut out);
        send.write(out.into()).await?;
        open.insert(Stream { send, reader: FrameReader::new(recv), machine: Machine::new() })
    };
    if stream.machine.sent(fetch).is_err() {
        return Ok(Err(ErrorCode::LimitExceeded));
    }
    match stream.send.write(fetch.to_frame().into()).await {
        Ok(()) => {}
        Err(TransportError::Stopped(code)) => return Ok(Err(code)),
        Err(error) => return Err(error.into()),
    }
    let mut page = FetchedPage::default();
    loop {
        let frame = match stream.reader.next().await {
            Ok(Some(frame)) => frame,
            Ok(None) => return Ok(Err(ErrorCode::Unavailable)),
            Err(ReadError::Transport(TransportError::Reset(code))) => return Ok(Err(code)),
            Err(error) => return Err(error.into()),
        };
        let Some(frame) = FetchDown::decode(frame).map_err(Violation::from)? else { continue };
        match stream.machine.on_frame(frame)? {
            FetchDown::Event(event) => page.events.push(event),
            FetchDown::Unavailable(range) => page.unavailable.push(range),
            FetchDown::Page(end) => {
                page.page = Some(end);
                return Ok(Ok(page));
            }
            FetchDown::Closed(closed) => return Ok(Err(closed.code)),
        }
    }
}
