//! Every number of the wire format, with its unit and its reason. docs/wire.md, section 11.

use std::time::Duration;

/// Bytes before the message in a frame.
pub const HEADER_BYTES: usize = 16;

/// No frame is smaller: 16 header, 8 segment table, 8 for the word that a root pointer takes.
pub const MIN_FRAME_BYTES: u32 = 32;

/// Largest frame that any limit may allow: sizes stay signed 32-bit numbers in every language, and a frame is a
/// multiple of 8.
pub const MAX_FRAME_BYTES: u32 = (1 << 31) - 8;

/// Smallest `frameLimit` that a hello may name.
pub const MIN_FRAME_LIMIT_BYTES: u32 = 1024;

/// Control frames pass before the peer's limit is known: fixed, not negotiated.
pub const CONTROL_FRAME_BYTES: u32 = 1 << 20;

/// More segments than this are refused; Cap'n Proto's own readers do the same.
pub const MAX_SEGMENTS: u64 = 512;

/// Sums of credit stay below this in every language's signed 64-bit integer.
pub const MAX_CREDIT: u64 = (1 << 63) - 1;

/// A window that never runs out.
pub const UNLIMITED: u64 = u64::MAX;

/// All rows of one peer's id table, a row counting `TABLE_ROW_BYTES` + its name + 4 per layout element.
pub const TABLE_BYTES: usize = 16 << 20;
pub const TABLE_ROW_BYTES: usize = 24;

/// Type ids that first came with wire id 0. (Those with a wire id are bounded by its 16 bits.)
pub const TABLE_STRUCTS: usize = 65_535;

pub const MAX_FEATURES: u32 = 256;
pub const INSTANCE_BYTES: usize = 16;

/// Names in rows, `implementation`, `version`, the class of an exception.
pub const NAME_TEXT_BYTES: usize = 1024;
pub const GOODBYE_TEXT_BYTES: usize = 1024;
pub const FAILED_TEXT_BYTES: usize = 16_384;

/// How deep a received message may nest. The library's own default: recursive readers stay far from the end of the
/// stack.
pub const NESTING: i32 = 64;

/// What an endpoint works with. Each field has a default; `Endpoint::builder` checks the ranges.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Largest content frame accepted, bytes; 1,024 to 2^31 - 8. 64 MiB: enough for an image, too little for one peer
    /// to exhaust a machine.
    pub frame_bytes: u32,
    /// Credit granted to each peer: bytes of events that may have been sent and are not taken yet.
    pub event_credit_bytes: u64,
    /// The same for requests.
    pub request_credit_bytes: u64,
    /// Requests of one peer that are not answered yet; more are answered `overloaded`.
    pub open_requests: usize,
    /// Bytes that may wait to be sent to one peer; the last frame may go over.
    pub queued_per_peer_bytes: usize,
    /// From the connection's start until it is up.
    pub handshake_timeout: Duration,
    /// How long a peer may owe the acknowledgement of subscriptions.
    pub ack_timeout: Duration,
    /// Ping after so long without a byte; zero: never. On a Unix socket the kernel reports a dead process at once.
    pub keepalive: Duration,
    /// Silent intervals after which a peer is taken for dead.
    pub keepalive_misses: u32,
    /// From goodbye until the connection is closed in any case. Also what a graceful stop grants its queue.
    pub close_timeout: Duration,
    /// A peer whose queue is full and that takes nothing of it for so long is disconnected: no event or request leaves,
    /// and no credit comes back.
    pub too_slow: Duration,
    /// How long the holder of a name has to answer when another claims it.
    pub name_probe: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            frame_bytes: 64 << 20,
            event_credit_bytes: 16 << 20,
            request_credit_bytes: 4 << 20,
            open_requests: 16_384,
            queued_per_peer_bytes: 16 << 20,
            handshake_timeout: Duration::from_secs(10),
            ack_timeout: Duration::from_secs(30),
            keepalive: Duration::from_secs(60),
            keepalive_misses: 3,
            close_timeout: Duration::from_secs(2),
            too_slow: Duration::from_secs(5),
            name_probe: Duration::from_secs(1),
        }
    }
}

/// A sender whose balance is 0 or below is given what is owed to it this often, however little: so it can tell a slow
/// receiver from one that takes nothing. docs/wire.md allows 1 s. Not at once: the consumer may be slow, and then each
/// event would cost a message.
pub const CREDIT_REST: Duration = Duration::from_millis(500);

/// What reading one message may cost, in words. A handler reads each field a few times and lists overlap in no honest
/// message, so 16 times the message's size and 512 KiB are generous; a hostile message of one page cannot make a
/// reader walk gigabytes.
pub fn traversal_words(message_words: usize) -> usize {
    message_words.saturating_mul(16).saturating_add(64 << 10)
}
