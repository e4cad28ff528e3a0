//! I1: every acknowledged post is in every replica's final log and in every reader's full read.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{ConversationId, PostNo, Seq, WriterId};

use super::Invariant;
use crate::history::{ClientId, PostEnd, Record};

type Post = (WriterId, PostNo);

#[derive(Default)]
pub(super) struct Kept {
    acknowledged: BTreeMap<ConversationId, BTreeMap<Seq, Post>>,
    conversations: BTreeMap<ClientId, ConversationId>,
    read: BTreeMap<ClientId, BTreeMap<Seq, Post>>,
    /// Seqs that a reader may not see.
    withheld: BTreeMap<ClientId, BTreeSet<u64>>,
    full_reads: BTreeSet<ClientId>,
    logs: Vec<(String, ConversationId, BTreeMap<Seq, Post>)>,
}

impl Invariant for Kept {
    fn name(&self) -> &'static str {
        "I1 acknowledged posts are kept"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { client, conversation, .. } => {
                self.conversations.insert(*client, *conversation);
            }
            Record::PostEnded { conversation, writer, post_no, end: PostEnd::Posted(seq), .. } => {
                self.acknowledged.entry(*conversation).or_default().insert(*seq, (*writer, *post_no));
            }
            Record::Arrived { client, from, message: Some(message), .. } => {
                self.read.entry(*client).or_default().insert(*from, (message.writer, message.post_no));
            }
            Record::Arrived { client, from, to, message: None } => {
                self.withheld.entry(*client).or_default().extend(from.0..=to.0);
            }
            Record::ReadAll { client } => {
                self.full_reads.insert(*client);
            }
            Record::FinalLog { node, conversation, messages } => {
                let posts = messages.iter().map(|(seq, message)| (*seq, (message.writer, message.post_no))).collect();
                self.logs.push((format!("node {node}"), *conversation, posts));
            }
            _ => {}
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), String> {
        let none = BTreeMap::new();
        for (whose, conversation, log) in &self.logs {
            for (seq, post) in self.acknowledged.get(conversation).unwrap_or(&none) {
                if log.get(seq) != Some(post) {
                    return Err(lost(whose, *seq, post, log.get(seq)));
                }
            }
        }
        for client in &self.full_reads {
            let Some(acknowledged) = self.conversations.get(client).and_then(|place| self.acknowledged.get(place))
            else {
                continue;
            };
            let read = self.read.get(client).unwrap_or(&none);
            let withheld = self.withheld.get(client);
            for (seq, post) in acknowledged {
                let may_see = withheld.is_none_or(|withheld| !withheld.contains(&seq.0));
                if may_see && read.get(seq) != Some(post) {
                    return Err(lost(&format!("reader {}", client.0), *seq, post, read.get(seq)));
                }
            }
        }
        Ok(())
    }
}

fn lost(whose: &str, seq: Seq, post: &Post, found: Option<&Post>) -> String {
    format!("post {} of writer {} was acknowledged as seq {seq}, but {whose} has {found:?} there", post.1, post.0)
}

#[cfg(test)]
mod tests {
    use rove_protocol::ids::NodeId;

    use super::*;
    use crate::invariants::example::{PLACE, arrived, client, message, posted, sent, verdict};

    fn log(messages: &[u64]) -> Record {
        let messages = messages.iter().map(|no| (Seq(*no), message(*no))).collect();
        Record::FinalLog { node: NodeId(1), conversation: PLACE, messages }
    }

    #[test]
    fn an_acknowledged_post_must_be_in_every_final_log() {
        let history = [sent(1), posted(1, 1), sent(2), log(&[1])];
        assert_eq!(verdict(Kept::default(), &history), Ok(()));
        let history = [sent(1), posted(1, 1), sent(2), posted(2, 2), log(&[1, 2]), log(&[1])];
        assert!(verdict(Kept::default(), &history).unwrap_err().contains("post 2 "));
    }

    #[test]
    fn an_acknowledged_post_must_be_in_every_full_read_of_who_may_see_it() {
        let all = Record::ReadAll { client: ClientId(1) };
        let withheld = Record::Arrived { client: ClientId(1), from: Seq(2), to: Seq(2), message: None };
        let begin = [client(1), posted(1, 1), posted(2, 2), arrived(1, message(1))];
        let read = |more: &[Record]| verdict(Kept::default(), &[&begin, more].concat());
        assert_eq!(read(&[]), Ok(()), "who has not read all may lack something");
        assert!(read(std::slice::from_ref(&all)).is_err());
        assert_eq!(read(&[withheld, all.clone()]), Ok(()));
        assert_eq!(read(&[arrived(2, message(2)), all]), Ok(()));
    }
}
