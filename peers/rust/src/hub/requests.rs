//! Requests both ways.

use std::sync::Arc;
use std::time::Instant;

use tokio::sync::oneshot;

use super::{Hub, Inbox, LinkId};
use crate::content::{Content, Event};
use crate::credit::Lease;
use crate::error::{Failure, Fault, GoodbyeCode, RequestError, SendError};
use crate::session::{Answer, Refusal};
use crate::wire::Frame;

/// A peer's request that waits for its handler. Taking it out gives its credit back.
pub(crate) struct Arrived {
    pub link: LinkId,
    pub number: u64,
    pub event: Event,
    pub lease: Lease,
}

/// A request of ours that has no answer yet.
pub(crate) struct Ask {
    wanted: u64,
    /// Where it went, under which number; 0: it still waits for room.
    waiting: Vec<(LinkId, u64)>,
    failure: Option<RequestError>,
    reply: oneshot::Sender<Result<Event, RequestError>>,
}

pub(crate) struct Asked {
    pub ask: u64,
    pub reply: oneshot::Receiver<Result<Event, RequestError>>,
    /// Peers that have no room now.
    pub full: Vec<LinkId>,
}

impl Hub {
    /// Sends a request to every peer that takes it, or to one.
    pub fn ask(&mut self, content: &Content, wanted: u64, target: Option<&str>) -> Result<Asked, RequestError> {
        if self.stopped {
            return Err(SendError::Stopped.into());
        }
        // The response's type is declared for the responder's verdict.
        self.declare(wanted)?;
        self.declare(content.type_id())?;
        self.last_ask += 1;
        let ask = self.last_ask;
        let mut waiting = Vec::new();
        let mut full = Vec::new();
        let mut too_large = None;
        for (&id, link) in &mut self.links {
            if target.is_some_and(|target| *link.session.peer_name() != *target) {
                continue;
            }
            match link.session.send_request(content, ask, &self.registry) {
                Ok(number) => {
                    waiting.push((id, number));
                    link.wake.notify_one();
                }
                Err(Refusal::Unwanted) => {}
                Err(Refusal::TooLarge(limit)) => too_large = Some((limit, link.session.peer_name())),
                Err(Refusal::Full) => {
                    waiting.push((id, 0));
                    full.push(id);
                }
            }
        }
        if waiting.is_empty() {
            return Err(match too_large {
                Some((limit, peer)) => self.too_large(content, limit, &peer).into(),
                None => RequestError::NoResponder { type_id: content.type_id() },
            });
        }
        let (tell, reply) = oneshot::channel();
        self.asks.insert(ask, Ask { wanted, waiting, failure: None, reply: tell });
        Ok(Asked { ask, reply, full })
    }

    /// Tries once more at a peer that had no room. True: done, or nothing to do any more.
    pub fn ask_again(&mut self, ask: u64, id: LinkId, content: &Content) -> bool {
        let Some(entry) = self.asks.get_mut(&ask) else {
            return true;
        };
        let result = match self.links.get_mut(&id) {
            Some(link) => {
                link.wake.notify_one();
                link.session.send_request(content, ask, &self.registry)
            }
            None => Err(Refusal::Unwanted),
        };
        match result {
            Ok(number) => {
                entry.waiting.iter_mut().filter(|(link, _)| *link == id).for_each(|entry| entry.1 = number);
                true
            }
            Err(Refusal::Full) => false,
            Err(_) => {
                let peer = self.links.get(&id).map_or_else(|| "".into(), |link| link.session.peer_name());
                self.lost(id, &peer, ask);
                true
            }
        }
    }

    /// The requester gives up.
    pub fn forget(&mut self, ask: u64) {
        if let Some(entry) = self.asks.remove(&ask) {
            self.forget_numbers(&entry.waiting);
        }
    }

    fn forget_numbers(&mut self, waiting: &[(LinkId, u64)]) {
        for (id, number) in waiting {
            if let Some(link) = self.links.get_mut(id) {
                link.session.forget(*number);
            }
        }
    }

