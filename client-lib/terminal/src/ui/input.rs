//! The line being written.

use unicode_segmentation::UnicodeSegmentation as _;

/// Text with a cursor that is never within a character as the user sees it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Input {
    text: String,
    /// A byte index on a boundary between graphemes.
    cursor: usize,
}

impl Input {
    /// What is written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Whether nothing is.
    pub fn is_empty(&self) -> bool {
        self.text.is_empty()
    }

    /// What is before the cursor.
    pub fn before_cursor(&self) -> &str {
        &self.text[..self.cursor]
    }

    /// Takes the text out and leaves nothing.
    pub fn take(&mut self) -> String {
        self.cursor = 0;
        std::mem::take(&mut self.text)
    }

    /// Writes at the cursor.
    pub fn insert(&mut self, text: &str) {
        self.text.insert_str(self.cursor, text);
        self.cursor += text.len();
        self.settle();
    }

    /// What was typed may have joined the characters beside it: the cursor goes to the next boundary.
    fn settle(&mut self) {
        let cursor = self.cursor;
        self.cursor =
            self.text.grapheme_indices(true).map(|(at, _)| at).find(|at| *at >= cursor).unwrap_or(self.text.len());
    }

    /// One character to the left.
    pub fn left(&mut self) {
        self.cursor = self.previous();
    }

    /// One character to the right.
    pub fn right(&mut self) {
        self.cursor = self.next();
    }

    /// To the beginning.
    pub fn home(&mut self) {
        self.cursor = 0;
    }

    /// To the end.
    pub fn end(&mut self) {
        self.cursor = self.text.len();
    }

    /// Deletes the character before the cursor.
    pub fn backspace(&mut self) {
        let from = self.previous();
        self.text.drain(from..self.cursor);
        self.cursor = from;
        self.settle();
    }

    /// Deletes the character after the cursor.
    pub fn delete(&mut self) {
        let to = self.next();
        self.text.drain(self.cursor..to);
        self.settle();
    }

    /// Deletes the word before the cursor.
    pub fn delete_word(&mut self) {
        let before = self.before_cursor();
        let word = before.trim_end_matches(char::is_whitespace);
        let from =
            word.rfind(char::is_whitespace).map_or(0, |at| at + word[at..].chars().next().map_or(1, char::len_utf8));
        self.text.drain(from..self.cursor);
        self.cursor = from;
        self.settle();
    }

    /// Deletes everything before the cursor.
    pub fn delete_to_home(&mut self) {
        self.text.drain(..self.cursor);
        self.cursor = 0;
    }

    /// Deletes everything after the cursor.
    pub fn delete_to_end(&mut self) {
        self.text.truncate(self.cursor);
    }

    fn previous(&self) -> usize {
        self.before_cursor().grapheme_indices(true).next_back().map_or(0, |(at, _)| at)
    }

    fn next(&self) -> usize {
        self.text[self.cursor..].graphemes(true).next().map_or(self.text.len(), |next| self.cursor + next.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(text: &str) -> Input {
        let mut input = Input::default();
        input.insert(text);
        input
    }

    #[test]
    fn the_cursor_moves_by_what_the_user_sees_as_one_character() {
        let mut input = written("ae\u{301}👩‍👩‍👧");
        input.left();
        assert_eq!(input.before_cursor(), "ae\u{301}");
        input.left();
        assert_eq!(input.before_cursor(), "a");
        input.delete();
        assert_eq!(input.text(), "a👩‍👩‍👧");
        input.end();
        input.backspace();
        assert_eq!(input.text(), "a");
    }

    #[test]
    fn words_and_halves_are_deleted() {
        let mut input = written("one two  three  ");
        input.delete_word();
        assert_eq!(input.text(), "one two  ");
        input.delete_word();
        assert_eq!(input.text(), "one ");
        input.home();
        input.right();
        input.delete_to_end();
        assert_eq!(input.text(), "o");
        input.delete_to_home();
        assert!(input.is_empty());
        input.backspace();
        input.delete();
        input.delete_word();
        assert_eq!(input.take(), "");
    }

    proptest::proptest! {
        #[test]
        fn no_sequence_of_keys_leaves_the_cursor_within_a_character(keys in proptest::collection::vec(0_u8..9, 0..60)) {
            let mut input = Input::default();
            for key in keys {
                match key {
                    0 => input.insert("e"),
                    1 => input.insert("\u{301}"),
                    2 => input.insert("👩"),
                    3 => input.insert("\u{200d}"),
                    4 => input.left(),
                    5 => input.right(),
                    6 => input.backspace(),
                    7 => input.delete(),
                    _ => input.delete_word(),
                }
                let boundaries: Vec<usize> =
                    input.text().grapheme_indices(true).map(|(at, _)| at).chain([input.text().len()]).collect();
                proptest::prop_assert!(boundaries.contains(&input.before_cursor().len()));
            }
        }
    }
}
