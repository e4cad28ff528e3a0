//! What is on the screen, and what a key does to it. No terminal, no client, no clock: all of them are told to it.

use std::collections::BTreeMap;

use crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use jiff::tz::TimeZone;
use rove_client::LocalId;
use rove_client::ids::{AccountId, ConversationId, Seq};

use super::input::Input;
use super::layout;

/// The signs for what is not text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Glyphs {
    /// ✓ and ●.
    Unicode,
    /// For terminals that show boxes instead: + and *.
    Plain,
}

/// The connection, in words a user understands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// An attempt is under way.
    Connecting,
    /// In step with the server.
    Connected {
        /// The round trip, in milliseconds.
        rtt_ms: u64,
    },
    /// Between two attempts.
    Waiting {
        /// Why the last one ended.
        why: String,
        /// When the next one begins, on the clock of [`State::now_ms`].
        until_ms: u64,
    },
    /// Over for good.
    Closed {
        /// Why.
        why: String,
    },
}

/// Whether somebody is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// At least one device is connected.
    Online,
    /// None is; when one last was, in milliseconds of the Unix epoch, if known.
    Offline {
        /// 0: not known.
        last_seen_ms: u64,
    },
}

/// A line of the list of conversations.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// Which.
    pub id: ConversationId,
    /// A group's title, or the other's handle.
    pub title: String,
    /// Whether it is a group.
    pub group: bool,
    /// The other's presence, in a direct conversation, if known.
    pub presence: Option<Presence>,
    /// Events not read yet.
    pub unread: u64,
    /// Own posts that wait.
    pub queued: usize,
}

/// How far an own message has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mark {
    /// Somebody else's, or nobody's.
    None,
    /// On this device only.
    Queued,
    /// Sent, not answered.
    Sent,
    /// In the log.
    Posted,
    /// A device of every other member (in a direct conversation: of the other) holds it.
    Delivered,
    /// Every other member has read it.
    Read,
    /// Refused, and why.
    Failed(String),
}

/// What an item says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Somebody's words.
    Text(String),
    /// What happened.
    Notice(String),
}

/// One item of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Its place, once it has one.
    pub seq: Option<Seq>,
    /// Its name in the outbox, while it is there.
    pub local: Option<LocalId>,
    /// When, in milliseconds of the Unix epoch.
    pub time_ms: u64,
    /// Who.
    pub author: String,
    /// Whether it is the user's own.
    pub mine: bool,
    /// What.
    pub body: Body,
    /// How far it has come.
    pub mark: Mark,
    /// What it replies to, in a few words.
    pub reply_to: Option<String>,
    /// Whether it was edited.
    pub edited: bool,
    /// Reactions, each with its number.
    pub reactions: Vec<(String, usize)>,
}

/// Whether there is more above the first item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Older {
    /// There is.
    More,
    /// It is being fetched.
    Loading,
    /// The first item is the first of the conversation.
    Beginning,
}

/// The conversation shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pane {
    /// Which.
    pub id: ConversationId,
    /// A group's title, or the other's handle.
    pub title: String,
    /// Whether it is a group.
    pub group: bool,
    /// The other's presence, in a direct conversation, if known.
    pub presence: Option<Presence>,
    /// Oldest first.
    pub items: Vec<Item>,
    /// Who is typing.
    pub typing: Vec<String>,
    /// Whether there is more above.
    pub older: Older,
    /// What was read when the conversation was opened: what came after it is new.
    pub read_before: Option<Seq>,
    /// Rows between the last one and the bottom of the screen; 0 follows what comes.
    pub scroll: usize,
}

/// Where keys go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Focus {
    /// The list of conversations.
    List,
    /// The line being written.
    Input,
}

/// What a key asks the program to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Leave.
    Quit,
    /// Show this conversation.
    Open(ConversationId),
    /// Make (or find) the direct conversation with this handle, and show it.
    OpenHandle(String),
    /// Make a group of this title with these handles, and show it.
    NewGroup(String, Vec<String>),
    /// Post this in the conversation shown.
    Send(String),
    /// Get older events of the conversation shown.
    Older,
    /// The user types, or has stopped.
    Typing(bool),
    /// Post a refused message once more.
    Retry(LocalId, String),
    /// Cancel a waiting post, or dismiss a refused one.
    Cancel(LocalId),
}

