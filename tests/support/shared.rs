//! One broker for all tests of a binary: the tests have topics of their own and so show that neighbours do not disturb each
//! other, and the start is paid once.
//!
//! It lives as long as a test holds it. What it does not do: nobody stops or restarts it; a test that does has its own.

use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::{Broker, BrokerOptions, Scratch};

/// The broker that the tests share, and the directory that it writes into.
pub(crate) struct SharedBroker {
    broker: Broker,
    // Dropped last: the broker still writes into it.
    _scratch: Scratch,
}

impl SharedBroker {
    /// The broker of the tests that run now, or a new one, in a directory whose name begins with `name`.
    pub(crate) fn running(name: &str) -> Arc<SharedBroker> {
        static SHARED: Mutex<Weak<SharedBroker>> = Mutex::new(Weak::new());
        // A test that failed while it started a broker left none behind.
        let mut shared = SHARED.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shared) = shared.upgrade() {
            return shared;
        }
        let scratch = Scratch::new(name);
        let broker = BrokerOptions::new(&scratch.path().join("data")).start().unwrap_or_else(|ended| panic!("{ended}"));
        let started = Arc::new(SharedBroker { broker, _scratch: scratch });
        *shared = Arc::downgrade(&started);
        started
    }
}

impl Deref for SharedBroker {
    type Target = Broker;

    fn deref(&self) -> &Broker {
        &self.broker
    }
}
