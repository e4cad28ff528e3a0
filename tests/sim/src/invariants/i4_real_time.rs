//! I4: if A was acknowledged before B was sent, seq(A) < seq(B); and the posts of one writer are in the order of their numbers.

use std::collections::BTreeMap;

use rove_protocol::ids::{ConversationId, PostNo, Seq, WriterId};

use super::Invariant;
use crate::history::{PostEnd, Record};

#[derive(Default)]
pub(super) struct RealTime {
    /// The highest seq acknowledged.
    acknowledged: BTreeMap<ConversationId, Seq>,
    /// What that was when a post was sent.
    floors: BTreeMap<(ConversationId, WriterId, PostNo), Seq>,
    writers: BTreeMap<(ConversationId, WriterId), BTreeMap<PostNo, Seq>>,
}

impl Invariant for RealTime {
    fn name(&self) -> &'static str {
        "I4 real time and FIFO"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::PostSent { conversation, writer, post_no, .. } => {
                let floor = self.acknowledged.get(conversation).copied().unwrap_or_default();
                self.floors.entry((*conversation, *writer, *post_no)).or_insert(floor);
            }
            Record::PostEnded { conversation, writer, post_no, end: PostEnd::Posted(seq), .. } => {
                let floor = self.floors.get(&(*conversation, *writer, *post_no)).copied().unwrap_or_default();
                if *seq <= floor {
                    return Err(format!(
                        "post {post_no} of writer {writer} is seq {seq}, but seq {floor} was acknowledged before it was sent"
                    ));
                }
                let highest = self.acknowledged.entry(*conversation).or_default();
                *highest = (*highest).max(*seq);
                let posts = self.writers.entry((*conversation, *writer)).or_default();
                let before = posts.range(..*post_no).next_back().filter(|(_, before)| *before >= seq);
                let after = posts.range(post_no.next()..).next().filter(|(_, after)| *after <= seq);
                if let Some((other, place)) = before.or(after) {
                    return Err(format!(
                        "of writer {writer}, post {post_no} is seq {seq} and post {other} is seq {place}"
                    ));
                }
                posts.insert(*post_no, *seq);
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{posted, sent, verdict};

    #[test]
    fn what_was_sent_after_an_acknowledgement_comes_after_it() {
        assert_eq!(verdict(RealTime::default(), &[sent(1), posted(1, 1), sent(2), posted(2, 2)]), Ok(()));
        assert!(verdict(RealTime::default(), &[sent(1), posted(1, 2), sent(2), posted(2, 1)]).is_err());
    }

    #[test]
    fn posts_of_one_writer_are_in_the_order_of_their_numbers_however_they_are_answered() {
        assert_eq!(verdict(RealTime::default(), &[sent(1), sent(2), posted(2, 2), posted(1, 1)]), Ok(()));
        assert!(verdict(RealTime::default(), &[sent(1), sent(2), posted(2, 1), posted(1, 2)]).is_err());
        assert!(verdict(RealTime::default(), &[sent(1), sent(2), posted(1, 2), posted(2, 1)]).is_err());
    }
}
