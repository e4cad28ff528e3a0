//! Draws [`State`]. Nothing is decided here that could be seen in a test of [`super::layout`] instead.

use ratatui::Frame;
use ratatui::layout::{Position, Rect};
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Clear, Paragraph};

use super::layout::{self, TimelineRow, mark_sign};
use super::state::{Connection, Focus, Glyphs, Mark, Pane, Presence, Row, State};
use super::wrap::{clean_line, cut, pad, width};

/// Draws everything.
pub fn render(state: &State, frame: &mut Frame<'_>) {
    let area = frame.area();
    if area.width < 20 || area.height < 8 {
        let text = cut("rove: make me larger", usize::from(area.width), "");
        frame.render_widget(Paragraph::new(text), area);
        return;
    }
    let top = Rect { height: 1, ..area };
    let bottom = Rect { y: area.bottom() - 1, height: 1, ..area };
    let middle = Rect { y: area.y + 1, height: area.height - 2, ..area };
    frame.render_widget(status_line(state, area.width), top);
    frame.render_widget(bottom_line(state, area.width), bottom);
    let beside = layout::list_width(area.width);
    let (list, conversation) = layout::shown(state);
    if list {
        let width = if beside > 0 { beside } else { area.width };
        frame.render_widget(Paragraph::new(list_lines(state, width, middle.height)), Rect { width, ..middle });
    }
    if beside > 0 {
        let rule = Rect { x: area.x + beside, width: 1, ..middle };
        let sign = if state.glyphs == Glyphs::Unicode { "│" } else { "|" };
        let lines: Vec<Line<'_>> = (0..middle.height).map(|_| Line::styled(sign, dim(state))).collect();
        frame.render_widget(Paragraph::new(lines), rule);
    }
    if conversation {
        let x = if beside > 0 { beside + 1 } else { 0 };
        let pane = Rect { x: area.x + x, width: area.width - x, ..middle };
        render_pane(state, frame, pane);
    }
    if state.help {
        render_help(state, frame, area);
    }
}

fn colour(state: &State, colour: Color) -> Style {
    if state.colour { Style::new().fg(colour) } else { Style::new() }
}

fn dim(state: &State) -> Style {
    colour(state, Color::DarkGray)
}

fn bold() -> Style {
    Style::new().add_modifier(Modifier::BOLD)
}

fn reversed() -> Style {
    Style::new().add_modifier(Modifier::REVERSED)
}

/// Who I am, and how the connection is.
fn status_line(state: &State, columns: u16) -> Line<'static> {
    let unicode = state.glyphs == Glyphs::Unicode;
    let dots = if unicode { "…" } else { "..." };
    let right = match &state.connection {
        Connection::Connecting => format!("connecting{dots} "),
        Connection::Connected { rtt_ms } => format!("connected ({rtt_ms} ms) "),
        Connection::Waiting { why, until_ms } => {
            let seconds = until_ms.saturating_sub(state.now_ms).div_ceil(1_000);
            format!("offline ({why}), reconnecting in {seconds} s ")
        }
        Connection::Closed { why } => format!("closed: {why} "),
    };
    let columns = usize::from(columns);
    let right = cut(&clean_line(&right), columns, layout::dots(state));
    let left = cut(
        &format!(" rove  {}", clean_line(&state.handle)),
        columns.saturating_sub(width(&right) + 1),
        layout::dots(state),
    );
    let fill = columns.saturating_sub(width(&left) + width(&right));
    Line::styled(format!("{left}{}{right}", " ".repeat(fill)), reversed())
}

/// What there is to tell, or else the keys.
fn bottom_line(state: &State, columns: u16) -> Line<'static> {
    let columns = usize::from(columns);
    if let Some(notice) = &state.notice {
        let text = cut(&format!(" {}", clean_line(notice)), columns, layout::dots(state));
        return Line::styled(text, colour(state, Color::Yellow).add_modifier(Modifier::BOLD));
    }
    let keys = match state.focus {
        Focus::List => " Up/Down choose  Enter open  Tab write  F1 help  ^C quit",
        Focus::Input => " Enter send  PgUp/PgDn history  ^N/^P other conversation  F1 help  ^C quit",
    };
    Line::styled(cut(keys, columns, ""), dim(state))
}

fn list_lines(state: &State, columns: u16, rows: u16) -> Vec<Line<'static>> {
    if state.rows.is_empty() {
        return ["", " No conversations", " yet. Start one:", " /open HANDLE, or", " rove open HANDLE"]
            .iter()
            .map(|text| Line::styled(*text, dim(state)))
            .collect();
    }
    // The cursor stays on the screen.
    let rows = usize::from(rows).max(1);
    let first = (state.selected + 1).saturating_sub(rows);
    let shown = state.pane.as_ref().map(|pane| pane.id);
    state
        .rows
        .iter()
        .enumerate()
        .skip(first)
        .take(rows)
        .map(|(index, row)| {
            let line = list_line(state, row, usize::from(columns));
            let mut style = Style::new();
            if row.unread > 0 {
                style = style.patch(bold());
            }
            if shown == Some(row.id) {
                style = style.patch(colour(state, Color::Cyan));
            }
            if state.focus == Focus::List && index == state.selected {
                style = style.patch(reversed());
            }
            Line::styled(line, style)
        })
        .collect()
}

