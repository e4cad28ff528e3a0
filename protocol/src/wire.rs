//! How a value becomes bytes and back.
//!
//! The encoding is postcard's (<https://postcard.jamesmunns.com/wire-format>): fields in order, no tags, integers as
//! LEB128 varints. What a general deserializer cannot give us and this reader does: only the shortest varint is
//! accepted (so that equal values are equal bytes, everywhere), a length is checked against what is left *before*
//! anything is allocated, byte strings are slices of the received buffer, and an error says what was wrong. A property
//! test holds every message against the postcard crate itself.

use bytes::{Buf, Bytes};

use crate::error::DecodeError;
use crate::extension::Extensions;
use crate::limits;

/// A cursor over received bytes.
#[derive(Debug, Clone)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// Bytes not read yet.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// Everything not read yet, without copying.
    pub fn into_rest(self) -> Bytes {
        self.rest
    }

    /// The next `length` bytes, without copying.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left.
    pub fn take(&mut self, length: usize) -> Result<Bytes, DecodeError> {
        if length > self.rest.len() {
            return Err(DecodeError::Truncated);
        }
        Ok(self.rest.split_to(length))
    }

    /// One raw byte.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if nothing is left.
    pub fn byte(&mut self) -> Result<u8, DecodeError> {
        let byte = *self.rest.first().ok_or(DecodeError::Truncated)?;
        self.rest.advance(1);
        Ok(byte)
    }

    /// A LEB128 varint in its shortest form, at most `max`.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`], [`DecodeError::NotCanonical`] for a longer form than needed, and
    /// [`DecodeError::OutOfRange`] above `max`.
    pub fn varint(&mut self, max: u64) -> Result<u64, DecodeError> {
        let (value, used) = varint_prefix(&self.rest)?.ok_or(DecodeError::Truncated)?;
        if value > max {
            return Err(DecodeError::OutOfRange);
        }
        // Not split: that would count one more owner of the buffer for every number read.
        self.rest.advance(used);
        Ok(value)
    }

    /// A length that must fit in what is left: nothing is allocated for a length nobody has sent.
    ///
    /// # Errors
    /// Those of [`Reader::varint`], and [`DecodeError::Truncated`] if the length passes the end.
    pub fn length(&mut self) -> Result<usize, DecodeError> {
        let length = self.varint(u64::from(u32::MAX))?;
        match usize::try_from(length) {
            Ok(length) if length <= self.rest.len() => Ok(length),
            _ => Err(DecodeError::Truncated),
        }
    }

    /// Fails unless everything was read.
    ///
    /// # Errors
    /// [`DecodeError::TrailingBytes`].
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() { Ok(()) } else { Err(DecodeError::TrailingBytes) }
    }
}

/// The varint at the start of `bytes` and how many bytes it takes, or `None` if it is not complete yet.
///
/// # Errors
/// [`DecodeError::NotCanonical`] and [`DecodeError::OutOfRange`] (more than 64 bits).
pub fn varint_prefix(bytes: &[u8]) -> Result<Option<(u64, usize)>, DecodeError> {
    let mut value = 0u64;
    for (index, byte) in bytes.iter().copied().enumerate() {
        // The tenth byte holds bit 63 alone.
        if index == 9 && byte > 1 {
            return Err(DecodeError::OutOfRange);
        }
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            if byte == 0 && index > 0 {
                return Err(DecodeError::NotCanonical);
            }
            return Ok(Some((value, index + 1)));
        }
    }
    Ok(None)
}

/// Appends `value` as a LEB128 varint.
pub fn put_varint(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.push((value & 0x7f) as u8);
}

/// How many bytes [`put_varint`] takes for `value`.
pub fn varint_len(value: u64) -> usize {
    (64 - (value | 1).leading_zeros() as usize).div_ceil(7)
}

/// A value with a fixed place in a message.
pub trait Wire: Sized {
    /// Appends the value.
    fn put(&self, out: &mut Vec<u8>);

    /// Reads the value.
    ///
    /// # Errors
    /// What was wrong with the bytes; the reader's position is then of no use.
    fn take(reader: &mut Reader) -> Result<Self, DecodeError>;
}

macro_rules! wire_uint {
    ($($type:ty),*) => {$(
        impl Wire for $type {
            fn put(&self, out: &mut Vec<u8>) {
                put_varint(out, u64::from(*self));
            }
            fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
                let value = reader.varint(u64::from(<$type>::MAX))?;
                <$type>::try_from(value).map_err(|_| DecodeError::OutOfRange)
            }
        }
    )*};
}
wire_uint!(u16, u32, u64);

impl Wire for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.push(u8::from(*self));
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.byte()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(DecodeError::OutOfRange),
        }
    }
}

impl<const N: usize> Wire for [u8; N] {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let array = *reader.rest.first_chunk().ok_or(DecodeError::Truncated)?;
        reader.rest.advance(N);
        Ok(array)
    }
}

impl Wire for Bytes {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self);
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let length = reader.length()?;
        reader.take(length)
    }
}

