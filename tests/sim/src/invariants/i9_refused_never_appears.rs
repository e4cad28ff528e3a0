//! I9: a post that was refused for good never appears; who was removed from a conversation neither posts to it nor reads later seqs.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{AccountId, ConversationId, PostNo, Seq, WriterId};

use super::Invariant;
use crate::history::{ClientId, Message, PostEnd, Record};

type Post = (ConversationId, WriterId, PostNo);

#[derive(Default)]
pub(super) struct Refused {
    ended: BTreeSet<Post>,
    appeared: BTreeSet<Post>,
    clients: BTreeMap<ClientId, (AccountId, ConversationId)>,
    /// At which seqs an account came in (true) or went.
    members: BTreeMap<(ConversationId, AccountId), BTreeMap<Seq, bool>>,
}

impl Refused {
    /// Whether the account was in when `seq` was appended. What is not known is not held against it.
    fn was_in(&self, conversation: ConversationId, account: AccountId, seq: Seq) -> bool {
        let changes = self.members.get(&(conversation, account));
        changes.is_none_or(|changes| changes.range(..seq).next_back().is_some_and(|(_, inside)| *inside))
    }

    /// Whether the account may see the event at `seq`: it was in, or it is the event by which it came in or went.
    fn may_see(&self, conversation: ConversationId, account: AccountId, seq: Seq) -> bool {
        let changes = self.members.get(&(conversation, account));
        changes.is_none_or(|changes| changes.contains_key(&seq)) || self.was_in(conversation, account, seq)
    }

    fn found(&mut self, conversation: ConversationId, seq: Seq, message: &Message) -> Result<(), String> {
        if message.post_no == PostNo(0) {
            return Ok(());
        }
        let post = (conversation, message.writer, message.post_no);
        if self.ended.contains(&post) {
            return Err(format!("post {} of writer {} was refused, and is seq {seq}", message.post_no, message.writer));
        }
        self.appeared.insert(post);
        if !self.was_in(conversation, message.author, seq) {
            return Err(format!("account {} was not in {conversation} when it posted seq {seq}", message.author));
        }
        Ok(())
    }
}

impl Invariant for Refused {
    fn name(&self) -> &'static str {
        "I9 refused posts and removed members"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { client, account, conversation } => {
                self.clients.insert(*client, (*account, *conversation));
            }
            Record::Member { conversation, seq, account, inside } => {
                self.members.entry((*conversation, *account)).or_default().insert(*seq, *inside);
            }
            Record::PostEnded { conversation, writer, post_no, end: PostEnd::Refused | PostEnd::Revoked, .. } => {
                let post = (*conversation, *writer, *post_no);
                if self.appeared.contains(&post) {
                    return Err(format!("post {post_no} of writer {writer} is in the log, and was refused"));
                }
                self.ended.insert(post);
            }
            Record::Arrived { client, from, message: Some(message), .. } => {
                let Some((account, conversation)) = self.clients.get(client).copied() else { return Ok(()) };
                if !self.may_see(conversation, account, *from) {
                    return Err(format!(
                        "account {account} was sent seq {from} of {conversation}, and was not in it then"
                    ));
                }
                return self.found(conversation, *from, message);
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
    use crate::invariants::example::{PLACE, arrived, client, ended, message, verdict};

    fn member(seq: u64, inside: bool) -> Record {
        Record::Member { conversation: PLACE, seq: Seq(seq), account: AccountId(1), inside }
    }

    #[test]
    fn a_refused_post_is_nowhere() {
        let refused = ended(1, PostEnd::Refused);
        assert!(verdict(Refused::default(), &[client(1), refused.clone(), arrived(5, message(1))]).is_err());
        assert!(verdict(Refused::default(), &[client(1), arrived(5, message(1)), refused.clone()]).is_err());
        assert_eq!(verdict(Refused::default(), &[client(1), refused, arrived(5, message(2))]), Ok(()));
    }

    #[test]
    fn who_is_out_neither_posts_nor_reads() {
        let begin = [client(1), member(1, true), member(5, false)];
        let with = |record: Record| verdict(Refused::default(), &[&begin[..], &[record]].concat());
        let system = Message { post_no: PostNo(0), ..message(0) };
        assert_eq!(with(arrived(4, message(1))), Ok(()));
        assert_eq!(with(arrived(5, system)), Ok(()), "the event that put it out");
        assert!(with(arrived(6, system)).is_err());
        let log = Record::FinalLog {
            node: rove_protocol::ids::NodeId(1),
            conversation: PLACE,
            messages: vec![(Seq(6), message(1))],
        };
        assert!(with(log).is_err());
    }
}
