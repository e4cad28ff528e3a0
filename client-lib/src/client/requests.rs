//! What a client asks the server: conversations to be made and described, accounts to be found and named.

use rove_protocol::ids::{AccountId, ConversationId};
use rove_protocol::limits;
use rove_protocol::message::{
    AccountRef, Accounts, ChangeMembers, ConversationInfo, CreateDirect, CreateGroup, FindAccounts, GetAccounts,
    GetConversation, HandleRef, MemberChange,
};
use rove_protocol::registry::{Method, Role};
use rove_protocol::wire::List;

use super::Client;
use crate::Error;
use crate::inner::random_bytes;
use crate::types::{AccountInfo, ConversationDetails};

impl Client {
    /// Makes (or finds) the direct conversation with the account of that handle.
    ///
    /// # Errors
    /// [`Error::NotFound`] if there is no such account, and those of a request.
    pub async fn create_direct(&self, handle: &str) -> Result<ConversationId, Error> {
        let found = self.find_accounts(&[handle]).await?;
        let peer = found.first().ok_or_else(|| Error::NotFound(format!("account {handle}")))?;
        self.create_direct_with(peer.account).await
    }

    /// Makes (or finds) the direct conversation with an account.
    ///
    /// # Errors
    /// [`Error::Server`] with `NotFound`, and those of a request.
    pub async fn create_direct_with(&self, account: AccountId) -> Result<ConversationId, Error> {
        let info: ConversationInfo = self.inner.request(Method::CreateDirect, &CreateDirect { peer: account }).await?;
        self.described(info, Some(account)).await.map(|details| details.id)
    }

    /// Makes a group. This account becomes its owner. At most 500 members at once; more with
    /// [`Client::change_members`].
    ///
    /// # Errors
    /// [`Error::TooLong`] for the title, [`Error::InvalidArgument`] for too many members, and those of a request.
    pub async fn create_group(&self, title: &str, members: &[AccountId]) -> Result<ConversationId, Error> {
        if title.len() > limits::TITLE {
            return Err(Error::TooLong { what: "the title", limit: limits::TITLE });
        }
        let members: Vec<_> = members.iter().map(|account| (*account, Role::Member)).collect();
        let create = CreateGroup { nonce: random_bytes(), title: title.to_owned(), members: member_changes(&members)? };
        let info: ConversationInfo = self.inner.request(Method::CreateGroup, &create).await?;
        self.described(info, None).await.map(|details| details.id)
    }

    /// Adds members to a group, changes their roles, removes them ([`Role::None`]). At most 500 at once.
    ///
    /// # Errors
    /// [`Error::Server`] with `Forbidden`, [`Error::InvalidArgument`] for too many, and those of a request.
    pub async fn change_members(&self, id: ConversationId, changes: &[(AccountId, Role)]) -> Result<(), Error> {
        let change = ChangeMembers { conversation: id, changes: member_changes(changes)? };
        let info: ConversationInfo = self.inner.request(Method::ChangeMembers, &change).await?;
        self.described(info, None).await.map(|_| ())
    }

    /// Describes a conversation and lists its members after `after`, ascending by account.
    ///
    /// # Errors
    /// [`Error::Server`] with `NotFound`, and those of a request.
    pub async fn details(&self, id: ConversationId, after: AccountId) -> Result<ConversationDetails, Error> {
        let get = GetConversation { conversation: id, after };
        let info: ConversationInfo = self.inner.request(Method::GetConversation, &get).await?;
        self.described(info, None).await
    }

    async fn described(&self, info: ConversationInfo, peer: Option<AccountId>) -> Result<ConversationDetails, Error> {
        {
            let mut state = self.inner.state.lock();
            state.described(&info, peer);
            if let Some(peer) = peer
                && !state.names.contains_key(&peer)
            {
                state.nameless.insert(peer);
                self.inner.ask.notify_one();
            }
        }
        self.inner.flush().await?;
        self.inner.updated(info.conversation);
        Ok(details(info))
    }

    /// Finds accounts by handle; those there are not are missing from the answer.
    ///
    /// # Errors
    /// Those of a request: [`Error::Timeout`], [`Error::Closed`], [`Error::Server`].
    pub async fn find_accounts(&self, handles: &[&str]) -> Result<Vec<AccountInfo>, Error> {
        let mut found = Vec::new();
        for chunk in handles.chunks(limits::ACCOUNTS_PER_REQUEST) {
            let handles: List<HandleRef> =
                chunk.iter().map(|handle| HandleRef { handle: (*handle).to_owned() }).collect();
            found.extend(
                self.accounts(self.inner.request(Method::FindAccounts, &FindAccounts { handles }).await?).await?,
            );
        }
        Ok(found)
    }

    async fn accounts(&self, accounts: Accounts) -> Result<Vec<AccountInfo>, Error> {
        let infos: Vec<AccountInfo> = accounts
            .accounts
            .into_vec()
            .into_iter()
            .map(|info| AccountInfo { account: info.account, handle: info.handle, name: info.name })
            .collect();
        {
            let mut state = self.inner.state.lock();
            for info in &infos {
                state.named(info.clone());
            }
        }
        self.inner.flush().await?;
        Ok(infos)
    }

    /// Who an account is, from the store if it is known there.
    ///
    /// # Errors
    /// [`Error::NotFound`], and those of a request.
    pub async fn account_info(&self, account: AccountId) -> Result<AccountInfo, Error> {
        if let Some(info) = self.inner.state.lock().names.get(&account) {
            return Ok(info.clone());
        }
        let accounts: List<AccountRef> = [AccountRef { account }].into_iter().collect();
        let answer = self.inner.request(Method::GetAccounts, &GetAccounts { accounts }).await?;
        let found = self.accounts(answer).await?;
        found
            .into_iter()
            .find(|info| info.account == account)
            .ok_or_else(|| Error::NotFound(format!("account {account}")))
    }

    /// What to call an account: its name, or its handle.
    ///
    /// # Errors
    /// As [`Client::account_info`].
    pub async fn name_of(&self, account: AccountId) -> Result<String, Error> {
        let info = self.account_info(account).await?;
        Ok(if info.name.is_empty() { info.handle } else { info.name })
    }
}

fn details(info: ConversationInfo) -> ConversationDetails {
    ConversationDetails {
        id: info.conversation,
        kind: info.kind,
        title: info.title,
        head: info.head,
        member_count: info.member_count,
        members: info.members.iter().map(|member| (member.account, member.role)).collect(),
    }
}

fn member_changes(changes: &[(AccountId, Role)]) -> Result<List<MemberChange>, Error> {
    if changes.len() > limits::MEMBERS_PER_REQUEST {
        return Err(Error::InvalidArgument(format!("at most {} members at once", limits::MEMBERS_PER_REQUEST)));
    }
    Ok(changes.iter().map(|(account, role)| MemberChange { account: *account, role: *role }).collect())
}
