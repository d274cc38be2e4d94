//! Events for a user.

use std::sync::Arc;

use super::Shared;
use crate::content::Event;
use crate::error::SendError;
use crate::hub::{EventInbox, LinkId};

/// Events of some types, from all peers, in the order of their arrival. Dropping it unsubscribes.
///
/// What a subscription does not fetch keeps its sender's credit: a slow subscriber slows its publishers down, and loses
/// nothing.
pub struct Subscription {
    shared: Arc<Shared>,
    inbox: Arc<EventInbox>,
}

impl Subscription {
    pub(super) fn new(shared: Arc<Shared>) -> Subscription {
        let inbox = Arc::new(EventInbox::default());
        shared.hub().add_inbox(&inbox);
        Subscription { shared, inbox }
    }

    pub(super) fn to_all(shared: Arc<Shared>) -> Subscription {
        let subscription = Subscription::new(shared);
        subscription.shared.hub().subscribe_all(&subscription.inbox);
        subscription
    }

    /// The next event; `None` when the endpoint has stopped. Cancel safe.
    pub async fn recv(&self) -> Option<Event> {
        // A loop over events that are here already must let other tasks run.
        tokio::task::coop::consume_budget().await;
        self.inbox.pop().await.map(|(event, _lease)| event)
    }

    /// An event that is here already.
    pub fn try_recv(&self) -> Option<Event> {
        self.inbox.try_pop().map(|(event, _lease)| event)
    }

    /// Subscribes to more types. Takes effect here at once; `wait` for the result waits until the peers have applied it.
    pub fn add(&self, types: &[u64]) -> Result<Acknowledgement, SendError> {
        self.shared.hub().subscribe(&self.inbox, types)?;
        Ok(self.acknowledged())
    }

    /// Unsubscribes from types. Events of theirs that are here already are dropped; `wait` for the result waits until the
    /// peers have applied it.
    pub fn remove(&self, types: &[u64]) -> Acknowledgement {
        self.shared.hub().unsubscribe(&self.inbox, types);
        drop(self.inbox.take_if(|(event, _)| types.contains(&event.type_id)));
        self.acknowledged()
    }

    /// What all connected peers have to apply by now.
    pub fn acknowledged(&self) -> Acknowledgement {
        Acknowledgement::now(&self.shared)
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.hub().remove_inbox(&self.inbox);
    }
}

/// Says when all peers have applied a change of subscriptions: from then on every event they send obeys it.
#[must_use = "dropping it is fine, but says nothing about what peers have applied"]
pub struct Acknowledgement {
    shared: Arc<Shared>,
    missing: Vec<(LinkId, u64)>,
}

impl Acknowledgement {
    pub(super) fn now(shared: &Arc<Shared>) -> Acknowledgement {
        let missing = shared.hub().unacknowledged();
        Acknowledgement { shared: Arc::clone(shared), missing }
    }

    /// Returns at once where nobody is connected; a peer that goes away counts as done.
    pub async fn wait(mut self) {
        let Acknowledgement { shared, missing } = &mut self;
        shared
            .until(|hub| {
                missing.retain(|&(id, sequence)| !hub.has_acknowledged(id, sequence));
                missing.is_empty().then_some(())
            })
            .await;
    }
}
