//! Connects the screen to a client.

use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crossterm::event::{Event, EventStream};
use futures::StreamExt as _;
use jiff::tz::TimeZone;
use rove_client::ids::{AccountId, ConversationId, Seq};
use rove_client::registry::ErrorCode;
use rove_client::{Client, ConnectionState, Conversation, Conversations, PresenceMap, Version};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::screen::Screen;
use super::state::{Action, Connection, Glyphs, Older, Pane, State};
use super::view::{self, Names};
use super::{layout, render};
use crate::explain;

/// Items loaded at first, and more with each page: several screens of the tallest terminal.
const PAGE: usize = 200;
/// Accounts a session may watch (`limits::WATCHED_ACCOUNTS`).
const WATCHED: usize = 256;
/// A typing notice expires after six seconds; it is renewed well before.
const TYPING_RENEW: Duration = Duration::from_secs(3);
/// Without a key for so long nobody is typing any more.
const TYPING_IDLE: Duration = Duration::from_secs(5);
/// The seconds of "reconnecting in N s" are seen to pass.
const TICK: Duration = Duration::from_secs(1);

/// Why the chat ended.
#[derive(Debug, thiserror::Error)]
pub enum UiError {
    /// The terminal failed.
    #[error("the terminal: {0}")]
    Terminal(#[from] io::Error),
    /// The client library failed.
    #[error("{}", explain::error(.0))]
    Client(#[from] rove_client::Error),
}

/// How it looks.
#[derive(Debug, Clone)]
pub struct Look {
    /// Signs.
    pub glyphs: Glyphs,
    /// Whether there are colours.
    pub colour: bool,
    /// The user's time zone.
    pub zone: TimeZone,
}

impl Look {
    /// As the environment asks: `LC_ALL`, `LC_CTYPE`, `LANG`, `TERM`, `NO_COLOR`, `TZ`.
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let locale =
            variable("LC_ALL").or_else(|| variable("LC_CTYPE")).or_else(|| variable("LANG")).unwrap_or_default();
        let utf_8 = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        // The console of Linux has a font of 256 signs; the ticks are not among them.
        let poor = matches!(variable("TERM").as_deref(), None | Some("linux" | "dumb" | "vt100"));
        Self {
            glyphs: if utf_8 && !poor { Glyphs::Unicode } else { Glyphs::Plain },
            colour: variable("NO_COLOR").is_none(),
            zone: TimeZone::system(),
        }
    }
}

/// Chats until the user leaves; with a conversation shown at first, or the list.
///
/// # Errors
/// [`UiError`].
pub async fn run(client: Client, first: Option<ConversationId>) -> Result<(), UiError> {
    run_with(client, first, Look::from_environment()).await
}

/// Like [`run`], and looks as told.
///
/// # Errors
/// [`UiError`].
pub async fn run_with(client: Client, first: Option<ConversationId>, look: Look) -> Result<(), UiError> {
    let mut app = App::new(client, look)?;
    app.refresh_rows();
    if let Some(first) = first {
        app.open(first).await?;
    }
    let mut screen = Screen::take()?;
    app.run(&mut screen).await
}

/// What came of something that waited for the server.
enum Done {
    Named(AccountId, Result<String, rove_client::Error>),
    Made(Result<ConversationId, rove_client::Error>),
    Older(ConversationId, Result<Seq, rove_client::Error>),
    Others(ConversationId, Result<u32, rove_client::Error>),
}

/// The conversation shown.
struct Open {
    conversation: Conversation,
    updates: watch::Receiver<Version>,
    /// Items wanted from the end.
    window: usize,
    /// Members beside the user, once known.
    others: Option<usize>,
    marked: Seq,
}

struct App {
    client: Client,
    state: State,
    names: Names,
    connection: watch::Receiver<ConnectionState>,
    conversations: Conversations,
    presence: watch::Receiver<Arc<PresenceMap>>,
    watched: BTreeSet<AccountId>,
    open: Option<Open>,
    jobs: JoinSet<Done>,
    typing: Option<(Instant, Instant)>,
}

impl App {
    fn new(client: Client, look: Look) -> Result<Self, UiError> {
        let mut names = Names::default();
        names.learn(client.account(), client.handle());
        let mut state = State::new(client.handle(), client.account(), look.zone);
        state.glyphs = look.glyphs;
        state.colour = look.colour;
        state.now_ms = now_ms();
        let mut connection = client.state();
        state.connection = view::connection(&connection.borrow_and_update(), state.now_ms);
        Ok(Self {
            state,
            names,
            connection,
            conversations: client.conversations()?,
            presence: client.presence()?,
            watched: BTreeSet::new(),
            open: None,
            jobs: JoinSet::new(),
            typing: None,
            client,
        })
    }

