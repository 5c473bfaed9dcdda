//! Connections of the admin server: HTTP/1.1, one request each, everything bounded.
//!
//! A connection has [`CONNECTION_TIME_MAX`] from being accepted to the last byte of its answer, so neither one that sends
//! slowly nor one that reads slowly stays. There are [`CONNECTIONS_MAX`] at most: one more ends the oldest, since an honest
//! request is over in milliseconds, and whoever holds connections must not keep the health check of the machine out.
//! A head is at most [`HEAD_BYTES_MAX`] long (else 431), a body is not read, an answer is one buffer.
//!
//! Nothing that a client does is logged above `debug`: it would be a way to fill the log.
//! Source: RFC 9112 (HTTP/1.1); the library's http1 server, whose defaults hold for what is not set here.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::routes;
use crate::broker::Status;
use crate::runtime::Duration;

/// Prometheus gives a scrape as long by default (`scrape_timeout`).
const CONNECTION_TIME_MAX: Duration = Duration::from_secs(10);
/// A few scrapers, probes and people at once. Each may hold an answer, some 100 KB per ten shards.
const CONNECTIONS_MAX: usize = 32;
/// The least that the library allows.
const HEAD_BYTES_MAX: usize = 8 << 10;
/// How long to wait for descriptors when the process has none left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `listener` until it is dropped.
pub(super) async fn serve(listener: TcpListener, status: Arc<Status>) {
    let mut connections: VecDeque<AbortHandle> = VecDeque::with_capacity(CONNECTIONS_MAX);
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.retain(|connection| !connection.is_finished());
                if connections.len() == CONNECTIONS_MAX
                    && let Some(oldest) = connections.pop_front()
                {
                    oldest.abort();
                }
                let connection = tokio::spawn(answer(stream, status.clone()));
                connections.push_back(connection.abort_handle());
            }
            Err(error) => {
                warn!(%error, "no admin connection can be accepted now");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers the one request of a connection.
async fn answer(stream: TcpStream, status: Arc<Status>) {
    let service = service_fn(move |request: hyper::Request<hyper::body::Incoming>| {
        let answer = routes::answer(request.method(), request.uri().path(), &status);
        async move { Ok::<_, Infallible>(answer) }
    });
    let connection = http1::Builder::new()
        .keep_alive(false)
        // A client that has nothing more to say still wants its answer.
        .half_close(true)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(CONNECTION_TIME_MAX, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an admin connection failed"),
        Err(_) => debug!("an admin connection was too slow"),
    }
}