/// Everything on the screen.
#[derive(Debug, Clone)]
pub struct State {
    /// The user's handle.
    pub handle: String,
    /// The user's account.
    pub me: AccountId,
    /// The connection.
    pub connection: Connection,
    /// The conversations, as the client sorts them.
    pub rows: Vec<Row>,
    /// The row the list's cursor is on.
    pub selected: usize,
    /// Where keys go.
    pub focus: Focus,
    /// The conversation shown.
    pub pane: Option<Pane>,
    /// The line being written.
    pub input: Input,
    /// Lines being written in conversations not shown now.
    drafts: BTreeMap<ConversationId, Input>,
    /// What there is to tell the user, until the next key.
    pub notice: Option<String>,
    /// Whether the keys are explained.
    pub help: bool,
    /// Signs.
    pub glyphs: Glyphs,
    /// Whether there are colours.
    pub colour: bool,
    /// The user's time zone.
    pub zone: TimeZone,
    /// Milliseconds of the Unix epoch.
    pub now_ms: u64,
    /// Columns and rows of the terminal.
    size: (u16, u16),
}

impl State {
    /// Before anything is known.
    pub fn new(handle: impl Into<String>, me: AccountId, zone: TimeZone) -> Self {
        Self {
            handle: handle.into(),
            me,
            connection: Connection::Connecting,
            rows: Vec::new(),
            selected: 0,
            focus: Focus::List,
            pane: None,
            input: Input::default(),
            drafts: BTreeMap::new(),
            notice: None,
            help: false,
            glyphs: Glyphs::Unicode,
            colour: true,
            zone,
            now_ms: 0,
            size: (80, 24),
        }
    }

    /// The terminal's size, in columns and rows.
    pub fn size(&self) -> (u16, u16) {
        self.size
    }

    /// The terminal has another size.
    pub fn resize(&mut self, columns: u16, rows: u16) {
        self.size = (columns, rows);
        self.clamp_scroll();
    }

    /// The list has changed. The cursor stays on the conversation it was on.
    pub fn set_rows(&mut self, rows: Vec<Row>) {
        let on = self.rows.get(self.selected).map(|row| row.id);
        self.rows = rows;
        self.selected = on
            .and_then(|id| self.rows.iter().position(|row| row.id == id))
            .unwrap_or(self.selected)
            .min(self.rows.len().saturating_sub(1));
    }

    /// Shows another conversation; each keeps its own unfinished line.
    pub fn show(&mut self, pane: Pane) {
        let id = pane.id;
        if let Some(shown) = self.pane.replace(pane) {
            let draft = std::mem::take(&mut self.input);
            if !draft.is_empty() {
                self.drafts.insert(shown.id, draft);
            }
        }
        self.input = self.drafts.remove(&id).unwrap_or_default();
        self.focus = Focus::Input;
        if let Some(at) = self.rows.iter().position(|row| row.id == id) {
            self.selected = at;
        }
    }

    /// The items have changed. Who has scrolled up goes on seeing what he saw.
    pub fn set_items(&mut self, items: Vec<Item>) {
        let Some(pane) = &mut self.pane else { return };
        let scrolled = pane.scroll > 0;
        let before = if scrolled { layout::timeline_rows_after(self, self.last_seq()) } else { 0 };
        let last = self.last_seq();
        if let Some(pane) = &mut self.pane {
            pane.items = items;
        }
        if scrolled {
            let after = layout::timeline_rows_after(self, last);
            if let Some(pane) = &mut self.pane {
                pane.scroll = (pane.scroll + after).saturating_sub(before);
            }
        }
        self.clamp_scroll();
    }

    /// The last seq shown.
    fn last_seq(&self) -> Option<Seq> {
        self.pane.as_ref()?.items.iter().rev().find_map(|item| item.seq)
    }

    fn clamp_scroll(&mut self) {
        let most = layout::most_scroll(self);
        if let Some(pane) = &mut self.pane {
            pane.scroll = pane.scroll.min(most);
        }
    }

