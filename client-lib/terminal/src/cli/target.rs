//! Finds the conversation a user names, and brings it in step.

use std::time::Duration;

use rove_client::ids::ConversationId;
use rove_client::registry::ConversationKind;
use rove_client::{Client, ConnectionState, ConversationSummary};

use super::error::Failure;
use crate::explain;

/// How long a command waits for the server before it makes do with what is known here: twice a bad mobile link's
/// handshake.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What a user may mean.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Id(ConversationId),
    Handle(String),
    Title(String),
    Either(String),
}

fn meaning(target: &str) -> Meaning {
    if let Ok(id) = target.parse() {
        Meaning::Id(id)
    } else if let Some(handle) = target.strip_prefix('@') {
        Meaning::Handle(handle.to_owned())
    } else if let Some(title) = target.strip_prefix('#') {
        Meaning::Title(title.to_owned())
    } else {
        Meaning::Either(target.to_owned())
    }
}

/// What the list says to it: one conversation, several, or none.
fn listed(meaning: &Meaning, list: &[ConversationSummary]) -> Vec<ConversationId> {
    let with = |handle: &str, summary: &ConversationSummary| {
        summary.peer.as_ref().is_some_and(|peer| peer.handle.to_lowercase() == handle.to_lowercase())
    };
    let called =
        |title: &str, summary: &ConversationSummary| summary.kind != ConversationKind::Direct && summary.title == title;
    list.iter()
        .filter(|summary| match meaning {
            Meaning::Id(id) => summary.id == *id,
            Meaning::Handle(handle) => with(handle, summary),
            Meaning::Title(title) => called(title, summary),
            Meaning::Either(text) => with(text, summary) || called(text, summary),
        })
        .map(|summary| summary.id)
        .collect()
}

/// The conversation of that name: one of the list, or else the direct conversation with the account of that handle, made
/// if need be.
///
/// # Errors
/// There is none, or more than one.
pub async fn find(client: &Client, target: &str) -> Result<ConversationId, Failure> {
    let meaning = meaning(target);
    let conversations = client.conversations()?;
    let mut found = listed(&meaning, &conversations.list());
    if found.is_empty() {
        // A new device does not know its list yet.
        let _ = synced(client, PATIENCE).await;
        found = listed(&meaning, &conversations.list());
    }
    match (found.as_slice(), meaning) {
        ([one], _) => Ok(*one),
        ([], Meaning::Id(id)) => Ok(id),
        ([], Meaning::Title(title)) => {
            Err(Failure::usage(format!("there is no group called {title:?}: `rove list` shows all conversations")))
        }
        ([], Meaning::Handle(handle) | Meaning::Either(handle)) => Ok(client.create_direct(&handle).await?),
        (several, _) => {
            let ids: Vec<String> = several.iter().map(ToString::to_string).collect();
            Err(Failure::usage(format!(
                "{target} may be any of {}: say which by its id, or write @HANDLE or #TITLE",
                ids.join(", ")
            )))
        }
    }
}

/// Waits until the list of conversations is in step with the server; says why if it is not in time.
///
/// # Errors
/// Why there is no connection.
pub async fn synced(client: &Client, patience: Duration) -> Result<(), Failure> {
    match tokio::time::timeout(patience, client.synced()).await {
        Ok(outcome) => Ok(outcome?),
        Err(_) => Err(Failure::unreachable(why_not(client))),
    }
}

/// Why there is no connection.
pub fn why_not(client: &Client) -> String {
    match &*client.state().borrow() {
        ConnectionState::Disconnected { code, .. } => format!("not connected: {}", explain::code(*code)),
        ConnectionState::Connecting => {
            "the server does not answer: is it running, and does its UDP port get through?".into()
        }
        ConnectionState::Connected { .. } => "the server is slow to answer".into(),
        ConnectionState::Closed { code } => explain::code(*code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rove_client::AccountInfo;
    use rove_client::ids::{AccountId, Seq};
    use rove_client::registry::Role;

    fn summary(number: u8, title: &str, peer: &str) -> ConversationSummary {
        let direct = !peer.is_empty();
        ConversationSummary {
            id: ConversationId([number; 16]),
            kind: if direct { ConversationKind::Direct } else { ConversationKind::Group },
            role: Role::Member,
            title: title.into(),
            peer: direct.then(|| AccountInfo { account: AccountId(2), handle: peer.into(), name: String::new() }),
            head: Seq(0),
            read: Seq(0),
            unread: 0,
            last: None,
            queued: 0,
        }
    }

    #[test]
    fn a_name_is_a_handle_or_a_title_unless_it_says_which() {
        let list = [summary(1, "", "Bob"), summary(2, "bob", ""), summary(3, "tea", ""), summary(4, "tea", "")];
        let found = |target: &str| -> Vec<u8> { listed(&meaning(target), &list).iter().map(|id| id.0[0]).collect() };
        assert_eq!(found("bob"), [1, 2]);
        assert_eq!(found("@bob"), [1]);
        assert_eq!(found("#bob"), [2]);
        assert_eq!(found("#tea"), [3, 4]);
        assert_eq!(found(&"03".repeat(16)), [3]);
        assert_eq!(found("nobody"), [0_u8; 0]);
    }
}
