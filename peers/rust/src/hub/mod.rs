//! An endpoint's state: its connections, who subscribed to what, who waits for which answer. No IO: the tasks in
//! `endpoint` bring bytes and take bytes, under one lock that is never held across an `await`.

mod inbox;
mod names;
mod requests;
mod routing;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use tokio::sync::{broadcast, oneshot, Notify};

use crate::error::{Ending, Fault, GoodbyeCode};
use crate::session::{Batch, Counters, Happening, Local, Role, Session};
use crate::types::Registry;
use crate::wire::Decoder;

pub(crate) use inbox::Inbox;
pub(crate) use names::Decision;
pub(crate) use requests::{Arrived, Ask, Asked};
pub(crate) use routing::EventInbox;

/// Notices are few; a user that reads none of them must not cost memory without bound.
const NOTICES: usize = 4096;

pub(crate) type LinkId = u64;

/// Something about peers that a user may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Notice {
    Up {
        peer: String,
    },
    /// A connection that was up has ended.
    Down {
        peer: String,
        ending: Ending,
    },
    /// A connection ended before it came up.
    Refused {
        peer: String,
        ending: Ending,
    },
    PeerSubscribed {
        peer: String,
        type_id: u64,
    },
    PeerUnsubscribed {
        peer: String,
        type_id: u64,
    },
    /// The two endpoints hold different layouts of a type: it is neither sent nor received between them.
    Disabled {
        peer: String,
        type_id: u64,
        reason: String,
    },
    /// So many notices were lost because nobody fetched them.
    Missed(u64),
}

/// One connection.
pub(crate) struct Link {
    pub session: Session,
    /// Tells the writing half that there is something to send, or a new deadline.
    pub wake: Arc<Notify>,
    /// Tells those who wait to send that something left the queue, or that the connection is over.
    pub room: Arc<Notify>,
    pub last_progress: Instant,
    was_up: bool,
    outcome: Option<oneshot::Sender<Result<(), Ending>>>,
    /// Newcomers who claim this peer's name, and wait whether it lives.
    probes: Vec<oneshot::Sender<bool>>,
}

pub(crate) struct Hub {
    pub local: Arc<Local>,
    pub registry: Registry,
    links: HashMap<LinkId, Link>,
    last_link: LinkId,
    /// The accepted connection to each endpoint.
    held: HashMap<Arc<str>, LinkId>,
    inboxes: Vec<Arc<EventInbox>>,
    routes: HashMap<u64, Vec<Arc<EventInbox>>>,
    routes_all: Vec<Arc<EventInbox>>,
    handlers: HashMap<u64, Arc<Inbox<Arrived>>>,
    asks: HashMap<u64, Ask>,
    last_ask: u64,
    notices: broadcast::Sender<Notice>,
    /// Something that somebody may wait for has changed.
    changed: Arc<Notify>,
    ended: Counters,
    pub stopped: bool,
}

impl Hub {
    pub fn new(local: Local, registry: Registry, changed: Arc<Notify>) -> Hub {
        Hub {
            local: Arc::new(local),
            registry,
            links: HashMap::new(),
            last_link: 0,
            held: HashMap::new(),
            inboxes: Vec::new(),
            routes: HashMap::new(),
            routes_all: Vec::new(),
            handlers: HashMap::new(),
            asks: HashMap::new(),
            last_ask: 0,
            notices: broadcast::channel(NOTICES).0,
            changed,
            ended: Counters::default(),
            stopped: false,
        }
    }

    /// A stream is there. `outcome` hears whether the connection comes up.
    pub fn open(
        &mut self,
        role: Role,
        outcome: Option<oneshot::Sender<Result<(), Ending>>>,
        now: Instant,
    ) -> (LinkId, Arc<Notify>) {
        self.last_link += 1;
        let wake = Arc::new(Notify::new());
        let link = Link {
            session: Session::new(role, Arc::clone(&self.local), &self.registry, Arc::clone(&wake), now),
            wake: Arc::clone(&wake),
            room: Arc::new(Notify::new()),
            last_progress: now,
            was_up: false,
            outcome,
            probes: Vec::new(),
        };
        self.links.insert(self.last_link, link);
        (self.last_link, wake)
    }

