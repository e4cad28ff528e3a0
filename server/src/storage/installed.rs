//! Which generation of a partition's state is current, and the snapshot it came from, as bytes: the same for every store.
//!
//! `generation (4) | index (8) | term (8) | members (protobuf)`, big-endian.

use protobuf::Message as _;
use rove_core::replica::{ConfState, Install};

/// The bytes; nothing if the members cannot be encoded.
pub(super) fn encode(generation: u32, install: &Install) -> Option<Vec<u8>> {
    let mut row = generation.to_be_bytes().to_vec();
    row.extend(install.index.to_be_bytes());
    row.extend(install.term.to_be_bytes());
    install.conf_state.write_to_vec(&mut row).ok()?;
    Some(row)
}

/// What [`encode`] wrote; nothing if these are other bytes.
pub(super) fn decode(row: &[u8]) -> Option<(u32, Install)> {
    let (generation, rest) = row.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (term, members) = rest.split_first_chunk()?;
    let conf_state = ConfState::parse_from_bytes(members).ok()?;
    let (index, term) = (u64::from_be_bytes(*index), u64::from_be_bytes(*term));
    Some((u32::from_be_bytes(*generation), Install { index, term, conf_state }))
}
