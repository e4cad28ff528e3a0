//! The nicks as real clients, and the conversations they meet in.

use std::collections::BTreeMap;
use std::time::Duration;

use rove_client::ids::{AccountId, ConversationId, Seq};
use rove_client::registry::ErrorCode;
use rove_client::{Client, Conversation, Error, Options, ServerAddress, SharedEndpoint, StoreLocation};
use tokio::task::JoinSet;

use super::ReplayArgs;
use super::plan::{Plan, handle};
use super::progress::Progress;
use crate::cli::error::Failure;

/// The accounts of a replay live for one run on a server for tests; their password guards nothing.
const PASSWORD: &str = "replayed for testing";
/// First wait before something is tried again, when the server does not say how long.
const FIRST_WAIT: Duration = Duration::from_millis(200);
/// Longest such wait.
const LAST_WAIT: Duration = Duration::from_secs(5);
/// Clients that leave at once. Each says goodbye and waits for its connection to drain.
const LEAVING: usize = 64;
/// Conversations opened at once.
const OPENING: usize = 64;

/// Every nick's client.
#[derive(Debug)]
pub struct People {
    clients: Vec<Client>,
}

/// One conversation, and every member's view of it.
#[derive(Debug)]
pub struct Room {
    /// Its id.
    pub id: ConversationId,
    /// The first seq that every member must hold: 1, or what came after the last ones joined.
    pub from: Seq,
    /// Who, by index into the plan's nicks, in the order of the file's members.
    pub members: Vec<Member>,
}

/// A member's view.
#[derive(Debug)]
pub struct Member {
    /// Index into [`Plan::nicks`].
    pub nick: usize,
    /// Its account.
    pub account: AccountId,
    /// Its conversation.
    pub conversation: Conversation,
}

impl Room {
    /// A member's view, by index into the plan's nicks.
    pub fn member(&self, nick: usize) -> Option<&Member> {
        self.members.iter().find(|member| member.nick == nick)
    }
}

impl People {
    /// Signs every nick up.
    ///
    /// # Errors
    /// One could not be, however often it was tried.
    pub async fn sign_up(args: &ReplayArgs, plan: &Plan, prefix: &str, progress: &Progress) -> Result<Self, Failure> {
        if let Some(dir) = &args.stores {
            std::fs::create_dir_all(dir)
                .map_err(|error| Failure::usage(format!("the stores in {}: {error}", dir.display())))?;
        }
        progress.stage("signing up", plan.nicks.len());
        let sockets = plan.nicks.len().div_ceil(args.clients_per_socket.max(1));
        let endpoints: Vec<SharedEndpoint> = if args.clients_per_socket > 1 {
            (0..sockets).map(|_| Client::shared_endpoint()).collect::<Result<_, _>>()?
        } else {
            Vec::new()
        };
        let mut jobs: JoinSet<Result<(usize, Client), (String, Error)>> = JoinSet::new();
        let mut clients: BTreeMap<usize, Client> = BTreeMap::new();
        let mut waiting = plan.nicks.iter().enumerate();
        loop {
            while jobs.len() < args.sign_ups.max(1)
                && let Some((index, nick)) = waiting.next()
            {
                let handle = handle(prefix, index, nick);
                let store = match &args.stores {
                    Some(dir) => StoreLocation::File(dir.join(format!("{handle}.db"))),
                    None => StoreLocation::Memory,
                };
                let options = Options {
                    name: "rove replay".to_owned(),
                    endpoint: endpoints.get(index % sockets.max(1)).cloned(),
                    // Everything is held, or it could not be compared.
                    initial_events: u64::MAX,
                    ..Options::new(store)
                };
                let (server, progress) = (args.server.clone(), progress.clone());
                jobs.spawn(async move {
                    let signed_up = enter(&server, &handle, &options, &progress).await;
                    signed_up.map(|client| (index, client)).map_err(|error| (handle, error))
                });
            }
            match jobs.join_next().await {
                None => break,
                Some(Ok(Ok((index, client)))) => {
                    clients.insert(index, client);
                    progress.step(1);
                }
                Some(Ok(Err((handle, error)))) => {
                    let what = format!("signing up {handle}");
                    return Err(match error {
                        Error::Server { code: ErrorCode::RateLimited, .. } => {
                            Failure::failed(format!("{what}: {error}; {LIMITED}"))
                        }
                        error => Failure::from(error).prefixed(&what),
                    });
                }
                Some(Err(error)) => return Err(Failure::failed(format!("signing up: {error}"))),
            }
        }
        Ok(Self { clients: clients.into_values().collect() })
    }