    /// The stream is closed.
    pub fn remove(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.receive_eof();
        }
        self.dispatch(id);
        if let Some(link) = self.links.remove(&id) {
            self.ended = self.ended.plus(&link.session.counters);
        }
        self.changed.notify_waiters();
    }

    /// Bytes have arrived: takes the frames in them, as far as they may be judged now.
    pub fn receive(&mut self, id: LinkId, decoder: &mut Decoder, now: Instant) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.session.receive_bytes(now);
        for probe in link.probes.drain(..) {
            // A newcomer that went away does not listen any more.
            let _ = probe.send(true);
        }
        self.take_frames(id, decoder, now);
    }

    /// Takes frames until more bytes are needed, or a decision.
    pub fn take_frames(&mut self, id: LinkId, decoder: &mut Decoder, now: Instant) {
        while let Some(link) = self.links.get_mut(&id) {
            let session = &mut link.session;
            if session.is_undecided() {
                break;
            }
            if !session.is_open() {
                decoder.discard();
                break;
            }
            match decoder.next_frame(session.rules()).transpose() {
                None => break,
                Some(frame) => session.receive(frame, &self.registry, now),
            }
            self.dispatch(id);
        }
        self.dispatch(id);
        if let Some(link) = self.links.get(&id) {
            link.wake.notify_one();
        }
    }

    pub fn receive_eof(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.receive_eof();
            link.wake.notify_one();
        }
        self.dispatch(id);
    }

    /// What the connection sends now, and when to ask again. `None`: it is over.
    pub fn transmit(&mut self, id: LinkId, batch: &mut Batch, now: Instant) -> Option<Option<Instant>> {
        let link = self.links.get_mut(&id)?;
        link.session.handle_time(now);
        link.session.transmit(batch, now);
        if link.session.has_room() {
            link.room.notify_waiters();
        }
        let state = (!link.session.is_closed()).then(|| link.session.next_deadline());
        self.dispatch(id);
        state
    }

    /// Does what is due, and says when to ask again. `None`: the connection is over.
    pub fn deadline(&mut self, id: LinkId, now: Instant) -> Option<Option<Instant>> {
        let link = self.links.get_mut(&id)?;
        link.session.handle_time(now);
        let state = (!link.session.is_closed()).then(|| link.session.next_deadline());
        self.dispatch(id);
        state
    }

    /// The stream took bytes of events or requests. (A peer that pings and asks, and grants nothing, takes nothing.)
    pub fn progress(&mut self, id: LinkId, now: Instant) {
        if let Some(link) = self.links.get_mut(&id) {
            link.last_progress = now;
        }
    }

    /// True: our goodbye has been given to the stream, and nothing follows it.
    pub fn is_closing(&self, id: LinkId) -> bool {
        self.links.get(&id).is_some_and(|link| link.session.is_closing())
    }

    pub fn is_closed(&self, id: LinkId) -> bool {
        self.links.get(&id).is_none_or(|link| link.session.is_closed())
    }

    pub fn close(&mut self, id: LinkId, fault: Fault, now: Instant) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.close(fault, now);
            link.wake.notify_one();
        }
        self.dispatch(id);
    }

    /// Ends all connections when their queues are empty, for at most `close_timeout`, and everything that waits.
    pub fn stop(&mut self, now: Instant) {
        self.stopped = true;
        let ids: Vec<LinkId> = self.links.keys().copied().collect();
        for id in ids {
            if let Some(link) = self.links.get_mut(&id) {
                link.session.finish(GoodbyeCode::Shutdown.into(), now);
                link.wake.notify_one();
            }
            self.dispatch(id);
        }
        for inbox in &self.inboxes {
            inbox.close();
        }
        for inbox in self.handlers.values() {
            inbox.close();
        }
        self.changed.notify_waiters();
    }

    pub fn is_idle(&self) -> bool {
        self.links.is_empty()
    }

    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    /// The accepted connection to this endpoint, if it is up.
    pub fn up_link(&self, name: &str) -> Option<(LinkId, &Link)> {
        let id = *self.held.get(name)?;
        let link = self.links.get(&id)?;
        link.session.is_up().then_some((id, link))
    }

    /// Names of the endpoints that connections are up to.
    pub fn peers(&self) -> Vec<String> {
        let mut names: Vec<String> =
            self.held.keys().filter(|name| self.up_link(name).is_some()).map(|name| name.to_string()).collect();
        names.sort();
        names
    }

    pub fn counters(&self) -> Counters {
        self.links.values().fold(self.ended, |sum, link| sum.plus(&link.session.counters))
    }

    pub fn waits_for_credit(&self) -> bool {
        self.links.values().any(|link| link.session.waits_for_credit())
    }

    pub fn watch(&self) -> broadcast::Receiver<Notice> {
        self.notices.subscribe()
    }

    fn tell(&self, notice: Notice) {
        // Nobody may be watching.
        let _ = self.notices.send(notice);
    }

    /// Passes on what a session has found out.
    fn dispatch(&mut self, id: LinkId) {
        while let Some(link) = self.links.get_mut(&id) {
            let Some(happening) = link.session.next_happening() else {
                return;
            };
            let name = link.session.peer_name();
            let peer = || name.to_string();
            match happening {
                Happening::Introduced => {}
                Happening::Up => {
                    link.was_up = true;
                    link.wake.notify_one();
                    if let Some(outcome) = link.outcome.take() {
                        // The one who connected may have given up.
                        let _ = outcome.send(Ok(()));
                    }
                    self.tell(Notice::Up { peer: peer() });
                    self.changed.notify_waiters();
                }
                Happening::Event { type_id, frame, lease } => self.route_event(id, name, type_id, frame, lease),
                Happening::Request { number, type_id, frame, lease } => {
                    self.route_request(id, name, number, type_id, frame, lease);
                }
                Happening::Answered { ask, answer } => self.answered(id, &name, ask, answer),
                Happening::Subscribed(types) => {
                    types.iter().for_each(|&type_id| self.tell(Notice::PeerSubscribed { peer: peer(), type_id }));
                    self.changed.notify_waiters();
                }
                Happening::Unsubscribed(types) => {
                    types.iter().for_each(|&type_id| self.tell(Notice::PeerUnsubscribed { peer: peer(), type_id }));
                    self.changed.notify_waiters();
                }
                Happening::Acknowledged => self.changed.notify_waiters(),
                Happening::Disabled { type_id, reason } => {
                    self.tell(Notice::Disabled { peer: peer(), type_id, reason });
                }
                Happening::Ended(ending) => self.link_ended(id, &name, ending),
            }
        }
    }

    fn link_ended(&mut self, id: LinkId, name: &Arc<str>, ending: Ending) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if self.held.get(name) == Some(&id) {
            self.held.remove(name);
        }
        for probe in link.probes.drain(..) {
            let _ = probe.send(false);
        }
        if let Some(outcome) = link.outcome.take() {
            let _ = outcome.send(Err(ending.clone()));
        }
        link.room.notify_waiters();
        link.wake.notify_one();
        let peer = name.to_string();
        let notice = if link.was_up { Notice::Down { peer, ending } } else { Notice::Refused { peer, ending } };
        for ask in link.session.take_open() {
            self.lost(id, name, ask);
        }
        self.tell(notice);
        self.changed.notify_waiters();
    }
}
