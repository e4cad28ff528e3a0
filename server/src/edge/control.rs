//! Requests: each is answered once, whatever happens.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use rove_core::command::{ConversationCommand, ConversationOutcome};
use rove_core::conversation::{ReadError, read};
use rove_core::directory::{AccountRow, DirectoryError, Handle};
use rove_protocol::error::DecodeError;
use rove_protocol::ids::{AccountId, ConversationId};
use rove_protocol::limits;
use rove_protocol::message::{
    AccountInfo, Accounts, Body, ChangeMembers, ConversationInfo, CreateDirect, CreateGroup, FindAccounts, GetAccounts,
    GetConversation, MemberChange, MemberInfo, Request, Response, Watch,
};
use rove_protocol::registry::{ErrorCode, Method, Role};
use rove_protocol::wire::List;

use super::entitlement;
use super::session::Session;
use crate::node::{CallError, ProposeError};

/// How long a command may take. The node answers much sooner, or says that it cannot; this is for what nobody thought of.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Advice with `Busy` and `Unavailable`, in milliseconds: an election takes about a second, a full queue less.
pub(super) const RETRY_AFTER_MS: u32 = 250;
/// Members in one [`ConversationInfo`]: some 6 KB.
const MEMBERS_PAGE: usize = 500;
/// Largest answer: a frame, less what surrounds the body.
const ANSWER_BYTES: usize = limits::FRAME - 64;

/// Answers a request.
pub(super) async fn answer(session: Arc<Session>, request: Request) -> Response {
    let id = request.id;
    let (code, body) = match dispatch(&session, request).await {
        Ok(body) if body.len() <= ANSWER_BYTES => (ErrorCode::None, body),
        // Names may be so long that an allowed number of them does not fit: ask for fewer.
        Ok(_) => (ErrorCode::LimitExceeded, Vec::new()),
        Err(code) => (code, Vec::new()),
    };
    let again = matches!(code, ErrorCode::Busy | ErrorCode::Unavailable);
    Response { id, code, retry_after_ms: if again { RETRY_AFTER_MS } else { 0 }, body: body.into() }
}

async fn dispatch(session: &Arc<Session>, request: Request) -> Result<Vec<u8>, ErrorCode> {
    let body = request.body;
    let code = |error: DecodeError| error.code();
    match request.method {
        Method::CreateDirect => create_direct(session, CreateDirect::decode_body(body).map_err(code)?).await,
        Method::CreateGroup => create_group(session, CreateGroup::decode_body(body).map_err(code)?).await,
        Method::ChangeMembers => change_members(session, ChangeMembers::decode_body(body).map_err(code)?).await,
        Method::GetConversation => get_conversation(session, GetConversation::decode_body(body).map_err(code)?).await,
        Method::FindAccounts => find_accounts(session, FindAccounts::decode_body(body).map_err(code)?).await,
        Method::GetAccounts => get_accounts(session, GetAccounts::decode_body(body).map_err(code)?).await,
        Method::Watch => watch(session, Watch::decode_body(body).map_err(code)?).await,
        _ => Err(ErrorCode::Unsupported),
    }
}

async fn create_direct(session: &Session, create: CreateDirect) -> Result<Vec<u8>, ErrorCode> {
    must_exist(session, vec![create.peer]).await?;
    let command = ConversationCommand::CreateDirect { actor: session.actor(), peer: create.peer };
    propose(session, ConversationId::direct(session.account(), create.peer), &command).await
}

async fn create_group(session: &Session, create: CreateGroup) -> Result<Vec<u8>, ErrorCode> {
    let members = changes(&create.members);
    must_exist(session, members.iter().map(|(account, _)| *account).collect()).await?;
    let id = ConversationId::group(session.account(), create.nonce);
    let command =
        ConversationCommand::CreateGroup { actor: session.actor(), nonce: create.nonce, title: create.title, members };
    propose(session, id, &command).await
}

async fn change_members(session: &Session, change: ChangeMembers) -> Result<Vec<u8>, ErrorCode> {
    let changes = changes(&change.changes);
    let coming = changes.iter().filter(|(_, role)| *role != Role::None).map(|(account, _)| *account).collect();
    must_exist(session, coming).await?;
    let conversation = change.conversation;
    let command = ConversationCommand::ChangeMembers { actor: session.actor(), conversation, changes };
    propose(session, conversation, &command).await
}

fn changes(members: &List<MemberChange>) -> Vec<(AccountId, Role)> {
    members.iter().map(|change| (change.account, change.role)).collect()
}

/// Runs a command that is answered with a conversation.
async fn propose(session: &Session, id: ConversationId, command: &ConversationCommand) -> Result<Vec<u8>, ErrorCode> {
    let node = &session.edge.node;
    let answer = node.propose_conversation(node.partition_of(id), command).map_err(ProposeError::code)?;
    let Ok(Ok(outcome)) = tokio::time::timeout(ANSWER_WITHIN, answer).await else {
        return Err(ErrorCode::Unavailable);
    };
    match outcome {
        ConversationOutcome::Conversation(_) => describe(session, id, AccountId(0)).await,
        ConversationOutcome::Failed(code) => Err(code),
        // Not what these commands are answered with.
        ConversationOutcome::Posted(_) | ConversationOutcome::Refused(_) | ConversationOutcome::Done => {
            Err(ErrorCode::Internal)
        }
    }
}