    /// The clients, in the order of the plan's nicks.
    pub fn clients(&self) -> &[Client] {
        &self.clients
    }

    /// Makes a group of each file, and has every member open it.
    ///
    /// # Errors
    /// What the server says.
    pub async fn meet(&self, plan: &Plan, progress: &Progress) -> Result<Vec<Room>, Failure> {
        progress.stage("making groups", plan.files.len());
        let mut rooms = Vec::new();
        for file in &plan.files {
            let Some(creator) = file.members.first().and_then(|nick| self.clients.get(*nick)) else {
                rooms.push(None);
                continue;
            };
            let others: Vec<AccountId> =
                file.members[1..].iter().filter_map(|nick| self.clients.get(*nick)).map(Client::account).collect();
            let made = again(progress, || crate::group::create_with(creator, &file.title, &others)).await;
            let (id, further) = made.map_err(|error| Failure::from(error).prefixed(&file.title))?;
            // Who joined by a later request may not see what was before.
            let from = if further == 0 {
                Seq(1)
            } else {
                let details = again(progress, || creator.details(id, AccountId(0))).await?;
                details.head.next()
            };
            rooms.push(Some((id, from)));
            progress.step(1);
        }
        self.open(plan, rooms, progress).await
    }

    async fn open(
        &self,
        plan: &Plan,
        rooms: Vec<Option<(ConversationId, Seq)>>,
        progress: &Progress,
    ) -> Result<Vec<Room>, Failure> {
        let visits = plan.files.iter().map(|file| file.members.len()).sum();
        progress.stage("opening conversations", visits);
        let mut wanted = Vec::new();
        for (file, room) in plan.files.iter().zip(&rooms) {
            let Some((id, _)) = room else { continue };
            wanted.extend(file.members.iter().map(|nick| (*id, *nick)));
        }
        let mut wanted = wanted.into_iter();
        let mut jobs: JoinSet<Result<(ConversationId, usize, Conversation), Error>> = JoinSet::new();
        let mut open: BTreeMap<(ConversationId, usize), Conversation> = BTreeMap::new();
        loop {
            while jobs.len() < OPENING
                && let Some((id, nick)) = wanted.next()
            {
                let Some(client) = self.clients.get(nick).cloned() else { continue };
                let progress = progress.clone();
                jobs.spawn(async move {
                    let conversation = again(&progress, || client.open_conversation(id)).await?;
                    Ok((id, nick, conversation))
                });
            }
            match jobs.join_next().await {
                None => break,
                Some(Ok(Ok((id, nick, conversation)))) => {
                    open.insert((id, nick), conversation);
                    progress.step(1);
                }
                Some(Ok(Err(error))) => return Err(Failure::from(error).prefixed("opening a conversation")),
                Some(Err(error)) => return Err(Failure::failed(format!("opening a conversation: {error}"))),
            }
        }
        let mut result = Vec::new();
        for (file, room) in plan.files.iter().zip(rooms) {
            let (id, from) = room.unwrap_or_default();
            let member = |nick: usize| {
                let account = self.clients.get(nick)?.account();
                Some(Member { nick, account, conversation: open.remove(&(id, nick))? })
            };
            result.push(Room { id, from, members: file.members.iter().copied().filter_map(member).collect() });
        }
        Ok(result)
    }