    async fn run(&mut self, screen: &mut Screen) -> Result<(), UiError> {
        let mut keys = EventStream::new();
        let mut terminate = signal(SignalKind::terminate())?;
        let mut hang_up = signal(SignalKind::hangup())?;
        let mut tick = tokio::time::interval(TICK);
        let size = screen.terminal().size()?;
        self.state.resize(size.width, size.height);
        loop {
            self.ask_for_names();
            screen.terminal().draw(|frame| render::render(&self.state, frame))?;
            let go_on = tokio::select! {
                event = keys.next() => match event {
                    Some(event) => self.event(event?).await?,
                    None => false,
                },
                changed = self.connection.changed() => {
                    changed.map_err(|_| self.closed())?;
                    self.connection_changed();
                    true
                }
                changed = self.conversations.changed() => {
                    changed.map_err(|_| self.closed())?;
                    self.refresh_rows();
                    true
                }
                changed = self.presence.changed() => {
                    changed.map_err(|_| self.closed())?;
                    self.refresh_rows();
                    true
                }
                changed = pane_changed(&mut self.open) => {
                    changed.map_err(|()| self.closed())?;
                    self.refresh_pane().await?;
                    true
                }
                Some(done) = self.jobs.join_next(), if !self.jobs.is_empty() => {
                    if let Ok(done) = done {
                        self.done(done).await?;
                    }
                    true
                }
                _ = tick.tick() => {
                    self.tick();
                    true
                }
                _ = terminate.recv() => false,
                _ = hang_up.recv() => false,
            };
            if !go_on {
                self.stop_typing();
                return Ok(());
            }
        }
    }

    fn connection_changed(&mut self) {
        self.state.now_ms = now_ms();
        let state = self.connection.borrow_and_update().clone();
        self.state.connection = view::connection(&state, self.state.now_ms);
    }

    /// The client has ended under the chat; its last state says why.
    fn closed(&self) -> UiError {
        let code = match &*self.connection.borrow() {
            ConnectionState::Closed { code } => *code,
            _ => ErrorCode::None,
        };
        rove_client::Error::Closed(code).into()
    }

    async fn event(&mut self, event: Event) -> Result<bool, UiError> {
        self.state.now_ms = now_ms();
        let action = match event {
            Event::Key(key) => self.state.key(key),
            Event::Paste(text) => self.state.paste(&text),
            Event::Resize(columns, rows) => {
                self.state.resize(columns, rows);
                None
            }
            Event::FocusGained | Event::FocusLost | Event::Mouse(_) => None,
        };
        let go_on = match action {
            Some(action) => self.act(action).await?,
            None => true,
        };
        self.mark_read().await?;
        Ok(go_on)
    }

    async fn act(&mut self, action: Action) -> Result<bool, UiError> {
        match action {
            Action::Quit => return Ok(false),
            Action::Open(id) => self.open(id).await?,
            Action::OpenHandle(handle) => {
                self.state.notice = Some(format!("looking for {handle}"));
                let client = self.client.clone();
                self.jobs.spawn(async move { Done::Made(client.create_direct(&handle).await) });
            }
            Action::NewGroup(title, handles) => {
                self.state.notice = Some(format!("making the group {title}"));
                let client = self.client.clone();
                self.jobs.spawn(async move { Done::Made(crate::group::create(&client, &title, &handles).await) });
            }
            Action::Send(text) => self.send(&text).await?,
            Action::Older => self.fetch_older().await?,
            Action::Typing(true) => self.start_typing(),
            Action::Typing(false) => self.stop_typing(),
            Action::Retry(local, text) => {
                if let Some(open) = &self.open {
                    open.conversation.cancel(local).await?;
                }
                self.send(&text).await?;
            }
            Action::Cancel(local) => {
                if let Some(open) = &self.open {
                    self.state.notice = Some(
                        match open.conversation.cancel(local).await? {
                            rove_client::Cancel::Done => "cancelled",
                            rove_client::Cancel::Requested => {
                                "it was sent already: cancelled if the server has not taken it"
                            }
                            rove_client::Cancel::TooLate => "too late: it is posted",
                        }
                        .to_owned(),
                    );
                }
                self.refresh_pane().await?;
            }
        }
        Ok(true)
    }

