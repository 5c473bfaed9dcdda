//! A lane: one producer's records for one partition, from the record to the settled batch. It does no I/O.
//!
//! ```text
//! append → open batch → seal → waiting → take → in flight → settle
//!                                 ↑                 │ give back
//!                                 └─────────────────┘
//! ```
//! Batches are taken in order. One that has to be sent again stops the lane until everything else of it that is in flight has
//! come back; then what came back goes first, in order. So an idempotent producer's sequences arrive without gaps, and without
//! idempotence the order of what was sent once is kept.

use std::collections::{BTreeMap, VecDeque};

use corelane::record::{BatchBuilder, Codec, Header, Producer};
use corelane::runtime::{Buffer, Slice};
use corelane::types::{PartitionId, ProducerEpoch, ProducerId, Sequence, Timestamp};

use super::measure::Flow;
use super::track::Sent;
use crate::journal::file::JournalWriter;
use crate::journal::{Entry, Outcome};
use crate::stamp::{RunId, Stamp, WriterId};

/// Sequence numbers of the protocol wrap here (KIP-98).
const SEQUENCE_WRAP: u64 = 1 << 31;

/// A batch and what is known of it.
#[derive(Debug)]
pub(super) struct Batch {
    /// The producer's sequence of its first record in the partition.
    pub(super) sequence: u64,
    /// The bytes that are sent.
    pub(super) bytes: Slice,
    /// When each of its records was due, in nanoseconds.
    pub(super) due: Vec<u64>,
    /// Bytes of its records' keys, values and headers.
    pub(super) payload_bytes: u64,
    /// When it was sealed.
    pub(super) sealed_ns: u64,
    /// Whether an attempt with an unknown end was made.
    pub(super) may_be_there: bool,
}

impl Batch {
    /// Its records.
    pub(super) fn count(&self) -> u32 {
        self.due.len() as u32
    }
}

/// A record that is to be sent.
pub(super) struct NewRecord<'a> {
    pub(super) due_ns: u64,
    pub(super) timestamp: Timestamp,
    pub(super) key: Option<&'a [u8]>,
    /// The value, whose first bytes the stamp takes.
    pub(super) value: &'a [u8],
    pub(super) headers: &'a [Header<'a>],
}

impl NewRecord<'_> {
    fn payload_bytes(&self) -> usize {
        let of_header = |header: &Header<'_>| header.key.len() + header.value.map_or(0, <[u8]>::len);
        self.key.map_or(0, <[u8]>::len) + self.value.len() + self.headers.iter().map(of_header).sum::<usize>()
    }
}

/// What a record did to the open batch of its lane.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Appended {
    /// It is the first one.
    Begun,
    /// It is one more.
    Added,
    /// It filled it, and the batch is sealed.
    Filled,
}

/// Where a batch ends.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchLimits {
    pub(super) bytes: usize,
    pub(super) records: u32,
}

/// See the head of this file.
pub(super) struct Lane {
    run: RunId,
    writer: WriterId,
    partition: PartitionId,
    producer: Option<(ProducerId, ProducerEpoch)>,
    limits: BatchLimits,
    builder: BatchBuilder,
    /// When the records of the open batch were due.
    due: Vec<u64>,
    begun_ns: u64,
    open_payload_bytes: u64,
    /// The sequence of the next record.
    next: u64,
    waiting: VecDeque<Batch>,
    /// Batches that are in flight.
    in_flight: usize,
    /// Whether one came back and has to go again before anything else.
    is_rewinding: bool,
    /// Emptied lists of due times.
    spare: Vec<Vec<u64>>,
    sent: Sent,
    journal: Option<Telling>,
}

/// What a journal is told, in the order of the sequences: batches that ended before an older one wait for that.
struct Telling {
    journal: JournalWriter,
    /// The sequence that is told of next.
    next: u64,
    early: BTreeMap<u64, (u32, Outcome)>,
}

