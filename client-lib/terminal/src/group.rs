//! Groups, by handle and of any size.

use std::collections::BTreeMap;

use rove_client::ids::{AccountId, ConversationId};
use rove_client::registry::Role;
use rove_client::{Client, Error};
use rove_protocol::limits;

/// Makes a group with the accounts of these handles.
///
/// # Errors
/// [`Error::NotFound`] with every handle that nobody has, before anything is made.
pub async fn create(client: &Client, title: &str, handles: &[String]) -> Result<ConversationId, Error> {
    let mut found = BTreeMap::new();
    for some in handles.chunks(limits::ACCOUNTS_PER_REQUEST) {
        let asked: Vec<&str> = some.iter().map(String::as_str).collect();
        for account in client.find_accounts(&asked).await? {
            found.insert(account.handle.to_lowercase(), account.account);
        }
    }
    let missing: Vec<&str> =
        handles.iter().filter(|handle| !found.contains_key(&handle.to_lowercase())).map(String::as_str).collect();
    if !missing.is_empty() {
        return Err(Error::NotFound(missing.join(", ")));
    }
    let members: Vec<AccountId> = found.into_values().filter(|account| *account != client.account()).collect();
    Ok(create_with(client, title, &members).await?.0)
}

/// Makes a group with any number of members, in as many requests as it takes; and how many requests added members after
/// the first.
///
/// # Errors
/// What the server says. The group may then exist with some of its members.
pub async fn create_with(
    client: &Client,
    title: &str,
    members: &[AccountId],
) -> Result<(ConversationId, usize), Error> {
    let mut batches = members.chunks(limits::MEMBERS_PER_REQUEST);
    let id = client.create_group(title, batches.next().unwrap_or_default()).await?;
    let mut further = 0;
    for batch in batches {
        let changes: Vec<(AccountId, Role)> = batch.iter().map(|account| (*account, Role::Member)).collect();
        client.change_members(id, &changes).await?;
        further += 1;
    }
    Ok((id, further))
}
