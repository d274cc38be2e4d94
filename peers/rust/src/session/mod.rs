//! One connection as a value: frames in, happenings out, bytes to send, the next deadline. Knows no socket and no clock;
//! time comes in as an argument. docs/wire.md, sections 3 to 10.

mod handshake;
mod outbox;
mod receiving;
mod sending;
mod time;

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::Notify;

use crate::control::Control;
use crate::credit::{Balance, Lease, Returned};
use crate::error::{Ending, Failure, Fault, GoodbyeCode};
use crate::table::PeerTable;
use crate::types::Registry;
use crate::wire::limits::Limits;
use crate::wire::{Frame, Rules};

pub(crate) use handshake::is_valid_name;
pub(crate) use outbox::Batch;
use outbox::Outbox;
pub(crate) use sending::Refusal;

/// What an endpoint says about itself on each of its connections.
#[derive(Debug)]
pub(crate) struct Local {
    pub name: String,
    pub instance: [u8; 16],
    pub limits: Limits,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    /// We opened the stream, and want to reach this endpoint.
    Connector {
        expected: String,
    },
    Acceptor,
}

/// Section 4: what was sent in one direction decides what may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Direction {
    Opening,
    Introduced,
    Active,
    Ended,
}

#[derive(Clone, Debug)]
enum Phase {
    Open,
    /// A graceful stop: what is queued goes first.
    Draining {
        deadline: Instant,
        fault: Fault,
    },
    /// Our goodbye is on its way; what arrives is discarded.
    Closing {
        deadline: Instant,
    },
    Closed,
}

/// What the peer's hello says.
#[derive(Debug)]
pub(crate) struct Peer {
    pub name: Arc<str>,
    pub instance: [u8; 16],
    pub frame_limit: u32,
}

/// One thing that the session's owner has to know, in the order in which they happened.
#[derive(Debug)]
pub(crate) enum Happening {
    /// A valid hello: the owner decides with `accept` or `close` (section 13). Until then no frame may be given.
    Introduced,
    Up,
    Event {
        type_id: u64,
        frame: Frame,
        lease: Lease,
    },
    Request {
        number: u64,
        type_id: u64,
        frame: Frame,
        lease: Lease,
    },
    Answered {
        ask: u64,
        answer: Answer,
    },
    Subscribed(Vec<u64>),
    Unsubscribed(Vec<u64>),
    /// The peer has applied our subscriptions up to some sequence.
    Acknowledged,
    /// A type of ours is laid out otherwise at the peer; it is neither sent nor received.
    Disabled {
        type_id: u64,
        reason: String,
    },
    Ended(Ending),
}

#[derive(Debug)]
pub(crate) enum Answer {
    Response { type_id: u64, frame: Frame },
    Failed(Failure),
}

/// What a connection has seen so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Events handed to the stream, with their credit charged.
    pub sent_events: u64,
    /// Events that arrived, skipped ones included.
    pub received_events: u64,
    /// Events that arrived and that nobody here wanted, knew, or could read.
    pub skipped: u64,
    /// Requests that arrived.
    pub received_requests: u64,
    /// Answers to requests that had timed out or been answered.
    pub late: u64,
    /// Events that the peer says it dropped for us.
    pub dropped_by_peer: u64,
    /// Events that were queued when the connection ended.
    pub not_sent: u64,
}

impl Counters {
    pub(crate) fn plus(&self, other: &Counters) -> Counters {
        Counters {
            sent_events: self.sent_events + other.sent_events,
            received_events: self.received_events + other.received_events,
            skipped: self.skipped + other.skipped,
            received_requests: self.received_requests + other.received_requests,
            late: self.late + other.late,
            // A peer may say any number.
            dropped_by_peer: self.dropped_by_peer.saturating_add(other.dropped_by_peer),
            not_sent: self.not_sent + other.not_sent,
        }
    }
}

pub(crate) struct Session {
    role: Role,
    local: Arc<Local>,
    phase: Phase,
    ours: Direction,
    theirs: Direction,
    peer: Option<Peer>,
    table: PeerTable,
    /// How many of our registry's rows the peer knows.
    declared: usize,
    told_disabled: HashSet<u64>,

    /// What the peer wants.
    wants: HashSet<u64>,
    wants_all: bool,
    their_sequence: u64,
    ack_owed: bool,

    our_sequence: u64,
    acknowledged: u64,

    events_out: Balance,
    requests_out: Balance,
    events_in: Balance,
    requests_in: Balance,
    events_taken: Arc<Returned>,
    requests_taken: Arc<Returned>,

    outbox: Outbox,
    pong_owed: bool,

    next_number: u64,
    highest_sent: u64,
    /// Our requests without an answer yet, and who asked.
    open: HashMap<u64, u64>,
    their_highest: u64,
    their_open: usize,

    started: Instant,
    last_byte: Instant,
    last_ping: Option<Instant>,
    pings: u32,

    /// When to look whether a peer that may send nothing is owed credit; `None` while it may send.
    credit_look: Option<Instant>,
    credit_owed: bool,
    last_credit: Instant,
    /// While the peer owes us an acknowledgement.
    ack_deadline: Option<Instant>,

    pub counters: Counters,
    happenings: VecDeque<Happening>,
}

