//! What waits for a user. Not bounded here: credit bounds what peers may send.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

pub(crate) struct Inbox<T> {
    state: Mutex<State<T>>,
    arrived: Notify,
}

struct State<T> {
    items: VecDeque<T>,
    closed: bool,
}

impl<T> Default for Inbox<T> {
    fn default() -> Self {
        let state = State { items: VecDeque::new(), closed: false };
        Inbox { state: Mutex::new(state), arrived: Notify::new() }
    }
}

impl<T> Inbox<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn push(&self, item: T) {
        self.state().items.push_back(item);
        self.arrived.notify_one();
    }

    pub fn try_pop(&self) -> Option<T> {
        self.state().items.pop_front()
    }

    /// `None`: closed and empty. Several may wait; each item goes to one of them.
    pub async fn pop(&self) -> Option<T> {
        loop {
            let arrived = self.arrived.notified();
            {
                let mut state = self.state();
                if let Some(item) = state.items.pop_front() {
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            arrived.await;
        }
    }

    pub fn close(&self) {
        self.state().closed = true;
        // Those who wait now, and one who is about to.
        self.arrived.notify_waiters();
        self.arrived.notify_one();
    }

    /// Takes out what does not fit; the caller drops it when it holds no lock.
    pub fn take_if(&self, unwanted: impl Fn(&T) -> bool) -> Vec<T> {
        let mut state = self.state();
        let (out, kept) = state.items.drain(..).partition(|item| unwanted(item));
        state.items = kept;
        Vec::from(out as VecDeque<T>)
    }
}
