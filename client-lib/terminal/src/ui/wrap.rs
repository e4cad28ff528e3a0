//! Text for a terminal: made harmless, measured, broken into lines.

use unicode_segmentation::UnicodeSegmentation as _;
use unicode_width::UnicodeWidthStr as _;

/// Makes somebody else's text harmless: it must not move the cursor, change colours, or turn the line around.
///
/// Line feeds stay, tabs become spaces, every other control character and every direction override becomes U+FFFD.
pub fn clean(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => out.push('\n'),
            '\t' => out.push_str("    "),
            '\r' => {}
            control if control.is_control() || is_direction_override(control) => out.push('\u{fffd}'),
            other => out.push(other),
        }
    }
    out
}

/// Like [`clean`], and line feeds become spaces: for what must stay on one line.
pub fn clean_line(text: &str) -> String {
    clean(text).replace('\n', " ")
}

/// Embeddings, overrides and isolates, with which a text may show something other than it is.
fn is_direction_override(character: char) -> bool {
    matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// How many columns a text takes.
pub fn width(text: &str) -> usize {
    text.width()
}

/// Cuts a text to so many columns, with an ellipsis in the last one if something was cut.
pub fn cut(text: &str, columns: usize, ellipsis: &str) -> String {
    if width(text) <= columns {
        return text.to_owned();
    }
    let room = columns.saturating_sub(width(ellipsis));
    let mut out = String::new();
    let mut used = 0;
    for grapheme in text.graphemes(true) {
        used += width(grapheme);
        if used > room {
            break;
        }
        out.push_str(grapheme);
    }
    if columns >= width(ellipsis) {
        out.push_str(ellipsis);
    }
    out
}

/// A text, filled up with spaces to so many columns.
pub fn pad(text: &str, columns: usize) -> String {
    let mut out = text.to_owned();
    out.extend(std::iter::repeat_n(' ', columns.saturating_sub(width(text))));
    out
}

/// Breaks a text into lines of at most so many columns: at spaces where there are any, else between characters, never
/// within one. At least one line.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let columns = columns.max(1);
    let mut lines = Vec::new();
    for paragraph in text.split('\n') {
        wrap_paragraph(paragraph, columns, &mut lines);
    }
    lines
}

fn wrap_paragraph(paragraph: &str, columns: usize, lines: &mut Vec<String>) {
    let mut line = String::new();
    let mut used = 0;
    for token in tokens(paragraph) {
        let wide = width(token);
        if used + wide <= columns {
            line.push_str(token);
            used += wide;
            continue;
        }
        if token.starts_with(' ') {
            // The break takes the place of the spaces. Only a line of nothing but spaces keeps some.
            lines.push(std::mem::take(&mut line));
            used = 0;
            continue;
        }
        if wide <= columns {
            lines.push(line.trim_end_matches(' ').to_owned());
            token.clone_into(&mut line);
            used = wide;
            continue;
        }
        for grapheme in token.graphemes(true) {
            let wide = width(grapheme);
            if used + wide > columns && used > 0 {
                lines.push(std::mem::take(&mut line));
                used = 0;
            }
            line.push_str(grapheme);
            used += wide;
        }
    }
    lines.push(line);
}

/// Runs of spaces and runs of anything else, in turn.
fn tokens(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        let spaces = rest.starts_with(' ');
        let end = rest.find(|character| (character == ' ') != spaces).unwrap_or(rest.len());
        let (token, after) = rest.split_at(end);
        rest = after;
        (!token.is_empty()).then_some(token)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_stay_whole_where_they_fit() {
        assert_eq!(wrap("the quick brown fox", 10), ["the quick", "brown fox"]);
        assert_eq!(wrap("the quick brown fox", 80), ["the quick brown fox"]);
        assert_eq!(wrap("", 10), [""]);
        assert_eq!(wrap("a\n\nb", 10), ["a", "", "b"]);
    }

    #[test]
    fn a_word_longer_than_a_line_is_broken_between_characters() {
        assert_eq!(wrap("see https://x.example/abcdef", 10), ["see https:", "//x.exampl", "e/abcdef"]);
        assert_eq!(wrap("火车站见火车站", 5), ["火车", "站见", "火车", "站"]);
        assert_eq!(wrap("👩‍👩‍👧👩‍👩‍👧", 3), ["👩‍👩‍👧", "👩‍👩‍👧"]);
    }

    #[test]
    fn indentation_is_kept_and_spaces_at_a_break_are_not() {
        assert_eq!(wrap("    fn main", 12), ["    fn main"]);
        assert_eq!(wrap("ab   cd", 4), ["ab", "cd"]);
    }

    #[test]
    fn what_a_terminal_would_obey_is_made_harmless() {
        assert_eq!(clean("\u{1b}[31mred\u{7}\u{9b}x"), "\u{fffd}[31mred\u{fffd}\u{fffd}x");
        assert_eq!(clean("a\tb\r\nc"), "a    b\nc");
        assert_eq!(clean("safe\u{202e}txt.exe"), "safe\u{fffd}txt.exe");
        assert_eq!(clean_line("a\nb"), "a b");
    }

    #[test]
    fn cutting_counts_columns() {
        assert_eq!(cut("conversation", 6, "…"), "conve…");
        assert_eq!(cut("火车站见", 5, "…"), "火车…");
        assert_eq!(cut("short", 5, "…"), "short");
        assert_eq!(pad("火", 4), "火  ");
    }

    proptest::proptest! {
        #[test]
        fn no_line_is_wider_than_allowed_and_no_character_is_lost(text in "[ -~äöü火🚤\n]{0,200}", columns in 2_usize..40) {
            let lines = wrap(&text, columns);
            for line in &lines {
                proptest::prop_assert!(width(line) <= columns, "{line:?}");
            }
            let squeeze = |text: &str| text.chars().filter(|character| !character.is_whitespace()).collect::<String>();
            proptest::prop_assert_eq!(squeeze(&lines.concat()), squeeze(&text));
        }
    }
}
