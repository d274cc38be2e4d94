//! What a connection sends, and when it may.

use std::time::Instant;

use super::outbox::{Answer, Batch, Item};
use super::{Direction, Phase, Session};
use crate::content::Content;
use crate::control::{Control, Subscriptions};
use crate::error::{FailedCode, Failure};
use crate::types::Registry;
use crate::wire::FrameKind;

/// Why a connection does not take an event or a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// Not up, not subscribed, or disabled.
    Unwanted,
    /// Larger than the peer's `frameLimit`, which this is.
    TooLarge(u32),
    /// Too much is queued; later.
    Full,
}

impl Session {
    fn admit(&mut self, content: &Content, registry: &Registry) -> Result<u16, Refusal> {
        let type_id = content.type_id();
        let (Some(peer), Some(row)) = (&self.peer, registry.event(type_id)) else {
            return Err(Refusal::Unwanted);
        };
        let frame_limit = peer.frame_limit;
        let wanted = matches!(self.phase, Phase::Open)
            && self.is_up()
            && (self.wants_all || self.wants.contains(&type_id))
            && self.table.is_compatible(row, registry);
        let Some(wire_id) = registry.wire_id(type_id).filter(|_| wanted) else {
            return Err(Refusal::Unwanted);
        };
        if content.frame_size() > frame_limit as usize {
            return Err(Refusal::TooLarge(frame_limit));
        }
        if self.outbox.waiting_bytes() >= self.local.limits.queued_per_peer_bytes {
            return Err(Refusal::Full);
        }
        Ok(wire_id)
    }

    /// The peer takes events and requests of this type.
    pub fn peer_wants(&self, type_id: u64) -> bool {
        self.is_up() && (self.wants_all || self.wants.contains(&type_id))
    }

    /// Queues an event, if the peer wants it and there is room.
    pub fn send_event(&mut self, content: &Content, registry: &Registry) -> Result<(), Refusal> {
        let wire_id = self.admit(content, registry)?;
        self.outbox.push_event(Item { content: content.clone(), wire_id, number: 0 });
        Ok(())
    }

    /// Queues a request; its number.
    pub fn send_request(&mut self, content: &Content, ask: u64, registry: &Registry) -> Result<u64, Refusal> {
        let wire_id = self.admit(content, registry)?;
        self.next_number += 1;
        let number = self.next_number;
        self.open.insert(number, ask);
        self.outbox.push_request(Item { content: content.clone(), wire_id, number });
        Ok(number)
    }

    /// The requester gives up: nothing is said about it, the number is forgotten.
    pub fn forget(&mut self, number: u64) {
        self.open.remove(&number);
        self.outbox.forget_request(number);
    }

    /// A request of the peer gets no answer from here any more.
    pub fn drop_request(&mut self) {
        self.their_open = self.their_open.saturating_sub(1);
    }

    pub fn respond(&mut self, number: u64, content: &Content, registry: &Registry) {
        if !self.is_open() {
            return;
        }
        let (Some(peer), Some(row)) = (&self.peer, registry.event(content.type_id())) else {
            return;
        };
        let limit = peer.frame_limit as usize;
        if !self.table.is_compatible(row, registry) {
            let text = format!("the two endpoints hold different layouts of the response {}", row.name);
            let failure = Failure { code: FailedCode::IncompatibleType, type_name: String::new(), text };
            self.push_failed(number, failure);
        } else if content.frame_size() > limit {
            let size = content.frame_size();
            let text = format!("the response {} encodes to {size} bytes; the requester accepts {limit}", row.name);
            let type_name = "FrameTooLarge".to_owned();
            self.push_failed(number, Failure { code: FailedCode::HandlerRaised, type_name, text });
        } else if let Some(wire_id) = registry.wire_id(content.type_id()) {
            self.outbox.push_answer(Answer::Response(Item { content: content.clone(), wire_id, number }));
        }
    }

    pub fn fail(&mut self, number: u64, failure: Failure) {
        if self.is_open() {
            self.push_failed(number, failure);
        }
    }

    fn push_failed(&mut self, number: u64, failure: Failure) {
        let frame = Control::Failed { correlation: number, failure }.encode();
        self.outbox.push_answer(Answer::Failed(frame, None));
    }

