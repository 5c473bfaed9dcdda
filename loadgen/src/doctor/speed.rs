//! How fast one core computes: the checksum and the copy that every record goes through.
//!
//! Each loop runs for a fixed time on the calling thread, over memory that fits into the core's caches, as batches do. What
//! the figure is for: a core without the checksum's instructions makes the load generator the bottleneck. It is no
//! benchmark of the processor; other work on the core is in the figure.

use std::hint::black_box;
use std::time::Duration;

use super::report::{Limit, Probe};
use crate::machine::now;

/// GB (10⁹ bytes) per second: what tables reach where the instructions are missing is not good.
const CHECKSUM: Limit = Limit::Least { good: 4.0, doubtful: 1.0 };
/// GB (10⁹ bytes) per second.
const COPY: Limit = Limit::Least { good: 3.0, doubtful: 1.0 };
/// Bytes of a batch.
const BATCH_BYTES: usize = 64 << 10;
/// Batches between two looks at the clock.
const BATCHES: usize = 16;
/// How long each loop runs.
const LOOP: Duration = Duration::from_millis(300);

/// Bytes that one core works through, in GB per second.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) struct SpeedReading {
    checksum: f64,
    copy: f64,
}

impl SpeedReading {
    /// Measures, which takes two loops.
    pub(super) fn measure() -> SpeedReading {
        let source = vec![0x5a_u8; BATCH_BYTES];
        let mut target = vec![0_u8; BATCH_BYTES];
        SpeedReading {
            checksum: gigabytes_per_second(|| {
                black_box(crc32c::crc32c(black_box(&source)));
            }),
            copy: gigabytes_per_second(|| {
                target.copy_from_slice(black_box(&source));
                black_box(&mut target);
            }),
        }
    }

    /// The verdict.
    pub(super) fn probe(self) -> Probe {
        Probe::new("core", "every byte is checked and copied; on a core this slow the load generator measures itself")
            .figure(("CRC32C", "GB/s"), self.checksum, CHECKSUM)
            .figure(("copy", "GB/s"), self.copy, COPY)
    }
}

fn gigabytes_per_second(mut batch: impl FnMut()) -> f64 {
    let began = now();
    let (mut bytes, mut elapsed) = (0, Duration::ZERO);
    while elapsed < LOOP {
        (0..BATCHES).for_each(|_| batch());
        bytes += BATCHES * BATCH_BYTES;
        elapsed = now().saturating_duration_since(began);
    }
    bytes as f64 / 1e9 / elapsed.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::report::Verdict;

    #[test]
    fn a_slow_core_is_told() {
        let fast = SpeedReading { checksum: 20.0, copy: 10.0 };
        assert_eq!(fast.probe().verdict, Verdict::Good);
        assert_eq!(SpeedReading { checksum: 2.0, ..fast }.probe().verdict, Verdict::Doubtful);
        assert_eq!(SpeedReading { checksum: 0.4, ..fast }.probe().verdict, Verdict::Bad);
        assert_eq!(SpeedReading { copy: 0.5, ..fast }.probe().verdict, Verdict::Bad);
    }

    #[test]
    fn a_rate_is_bytes_by_time() {
        let mut batches = 0_usize;
        let began = now();
        let rate = gigabytes_per_second(|| {
            batches += 1;
            std::thread::sleep(Duration::from_millis(1));
        });
        let elapsed = now().saturating_duration_since(began).as_secs_f64();
        assert!(elapsed >= LOOP.as_secs_f64());
        let least = (batches * BATCH_BYTES) as f64 / 1e9 / elapsed;
        assert!(rate >= least * 0.999 && rate <= least * 1.5, "{rate} against {least}");
    }
}
