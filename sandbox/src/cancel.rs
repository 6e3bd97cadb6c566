//! A request to end running sandboxes, made from another thread or a signal handler.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// Ends every sandbox that was started with it, and those that will be. Copies share the state; it cannot be taken back.
#[derive(Debug, Clone)]
pub struct CancelToken(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    cancelled: AtomicBool,
    /// Readable once cancelled; never read, so that every waiter wakes up.
    wake: OwnedFd,
}

impl CancelToken {
    /// Creates a token that is not cancelled.
    ///
    /// # Errors
    ///
    /// The process has no file descriptors left.
    pub fn new() -> std::io::Result<Self> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Arc::new(Inner {
            cancelled: AtomicBool::new(false),
            wake,
        })))
    }

    /// Cancels. It makes one system call and takes no lock, so a signal handler may call it, more than once.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::SeqCst);
        // Fails only when the counter is full, and then the descriptor is readable.
        let _ = rustix::io::write(&self.0.wake, &1u64.to_ne_bytes());
    }

    /// Tells whether it was cancelled.
    pub fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::SeqCst)
    }

    /// Returns the descriptor that becomes readable when it is cancelled.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.0.wake.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_are_cancelled_together() {
        let token = CancelToken::new().unwrap();
        let copy = token.clone();
        assert!(!copy.is_cancelled());
        token.cancel();
        token.cancel();
        assert!(copy.is_cancelled());
    }
}
