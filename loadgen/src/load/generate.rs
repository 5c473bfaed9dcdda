//! Where a producer's records come from: the schedule says when, keys say where to, the payload says what.
//!
//! Records are made when they are due, not ahead; a producer that fell behind makes those of the past, with their own due
//! times, as fast as it can. It fills lanes and says which; when their batches are sent is not decided here.

use corelane::record::Header;
use corelane::types::Timestamp;

use super::keys::Keys;
use super::lane::{Appended, Lane, NewRecord};
use super::options::ProducerOptions;
use super::payload::Payload;
use super::schedule::{Random, Schedule};

/// Names of headers: a record's n-th one is called after the n-th.
const HEADER_KEYS: [&str; HEADERS_MAX] = ["h0", "h1", "h2", "h3", "h4", "h5", "h6", "h7"];
/// Headers of a record at most.
pub const HEADERS_MAX: usize = 8;

/// Why no more records come now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Pause {
    /// The next one is due then, in nanoseconds.
    Until(u64),
    /// So many were made that others should have their turn.
    Enough,
    /// So many wait to be sent that some should be first.
    Full,
    /// There will be none.
    End,
}

/// What a turn of making records may do.
pub(super) struct Turn {
    /// Nanoseconds of the monotonic clock.
    pub(super) now_ns: u64,
    /// The wall clock, for the records' timestamps.
    pub(super) timestamp: Timestamp,
    /// Records due at or after this are not made.
    pub(super) end_ns: u64,
    /// From when records count towards the number that is wanted.
    pub(super) count_from_ns: u64,
    /// Bytes of payload to make at most, but for the end of the last record.
    pub(super) bytes: usize,
}

/// What a turn of making records did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fill {
    /// Why it ended.
    pub(super) pause: Pause,
    /// Bytes of payload that were made.
    pub(super) bytes: usize,
    /// Records that were left out.
    pub(super) dropped: u64,
    /// Records that the fullest open batch still takes, of the batches that got one since any was filled.
    pub(super) room: u64,
}

/// Where records without a key go until the batch ends.
#[derive(Clone, Copy)]
struct Sticky {
    lane: usize,
    has_begun: bool,
}

/// See the head of this file.
pub(super) struct Generator {
    schedule: Option<Schedule>,
    keys: Keys,
    payload: Payload,
    random: Random,
    sticky: Sticky,
    /// Records that are still wanted.
    left: u64,
}

impl Generator {
    /// The records of producer `number`, `wanted` at most of those that count, over so many partitions.
    pub(super) fn new(
        options: &ProducerOptions,
        payload: Payload,
        schedule: Option<Schedule>,
        (number, seed): (u32, u64),
        (partitions, wanted): (usize, u64),
    ) -> Generator {
        let first = options.keys * number as usize / options.count as usize;
        Generator {
            schedule,
            keys: Keys::new(options.key_distribution, options.keys, partitions as u32, first),
            payload,
            random: Random::new(seed.wrapping_add(u64::from(number) << 32)),
            sticky: Sticky { lane: number as usize % partitions, has_begun: false },
            left: wanted,
        }
    }

    /// When the next record is due; `None` without a schedule.
    pub(super) fn next_due(&self) -> Option<u64> {
        self.schedule.as_ref().map(Schedule::next_due)
    }

    /// When so many records will be due, the next one not among them; `None` without a schedule.
    pub(super) fn due_after(&self, records: u64) -> Option<u64> {
        self.schedule.as_ref().map(|schedule| schedule.due_after(records))
    }

    /// Makes the records that are due and adds each to its lane. `takes` says whether a lane takes one; what it does not take
    /// is left out and counted. `appended` is told of each lane that got one.
    pub(super) fn fill(
        &mut self,
        lanes: &mut [Lane],
        turn: &Turn,
        takes: impl Fn(usize, &Lane) -> bool,
        mut appended: impl FnMut(usize, Appended),
    ) -> Fill {
        let mut fill = Fill { pause: Pause::Enough, bytes: 0, dropped: 0, room: 0 };
        let mut fullest: Option<(usize, usize)> = None;
        while fill.bytes < turn.bytes {
            let due_ns = self.next_due().unwrap_or(turn.now_ns);
            if due_ns > turn.now_ns && due_ns < turn.end_ns {
                fill.pause = Pause::Until(due_ns);
                break;
            }
            let counts = due_ns >= turn.count_from_ns;
            if due_ns >= turn.end_ns || counts && self.left == 0 {
                fill.pause = Pause::End;
                break;
            }
            self.left -= u64::from(counts);
            if let Some(schedule) = &mut self.schedule {
                schedule.advance();
            }
            // Both draws are always made, so that a seed gives the same records whatever is dropped.
            let drawn = self.payload.draw(&mut self.random);
            let (key, lane) = match self.keys.next(&mut self.random) {
                Some((key, partition)) => (Some(key), partition as usize),
                None => (None, next_sticky(&mut self.sticky, lanes)),
            };
            if !takes(lane, &lanes[lane]) {
                fill.dropped += 1;
                continue;
            }
            let mut headers = [const { Header { key: b"", value: None } }; HEADERS_MAX];
            let values = self.payload.headers();
            for ((header, name), value) in headers.iter_mut().zip(HEADER_KEYS).zip(values) {
                *header = Header { key: name.as_bytes(), value: Some(value) };
            }
            let (value, headers) = (self.payload.at(drawn), &headers[..values.len()]);
            let record = NewRecord { due_ns, timestamp: turn.timestamp, key, value, headers };
            let (how, bytes) = lanes[lane].append(&record, turn.now_ns);
            fill.bytes += bytes;
            let open_bytes = lanes[lane].open_bytes();
            fullest = match fullest {
                _ if how == Appended::Filled => None,
                Some((most, _)) if most >= open_bytes => fullest,
                _ => Some((open_bytes, lane)),
            };
            appended(lane, how);
        }
        fill.room = fullest.map_or(0, |(_, lane)| lanes[lane].room());
        fill
    }
}

/// The lane of a record without a key: the one whose batch is open, and after that the next.
#[inline]
fn next_sticky(sticky: &mut Sticky, lanes: &[Lane]) -> usize {
    if sticky.has_begun && lanes[sticky.lane].open_since().is_none() {
        sticky.lane = if sticky.lane + 1 == lanes.len() { 0 } else { sticky.lane + 1 };
    }
    sticky.has_begun = true;
    sticky.lane
}