    async fn send(&mut self, text: &str) -> Result<(), UiError> {
        self.stop_typing();
        let Some(open) = &self.open else { return Ok(()) };
        match open.conversation.post(text).await {
            // Its outcome is shown by the timeline.
            Ok(_handle) => self.refresh_pane().await,
            Err(error @ rove_client::Error::Store(_)) => Err(error.into()),
            Err(error) => {
                // What was written is not lost.
                self.state.input.insert(text);
                self.state.notice = Some(explain::error(&error));
                Ok(())
            }
        }
    }

    async fn open(&mut self, id: ConversationId) -> Result<(), UiError> {
        self.stop_typing();
        let conversation = match self.client.open_conversation(id).await {
            Ok(conversation) => conversation,
            Err(error @ rove_client::Error::Store(_)) => return Err(error.into()),
            Err(error) => {
                self.state.notice = Some(explain::error(&error));
                return Ok(());
            }
        };
        let read = conversation.read();
        let list = self.conversations.list();
        let summary = list.iter().find(|summary| summary.id == id);
        let title = summary.map_or_else(|| id.to_string(), |summary| view::title(summary, &mut self.names));
        let group = summary.is_none_or(view::is_group);
        self.state.show(Pane {
            id,
            title,
            group,
            presence: None,
            items: Vec::new(),
            typing: Vec::new(),
            older: Older::More,
            read_before: (read > Seq(0)).then_some(read),
            scroll: 0,
        });
        let client = self.client.clone();
        let others = if group { None } else { Some(1) };
        if group {
            self.jobs.spawn(async move {
                Done::Others(id, client.details(id, AccountId(0)).await.map(|details| details.member_count))
            });
        }
        let updates = conversation.updates();
        self.open = Some(Open { conversation, updates, window: PAGE, others, marked: read });
        self.refresh_rows();
        self.refresh_pane().await
    }

    /// The list, and what the title of the conversation shown says.
    fn refresh_rows(&mut self) {
        let list = self.conversations.list();
        let online = self.presence.borrow_and_update().clone();
        for peer in list.iter().filter_map(|summary| summary.peer.as_ref()) {
            self.names.learn(peer.account, peer.handle.clone());
        }
        let rows = list.iter().map(|summary| view::row(summary, &mut self.names, &online)).collect();
        self.state.set_rows(rows);
        if let Some(pane) = &mut self.state.pane
            && let Some(summary) = list.iter().find(|summary| summary.id == pane.id)
        {
            pane.title = view::title(summary, &mut self.names);
            pane.group = view::is_group(summary);
            pane.presence = view::peer_presence(summary, &online);
        }
        let peers: BTreeSet<AccountId> =
            list.iter().filter_map(|summary| summary.peer.as_ref()).map(|peer| peer.account).take(WATCHED).collect();
        if peers != self.watched {
            let accounts: Vec<AccountId> = peers.iter().copied().collect();
            if self.client.watch_presence(&accounts).is_ok() {
                self.watched = peers;
            }
        }
    }

    async fn refresh_pane(&mut self) -> Result<(), UiError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.updates.borrow_and_update();
        let timeline = open.conversation.timeline(open.window).await?;
        let receipts = open.conversation.receipts();
        let typing = open.conversation.typing();
        let items = view::items(&timeline, &mut self.names, &receipts, open.others);
        let typing: Vec<String> = typing.into_iter().map(|account| self.names.get(account)).collect();
        let first = timeline.iter().find_map(|item| item.seq);
        if let Some(pane) = &mut self.state.pane {
            pane.typing = typing;
            if first == Some(Seq(1)) {
                pane.older = Older::Beginning;
            }
        }
        self.state.set_items(items);
        self.mark_read().await
    }

