//! Functions that answer requests.

use std::future::Future;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::{Request, Requests};
use crate::content::{Content, Event};

/// Requests of one handler that run at the same time; the others wait, and their credit with them.
const CONCURRENT: usize = 100;

/// A handler at work; dropping it ends it. Requests that it has begun are still answered.
pub struct Handling {
    task: JoinHandle<()>,
}

impl Handling {
    pub(super) fn start<F, A, E>(requests: Requests, handler: F) -> Handling
    where
        F: Fn(Event) -> A + Send + Sync + 'static,
        A: Future<Output = Result<Content, E>> + Send + 'static,
        E: std::fmt::Display + Send + 'static,
    {
        let handler = Arc::new(handler);
        let places = Arc::new(Semaphore::new(CONCURRENT));
        let task = tokio::spawn(async move {
            while let Ok(place) = Arc::clone(&places).acquire_owned().await {
                let Some(request) = requests.recv().await else {
                    break;
                };
                let handler = Arc::clone(&handler);
                tokio::spawn(async move {
                    let _place = place;
                    // A panic in the handler drops the request, and that answers it.
                    let result = handler(request.event().clone()).await;
                    answer(request, result);
                });
            }
        });
        Handling { task }
    }
}

fn answer<E: std::fmt::Display>(request: Request, result: Result<Content, E>) {
    match result {
        // If the response's type is not known here, the requester is told so.
        Ok(content) => drop(request.respond(&content)),
        Err(error) => request.fail(std::any::type_name::<E>(), &error.to_string()),
    }
}

impl Drop for Handling {
    fn drop(&mut self) {
        self.task.abort();
    }
}
