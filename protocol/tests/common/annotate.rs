//! Values as a byte vector shows them: field by field, with the bytes of each.

use bytes::Bytes;
use rove_protocol::extension::Extensions;
use rove_protocol::ids::{
    AccountId, ConversationId, DeviceId, MessageId, NodeId, PartitionId, PostNo, RequestId, Seq, SessionId, WriterId,
};
use rove_protocol::message::Limits;
use rove_protocol::registry::{
    Anchor, ClientState, ContentType, ConversationKind, ErrorCode, EventKind, Method, PresenceStatus, Role, StreamMode,
    UnavailableReason,
};
use rove_protocol::wire::{List, Wire};
use serde_json::{Value, json};

/// A struct's fields in their order.
pub trait Fields {
    fn fields(&self) -> Vec<Value>;
}

/// One field of a struct.
pub trait Annotate: Wire {
    /// What it is to a reader: a number, a text, or bytes in hexadecimal.
    fn value(&self) -> Value;

    /// The name of a number that has one.
    fn means(&self) -> Option<String> {
        None
    }

    fn field(&self, name: &str) -> Value {
        let mut bytes = Vec::new();
        self.put(&mut bytes);
        let kind = short_type_name::<Self>();
        let mut field = json!({ "name": name, "type": kind, "hex": hex::encode(bytes), "value": self.value() });
        if let Some(means) = self.means() {
            field["means"] = means.into();
        }
        field
    }
}

/// A type's name without the paths in it: `List<AccountRef>`.
pub fn short_type_name<T>() -> String {
    let mut short = String::new();
    for part in std::any::type_name::<T>().split_inclusive(['<', '>', ',', ' ']) {
        short.push_str(part.rsplit("::").next().unwrap_or(part));
    }
    short
}

macro_rules! plain {
    ($($type:ty),*) => {$(
        impl Annotate for $type {
            fn value(&self) -> Value {
                json!(self)
            }
        }
    )*};
}
plain!(u16, u32, u64, bool, String);
plain!(AccountId, DeviceId, SessionId, NodeId, Seq, PostNo, PartitionId, MessageId, RequestId);

macro_rules! bytes {
    ($($type:ty: |$value:ident| $bytes:expr),* $(,)?) => {$(
        impl Annotate for $type {
            fn value(&self) -> Value {
                let $value = self;
                hex::encode($bytes).into()
            }
        }
    )*};
}
bytes!(Bytes: |value| value, [u8; 16]: |value| value, ConversationId: |value| value.0, WriterId: |value| value.0);

macro_rules! named {
    ($($type:ty),*) => {$(
        impl Annotate for $type {
            fn value(&self) -> Value {
                json!(self.0)
            }
            fn means(&self) -> Option<String> {
                Some(self.name().unwrap_or("(unassigned)").to_owned())
            }
        }
    )*};
}
named!(Anchor, ClientState, ContentType, ConversationKind, ErrorCode, EventKind, Method, PresenceStatus, Role);
named!(StreamMode, UnavailableReason);

impl<T: Annotate> Annotate for Option<T> {
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Annotate::value)
    }
}

impl<T: Wire + Fields> Annotate for List<T> {
    fn value(&self) -> Value {
        self.iter().map(Fields::fields).collect()
    }
}

impl Annotate for Limits {
    fn value(&self) -> Value {
        self.fields().into()
    }
}

impl Annotate for Extensions {
    fn value(&self) -> Value {
        self.iter().map(|extension| json!({ "id": extension.id, "value": hex::encode(&extension.value) })).collect()
    }
}
