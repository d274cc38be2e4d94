//! Subscriptions of this endpoint's users, and events both ways.

use std::sync::Arc;

use tokio::sync::Notify;

use super::{Hub, Inbox, LinkId};
use crate::content::{Content, Event};
use crate::credit::Lease;
use crate::error::SendError;
use crate::session::Refusal;
use crate::wire::Frame;

/// An event keeps its lease until every subscription has taken it.
pub(crate) type EventInbox = Inbox<(Event, Arc<Lease>)>;

impl Hub {
    /// Gives a type its wire id and tells the peers, unless that was done.
    pub fn declare(&mut self, type_id: u64) -> Result<(), SendError> {
        let before = self.registry.declared_count();
        self.registry.declare(type_id)?;
        if self.registry.declared_count() > before {
            for link in self.links.values_mut() {
                link.session.declare(&self.registry);
                link.wake.notify_one();
            }
        }
        Ok(())
    }

    pub fn add_inbox(&mut self, inbox: &Arc<EventInbox>) {
        if self.stopped {
            inbox.close();
        }
        self.inboxes.push(Arc::clone(inbox));
    }

    /// The types that this endpoint subscribes to, and whether to all.
    pub fn wanted(&self) -> (Vec<u64>, bool) {
        let more = self.handlers.keys().filter(|id| !self.routes.contains_key(id));
        let mut types: Vec<u64> = self.routes.keys().chain(more).copied().collect();
        types.sort_unstable();
        (types, !self.routes_all.is_empty())
    }

    pub fn wants(&self, type_id: u64) -> bool {
        self.routes.contains_key(&type_id) || self.handlers.contains_key(&type_id)
    }

    /// Routes events of these types into the inbox.
    pub fn subscribe(&mut self, inbox: &Arc<EventInbox>, types: &[u64]) -> Result<(), SendError> {
        types.iter().try_for_each(|&type_id| self.declare(type_id))?;
        let mut added = Vec::new();
        for &type_id in types {
            if !self.wants(type_id) {
                added.push(type_id);
            }
            let route = self.routes.entry(type_id).or_default();
            if !route.iter().any(|other| Arc::ptr_eq(other, inbox)) {
                route.push(Arc::clone(inbox));
            }
        }
        self.announce(added, Vec::new());
        Ok(())
    }

    pub fn subscribe_all(&mut self, inbox: &Arc<EventInbox>) {
        self.routes_all.push(Arc::clone(inbox));
        if self.routes_all.len() == 1 {
            self.announce_anyway(Vec::new(), Vec::new());
        }
    }

    pub fn unsubscribe(&mut self, inbox: &Arc<EventInbox>, types: &[u64]) {
        let mut removed = Vec::new();
        for &type_id in types {
            let Some(route) = self.routes.get_mut(&type_id) else {
                continue;
            };
            route.retain(|other| !Arc::ptr_eq(other, inbox));
            if route.is_empty() {
                self.routes.remove(&type_id);
                if !self.handlers.contains_key(&type_id) {
                    removed.push(type_id);
                }
            }
        }
        self.announce(Vec::new(), removed);
    }

    pub fn remove_inbox(&mut self, inbox: &Arc<EventInbox>) {
        self.inboxes.retain(|other| !Arc::ptr_eq(other, inbox));
        let types: Vec<u64> = self.routes.keys().copied().collect();
        let all = self.routes_all.len();
        self.routes_all.retain(|other| !Arc::ptr_eq(other, inbox));
        if all > 0 && self.routes_all.is_empty() {
            self.announce_anyway(Vec::new(), Vec::new());
        }
        self.unsubscribe(inbox, &types);
    }

    pub(super) fn announce(&mut self, add: Vec<u64>, remove: Vec<u64>) {
        if !add.is_empty() || !remove.is_empty() {
            self.announce_anyway(add, remove);
        }
    }

    fn announce_anyway(&mut self, add: Vec<u64>, remove: Vec<u64>) {
        let all = !self.routes_all.is_empty();
        for link in self.links.values_mut() {
            if link.session.subscribe(add.clone(), remove.clone(), all).is_some() {
                link.wake.notify_one();
            }
        }
    }

    /// The peers that have not applied our subscriptions as they are now, and the sequence they have to reach.
    pub fn unacknowledged(&self) -> Vec<(LinkId, u64)> {
        (self.links.iter())
            .filter(|(_, link)| link.session.is_open() && link.session.is_accepted())
            .map(|(&id, link)| (id, link.session.acknowledged()))
            .filter(|(_, (reached, said))| reached < said)
            .map(|(id, (_, said))| (id, said))
            .collect()
    }

    pub fn has_acknowledged(&self, id: LinkId, sequence: u64) -> bool {
        self.link(id).is_none_or(|link| !link.session.is_open() || link.session.acknowledged().0 >= sequence)
    }

    pub(super) fn route_event(&mut self, id: LinkId, peer: Arc<str>, type_id: u64, frame: Frame, lease: Lease) {
        let routes = self.routes.get(&type_id).map_or(&[][..], Vec::as_slice);
        let more = self.routes_all.iter().filter(|inbox| !routes.iter().any(|other| Arc::ptr_eq(other, inbox)));
        let event = Event { type_id, peer, frame };
        let lease = Arc::new(lease);
        let mut wanted = false;
        for inbox in routes.iter().chain(more) {
            inbox.push((event.clone(), Arc::clone(&lease)));
            wanted = true;
        }
        if !wanted {
            if let Some(link) = self.links.get_mut(&id) {
                link.session.counters.skipped += 1;
            }
        }
    }

    /// Queues an event to every peer that wants it and has room. The number of those, and who has no room.
    pub fn broadcast(&mut self, content: &Content) -> Result<(usize, Vec<LinkId>), SendError> {
        if self.stopped {
            return Err(SendError::Stopped);
        }
        self.declare(content.type_id())?;
        let mut sent = 0;
        let mut full = Vec::new();
        let mut too_large = None;
        for (&id, link) in &mut self.links {
            match link.session.send_event(content, &self.registry) {
                Ok(()) => {
                    sent += 1;
                    link.wake.notify_one();
                }
                Err(Refusal::Unwanted) => {}
                Err(Refusal::TooLarge(limit)) => too_large = Some((limit, link.session.peer_name())),
                Err(Refusal::Full) => full.push(id),
            }
        }
        match too_large {
            // An error only if nobody could take it.
            Some((limit, peer)) if sent == 0 && full.is_empty() => Err(self.too_large(content, limit, &peer)),
            _ => Ok((sent, full)),
        }
    }

    pub(super) fn too_large(&self, content: &Content, limit: u32, peer: &str) -> SendError {
        SendError::FrameTooLarge {
            name: self.registry.row(content.type_id()).map_or_else(String::new, |row| row.name.clone()),
            size: content.frame_size(),
            limit,
            peer: peer.to_owned(),
        }
    }

    /// Tries once more at a peer that had no room. True: done, or nothing to do any more.
    pub fn send_event(&mut self, id: LinkId, content: &Content) -> bool {
        let Some(link) = self.links.get_mut(&id) else {
            return true;
        };
        let result = link.session.send_event(content, &self.registry);
        link.wake.notify_one();
        result != Err(Refusal::Full)
    }

    pub fn room_of(&self, id: LinkId) -> Option<Arc<Notify>> {
        self.link(id).map(|link| Arc::clone(&link.room))
    }

    pub fn has_subscriber(&self, type_id: u64) -> bool {
        self.links.values().any(|link| link.session.peer_wants(type_id))
    }
}