/// A sign, the title, and the number of unread ones at the right.
fn list_line(state: &State, row: &Row, columns: usize) -> String {
    let sign = match (row.group, row.presence) {
        (true, _) => "#",
        (false, presence) => presence.map_or(" ", |presence| presence_sign(state, presence)),
    };
    let mut right = String::new();
    if row.queued > 0 {
        right.push_str(if state.glyphs == Glyphs::Unicode { "↑" } else { "^" });
    }
    match row.unread {
        0 => {}
        1..=999 => right.push_str(&row.unread.to_string()),
        _ => right.push_str("999+"),
    }
    if !right.is_empty() {
        right.insert(0, ' ');
    }
    let room = columns.saturating_sub(4 + width(&right));
    let title = pad(&cut(&clean_line(&row.title), room, layout::dots(state)), room);
    format!(" {sign} {title}{right} ")
}

fn presence_sign(state: &State, presence: Presence) -> &'static str {
    match (presence, state.glyphs) {
        (Presence::Online, Glyphs::Unicode) => "●",
        (Presence::Online, Glyphs::Plain) => "*",
        (Presence::Offline { .. }, Glyphs::Unicode) => "○",
        (Presence::Offline { .. }, Glyphs::Plain) => "-",
    }
}

fn render_pane(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let columns = usize::from(area.width);
    let (input, cursor_row, cursor_column) = layout::input_rows(state);
    let height = layout::timeline_height(state);
    let row = |at: usize, height: usize| Rect {
        y: area.y.saturating_add(u16::try_from(at).unwrap_or(u16::MAX)),
        height: u16::try_from(height).unwrap_or(u16::MAX),
        ..area
    };
    if let Some(pane) = &state.pane {
        frame.render_widget(title_line(state, pane, columns), row(0, 1));
        frame.render_widget(Paragraph::new(timeline_lines(state, pane, height)), row(1, height));
        frame.render_widget(typing_line(state, pane, columns), row(1 + height, 1));
    } else {
        frame.render_widget(Line::styled(" Choose a conversation, or /open HANDLE", dim(state)), row(0, 1));
    }
    let rule = if state.glyphs == Glyphs::Unicode { "─" } else { "-" };
    frame.render_widget(Line::styled(rule.repeat(columns), dim(state)), row(2 + height, 1));
    let rows = input.len();
    let lines: Vec<Line<'_>> = input
        .into_iter()
        .enumerate()
        .map(|(index, text)| Line::raw(format!("{} {text}", if index == 0 { ">" } else { " " })))
        .collect();
    let input_area = row(3 + height, rows);
    frame.render_widget(Paragraph::new(lines), input_area);
    if state.focus == Focus::Input && !state.help {
        let x = input_area.x + 2 + u16::try_from(cursor_column).unwrap_or(0);
        let y = input_area.y + u16::try_from(cursor_row).unwrap_or(0);
        frame.set_cursor_position(Position { x: x.min(area.right().saturating_sub(1)), y });
    }
}

fn title_line(state: &State, pane: &Pane, columns: usize) -> Line<'static> {
    let sign = if pane.group { "#" } else { "" };
    let about = match pane.presence {
        _ if pane.group => String::new(),
        None => String::new(),
        Some(presence @ Presence::Online) => format!("  {} online", presence_sign(state, presence)),
        Some(presence @ Presence::Offline { last_seen_ms: 0 }) => {
            format!("  {} offline", presence_sign(state, presence))
        }
        Some(presence @ Presence::Offline { last_seen_ms }) => {
            format!("  {} offline, last seen {}", presence_sign(state, presence), when(state, last_seen_ms))
        }
    };
    let scrolled = if pane.scroll > 0 { format!("  [{} rows up]", pane.scroll) } else { String::new() };
    let title =
        cut(&format!(" {sign}{}", clean_line(&pane.title)), columns.saturating_sub(width(&about)), layout::dots(state));
    let room = columns.saturating_sub(width(&title));
    let style = if pane.presence == Some(Presence::Online) { colour(state, Color::Green) } else { dim(state) };
    Line::from(vec![
        Span::styled(title, bold()),
        Span::styled(cut(&format!("{about}{scrolled}"), room, layout::dots(state)), style),
    ])
}

/// A time today, or a day.
fn when(state: &State, ms: u64) -> String {
    let day = layout::day(ms, &state.zone);
    if day == layout::day(state.now_ms, &state.zone) { layout::clock(ms, &state.zone) } else { day }
}

