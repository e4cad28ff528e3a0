//! Codes in words that say what to do.

use rove_client::Error;
use rove_client::registry::ErrorCode;

/// What a code of the registry means to a user.
pub fn code(code: ErrorCode) -> String {
    let words = match code {
        ErrorCode::None => "closed",
        ErrorCode::Unauthenticated => "the server does not know this device: log in again",
        ErrorCode::Revoked => "this device was logged out: log in again",
        ErrorCode::Replaced => "another session of this device took over",
        ErrorCode::GoingAway => "the server is restarting",
        ErrorCode::NotFound => "no such conversation or account",
        ErrorCode::Forbidden => "not a member, or not allowed to",
        ErrorCode::NameTaken => "the handle is taken",
        ErrorCode::Busy => "the server is busy",
        ErrorCode::Unavailable => "the server cannot be reached",
        ErrorCode::BodyTooLarge => "too long",
        ErrorCode::TooManyMembers => "the group is full",
        ErrorCode::Cancelled => "cancelled",
        ErrorCode::RateLimited => "too often: wait a little",
        ErrorCode::OutboxFull => "too much waits to be sent",
        ErrorCode::Timeout => "no answer in time",
        ErrorCode::Unsupported => "the server does not support it",
        other => return other.to_string(),
    };
    words.to_owned()
}

/// An error of the client library, with what to do about it.
pub fn error(error: &Error) -> String {
    let advice = match error {
        Error::NotLoggedIn => {
            "log in with `rove log-in HANDLE --server rove://…`, or make an account with `rove sign-up`"
        }
        Error::AlreadyLoggedIn => "`rove log-out` first, or choose another directory with --profile DIR",
        Error::StoreLocked => {
            "close the other rove that uses this profile, or log in a second time with --profile DIR (another device of the \
             same account)"
        }
        Error::StoreVersion { .. } => "update rove",
        Error::Tls(_) => "compare the pin in --server with what `rove-server` printed when it started",
        Error::Transport(_) | Error::Timeout(_) => "is the server running, and does its UDP port get through?",
        Error::Address(_) => "an address looks like rove://chat.example:7683?pin=…",
        Error::Server { code: ErrorCode::NameTaken, .. } => "choose another handle, or `rove log-in` if it is yours",
        Error::Server { code: ErrorCode::Unauthenticated, .. } => "check the handle and the password",
        Error::Server { code: ErrorCode::RateLimited | ErrorCode::Busy, .. } => "try again in a moment",
        Error::Closed(code) if *code != ErrorCode::None => return format!("{error}: {}", self::code(*code)),
        _ => return error.to_string(),
    };
    format!("{error}: {advice}")
}