impl Telling {
    fn tell(&mut self, writer: WriterId, partition: PartitionId, ended: (u64, u32, Outcome)) {
        self.early.insert(ended.0, (ended.1, ended.2));
        while let Some((count, outcome)) = self.early.remove(&self.next) {
            self.journal.push(&Entry { writer, partition, sequence: self.next, count, outcome });
            self.next += u64::from(count);
        }
    }
}

impl Lane {
    pub(super) fn new(
        (run, writer, partition): (RunId, WriterId, PartitionId),
        producer: Option<(ProducerId, ProducerEpoch)>,
        codec: Codec,
        limits: BatchLimits,
        journal: Option<JournalWriter>,
    ) -> Lane {
        Lane {
            run,
            writer,
            partition,
            producer,
            limits,
            builder: BatchBuilder::new(codec),
            due: Vec::new(),
            begun_ns: 0,
            open_payload_bytes: 0,
            next: 0,
            waiting: VecDeque::new(),
            in_flight: 0,
            is_rewinding: false,
            spare: Vec::new(),
            sent: Sent::default(),
            journal: journal.map(|journal| Telling { journal, next: 0, early: BTreeMap::new() }),
        }
    }

    /// Adds a record; a batch that it fills is sealed. What that did, and the bytes of the record's key, value and headers.
    #[inline]
    pub(super) fn append(&mut self, record: &NewRecord<'_>, now_ns: u64) -> (Appended, usize) {
        let stamp = Stamp {
            run: self.run,
            writer: self.writer,
            partition: self.partition,
            sequence: self.next,
            due_ns: record.due_ns,
        };
        let before = self.builder.bytes();
        let value = Some(record.value);
        self.builder.append_with(Some(record.timestamp), record.key, value, record.headers, |copy| stamp.write(copy));
        self.due.push(record.due_ns);
        self.next += 1;
        let payload_bytes = record.payload_bytes();
        self.open_payload_bytes += payload_bytes as u64;
        let bytes = self.builder.bytes();
        let is_full = bytes + (bytes - before) > self.limits.bytes || self.due.len() >= self.limits.records as usize;
        let appended = match self.due.len() {
            _ if is_full => Appended::Filled,
            1 => Appended::Begun,
            _ => Appended::Added,
        };
        match appended {
            Appended::Filled => self.seal(now_ns),
            Appended::Begun => self.begun_ns = now_ns,
            Appended::Added => {}
        }
        (appended, payload_bytes)
    }

    /// Ends the open batch, if it has records.
    pub(super) fn seal(&mut self, now_ns: u64) {
        if self.due.is_empty() {
            return;
        }
        let count = self.due.len() as u64;
        let sequence = self.next - count;
        let base_sequence = Sequence::new((sequence % SEQUENCE_WRAP) as i32).expect("below the wrap");
        self.builder.set_producer(self.producer.map(|(id, epoch)| Producer { id, epoch, base_sequence }));
        let packed = self.builder.finish().expect("codecs take what a batch holds").expect("there are records");
        let mut buffer = Buffer::with_capacity(packed.len());
        buffer.append(packed);
        let due = std::mem::replace(&mut self.due, self.spare.pop().unwrap_or_default());
        let payload_bytes = std::mem::take(&mut self.open_payload_bytes);
        let bytes = buffer.freeze();
        self.waiting.push_back(Batch { sequence, bytes, due, payload_bytes, sealed_ns: now_ns, may_be_there: false });
    }

    /// When the open batch was begun, in nanoseconds; `None` if it has no record.
    pub(super) fn open_since(&self) -> Option<u64> {
        (!self.due.is_empty()).then_some(self.begun_ns)
    }

    /// Bytes of the open batch.
    #[inline]
    pub(super) fn open_bytes(&self) -> usize {
        self.builder.bytes()
    }

    /// Records of the size of those that are there, that the open batch takes before it is full; of an empty one, none.
    pub(super) fn room(&self) -> u64 {
        let (bytes, records) = (self.open_bytes(), self.due.len());
        let by_bytes = (self.limits.bytes.saturating_sub(bytes) * records).checked_div(bytes).unwrap_or(0);
        by_bytes.min(self.limits.records as usize - records) as u64
    }