impl Wire for String {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.len() as u64);
        out.extend_from_slice(self.as_bytes());
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let length = reader.length()?;
        let bytes = reader.take(length)?;
        std::str::from_utf8(&bytes).map(str::to_owned).map_err(|_| DecodeError::NotUtf8)
    }
}

impl<T: Wire> Wire for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            None => out.push(0),
            Some(value) => {
                out.push(1);
                value.put(out);
            }
        }
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        match reader.byte()? {
            0 => Ok(None),
            1 => T::take(reader).map(Some),
            _ => Err(DecodeError::OutOfRange),
        }
    }
}

/// A list whose items can grow: each is length-prefixed and may carry extensions of its own, which are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct List<T> {
    items: Vec<(T, Extensions)>,
}

impl<T> List<T> {
    /// How many items.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// The items, without their extensions.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &T> {
        self.items.iter().map(|(item, _)| item)
    }

    /// The items, without their extensions.
    pub fn into_vec(self) -> Vec<T> {
        self.items.into_iter().map(|(item, _)| item).collect()
    }
}

impl<T> Default for List<T> {
    fn default() -> Self {
        Self { items: Vec::new() }
    }
}

impl<T> FromIterator<T> for List<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        Self { items: items.into_iter().map(|item| (item, Extensions::default())).collect() }
    }
}

impl<T> From<Vec<T>> for List<T> {
    fn from(items: Vec<T>) -> Self {
        items.into_iter().collect()
    }
}

impl<T: Wire> Wire for List<T> {
    fn put(&self, out: &mut Vec<u8>) {
        put_varint(out, self.items.len() as u64);
        let mut scratch = Vec::new();
        for (item, extensions) in &self.items {
            scratch.clear();
            item.put(&mut scratch);
            extensions.put(&mut scratch);
            put_varint(out, scratch.len() as u64);
            out.extend_from_slice(&scratch);
        }
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let count = reader.varint(limits::LIST_ITEMS as u64)?;
        // Not reserved up front: the count is the sender's word, the items are what was really sent.
        let mut items = Vec::new();
        for _ in 0..count {
            let length = reader.length()?;
            let mut item = Reader::new(reader.take(length)?);
            let value = T::take(&mut item)?;
            let extensions = Extensions::take_rest(item)?;
            extensions.refuse_critical(&[])?;
            items.push((value, extensions));
        }
        Ok(Self { items })
    }
}

impl<T: Wire> serde::Serialize for List<T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.items.iter().map(|(item, extensions)| {
            let mut bytes = Vec::new();
            item.put(&mut bytes);
            extensions.put(&mut bytes);
            Bytes::from(bytes)
        }))
    }
}

/// Declares a struct whose fields are encoded in the order they are written: that order is the wire format.
macro_rules! wire_struct {
    (
        $(#[$meta:meta])*
        pub struct $name:ident {
            $( $(#[$field_meta:meta])* pub $field:ident : $type:ty, )*
        }
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
        pub struct $name {
            $( $(#[$field_meta])* pub $field: $type, )*
        }

        impl $crate::wire::Wire for $name {
            fn put(&self, out: &mut Vec<u8>) {
                let _ = &out;
                $( $crate::wire::Wire::put(&self.$field, out); )*
            }
            fn take(reader: &mut $crate::wire::Reader) -> Result<Self, $crate::error::DecodeError> {
                let _ = &reader;
                Ok(Self { $( $field: $crate::wire::Wire::take(reader)?, )* })
            }
        }
    };
}
pub(crate) use wire_struct;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_longer_varint_than_needed_is_refused() {
        assert_eq!(varint_prefix(&[0x80, 0x00]), Err(DecodeError::NotCanonical));
        assert_eq!(varint_prefix(&[0x00]), Ok(Some((0, 1))));
        assert_eq!(varint_prefix(&[0x80]), Ok(None));
    }

    #[test]
    fn a_varint_of_more_than_64_bits_is_refused() {
        assert_eq!(varint_prefix(&[0xff; 11]), Err(DecodeError::OutOfRange));
        let mut bytes = vec![0xff; 9];
        bytes.push(0x01);
        assert_eq!(varint_prefix(&bytes), Ok(Some((u64::MAX, 10))));
    }

    #[test]
    fn a_length_of_four_gigabytes_is_refused_before_allocation() {
        let bytes = Bytes::from_static(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1, 2]);
        assert_eq!(<Bytes as Wire>::take(&mut Reader::new(bytes.clone())), Err(DecodeError::Truncated));
        assert_eq!(String::take(&mut Reader::new(bytes)), Err(DecodeError::Truncated));
    }

    proptest! {
        #[test]
        fn varints_round_trip_and_their_length_is_known(value: u64) {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), varint_len(value));
            prop_assert_eq!(varint_prefix(&bytes), Ok(Some((value, bytes.len()))));
            prop_assert_eq!(bytes, postcard::to_allocvec(&value).unwrap());
        }
    }
}
