//! Requests, as requester and as responder.

use std::sync::Arc;
use std::time::Duration;

use capnp::message::TypedReader;

use super::{Acknowledgement, Shared};
use crate::content::{Content, Event, Reply};
use crate::error::{FailedCode, Failure, ReadError, RequestError, SendError};
use crate::hub::{Arrived, Asked, Inbox, LinkId};
use crate::types::EventStruct;
use crate::wire::Frame;

/// Gives a request up when its future is dropped.
struct GiveUp<'a> {
    shared: &'a Shared,
    ask: u64,
}

impl Drop for GiveUp<'_> {
    fn drop(&mut self) {
        self.shared.hub().forget(self.ask);
    }
}

pub(super) async fn ask<R: EventStruct>(
    shared: &Shared,
    content: &Content,
    timeout: Duration,
    target: Option<&str>,
) -> Result<Reply<R>, RequestError> {
    let Asked { ask, reply, full } = shared.hub().ask(content, R::TYPE_ID, target)?;
    let _give_up = GiveUp { shared, ask };
    let answer = async {
        for id in full {
            shared.room(id, |hub| hub.ask_again(ask, id, content)).await;
        }
        // The sender stands in the hub until it has answered.
        reply.await.unwrap_or(Err(SendError::Stopped.into()))
    };
    match tokio::time::timeout(timeout, answer).await {
        Ok(answer) => Ok(Reply::new(answer?)),
        Err(_) => Err(RequestError::TimedOut(timeout)),
    }
}

/// The requests of some types that peers send. Dropping it fails those that wait in it.
pub struct Requests {
    shared: Arc<Shared>,
    inbox: Arc<Inbox<Arrived>>,
    types: Vec<u64>,
}

impl Requests {
    pub(super) fn new(shared: Arc<Shared>, types: &[u64]) -> Result<Requests, SendError> {
        let mut requests = Requests { shared, inbox: Arc::new(Inbox::default()), types: Vec::new() };
        for &type_id in types {
            requests.shared.hub().add_handler(&requests.inbox, type_id)?;
            requests.types.push(type_id);
        }
        Ok(requests)
    }

    /// The next request; `None` when the endpoint has stopped. Cancel safe. Requests may be answered in any order, from any task.
    pub async fn recv(&self) -> Option<Request> {
        self.inbox.pop().await.map(|arrived| Request::new(&self.shared, arrived))
    }

    /// A request that is here already.
    pub fn try_recv(&self) -> Option<Request> {
        self.inbox.try_pop().map(|arrived| Request::new(&self.shared, arrived))
    }

    /// Waits until all connected peers know that requests are taken here.
    pub async fn acknowledged(&self) {
        Acknowledgement::now(&self.shared).wait().await;
    }
}

impl Drop for Requests {
    fn drop(&mut self) {
        for &type_id in &self.types {
            self.shared.hub().remove_handler(type_id);
        }
        while let Some(arrived) = self.inbox.try_pop() {
            drop(Request::new(&self.shared, arrived));
        }
    }
}

/// A peer's request. Answer it with [`respond`](Request::respond) or [`fail`](Request::fail). One that is dropped, as by a panic
/// of its handler, is answered `failed`: then nobody waits for nothing.
pub struct Request {
    shared: Arc<Shared>,
    link: LinkId,
    number: u64,
    event: Event,
    is_done: bool,
}

impl Request {
    /// Its credit goes back here: it is being handled.
    fn new(shared: &Arc<Shared>, arrived: Arrived) -> Request {
        let Arrived { link, number, event, lease } = arrived;
        drop(lease);
        Request { shared: Arc::clone(shared), link, number, event, is_done: false }
    }

    pub fn type_id(&self) -> u64 {
        self.event.type_id()
    }

    /// The endpoint that asks.
    pub fn origin(&self) -> &str {
        self.event.origin()
    }

    /// Its number on its connection.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Opens the message; see [`Event::read`].
    pub fn read<T: EventStruct>(&self) -> Result<TypedReader<Frame, T>, ReadError> {
        self.event.read()
    }

    pub fn event(&self) -> &Event {
        &self.event
    }

    /// Answers. If the requester has gone, that is nobody's error.
    ///
    /// # Errors
    /// `UnknownType`: the response's row is not known to this endpoint; the request is then answered `failed`.
    pub fn respond(mut self, content: &Content) -> Result<(), SendError> {
        let result = self.shared.hub().respond(self.link, self.number, content);
        match &result {
            Ok(()) => self.is_done = true,
            Err(error) => self.failed(FailedCode::HandlerRaised, "SendError", &error.to_string()),
        }
        result
    }

    /// Answers that it failed: the kind of error, and what to tell people.
    pub fn fail(mut self, type_name: &str, text: &str) {
        self.failed(FailedCode::HandlerRaised, type_name, text);
    }

    /// Answers that its fields could not be read.
    pub fn fail_unreadable(mut self, error: &capnp::Error) {
        self.failed(FailedCode::Unreadable, "capnp::Error", &error.to_string());
    }

    /// Never answers; the requester runs into its timeout.
    pub fn ignore(mut self) {
        self.is_done = true;
        self.shared.hub().drop_request(self.link);
    }

    fn failed(&mut self, code: FailedCode, type_name: &str, text: &str) {
        self.is_done = true;
        let failure = Failure { code, type_name: type_name.to_owned(), text: text.to_owned() };
        self.shared.hub().fail(self.link, self.number, failure);
    }
}

impl Drop for Request {
    fn drop(&mut self) {
        if !self.is_done {
            self.failed(FailedCode::HandlerRaised, "Dropped", "the handler ended without an answer");
        }
    }
}