    /// Everybody says goodbye.
    pub async fn leave(self) {
        let mut clients = self.clients.into_iter();
        let mut jobs = JoinSet::new();
        loop {
            while jobs.len() < LEAVING
                && let Some(client) = clients.next()
            {
                jobs.spawn(client.close());
            }
            if jobs.join_next().await.is_none() {
                break;
            }
        }
    }
}

/// What to do about a server that lets one address make a few accounts only.
const LIMITED: &str = "a server that is replayed to must not limit accounts by address: in its configuration, rate_limits = false \
                       under [accounts], and restart it";

/// Signs up; an answer that was lost is made up for by logging in, since nobody else has this handle. A limit on sign-ups is not
/// waited for: it is about a minute for each, and hundreds are to come.
async fn enter(server: &ServerAddress, handle: &str, options: &Options, progress: &Progress) -> Result<Client, Error> {
    let mut first = true;
    again(progress, || {
        let repeated = !std::mem::replace(&mut first, false);
        async move {
            match Client::sign_up(server, handle, PASSWORD, options.clone()).await {
                Err(Error::Server { code: ErrorCode::NameTaken, .. }) if repeated => {
                    Client::log_in(server, handle, PASSWORD, options.clone()).await.map(Ok)
                }
                Err(error @ Error::Server { code: ErrorCode::RateLimited, .. }) => Ok(Err(error)),
                outcome => outcome.map(Ok),
            }
        }
    })
    .await?
}

/// Does something until it is done, is refused for good, or nothing has moved for too long.
async fn again<T, F>(progress: &Progress, mut attempt: impl FnMut() -> F) -> Result<T, Error>
where
    F: Future<Output = Result<T, Error>>,
{
    let mut wait = FIRST_WAIT;
    loop {
        let error = match attempt().await {
            Ok(value) => return Ok(value),
            Err(error) => error,
        };
        let Some(advice) = retry_after(&error) else { return Err(error) };
        tokio::select! {
            () = tokio::time::sleep(wait.max(advice)) => {}
            () = progress.stalled() => return Err(error),
        }
        wait = (wait * 2).min(LAST_WAIT);
    }
}

/// Whether trying again may help, and when.
fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Server { code, retry_after_ms, .. } => {
            let passing = matches!(
                *code,
                ErrorCode::Busy
                    | ErrorCode::RateLimited
                    | ErrorCode::Unavailable
                    | ErrorCode::Behind
                    | ErrorCode::GoingAway
                    | ErrorCode::Internal
                    | ErrorCode::Timeout
            );
            passing.then(|| Duration::from_millis(u64::from(*retry_after_ms)))
        }
        Error::Transport(_) | Error::Timeout(_) => Some(Duration::ZERO),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn busy(retry_after_ms: u32) -> Error {
        Error::Server { code: ErrorCode::Busy, message: String::new(), retry_after_ms }
    }

    #[tokio::test(start_paused = true)]
    async fn what_may_pass_is_tried_again_and_what_may_not_is_not() {
        let progress = Progress::new(false, Duration::from_secs(60));
        let mut tries = 0;
        let outcome = again(&progress, || {
            tries += 1;
            let now = tries;
            async move { if now < 4 { Err(busy(100)) } else { Ok(now) } }
        })
        .await;
        assert_eq!(outcome.unwrap(), 4);
        let mut tries = 0;
        let refused = again(&progress, || {
            tries += 1;
            async {
                Err::<(), _>(Error::Server { code: ErrorCode::Forbidden, message: String::new(), retry_after_ms: 0 })
            }
        })
        .await;
        assert!(refused.is_err());
        assert_eq!(tries, 1);
    }

    #[tokio::test(start_paused = true)]
    async fn trying_again_ends_when_nothing_moves() {
        let progress = Progress::new(false, Duration::from_secs(60));
        let outcome = again(&progress, || async { Err::<(), _>(busy(0)) }).await;
        assert!(matches!(outcome, Err(Error::Server { code: ErrorCode::Busy, .. })));
    }
}
