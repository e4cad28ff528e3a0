//! Every limit of the protocol, in one place. `spec/registry.toml` lists the same values and a test compares them.
//!
//! Sizes are in bytes, times in milliseconds.

/// Largest body of a post that travels inline; anything larger is media, out of band.
pub const BODY: usize = 16 * 1024;
/// Largest frame (type and body): twice [`BODY`], so that a full body and everything beside it always fits.
pub const FRAME: usize = 32 * 1024;
/// Largest frame before the session is authenticated: a `Hello` needs less than 200 bytes.
pub const FRAME_BEFORE_WELCOME: usize = 4 * 1024;
/// Flow-control credit of a connection before it is authenticated (D4).
pub const CREDIT_BEFORE_WELCOME: u64 = 64 * 1024;
/// Silence allowed before `Hello` has arrived whole (D4).
pub const HELLO_DEADLINE_MS: u64 = 5_000;
/// Time a begun frame may take to arrive whole, so that a peer sending a byte a second cannot hold a stream.
pub const FRAME_DEADLINE_MS: u64 = 20_000;
/// Extensions after one struct (D2).
pub const EXTENSIONS: usize = 16;
/// Items of one list.
pub const LIST_ITEMS: usize = 1_024;
/// Conversation streams a session may hold open.
pub const CONVERSATION_STREAMS: usize = 32;
/// Fetch streams a session may hold open.
pub const FETCH_STREAMS: usize = 4;
/// All bidirectional streams of a session: conversations, fetches, control, inbox, and room for greased stream types.
pub const BIDI_STREAMS: usize = CONVERSATION_STREAMS + FETCH_STREAMS + 4;
/// Posts of one writer in one conversation that may be unanswered, and outcomes kept for repeats (D7).
pub const UNANSWERED_POSTS: usize = 64;
/// Requests of a session that may be unanswered.
pub const REQUESTS_IN_FLIGHT: usize = 32;
/// Fetches of one stream that may be unanswered: enough to hide a round trip, few enough to bound what is read ahead.
pub const FETCHES_IN_FLIGHT: usize = 8;
/// Largest event that travels inside an inbox line.
pub const INLINE_EVENT: usize = 1_024;
/// Replay bytes queued on one stream (D6).
pub const REPLAY_QUEUE: usize = 16 * 1024;
/// Events in one page of a fetch.
pub const PAGE_EVENTS: u32 = 512;
/// Accounts one session may watch.
pub const WATCHED_ACCOUNTS: usize = 256;
/// Payload of a datagram that fits every path (RFC 9000, section 14: 1200 bytes of UDP, less QUIC's own).
pub const DATAGRAM: usize = 1_162;
/// Bytes of a handle.
pub const HANDLE: usize = 64;
/// Bytes of a display name or of a conversation's title.
pub const TITLE: usize = 256;
/// Bytes of a password.
pub const PASSWORD: usize = 256;
/// Shortest password, in bytes.
pub const PASSWORD_MIN: usize = 8;
/// Bytes of the client's name in `Hello`.
pub const CLIENT_NAME: usize = 64;
/// Members of a group.
pub const MEMBERS: u32 = 10_000;
/// Members added or removed by one request.
pub const MEMBERS_PER_REQUEST: usize = 500;
/// Accounts mentioned by one post.
pub const MENTIONS: usize = 64;
/// Accounts or handles resolved by one request.
pub const ACCOUNTS_PER_REQUEST: usize = 256;
/// Bytes of a device's secret.
pub const SECRET: usize = 32;
/// Largest group whose members' receipts are sent one by one; above it they are off.
pub const RECEIPT_MEMBERS: u32 = 100;
/// Largest group in which typing is forwarded.
pub const TYPING_MEMBERS: u32 = 100;
