//! What the screen looks like, letter by letter. `UPDATE_GOLDEN=1 cargo test -p rove-terminal` writes the files anew; look
//! at the difference before it is committed.

use std::path::PathBuf;

use crossterm::event::{KeyCode, KeyEvent, KeyModifiers};
use jiff::tz::TimeZone;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::style::{Color, Modifier};
use rove_client::LocalId;
use rove_client::ids::{AccountId, ConversationId, Seq};

use super::render::render;
use super::state::{Action, Body, Connection, Focus, Glyphs, Item, Mark, Older, Pane, Presence, Row, State};

/// Tuesday, 24 November 2026, 09:00 UTC.
const MORNING: u64 = 1_795_510_800_000;
const MINUTE: u64 = 60_000;

fn draw(state: &State) -> Terminal<TestBackend> {
    let (columns, rows) = state.size();
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    terminal.draw(|frame| render(state, frame)).unwrap();
    terminal
}

/// The screen as text, without spaces at the ends of lines.
fn text(state: &State) -> String {
    let terminal = draw(state);
    let buffer = terminal.backend().buffer();
    let mut out = String::new();
    for y in 0..buffer.area.height {
        let mut line = String::new();
        let mut x = 0;
        while x < buffer.area.width {
            let symbol = buffer[(x, y)].symbol();
            line.push_str(symbol);
            // A wide character's second cell is not shown.
            x += u16::try_from(super::wrap::width(symbol)).unwrap().max(1);
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

fn golden(name: &str, state: &State) {
    // At run time: a build shared by several clones may have been compiled in another one.
    let path =
        PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR").unwrap()).join("tests/golden").join(format!("{name}.txt"));
    let now = text(state);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, &now).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(now == expected, "{} differs; now it is\n{now}", path.display());
}

fn id(number: u8) -> ConversationId {
    ConversationId([number; 16])
}

fn row(number: u8, title: &str, group: bool, unread: u64) -> Row {
    let presence = (!group).then_some(Presence::Online);
    Row { id: id(number), title: title.into(), group, presence, unread, queued: 0 }
}

fn item(seq: u64, minutes: u64, author: &str, text: &str) -> Item {
    Item {
        seq: Some(Seq(seq)),
        local: None,
        time_ms: MORNING + minutes * MINUTE,
        author: author.into(),
        mine: author == "alice",
        body: Body::Text(text.into()),
        mark: if author == "alice" { Mark::Read } else { Mark::None },
        reply_to: None,
        edited: false,
        reactions: Vec::new(),
    }
}

fn pending(local: u64, minutes: u64, text: &str, mark: Mark) -> Item {
    Item { seq: None, local: Some(LocalId(local)), mark, ..item(0, minutes, "alice", text) }
}

fn pane(items: Vec<Item>) -> Pane {
    Pane {
        id: id(1),
        title: "bob".into(),
        group: false,
        presence: Some(Presence::Online),
        items,
        typing: Vec::new(),
        older: Older::More,
        read_before: None,
        scroll: 0,
    }
}

fn state() -> State {
    let mut state = State::new("alice", AccountId(1), TimeZone::UTC);
    state.now_ms = MORNING + 60 * MINUTE;
    state.connection = Connection::Connected { rtt_ms: 12 };
    state.set_rows(vec![
        row(1, "bob", false, 0),
        row(2, "Lunch at the station", true, 12),
        Row { presence: Some(Presence::Offline { last_seen_ms: 0 }), queued: 2, ..row(3, "carla", false, 0) },
        row(4, "火车站的朋友们和其他人", true, 1_500),
    ]);
    state
}

/// A conversation with something of everything.
fn busy() -> State {
    let mut state = state();
    let yesterday = Item { time_ms: MORNING - 600 * MINUTE, ..item(4, 0, "bob", "See you tomorrow then.") };
    let mut replied = item(
        7,
        2,
        "bob",
        "Half past twelve, by the station? I could also do one o'clock if your meeting takes \
         longer than you think, as it always does.",
    );
    replied.reply_to = Some("alice: Are we still on for lunch?".into());
    replied.reactions = vec![("👍".into(), 1), ("🚉".into(), 2)];
    let mut edited = item(
        8,
        3,
        "alice",
        "Perfect. 火车站见 🚉 https://maps.example/a/very/long/link/that/fits/in/no/line/of/this/size",
    );
    edited.edited = true;
    edited.mark = Mark::Delivered;
    let mut show = pane(vec![
        yesterday,
        Item { body: Body::Notice("alice called this group \"Lunch\"".into()), ..item(5, 0, "alice", "") },
        item(6, 1, "alice", "Are we still on for lunch?"),
        replied,
        edited,
        Item { mark: Mark::Posted, ..item(9, 4, "alice", "On my way") },
        pending(1, 5, "Walking out of the Wi-Fi", Mark::Sent),
        pending(2, 5, "no network here", Mark::Queued),
        pending(3, 6, "and this one never arrives", Mark::Failed("not a member, or not allowed to".into())),
    ]);
    show.typing = vec!["bob".into()];
    state.show(show);
    state.input.insert("Take an umbrella, it looks like ra");
    state
}

fn press(state: &mut State, code: KeyCode, modifiers: KeyModifiers) -> Option<Action> {
    state.key(KeyEvent::new(code, modifiers))
}

#[test]
fn a_busy_conversation_in_80_by_24() {
    golden("busy", &busy());
}

#[test]
fn a_busy_conversation_without_unicode_and_colours() {
    let mut state = busy();
    state.glyphs = Glyphs::Plain;
    state.colour = false;
    golden("busy-plain", &state);
    let terminal = draw(&state);
    let cells = terminal.backend().buffer().content();
    assert!(cells.iter().all(|cell| cell.fg == Color::Reset && cell.bg == Color::Reset));
}

#[test]
fn an_empty_list_says_how_to_begin() {
    let mut state = State::new("alice", AccountId(1), TimeZone::UTC);
    state.connection = Connection::Connecting;
    golden("empty", &state);
}

#[test]
fn the_connection_line_counts_down() {
    let mut state = state();
    state.connection =
        Connection::Waiting { why: "the server cannot be reached".into(), until_ms: state.now_ms + 2_100 };
    let first = |state: &State| text(state).lines().next().unwrap().to_owned();
    assert!(first(&state).ends_with(" offline (the server cannot be reached), reconnecting in 3 s"));
    state.connection = Connection::Closed { why: "this device was logged out: log in again".into() };
    assert!(first(&state).ends_with(" closed: this device was logged out: log in again"));
}

#[test]
fn new_messages_are_told_from_read_ones_and_the_beginning_from_the_middle() {
    let mut state = state();
    let mut show = pane(vec![item(1, 0, "bob", "read"), item(2, 1, "bob", "not read"), item(3, 2, "bob", "neither")]);
    show.read_before = Some(Seq(1));
    show.older = Older::Beginning;
    show.presence = Some(Presence::Offline { last_seen_ms: MORNING });
    state.show(show);
    golden("new", &state);
}

#[test]
fn a_narrow_terminal_shows_one_thing_at_a_time() {
    let mut state = busy();
    state.resize(40, 16);
    golden("narrow", &state);
    press(&mut state, KeyCode::Tab, KeyModifiers::NONE);
    golden("narrow-list", &state);
}

#[test]
fn a_terminal_of_almost_any_size_is_drawn() {
    let mut state = busy();
    for (columns, rows) in [(1, 1), (10, 3), (20, 8), (21, 9), (60, 8), (61, 200), (300, 10)] {
        state.resize(columns, rows);
        draw(&state);
        press(&mut state, KeyCode::F(1), KeyModifiers::NONE);
        draw(&state);
        press(&mut state, KeyCode::F(1), KeyModifiers::NONE);
    }
}

#[test]
fn the_keys_are_explained() {
    let mut state = busy();
    press(&mut state, KeyCode::F(1), KeyModifiers::NONE);
    golden("help", &state);
    press(&mut state, KeyCode::Char('x'), KeyModifiers::NONE);
    assert!(!state.help && !state.input.text().ends_with('x'));
}

#[test]
fn a_line_longer_than_the_screen_is_written_on_several() {
    let mut state = busy();
    state.input.insert(&" and then some more".repeat(6));
    golden("writing", &state);
    let mut terminal = draw(&state);
    let cursor = terminal.get_cursor_position().unwrap();
    let (rows, row, _) = super::layout::input_rows(&state);
    assert_eq!((rows.len(), row), (3, 2));
    assert_eq!(cursor.y, 22);
}

#[test]
fn a_read_mark_has_a_colour_of_its_own() {
    let state = busy();
    let terminal = draw(&state);
    let buffer = terminal.backend().buffer();
    let ticks: Vec<_> = buffer.content().iter().filter(|cell| cell.symbol() == "✓").collect();
    // Two of read, two of delivered, one of posted.
    assert_eq!(ticks.len(), 5);
    assert_eq!(ticks.iter().filter(|cell| cell.fg == Color::Cyan && cell.modifier.contains(Modifier::BOLD)).count(), 2);
}

#[test]
fn words_of_others_cannot_steer_the_terminal() {
    let mut state = state();
    state.show(pane(vec![item(1, 0, "b\u{1b}[2Jb", "\u{1b}]0;title\u{7}\u{9b}31m\u{202e}olleh")]));
    let screen = text(&state);
    assert!(!screen.chars().any(|character| character != '\n' && (character.is_control() || character == '\u{202e}')));
}

fn long() -> State {
    let mut state = state();
    state.show(pane((1..=100).map(|seq| item(seq, seq, "bob", &format!("message {seq}"))).collect()));
    state
}

#[test]
fn page_up_shows_what_was_before_and_asks_for_more_near_the_top() {
    let mut state = long();
    assert!(text(&state).contains("message 100\n"));
    assert_eq!(press(&mut state, KeyCode::PageUp, KeyModifiers::NONE), None);
    let screen = text(&state);
    assert!(screen.contains("message 83\n") && !screen.contains("message 84\n"), "{screen}");
    let mut asked = None;
    for _ in 0..20 {
        asked = asked.or(press(&mut state, KeyCode::PageUp, KeyModifiers::NONE));
    }
    assert_eq!(asked, Some(Action::Older));
    assert!(text(&state).contains("message 1\n"));
    assert!(text(&state).contains("fetching older messages"));
    for _ in 0..20 {
        press(&mut state, KeyCode::PageDown, KeyModifiers::NONE);
    }
    assert!(state.at_bottom());
}

#[test]
fn who_has_scrolled_up_goes_on_seeing_the_same_when_something_comes() {
    let mut state = long();
    press(&mut state, KeyCode::PageUp, KeyModifiers::NONE);
    let timeline = |state: &State| text(state).lines().skip(2).take(17).map(str::to_owned).collect::<Vec<_>>();
    let before = timeline(&state);
    let mut items = state.pane.as_ref().unwrap().items.clone();
    items.push(item(101, 101, "bob", &"a long new message ".repeat(9)));
    items.push(pending(1, 102, "mine", Mark::Queued));
    state.set_items(items);
    assert_eq!(timeline(&state), before);
    let mut items: Vec<Item> = vec![Item { seq: Some(Seq(0)), ..item(0, 0, "bob", "older") }];
    items.extend(state.pane.as_ref().unwrap().items.clone());
    state.set_items(items);
    assert_eq!(timeline(&state), before);
}

#[test]
fn enter_sends_and_a_draft_waits_in_its_conversation() {
    let mut state = busy();
    press(&mut state, KeyCode::Char('i'), KeyModifiers::NONE);
    press(&mut state, KeyCode::Char('n'), KeyModifiers::NONE);
    assert_eq!(press(&mut state, KeyCode::Char('n'), KeyModifiers::CONTROL), Some(Action::Open(id(2))));
    state.show(Pane { id: id(2), ..pane(Vec::new()) });
    assert!(state.input.is_empty());
    assert_eq!(press(&mut state, KeyCode::Enter, KeyModifiers::NONE), None, "nothing to send");
    state.show(pane(Vec::new()));
    let sent = press(&mut state, KeyCode::Enter, KeyModifiers::NONE);
    assert_eq!(sent, Some(Action::Send("Take an umbrella, it looks like rain".into())));
    assert!(state.input.is_empty());
}

#[test]
fn commands_are_not_posted_unless_they_are_meant_to() {
    let mut state = busy();
    let mut enter = |text: &str| {
        state.input.take();
        state.input.insert(text);
        (press(&mut state, KeyCode::Enter, KeyModifiers::NONE), state.notice.take())
    };
    assert_eq!(enter("/open @dora").0, Some(Action::OpenHandle("dora".into())));
    assert_eq!(enter("/group tea bo @cy").0, Some(Action::NewGroup("tea".into(), vec!["bo".into(), "cy".into()])));
    assert_eq!(enter("//shrug").0, Some(Action::Send("/shrug".into())));
    assert_eq!(enter("/quit").0, Some(Action::Quit));
    let (action, notice) = enter("/etc/passwd is a file");
    assert_eq!(action, None);
    assert!(notice.unwrap().contains("begin with //"));
    assert_eq!(state.input.text(), "/etc/passwd is a file");
}

#[test]
fn a_refused_post_can_be_sent_again_or_taken_away() {
    let mut state = busy();
    let again = press(&mut state, KeyCode::Char('r'), KeyModifiers::CONTROL);
    assert_eq!(again, Some(Action::Retry(LocalId(3), "and this one never arrives".into())));
    assert_eq!(press(&mut state, KeyCode::Char('x'), KeyModifiers::CONTROL), Some(Action::Cancel(LocalId(3))));
    state.set_items(vec![item(1, 0, "bob", "hi")]);
    assert_eq!(press(&mut state, KeyCode::Char('r'), KeyModifiers::CONTROL), None);
    assert!(text(&state).contains("nothing was refused"));
}

#[test]
fn the_list_keeps_its_place_when_it_is_sorted_anew() {
    let mut state = state();
    assert_eq!(state.focus, Focus::List);
    press(&mut state, KeyCode::Down, KeyModifiers::NONE);
    let mut rows = state.rows.clone();
    rows.rotate_left(1);
    state.set_rows(rows);
    assert_eq!(press(&mut state, KeyCode::Enter, KeyModifiers::NONE), Some(Action::Open(id(2))));
    state.set_rows(Vec::new());
    assert_eq!(press(&mut state, KeyCode::Enter, KeyModifiers::NONE), None);
}

#[test]
fn the_first_conversation_can_be_begun_from_an_empty_screen() {
    let mut state = State::new("alice", AccountId(1), TimeZone::UTC);
    press(&mut state, KeyCode::Tab, KeyModifiers::NONE);
    for character in "/open bob".chars() {
        assert_eq!(press(&mut state, KeyCode::Char(character), KeyModifiers::NONE), None);
    }
    assert!(text(&state).contains("> /open bob"));
    assert_eq!(press(&mut state, KeyCode::Enter, KeyModifiers::NONE), Some(Action::OpenHandle("bob".into())));
    state.input.insert("hello?");
    assert_eq!(press(&mut state, KeyCode::Enter, KeyModifiers::NONE), None, "there is nobody to say it to");
    assert_eq!(state.input.text(), "hello?");
}
