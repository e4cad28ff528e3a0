//! The first words on a new connection: each end says who it is, and each looks whether it wants to talk.

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream};
use rove_protocol::ids::NodeId;
use rustls_pki_types::CertificateDer;

use super::frame::{Body as _, Hello};
use super::io::{FrameReader, LinkError, begin, close, skip};
use super::refusal::Refusal;
use super::registry::{self, FrameType, StreamType};
use super::{Shared, trust};

/// QUIC serves control before what is behind it.
const CONTROL_PRIORITY: i32 = 2;

/// What a peer said of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerHello {
    /// Who it is; its certificate says so too.
    pub node: NodeId,
    /// Its data directory: another one is another disk.
    pub store: [u8; 16],
    /// How often it was started with that directory. A lower number than the last time is an old copy of the disk.
    pub incarnation: u64,
    /// What it knew of the cluster's formation when the connection was made; [`super::PeerSink::formation`] has news.
    pub formation: Bytes,
    /// The lowest and the highest version of the protocol that it speaks.
    pub versions: (u32, u32),
    /// The version that is spoken with it.
    pub version: u32,
    /// The version of its program, for people.
    pub program: String,
}

/// A connection whose two ends have nothing against each other, so far.
#[derive(Debug)]
pub(super) struct Candidate {
    pub(super) connection: Connection,
    /// The control stream.
    pub(super) send: SendStream,
    pub(super) recv: FrameReader,
    pub(super) hello: PeerHello,
    /// Whether this node dialled, and so has had an answer. Otherwise the answer is still to be given.
    pub(super) dialled: bool,
}

impl Candidate {
    /// Says that another connection is kept.
    pub(super) fn refuse(&self, refusal: &Refusal) {
        close(&self.connection, refusal.code(), &refusal.to_string());
    }

    /// Gives the answer, if it is still to be given: the other end may send from then on.
    pub(super) async fn answer(&mut self, shared: &Shared) -> Result<(), LinkError> {
        if !self.dialled {
            let hello = shared.hello().to_frame();
            let written = tokio::time::timeout(registry::HELLO_TIMEOUT, self.send.write_chunk(hello)).await;
            written.map_err(|_| LinkError::Timeout("room for Hello"))??;
        }
        Ok(())
    }
}

/// How a greeting fails.
#[derive(Debug)]
pub(super) enum GreetError {
    /// The connection or what was on it.
    Link(LinkError),
    /// The other end is not wanted.
    Refused(NodeId, Refusal),
}

impl From<LinkError> for GreetError {
    fn from(error: LinkError) -> Self {
        Self::Link(error)
    }
}

impl From<ConnectionError> for GreetError {
    fn from(error: ConnectionError) -> Self {
        Self::Link(error.into())
    }
}

/// The side that dialled `expected`: `Hello`, and the answer.
pub(super) async fn dial(shared: &Shared, connection: Connection, expected: NodeId) -> Result<Candidate, GreetError> {
    let greeting = async {
        let (mut send, recv) = connection.open_bi().await?;
        begin(&mut send, StreamType::CONTROL, CONTROL_PRIORITY).await?;
        send.write_chunk(shared.hello().to_frame()).await.map_err(LinkError::from)?;
        let mut recv = FrameReader::new(recv, registry::CONTROL_FRAME);
        let hello = read_hello(&mut recv).await?;
        Ok::<_, GreetError>((send, recv, hello))
    };
    let (send, recv, hello) = in_time(&connection, greeting).await?;
    let refuse = |refusal| GreetError::Refused(expected, refusal);
    if hello.node != expected {
        let cluster = shared.config.name.clone();
        return Err(refuse(Refusal::OtherNode { claimed: hello.node, cluster }))
            .inspect_err(|error| tell(&connection, error));
    }
    let hello = check(shared, hello).await.map_err(refuse).inspect_err(|error| tell(&connection, error))?;
    Ok(Candidate { connection, send, recv, hello, dialled: true })
}

