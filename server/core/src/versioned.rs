//! Bytes that outlive the binary that wrote them: a version, then postcard.
//!
//! Log entries and rows are read by later versions of this program, so each begins with one byte that says how the rest
//! is to be read. A published version of a struct is frozen; a change is a new version beside it.

use serde::{Deserialize, Serialize};

/// Bytes that are not a versioned value that this binary can read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VersionedError {
    /// No bytes at all.
    #[error("empty where a version was due")]
    Empty,
    /// A version that this binary does not know.
    #[error("version {0} is not known to this binary")]
    Version(u8),
    /// The rest does not decode, or is followed by more.
    #[error("version {0} does not decode")]
    Malformed(u8),
}

/// `version`, then `value` in postcard.
///
/// # Panics
/// Never: postcard fails on a buffer that is full and on lengths that are not known, and there are none of these here.
pub fn encode<T: Serialize + ?Sized>(version: u8, value: &T) -> Vec<u8> {
    let out = vec![version];
    #[allow(clippy::expect_used, reason = "a growing vector is never full")]
    postcard::to_extend(value, out).expect("postcard into a vector")
}

/// Reads what [`encode`] wrote, if its version is `version`.
///
/// # Errors
/// [`VersionedError`].
pub fn decode<'de, T: Deserialize<'de>>(version: u8, bytes: &'de [u8]) -> Result<T, VersionedError> {
    let (&found, rest) = bytes.split_first().ok_or(VersionedError::Empty)?;
    if found != version {
        return Err(VersionedError::Version(found));
    }
    match postcard::take_from_bytes(rest) {
        Ok((value, [])) => Ok(value),
        _ => Err(VersionedError::Malformed(version)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_and_nothing_else_does() {
        let bytes = encode(3, &(7u64, "x"));
        assert_eq!(bytes[0], 3);
        assert_eq!(decode::<(u64, String)>(3, &bytes), Ok((7, "x".to_owned())));
        assert_eq!(decode::<(u64, String)>(2, &bytes), Err(VersionedError::Version(3)));
        assert_eq!(decode::<(u64, String)>(3, &bytes[..2]), Err(VersionedError::Malformed(3)));
        assert_eq!(decode::<u64>(3, &bytes), Err(VersionedError::Malformed(3)), "bytes left over");
        assert_eq!(decode::<u64>(3, &[]), Err(VersionedError::Empty));
    }
}