    /// Tells the peer of changed subscriptions; the sequence that its acknowledgement will name.
    pub fn subscribe(&mut self, add: Vec<u64>, remove: Vec<u64>, all: bool) -> Option<u64> {
        if !self.is_open() || self.ours != Direction::Active {
            // The first subscriptions will say it.
            return None;
        }
        self.our_sequence += 1;
        let sequence = self.our_sequence;
        let message = Subscriptions { sequence, add, remove, all, ack_wanted: true };
        self.outbox.push_control(Control::Subscriptions(message).encode());
        Some(sequence)
    }

    /// What the peer has applied, and what it was told.
    pub fn acknowledged(&self) -> (u64, u64) {
        (self.acknowledged, self.our_sequence)
    }

    pub fn ping(&mut self) {
        if self.is_open() && matches!(self.ours, Direction::Introduced | Direction::Active) {
            self.outbox.push_control(Control::Ping.encode());
        }
    }

    /// Bytes that wait to be sent.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.waiting_bytes()
    }

    pub fn has_room(&self) -> bool {
        self.outbox.waiting_bytes() < self.local.limits.queued_per_peer_bytes
    }

    /// An event is queued that may not be sent yet.
    pub fn waits_for_credit(&self) -> bool {
        self.outbox.has_events() && !self.events_out.is_open()
    }

    /// Fills the batch with what may be sent now.
    pub fn transmit(&mut self, batch: &mut Batch, now: Instant) {
        while !batch.is_full() && self.transmit_one(batch) {}
        if let Phase::Draining { fault, .. } = &self.phase {
            if self.outbox.is_empty() {
                let fault = fault.clone();
                self.close(fault, now);
                self.transmit_one(batch);
            }
        }
    }

    fn transmit_one(&mut self, batch: &mut Batch) -> bool {
        if self.is_closed() {
            return false;
        }
        if let Some(frame) = self.outbox.pop_control() {
            batch.bytes.extend_from_slice(&frame);
            return true;
        }
        // These three are made when they can be sent, so that they never pile up behind a peer that does not read.
        if self.pong_owed && matches!(self.ours, Direction::Introduced | Direction::Active) {
            self.pong_owed = false;
            batch.bytes.extend_from_slice(&Control::Pong.encode());
            return true;
        }
        if self.ours != Direction::Active {
            return false;
        }
        if self.ack_owed {
            self.ack_owed = false;
            batch.bytes.extend_from_slice(&Control::SubscriptionsAck(self.their_sequence).encode());
            return true;
        }
        if self.credit_owed || self.events_taken.is_due() || self.requests_taken.is_due() {
            self.credit_owed = false;
            let (events, requests) = (self.events_taken.take(), self.requests_taken.take());
            // What we granted and took back cannot exceed the window.
            let _ = self.events_in.add(events) && self.requests_in.add(requests);
            batch.bytes.extend_from_slice(&Control::Credit { events, requests }.encode());
            return true;
        }
        if !self.is_up() {
            return false;
        }
        match self.outbox.pop_answer() {
            // Open until it is sent: a peer that asks and does not read must not fill our memory with answers.
            Some(Answer::Response(item)) => {
                self.drop_request();
                batch.push_content(FrameKind::Response, &item);
                return true;
            }
            Some(Answer::Failed(frame, lease)) => {
                if lease.is_none() {
                    self.drop_request();
                }
                batch.bytes.extend_from_slice(&frame);
                return true;
            }
            None => {}
        }
        if self.outbox.has_requests() && self.requests_out.is_open() {
            if let Some(item) = self.outbox.pop_request() {
                self.requests_out.charge(item.content.frame_size() as u64);
                self.highest_sent = item.number;
                batch.push_content(FrameKind::Request, &item);
                return true;
            }
        }
        if self.outbox.has_events() && self.events_out.is_open() {
            if let Some(item) = self.outbox.pop_event() {
                self.events_out.charge(item.content.frame_size() as u64);
                self.counters.sent_events += 1;
                batch.push_content(FrameKind::Event, &item);
                return true;
            }
        }
        false
    }
}