/// The side that was dialled: waits for `Hello`, and looks whether the certificate is that of the node which it claims.
pub(super) async fn answer(shared: &Shared, connection: Connection) -> Result<Candidate, GreetError> {
    let greeting = async {
        let (send, recv) = connection.accept_bi().await?;
        let mut recv = FrameReader::new(recv, registry::CONTROL_FRAME);
        match recv.stream_type().await? {
            Some(StreamType::CONTROL) => {}
            Some(other) => return Err(LinkError::StreamType(other).into()),
            None => return Err(LinkError::Ended(StreamType::CONTROL).into()),
        }
        let hello = read_hello(&mut recv).await?;
        Ok::<_, GreetError>((send, recv, hello))
    };
    let (send, recv, hello) = in_time(&connection, greeting).await?;
    // As on the other side.
    let _ = send.set_priority(CONTROL_PRIORITY);
    let node = hello.node;
    let checked = match check_certificate(shared, &connection, &hello) {
        Ok(()) => check(shared, hello).await,
        Err(refusal) => Err(refusal),
    };
    let refused = |refusal| GreetError::Refused(node, refusal);
    let hello = checked.map_err(refused).inspect_err(|error| tell(&connection, error))?;
    Ok(Candidate { connection, send, recv, hello, dialled: false })
}

async fn read_hello(recv: &mut FrameReader) -> Result<Hello, LinkError> {
    while let Some((frame_type, body)) = recv.next().await? {
        if frame_type == FrameType::HELLO {
            return Ok(Hello::read(body)?);
        }
        skip(frame_type)?;
    }
    Err(LinkError::Ended(StreamType::CONTROL))
}

async fn in_time<T>(
    connection: &Connection,
    greeting: impl Future<Output = Result<T, GreetError>>,
) -> Result<T, GreetError> {
    let greeted = tokio::time::timeout(registry::HELLO_TIMEOUT, greeting).await;
    greeted.unwrap_or(Err(GreetError::Link(LinkError::Timeout("Hello")))).inspect_err(|error| tell(connection, error))
}

/// Closes the connection with the reason.
fn tell(connection: &Connection, error: &GreetError) {
    match error {
        GreetError::Link(error) => close(connection, error.close_code(), &error.to_string()),
        GreetError::Refused(_, refusal) => close(connection, refusal.code(), &refusal.to_string()),
    }
}

/// TLS has seen that the certificate is one of the cluster's authority and in date; this looks whose it is.
fn check_certificate(shared: &Shared, connection: &Connection, hello: &Hello) -> Result<(), Refusal> {
    let ours = &shared.config.name;
    if hello.cluster != *ours {
        return Err(Refusal::OtherCluster { theirs: hello.cluster.clone(), ours: ours.clone() });
    }
    let chain =
        connection.peer_identity().and_then(|identity| identity.downcast::<Vec<CertificateDer<'static>>>().ok());
    let own = chain.as_ref().and_then(|chain| chain.first());
    if own.is_some_and(|certificate| trust::is_of_node(certificate, ours, hello.node)) {
        Ok(())
    } else {
        Err(Refusal::OtherNode { claimed: hello.node, cluster: ours.clone() })
    }
}

/// What both sides look at.
async fn check(shared: &Shared, hello: Hello) -> Result<PeerHello, Refusal> {
    let config = &shared.config;
    if hello.cluster != config.name {
        return Err(Refusal::OtherCluster { theirs: hello.cluster, ours: config.name.clone() });
    }
    if hello.node == config.node {
        return Err(Refusal::OwnId(hello.node));
    }
    let peer = shared.peer(hello.node);
    let (theirs, ours) = ((hello.lowest, hello.highest), config.versions);
    let version = theirs.1.min(ours.1);
    if version < theirs.0.max(ours.0) {
        return Err(Refusal::Versions { theirs, ours });
    }
    if peer.as_ref().is_some_and(|peer| peer.is_resting()) {
        return Err(Refusal::Resting);
    }
    let hello = PeerHello {
        node: hello.node,
        store: hello.store,
        incarnation: hello.incarnation,
        formation: hello.formation,
        versions: theirs,
        version,
        program: hello.program,
    };
    // Also of one that is no peer: it may become one, and is told what has to be done for that.
    let sink = shared.sink.clone();
    let asked = tokio::task::spawn_blocking(move || sink.hello_allowed(&hello).map(|()| hello)).await;
    // Only a defect, or an end, of ours leaves it unanswered.
    let hello = asked.unwrap_or_else(|error| Err(error.to_string().into())).map_err(Refusal::from)?;
    if peer.is_some() { Ok(hello) } else { Err(Refusal::UnknownNode(hello.node)) }
}
