//! F4, what is asked of a node that stood still: it must not deny what came about meanwhile (D11).
//!
//! For a moment such a node believes that it leads, and it knows less than was acknowledged. The questions wait in its sockets when it goes
//! on, beside what its peers have to say, so that they are among the first things that it reads. Each asks for something of which it has
//! no trace: a conversation, a membership, a device.

use std::net::SocketAddr;
use std::time::Duration;

use quinn::ClientConfig;
use rove_protocol::ids::{AccountId, ConversationId, PartitionId, Seq, WriterId};
use rove_protocol::message::{Body as _, ChangeMembers, GetConversation, MemberChange, Open};
use rove_protocol::registry::{Method, Role};
use rove_tests::raw::Credentials;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout};

use super::links;
use crate::api::Api;
use crate::arena::{Arena, device, group, made};
use crate::session::{Lost, Session};

/// Whoever makes the conversations, and whoever comes into them and asks for them.
const MAKER: usize = 3;
const ASKER: usize = 0;
/// For what was sent to be in the sockets of the node: it is on loopback.
const ARRIVES: Duration = Duration::from_millis(50);
/// A node that goes on knows everything again within this, on a busy machine. Until then it may say: try again.
const ANSWERS_WITHIN: Duration = Duration::from_secs(20);
/// Between two questions of one who is told to try again.
const AGAIN_AFTER: Duration = Duration::from_millis(50);

/// What is there before the node stands still.
pub(super) struct Asker {
    node: u64,
    partition: PartitionId,
    /// A session at the node, of somebody who is not in the group yet.
    session: Session,
    group: ConversationId,
}

/// Questions on their way.
pub(super) struct Asked(JoinSet<Result<(), String>>);

impl Asker {
    /// Makes a group, in a partition that the node leads, without the one who is going to ask for it.
    pub(super) async fn at(arena: &mut Arena, node: u64, partition: PartitionId) -> Result<Self, String> {
        let group = make(arena, node, partition, &[]).await?;
        let session =
            Session::welcomed(arena.nodes.home(node).clients, &arena.world.tls, &arena.readers[ASKER]).await?;
        Ok(Self { node, partition, session, group })
    }

    /// While it stands still: others make another group, take the asker into both and let in a device of his. Then he asks for all of that,
    /// by the session that he has and by a fresh one.
    pub(super) async fn ask(self, arena: &mut Arena) -> Result<Asked, String> {
        let (at, tls) = (arena.nodes.home(self.node).clients, arena.world.tls.clone());
        let elsewhere = arena.nodes.home(other(self.node)).clients;
        let asker = arena.readers[ASKER].clone();
        let new = make(arena, other(self.node), self.partition, &[asker.account]).await?;
        let coming = MemberChange { account: asker.account, role: Role::Member };
        let body = ChangeMembers { conversation: self.group, changes: vec![coming].into() }.encode_body();
        made(elsewhere, &tls, &arena.readers[MAKER], Method::ChangeMembers, body.into()).await?;
        let mut api = Api::connect(elsewhere, &arena.nodes.trust).await?;
        let fresh = device(&mut api, "/v1/log-in", ASKER).await?;
        let mut asked = JoinSet::new();
        let conversations = [new, self.group];
        asked.spawn(answered(at, tls.clone(), asker, Some(self.session), conversations));
        asked.spawn(answered(at, tls, fresh, None, conversations));
        arena.pass(ARRIVES).await;
        Ok(Asked(asked))
    }
}

impl Asked {
    /// Waits for the answers, when the node goes on.
    pub(super) async fn answered(mut self) -> Result<(), String> {
        while let Some(answered) = self.0.join_next().await {
            answered.map_err(|error| error.to_string())??;
        }
        Ok(())
    }
}

fn other(node: u64) -> u64 {
    links::others(node).next().unwrap_or(1)
}

/// Makes a group in a partition, through a node.
async fn make(
    arena: &mut Arena,
    node: u64,
    partition: PartitionId,
    members: &[AccountId],
) -> Result<ConversationId, String> {
    let maker = &arena.readers[MAKER];
    // Never the same one twice.
    let body = group(maker.account, partition, arena.rng.below(u64::MAX / 2), members);
    made(arena.nodes.home(node).clients, &arena.world.tls, maker, Method::CreateGroup, body).await
}

/// Asks until there are answers: anew, if the node says that it cannot tell now. It must never deny.
async fn answered(
    at: SocketAddr,
    tls: ClientConfig,
    who: Credentials,
    mut session: Option<Session>,
    conversations: [ConversationId; 2],
) -> Result<(), String> {
    let deadline = Instant::now() + ANSWERS_WITHIN;
    loop {
        let asked = timeout(ANSWERS_WITHIN, look(session.take(), at, &tls, &who, conversations)).await;
        match asked.unwrap_or_else(|_| Err("silent".into())) {
            Ok(()) => return Ok(()),
            Err(lost) if lost.denies() => {
                return Err(format!("{at} denies what came about while it stood still: {lost}"));
            }
            Err(lost) if Instant::now() > deadline => {
                return Err(format!("{at} does not answer after it stood still: {lost}"));
            }
            Err(_) => tokio::time::sleep(AGAIN_AFTER).await,
        }
    }
}

/// Asks for conversations in both ways there are, all at once.
async fn look(
    session: Option<Session>,
    at: SocketAddr,
    tls: &ClientConfig,
    who: &Credentials,
    conversations: [ConversationId; 2],
) -> Result<(), Lost> {
    let mut session = match session {
        Some(session) => session,
        None => Session::welcomed(at, tls, who).await?,
    };
    let mut streams = Vec::new();
    for (number, conversation) in (1..).zip(conversations) {
        let body = GetConversation { conversation, after: AccountId(0) }.encode_body();
        session.ask(number, Method::GetConversation, body.into()).await?;
        let open = Open { conversation, after: Seq(0), seen: Seq(0), epoch: 0, writer: WriterId([0xfe; 16]) };
        streams.push(session.open(&open).await?);
    }
    for stream in &mut streams {
        stream.opened().await?;
    }
    for _ in conversations {
        session.answer().await?;
    }
    Ok(())
}