    /// Whether the newest item is on the screen, so that it counts as read.
    pub fn at_bottom(&self) -> bool {
        self.pane.as_ref().is_some_and(|pane| pane.scroll == 0)
    }

    /// Text was pasted.
    pub fn paste(&mut self, text: &str) -> Option<Action> {
        self.focus = Focus::Input;
        self.notice = None;
        self.input.insert(&text.replace("\r\n", "\n").replace('\r', "\n"));
        Some(Action::Typing(true))
    }

    /// A key was pressed.
    pub fn key(&mut self, key: KeyEvent) -> Option<Action> {
        if key.kind == KeyEventKind::Release {
            return None;
        }
        self.notice = None;
        let control = key.modifiers.contains(KeyModifiers::CONTROL);
        let alt = key.modifiers.contains(KeyModifiers::ALT);
        match key.code {
            KeyCode::Char('c' | 'q') if control => return Some(Action::Quit),
            KeyCode::F(1) => {
                self.help = !self.help;
                return None;
            }
            _ if self.help => {
                self.help = false;
                return None;
            }
            KeyCode::Char('n') if control => return self.open_neighbour(1),
            KeyCode::Down if alt => return self.open_neighbour(1),
            KeyCode::Char('p') if control => return self.open_neighbour(-1),
            KeyCode::Up if alt => return self.open_neighbour(-1),
            KeyCode::Tab => {
                self.focus = if self.focus == Focus::List { Focus::Input } else { Focus::List };
                return None;
            }
            KeyCode::PageUp => return self.scroll_up(layout::timeline_height(self).saturating_sub(1).max(1)),
            KeyCode::PageDown => {
                return self.scroll_down(layout::timeline_height(self).saturating_sub(1).max(1));
            }
            _ => {}
        }
        match self.focus {
            Focus::List => self.key_in_list(key),
            Focus::Input => self.key_in_input(key, control, alt),
        }
    }

    fn key_in_list(&mut self, key: KeyEvent) -> Option<Action> {
        match key.code {
            KeyCode::Up | KeyCode::Char('k') => self.selected = self.selected.saturating_sub(1),
            KeyCode::Down | KeyCode::Char('j') => {
                self.selected = (self.selected + 1).min(self.rows.len().saturating_sub(1));
            }
            KeyCode::Home => self.selected = 0,
            KeyCode::End => self.selected = self.rows.len().saturating_sub(1),
            KeyCode::Enter | KeyCode::Right => {
                return self.rows.get(self.selected).map(|row| Action::Open(row.id));
            }
            KeyCode::Esc => self.focus = Focus::Input,
            // Commands may be typed at once.
            KeyCode::Char('/') => {
                self.focus = Focus::Input;
                self.input.insert("/");
            }
            KeyCode::Char('q') => return Some(Action::Quit),
            _ => {}
        }
        None
    }

    fn key_in_input(&mut self, key: KeyEvent, control: bool, alt: bool) -> Option<Action> {
        match key.code {
            KeyCode::Enter if alt => self.input.insert("\n"),
            KeyCode::Char('j') if control => self.input.insert("\n"),
            KeyCode::Enter => return self.submit(),
            KeyCode::Esc => {
                self.focus = Focus::List;
                return None;
            }
            KeyCode::Char('a') if control => self.input.home(),
            KeyCode::Char('e') if control => self.input.end(),
            KeyCode::Char('w') if control => self.input.delete_word(),
            KeyCode::Char('u') if control => self.input.delete_to_home(),
            KeyCode::Char('k') if control => self.input.delete_to_end(),
            KeyCode::Char('r') if control => return self.retry(),
            KeyCode::Char('x') if control => return self.cancel(),
            KeyCode::Char(character) if !control => {
                self.input.insert(character.encode_utf8(&mut [0; 4]));
                // A command is not typing to the other one.
                let said = self.pane.is_some() && !self.input.text().starts_with('/');
                return said.then_some(Action::Typing(true));
            }
            KeyCode::Backspace => {
                self.input.backspace();
                return self.input.is_empty().then_some(Action::Typing(false));
            }
            KeyCode::Delete => self.input.delete(),
            KeyCode::Left => self.input.left(),
            KeyCode::Right => self.input.right(),
            KeyCode::Home => self.input.home(),
            KeyCode::End => self.input.end(),
            KeyCode::Up => return self.scroll_up(1),
            KeyCode::Down => return self.scroll_down(1),
            _ => {}
        }
        None
    }

