//! I14, of accounts: who is suspended posts nowhere once that is done, and who is let back in may everywhere.

use std::collections::{BTreeMap, BTreeSet};

use rove_protocol::ids::{AccountId, ConversationId, PostNo, WriterId};

use super::Invariant;
use crate::history::{ClientId, PostEnd, Record};

type Post = (ConversationId, WriterId, PostNo);

/// What is known of an account.
#[derive(Default)]
struct Account {
    shut: bool,
    /// Gates so far, and those of them that some partition may not have.
    gates: u64,
    pending: BTreeSet<u64>,
}

#[derive(Default)]
pub(super) struct Gates {
    accounts: BTreeMap<AccountId, Account>,
    clients: BTreeMap<ClientId, AccountId>,
    /// Posts that were sent while nothing was pending: how many gates there had been.
    sent: BTreeMap<Post, u64>,
}

impl Invariant for Gates {
    fn name(&self) -> &'static str {
        "I14 gates hold everywhere"
    }

    fn observe(&mut self, _at_us: u64, record: &Record) -> Result<(), String> {
        match record {
            Record::Client { client, account, .. } => {
                self.clients.insert(*client, *account);
            }
            Record::Gate { number, account, shut } => {
                let account = self.accounts.entry(*account).or_default();
                account.shut = *shut;
                account.gates += 1;
                account.pending.insert(*number);
            }
            Record::GatesDone { number } => {
                self.accounts
                    .values_mut()
                    .for_each(|account| account.pending = account.pending.split_off(&(number + 1)));
            }
            Record::PostSent { client, conversation, writer, post_no, .. } => {
                let Some(id) = self.clients.get(client) else { return Ok(()) };
                let account = self.accounts.entry(*id).or_default();
                if account.pending.is_empty() {
                    self.sent.insert((*conversation, *writer, *post_no), account.gates);
                }
            }
            Record::PostEnded { client, conversation, writer, post_no, end } => {
                let sent = self.sent.remove(&(*conversation, *writer, *post_no));
                let id = self.clients.get(client).copied().unwrap_or_default();
                let account = self.accounts.entry(id).or_default();
                // Nothing has changed while it was on its way.
                if sent != Some(account.gates) {
                    return Ok(());
                }
                return match end {
                    PostEnd::Posted(seq) if account.shut => Err(format!(
                        "account {id} was suspended everywhere, and then posted seq {seq} of {conversation}"
                    )),
                    PostEnd::Revoked if !account.shut => Err(format!(
                        "account {id} is not suspended anywhere, and may not post {post_no} to {conversation}"
                    )),
                    _ => Ok(()),
                };
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::invariants::example::{client, ended, posted, sent, verdict};

    fn gate(number: u64, shut: bool) -> Record {
        Record::Gate { number, account: AccountId(1), shut }
    }

    const DONE: fn(u64) -> Record = |number| Record::GatesDone { number };

    fn of(records: &[Record]) -> Result<(), String> {
        verdict(Gates::default(), &[&[client(1)][..], records].concat())
    }

    #[test]
    fn who_is_suspended_everywhere_posts_nothing_more() {
        assert!(of(&[gate(1, true), DONE(1), sent(1), posted(1, 5)]).is_err());
        assert_eq!(of(&[gate(1, true), DONE(1), sent(1), ended(1, PostEnd::Revoked)]), Ok(()));
        assert_eq!(of(&[sent(1), gate(1, true), DONE(1), posted(1, 5)]), Ok(()), "it was sent before");
        assert_eq!(of(&[gate(1, true), sent(1), DONE(1), posted(1, 5)]), Ok(()), "not everywhere yet");
    }

    #[test]
    fn who_is_let_back_in_may_post_everywhere() {
        let back = [gate(1, true), DONE(1), gate(2, false), DONE(2), sent(1)];
        assert!(of(&[&back[..], &[ended(1, PostEnd::Revoked)]].concat()).is_err());
        assert_eq!(of(&[&back[..], &[posted(1, 5)]].concat()), Ok(()));
        assert_eq!(of(&[&back[..], &[ended(1, PostEnd::Refused)]].concat()), Ok(()), "for another reason");
        assert_eq!(of(&[&back[..], &[gate(3, true), ended(1, PostEnd::Revoked)]].concat()), Ok(()));
    }
}