async fn get_conversation(session: &Session, get: GetConversation) -> Result<Vec<u8>, ErrorCode> {
    describe(session, get.conversation, get.after).await
}

/// A conversation and a page of its members, for a member.
async fn describe(session: &Session, id: ConversationId, after: AccountId) -> Result<Vec<u8>, ErrorCode> {
    let partition = session.edge.node.partition_of(id);
    let account = session.account();
    let absent = |found: &Result<Option<ConversationInfo>, ReadError>| matches!(found, Ok(None));
    let described = session.edge.node.read_surely(partition, absent, move |state| {
        let Some(row) = read::conversation(state, partition, id)? else { return Ok(None) };
        if !read::member(state, partition, id, account)?.is_some_and(|member| member.is_member()) {
            return Ok(None);
        }
        let members = read::members(state, partition, id, after, MEMBERS_PAGE)?;
        Ok(Some(ConversationInfo {
            conversation: id,
            kind: row.kind,
            title: row.title,
            head: row.head,
            member_count: row.member_count,
            members: members.into_iter().map(|(account, row)| MemberInfo { account, role: row.role }).collect(),
        }))
    });
    state(described.await)?.map(|info| info.encode_body()).ok_or(ErrorCode::NotFound)
}

async fn find_accounts(session: &Session, find: FindAccounts) -> Result<Vec<u8>, ErrorCode> {
    // What is not a handle is nobody's.
    let handles: Vec<Handle> = find.handles.iter().filter_map(|one| Handle::parse(&one.handle).ok()).collect();
    let wanted = handles.len();
    let absent =
        |found: &Result<Vec<AccountRow>, DirectoryError>| found.as_ref().is_ok_and(|found| found.len() < wanted);
    let found = session.edge.node.read_directory_surely(absent, move |directory| {
        handles.iter().filter_map(|handle| directory.account_by_handle(handle.key()).transpose()).collect()
    });
    accounts(found.await)
}

async fn get_accounts(session: &Session, get: GetAccounts) -> Result<Vec<u8>, ErrorCode> {
    let ids: Vec<AccountId> = get.accounts.iter().map(|one| one.account).collect();
    let wanted = ids.len();
    let absent =
        |found: &Result<Vec<AccountRow>, DirectoryError>| found.as_ref().is_ok_and(|found| found.len() < wanted);
    accounts(session.edge.node.read_directory_surely(absent, move |directory| directory.accounts(&ids)).await)
}

fn accounts(found: Result<Result<Vec<AccountRow>, DirectoryError>, CallError>) -> Result<Vec<u8>, ErrorCode> {
    let info = |row: AccountRow| AccountInfo { account: row.id, handle: row.handle, name: row.name };
    let accounts = directory(found)?.into_iter().map(info).collect();
    Ok(Accounts { accounts }.encode_body())
}

async fn watch(session: &Arc<Session>, watch: Watch) -> Result<Vec<u8>, ErrorCode> {
    let wanted: BTreeSet<AccountId> = watch.accounts.iter().map(|one| one.account).collect();
    let entitled = entitlement::shares_conversation(session, wanted).await?;
    session.edge.hub.watch(&session.subscriber, &entitled);
    Ok(Vec::new())
}

/// Fails with `NotFound` unless all of these accounts exist.
async fn must_exist(session: &Session, accounts: Vec<AccountId>) -> Result<(), ErrorCode> {
    let all: BTreeSet<AccountId> = accounts.iter().copied().collect();
    let count = all.len();
    let ids: Vec<AccountId> = all.into_iter().collect();
    let absent =
        |found: &Result<Vec<AccountRow>, DirectoryError>| found.as_ref().is_ok_and(|found| found.len() < count);
    let found = session.edge.node.read_directory_surely(absent, move |directory| directory.accounts(&ids));
    if directory(found.await)?.len() == count { Ok(()) } else { Err(ErrorCode::NotFound) }
}

/// What a read of the directory gave.
pub(super) fn directory<T>(result: Result<Result<T, DirectoryError>, CallError>) -> Result<T, ErrorCode> {
    result.map_err(CallError::code)?.map_err(|error| {
        tracing::error!(%error, "the directory cannot be read");
        ErrorCode::Internal
    })
}

/// What a read of conversation state gave.
pub(super) fn state<T>(result: Result<Result<T, ReadError>, CallError>) -> Result<T, ErrorCode> {
    result.map_err(CallError::code)?.map_err(|error| {
        tracing::error!(%error, "conversation state cannot be read");
        ErrorCode::Internal
    })
}
