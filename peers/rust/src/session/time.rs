//! Deadlines: the handshake, keepalive, closing. docs/wire.md, sections 3 and 10.

use std::time::Instant;

use super::{Phase, Session};
use crate::error::{Fault, GoodbyeCode};

impl Session {
    /// When `handle_time` has something to do at the latest.
    pub fn next_deadline(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Closed => None,
            Phase::Closing { deadline } => Some(*deadline),
            Phase::Draining { deadline, .. } => Some(*deadline),
            Phase::Open if !self.is_up() => Some(self.started + self.local.limits.handshake_timeout),
            Phase::Open => self.next_ping(),
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
        if self.next_deadline().is_none_or(|deadline| now < deadline) {
            return;
        }
        match &self.phase {
            Phase::Closed => {}
            Phase::Closing { .. } => self.phase = Phase::Closed,
            Phase::Draining { fault, .. } => {
                let fault = fault.clone();
                self.close(fault, now);
            }
            Phase::Open if !self.is_up() => {
                let text = format!("not up after {:?}", self.local.limits.handshake_timeout);
                self.close(Fault::new(GoodbyeCode::HandshakeTimeout, text), now);
            }
            Phase::Open => self.keep_alive(now),
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
}
