//! The public API, on tokio.

mod build;
mod connect;
mod drive;
mod handling;
mod request;
mod serve;
mod subscription;

use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{broadcast, Notify};
use tokio::task::coop::consume_budget;

pub use build::Builder;
pub use handling::Handling;
pub use request::{Request, Requests};
pub use serve::Serving;
pub use subscription::{Acknowledgement, Subscription};

use crate::content::{Content, Event, Reply};
use crate::error::{Fault, GoodbyeCode, RequestError, SendError};
use crate::hub::{Hub, Link, LinkId, Notice};
use crate::session::Counters;
use crate::types::EventStruct;

/// One participant of the bus. Cloning gives another handle to it; when the last handle is dropped, the endpoint says
/// goodbye to its peers without waiting for them. [`Endpoint::stop`] waits.
#[derive(Clone)]
pub struct Endpoint {
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.hub().stop(now());
        self.shared.stop.notify_waiters();
    }
}

/// What tasks, subscriptions and requests hold of an endpoint.
pub(crate) struct Shared {
    hub: Mutex<Hub>,
    /// Subscriptions, acknowledgements or connections have changed.
    changed: Arc<Notify>,
    stop: Notify,
}

impl Shared {
    pub fn hub(&self) -> MutexGuard<'_, Hub> {
        self.hub.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the condition holds. It is looked at again whenever something has changed.
    async fn until<T>(&self, mut condition: impl FnMut(&mut Hub) -> Option<T>) -> T {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // From here on a change is noticed, also one that comes before the await.
            changed.as_mut().enable();
            if let Some(value) = condition(&mut self.hub()) {
                return value;
            }
            changed.await;
        }
    }

    /// Tries again whenever the connection has room, until the attempt succeeds. A peer that takes nothing for too long
    /// meanwhile is disconnected.
    async fn room(&self, id: LinkId, mut attempt: impl FnMut(&mut Hub) -> bool) {
        let room = self.hub().room_of(id);
        let Some(room) = room else {
            // Gone: the attempt finds that out, and does what is to be done.
            attempt(&mut self.hub());
            return;
        };
        let since = now();
        loop {
            let notified = room.notified();
            tokio::pin!(notified);
            notified.as_mut().enable();
            let deadline = {
                let mut hub = self.hub();
                if attempt(&mut hub) {
                    return;
                }
                let too_slow = hub.local.limits.too_slow;
                let taken = |link: &Link| link.last_progress.max(link.session.last_credit()).max(since);
                let progress = hub.link(id).map_or(since, taken);
                if now() >= progress + too_slow {
                    hub.too_slow(id, now());
                    continue;
                }
                progress + too_slow
            };
            tokio::select! {
                () = notified => {}
                () = tokio::time::sleep_until(deadline.into()) => {}
            }
        }
    }
}

/// The clock that tokio's tests can stop.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

impl Endpoint {
    /// An endpoint of this name: 1 to 100 of `A-Z a-z 0-9 . _ -`, a letter or digit first.
    pub fn builder(name: impl Into<String>) -> Builder {
        Builder::new(name.into())
    }

    fn shared(&self) -> &Arc<Shared> {
        &self.handle.shared
    }

