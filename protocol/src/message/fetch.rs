//! Pages of history. A client may send several `Fetch` on one stream; the answers come in the same order.

use super::message;
use crate::ids::{ConversationId, Seq};
use crate::limits;
use crate::registry::Anchor;
use crate::wire::wire_struct;

wire_struct! {
    /// Asks for one page. It is answered with events (and unavailable ranges), ascending by seq, then a `Page`.
    pub struct Fetch {
        /// Which conversation.
        pub conversation: ConversationId,
        /// What `at` is.
        pub anchor: Anchor,
        /// A seq, a message id or a time, as the anchor says; 0 for [`Anchor::Head`].
        pub at: u64,
        /// Whether the page ends just before the anchor; otherwise it begins with it.
        pub backward: bool,
        /// How many seqs, 1 to [`limits::PAGE_EVENTS`].
        pub limit: u32,
        /// As in `Open`: the highest seq the client has been told of.
        pub seen: Seq,
    }
}
message!(Fetch, |fetch| (1..=limits::PAGE_EVENTS).contains(&fetch.limit));

wire_struct! {
    /// The end of a page.
    pub struct Page {
        /// Which conversation.
        pub conversation: ConversationId,
        /// The first seq of the page; 0 if the page is empty.
        pub first: Seq,
        /// The last seq of the page; 0 if the page is empty.
        pub last: Seq,
        /// The last seq of the log.
        pub head: Seq,
    }
}
message!(Page);
