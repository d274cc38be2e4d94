//! Hello: what ours says, and what a peer's must say. docs/wire.md, section 3.

use super::{Direction, Happening, Peer, Session};
use crate::control::{Control, Hello, Subscriptions, TypeRow, PROTOCOL_VERSION};
use crate::credit::Balance;
use crate::error::{Fault, GoodbyeCode};
use crate::types::Registry;
use crate::wire::limits::{
    INSTANCE_BYTES, MAX_CREDIT, MAX_FEATURES, MAX_FRAME_BYTES, MIN_FRAME_LIMIT_BYTES, NAME_TEXT_BYTES, UNLIMITED,
};

/// Rows of one control message together: below its limit of 1 MiB by far more than the other fields take.
const ROWS_BYTES: usize = 900_000;

/// `[A-Za-z0-9][A-Za-z0-9._-]{0,99}`
pub(crate) fn is_valid_name(name: &str) -> bool {
    let bytes = name.as_bytes();
    (1..=100).contains(&bytes.len())
        && bytes[0].is_ascii_alphanumeric()
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(byte))
}

impl Session {
    pub(super) fn say_hello(&mut self, registry: &Registry) {
        let limits = &self.local.limits;
        let hello = Hello {
            protocol_version: PROTOCOL_VERSION,
            name: self.local.name.clone(),
            instance: self.local.instance.to_vec(),
            implementation: "lahja-capn (Rust)".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            frame_limit: limits.frame_bytes,
            keepalive_ms: u32::try_from(limits.keepalive.as_millis()).unwrap_or(u32::MAX),
            event_credit: limits.event_credit_bytes,
            request_credit: limits.request_credit_bytes,
            features: Vec::new(),
            types: self.next_rows(registry),
        };
        self.outbox.push_control(Control::Hello(Box::new(hello)).encode());
        self.ours = Direction::Introduced;
    }

    /// The rows that the peer does not know yet, as many as one message takes.
    fn next_rows(&mut self, registry: &Registry) -> Vec<TypeRow> {
        let mut bytes = 0;
        let mut rows = Vec::new();
        for (wire_id, row) in registry.declared_from(self.declared) {
            bytes += TypeRow::encoded_bytes(row);
            if bytes > ROWS_BYTES && !rows.is_empty() {
                break;
            }
            rows.push(TypeRow::from_own(wire_id, row));
        }
        self.declared += rows.len();
        rows
    }

    /// Sends the rows that were added since the last time.
    pub fn declare(&mut self, registry: &Registry) {
        if !matches!(self.ours, Direction::Introduced | Direction::Active) {
            // An acceptor's hello will have them.
            return;
        }
        while self.declared < registry.declared_count() {
            let rows = self.next_rows(registry);
            self.outbox.push_control(Control::Declare(rows).encode());
        }
    }

    /// The owner takes the peer: sends what is left of our half of the handshake.
    pub fn accept(&mut self, registry: &Registry, types: Vec<u64>, all: bool) {
        debug_assert!(self.is_undecided());
        if !self.is_connector() {
            self.say_hello(registry);
        }
        self.declare(registry);
        self.our_sequence = 1;
        let ack_wanted = all || !types.is_empty();
        let first = Subscriptions { sequence: 1, add: types, remove: Vec::new(), all, ack_wanted };
        self.outbox.push_control(Control::Subscriptions(first).encode());
        self.ours = Direction::Active;
        if !ack_wanted {
            self.acknowledged = 1;
        }
    }

    /// Checks in the order of section 3; the first that fails decides the code.
    pub(super) fn receive_hello(&mut self, hello: Hello, registry: &Registry) -> Result<(), Fault> {
        let Hello { name, features, implementation, version, frame_limit, types, .. } = hello;
        if features.len() > MAX_FEATURES as usize {
            return Err(Fault::protocol(format!("{} features; the limit is {MAX_FEATURES}", features.len())));
        }
        if !is_valid_name(&name) {
            return Err(Fault::new(GoodbyeCode::InvalidName, format!("{name:?} is no endpoint name")));
        }
        let instance: [u8; INSTANCE_BYTES] = hello.instance.as_slice().try_into().map_err(|_| {
            Fault::protocol(format!("an instance of {} bytes; wanted {INSTANCE_BYTES}", hello.instance.len()))
        })?;
        for (field, text) in [("implementation", &implementation), ("version", &version)] {
            if text.len() > NAME_TEXT_BYTES {
                let text = format!("{field} has {} bytes; the limit is {NAME_TEXT_BYTES}", text.len());
                return Err(Fault::protocol(text));
            }
        }
        if !(MIN_FRAME_LIMIT_BYTES..=MAX_FRAME_BYTES).contains(&frame_limit) {
            return Err(Fault::protocol(format!(
                "frameLimit is {frame_limit}; wanted {MIN_FRAME_LIMIT_BYTES} to {MAX_FRAME_BYTES}"
            )));
        }
        if instance == self.local.instance {
            return Err(Fault::new(GoodbyeCode::Duplicate, "the endpoint has reached itself"));
        }
        if let Some(expected) = self.expected() {
            if expected != name {
                let text = format!("wanted endpoint {expected:?}, reached {name:?}");
                return Err(Fault::new(GoodbyeCode::WrongName, text));
            }
        }
        self.table.add(types, registry)?;
        for (field, window) in [("eventCredit", hello.event_credit), ("requestCredit", hello.request_credit)] {
            if window > MAX_CREDIT && window != UNLIMITED {
                return Err(Fault::protocol(format!("{field} is {window}; wanted at most {MAX_CREDIT}, or 2^64 - 1")));
            }
        }
        self.events_out = Balance::new(hello.event_credit);
        self.requests_out = Balance::new(hello.request_credit);
        self.peer = Some(Peer { name: name.into(), instance, frame_limit });
        self.theirs = Direction::Introduced;
        self.happenings.push_back(Happening::Introduced);
        self.tell_disabled(registry);
        Ok(())
    }

    /// Tells the owner about types of ours that the peer lays out otherwise, each once.
    pub(super) fn tell_disabled(&mut self, registry: &Registry) {
        for row in registry.events() {
            if self.told_disabled.contains(&row.type_id) {
                continue;
            }
            if let crate::table::Verdict::Disabled(reason) = self.table.verdict(row, registry) {
                let reason = reason.clone();
                self.told_disabled.insert(row.type_id);
                self.happenings.push_back(Happening::Disabled { type_id: row.type_id, reason });
            }
        }
    }
}
