//! A writer's connection to one broker, shared by its lanes and made again after a fault where the run allows it.
//!
//! One lane at a time connects; the others wait for it. A run that does not allow it gets exactly one connection per link. A
//! link does not know what was under way when a connection broke: that is every lane's own business.

use std::cell::{Cell, RefCell};

use corelane::runtime::{Duration, Instant, SocketAddr, sleep};

use crate::client::{ClientError, Connection, ConnectionOptions};

/// Between two attempts, and between two looks at somebody else's attempt: a broker restarts in tens of milliseconds.
const RETRY: Duration = Duration::from_millis(10);

/// A connection that may be replaced.
pub(super) struct Link {
    address: SocketAddr,
    options: ConnectionOptions,
    /// How long a broker may be away; `None` if a broken connection ends the run.
    reconnect: Option<Duration>,
    current: RefCell<Option<Connection>>,
    connecting: Cell<bool>,
}

impl Link {
    pub(super) fn new(address: SocketAddr, options: ConnectionOptions, reconnect: Option<Duration>) -> Link {
        Link { address, options, reconnect, current: RefCell::new(None), connecting: Cell::new(false) }
    }

    /// The connection; a new one if the last one is closed.
    pub(super) async fn connection(&self) -> Result<Connection, ClientError> {
        let started = Instant::now();
        loop {
            let current = self.current.borrow().clone();
            match current {
                Some(connection) if !connection.is_closed() => return Ok(connection),
                Some(_) if self.reconnect.is_none() => return Err(ClientError::Closed(self.address)),
                _ if self.connecting.get() => {}
                _ => {
                    self.connecting.set(true);
                    let opened = Connection::open(self.address, &self.options).await;
                    self.connecting.set(false);
                    match opened {
                        Ok(connection) => {
                            *self.current.borrow_mut() = Some(connection.clone());
                            return Ok(connection);
                        }
                        Err(error) if self.is_over(started) => return Err(error),
                        Err(_) => {}
                    }
                }
            }
            sleep(RETRY).await;
        }
    }

    fn is_over(&self, started: Instant) -> bool {
        self.reconnect.is_none_or(|limit| Instant::now().since(started) > limit)
    }
}
