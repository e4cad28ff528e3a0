//! I12: soon after the last fault heals, every conversation accepts posts and the replicas converge.

use std::collections::BTreeSet;

use rove_protocol::ids::{ConversationId, PostNo, WriterId};

use super::Invariant;
use crate::history::{PostEnd, Record};

#[derive(Default)]
pub(super) struct Liveness {
    conversations: BTreeSet<ConversationId>,
    healed: Option<(u64, u64)>,
    sent_since: BTreeSet<(ConversationId, WriterId, PostNo)>,
    accepting: BTreeSet<ConversationId>,
    settled: bool,
}

impl Liveness {
    fn in_time(&self, at_us: u64) -> bool {
        self.healed.is_some_and(|(since, within)| at_us <= since + within)
    }
}

impl Invariant for Liveness {
    fn name(&self) -> &'static str {
        "I12 liveness"
    }

    fn observe(&mut self, at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { conversation, .. } => {
                self.conversations.insert(*conversation);
            }
            Record::Healed { within_us } => self.healed = Some((at_us, *within_us)),
            Record::PostSent { conversation, writer, post_no, .. } if self.healed.is_some() => {
                self.sent_since.insert((*conversation, *writer, *post_no));
            }
            Record::PostEnded { conversation, writer, post_no, end: PostEnd::Posted(_), .. }
                if self.sent_since.contains(&(*conversation, *writer, *post_no)) && self.in_time(at_us) =>
            {
                self.accepting.insert(*conversation);
            }
            Record::Settled => self.settled = self.in_time(at_us),
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        if self.healed.is_none() {
            return Ok(());
        }
        if let Some(conversation) = self.conversations.difference(&self.accepting).next() {
            return Err(format!("{conversation} accepted no post in time after the last fault"));
        }
        if self.settled {
            Ok(())
        } else {
            Err("the replicas did not come to rest in time after the last fault".to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{client, posted, sent, verdict};

    #[test]
    fn after_the_last_fault_posts_are_accepted_and_everything_settles_in_time() {
        let healed = |within: u64| Record::Healed { within_us: within * 1_000_000 };
        let run = |records: &[Record]| verdict(Liveness::default(), records);
        assert_eq!(run(&[client(1)]), Ok(()), "nothing was promised");
        assert_eq!(run(&[client(1), healed(3), sent(1), posted(1, 1), Record::Settled]), Ok(()));
        assert!(run(&[client(1), healed(3), sent(1), posted(1, 1)]).is_err());
        assert!(run(&[client(1), healed(3), Record::Settled]).is_err());
        assert!(run(&[client(1), sent(1), healed(3), posted(1, 1), Record::Settled]).is_err(), "sent before");
        assert!(run(&[client(1), healed(1), sent(1), posted(1, 1), Record::Settled]).is_err(), "too late");
    }
}
