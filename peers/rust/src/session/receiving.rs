//! Frames that arrive on a connection.

use std::collections::HashSet;
use std::time::Instant;

use super::{outbox, Answer, Direction, Happening, Session};
use crate::control::{Control, Subscriptions};
use crate::credit::Lease;
use crate::error::{Ending, FailedCode, Failure, Fault, GoodbyeCode};
use crate::types::Registry;
use crate::wire::{Frame, FrameKind};

impl Session {
    /// Takes one frame. A frame that breaks a rule ends the connection with a goodbye.
    pub fn receive(&mut self, frame: Result<Frame, Fault>, registry: &Registry, now: Instant) {
        if !self.is_open() {
            return;
        }
        if let Err(fault) = frame.and_then(|frame| self.take(frame, registry, now)) {
            self.close(fault, now);
        }
    }

    /// Any byte is life.
    pub fn receive_bytes(&mut self, now: Instant) {
        self.last_byte = now;
        self.last_ping = None;
        self.pings = 0;
    }

    fn take(&mut self, frame: Frame, registry: &Registry, now: Instant) -> Result<(), Fault> {
        match frame.header().kind {
            FrameKind::Control => {
                let control = Control::decode(&frame)?;
                self.check_transition(&control)?;
                self.take_control(control, registry, now)
            }
            FrameKind::Event => self.take_event(frame, registry).map(|()| self.watch_credit(now)),
            FrameKind::Request => self.take_request(frame, registry).map(|()| self.watch_credit(now)),
            FrameKind::Response => self.take_response(frame, registry),
        }
    }

    /// The table of section 4. (The decoder refuses content outside of it.)
    fn check_transition(&self, control: &Control) -> Result<(), Fault> {
        use Control as C;
        let allowed = match self.theirs {
            Direction::Opening => matches!(control, C::Hello(_) | C::ForeignHello(_) | C::Goodbye { .. }),
            Direction::Introduced => {
                matches!(control, C::Declare(_) | C::Ping | C::Pong | C::Subscriptions(_) | C::Goodbye { .. })
            }
            Direction::Active => !matches!(control, C::Hello(_) | C::ForeignHello(_)),
            Direction::Ended => false,
        };
        if allowed {
            Ok(())
        } else {
            Err(Fault::protocol(format!("{} is not allowed while {:?}", name_of(control), self.theirs)))
        }
    }

    fn take_control(&mut self, control: Control, registry: &Registry, now: Instant) -> Result<(), Fault> {
        match control {
            Control::Hello(hello) => self.receive_hello(*hello, registry),
            Control::ForeignHello(version) => Err(Fault::new(
                GoodbyeCode::UnsupportedVersion,
                format!("the peer speaks protocol version {version}, this side speaks 1"),
            )),
            Control::Declare(rows) => {
                if self.table.add(rows, registry)? {
                    self.tell_disabled(registry);
                }
                Ok(())
            }
            Control::Subscriptions(value) => self.take_subscriptions(value),
            Control::SubscriptionsAck(sequence) => {
                if sequence == 0 || sequence > self.our_sequence || sequence < self.acknowledged {
                    return Err(Fault::protocol(format!(
                        "subscriptionsAck {sequence}; wanted {} to {}",
                        self.acknowledged.max(1),
                        self.our_sequence
                    )));
                }
                self.acknowledged = sequence;
                // What is still owed has its time from now on.
                self.ack_deadline = None;
                self.happenings.push_back(Happening::Acknowledged);
                Ok(())
            }
            Control::Credit { events, requests } => {
                if events > 0 || requests > 0 {
                    self.last_credit = now;
                }
                if self.events_out.add(events) && self.requests_out.add(requests) {
                    return Ok(());
                }
                Err(Fault::protocol("credit raises a balance over 2^63 - 1"))
            }
            Control::Failed { correlation, failure } => {
                if let Some(ask) = self.close_request(correlation)? {
                    self.happenings.push_back(Happening::Answered { ask, answer: Answer::Failed(failure) });
                }
                Ok(())
            }
            Control::Ping => {
                self.pong_owed = true;
                Ok(())
            }
            Control::Pong => Ok(()),
            Control::Dropped(counts) => {
                for (_, count) in counts {
                    self.counters.dropped_by_peer = self.counters.dropped_by_peer.saturating_add(count);
                }
                Ok(())
            }
            Control::Goodbye { code, text } => {
                self.over(Ending { code: Some(code), text, by_peer: true });
                Ok(())
            }
        }
    }

    fn take_subscriptions(&mut self, value: Subscriptions) -> Result<(), Fault> {
        let Subscriptions { sequence, add, remove, all, ack_wanted } = value;
        let wanted = self.their_sequence.checked_add(1);
        if Some(sequence) != wanted {
            return Err(Fault::protocol(format!(
                "subscriptions with sequence {sequence} after {}",
                self.their_sequence
            )));
        }
        if let Some(id) = add.iter().find(|&&id| !self.table.has_wire_id(id)) {
            let text = format!("a subscription to type id {id:#018x}, which was not declared with a wire id");
            return Err(Fault::new(GoodbyeCode::UnknownId, text));
        }
        let first = self.theirs == Direction::Introduced;
        self.theirs = Direction::Active;
        self.their_sequence = sequence;
        self.ack_owed |= ack_wanted;

        let mut removed: HashSet<u64> = HashSet::new();
        for id in remove {
            if self.wants.remove(&id) {
                removed.insert(id);
            }
        }
        let mut added = Vec::new();
        for id in add {
            if self.wants.insert(id) && !removed.remove(&id) {
                added.push(id);
            }
        }
        let less = self.wants_all && !all;
        self.wants_all = all;
        if !all {
            let gone = removed.iter().any(|&id| self.outbox.has_events_of(id))
                || less && self.outbox.queued_types().iter().any(|id| !self.wants.contains(id));
            if gone {
                let wants = &self.wants;
                self.outbox.keep_events(|id| wants.contains(&id));
            }
        }
        if first {
            self.happenings.push_back(Happening::Up);
        }
        if !added.is_empty() {
            self.happenings.push_back(Happening::Subscribed(added));
        }
        if !removed.is_empty() {
            self.happenings.push_back(Happening::Unsubscribed(removed.into_iter().collect()));
        }
        Ok(())
    }