impl Session {
    /// `wake` is told when something is to be sent that no call of the owner caused.
    pub fn new(role: Role, local: Arc<Local>, registry: &Registry, wake: Arc<Notify>, now: Instant) -> Session {
        let limits = &local.limits;
        let mut session = Session {
            phase: Phase::Open,
            ours: Direction::Opening,
            theirs: Direction::Opening,
            peer: None,
            table: PeerTable::default(),
            declared: 0,
            told_disabled: HashSet::new(),
            wants: HashSet::new(),
            wants_all: false,
            their_sequence: 0,
            ack_owed: false,
            our_sequence: 0,
            acknowledged: 0,
            // The peer's hello says what it grants; nothing may be sent before.
            events_out: Balance::new(0),
            requests_out: Balance::new(0),
            events_in: Balance::new(limits.event_credit_bytes),
            requests_in: Balance::new(limits.request_credit_bytes),
            events_taken: Returned::new(limits.event_credit_bytes, Arc::clone(&wake)),
            requests_taken: Returned::new(limits.request_credit_bytes, wake),
            outbox: Outbox::default(),
            pong_owed: false,
            next_number: 0,
            highest_sent: 0,
            open: HashMap::new(),
            their_highest: 0,
            their_open: 0,
            started: now,
            last_byte: now,
            last_ping: None,
            pings: 0,
            credit_look: None,
            credit_owed: false,
            last_credit: now,
            ack_deadline: None,
            counters: Counters::default(),
            happenings: VecDeque::new(),
            role,
            local,
        };
        if session.is_connector() {
            session.say_hello(registry);
        }
        session
    }

    pub fn is_connector(&self) -> bool {
        matches!(self.role, Role::Connector { .. })
    }

    /// The endpoint that a connector wants to reach.
    pub fn expected(&self) -> Option<&str> {
        match &self.role {
            Role::Connector { expected } => Some(expected),
            Role::Acceptor => None,
        }
    }

    pub fn peer(&self) -> Option<&Peer> {
        self.peer.as_ref()
    }

    /// The peer's name; before its hello, the one that was wanted.
    pub fn peer_name(&self) -> Arc<str> {
        match &self.peer {
            Some(peer) => Arc::clone(&peer.name),
            None => self.expected().unwrap_or("").into(),
        }
    }

    /// Content may pass.
    pub fn is_up(&self) -> bool {
        self.is_open() && self.ours == Direction::Active && self.theirs == Direction::Active
    }

    /// No goodbye said or read, no end of stream.
    pub fn is_open(&self) -> bool {
        matches!(self.phase, Phase::Open | Phase::Draining { .. })
    }

    /// When the peer last gave credit back: it has taken something.
    pub fn last_credit(&self) -> Instant {
        self.last_credit
    }

    /// We said goodbye, and read on without judging.
    pub fn is_closing(&self) -> bool {
        matches!(self.phase, Phase::Closing { .. })
    }

    pub fn is_closed(&self) -> bool {
        matches!(self.phase, Phase::Closed)
    }

    /// Our first `subscriptions` is queued: the owner accepted the peer.
    pub fn is_accepted(&self) -> bool {
        self.ours == Direction::Active
    }

    /// The peer's hello is here, and the owner has not decided.
    pub fn is_undecided(&self) -> bool {
        self.is_open() && self.theirs == Direction::Introduced && !self.is_accepted()
    }

    pub fn rules(&self) -> Rules {
        let content = self.ours == Direction::Active && self.theirs == Direction::Active;
        Rules {
            first: self.theirs == Direction::Opening,
            content_bytes: content.then_some(self.local.limits.frame_bytes),
        }
    }

    pub fn next_happening(&mut self) -> Option<Happening> {
        self.happenings.pop_front()
    }

    /// Ends the connection: drops what is queued, says goodbye. Nothing if it is over already.
    pub fn close(&mut self, fault: Fault, now: Instant) {
        if !self.is_open() {
            return;
        }
        self.counters.not_sent += self.outbox.clear();
        let goodbye = Control::Goodbye { code: fault.code, text: fault.text.clone() };
        self.outbox.push_control(goodbye.encode());
        self.ours = Direction::Ended;
        self.phase = Phase::Closing { deadline: now + self.local.limits.close_timeout };
        self.end(Ending { code: Some(fault.code), text: fault.text, by_peer: false });
    }

    /// Ends the connection when what is queued has been sent, or has not been for `close_timeout`.
    pub fn finish(&mut self, fault: Fault, now: Instant) {
        if self.is_up() && !self.outbox.is_empty() {
            if matches!(self.phase, Phase::Open) {
                self.phase = Phase::Draining { deadline: now + self.local.limits.close_timeout, fault };
            }
        } else {
            self.close(fault, now);
        }
    }

    /// The stream ended, or was reset.
    pub fn receive_eof(&mut self) {
        if self.is_open() {
            self.over(Ending { code: None, text: String::new(), by_peer: true });
        }
        self.phase = Phase::Closed;
    }

    /// Closes at once, without a goodbye of our own.
    fn over(&mut self, ending: Ending) {
        self.counters.not_sent += self.outbox.clear();
        self.ours = Direction::Ended;
        self.theirs = Direction::Ended;
        self.phase = Phase::Closed;
        self.end(ending);
    }

    fn end(&mut self, ending: Ending) {
        self.pong_owed = false;
        self.ack_owed = false;
        self.happenings.push_back(Happening::Ended(ending));
    }

    /// Who waits for answers that will not come any more.
    pub fn take_open(&mut self) -> Vec<u64> {
        self.open.drain().map(|(_, ask)| ask).collect()
    }
}

impl From<GoodbyeCode> for Fault {
    fn from(code: GoodbyeCode) -> Self {
        Fault::new(code, "")
    }
}
