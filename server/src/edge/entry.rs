//! How a session enters: whose it is, its place in the registry, and why there may be none.

use std::sync::Arc;

use futures::future::BoxFuture;
use rove_core::directory::{AccountState, DeviceRow, Digest, DirectoryError, DirectoryRead};
use rove_protocol::error::Violation;
use rove_protocol::ids::AccountId;
use rove_protocol::message::Hello;
use rove_protocol::registry::ErrorCode;
use rove_protocol::transport::{ReadError, TransportError};
use subtle::ConstantTimeEq as _;

use super::Shared;
use super::hub::Subscriber;
use crate::node::CallError;

/// Whose session it is to be.
#[derive(Clone, Copy)]
pub(super) struct Authenticated {
    pub(super) account: AccountId,
    /// [`crate::node::Node::revocations`] before its device was looked up.
    revocations: u64,
}

/// Checks the device's secret: the account, or the code the connection is closed with. A device that does not exist and a
/// wrong secret look the same.
pub(super) async fn authenticate(edge: &Shared, hello: &Hello) -> Result<Authenticated, ErrorCode> {
    let device = hello.device;
    let revocations = edge.node.revocations();
    let read = move |directory: &dyn DirectoryRead| -> Result<_, DirectoryError> {
        let Some(row) = directory.device(device)? else { return Ok(None) };
        let state = directory.account(row.account)?.map(|account| account.state);
        Ok(Some((row, state)))
    };
    let unknown = |found: &Result<Option<_>, DirectoryError>| matches!(found, Ok(None));
    let found = edge.node.read_directory_surely(unknown, read).await.map_err(CallError::code)?;
    let found = found.map_err(|error| {
        tracing::error!(%error, "the directory cannot be read");
        ErrorCode::Internal
    })?;
    let presented = Digest::of(&hello.secret);
    let expected = found.as_ref().map_or(Digest([0; 32]), |(row, _)| row.secret);
    let matches = bool::from(presented.0.ct_eq(&expected.0));
    match found {
        Some((DeviceRow { revoked_ms: None, account, .. }, Some(AccountState::Active))) if matches => {
            Ok(Authenticated { account, revocations })
        }
        Some((DeviceRow { revoked_ms: None, .. }, None)) if matches => Err(ErrorCode::Internal),
        Some(_) if matches => Err(ErrorCode::Revoked),
        _ => Err(ErrorCode::Unauthenticated),
    }
}

/// A session's place in the registry. It leaves it whatever happens.
pub(super) struct Registered {
    edge: Arc<Shared>,
    subscriber: Arc<Subscriber>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.edge.hub.unregister(&self.subscriber);
    }
}

/// Registers an authenticated session, which closes the older one of its device. The device may have been revoked since
/// its secret was checked: the directory told the sessions there were, and this one was not there yet. If any was, it is
/// looked up again.
pub(super) async fn enter(
    edge: Arc<Shared>,
    subscriber: Arc<Subscriber>,
    hello: Hello,
    authenticated: Authenticated,
) -> Result<Registered, Failed> {
    edge.hub.register(&subscriber);
    let registered = Registered { edge, subscriber };
    if registered.edge.node.revocations() == authenticated.revocations {
        return Ok(registered);
    }
    match authenticate(&registered.edge, &hello).await {
        Ok(_) => Ok(registered),
        Err(code) => Err(Failed::Code(code, "not authenticated any more")),
    }
}

/// A session on its way into the registry.
pub(super) type Entering = BoxFuture<'static, Result<Registered, Failed>>;

/// A session's place in the registry, or how it gets one.
pub(super) enum Entry {
    Registered(Registered),
    /// When the handshake is complete.
    Entering(Entering),
}

/// The session's entry into the registry, or why there is none; never once that is over.
pub(super) async fn entered(entering: &mut Option<Entering>) -> Result<Registered, Failed> {
    match entering {
        Some(entering) => entering.await,
        None => std::future::pending().await,
    }
}

/// What to close a connection with whose control stream gave out; nothing if the connection is gone itself.
pub(super) fn given_up(error: &TransportError) -> Option<(ErrorCode, String)> {
    match error {
        TransportError::Reset(_) | TransportError::Stopped(_) | TransportError::EarlyDataRejected => {
            Some((ErrorCode::None, "the control stream was given up".to_owned()))
        }
        TransportError::Closed { .. } | TransportError::Lost(_) => None,
    }
}

/// Why there is no session.
pub(super) enum Failed {
    Read(ReadError),
    Code(ErrorCode, &'static str),
}

impl<E: Into<ReadError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Read(error.into())
    }
}

impl Failed {
    /// What to close the connection with; nothing if it is gone itself.
    pub(super) fn verdict(self) -> Option<(ErrorCode, String)> {
        match self {
            Self::Code(code, reason) => Some((code, reason.to_owned())),
            Self::Read(ReadError::Violation(violation)) => Some((violation.code(), violation.to_string())),
            Self::Read(ReadError::Transport(error)) => given_up(&error),
        }
    }
}

/// It took too long.
pub(super) fn late(what: &'static str) -> Failed {
    Failed::from(Violation::Timeout { what })
}