fn timeline_lines(state: &State, pane: &Pane, height: usize) -> Vec<Line<'static>> {
    let columns = layout::pane_width(state);
    let rows = layout::timeline_rows(state, pane, height + pane.scroll);
    let end = rows.len().saturating_sub(pane.scroll);
    let start = end.saturating_sub(height);
    let mut lines: Vec<Line<'static>> = Vec::with_capacity(height);
    // A short conversation stands at the bottom, next to the line being written.
    lines.extend((end - start..height).map(|_| Line::raw("")));
    lines.extend(rows[start..end].iter().map(|row| timeline_line(state, row, columns)));
    lines
}

fn timeline_line(state: &State, row: &TimelineRow, columns: usize) -> Line<'static> {
    match row {
        TimelineRow::Separator(text) => {
            let rule = if state.glyphs == Glyphs::Unicode { "─" } else { "-" };
            let text = format!(" {} ", cut(text, columns.saturating_sub(4), ""));
            let left = columns.saturating_sub(width(&text)) / 2;
            let right = columns.saturating_sub(width(&text) + left);
            Line::styled(format!("{}{text}{}", rule.repeat(left), rule.repeat(right)), dim(state))
        }
        TimelineRow::Notice(text) => Line::styled(text.clone(), dim(state)),
        TimelineRow::Aside { text, bad } => {
            Line::styled(text.clone(), if *bad { colour(state, Color::Red) } else { dim(state) })
        }
        TimelineRow::First { clock, nick, mine, text, mark } => {
            let style = if *mine { colour(state, Color::Cyan) } else { colour(state, nick_colour(nick)) };
            let used = width(clock) + 2 + width(nick) + width(text);
            let mut spans = vec![
                Span::styled(format!("{clock} "), dim(state)),
                Span::styled(format!("{nick} "), style),
                Span::raw(text.clone()),
            ];
            spans.extend(mark_spans(state, mark.as_ref(), columns, used));
            Line::from(spans)
        }
        TimelineRow::More { text, mark } => {
            let mut spans = vec![Span::raw(text.clone())];
            spans.extend(mark_spans(state, mark.as_ref(), columns, width(text)));
            Line::from(spans)
        }
    }
}

/// The mark in the last columns.
fn mark_spans(state: &State, mark: Option<&Mark>, columns: usize, used: usize) -> Vec<Span<'static>> {
    let Some(mark) = mark else { return Vec::new() };
    let sign = mark_sign(mark, state.glyphs);
    let fill = columns.saturating_sub(used + 2);
    let style = match mark {
        Mark::Read => colour(state, Color::Cyan).add_modifier(Modifier::BOLD),
        Mark::Failed(_) => colour(state, Color::Red),
        _ => dim(state),
    };
    vec![Span::raw(" ".repeat(fill)), Span::styled(pad(sign, 2), style)]
}

/// The same nick has the same colour everywhere.
fn nick_colour(nick: &str) -> Color {
    const COLOURS: [Color; 5] = [Color::Green, Color::Yellow, Color::Magenta, Color::Blue, Color::LightRed];
    let sum = nick.trim_end().bytes().fold(0_usize, |sum, byte| sum.wrapping_mul(31).wrapping_add(usize::from(byte)));
    COLOURS[sum % COLOURS.len()]
}

fn typing_line(state: &State, pane: &Pane, columns: usize) -> Line<'static> {
    let dots = if state.glyphs == Glyphs::Unicode { "…" } else { "..." };
    let text = match pane.typing.as_slice() {
        [] => String::new(),
        [one] => format!(" {} is typing{dots}", clean_line(one)),
        [one, other] => format!(" {} and {} are typing{dots}", clean_line(one), clean_line(other)),
        [one, others @ ..] => format!(" {} and {} others are typing{dots}", clean_line(one), others.len()),
    };
    Line::styled(cut(&text, columns, layout::dots(state)), dim(state))
}

/// The keys and the commands.
const HELP: &[&str] = &[
    "Enter          send",
    "Alt-Enter      another line (also ^J)",
    "Tab, Esc       to the list and back",
    "^N ^P          next, previous conversation",
    "PgUp PgDn      older, newer (also Up, Down)",
    "^R             send again what was refused",
    "^X             cancel what waits, dismiss it",
    "^A ^E ^W ^U ^K edit the line",
    "/open HANDLE   chat with somebody",
    "/group TITLE HANDLE...  make a group",
    "//text         say something with a /",
    "^C or /quit    leave",
];

fn render_help(state: &State, frame: &mut Frame<'_>, area: Rect) {
    let width = 46.min(area.width);
    let height = u16::try_from(HELP.len() + 2).unwrap_or(u16::MAX).min(area.height);
    let place = Rect { x: (area.width - width) / 2, y: (area.height - height) / 2, width, height };
    frame.render_widget(Clear, place);
    let mut lines = vec![Line::styled(pad(" Keys", usize::from(width)), reversed())];
    lines.extend(HELP.iter().map(|text| Line::raw(format!(" {text}"))));
    lines.push(Line::styled(" any key goes back", dim(state)));
    frame.render_widget(Paragraph::new(lines), place);
}