    /// What is on the screen is read.
    async fn mark_read(&mut self) -> Result<(), UiError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let cursor = open.conversation.cursor();
        if self.state.at_bottom() && layout::shown(&self.state).1 && cursor > open.marked {
            open.conversation.mark_read(cursor).await?;
            open.marked = cursor;
        }
        Ok(())
    }

    /// More of the store, then more of the server.
    async fn fetch_older(&mut self) -> Result<(), UiError> {
        let Some(open) = &mut self.open else { return Ok(()) };
        open.window += PAGE;
        let held = open.conversation.timeline(open.window).await?;
        let first = held.iter().find_map(|item| item.seq).unwrap_or(open.conversation.head().next());
        if held.len() >= open.window {
            if let Some(pane) = &mut self.state.pane {
                pane.older = Older::More;
            }
            return self.refresh_pane().await;
        }
        let conversation = open.conversation.clone();
        self.jobs.spawn(async move {
            let limit = u32::try_from(PAGE).unwrap_or(u32::MAX);
            Done::Older(conversation.id(), conversation.fetch_older(first, limit).await)
        });
        Ok(())
    }

    async fn done(&mut self, done: Done) -> Result<(), UiError> {
        match done {
            Done::Named(account, Ok(name)) => {
                self.names.learn(account, name);
                self.refresh_rows();
                self.refresh_pane().await?;
            }
            Done::Named(account, Err(_)) => self.names.forget(account),
            Done::Made(Ok(id)) => {
                self.state.notice = None;
                self.open(id).await?;
            }
            Done::Made(Err(error)) => self.state.notice = Some(explain::error(&error)),
            Done::Older(id, result) => {
                if let Some(pane) = self.state.pane.as_mut().filter(|pane| pane.id == id) {
                    pane.older = Older::More;
                    if let Err(error) = result {
                        self.state.notice = Some(format!("older messages: {}", explain::error(&error)));
                    }
                    self.refresh_pane().await?;
                }
            }
            Done::Others(id, Ok(count)) => {
                if let Some(open) = self.open.as_mut().filter(|open| open.conversation.id() == id) {
                    open.others = usize::try_from(count).ok().map(|count| count.saturating_sub(1));
                    self.refresh_pane().await?;
                }
            }
            // Without the number of members no message is said to have reached all of them.
            Done::Others(_, Err(_)) => {}
        }
        Ok(())
    }

    fn ask_for_names(&mut self) {
        for account in self.names.wanted() {
            let client = self.client.clone();
            self.jobs.spawn(async move { Done::Named(account, client.name_of(account).await) });
        }
    }

    fn start_typing(&mut self) {
        let Some(open) = &self.open else { return };
        let now = Instant::now();
        let told = match self.typing {
            Some((told, _)) if now.duration_since(told) < TYPING_RENEW => told,
            _ => {
                open.conversation.set_typing(true);
                now
            }
        };
        self.typing = Some((told, now));
    }

    fn stop_typing(&mut self) {
        if self.typing.take().is_some()
            && let Some(open) = &self.open
        {
            open.conversation.set_typing(false);
        }
    }

    fn tick(&mut self) {
        self.state.now_ms = now_ms();
        if self.typing.is_some_and(|(_, key)| key.elapsed() > TYPING_IDLE) {
            self.stop_typing();
        }
        // A typing notice that was not renewed has run out without a change being told.
        if let (Some(open), Some(pane)) = (&self.open, &mut self.state.pane) {
            pane.typing = open.conversation.typing().into_iter().map(|account| self.names.get(account)).collect();
        }
        if let Connection::Connected { rtt_ms } = &mut self.state.connection {
            let rtt = self.client.stats().rtt;
            if !rtt.is_zero() {
                *rtt_ms = u64::try_from(rtt.as_millis()).unwrap_or(u64::MAX);
            }
        }
    }
}

/// Waits for a change of the conversation shown; for ever if there is none.
async fn pane_changed(open: &mut Option<Open>) -> Result<(), ()> {
    match open {
        Some(open) => open.updates.changed().await.map_err(|_| ()),
        None => std::future::pending().await,
    }
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
