//! I5: what a device receives is contiguous; its cursor never goes back and never passes what it has not received.

use std::collections::BTreeMap;

use rove_protocol::ids::Seq;

use super::Invariant;
use crate::history::{ClientId, Record};

#[derive(Default)]
pub(super) struct Contiguous {
    /// The last seq of the unbroken range that each has.
    cursors: BTreeMap<ClientId, Seq>,
    /// Where the stream that is open now is.
    streams: BTreeMap<ClientId, Seq>,
}

impl Invariant for Contiguous {
    fn name(&self) -> &'static str {
        "I5 contiguous delivery"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Opened { client, after } => {
                let cursor = self.cursors.get(client).copied().unwrap_or_default();
                if *after != cursor {
                    return Err(format!(
                        "client {} opens after seq {after}, but it has received up to {cursor}",
                        client.0
                    ));
                }
                self.streams.insert(*client, *after);
            }
            Record::Arrived { client, from, to, .. } => {
                let stream = self.streams.entry(*client).or_default();
                if *from != stream.next() || to < from {
                    return Err(format!("client {} received seqs {from} to {to} after {stream}", client.0));
                }
                *stream = *to;
                self.cursors.insert(*client, *to);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{arrived, message, verdict};

    #[test]
    fn a_stream_goes_on_from_where_it_was_opened_without_a_hole() {
        let open = |after| Record::Opened { client: ClientId(1), after: Seq(after) };
        let event = |seq| arrived(seq, message(seq));
        let run = |records: &[Record]| verdict(Contiguous::default(), records);
        assert_eq!(run(&[open(0), event(1), event(2), open(2), event(3)]), Ok(()));
        assert!(run(&[open(0), event(2)]).is_err(), "a hole");
        assert!(run(&[open(0), event(1), event(1)]).is_err(), "twice on one stream");
        assert!(run(&[open(0), event(1), open(2)]).is_err(), "past what it has");
        assert!(run(&[open(0), event(1), open(0)]).is_err(), "back");
    }
}
