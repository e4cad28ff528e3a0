//! Handles: what people call an account.

use std::fmt;

use rove_protocol::limits;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// A valid handle: as it was typed, and the key under which it is unique.
///
/// Two handles are the same if their keys are: NFKC, lower case. The key is made where a request arrives and travels in
/// the command, because Unicode's tables differ between versions of a program and apply may not (D8).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Handle {
    text: String,
    key: String,
}

/// Why a text is not a handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HandleError {
    /// Nothing.
    #[error("a handle may not be empty")]
    Empty,
    /// Longer than [`limits::HANDLE`] bytes.
    #[error("a handle has at most {} bytes", limits::HANDLE)]
    TooLong,
    /// A character that may not be in a handle.
    #[error("a handle may not contain {0:?}")]
    Character(char),
}

impl Handle {
    /// Checks and normalises `text`.
    ///
    /// # Errors
    /// See [`HandleError`].
    pub fn parse(text: &str) -> Result<Self, HandleError> {
        if text.is_empty() {
            return Err(HandleError::Empty);
        }
        if text.len() > limits::HANDLE {
            return Err(HandleError::TooLong);
        }
        let text: String = text.nfc().collect();
        let key = fold(&text);
        // The key is checked as well: folding may bring forth what was not typed (U+FE13 becomes a colon).
        if let Some(bad) = text.chars().chain(key.chars()).find(|c| forbidden(*c)) {
            return Err(HandleError::Character(bad));
        }
        // Normalisation can lengthen a text, and a key may be empty only if the text is.
        if text.len() > limits::HANDLE || key.len() > 4 * limits::HANDLE {
            return Err(HandleError::TooLong);
        }
        Ok(Self { text, key })
    }

    /// As it is shown.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// As it is compared.
    pub fn key(&self) -> &str {
        &self.key
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Lower case between two normalisations: each can undo the other's work.
fn fold(text: &str) -> String {
    let lower: String = text.nfkc().flat_map(char::to_lowercase).collect();
    lower.nfkc().collect()
}

/// `@` and `:` are kept for addresses, white space and control characters break lines and columns, and characters that
/// show nothing or turn the direction of writing make two handles look like one.
fn forbidden(c: char) -> bool {
    matches!(c, '@' | ':'
        | '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}')
        || c.is_whitespace()
        || c.is_control()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_keeps_its_shape_and_is_compared_without_case() {
        let handle = Handle::parse("Zoë").unwrap();
        assert_eq!(handle.as_str(), "Zoë");
        assert_eq!(handle.key(), Handle::parse("ZOE\u{308}").unwrap().key());
        assert_ne!(handle.key(), Handle::parse("zoe").unwrap().key());
        assert_eq!(Handle::parse("ﬁn").unwrap().key(), Handle::parse("FIN").unwrap().key());
    }

    #[test]
    fn names_of_irc_are_handles() {
        for nick in ["[alice]", "bob^", "`carol`", "d|away", "e_-", "{f}", "G\\h", "12345"] {
            assert!(Handle::parse(nick).is_ok(), "{nick}");
        }
    }

    #[test]
    fn what_breaks_lines_addresses_or_eyes_is_refused() {
        assert_eq!(Handle::parse(""), Err(HandleError::Empty));
        assert_eq!(Handle::parse(&"a".repeat(65)), Err(HandleError::TooLong));
        assert!(Handle::parse(&"a".repeat(64)).is_ok());
        for bad in ["a b", "a@b", "a:b", "a\u{0}", "a\tb", "a\u{a0}b", "a\u{200b}b", "\u{202e}ab", "a\u{fe13}b"] {
            assert!(matches!(Handle::parse(bad), Err(HandleError::Character(_))), "{bad:?}");
        }
    }

    #[test]
    fn the_length_is_checked_after_normalising_too() {
        // U+1D160 is four bytes and twelve in NFC.
        assert_eq!(Handle::parse(&"\u{1d160}".repeat(16)), Err(HandleError::TooLong));
    }
}
