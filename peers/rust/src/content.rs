//! Messages on their way out: encoded once, sent to many.

use std::marker::PhantomData;
use std::sync::Arc;

use capnp::message::{Builder, HeapAllocator, TypedReader};
use capnp::serialize;

use crate::error::ReadError;
use crate::types::EventStruct;
use crate::wire::limits::{traversal_words, HEADER_BYTES};
use crate::wire::Frame;
use crate::wire_capnp::opaque;

/// The first segment of a new message: most events fit, and a larger one gets a second.
const FIRST_SEGMENT_WORDS: u32 = 128;

pub(crate) fn new_message() -> Builder<HeapAllocator> {
    Builder::new(HeapAllocator::new().first_segment_words(FIRST_SEGMENT_WORDS))
}

/// An encoded event, request or response. Cloning shares the bytes.
#[derive(Clone)]
pub struct Content {
    type_id: u64,
    message: Arc<[u8]>,
}

impl Content {
    /// Builds a message: `Content::build::<tick::Owned>(|mut tick| tick.set_count(7))`.
    pub fn build<T: EventStruct>(fill: impl FnOnce(T::Builder<'_>)) -> Content {
        let mut message = new_message();
        fill(message.init_root());
        Content::from_message(T::TYPE_ID, &message)
    }

    /// Takes a message that was built elsewhere; its root must be the struct with this type id.
    ///
    /// # Panics
    /// If the message has no root: nothing was built in it.
    pub fn from_message(type_id: u64, message: &Builder<HeapAllocator>) -> Content {
        let is_empty = message.get_segments_for_output().first().is_none_or(|segment| segment.is_empty());
        assert!(!is_empty, "a message of type id {type_id:#018x} was given that has no root");
        Content { type_id, message: serialize::write_message_to_words(message).into() }
    }

    /// The bytes of a type that serializes itself.
    pub fn opaque(type_id: u64, data: &[u8]) -> Content {
        let mut message = new_message();
        message.init_root::<opaque::Builder<'_>>().set_data(data);
        Content::from_message(type_id, &message)
    }

    pub fn type_id(&self) -> u64 {
        self.type_id
    }

    /// Bytes that its frame takes.
    pub fn frame_size(&self) -> usize {
        self.message.len() + HEADER_BYTES
    }

    /// The message in stream framing: what stands behind a frame's first 16 bytes.
    pub fn message_bytes(&self) -> &[u8] {
        &self.message
    }

    pub(crate) fn message(&self) -> &Arc<[u8]> {
        &self.message
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Content({:#018x}, {} bytes)", self.type_id, self.frame_size())
    }
}

/// A received event or response. Cloning shares the bytes; fields are read in place.
#[derive(Clone, Debug)]
pub struct Event {
    pub(crate) type_id: u64,
    pub(crate) peer: Arc<str>,
    pub(crate) frame: Frame,
}

impl Event {
    pub fn type_id(&self) -> u64 {
        self.type_id
    }

    /// The endpoint that it came from.
    pub fn origin(&self) -> &str {
        &self.peer
    }

    /// Bytes of its frame.
    pub fn frame_size(&self) -> u64 {
        self.frame.size()
    }

    /// Opens the message: `event.read::<tick::Owned>()?.get()?.get_count()`.
    ///
    /// Nothing is copied or decoded; a bad pointer shows when the field behind it is read. Each call starts with the whole
    /// traversal allowance, so reading again never runs into the limit.
    pub fn read<T: EventStruct>(&self) -> Result<TypedReader<Frame, T>, ReadError> {
        self.expect(T::TYPE_ID)?;
        Ok(self.reader().into_typed())
    }

    /// The untyped reader, for reflection.
    pub fn reader(&self) -> capnp::message::Reader<Frame> {
        self.frame.reader(traversal_words(self.frame.message_words()))
    }

    /// The bytes of a type that serializes itself.
    pub fn opaque_data(&self) -> Result<Vec<u8>, ReadError> {
        let reader = self.reader();
        let root: opaque::Reader<'_> = reader.get_root()?;
        Ok(root.get_data()?.to_vec())
    }

    fn expect(&self, wanted: u64) -> Result<(), ReadError> {
        if self.type_id == wanted {
            Ok(())
        } else {
            Err(ReadError::WrongType { got: self.type_id, wanted })
        }
    }
}

/// A response whose type is known.
pub struct Reply<T: EventStruct> {
    event: Event,
    marker: PhantomData<fn() -> T>,
}

impl<T: EventStruct> Reply<T> {
    pub(crate) fn new(event: Event) -> Self {
        debug_assert_eq!(event.type_id, T::TYPE_ID);
        Reply { event, marker: PhantomData }
    }

    /// Opens the message: `reply.read().get()?.get_text()?`.
    pub fn read(&self) -> TypedReader<Frame, T> {
        self.event.reader().into_typed()
    }

    pub fn origin(&self) -> &str {
        self.event.origin()
    }

    pub fn into_event(self) -> Event {
        self.event
    }
}
