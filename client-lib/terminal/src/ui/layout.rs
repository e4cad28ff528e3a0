//! Where everything is, and which rows the timeline has. Rows are plain values here; [`super::render`] gives them colours.

use jiff::tz::TimeZone;
use jiff::{Timestamp, ZonedDateTime};
use rove_client::ids::Seq;

use super::state::{Body, Focus, Glyphs, Item, Mark, Older, Pane, State};
use super::wrap::{clean, clean_line, cut, pad, width, wrap};

/// Below this many columns the list and the conversation take turns: 20 for the list would leave no room for a sentence.
const SIDE_BY_SIDE: u16 = 60;
/// Rows of the line being written, at most: a paragraph can be seen, and the conversation still too.
const INPUT_ROWS: usize = 5;
/// Columns of a nick in the timeline, at most; and always in a group, so that nothing moves when somebody else speaks.
const NICK: usize = 10;
/// `HH:MM` and a space.
const CLOCK: usize = 6;
/// A space and two signs.
const MARK: usize = 3;

/// Columns of the list beside the conversation; 0 if it is not beside it.
pub fn list_width(columns: u16) -> u16 {
    if columns < SIDE_BY_SIDE { 0 } else { (columns / 4).clamp(18, 30) }
}

/// Whether the list is shown, and whether the conversation is.
pub fn shown(state: &State) -> (bool, bool) {
    let (columns, _) = state.size();
    if list_width(columns) > 0 {
        (true, true)
    } else {
        let list = state.focus == Focus::List;
        (list, !list)
    }
}

/// Columns of the conversation.
pub fn pane_width(state: &State) -> usize {
    let (columns, _) = state.size();
    let list = list_width(columns);
    // The rule between the two takes one column.
    usize::from(columns.saturating_sub(if list > 0 { list + 1 } else { 0 }))
}

/// The written line, broken as it is shown, and where the cursor is: its row and column.
pub fn input_rows(state: &State) -> (Vec<String>, usize, usize) {
    let columns = pane_width(state).saturating_sub(2).max(1);
    let shown = |text: &str| clean(text);
    let before = wrap_input(&shown(state.input.before_cursor()), columns);
    let all = wrap_input(&shown(state.input.text()), columns);
    let row = before.len() - 1;
    let column = before.last().map_or(0, |line| width(line));
    // The rows around the cursor, if there are too many.
    let first = (row + 1).saturating_sub(INPUT_ROWS);
    let rows = all.into_iter().skip(first).take(INPUT_ROWS).collect();
    (rows, row - first, column)
}

/// Breaks between characters only, so that what is before the cursor breaks alike whatever comes after it.
fn wrap_input(text: &str, columns: usize) -> Vec<String> {
    use unicode_segmentation::UnicodeSegmentation as _;
    let mut rows = vec![String::new()];
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        if grapheme == "\n" {
            rows.push(String::new());
            used = 0;
            continue;
        }
        let wide = width(grapheme);
        if used + wide > columns {
            rows.push(String::new());
            used = 0;
        }
        if let Some(row) = rows.last_mut() {
            row.push_str(grapheme);
        }
        used += wide;
    }
    // A cursor after a full row is at the beginning of the next one.
    if used >= columns {
        rows.push(String::new());
    }
    rows
}

/// Rows of the timeline: all, but for the status, the title, who is typing, the rule, the line being written, the keys.
pub fn timeline_height(state: &State) -> usize {
    let (_, rows) = state.size();
    usize::from(rows).saturating_sub(5 + input_rows(state).0.len())
}

/// How far one may scroll up.
pub fn most_scroll(state: &State) -> usize {
    let Some(pane) = &state.pane else { return 0 };
    let all = timeline_rows(state, pane, usize::MAX).len();
    all.saturating_sub(timeline_height(state))
}

