//! A writer that outlives the node it talks to.
//!
//! It gives up a node that is silent when the client library would (`rove_client_core::heartbeat`), goes to the next one, or comes back to
//! the only one, as soon as that library would try it (`rove_client_core::reconnect`), and sends again what was not answered. A restarted node
//! ends what is left of a session with a stateless reset, which needs no patience.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rove_client_core::heartbeat::{DOUBT_MS, PROBE_MS, UNANSWERED};
use rove_client_core::reconnect::Backoff;
use rove_protocol::ids::{ConversationId, Seq, WriterId};
use rove_protocol::limits;
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::accounts::Credentials;
use super::error::LoadError;
use super::listener::hear;
use super::pace::Pace;
use super::poster::{Known, Outcome, Poster};
use super::session::{Conversation, Dialer, Session};
use crate::Span;
use crate::random::Random;

/// Silence after which the only node is given up: as many unanswered probes as the client library sends.
const ALONE: Duration = Duration::from_millis(PROBE_MS * UNANSWERED as u64);
/// Silence after which another node is tried if there is one.
const ELSEWHERE: Duration = Duration::from_millis(DOUBT_MS);
/// From connecting to an open conversation: as the client library gives a node if there are others, and not longer if there are none, as
/// what ends a measurement of a dead node is its coming back.
const CONNECT_WITHIN: Duration = Duration::from_secs(3);
/// The longest wait between two attempts: a measurement does not last as long as a user waits.
const RETRY_CAP_MS: u64 = 1_000;
/// After the end of what is measured, without an acknowledgement: a node that is back has long answered.
const PATIENCE: Duration = Duration::from_secs(20);
/// For reading a conversation: millions of posts take no longer.
const READ_WITHIN: Duration = Duration::from_secs(120);

/// A writer with a conversation of its own.
#[derive(Debug)]
pub struct Device {
    credentials: Credentials,
    conversation: ConversationId,
    writer: WriterId,
    /// A socket for each node.
    nodes: Arc<Vec<Dialer>>,
    /// The place of the node that it prefers.
    home: usize,
    known: Known,
    random: Random,
}

impl Device {
    /// The `number`th device, which has posted nothing yet.
    pub fn new(
        number: usize,
        credentials: Credentials,
        conversation: ConversationId,
        writer: WriterId,
        nodes: Arc<Vec<Dialer>>,
    ) -> Self {
        let (home, random) = (number % nodes.len(), Random::of(0, number as u64));
        Self { credentials, conversation, writer, nodes, home, known: Known::NOTHING, random }
    }

    /// Posts in its pace until there is no more and everything is acknowledged, whatever becomes of its nodes meanwhile.
    ///
    /// # Errors
    /// What no other connection mends, and [`LoadError::Lost`]. What one would mend, if it goes on for long after the span.
    pub async fn post(&mut self, pace: Pace, span: Span) -> Result<Outcome, LoadError> {
        let patience = if self.nodes.len() > 1 { ELSEWHERE } else { ALONE };
        let mut poster = Poster::new(pace, span, limits::UNANSWERED_POSTS).going_on(self.known).patient(patience);
        let (mut at, mut backoff) = (self.home, Backoff::new(RETRY_CAP_MS));
        let mut last_known = span.until().max(Instant::now());
        loop {
            let ended = self.session(at, &mut poster).await;
            if self.known != poster.known() {
                (self.known, last_known) = (poster.known(), last_known.max(Instant::now()));
            }
            match ended {
                Ok(()) => return Ok(poster.outcome()),
                Err(error) if !error.may_pass() || last_known.elapsed() > PATIENCE => return Err(error),
                Err(_) => at += 1,
            }
            sleep(Duration::from_millis(backoff.next_ms(self.random.number()))).await;
        }
    }

    /// The place of the node that it is at, as long as that lives.
    pub fn home(&self) -> usize {
        self.home
    }

    /// How many of its posts were acknowledged.
    pub fn posts(&self) -> u64 {
        self.known.post_no.0
    }

    /// Reads its conversation from the beginning at the node at that place, and everything in it that was acknowledged.
    ///
    /// # Errors
    /// [`LoadError::Lost`] with what was not there.
    pub async fn read_back(&self, node: usize) -> Result<(), LoadError> {
        let (mut heard, mut why) = (0, "it takes too long".to_owned());
        let read = async {
            // Each time from the beginning.
            while let Err(error) = self.read(node, &mut heard).await {
                let passes = error.may_pass();
                why = error.to_string();
                if !passes {
                    return false;
                }
                sleep(Duration::from_millis(RETRY_CAP_MS)).await;
            }
            true
        };
        if timeout(READ_WITHIN, read).await.unwrap_or(false) {
            return Ok(());
        }
        let (conversation, posts) = (self.conversation, self.posts());
        let node = node + 1;
        Err(LoadError::Lost(format!(
            "of {posts} acknowledged posts of {conversation}, node {node} gives {heard}: {why}"
        )))
    }

    async fn read(&self, node: usize, heard: &mut u64) -> Result<(), LoadError> {
        *heard = 0;
        // Another writer: this one's own posts are what is to be heard.
        let (_session, mut conversation) = self.open(node, WriterId([255; 16]), Seq(0)).await?;
        let total = watch::channel(self.posts()).1;
        hear(&mut conversation, self.writer, total, |_, _| *heard += 1).await
    }

    async fn session(&self, at: usize, poster: &mut Poster) -> Result<(), LoadError> {
        // Dropping the session would close the connection.
        let (_session, mut conversation) = self.open(at, self.writer, poster.known().seq).await?;
        poster.reopened(conversation.last_post_no)?;
        poster.run(&mut conversation).await
    }

    async fn open(&self, at: usize, writer: WriterId, after: Seq) -> Result<(Session, Conversation), LoadError> {
        let dialer = &self.nodes[at % self.nodes.len()];
        let open = async {
            let session = dialer.session(&self.credentials).await?;
            let conversation = session.open_after(self.conversation, writer, after, self.known.seq).await?;
            Ok((session, conversation))
        };
        let opened = timeout(CONNECT_WITHIN, open).await;
        opened.unwrap_or_else(|_| Err(LoadError::Connect("no conversation in time".to_owned())))
    }
}