    /// Whose content it is, by the sender's table.
    fn type_of(&self, frame: &Frame) -> Result<u64, Fault> {
        let wire_id = frame.header().wire_id;
        self.table.type_id(wire_id).ok_or_else(|| {
            Fault::new(GoodbyeCode::UnknownId, format!("content of wire id {wire_id}, which was never declared"))
        })
    }

    fn take_event(&mut self, frame: Frame, registry: &Registry) -> Result<(), Fault> {
        let type_id = self.type_of(&frame)?;
        if !self.events_in.is_open() {
            let text = format!("an event of {} bytes without credit", frame.size());
            return Err(Fault::new(GoodbyeCode::CreditExceeded, text));
        }
        self.events_in.charge(frame.size());
        self.counters.received_events += 1;
        // Dropped at the end of this function if the event is skipped: its credit is back at once.
        let lease = Lease::new(frame.size(), &self.events_taken);
        match registry.event(type_id) {
            Some(row) if self.table.is_compatible(row, registry) => {
                self.happenings.push_back(Happening::Event { type_id, frame, lease });
            }
            _ => self.counters.skipped += 1,
        }
        Ok(())
    }

    fn take_request(&mut self, frame: Frame, registry: &Registry) -> Result<(), Fault> {
        let type_id = self.type_of(&frame)?;
        let number = frame.header().correlation;
        if number <= self.their_highest {
            return Err(Fault::protocol(format!("request {number} after request {}", self.their_highest)));
        }
        if !self.requests_in.is_open() {
            let text = format!("a request of {} bytes without credit", frame.size());
            return Err(Fault::new(GoodbyeCode::CreditExceeded, text));
        }
        self.their_highest = number;
        self.counters.received_requests += 1;
        self.requests_in.charge(frame.size());
        let lease = Lease::new(frame.size(), &self.requests_taken);
        let Some(row) = registry.event(type_id) else {
            let text = format!("{} is not known here", self.table.name(type_id));
            self.refuse_request(number, FailedCode::UnknownType, text, lease);
            return Ok(());
        };
        if !self.table.is_compatible(row, registry) {
            let text = format!("the two endpoints hold different layouts of {}", row.name);
            self.refuse_request(number, FailedCode::IncompatibleType, text, lease);
        } else if self.their_open >= self.local.limits.open_requests {
            let text = format!("{} requests are open, which is the limit", self.their_open);
            self.refuse_request(number, FailedCode::Overloaded, text, lease);
        } else {
            self.their_open += 1;
            self.happenings.push_back(Happening::Request { number, type_id, frame, lease });
        }
        Ok(())
    }

    /// Answers `failed` by ourselves. The credit goes back when the answer is sent: that bounds these answers.
    fn refuse_request(&mut self, number: u64, code: FailedCode, text: String, lease: Lease) {
        let failure = Failure { code, type_name: String::new(), text };
        let frame = Control::Failed { correlation: number, failure }.encode();
        self.outbox.push_answer(outbox::Answer::Failed(frame, Some(lease)));
    }

    /// The owner has no handler for a request that was shown to it.
    pub fn no_handler(&mut self, number: u64, name: &str, lease: Lease) {
        self.their_open -= 1;
        self.refuse_request(number, FailedCode::NoHandler, format!("nobody here takes requests of {name}"), lease);
    }

    fn take_response(&mut self, frame: Frame, registry: &Registry) -> Result<(), Fault> {
        let type_id = self.type_of(&frame)?;
        let Some(ask) = self.close_request(frame.header().correlation)? else {
            return Ok(());
        };
        let disabled = registry.event(type_id).is_some_and(|row| !self.table.is_compatible(row, registry));
        let answer = if disabled {
            Answer::Failed(Failure {
                code: FailedCode::IncompatibleType,
                type_name: String::new(),
                text: format!("the response {} is laid out otherwise here", self.table.name(type_id)),
            })
        } else {
            Answer::Response { type_id, frame }
        };
        self.happenings.push_back(Happening::Answered { ask, answer });
        Ok(())
    }

    /// Who asked; `None`: the answer is late.
    fn close_request(&mut self, number: u64) -> Result<Option<u64>, Fault> {
        if number == 0 || number > self.highest_sent {
            let text = format!("an answer to request {number}; the highest sent is {}", self.highest_sent);
            return Err(Fault::new(GoodbyeCode::UnknownCorrelation, text));
        }
        let ask = self.open.remove(&number);
        if ask.is_none() {
            self.counters.late += 1;
        }
        Ok(ask)
    }
}

fn name_of(control: &Control) -> &'static str {
    match control {
        Control::Hello(_) | Control::ForeignHello(_) => "hello",
        Control::Declare(_) => "declare",
        Control::Subscriptions(_) => "subscriptions",
        Control::SubscriptionsAck(_) => "subscriptionsAck",
        Control::Credit { .. } => "credit",
        Control::Failed { .. } => "failed",
        Control::Ping => "ping",
        Control::Pong => "pong",
        Control::Dropped(_) => "dropped",
        Control::Goodbye { .. } => "goodbye",
    }
}
