//! Bytes in, frames out, however the bytes are cut.

use capnp::Word;

use super::frame::{Frame, FrameKind, Header};
use super::limits::{CONTROL_FRAME_BYTES, HEADER_BYTES};
use crate::error::{Fault, GoodbyeCode};

/// Small frames are received many at a time and copied out once, so that a kept event holds its own bytes and no more.
const BUFFER_BYTES: usize = 64 << 10;

/// A message from this size on is received into its own memory and never copied.
const LARGE_MESSAGE_BYTES: usize = 16 << 10;

/// What may arrive now; the session knows.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    /// The connection's first frame: the other end may be no peer at all.
    pub first: bool,
    /// Largest content frame; `None` while content is not allowed.
    pub content_bytes: Option<u32>,
}

/// Reads one direction of a connection. [`Decoder::spare`] says where the next bytes go, [`Decoder::advance`] how many came.
pub struct Decoder {
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    large: Option<Large>,
}

struct Large {
    header: Header,
    /// Grows as bytes arrive, inside of memory that was reserved at once: a header alone costs no touched memory.
    words: Vec<Word>,
    filled: usize,
}

impl Large {
    fn message_bytes(&self) -> usize {
        self.header.size as usize - HEADER_BYTES
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder { buffer: vec![0; BUFFER_BYTES].into_boxed_slice(), start: 0, end: 0, large: None }
    }
}

impl Decoder {
    pub fn new() -> Self {
        Self::default()
    }

    /// Where to read to. Empty only if nobody takes the frames that are here.
    pub fn spare(&mut self) -> &mut [u8] {
        if let Some(large) = &mut self.large {
            let total = large.message_bytes();
            let wanted = total.min(large.filled + BUFFER_BYTES).div_ceil(8);
            if large.words.len() < wanted {
                large.words.resize(wanted, capnp::word(0, 0, 0, 0, 0, 0, 0, 0));
            }
            return &mut Word::words_to_bytes_mut(&mut large.words)[large.filled..];
        }
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were written to the beginning of `spare`.
    pub fn advance(&mut self, count: usize) {
        match &mut self.large {
            Some(large) => large.filled += count,
            None => self.end += count,
        }
    }

    /// Forgets everything received: a connection that ends reads on without judging.
    pub fn discard(&mut self) {
        self.start = 0;
        self.end = 0;
        self.large = None;
    }

    /// The next whole frame. `None`: more bytes are needed.
    pub fn next_frame(&mut self, rules: Rules) -> Result<Option<Frame>, Fault> {
        if let Some(large) = self.large.take() {
            if large.filled < large.message_bytes() {
                self.large = Some(large);
                return Ok(None);
            }
            return Frame::new(large.header, large.words).map(Some);
        }
        let here = &self.buffer[self.start..self.end];
        let Some(length) = here.first_chunk::<4>() else {
            return Ok(None);
        };
        // Judged before the rest of the header: some strangers send a few bytes and wait.
        let size = Header::check_length(u32::from_le_bytes(*length)).map_err(|fault| stranger(fault, rules, here))?;
        if rules.first && size > CONTROL_FRAME_BYTES {
            return Err(stranger(too_large(size, CONTROL_FRAME_BYTES, "the first frame"), rules, here));
        }
        let Some(header) = here.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let header = Header::parse(*header).map_err(|fault| stranger(fault, rules, here))?;
        if header.kind == FrameKind::Control {
            if size > CONTROL_FRAME_BYTES {
                return Err(too_large(size, CONTROL_FRAME_BYTES, "a control frame"));
            }
        } else {
            let Some(limit) = rules.content_bytes else {
                let fault = Fault::protocol("content before the connection is up");
                return Err(stranger(fault, rules, here));
            };
            if size > limit {
                return Err(too_large(size, limit, "a content frame"));
            }
        }
        let message_bytes = size as usize - HEADER_BYTES;
        let message = &here[HEADER_BYTES..];
        if message_bytes >= LARGE_MESSAGE_BYTES {
            let arrived = message.len().min(message_bytes);
            let mut words = Vec::with_capacity(message_bytes / 8);
            words.resize(arrived.div_ceil(8), capnp::word(0, 0, 0, 0, 0, 0, 0, 0));
            Word::words_to_bytes_mut(&mut words)[..arrived].copy_from_slice(&message[..arrived]);
            self.start += HEADER_BYTES + arrived;
            self.large = Some(Large { header, words, filled: arrived });
            return self.next_frame(rules);
        }
        let Some(message) = message.get(..message_bytes) else {
            return Ok(None);
        };
        let mut words = Word::allocate_zeroed_vec(message_bytes / 8);
        Word::words_to_bytes_mut(&mut words).copy_from_slice(message);
        self.start += HEADER_BYTES + message_bytes;
        Frame::new(header, words).map(Some)
    }
}

fn too_large(size: u32, limit: u32, what: &str) -> Fault {
    Fault::new(GoodbyeCode::FrameTooLarge, format!("{what} of {size} bytes; the limit is {limit}"))
}

/// A first frame that is none says what came instead: most likely the other end speaks another protocol.
fn stranger(fault: Fault, rules: Rules, here: &[u8]) -> Fault {
    if !rules.first {
        return fault;
    }
    let shown = &here[..here.len().min(16)];
    Fault::protocol(format!("the other end is no peer of this bus, its first bytes are {shown:?}: {}", fault.text))
}