    /// The conversation above or below the one shown.
    fn open_neighbour(&mut self, step: isize) -> Option<Action> {
        let shown = self.pane.as_ref().and_then(|pane| self.rows.iter().position(|row| row.id == pane.id));
        let next = match shown {
            Some(at) => at.checked_add_signed(step)?,
            None => self.selected,
        };
        self.rows.get(next).map(|row| Action::Open(row.id))
    }

    fn scroll_up(&mut self, rows: usize) -> Option<Action> {
        let most = layout::most_scroll(self);
        let pane = self.pane.as_mut()?;
        pane.scroll = (pane.scroll + rows).min(most);
        // One screen ahead, so that scrolling rarely has to wait.
        let near_top = pane.scroll + rows >= most;
        if near_top && pane.older == Older::More {
            pane.older = Older::Loading;
            return Some(Action::Older);
        }
        None
    }

    fn scroll_down(&mut self, rows: usize) -> Option<Action> {
        let pane = self.pane.as_mut()?;
        pane.scroll = pane.scroll.saturating_sub(rows);
        None
    }

    /// The last post that was refused, posted again.
    fn retry(&mut self) -> Option<Action> {
        let found =
            self.pane.as_ref()?.items.iter().rev().find_map(|item| match (&item.mark, &item.body, item.local) {
                (Mark::Failed(_), Body::Text(text), Some(local)) => Some((local, text.clone())),
                _ => None,
            });
        if found.is_none() {
            self.notice = Some("nothing was refused".to_owned());
        }
        found.map(|(local, text)| Action::Retry(local, text))
    }

    /// The last post that waits or was refused, taken away.
    fn cancel(&mut self) -> Option<Action> {
        let waits = |mark: &Mark| matches!(mark, Mark::Queued | Mark::Sent | Mark::Failed(_));
        let found = self.pane.as_ref()?.items.iter().rev().find(|item| waits(&item.mark)).and_then(|item| item.local);
        if found.is_none() {
            self.notice = Some("nothing waits to be sent".to_owned());
        }
        found.map(Action::Cancel)
    }

    /// Enter: a message, or a command.
    fn submit(&mut self) -> Option<Action> {
        let text = self.input.text();
        if text.trim().is_empty() {
            return None;
        }
        if let Some(said) = text.strip_prefix("//") {
            let said = format!("/{said}");
            self.input.take();
            return self.send(said);
        }
        if let Some(command) = text.strip_prefix('/') {
            let mut words = command.split_whitespace().map(str::to_owned);
            let action = match (words.next().as_deref(), words.next()) {
                (Some("quit" | "q"), None) => Some(Action::Quit),
                (Some("help" | "h"), None) => {
                    self.help = true;
                    None
                }
                (Some("open" | "o"), Some(handle)) => {
                    Some(Action::OpenHandle(handle.trim_start_matches('@').to_owned()))
                }
                (Some("group" | "g"), Some(title)) => Some(Action::NewGroup(
                    title,
                    words.map(|handle| handle.trim_start_matches('@').to_owned()).collect(),
                )),
                _ => {
                    self.notice =
                        Some(format!("no such command: /{command}. /help lists them; begin with // to say it"));
                    return None;
                }
            };
            self.input.take();
            return action;
        }
        let said = self.input.take();
        self.send(said)
    }

    fn send(&mut self, text: String) -> Option<Action> {
        let Some(pane) = &mut self.pane else {
            self.notice = Some("choose a conversation first: Tab, then Enter".to_owned());
            self.input.insert(&text);
            return None;
        };
        // Who writes wants to see the answer.
        pane.scroll = 0;
        Some(Action::Send(text))
    }
}
