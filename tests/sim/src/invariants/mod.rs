//! What must hold, one file each (RELIABILITY.md). Each looks at every record as it comes and, where it can only then be told, at the end.

mod commands_once;
mod i11_receipts;
mod i12_liveness;
mod i14_gates;
mod i1_acknowledged_posts_are_kept;
mod i2_posts_appear_once;
mod i3_one_order;
mod i4_real_time;
mod i5_contiguous_delivery;
mod i6_linearizable_reads;
mod i7_one_leader_one_log;
mod i8_same_state;
mod i9_refused_never_appears;
mod sound;

use crate::history::Record;

/// One thing that must hold.
pub trait Invariant: Send {
    /// Its name in reports.
    fn name(&self) -> &'static str;

    /// Something happened.
    ///
    /// # Errors
    /// What must not be; it is then asked no more.
    fn observe(&mut self, at_us: u64, record: &Record) -> Result<(), String>;

    /// Nothing more will happen.
    ///
    /// # Errors
    /// What must not be.
    fn finish(&mut self) -> Result<(), String> {
        Ok(())
    }
}

/// All of them, having seen nothing yet.
pub fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(i1_acknowledged_posts_are_kept::Kept::default()),
        Box::new(i2_posts_appear_once::Once::default()),
        Box::new(i3_one_order::OneOrder::default()),
        Box::new(i4_real_time::RealTime::default()),
        Box::new(i5_contiguous_delivery::Contiguous::default()),
        Box::new(i6_linearizable_reads::Linearizable::default()),
        Box::new(i7_one_leader_one_log::OneLog::default()),
        Box::new(i8_same_state::SameState::default()),
        Box::new(i9_refused_never_appears::Refused::default()),
        Box::new(i11_receipts::Receipts::default()),
        Box::new(i12_liveness::Liveness::default()),
        Box::new(i14_gates::Gates::default()),
        Box::new(commands_once::CommandsOnce::default()),
        Box::new(sound::Sound),
    ]
}

/// Histories to try an invariant on.
#[cfg(test)]
mod example {
    use rove_protocol::ids::{AccountId, ConversationId, PostNo, Seq, WriterId};

    use super::Invariant;
    use crate::history::{ClientId, Message, PostEnd, Record};

    pub(super) const PLACE: ConversationId = ConversationId([1; 16]);
    pub(super) const WRITER: WriterId = WriterId([2; 16]);

    pub(super) fn message(no: u64) -> Message {
        Message { author: AccountId(1), writer: WRITER, post_no: PostNo(no), digest: no * 100 }
    }

    pub(super) fn client(number: u64) -> Record {
        Record::Client { client: ClientId(number), account: AccountId(number), conversation: PLACE }
    }

    pub(super) fn sent(no: u64) -> Record {
        let (client, conversation) = (ClientId(1), PLACE);
        Record::PostSent { client, conversation, writer: WRITER, post_no: PostNo(no), digest: no * 100 }
    }

    pub(super) fn ended(no: u64, end: PostEnd) -> Record {
        Record::PostEnded { client: ClientId(1), conversation: PLACE, writer: WRITER, post_no: PostNo(no), end }
    }

    pub(super) fn posted(no: u64, seq: u64) -> Record {
        ended(no, PostEnd::Posted(Seq(seq)))
    }

    pub(super) fn arrived(seq: u64, message: Message) -> Record {
        Record::Arrived { client: ClientId(1), from: Seq(seq), to: Seq(seq), message: Some(message) }
    }

    /// What the invariant says of these records, at seconds 0, 1, 2, …
    pub(super) fn verdict(mut invariant: impl Invariant, records: &[Record]) -> Result<(), String> {
        for (second, record) in records.iter().enumerate() {
            invariant.observe(second as u64 * 1_000_000, record)?;
        }
        invariant.finish()
    }
}
