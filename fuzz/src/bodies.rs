//! Decoding bodies that have no frame of their own.

use bytes::Bytes;
use rove_protocol::message::{
    AccountInfo, Accounts, Body, ChangeMembers, ConversationInfo, CreateDirect, CreateGroup, Created, FindAccounts,
    GetAccounts, GetConversation, MembersChanged, SettingsChanged, Watch,
};

fn check_one<B: Body>(body: &[u8]) {
    if let Ok(value) = B::decode_body(Bytes::copy_from_slice(body)) {
        assert!(body.starts_with(&value.encode_body()));
    }
}

/// A body encodes to the bytes it came from, less the unknown even extensions that were skipped.
pub fn check(data: &[u8]) {
    let Some((which, body)) = data.split_first() else { return };
    let checks: &[fn(&[u8])] = &[
        check_one::<CreateDirect>,
        check_one::<CreateGroup>,
        check_one::<ChangeMembers>,
        check_one::<GetConversation>,
        check_one::<FindAccounts>,
        check_one::<GetAccounts>,
        check_one::<Watch>,
        check_one::<ConversationInfo>,
        check_one::<Accounts>,
        check_one::<AccountInfo>,
        check_one::<Created>,
        check_one::<MembersChanged>,
        check_one::<SettingsChanged>,
    ];
    checks[usize::from(*which) % checks.len()](body);
}
