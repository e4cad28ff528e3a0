//! I2: each (writer, conversation, post number) appears at most once, with the body it was sent with, and every acknowledgement of it
//! names that seq.

use std::collections::BTreeMap;

use rove_protocol::ids::{ConversationId, PostNo, Seq, WriterId};

use super::Invariant;
use crate::history::{ClientId, Message, PostEnd, Record};

#[derive(Default)]
pub(super) struct Once {
    seqs: BTreeMap<(ConversationId, WriterId, PostNo), Seq>,
    bodies: BTreeMap<(ConversationId, WriterId, PostNo), u64>,
    conversations: BTreeMap<ClientId, ConversationId>,
}

impl Once {
    fn found(&mut self, conversation: ConversationId, seq: Seq, message: &Message) -> Result<(), String> {
        if message.post_no == PostNo(0) {
            return Ok(());
        }
        let post = (conversation, message.writer, message.post_no);
        match self.bodies.get(&post) {
            None => return Err(format!("post {} of writer {} was never sent", message.post_no, message.writer)),
            Some(sent) if *sent != message.digest => {
                return Err(format!("post {} of writer {} is not what was sent", message.post_no, message.writer));
            }
            Some(_) => {}
        }
        self.at(post, seq)
    }

    fn at(&mut self, post: (ConversationId, WriterId, PostNo), seq: Seq) -> Result<(), String> {
        let known = *self.seqs.entry(post).or_insert(seq);
        if known == seq {
            return Ok(());
        }
        Err(format!("post {} of writer {} is seq {known} and seq {seq}", post.2, post.1))
    }
}

impl Invariant for Once {
    fn name(&self) -> &'static str {
        "I2 posts appear once"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { client, conversation, .. } => {
                self.conversations.insert(*client, *conversation);
            }
            Record::PostSent { conversation, writer, post_no, digest, .. } => {
                let sent = *self.bodies.entry((*conversation, *writer, *post_no)).or_insert(*digest);
                if sent != *digest {
                    return Err(format!("number {post_no} of writer {writer} was given to two posts"));
                }
            }
            Record::PostEnded { conversation, writer, post_no, end: PostEnd::Posted(seq), .. } => {
                return self.at((*conversation, *writer, *post_no), *seq);
            }
            Record::Arrived { client, from, message: Some(message), .. } => {
                if let Some(conversation) = self.conversations.get(client).copied() {
                    return self.found(conversation, *from, message);
                }
            }
            Record::FinalLog { conversation, messages, .. } => {
                return messages.iter().try_for_each(|(seq, message)| self.found(*conversation, *seq, message));
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{arrived, client, message, posted, sent, verdict};

    #[test]
    fn a_post_has_one_seq_whoever_says_so() {
        let begin = [client(1), sent(1), sent(2), posted(1, 5)];
        let with = |record: Record| verdict(Once::default(), &[&begin[..], &[record]].concat());
        assert_eq!(with(arrived(5, message(1))), Ok(()));
        assert!(with(arrived(6, message(1))).is_err());
        assert!(with(posted(1, 6)).is_err());
    }

    #[test]
    fn a_post_is_what_was_sent() {
        let begin = [client(1), sent(1)];
        let with = |message| verdict(Once::default(), &[&begin[..], &[arrived(5, message)]].concat());
        assert!(with(Message { digest: 7, ..message(1) }).is_err());
        assert!(with(message(2)).is_err(), "never sent");
    }
}
