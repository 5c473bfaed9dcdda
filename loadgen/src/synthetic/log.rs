//! A partition of a synthetic broker: batches in memory, the oldest of which go when there are too many.
//!
//! Batches are kept as they came but for their base offset. Faults are applied where a batch is appended, so that whoever reads
//! it back meets exactly what a broker with that fault would have stored.

use std::collections::VecDeque;

use corelane::record::{BatchHeader, CRC_REGION_AT};
use corelane::runtime::{Buffer, Slice};

use super::Faults;

/// Where the CRC of a batch lies, right in front of what it covers.
const CRC_AT: usize = CRC_REGION_AT - 4;

/// See the head of this file.
pub(super) struct PartitionLog {
    batches: VecDeque<(u64, Slice)>,
    bytes: usize,
    bytes_max: usize,
    next_offset: u64,
    /// Batches that came.
    count: u64,
    /// The batch that is to be appended behind the next one.
    held: Option<Slice>,
}

/// What became of a batch.
pub(super) struct Appended {
    /// Its offset, as it is acknowledged.
    pub(super) offset: u64,
    /// Whether it is answered.
    pub(super) is_told: bool,
    /// To be appended to another partition.
    pub(super) misplaced: Option<Slice>,
}

impl PartitionLog {
    pub(super) fn new(bytes_max: usize) -> PartitionLog {
        PartitionLog { batches: VecDeque::new(), bytes: 0, bytes_max, next_offset: 0, count: 0, held: None }
    }

    /// The offset after the last record.
    pub(super) fn end(&self) -> u64 {
        self.next_offset
    }

    /// The first offset that is kept.
    pub(super) fn start(&self) -> u64 {
        self.batches.front().map_or(self.next_offset, |(offset, _)| *offset)
    }

    /// Appends a batch that came, as far as the faults let it; `None` if it is none.
    pub(super) fn produce(&mut self, batch: &[u8], faults: &Faults) -> Option<Appended> {
        BatchHeader::view(batch).filter(|header| header.batch_bytes() == Some(batch.len()))?;
        self.count += 1;
        let befalls = |every: Option<u64>| every.is_some_and(|every| self.count.is_multiple_of(every));
        let [lose, repeat, swap] = [faults.lose, faults.repeat, faults.swap].map(befalls);
        let [corrupt, misplace, forget] = [faults.corrupt, faults.misplace, faults.forget].map(befalls);
        let offset = self.next_offset;
        if !(lose || repeat || swap || corrupt || misplace || self.held.is_some()) {
            self.append(batch);
            return Some(Appended { offset, is_told: !forget, misplaced: None });
        }
        let mut kept = Buffer::with_capacity(batch.len());
        kept.append_with(batch.len(), |copy| {
            copy.copy_from_slice(batch);
            if corrupt {
                damage(copy);
            }
        });
        let told = |misplaced| Some(Appended { offset, is_told: !forget, misplaced });
        if lose {
            return told(None);
        }
        if misplace {
            return told(Some(kept.freeze()));
        }
        if swap && self.held.is_none() {
            self.held = Some(kept.freeze());
            return told(None);
        }
        let kept = kept.freeze();
        if repeat {
            self.append(&kept);
        }
        self.append(&kept);
        if let Some(held) = self.held.take() {
            self.append(&held);
        }
        told(None)
    }

    /// Appends a batch as it is.
    pub(super) fn append(&mut self, batch: &[u8]) {
        let records = BatchHeader::view(batch).map_or(0, |header| header.last_offset_delta().unsigned_abs() + 1);
        let mut kept = Buffer::with_capacity(batch.len());
        kept.append(&self.next_offset.to_be_bytes());
        kept.append(&batch[size_of::<u64>()..]);
        self.batches.push_back((self.next_offset, kept.freeze()));
        self.bytes += batch.len();
        self.next_offset += u64::from(records);
        while self.bytes > self.bytes_max
            && let Some((_, oldest)) = self.batches.pop_front()
        {
            self.bytes -= oldest.len();
        }
    }

    /// The batches from the one that holds `offset` on, in `bytes_max` bytes but for the first.
    pub(super) fn read(&self, offset: u64, bytes_max: usize) -> impl Iterator<Item = Slice> + '_ {
        let first = self.batches.partition_point(|(base, _)| *base <= offset).saturating_sub(1);
        let mut bytes = 0;
        let batches = self.batches.range(first..).filter(move |_| offset < self.next_offset);
        let fits = move |slice: &&(u64, Slice)| {
            let is_first = bytes == 0;
            bytes += slice.1.len();
            is_first || bytes <= bytes_max
        };
        batches.take_while(fits).map(|(_, slice)| slice.clone())
    }
}