    /// Whether nothing of it waits to be sent.
    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.due.is_empty()
    }

    /// The bytes of the batch that would be taken next; `None` while the lane waits for what is in flight, or has nothing.
    pub(super) fn next_bytes(&self) -> Option<usize> {
        if self.is_rewinding && self.in_flight > 0 {
            return None;
        }
        self.waiting.front().map(|batch| batch.bytes.len())
    }

    /// Whether there is a sealed batch that waits.
    pub(super) fn has_sealed(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The next batch, which is in flight from now on.
    pub(super) fn take(&mut self) -> Option<Batch> {
        self.next_bytes()?;
        self.is_rewinding = false;
        self.in_flight += 1;
        self.waiting.pop_front()
    }

    /// Whether nothing of it is in flight, so that it may change its connection.
    pub(super) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Whether every record has met its end.
    pub(super) fn is_done(&self) -> bool {
        self.is_idle() && self.is_empty()
    }

    /// A batch that was in flight has to be sent again.
    pub(super) fn give_back(&mut self, batch: Batch) {
        self.in_flight -= 1;
        self.is_rewinding = true;
        let at = self.waiting.partition_point(|other| other.sequence < batch.sequence);
        self.waiting.insert(at, batch);
    }

    /// A batch that was in flight has met its end.
    pub(super) fn settle(&mut self, batch: Batch, outcome: Outcome) {
        self.in_flight -= 1;
        self.note(batch, outcome);
    }

    /// Gives up what waits since before `sealed_before`, once nothing is in flight; the records that were given up, and their
    /// bytes.
    pub(super) fn expire(&mut self, sealed_before: u64) -> Flow {
        let mut given_up = Flow::default();
        while self.in_flight == 0
            && let Some(batch) = self.waiting.pop_front_if(|batch| batch.sealed_ns < sealed_before)
        {
            given_up.add(Flow { records: u64::from(batch.count()), bytes: batch.payload_bytes });
            // Nobody was ever asked to take it, or somebody was and did not tell.
            let outcome = if batch.may_be_there { Outcome::Unknown } else { Outcome::Refused(0) };
            self.note(batch, outcome);
        }
        given_up
    }

    fn note(&mut self, mut batch: Batch, outcome: Outcome) {
        let ended = (batch.sequence, batch.count(), outcome);
        self.sent.settle(ended.0, ended.1, ended.2);
        if let Some(telling) = &mut self.journal {
            telling.tell(self.writer, self.partition, ended);
        }
        batch.due.clear();
        self.spare.push(batch.due);
    }

    /// What was sent.
    pub(super) fn into_sent(self) -> Sent {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::super::track::{Seen, verify};
    use super::*;
    use crate::journal::file;
    use crate::journal::{JournalHeader, Line};

    const RUN: RunId = RunId(1);

    fn lane(records: u32) -> Lane {
        let partition = PartitionId::new(3).expect("not negative");
        Lane::new((RUN, WriterId(2), partition), None, Codec::None, BatchLimits { bytes: 10_000, records }, None)
    }

    fn append(lane: &mut Lane, due_ns: u64) -> Appended {
        let value = [0; 100];
        let timestamp = Timestamp::new(7).expect("not negative");
        lane.append(&NewRecord { due_ns, timestamp, key: None, value: &value, headers: &[] }, due_ns + 1).0
    }

    #[test]
    fn batches_end_by_count_by_bytes_and_when_they_are_sealed() {
        let mut by_count = lane(3);
        use Appended::{Added, Begun, Filled};
        assert_eq!([0, 1, 2, 3].map(|due| append(&mut by_count, due)), [Begun, Added, Filled, Begun]);
        assert_eq!(by_count.open_since(), Some(4));
        let batch = by_count.take().expect("a full batch");
        assert_eq!((batch.sequence, &batch.due[..], batch.sealed_ns, batch.payload_bytes), (0, &[0, 1, 2][..], 3, 300));
        assert!(by_count.take().is_none(), "the next one is open");
        by_count.seal(9);
        assert_eq!(by_count.take().map(|batch| (batch.sequence, batch.count())), Some((3, 1)));

        let mut by_bytes = lane(u32::MAX);
        while append(&mut by_bytes, 0) != Appended::Filled {}
        let bytes = by_bytes.next_bytes().expect("a full batch");
        assert!((9_800..=10_000).contains(&bytes), "{bytes}");
    }

    #[test]
    fn the_room_of_a_batch_is_in_records_like_those_that_are_in_it() {
        let mut by_count = lane(3);
        assert_eq!(by_count.room(), 0, "nothing tells how large records are");
        append(&mut by_count, 0);
        assert_eq!(by_count.room(), 2);
        let mut by_bytes = lane(u32::MAX);
        append(&mut by_bytes, 0);
        let mut rooms = Vec::new();
        while append(&mut by_bytes, 0) != Appended::Filled {
            rooms.push(by_bytes.room());
        }
        // Never more than there is, so that nobody who counts on it comes late; and near to it soon.
        let truth: Vec<u64> = (0..rooms.len() as u64).rev().map(|left| left + 1).collect();
        assert!(rooms.iter().zip(&truth).all(|(room, left)| room <= left), "{rooms:?}");
        assert!(rooms.iter().zip(&truth).skip(20).all(|(room, left)| left - room < 5), "{rooms:?}");
    }

    #[test]
    fn a_journal_is_told_in_the_order_of_the_sequences() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("journal");
        let topic = "t".to_owned();
        let header = JournalHeader { run: RUN, topic, partitions: 4, writers: 3, idempotent: false };
        let (journal, end) = file::create(&path, &header).unwrap();
        let mut lane = Lane { journal: Some(Telling { journal, next: 0, early: BTreeMap::new() }), ..lane(1) };
        (0..3).for_each(|due| assert_ne!(append(&mut lane, due), Appended::Begun));
        let [first, second, third] = [(); 3].map(|()| lane.take().expect("a batch"));
        lane.settle(third, Outcome::Unknown);
        lane.settle(second, Outcome::Acked(None));
        lane.settle(first, Outcome::Refused(9));
        end.finish().unwrap();
        let mut told = Vec::new();
        let read = file::read(&path, |_, line| {
            if let Line::Entry(entry) = line {
                told.push((entry.sequence, entry.outcome));
            }
        });
        assert_eq!(read.unwrap(), header);
        assert_eq!(told, [(0, Outcome::Refused(9)), (1, Outcome::Acked(None)), (2, Outcome::Unknown)]);
    }

    #[test]
    fn what_comes_back_goes_first_and_alone() {
        let mut lane = lane(1);
        (0..4).for_each(|due| assert_ne!(append(&mut lane, due), Appended::Begun));
        let [first, second, third] = [(); 3].map(|()| lane.take().expect("a batch"));
        lane.give_back(second);
        assert!(lane.next_bytes().is_none(), "two are in flight");
        lane.give_back(first);
        lane.settle(third, Outcome::Acked(None));
        let order: Vec<u64> = std::iter::from_fn(|| lane.take()).map(|batch| batch.sequence).collect();
        assert_eq!(order, [0, 1, 3]);
    }

    #[test]
    fn what_waits_too_long_is_given_up_once_nothing_is_in_flight() {
        let mut lane = lane(1);
        (0..3).for_each(|due| assert_ne!(append(&mut lane, due), Appended::Begun));
        let mut first = lane.take().expect("a batch");
        assert_eq!(lane.expire(u64::MAX).records, 0);
        first.may_be_there = true;
        lane.give_back(first);
        assert_eq!(lane.expire(3), Flow { records: 2, bytes: 200 });
        let last = lane.take().expect("the youngest");
        lane.settle(last, Outcome::Acked(None));
        assert!(lane.is_done());
        let mut seen = Seen::default();
        [0, 2].into_iter().for_each(|sequence| seen.record(sequence));
        let result = verify(&lane.into_sent(), &seen);
        assert!(result.is_clean(), "{result:?}");
        assert_eq!((result.unacked_delivered, result.unacked_lost, result.delivered), (1, 1, 1));
    }
}
