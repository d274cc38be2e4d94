//! What waits to be sent, by kind: control, responses and requests overtake events.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::content::Content;
use crate::credit::Lease;
use crate::wire::{FrameKind, Header};

/// Frames are written together up to about so many bytes: one system call for many small ones.
const BATCH_BYTES: usize = 64 << 10;

/// A message from this size on is not copied into the batch.
const LARGE_BYTES: usize = 16 << 10;

/// Bytes to write, in order: `bytes`, then `tail`.
#[derive(Default)]
pub(crate) struct Batch {
    pub bytes: Vec<u8>,
    pub tail: Option<Arc<[u8]>>,
    /// There are events or requests in it: what waited for room, or for credit.
    pub has_waited: bool,
}

impl Batch {
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.tail = None;
        self.has_waited = false;
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn is_full(&self) -> bool {
        self.tail.is_some() || self.bytes.len() >= BATCH_BYTES
    }

    pub fn push_content(&mut self, kind: FrameKind, item: &Item) {
        self.has_waited |= kind != FrameKind::Response;
        let size = item.content.frame_size() as u32;
        let header = Header { size, kind, wire_id: item.wire_id, correlation: item.number };
        self.bytes.extend_from_slice(&header.to_bytes());
        let message = item.content.message();
        if message.len() >= LARGE_BYTES {
            self.tail = Some(Arc::clone(message));
        } else {
            self.bytes.extend_from_slice(message);
        }
    }
}

/// Content under our wire id, and for a request or a response its number.
pub(crate) struct Item {
    pub content: Content,
    pub wire_id: u16,
    pub number: u64,
}

/// The answer to a peer's request.
pub(crate) enum Answer {
    Response(Item),
    /// The frame; and, if the session itself refused the request, what is given back when that is sent.
    Failed(Vec<u8>, Option<Lease>),
}

#[derive(Default)]
pub(crate) struct Outbox {
    control: VecDeque<Vec<u8>>,
    /// One queue, so that answers leave in the order in which they were given.
    answers: VecDeque<Answer>,
    requests: VecDeque<Item>,
    events: VecDeque<Item>,
    /// So that an unsubscription of a type without queued events costs nothing.
    events_by_type: HashMap<u64, usize>,
    bytes: usize,
}

impl Outbox {
    pub fn is_empty(&self) -> bool {
        self.control.is_empty() && self.answers.is_empty() && self.requests.is_empty() && self.events.is_empty()
    }

    /// Bytes of requests and events: what their senders wait for.
    pub fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    pub fn has_events(&self) -> bool {
        !self.events.is_empty()
    }

    pub fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    pub fn push_control(&mut self, frame: Vec<u8>) {
        self.control.push_back(frame);
    }

    pub fn pop_control(&mut self) -> Option<Vec<u8>> {
        self.control.pop_front()
    }

    pub fn push_answer(&mut self, answer: Answer) {
        self.answers.push_back(answer);
    }

    pub fn pop_answer(&mut self) -> Option<Answer> {
        self.answers.pop_front()
    }

    pub fn push_request(&mut self, item: Item) {
        self.bytes += item.content.frame_size();
        self.requests.push_back(item);
    }

    pub fn pop_request(&mut self) -> Option<Item> {
        let item = self.requests.pop_front()?;
        self.bytes -= item.content.frame_size();
        Some(item)
    }

    pub fn forget_request(&mut self, number: u64) {
        let position = self.requests.iter().position(|item| item.number == number);
        if let Some(item) = position.and_then(|position| self.requests.remove(position)) {
            self.bytes -= item.content.frame_size();
        }
    }

    pub fn push_event(&mut self, item: Item) {
        self.bytes += item.content.frame_size();
        *self.events_by_type.entry(item.content.type_id()).or_default() += 1;
        self.events.push_back(item);
    }

    pub fn pop_event(&mut self) -> Option<Item> {
        let item = self.events.pop_front()?;
        self.bytes -= item.content.frame_size();
        if let Some(count) = self.events_by_type.get_mut(&item.content.type_id()) {
            *count -= 1;
        }
        Some(item)
    }

    pub fn has_events_of(&self, type_id: u64) -> bool {
        self.events_by_type.get(&type_id).is_some_and(|&count| count > 0)
    }

    pub fn queued_types(&self) -> Vec<u64> {
        self.events_by_type.iter().filter(|(_, &count)| count > 0).map(|(&id, _)| id).collect()
    }

    /// Removes queued events of types that are no longer wanted.
    pub fn keep_events(&mut self, wanted: impl Fn(u64) -> bool) {
        self.events.retain(|item| wanted(item.content.type_id()));
        self.events_by_type.clear();
        for item in &self.events {
            *self.events_by_type.entry(item.content.type_id()).or_default() += 1;
        }
        let items = self.events.iter().chain(&self.requests);
        self.bytes = items.map(|item| item.content.frame_size()).sum();
    }

    /// Drops everything; the number of events in it.
    pub fn clear(&mut self) -> u64 {
        let events = self.events.len() as u64;
        *self = Outbox::default();
        events
    }
}
