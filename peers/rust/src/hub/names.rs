//! Who may have a name, when two connections cross, when one replaces another. docs/wire.md, section 13.

use std::time::Instant;

use tokio::sync::oneshot;

use super::{Hub, LinkId};
use crate::error::{Fault, GoodbyeCode};

/// What is to be done with a connection whose peer has said hello.
pub(crate) enum Decision {
    /// Accepted, refused, or gone.
    Done,
    /// The name is held: wait whether its holder shows a sign of life (true), ends (false), or neither in time.
    Probe { held: LinkId, alive: oneshot::Receiver<bool> },
}

impl Hub {
    /// Decides about a connection that waits for it.
    pub fn decide(&mut self, id: LinkId, now: Instant) -> Decision {
        let own_name = self.local.name.clone();
        let Some(link) = self.links.get(&id).filter(|link| link.session.is_undecided()) else {
            return Decision::Done;
        };
        let Some(peer) = link.session.peer() else {
            return Decision::Done;
        };
        let (name, instance) = (peer.name.clone(), peer.instance);
        let we_opened = link.session.is_connector();
        // The connection that the lower name opened survives when two cross.
        let survives = |we_opened: bool| we_opened == (own_name.as_bytes() < name.as_bytes());

        if self.stopped {
            self.close(id, GoodbyeCode::Shutdown.into(), now);
            return Decision::Done;
        }
        if *name == *own_name {
            self.close(id, Fault::new(GoodbyeCode::NameInUse, format!("{own_name:?} is this endpoint's name")), now);
            return Decision::Done;
        }
        if !we_opened {
            let attempts: Vec<LinkId> = (self.links.iter())
                .filter(|(_, other)| {
                    let session = &other.session;
                    session.is_open() && !session.is_accepted() && session.expected() == Some(&*name)
                })
                .map(|(&other, _)| other)
                .collect();
            if !attempts.is_empty() && survives(true) {
                self.close(id, crossed(), now);
                return Decision::Done;
            }
            attempts.into_iter().for_each(|attempt| self.close(attempt, crossed(), now));
        }
        if let Some((held, other)) = self.held.get(&name).and_then(|held| Some((*held, self.links.get(held)?))) {
            let same_instance = other.session.peer().is_some_and(|peer| peer.instance == instance);
            if !same_instance {
                return self.probe(held);
            }
            if other.session.is_connector() == we_opened {
                let text = "a newer connection of the same endpoint took over";
                self.close(held, Fault::new(GoodbyeCode::Replaced, text), now);
            } else if survives(we_opened) {
                self.close(held, crossed(), now);
            } else {
                self.close(id, crossed(), now);
                return Decision::Done;
            }
        }
        self.accept(id);
        Decision::Done
    }

    fn probe(&mut self, held: LinkId) -> Decision {
        let (tell, alive) = oneshot::channel();
        if let Some(link) = self.links.get_mut(&held) {
            link.session.ping();
            link.probes.push(tell);
            link.wake.notify_one();
        }
        Decision::Probe { held, alive }
    }

    /// The probe is over. If the holder still holds the name, one of the two goes; then decide again.
    pub fn probed(&mut self, newcomer: LinkId, held: LinkId, lives: bool, now: Instant) {
        let Some(name) = self.links.get(&newcomer).map(|link| link.session.peer_name()) else {
            return;
        };
        if self.held.get(&name) != Some(&held) {
            return;
        }
        if lives {
            let text = format!("another living endpoint is named {name:?}");
            self.close(newcomer, Fault::new(GoodbyeCode::NameInUse, text), now);
        } else {
            let text = "another endpoint claimed the name, and this one gave no sign of life";
            self.close(held, Fault::new(GoodbyeCode::Replaced, text), now);
        }
    }

    fn accept(&mut self, id: LinkId) {
        let (types, all) = self.wanted();
        if let Some(link) = self.links.get_mut(&id) {
            link.session.accept(&self.registry, types, all);
            link.wake.notify_one();
            self.held.insert(link.session.peer_name(), id);
        }
    }

    /// A connection to this endpoint is up, or being made.
    pub fn is_reaching(&self, name: &str) -> bool {
        self.held.contains_key(name)
            || self.links.values().any(|link| link.session.is_open() && link.session.expected() == Some(name))
    }
}

fn crossed() -> Fault {
    Fault::new(GoodbyeCode::Duplicate, "two connections crossed; the other one survives")
}
