//! Who leads which partition now, for all producers and consumers of a thread; asked again when somebody was sent away.
//!
//! One look at a time, at most ten a second: however many find out that a leader has moved, the brokers are asked once. A look
//! that fails is repeated until it succeeds. Whoever waits for news is called after each look.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use corelane::runtime::sync::Notify;
use corelane::runtime::{Class, Duration, sleep, spawn};

use super::plan::Plan;
use crate::client::{Bootstrap, ClientError};

/// Before each look, so that an election has a moment to end.
const PAUSE: Duration = Duration::from_millis(100);

/// See the head of this file.
pub(super) struct Topology {
    bootstrap: Bootstrap,
    plan: Arc<Plan>,
    leaders: RefCell<Vec<SocketAddr>>,
    version: Cell<u64>,
    is_looking: Cell<bool>,
    has_ended: Cell<bool>,
    listeners: RefCell<Vec<Rc<Notify>>>,
}

impl Topology {
    /// The leaders of the plan.
    pub(super) fn new(bootstrap: Bootstrap, plan: Arc<Plan>) -> Rc<Topology> {
        let leaders = RefCell::new(plan.partitions.iter().map(|partition| partition.leader).collect());
        let (version, is_looking, has_ended) = (Cell::new(0), Cell::new(false), Cell::new(false));
        Rc::new(Topology { bootstrap, plan, leaders, version, is_looking, has_ended, listeners: RefCell::default() })
    }

    /// The leader of a partition, by its number in the plan.
    pub(super) fn leader(&self, partition: usize) -> SocketAddr {
        self.leaders.borrow()[partition]
    }

    /// Grows whenever a leader changed.
    pub(super) fn version(&self) -> u64 {
        self.version.get()
    }

    /// Calls `listener` after each look from now on.
    pub(super) fn subscribe(&self, listener: Rc<Notify>) {
        self.listeners.borrow_mut().push(listener);
    }

    /// Somebody met a broker that is not the leader, or not there: look again soon.
    pub(super) fn refresh(self: &Rc<Topology>) {
        if !self.has_ended.get() && !self.is_looking.replace(true) {
            drop(spawn(Class::Background, self.clone().look()));
        }
    }

    /// Nobody asks any more.
    pub(super) fn end(&self) {
        self.has_ended.set(true);
    }

    async fn look(self: Rc<Topology>) {
        while !self.has_ended.get() {
            sleep(PAUSE).await;
            match self.find().await {
                Ok(leaders) => {
                    if *self.leaders.borrow() != leaders {
                        *self.leaders.borrow_mut() = leaders;
                        self.version.set(self.version.get() + 1);
                    }
                    break;
                }
                Err(error) => tracing::debug!(%error, "no leaders found"),
            }
        }
        self.is_looking.set(false);
        for listener in &*self.listeners.borrow() {
            listener.notify();
        }
    }

    async fn find(&self) -> Result<Vec<SocketAddr>, ClientError> {
        let connection = self.bootstrap.connect().await?;
        let mut leaders = Vec::with_capacity(self.plan.partitions.len());
        for topic in &self.plan.topics {
            leaders.extend(self.bootstrap.leaders(&connection, topic).await?);
        }
        // A topic that grew has partitions which this run does not know; one that shrank was made anew.
        let missing = || ClientError::Missing { what: "a leader for every partition".to_owned() };
        if leaders.len() == self.plan.partitions.len() { Ok(leaders) } else { Err(missing()) }
    }
}
