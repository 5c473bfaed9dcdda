//! How fast the machine talks to itself: round trips of a small message, and a stream, over TCP on the loopback interface.
//!
//! Two threads with blocking sockets, the simplest that there is, so the figures are a floor under what any broker on this
//! machine can show. Both connections end with the probe; a peer that falls silent is given up after a time.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use hdrhistogram::Histogram;

use super::report::{Limit, Probe};
use crate::machine::now;
use crate::result::{LATENCY_US_MAX, latency_histogram};

/// Microseconds of a round trip. What waking a halted virtual core takes, there and back, is within.
const ECHO_P50: Limit = Limit::Most { good: 200.0, doubtful: 1_000.0 };
/// Microseconds: a broker's own p99, beyond it, would be the machine's.
const ECHO_P99: Limit = Limit::Most { good: 1_000.0, doubtful: 10_000.0 };
/// GB (10⁹ bytes) per second.
const STREAM: Limit = Limit::Least { good: 0.8, doubtful: 0.2 };
/// How long each of the two is measured.
const MEASURED: Duration = Duration::from_secs(1);
/// When a silent peer is given up.
const SILENCE: Duration = Duration::from_secs(2);
/// Bytes of a message that is sent back.
const MESSAGE_BYTES: usize = 64;
/// Bytes of one write to the stream.
const CHUNK_BYTES: usize = 64 << 10;

/// What was measured.
#[derive(Clone, Debug)]
pub(super) struct LoopbackReading {
    /// Microseconds of each round trip.
    echo: Histogram<u64>,
    /// Round trips per second.
    echo_rate: f64,
    /// GB per second.
    stream: f64,
}

impl LoopbackReading {
    /// Measures both.
    pub(super) fn measure() -> io::Result<LoopbackReading> {
        let (echo, echo_rate) = echo()?;
        Ok(LoopbackReading { echo, echo_rate, stream: stream()? })
    }

    /// The verdict.
    pub(super) fn probe(reading: io::Result<LoopbackReading>) -> Probe {
        let probe = Probe::new(
            "loopback",
            "requests cannot be faster than this; see what else runs, deep sleep states of the cores, and firewall rules",
        );
        let LoopbackReading { echo, echo_rate, stream } = match reading {
            Ok(reading) => reading,
            Err(error) => return probe.failed(&error),
        };
        let micros = |quantile| echo.value_at_quantile(quantile) as f64;
        probe
            .noted(("echo", "/s"), echo_rate)
            .figure(("p50", "µs"), micros(0.5), ECHO_P50)
            .figure(("p99", "µs"), micros(0.99), ECHO_P99)
            .figure(("stream", "GB/s"), stream, STREAM)
    }
}

/// Microseconds of each round trip, and how many there were per second.
fn echo() -> io::Result<(Histogram<u64>, f64)> {
    let (mut near, far) = connected(|mut far| {
        let mut message = [0; MESSAGE_BYTES];
        while far.read_exact(&mut message).is_ok() {
            far.write_all(&message)?;
        }
        Ok(0)
    })?;
    let mut histogram = latency_histogram();
    let mut message = [0x5a; MESSAGE_BYTES];
    let began = now();
    let mut sent = began;
    while sent.saturating_duration_since(began) < MEASURED {
        near.write_all(&message)?;
        near.read_exact(&mut message)?;
        let answered = now();
        let micros = u64::try_from(answered.saturating_duration_since(sent).as_micros()).unwrap_or(u64::MAX);
        histogram.saturating_record(micros.min(LATENCY_US_MAX));
        sent = answered;
    }
    let rate = histogram.len() as f64 / sent.saturating_duration_since(began).as_secs_f64();
    drop(near);
    joined(far)?;
    Ok((histogram, rate))
}

/// GB per second from the first byte sent to the last one received.
fn stream() -> io::Result<f64> {
    let (mut near, far) = connected(|mut far| {
        let mut chunk = vec![0; CHUNK_BYTES];
        let mut bytes = 0;
        loop {
            match far.read(&mut chunk)? {
                0 => return Ok(bytes),
                read => bytes += read as u64,
            }
        }
    })?;
    let chunk = vec![0x5a; CHUNK_BYTES];
    let began = now();
    while now().saturating_duration_since(began) < MEASURED {
        near.write_all(&chunk)?;
    }
    near.shutdown(Shutdown::Write)?;
    let bytes = joined(far)?;
    Ok(bytes as f64 / 1e9 / now().saturating_duration_since(began).as_secs_f64())
}

/// A connection, and a thread that holds its far end.
fn connected(
    serve: impl FnOnce(TcpStream) -> io::Result<u64> + Send + 'static,
) -> io::Result<(TcpStream, JoinHandle<io::Result<u64>>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let near = TcpStream::connect(listener.local_addr()?)?;
    let (far, _) = listener.accept()?;
    for end in [&near, &far] {
        end.set_nodelay(true)?;
        end.set_read_timeout(Some(SILENCE))?;
        end.set_write_timeout(Some(SILENCE))?;
    }
    let thread = thread::Builder::new().name("loopback".to_owned()).spawn(move || serve(far))?;
    Ok((near, thread))
}

fn joined(thread: JoinHandle<io::Result<u64>>) -> io::Result<u64> {
    thread.join().expect("the far end does not panic")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    fn reading(micros: u64, stream: f64) -> io::Result<LoopbackReading> {
        let mut echo = latency_histogram();
        echo.record_n(micros, 100).unwrap();
        Ok(LoopbackReading { echo, echo_rate: 1e6 / micros as f64, stream })
    }

    #[test]
    fn a_slow_loopback_is_told() {
        assert_eq!(LoopbackReading::probe(reading(60, 3.0)).verdict, Verdict::Good);
        assert_eq!(LoopbackReading::probe(reading(500, 3.0)).verdict, Verdict::Doubtful);
        assert_eq!(LoopbackReading::probe(reading(2_000, 3.0)).verdict, Verdict::Bad);
        assert_eq!(LoopbackReading::probe(reading(60, 0.5)).verdict, Verdict::Doubtful);
        let failed = LoopbackReading::probe(Err(io::Error::other("no loopback")));
        assert_eq!((failed.verdict, failed.measured.as_str()), (Verdict::Bad, "no loopback"));
    }

    #[test]
    fn this_machine_talks_to_itself() {
        let reading = LoopbackReading::measure().unwrap();
        let per_second = reading.echo.len() as f64;
        assert!(reading.echo_rate > 0.0 && reading.echo_rate <= per_second, "{} of {per_second}", reading.echo_rate);
        assert!(reading.stream > 0.0);
    }
}
