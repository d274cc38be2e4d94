//! One frame: its header, and its message readable in place.

use std::sync::Arc;

use capnp::message::{Reader, ReaderOptions, ReaderSegments};
use capnp::Word;

use super::limits::{self, HEADER_BYTES, MAX_SEGMENTS, MIN_FRAME_BYTES};
use crate::error::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Control,
    Event,
    Request,
    Response,
}

/// The first 16 bytes of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Frame size: all bytes of the frame, `DATA_LENGTH` + 4.
    pub size: u32,
    pub kind: FrameKind,
    /// The sender's wire id; 0 for control.
    pub wire_id: u16,
    pub correlation: u64,
}

impl Header {
    /// Says what is wrong with `DATA_LENGTH` alone (rule 1), or gives the frame size.
    ///
    /// Sizes over 2^31 - 8 saturate: they are beyond every limit, so the next check refuses them.
    pub fn check_length(data_length: u32) -> Result<u32, Fault> {
        if data_length % 8 != 4 || data_length < MIN_FRAME_BYTES - 4 {
            return Err(Fault::protocol(format!(
                "DATA_LENGTH is {data_length}; wanted 4 modulo 8 and at least {}",
                MIN_FRAME_BYTES - 4
            )));
        }
        Ok(data_length.saturating_add(4))
    }

    /// Reads a header and compares every value in it (rules 1 and 3).
    pub fn parse(bytes: [u8; HEADER_BYTES]) -> Result<Header, Fault> {
        let [a, b, c, d, e, f, g, h, number @ ..] = bytes;
        let size = Header::check_length(u32::from_le_bytes([a, b, c, d]))?;
        let wire_id = u16::from_le_bytes([e, f]);
        let flags = u16::from_le_bytes([g, h]);
        let correlation = u64::from_le_bytes(number);
        let kind = match (wire_id, flags, correlation) {
            (0, 0, 0) => FrameKind::Control,
            (1.., 0, 0) => FrameKind::Event,
            (1.., 1, 1..) => FrameKind::Request,
            (1.., 2, 1..) => FrameKind::Response,
            _ => {
                return Err(Fault::protocol(format!(
                    "EVENT_ID {wire_id}, FLAGS {flags} and CORRELATION {correlation} make no kind of frame"
                )))
            }
        };
        Ok(Header { size, kind, wire_id, correlation })
    }

    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let flags: u16 = match self.kind {
            FrameKind::Control | FrameKind::Event => 0,
            FrameKind::Request => 1,
            FrameKind::Response => 2,
        };
        let mut bytes = [0; HEADER_BYTES];
        bytes[0..4].copy_from_slice(&(self.size - 4).to_le_bytes());
        bytes[4..6].copy_from_slice(&self.wire_id.to_le_bytes());
        bytes[6..8].copy_from_slice(&flags.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.correlation.to_le_bytes());
        bytes
    }
}

/// A received frame. Cloning it is cheap: the bytes are shared.
#[derive(Clone)]
pub struct Frame {
    header: Header,
    message: Arc<Message>,
}

/// Segments as ranges of words. Words, not bytes, because then the memory is aligned as Cap'n Proto wants it: fields are
/// read in place, and the `unaligned` feature, which would hold for every crate in the user's program, is not needed.
struct Message {
    words: Vec<Word>,
    first: Range,
    // Not allocated for the usual message of one segment.
    rest: Box<[Range]>,
}

#[derive(Clone, Copy)]
struct Range {
    start: usize,
    end: usize,
}

impl Frame {
    /// Takes the words behind a header, and checks the segment table (rules 5 to 8).
    ///
    /// `words` must be as long as the header says.
    pub fn new(header: Header, words: Vec<Word>) -> Result<Frame, Fault> {
        debug_assert_eq!(words.len() * 8 + HEADER_BYTES, header.size as usize);
        let bytes = Word::words_to_bytes(&words);
        let number = |at: usize| -> u64 {
            // The callers have checked that the table is inside of the message.
            u64::from(u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]))
        };
        let count = number(0) + 1;
        if count > MAX_SEGMENTS {
            return Err(Fault::protocol(format!("a message of {count} segments; the limit is {MAX_SEGMENTS}")));
        }
        let count = count as usize;
        let table_words = count / 2 + 1;
        if table_words > words.len() {
            return Err(Fault::protocol(format!(
                "the table of {count} segments does not fit into a message of {} words",
                words.len()
            )));
        }
        if count % 2 == 0 && number(4 + 4 * count) != 0 {
            return Err(Fault::protocol("the padding of the segment table is not zero"));
        }
        let sum: u64 = (0..count).map(|k| number(4 + 4 * k)).sum();
        if number(4) == 0 {
            return Err(Fault::protocol("the first segment has no words"));
        }
        if table_words as u64 + sum != words.len() as u64 {
            return Err(Fault::protocol(format!(
                "a table of {table_words} words and segments of {sum} do not fill a message of {}",
                words.len()
            )));
        }
        let mut start = table_words;
        let mut range = |k: usize| {
            let end = start + number(4 + 4 * k) as usize;
            let range = Range { start, end };
            start = end;
            range
        };
        let first = range(0);
        let rest = (1..count).map(range).collect();
        Ok(Frame { header, message: Arc::new(Message { words, first, rest }) })
    }

    pub fn header(&self) -> Header {
        self.header
    }

    /// Frame size: what limits and credit count.
    pub fn size(&self) -> u64 {
        u64::from(self.header.size)
    }

    pub fn message_words(&self) -> usize {
        self.message.words.len()
    }

    /// A reader over the received bytes, with a fresh allowance of `words` to walk.
    pub fn reader(&self, words: usize) -> Reader<Frame> {
        let options = ReaderOptions { traversal_limit_in_words: Some(words), nesting_limit: limits::NESTING };
        Reader::new(self.clone(), options)
    }
}

impl ReaderSegments for Frame {
    fn get_segment(&self, index: u32) -> Option<&[u8]> {
        let message = &*self.message;
        let range = match index {
            0 => message.first,
            other => *message.rest.get(other as usize - 1)?,
        };
        Some(Word::words_to_bytes(&message.words[range.start..range.end]))
    }

    fn len(&self) -> usize {
        1 + self.message.rest.len()
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frame").field("header", &self.header).field("segments", &self.len()).finish()
    }
}
