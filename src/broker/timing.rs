//! The time of a request, from its last byte to its answer being handed to the socket, by API.
//!
//! A [`Timed`] goes with the request and then with its answer. What the client takes to read the answer does not count; a
//! wait that it asked for (a fetch that waits for records) does. A request that gets no answer ends with its work.
//!
//! What this file does not do: it reads no further into a frame than the key of the API.

use crate::metrics::{ApiCode, ShardMetrics};
use crate::runtime::Instant;

/// A request that has arrived whole.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timed {
    api: Option<ApiCode>,
    received: Instant,
}

impl Timed {
    /// The request in `frame`, which was complete at `received`.
    pub(super) fn new(frame: &[u8], received: Instant) -> Timed {
        let code = frame.first_chunk().map(|code| i16::from_be_bytes(*code));
        Timed { api: code.and_then(ApiCode::new), received }
    }

    /// Its answer is handed over now. Takes down how long that took; nothing for a request of no API.
    pub(super) fn end(self, metrics: &ShardMetrics, now: Instant) {
        if let Some(api) = self.api {
            metrics.requests.at(api).record(now.since(self.received));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Recording;
    use crate::runtime::Duration;
    use crate::runtime::sim::{Simulation, SimulationOptions};

    #[test]
    fn a_request_counts_for_the_api_that_its_first_bytes_name() {
        let metrics = Recording::default();
        let counting = metrics.clone();
        let simulation = Simulation::new(1, SimulationOptions::default());
        let body = async move {
            let received = Instant::now();
            let ends = received.plus(Duration::from_micros(70));
            for frame in [&[0, 18, 0, 99][..], &[0, 18], &[0], &[], &[0x7f, 0, 0, 0]] {
                Timed::new(frame, received).end(&counting, ends);
            }
        };
        simulation.block_on(body).expect("it is not stuck");
        let counted: Vec<_> = metrics.requests.members().map(|(code, times)| (code, times.count())).collect();
        assert_eq!(counted, [(18, 2)]);
        assert_eq!(metrics.requests.at(ApiCode::new(18).expect("a key")).sum_nanos(), 140_000);
    }
}
