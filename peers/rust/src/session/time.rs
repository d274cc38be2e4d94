//! Deadlines: the handshake, keepalive, credit, acknowledgements, closing. docs/wire.md, sections 3, 5, 8 and 10.

use std::time::Instant;

use super::{Phase, Session};
use crate::error::{Fault, GoodbyeCode};
use crate::wire::limits::CREDIT_REST;

fn is_due(deadline: Option<Instant>, now: Instant) -> bool {
    deadline.is_some_and(|deadline| now >= deadline)
}

impl Session {
    /// When `handle_time` has something to do at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Closed => None,
            Phase::Closing { deadline } => Some(*deadline),
            Phase::Open if !self.is_up() => Some(self.started + self.local.limits.handshake_timeout),
            Phase::Draining { deadline, .. } => Some(self.credit_look.map_or(*deadline, |look| look.min(*deadline))),
            Phase::Open => [self.next_ping(), self.credit_look, self.ack_deadline].into_iter().flatten().min(),
        }
    }

    /// A ping after each further interval without a byte.
    fn next_ping(&self) -> Option<Instant> {
        let interval = self.local.limits.keepalive;
        if interval.is_zero() {
            return None;
        }
        Some(self.last_ping.unwrap_or(self.last_byte) + interval)
    }

    /// Does what is due. Whatever is readable must have been given before: we may be the side that was stopped.
    pub fn handle_time(&mut self, now: Instant) {
        self.await_ack(now);
        if !is_due(self.next_deadline(), now) {
            return;
        }
        match &self.phase {
            Phase::Closed => {}
            Phase::Closing { .. } => self.phase = Phase::Closed,
            Phase::Open if !self.is_up() => {
                let text = format!("not up after {:?}", self.local.limits.handshake_timeout);
                self.close(Fault::new(GoodbyeCode::HandshakeTimeout, text), now);
            }
            Phase::Draining { fault, deadline } => {
                if now >= *deadline {
                    let fault = fault.clone();
                    self.close(fault, now);
                } else {
                    self.look_at_credit(now);
                }
            }
            Phase::Open => {
                if is_due(self.credit_look, now) {
                    self.look_at_credit(now);
                }
                if is_due(self.ack_deadline, now) {
                    let timeout = self.local.limits.ack_timeout;
                    let text = format!("subscriptions were not acknowledged within {timeout:?}");
                    self.close(Fault::protocol(text), now);
                    return;
                }
                if is_due(self.next_ping(), now) {
                    self.keep_alive(now);
                }
            }
        }
    }

    fn keep_alive(&mut self, now: Instant) {
        let limits = &self.local.limits;
        let silence = now.saturating_duration_since(self.last_byte);
        if self.pings + 1 >= limits.keepalive_misses && silence >= limits.keepalive * limits.keepalive_misses {
            let text = format!("no byte for {silence:?}, {} pings without an answer", self.pings);
            self.close(Fault::new(GoodbyeCode::KeepaliveTimeout, text), now);
            return;
        }
        self.pings += 1;
        self.last_ping = Some(now);
        self.ping();
    }

    fn is_used_up(&self) -> bool {
        !self.events_in.is_open() || !self.requests_in.is_open()
    }

    /// Content was charged: if the peer may send nothing more of a kind, it must not wait long for what it is owed.
    pub(super) fn watch_credit(&mut self, now: Instant) {
        if self.credit_look.is_none() && self.is_used_up() {
            self.credit_look = Some(now + CREDIT_REST);
        }
    }

    fn look_at_credit(&mut self, now: Instant) {
        self.credit_owed |= !self.events_in.is_open() && self.events_taken.is_any()
            || !self.requests_in.is_open() && self.requests_taken.is_any();
        self.credit_look = None;
        self.watch_credit(now);
    }

    /// Starts the peer's time to acknowledge our subscriptions, unless it runs. Not before the connection is up: an
    /// acknowledgement follows the peer's own first subscriptions.
    fn await_ack(&mut self, now: Instant) {
        if self.ack_deadline.is_none() && self.acknowledged < self.our_sequence && self.is_up() {
            self.ack_deadline = Some(now + self.local.limits.ack_timeout);
        }
    }
}
