//! The local store: what a client must not forget.
//!
//! Everything a client knows is in memory and changed there; what has changed is written here in batches, in order, one
//! transaction each. A batch with a post in it is synced to the disk before the post is sent or the app is told that it
//! is queued; everything else may be lost with the power, since the server tells it again.

mod memory;
mod rows;
mod sidecar;
mod sqlite;

use std::sync::Arc;

use bytes::Bytes;
use rove_client_core::outbox;
use rove_client_core::timeline::UnavailableRange;
use rove_protocol::ids::{AccountId, ConversationId, MessageId, PartitionId, Seq, WriterId};

use crate::types::AccountInfo;
use crate::{Error, StoreLocation};
pub(crate) use rows::{AccountRow, ConversationRow, Loaded, OutboxRow};

/// One thing to write.
#[derive(Debug, Clone)]
pub(crate) enum Change {
    Account(Box<AccountRow>),
    Writer(WriterId),
    Conversation(Box<ConversationRow>),
    Event {
        conversation: ConversationId,
        seq: Seq,
        refers_to: Seq,
        encoded: Bytes,
    },
    Unavailable {
        conversation: ConversationId,
        range: UnavailableRange,
    },
    /// The log starts again: its events and ranges are of no use.
    Forget(ConversationId),
    Outbox {
        conversation: ConversationId,
        change: outbox::Change,
    },
    Inbox(PartitionId, MessageId),
    Name(AccountInfo),
    /// The nodes of the cluster as they were told of, best first.
    Nodes(Vec<String>),
}

impl Change {
    /// Whether it must survive a power failure.
    fn is_durable(&self) -> bool {
        match self {
            // Seldom, and of use when the server that could tell them again is gone.
            Self::Account(_) | Self::Writer(_) | Self::Nodes(_) => true,
            Self::Outbox { change, .. } => matches!(change, outbox::Change::Put(_)),
            _ => false,
        }
    }
}

/// The store of one client. Clones are the same store.
#[derive(Clone)]
pub(crate) enum Store {
    Sqlite(Arc<sqlite::SqliteStore>),
    Memory(Arc<memory::MemoryStore>),
}

impl Store {
    /// Opens or makes the store, alone in the world, and recognises copies. `random` makes a writer where one is needed.
    pub(crate) fn open(location: &StoreLocation, random: impl Fn() -> WriterId) -> Result<(Self, Loaded), Error> {
        match location {
            StoreLocation::Memory => {
                let loaded = Loaded { writer: random(), ..Loaded::default() };
                Ok((Self::Memory(Arc::default()), loaded))
            }
            StoreLocation::File(path) => {
                let (store, loaded) = sqlite::SqliteStore::open(path, random)?;
                Ok((Self::Sqlite(Arc::new(store)), loaded))
            }
        }
    }

    /// Whether calls wait for a disk, so that they do not belong on the runtime's threads.
    pub(crate) fn is_blocking(&self) -> bool {
        matches!(self, Self::Sqlite(_))
    }

    /// Writes a batch: all of it or, on an error, nothing.
    pub(crate) fn write(&self, changes: &[Change]) -> Result<(), Error> {
        match self {
            Self::Sqlite(store) => store.write(changes),
            Self::Memory(store) => {
                store.write(changes);
                Ok(())
            }
        }
    }

    /// Runs a read where it belongs.
    async fn read<T: Send + 'static>(
        &self,
        sqlite: impl FnOnce(&sqlite::SqliteStore) -> Result<T, Error> + Send + 'static,
        memory: impl FnOnce(&memory::MemoryStore) -> T,
    ) -> Result<T, Error> {
        match self {
            Self::Memory(store) => Ok(memory(store)),
            Self::Sqlite(store) => {
                let store = store.clone();
                tokio::task::spawn_blocking(move || sqlite(&store))
                    .await
                    .map_err(|error| Error::Store(error.to_string()))?
            }
        }
    }

    /// Up to `limit` events after `after`, ascending.
    pub(crate) async fn events_after(
        &self,
        conversation: ConversationId,
        after: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
        self.read(
            move |store| store.events_after(conversation, after, limit),
            |store| store.events_after(conversation, after, limit),
        )
        .await
    }

    /// Up to `limit` events before `before`, ascending.
    pub(crate) async fn events_before(
        &self,
        conversation: ConversationId,
        before: Seq,
        limit: usize,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
        self.read(
            move |store| store.events_before(conversation, before, limit),
            |store| store.events_before(conversation, before, limit),
        )
        .await
    }

    /// The events that refer to one of `from..=to`, ascending.
    pub(crate) async fn referring(
        &self,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<(Seq, Bytes)>, Error> {
        self.read(move |store| store.referring(conversation, from, to), |store| store.referring(conversation, from, to))
            .await
    }

    /// The unavailable ranges that begin in `from..=to`, ascending.
    pub(crate) async fn unavailable(
        &self,
        conversation: ConversationId,
        from: Seq,
        to: Seq,
    ) -> Result<Vec<UnavailableRange>, Error> {
        self.read(
            move |store| store.unavailable(conversation, from, to),
            |store| store.unavailable(conversation, from, to),
        )
        .await
    }

    /// Deletes everything: the account is logged out.
    pub(crate) async fn wipe(&self) -> Result<(), Error> {
        self.read(sqlite::SqliteStore::wipe, memory::MemoryStore::wipe).await
    }
}

/// An account in the cache.
pub(crate) fn named(account: AccountId, handle: String, name: String) -> AccountInfo {
    AccountInfo { account, handle, name }
}
