//! From where to ask for inbox lines after a reconnect (D10).
//!
//! Message ids rise within a partition, but lines come in any order: a line with a large id may come before one with a
//! smaller id of the same partition. So ids are only taken into the cursor once the server says that everything
//! changed has been sent.

use std::collections::BTreeMap;

use rove_protocol::ids::{MessageId, PartitionId};

/// The newest message id of each partition whose lines have all come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct InboxCursors {
    synced: BTreeMap<PartitionId, MessageId>,
    pending: BTreeMap<PartitionId, MessageId>,
}

impl InboxCursors {
    /// As the store held them.
    pub fn new(synced: impl IntoIterator<Item = (PartitionId, MessageId)>) -> Self {
        Self { synced: synced.into_iter().collect(), pending: BTreeMap::new() }
    }

    /// What to ask after.
    pub fn cursors(&self) -> impl Iterator<Item = (PartitionId, MessageId)> + '_ {
        self.synced.iter().map(|(partition, id)| (*partition, *id))
    }

    /// The stream is opened (again): what came on an older one without its end is not relied on.
    pub fn opened(&mut self) {
        self.pending.clear();
    }

    /// A line has come.
    pub fn line(&mut self, partition: PartitionId, last: MessageId) {
        let newest = self.pending.entry(partition).or_default();
        *newest = last.max(*newest);
    }

    /// Everything changed has come: the cursors that moved, to be stored with or after the lines.
    pub fn synced(&mut self) -> Vec<(PartitionId, MessageId)> {
        let mut moved = Vec::new();
        for (partition, id) in std::mem::take(&mut self.pending) {
            let cursor = self.synced.entry(partition).or_default();
            if id > *cursor {
                *cursor = id;
                moved.push((partition, id));
            }
        }
        moved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_moves_only_when_all_lines_have_come() {
        let mut inbox = InboxCursors::new([(PartitionId(1), MessageId(10))]);
        inbox.line(PartitionId(1), MessageId(90));
        inbox.line(PartitionId(1), MessageId(50));
        inbox.line(PartitionId(2), MessageId(7));
        assert_eq!(inbox.cursors().collect::<Vec<_>>(), [(PartitionId(1), MessageId(10))]);
        assert_eq!(inbox.synced(), [(PartitionId(1), MessageId(90)), (PartitionId(2), MessageId(7))]);
        assert_eq!(inbox.synced(), []);
    }

    #[test]
    fn lines_of_a_stream_that_broke_off_do_not_count() {
        let mut inbox = InboxCursors::default();
        inbox.line(PartitionId(1), MessageId(90));
        inbox.opened();
        inbox.line(PartitionId(1), MessageId(50));
        assert_eq!(inbox.synced(), [(PartitionId(1), MessageId(50))]);
    }

    #[test]
    fn a_cursor_never_goes_back() {
        let mut inbox = InboxCursors::new([(PartitionId(1), MessageId(10))]);
        inbox.line(PartitionId(1), MessageId(9));
        assert_eq!(inbox.synced(), []);
    }
}