/// Rows of the items after `seq`, own unsent ones among them.
pub fn timeline_rows_after(state: &State, seq: Option<Seq>) -> usize {
    let Some(pane) = &state.pane else { return 0 };
    let first =
        pane.items.iter().position(|item| item.seq.is_none_or(|own| Some(own) > seq)).unwrap_or(pane.items.len());
    let rows = |items: &[Item]| {
        let part = Pane { items: items.to_vec(), ..pane.clone() };
        timeline_rows(state, &part, usize::MAX).len()
    };
    rows(&pane.items) - rows(&pane.items[..first])
}

/// One row of the timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TimelineRow {
    /// A new day, or where the new ones begin, or the beginning.
    Separator(String),
    /// The first row of a message.
    First {
        /// `HH:MM`.
        clock: String,
        /// Filled up to the width of the column.
        nick: String,
        /// Whether it is the user's own.
        mine: bool,
        /// The text.
        text: String,
        /// How far it has come, on the last row of its text.
        mark: Option<Mark>,
    },
    /// Another row of it.
    More {
        /// Filled up to the text's column.
        text: String,
        /// As above.
        mark: Option<Mark>,
    },
    /// What happened.
    Notice(String),
    /// Beside a message: reactions, what it replies to, why it was refused.
    Aside {
        /// Filled up to the text's column.
        text: String,
        /// Whether it is bad news.
        bad: bool,
    },
}

/// The last `most` rows of the timeline, or a few more: whole items.
pub fn timeline_rows(state: &State, pane: &Pane, most: usize) -> Vec<TimelineRow> {
    let columns = pane_width(state);
    let nick = if pane.group {
        NICK
    } else {
        width(&clean_line(&pane.title)).max(width(&clean_line(&state.handle))).min(NICK)
    };
    let mut blocks: Vec<Vec<TimelineRow>> = Vec::new();
    let mut rows = 0;
    for (index, item) in pane.items.iter().enumerate().rev() {
        let before = index.checked_sub(1).and_then(|index| pane.items.get(index));
        let mut block = Vec::new();
        if before.is_none_or(|before| day(before.time_ms, &state.zone) != day(item.time_ms, &state.zone)) {
            block.push(TimelineRow::Separator(day(item.time_ms, &state.zone)));
        }
        if starts_the_new(pane, before, item) {
            block.push(TimelineRow::Separator("new".to_owned()));
        }
        item_rows(state, item, nick, columns, &mut block);
        rows += block.len();
        blocks.push(block);
        if rows >= most {
            break;
        }
    }
    if rows < most {
        match pane.older {
            Older::More => {}
            Older::Loading => blocks.push(vec![TimelineRow::Notice(ellipsis(state, "fetching older messages"))]),
            Older::Beginning => {
                blocks.push(vec![TimelineRow::Notice("the beginning of this conversation".to_owned())]);
            }
        }
    }
    blocks.into_iter().rev().flatten().collect()
}

/// Whether `item` is the first that was not read when the conversation was opened.
fn starts_the_new(pane: &Pane, before: Option<&Item>, item: &Item) -> bool {
    let Some(read) = pane.read_before else { return false };
    let is_new = |item: &Item| item.seq.is_some_and(|seq| seq > read) && !item.mine;
    is_new(item) && before.is_some_and(|before| before.seq.is_some_and(|seq| seq <= read))
}

