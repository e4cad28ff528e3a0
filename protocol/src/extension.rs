//! Growth without breakage (D2): after a frozen struct come extensions, `id, length, bytes`, ascending and unique.
//!
//! An unknown even id is skipped; an unknown odd id is critical: whoever does not know it must refuse the message.

use bytes::Bytes;

use crate::error::DecodeError;
use crate::ids::PostTag;
use crate::limits;
use crate::registry::PostExtension;
use crate::wire::{Reader, Wire, put_varint};

/// One extension.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extension {
    /// From the registry of the message it extends. Odd: critical.
    pub id: u32,
    /// Its value, encoded as the registry says.
    pub value: Bytes,
}

/// What follows a struct: at most [`limits::EXTENSIONS`] extensions in ascending order of their ids.
#[derive(Debug, Clone, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Extensions(Vec<Extension>);

impl Extensions {
    /// Extensions in any order; later ones with an id already there are an error.
    ///
    /// # Errors
    /// [`DecodeError::ExtensionOrder`] for a repeated id, [`DecodeError::TooManyExtensions`].
    pub fn new(mut extensions: Vec<Extension>) -> Result<Self, DecodeError> {
        extensions.sort_by_key(|extension| extension.id);
        if extensions.windows(2).any(|pair| pair[0].id == pair[1].id) {
            return Err(DecodeError::ExtensionOrder);
        }
        if extensions.len() > limits::EXTENSIONS {
            return Err(DecodeError::TooManyExtensions);
        }
        Ok(Self(extensions))
    }

    /// The tag of a post, alone; no extensions without one.
    pub fn with_tag(tag: Option<PostTag>) -> Self {
        let extension = |tag: PostTag| Extension { id: PostExtension::Tag.0, value: Bytes::copy_from_slice(&tag.0) };
        Self(tag.map(extension).into_iter().collect())
    }

    /// The tag of the post or event these are the extensions of. A value that is not 16 bytes long is none.
    pub fn tag(&self) -> Option<PostTag> {
        self.get(PostExtension::Tag.0)?.as_ref().try_into().ok().map(PostTag)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The value of `id`.
    pub fn get(&self, id: u32) -> Option<&Bytes> {
        self.0.iter().find(|extension| extension.id == id).map(|extension| &extension.value)
    }

    /// The extensions in ascending order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = &Extension> {
        self.0.iter()
    }

    /// Appends them.
    pub fn put(&self, out: &mut Vec<u8>) {
        for extension in &self.0 {
            put_varint(out, u64::from(extension.id));
            put_varint(out, extension.value.len() as u64);
            out.extend_from_slice(&extension.value);
        }
    }

    /// Reads extensions up to the end of the reader.
    ///
    /// # Errors
    /// [`DecodeError::ExtensionOrder`], [`DecodeError::TooManyExtensions`] and those of the reader.
    pub fn take_rest(mut reader: Reader) -> Result<Self, DecodeError> {
        let mut extensions: Vec<Extension> = Vec::new();
        while reader.remaining() > 0 {
            if extensions.len() == limits::EXTENSIONS {
                return Err(DecodeError::TooManyExtensions);
            }
            let id = u32::take(&mut reader)?;
            if extensions.last().is_some_and(|last| last.id >= id) {
                return Err(DecodeError::ExtensionOrder);
            }
            let length = reader.length()?;
            extensions.push(Extension { id, value: reader.take(length)? });
        }
        Ok(Self(extensions))
    }

    /// Fails if there is a critical extension that is not in `known`.
    ///
    /// # Errors
    /// [`DecodeError::CriticalExtension`] with its id.
    pub fn refuse_critical(&self, known: &[u32]) -> Result<(), DecodeError> {
        match self.0.iter().find(|extension| extension.id % 2 == 1 && !known.contains(&extension.id)) {
            Some(extension) => Err(DecodeError::CriticalExtension(extension.id)),
            None => Ok(()),
        }
    }
}

/// As the last field of a struct: extensions that are kept with it. They reach to the end of the reader.
impl Wire for Extensions {
    fn put(&self, out: &mut Vec<u8>) {
        Self::put(self, out);
    }
    fn take(reader: &mut Reader) -> Result<Self, DecodeError> {
        let rest = reader.take(reader.remaining())?;
        Self::take_rest(Reader::new(rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Extensions, DecodeError> {
        Extensions::take_rest(Reader::new(Bytes::from_static(bytes)))
    }

    #[test]
    fn unknown_even_is_skipped_and_unknown_odd_is_refused() {
        assert_eq!(read(&[2, 1, 9]).unwrap().refuse_critical(&[]), Ok(()));
        assert_eq!(read(&[3, 0]).unwrap().refuse_critical(&[]), Err(DecodeError::CriticalExtension(3)));
        assert_eq!(read(&[3, 0]).unwrap().refuse_critical(&[3]), Ok(()));
    }

    #[test]
    fn order_must_ascend_without_repeats() {
        assert_eq!(read(&[4, 0, 2, 0]), Err(DecodeError::ExtensionOrder));
        assert_eq!(read(&[2, 0, 2, 0]), Err(DecodeError::ExtensionOrder));
    }

    #[test]
    fn more_than_sixteen_are_refused() {
        let mut bytes = Vec::new();
        for id in 0..17u32 {
            put_varint(&mut bytes, u64::from(id * 2));
            bytes.push(0);
        }
        let result = Extensions::take_rest(Reader::new(bytes.into()));
        assert_eq!(result, Err(DecodeError::TooManyExtensions));
    }
}