    pub(super) fn answered(&mut self, id: LinkId, peer: &Arc<str>, ask: u64, answer: Answer) {
        let result = match answer {
            Answer::Failed(failure) => {
                let error = RequestError::Failed { peer: peer.to_string(), failure };
                return self.one_failed(id, ask, error);
            }
            Answer::Response { type_id, frame } => self.asks.get(&ask).map(|entry| {
                if type_id == entry.wanted {
                    Ok(Event { type_id, peer: Arc::clone(peer), frame })
                } else {
                    Err(RequestError::UnexpectedType { peer: peer.to_string(), got: type_id, wanted: entry.wanted })
                }
            }),
        };
        let (Some(result), Some(entry)) = (result, self.asks.remove(&ask)) else {
            return;
        };
        // The first response wins; what other peers say is late from now on.
        self.forget_numbers(&entry.waiting);
        // The requester may have given up in this moment.
        let _ = entry.reply.send(result);
    }

    /// The connection that the request went to is over.
    pub(super) fn lost(&mut self, id: LinkId, peer: &Arc<str>, ask: u64) {
        self.one_failed(id, ask, RequestError::Lost { peer: peer.to_string() });
    }

    fn one_failed(&mut self, id: LinkId, ask: u64, error: RequestError) {
        let Some(entry) = self.asks.get_mut(&ask) else {
            return;
        };
        entry.waiting.retain(|(link, _)| *link != id);
        // A failure that a responder stated says more than a connection that ended.
        if !matches!(entry.failure, Some(RequestError::Failed { .. })) {
            entry.failure = Some(error);
        }
        if entry.waiting.is_empty() {
            if let Some(entry) = self.asks.remove(&ask) {
                let error = entry.failure.unwrap_or(RequestError::Lost { peer: String::new() });
                let _ = entry.reply.send(Err(error));
            }
        }
    }

    pub fn add_handler(&mut self, inbox: &Arc<Inbox<Arrived>>, type_id: u64) -> Result<(), SendError> {
        self.declare(type_id)?;
        if self.handlers.contains_key(&type_id) {
            return Err(SendError::HandlerExists { type_id });
        }
        let is_new = !self.wants(type_id);
        self.handlers.insert(type_id, Arc::clone(inbox));
        if is_new {
            self.announce(vec![type_id], Vec::new());
        }
        if self.stopped {
            inbox.close();
        }
        Ok(())
    }

    pub fn remove_handler(&mut self, type_id: u64) {
        if self.handlers.remove(&type_id).is_some() && !self.wants(type_id) {
            self.announce(Vec::new(), vec![type_id]);
        }
    }

    pub(super) fn route_request(
        &mut self,
        link: LinkId,
        peer: Arc<str>,
        number: u64,
        type_id: u64,
        frame: Frame,
        lease: Lease,
    ) {
        match self.handlers.get(&type_id) {
            Some(inbox) => {
                let event = Event { type_id, peer, frame };
                inbox.push(Arrived { link, number, event, lease });
            }
            None => {
                let name = self.registry.row(type_id).map_or("", |row| &row.name);
                if let Some(link) = self.links.get_mut(&link) {
                    link.session.no_handler(number, name, lease);
                }
            }
        }
    }

    pub fn respond(&mut self, id: LinkId, number: u64, content: &Content) -> Result<(), SendError> {
        self.declare(content.type_id())?;
        if let Some(link) = self.links.get_mut(&id) {
            link.session.respond(number, content, &self.registry);
            link.wake.notify_one();
        }
        Ok(())
    }

    pub fn fail(&mut self, id: LinkId, number: u64, failure: Failure) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.fail(number, failure);
            link.wake.notify_one();
        }
    }

    /// A request that will never be answered.
    pub fn drop_request(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.session.drop_request();
        }
    }

    /// Disconnects a peer that keeps others waiting and takes nothing.
    pub fn too_slow(&mut self, id: LinkId, now: Instant) {
        let Some(link) = self.links.get(&id) else {
            return;
        };
        let text = format!("took nothing of a full queue of {} bytes", link.session.waiting_bytes());
        self.close(id, Fault::new(GoodbyeCode::TooSlow, text), now);
    }
}
