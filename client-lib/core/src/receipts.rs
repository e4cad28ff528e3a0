//! How far the members of a conversation have received and read: watermarks that only rise (I11).

use std::collections::BTreeMap;

use rove_protocol::ids::{AccountId, Seq};

/// One member's watermarks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Watermarks {
    /// The last seq one of its devices holds.
    pub delivered: Seq,
    /// The last seq it has read.
    pub read: Seq,
}

/// The watermarks of all members that sent any.
#[derive(Debug, Clone, Default)]
pub struct Receipts(BTreeMap<AccountId, Watermarks>);

impl Receipts {
    /// Takes a receipt in; whether it changed anything. What is read is also delivered.
    pub fn update(&mut self, account: AccountId, delivered: Seq, read: Seq) -> bool {
        let marks = self.0.entry(account).or_default();
        let new = Watermarks { delivered: marks.delivered.max(delivered).max(read), read: marks.read.max(read) };
        let changed = new != *marks;
        *marks = new;
        changed
    }

    /// Forgets all: the log starts again.
    pub fn clear(&mut self) {
        self.0.clear();
    }

    /// Ascending by account.
    pub fn iter(&self) -> impl Iterator<Item = (AccountId, Watermarks)> + '_ {
        self.0.iter().map(|(account, marks)| (*account, *marks))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn watermarks_only_rise_and_reading_is_receiving() {
        let mut receipts = Receipts::default();
        assert!(receipts.update(AccountId(1), Seq(5), Seq(2)));
        assert!(!receipts.update(AccountId(1), Seq(4), Seq(1)));
        assert!(receipts.update(AccountId(1), Seq(0), Seq(9)));
        let all: Vec<_> = receipts.iter().collect();
        assert_eq!(all, [(AccountId(1), Watermarks { delivered: Seq(9), read: Seq(9) })]);
    }
}