/// Changes the last byte but one of a batch, in the value of its last record, and its checksum with it.
fn damage(batch: &mut [u8]) {
    let at = batch.len() - 2;
    batch[at] ^= 0x10;
    let crc = crc32c::crc32c(&batch[CRC_REGION_AT..]);
    batch[CRC_AT..CRC_REGION_AT].copy_from_slice(&crc.to_be_bytes());
}

#[cfg(test)]
mod tests {
    use corelane::record::{BatchBuilder, BatchScanner, Codec};

    use super::*;

    fn batch(value: &[u8]) -> Vec<u8> {
        let mut builder = BatchBuilder::new(Codec::None);
        builder.append(None, None, Some(value), &[]);
        builder.append(None, None, Some(value), &[]);
        builder.finish().expect("packs").expect("there are records").to_vec()
    }

    /// The values of the first records of all batches, with their offsets.
    fn read(log: &PartitionLog) -> Vec<(u64, u8)> {
        let mut found = Vec::new();
        for slice in log.read(log.start(), usize::MAX) {
            let batch = BatchScanner::new(&slice, 0, usize::MAX).next().expect("a batch").expect("a good one");
            // The value ends in front of the number of headers.
            found.push((batch.base_offset().value().unsigned_abs(), slice[slice.len() - 3]));
        }
        found
    }

    fn filled(faults: &Faults) -> (PartitionLog, Vec<bool>) {
        let mut log = PartitionLog::new(1 << 20);
        let told = (b'a'..=b'd').map(|letter| log.produce(&batch(&[letter; 9]), faults).expect("a batch").is_told);
        let told = told.collect();
        (log, told)
    }

    #[test]
    fn batches_get_their_offsets_and_are_read_from_any_of_them() {
        let (log, told) = filled(&Faults::default());
        assert_eq!(read(&log), [(0, b'a'), (2, b'b'), (4, b'c'), (6, b'd')]);
        assert_eq!((log.end(), told), (8, vec![true; 4]));
        assert_eq!(log.read(3, usize::MAX).count(), 3, "from inside the second one");
        assert_eq!(log.read(0, 1).count(), 1, "one at least");
        assert_eq!(log.read(8, usize::MAX).count(), 0);
    }

    #[test]
    fn every_fault_does_what_it_says() {
        let with = |faults: Faults| read(&filled(&faults).0).into_iter().map(|(_, letter)| letter).collect::<Vec<_>>();
        assert_eq!(with(Faults { lose: Some(2), ..Faults::default() }), *b"ac");
        assert_eq!(with(Faults { repeat: Some(2), ..Faults::default() }), *b"abbcdd");
        assert_eq!(with(Faults { swap: Some(2), ..Faults::default() }), *b"acb");
        assert_eq!(with(Faults { misplace: Some(4), ..Faults::default() }), *b"abc");
        let (log, told) = filled(&Faults { forget: Some(2), ..Faults::default() });
        assert_eq!((told, log.end()), (vec![true, false, true, false], 8));
    }

    #[test]
    fn a_damaged_batch_has_a_good_checksum_and_another_value() {
        let mut log = PartitionLog::new(1 << 20);
        let good = batch(&[7; 9]);
        log.produce(&good, &Faults { corrupt: Some(1), ..Faults::default() }).expect("a batch");
        let stored = log.read(0, usize::MAX).next().expect("it is kept");
        assert!(BatchScanner::new(&stored, 0, usize::MAX).next().expect("a batch").is_ok());
        let differing: Vec<usize> = (CRC_REGION_AT..good.len()).filter(|at| stored[*at] != good[*at]).collect();
        assert_eq!(differing, [good.len() - 2]);
    }

    #[test]
    fn what_is_too_much_goes_from_the_front() {
        let one = batch(&[0; 100]);
        let mut log = PartitionLog::new(3 * one.len());
        (0..10).for_each(|_| drop(log.produce(&one, &Faults::default())));
        assert_eq!((log.start(), log.end()), (14, 20));
        assert!(log.produce(&one[..70], &Faults::default()).is_none(), "half a batch");
    }
}
