//! `selftest serve`: the synthetic broker as a process of its own, so that its CPU can be told from the load generator's.
//!
//! It prints one line when it takes connections, `synthetic ready listen=… pid=…`, and serves until it is asked to end.
//! Nothing that it was given is left after that.

use std::io;

use corelane::runtime::{Class, Listener, real, spawn, terminated};

use super::{fail, print};
use crate::cli::{Exit, ResultLine, ServeArguments};
use crate::synthetic::{Faults, SyntheticBroker, SyntheticOptions};

/// Bytes that each partition keeps: more than a consumer is ever behind.
const RETAINED_BYTES: usize = 8 << 20;

/// Serves.
pub(super) fn serve(arguments: ServeArguments) -> ResultLine {
    let options = real::Options { core: arguments.cpu };
    match real::run(&options, serve_until_terminated(arguments)) {
        Ok(Ok(())) => ResultLine::done(),
        Ok(Err(error)) => fail(&error, Exit::Connect),
        Err(error) => fail(&error, Exit::Invalid),
    }
}

async fn serve_until_terminated(arguments: ServeArguments) -> io::Result<()> {
    let terminated = terminated();
    let listener = Listener::bind(arguments.listen)?;
    let address = listener.local_address();
    let faults = Faults { slow_down: arguments.slow_down.unwrap_or(0.0), ..Faults::default() };
    let options = SyntheticOptions { partitions: arguments.partitions, retained_bytes: RETAINED_BYTES, faults };
    let broker = SyntheticBroker::new(options, address);
    drop(spawn(Class::Produce, async move {
        if let Err(error) = broker.serve(listener).await {
            tracing::warn!(%error, "no more connections are accepted");
        }
    }));
    print(&format_args!("synthetic ready listen={address} pid={}", std::process::id()));
    terminated.await;
    Ok(())
}