fn item_rows(state: &State, item: &Item, nick: usize, columns: usize, out: &mut Vec<TimelineRow>) {
    let clock = clock(item.time_ms, &state.zone);
    let indent = CLOCK + nick + 1;
    let text = match &item.body {
        Body::Notice(text) => {
            let lines = wrap(&clean_line(text), columns.saturating_sub(CLOCK + 2));
            out.extend(lines.into_iter().enumerate().map(|(index, line)| {
                let lead = if index == 0 { format!("{clock} * ") } else { " ".repeat(CLOCK + 2) };
                TimelineRow::Notice(format!("{lead}{line}"))
            }));
            return;
        }
        Body::Text(text) => text,
    };
    let room = columns.saturating_sub(indent + MARK);
    if let Some(reply) = &item.reply_to {
        let text = cut(&format!("> {}", clean_line(reply)), room, dots(state));
        out.push(TimelineRow::Aside { text: format!("{}{text}", " ".repeat(indent)), bad: false });
    }
    let mut text = clean(text);
    if item.edited {
        text.push_str(" (edited)");
    }
    match item.mark {
        Mark::Queued => text.push_str(" (queued)"),
        Mark::Sent => text.push_str(" (sent)"),
        _ => {}
    }
    let lines = wrap(&text, room);
    let last = lines.len() - 1;
    let author = pad(&cut(&clean_line(&item.author), nick, dots(state)), nick);
    for (index, text) in lines.into_iter().enumerate() {
        let mark = (index == last && item.mark != Mark::None).then(|| item.mark.clone());
        out.push(if index == 0 {
            TimelineRow::First { clock: clock.clone(), nick: author.clone(), mine: item.mine, text, mark }
        } else {
            TimelineRow::More { text: format!("{}{text}", " ".repeat(indent)), mark }
        });
    }
    asides(state, item, indent, room, out);
}

/// What stands below a message.
fn asides(state: &State, item: &Item, indent: usize, room: usize, out: &mut Vec<TimelineRow>) {
    let mut aside = |text: &str, bad: bool| {
        for line in wrap(text, room) {
            out.push(TimelineRow::Aside { text: format!("{}{line}", " ".repeat(indent)), bad });
        }
    };
    if !item.reactions.is_empty() {
        let all: Vec<String> = item
            .reactions
            .iter()
            .map(|(reaction, count)| {
                let reaction = clean_line(reaction);
                if *count > 1 { format!("{reaction} {count}") } else { reaction }
            })
            .collect();
        aside(&all.join("  "), false);
    }
    if let Mark::Failed(why) = &item.mark {
        let sign = if state.glyphs == Glyphs::Unicode { "✗" } else { "!" };
        aside(&format!("{sign} not sent: {} (^R again, ^X away)", clean_line(why)), true);
    }
}

/// The sign of a mark, two columns wide at most.
pub fn mark_sign(mark: &Mark, glyphs: Glyphs) -> &'static str {
    match (mark, glyphs) {
        (Mark::None, _) => "",
        (Mark::Queued, Glyphs::Unicode) => "·",
        (Mark::Queued, Glyphs::Plain) => ".",
        (Mark::Sent, Glyphs::Unicode) => "›",
        (Mark::Sent, Glyphs::Plain) => ">",
        (Mark::Posted, Glyphs::Unicode) => "✓",
        (Mark::Posted, Glyphs::Plain) => "+",
        (Mark::Delivered | Mark::Read, Glyphs::Unicode) => "✓✓",
        (Mark::Delivered, Glyphs::Plain) => "++",
        // Without colours the signs themselves must differ.
        (Mark::Read, Glyphs::Plain) => "+r",
        (Mark::Failed(_), Glyphs::Unicode) => "✗",
        (Mark::Failed(_), Glyphs::Plain) => "!",
    }
}

/// An ellipsis.
pub fn dots(state: &State) -> &'static str {
    if state.glyphs == Glyphs::Unicode { "…" } else { "." }
}

fn ellipsis(state: &State, text: &str) -> String {
    format!("{text}{}", if state.glyphs == Glyphs::Unicode { "…" } else { "..." })
}

fn zoned(ms: u64, zone: &TimeZone) -> Option<ZonedDateTime> {
    Some(Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()?.to_zoned_datetime(zone.clone()))
}

/// `HH:MM` in the user's zone.
pub fn clock(ms: u64, zone: &TimeZone) -> String {
    zoned(ms, zone).map_or_else(|| "--:--".to_owned(), |time| time.strftime("%H:%M").to_string())
}

/// `Monday, 24 November 2026` in the user's zone.
pub fn day(ms: u64, zone: &TimeZone) -> String {
    zoned(ms, zone).map_or_else(|| "at no known time".to_owned(), |time| time.strftime("%A, %-d %B %Y").to_string())
}