    fn hub(&self) -> MutexGuard<'_, Hub> {
        self.handle.shared.hub()
    }

    pub fn name(&self) -> String {
        self.hub().local.name.clone()
    }

    /// Names of the endpoints that connections are up to.
    pub fn peers(&self) -> Vec<String> {
        self.hub().peers()
    }

    /// Sums over all connections of this endpoint.
    pub fn counters(&self) -> Counters {
        self.hub().counters()
    }

    /// An event is queued to some peer and waits for that peer's credit.
    pub fn is_waiting_for_credit(&self) -> bool {
        self.hub().waits_for_credit()
    }

    /// What happens to peers from now on.
    pub fn notices(&self) -> Notices {
        Notices { receiver: self.hub().watch() }
    }

    /// Sends an event to every connected peer that subscribes to its type. The number of those.
    ///
    /// Returns when it is queued to all of them: waits, also for credit, while a peer's queue is full, and disconnects a
    /// peer (`tooSlow`) that takes nothing for [`Limits::too_slow`](crate::Limits) meanwhile. Nothing is dropped. It is not
    /// delivered to this endpoint's own subscriptions.
    ///
    /// # Errors
    /// `FrameTooLarge` if it exceeds what each peer that wants it accepts; `UnknownType` without a row.
    pub async fn broadcast(&self, content: &Content) -> Result<usize, SendError> {
        // Where there is room this would never wait, and a loop of broadcasts would keep every other task from running.
        consume_budget().await;
        let (mut sent, full) = self.hub().broadcast(content)?;
        for id in full {
            self.shared().room(id, |hub| hub.send_event(id, content)).await;
            sent += 1;
        }
        Ok(sent)
    }

    /// Declares a type to all peers, so that they can subscribe to it or judge it; what is sent or subscribed to is declared
    /// by itself.
    pub fn declare(&self, type_id: u64) -> Result<(), SendError> {
        self.hub().declare(type_id)
    }

    /// Waits until a connected peer subscribes to the type.
    pub async fn wait_for_subscriber(&self, type_id: u64) {
        self.shared().until(|hub| hub.has_subscriber(type_id).then_some(())).await;
    }

    /// A subscription to these types; see [`type_id`](crate::type_id).
    ///
    /// # Errors
    /// `UnknownType` if the row of one is not known to this endpoint.
    pub fn subscribe(&self, types: &[u64]) -> Result<Subscription, SendError> {
        let subscription = Subscription::new(Arc::clone(self.shared()));
        subscription.add(types).map(|_| subscription)
    }

    /// A subscription to every event of every type that this endpoint knows.
    pub fn subscribe_to_all(&self) -> Subscription {
        Subscription::to_all(Arc::clone(self.shared()))
    }

    /// The requests of these types. A type has one handler at most.
    pub fn requests(&self, types: &[u64]) -> Result<Requests, SendError> {
        Requests::new(Arc::clone(self.shared()), types)
    }

    /// Asks every connected peer that takes requests of this type; the first response wins.
    ///
    /// # Errors
    /// `NoResponder` at once if nobody takes it; `Failed` when every peer that it went to has failed or gone; `TimedOut`.
    /// Dropping the future gives the request up.
    pub async fn request<R: EventStruct>(
        &self,
        content: &Content,
        timeout: Duration,
    ) -> Result<Reply<R>, RequestError> {
        request::ask::<R>(self.shared(), content, timeout, None).await
    }

    /// Asks this peer alone.
    pub async fn request_to<R: EventStruct>(
        &self,
        peer: &str,
        content: &Content,
        timeout: Duration,
    ) -> Result<Reply<R>, RequestError> {
        request::ask::<R>(self.shared(), content, timeout, Some(peer)).await
    }

    /// Answers the requests of type `Q` with what the function returns, up to 100 at the same time. An error, or a panic, is
    /// answered `failed`. Ends when the returned guard is dropped.
    pub fn handle<Q, F, A, E>(&self, handler: F) -> Result<Handling, SendError>
    where
        Q: EventStruct,
        F: Fn(Event) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Content, E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let requests = self.requests(&[Q::TYPE_ID])?;
        Ok(Handling::start(requests, handler))
    }

    /// Ends the connection to this peer, with goodbye `shutdown`, when what is queued to it is sent.
    pub fn disconnect(&self, peer: &str) {
        let mut hub = self.hub();
        if let Some((id, _)) = hub.up_link(peer) {
            hub.close(id, Fault::new(GoodbyeCode::Shutdown, "disconnected"), now());
        }
    }

    /// Sends what is queued, says goodbye to all peers, and returns when all connections are closed: after twice
    /// [`Limits::close_timeout`](crate::Limits) at the latest. Subscriptions end when they are empty.
    pub async fn stop(&self) {
        self.hub().stop(now());
        self.shared().stop.notify_waiters();
        self.shared().until(|hub| hub.is_idle().then_some(())).await;
    }
}

/// A stream of [`Notice`]s.
pub struct Notices {
    receiver: broadcast::Receiver<Notice>,
}

impl Notices {
    /// The next one; `None` when the endpoint is gone.
    pub async fn recv(&mut self) -> Option<Notice> {
        match self.receiver.recv().await {
            Ok(notice) => Some(notice),
            Err(broadcast::error::RecvError::Lagged(count)) => Some(Notice::Missed(count)),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// One that is here already.
    pub fn try_recv(&mut self) -> Option<Notice> {
        match self.receiver.try_recv() {
            Ok(notice) => Some(notice),
            Err(broadcast::error::TryRecvError::Lagged(count)) => Some(Notice::Missed(count)),
            Err(_) => None,
        }
    }
}
