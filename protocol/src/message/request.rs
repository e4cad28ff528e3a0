//! Requests on the control stream: one shape, every one answered.

use bytes::Bytes;

use super::{body, message};
use crate::ids::{AccountId, ConversationId, RequestId, Seq};
use crate::limits;
use crate::message::MemberChange;
use crate::registry::{ConversationKind, ErrorCode, Method, Role};
use crate::wire::{List, wire_struct};

wire_struct! {
    /// Asks for something once. All methods may be repeated without harm.
    pub struct Request {
        /// Names the answer; unique among the client's unanswered requests.
        pub id: RequestId,
        /// What is asked.
        pub method: Method,
        /// The body of that method.
        pub body: Bytes,
    }
}
message!(Request);

wire_struct! {
    /// The answer to one request.
    pub struct Response {
        /// Whose answer it is.
        pub id: RequestId,
        /// [`ErrorCode::None`], or why not.
        pub code: ErrorCode,
        /// When to try again, in milliseconds; 0: no advice.
        pub retry_after_ms: u32,
        /// The method's answer; empty if it failed.
        pub body: Bytes,
    }
}
message!(Response);

wire_struct! {
    /// [`Method::CreateDirect`]; answered with [`ConversationInfo`].
    pub struct CreateDirect {
        /// The other account.
        pub peer: AccountId,
    }
}
body!(CreateDirect);

wire_struct! {
    /// [`Method::CreateGroup`]; answered with [`ConversationInfo`].
    pub struct CreateGroup {
        /// Random; the same nonce is the same group.
        pub nonce: [u8; 16],
        /// At most [`limits::TITLE`] bytes.
        pub title: String,
        /// Members beside the creator, who becomes the owner; at most [`limits::MEMBERS_PER_REQUEST`].
        pub members: List<MemberChange>,
    }
}
body!(CreateGroup, |create| create.title.len() <= limits::TITLE && create.members.len() <= limits::MEMBERS_PER_REQUEST);

wire_struct! {
    /// [`Method::ChangeMembers`]; answered with [`ConversationInfo`].
    pub struct ChangeMembers {
        /// Which group.
        pub conversation: ConversationId,
        /// Who comes, who gets another role, and, with [`Role::None`], who goes.
        pub changes: List<MemberChange>,
    }
}
body!(ChangeMembers, |change| change.changes.len() <= limits::MEMBERS_PER_REQUEST);

wire_struct! {
    /// [`Method::GetConversation`]; answered with [`ConversationInfo`].
    pub struct GetConversation {
        /// Which.
        pub conversation: ConversationId,
        /// Members are listed by ascending account; those after this one.
        pub after: AccountId,
    }
}
body!(GetConversation);

wire_struct! {
    /// One member.
    pub struct MemberInfo {
        /// Who.
        pub account: AccountId,
        /// As what.
        pub role: Role,
    }
}
body!(MemberInfo);

wire_struct! {
    /// A conversation as its members see it.
    pub struct ConversationInfo {
        /// Its id.
        pub conversation: ConversationId,
        /// Direct or group.
        pub kind: ConversationKind,
        /// A group's title.
        pub title: String,
        /// The last seq of its log.
        pub head: Seq,
        /// How many members.
        pub member_count: u32,
        /// A page of them, ascending by account.
        pub members: List<MemberInfo>,
    }
}
body!(ConversationInfo);

wire_struct! {
    /// A handle in a list.
    pub struct HandleRef {
        /// At most [`limits::HANDLE`] bytes.
        pub handle: String,
    }
}
body!(HandleRef);

wire_struct! {
    /// An account in a list.
    pub struct AccountRef {
        /// Its id.
        pub account: AccountId,
    }
}
body!(AccountRef);

wire_struct! {
    /// What one account may know of another.
    pub struct AccountInfo {
        /// Its id.
        pub account: AccountId,
        /// Its handle, unique on this server.
        pub handle: String,
        /// The name it shows; may be empty.
        pub name: String,
    }
}
body!(AccountInfo);

wire_struct! {
    /// [`Method::FindAccounts`]; answered with [`Accounts`], without those there are not.
    pub struct FindAccounts {
        /// At most [`limits::ACCOUNTS_PER_REQUEST`].
        pub handles: List<HandleRef>,
    }
}
body!(FindAccounts, |find| find.handles.len() <= limits::ACCOUNTS_PER_REQUEST);

wire_struct! {
    /// [`Method::GetAccounts`]; answered with [`Accounts`], without those there are not.
    pub struct GetAccounts {
        /// At most [`limits::ACCOUNTS_PER_REQUEST`].
        pub accounts: List<AccountRef>,
    }
}
body!(GetAccounts, |get| get.accounts.len() <= limits::ACCOUNTS_PER_REQUEST);

wire_struct! {
    /// The answer to [`FindAccounts`] and [`GetAccounts`].
    pub struct Accounts {
        /// In the order asked.
        pub accounts: List<AccountInfo>,
    }
}
body!(Accounts);

wire_struct! {
    /// [`Method::Watch`]; answered with an empty body. Those one shares no conversation with look offline.
    pub struct Watch {
        /// The whole new set, at most [`limits::WATCHED_ACCOUNTS`].
        pub accounts: List<AccountRef>,
    }
}
body!(Watch, |watch| watch.accounts.len() <= limits::WATCHED_ACCOUNTS);
