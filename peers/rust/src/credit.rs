//! Credit: how much a sender may send, and how a receiver gives it back. docs/wire.md, section 8.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use tokio::sync::Notify;

use crate::wire::limits::{MAX_CREDIT, UNLIMITED};

/// One side's balance of one window.
#[derive(Debug)]
pub(crate) struct Balance {
    window: u64,
    /// Below zero by one frame at most. Wider than the numbers on the wire, so that sums cannot overflow.
    left: i128,
}

impl Balance {
    pub fn new(window: u64) -> Self {
        Balance { window, left: i128::from(window) }
    }

    pub fn is_unlimited(&self) -> bool {
        self.window == UNLIMITED
    }

    pub fn is_open(&self) -> bool {
        self.is_unlimited() || self.left > 0
    }

    pub fn charge(&mut self, bytes: u64) {
        if !self.is_unlimited() {
            self.left -= i128::from(bytes);
        }
    }

    /// False: the balance would exceed what a balance may be.
    #[must_use]
    pub fn add(&mut self, bytes: u64) -> bool {
        if self.is_unlimited() {
            return true;
        }
        self.left += i128::from(bytes);
        self.left <= i128::from(MAX_CREDIT)
    }
}

/// Bytes whose events or requests have been taken, waiting to be given back.
#[derive(Debug)]
pub(crate) struct Returned {
    window: u64,
    bytes: AtomicU64,
    wake: Arc<Notify>,
}

impl Returned {
    pub fn new(window: u64, wake: Arc<Notify>) -> Arc<Self> {
        Arc::new(Returned { window, bytes: AtomicU64::new(0), wake })
    }

    pub fn give_back(&self, bytes: u64) {
        if self.window == UNLIMITED {
            return;
        }
        let before = self.bytes.fetch_add(bytes, Ordering::Relaxed);
        if !self.due(before) && self.due(before + bytes) {
            self.wake.notify_one();
        }
    }

    /// Half of the window has come back; of a window of 0, anything.
    fn due(&self, bytes: u64) -> bool {
        bytes > 0 && bytes >= self.window.div_ceil(2)
    }

    pub fn is_due(&self) -> bool {
        self.due(self.bytes.load(Ordering::Relaxed))
    }

    pub fn is_any(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) > 0
    }

    pub fn take(&self) -> u64 {
        self.bytes.swap(0, Ordering::Relaxed)
    }
}

/// Held by everything that waits for a user; gives the credit back when the last holder drops it.
#[derive(Debug)]
pub(crate) struct Lease {
    bytes: u64,
    returned: Arc<Returned>,
}

impl Lease {
    pub fn new(bytes: u64, returned: &Arc<Returned>) -> Self {
        Lease { bytes, returned: Arc::clone(returned) }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.returned.give_back(self.bytes);
    }
}
