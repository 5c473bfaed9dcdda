//! Tests of the checker: a good log passes, and every kind of damage that is planted in one is found under its own name.
//!
//! A log here is a list of offsets and values, as a client would read it. The planted damages are the ones that brokers are
//! known to do: lose, repeat, swap, shift, overwrite, resurrect.

use super::*;
use crate::stamp::STAMP_BYTES;

const RUN: RunId = RunId(7);
const BATCH: u64 = 4;
const BATCHES: u64 = 6;

fn partition(number: i32) -> PartitionId {
    PartitionId::new(number).expect("not negative")
}

fn at(offset: u64) -> Offset {
    Offset::ZERO.plus(offset)
}

fn value(writer: u32, sequence: u64) -> Vec<u8> {
    let mut value = vec![0x5a; STAMP_BYTES + 10];
    let stamp = Stamp { run: RUN, writer: WriterId(writer), partition: partition(0), sequence, due_ns: sequence };
    stamp.write(&mut value);
    value
}

/// A run of one writer that had six batches of four acknowledged, each at its place, and the log that it left behind.
struct Case {
    header: JournalHeader,
    outcomes: Vec<Outcome>,
    ended: bool,
    log: Vec<(u64, Vec<u8>)>,
    log_start: u64,
    high_watermark: u64,
}

impl Case {
    fn good() -> Case {
        let records = BATCH * BATCHES;
        Case {
            header: JournalHeader { run: RUN, topic: "t".to_owned(), partitions: 1, writers: 1, idempotent: false },
            outcomes: (0..BATCHES).map(|batch| Outcome::Acked(Some(at(batch * BATCH)))).collect(),
            ended: true,
            log: (0..records).map(|sequence| (sequence, value(0, sequence))).collect(),
            log_start: 0,
            high_watermark: records,
        }
    }

    /// Gives the records of the log the offsets 0, 1, 2 …
    fn renumber(&mut self) {
        for (offset, record) in (0..).zip(&mut self.log) {
            record.0 = offset;
        }
        self.high_watermark = self.log.len() as u64;
    }

    fn report(&self) -> Report {
        let mut history = History::new();
        history.begin(&self.header).unwrap();
        for (index, outcome) in (0..).zip(&self.outcomes) {
            let (writer, sequence, count) = (WriterId(0), index * BATCH, BATCH as u32);
            let entry = Entry { writer, partition: partition(0), sequence, count, outcome: *outcome };
            history.add(Line::Entry(entry)).unwrap();
        }
        if self.ended {
            history.add(Line::End).unwrap();
        }
        let mut check = history.check(partition(0), at(self.log_start));
        for (offset, value) in &self.log {
            check.record(at(*offset), Some(value));
        }
        check.finish(at(self.high_watermark))
    }

    fn found(&self) -> Vec<(Anomaly, u64)> {
        self.report().counts().collect()
    }
}

#[test]
fn a_good_log_is_clean() {
    let report = Case::good().report();
    assert!(report.is_clean(), "{report}");
    assert_eq!(report.tally, Tally { read: 24, acked: 24, ..Tally::default() });
}

#[test]
fn a_lost_tail_is_found() {
    let mut case = Case::good();
    case.log.truncate(22);
    case.high_watermark = 22;
    assert_eq!(case.found(), [(Anomaly::LostWrite, 2)]);
}

#[test]
fn a_record_lost_in_the_middle_is_found_also_where_others_moved_up() {
    let mut case = Case::good();
    case.log.remove(9);
    assert_eq!(case.found(), [(Anomaly::LostWrite, 1), (Anomaly::OffsetGap, 1)]);
    case.renumber();
    assert_eq!(case.found(), [(Anomaly::LostWrite, 1), (Anomaly::WrongOffset, 14)]);
}

#[test]
fn a_lost_partition_is_found() {
    let mut case = Case::good();
    case.log.clear();
    case.high_watermark = 0;
    assert_eq!(case.found(), [(Anomaly::LostWrite, 24)]);
}

#[test]
fn a_reader_that_stops_below_the_high_watermark_is_found() {
    let mut case = Case::good();
    case.log.truncate(20);
    assert_eq!(case.found(), [(Anomaly::LostWrite, 4), (Anomaly::OffsetGap, 1)]);
}

#[test]
fn duplicates_are_found_whether_acknowledged_or_not() {
    let mut case = Case::good();
    let again = case.log[20..24].to_vec();
    case.log.extend(again);
    case.renumber();
    assert_eq!(case.found(), [(Anomaly::Duplicate, 4)]);
    case.outcomes[5] = Outcome::Unknown;
    assert_eq!(case.found(), [(Anomaly::Duplicate, 4)]);
}

#[test]
fn swapped_records_are_found() {
    let mut case = Case::good();
    case.outcomes.fill(Outcome::Unknown);
    let (first, second) = (case.log[5].1.clone(), case.log[6].1.clone());
    (case.log[5].1, case.log[6].1) = (second, first);
    assert_eq!(case.found(), [(Anomaly::Reordered, 1)]);
    case.outcomes[1] = Outcome::Acked(Some(at(4)));
    assert_eq!(case.found(), [(Anomaly::Reordered, 1), (Anomaly::WrongOffset, 2)]);
}

#[test]
fn an_unanswered_batch_may_come_late_unless_its_writer_is_idempotent() {
    let mut case = Case::good();
    case.outcomes.fill(Outcome::Unknown);
    case.log.rotate_left(BATCH as usize);
    case.renumber();
    assert_eq!(case.found(), []);
    case.outcomes[0] = Outcome::Acked(Some(at(BATCH * (BATCHES - 1))));
    assert_eq!(case.found(), [(Anomaly::Reordered, 4)]);
    case.outcomes[0] = Outcome::Unknown;
    case.header.idempotent = true;
    assert_eq!(case.found(), [(Anomaly::Reordered, 4)]);
}

#[test]
fn a_wrong_offset_is_found() {
    let mut case = Case::good();
    case.outcomes[3] = Outcome::Acked(Some(at(13)));
    assert_eq!(case.found(), [(Anomaly::WrongOffset, 4)]);
}

#[test]
fn corruption_is_found_and_what_it_hides_is_lost() {
    let mut case = Case::good();
    case.log[10].1[STAMP_BYTES + 3] ^= 1;
    assert_eq!(case.found(), [(Anomaly::LostWrite, 1), (Anomaly::Corrupt, 1)]);
    case.log[10].1.clear();
    assert_eq!(case.found(), [(Anomaly::LostWrite, 1), (Anomaly::Corrupt, 1)]);
}

#[test]
fn a_record_of_another_partition_is_found() {
    let mut case = Case::good();
    let stamp = Stamp { run: RUN, writer: WriterId(0), partition: partition(1), sequence: 24, due_ns: 0 };
    let mut stray = vec![0; STAMP_BYTES];
    stamp.write(&mut stray);
    case.log.push((24, stray));
    case.high_watermark = 25;
    assert_eq!(case.found(), [(Anomaly::Misplaced, 1)]);
}

#[test]
fn a_refused_record_must_not_be_there() {
    let mut case = Case::good();
    case.outcomes[5] = Outcome::Refused(10);
    assert_eq!(case.found(), [(Anomaly::RefusedVisible, 4)]);
    case.log.truncate(20);
    case.high_watermark = 20;
    let report = case.report();
    assert!(report.is_clean() && report.tally.refused == 4, "{report}");
}

#[test]
fn an_unknown_record_may_be_there_or_not() {
    let mut case = Case::good();
    case.outcomes[5] = Outcome::Unknown;
    let report = case.report();
    assert!(report.is_clean() && report.tally.unknown_visible == 4, "{report}");
    case.log.truncate(21);
    case.high_watermark = 21;
    let tally = case.report().tally;
    assert_eq!((tally.unknown_visible, tally.unknown_absent, tally.acked), (1, 3, 20));
    assert!(case.report().is_clean());
}

#[test]
fn a_record_that_nobody_sent_is_found_unless_the_journal_was_cut_off() {
    let mut case = Case::good();
    case.log.push((24, value(0, 24)));
    case.high_watermark = 25;
    assert_eq!(case.found(), [(Anomaly::Phantom, 1)]);
    case.ended = false;
    let report = case.report();
    assert!(report.is_clean() && report.tally.unknown_visible == 1, "{report}");
    case.log.push((25, value(0, u64::MAX)));
    case.high_watermark = 26;
    assert_eq!(case.found(), [(Anomaly::Phantom, 1)]);
}

#[test]
fn a_hole_in_an_idempotent_writers_sequence_is_found() {
    let mut case = Case::good();
    case.outcomes[2..].fill(Outcome::Unknown);
    case.log.drain(8..12);
    case.renumber();
    assert!(case.report().is_clean(), "without idempotence a batch in between may be absent");
    case.header.idempotent = true;
    assert_eq!(case.found(), [(Anomaly::SequenceGap, 4)]);
}

#[test]
fn offsets_must_rise_by_one() {
    let mut case = Case::good();
    case.outcomes.fill(Outcome::Acked(None));
    case.log[7].0 = 6;
    assert_eq!(case.found(), [(Anomaly::OffsetGap, 1), (Anomaly::NonmonotonicRead, 1)]);
}

#[test]
fn an_acknowledgement_without_an_offset_still_counts() {
    let mut case = Case::good();
    case.outcomes.fill(Outcome::Acked(None));
    assert!(case.report().is_clean());
    case.log.truncate(23);
    case.high_watermark = 23;
    assert_eq!(case.found(), [(Anomaly::LostWrite, 1)]);
}

#[test]
fn what_retention_took_is_not_lost() {
    let mut case = Case::good();
    case.log.drain(..10);
    case.log_start = 10;
    let report = case.report();
    assert!(report.is_clean(), "{report}");
    assert_eq!((report.tally.acked, report.tally.expired), (14, 10));
}

#[test]
fn records_of_an_unknown_run_are_counted_apart() {
    let mut case = Case::good();
    case.header.run = RunId(8);
    case.outcomes.clear();
    let report = case.report();
    assert!(report.is_clean() && report.tally.foreign == 24, "{report}");
}

#[test]
fn writers_may_interleave() {
    let mut history = History::new();
    let header = JournalHeader { run: RUN, topic: "t".to_owned(), partitions: 1, writers: 2, idempotent: true };
    history.begin(&header).unwrap();
    for (writer, base) in [(0, 0), (1, 1), (0, 2), (1, 3)] {
        let outcome = Outcome::Acked(Some(at(base)));
        let entry = Entry { writer: WriterId(writer), partition: partition(0), sequence: base / 2, count: 1, outcome };
        history.add(Line::Entry(entry)).unwrap();
    }
    history.add(Line::End).unwrap();
    let mut check = history.check(partition(0), Offset::ZERO);
    for offset in 0..4 {
        check.record(at(offset), Some(&value((offset % 2) as u32, offset / 2)));
    }
    let report = check.finish(at(4));
    assert!(report.is_clean(), "{report}");
}

#[test]
fn reports_add_up_and_keep_few_examples() {
    let mut case = Case::good();
    case.log.drain(..12);
    case.log.iter_mut().for_each(|record| record.1[0] = 0);
    let mut sum = Report::default();
    for _ in 0..3 {
        sum.merge(case.report());
    }
    assert_eq!((sum.count(Anomaly::LostWrite), sum.count(Anomaly::Corrupt), sum.tally.read), (72, 36, 36));
    assert!(sum.examples().len() <= 3 * 10);
    assert!(sum.to_string().contains("\nlost-write: partition 0 offset 0: 4 acknowledged records from writer 0"));
}

#[test]
fn journals_that_contradict_themselves_are_refused() {
    let entry = |writer, number, sequence| {
        let (writer, partition, outcome) = (WriterId(writer), partition(number), Outcome::Unknown);
        Line::Entry(Entry { writer, partition, sequence, count: 2, outcome })
    };
    let mut history = History::new();
    let header = Case::good().header;
    history.begin(&header).unwrap();
    assert_eq!(history.begin(&header), Err(HistoryError::Twice(RUN)));

    let mut history = History::new();
    history.begin(&header).unwrap();
    assert!(matches!(history.add(entry(1, 0, 0)), Err(HistoryError::Stranger { .. })));
    assert!(matches!(history.add(entry(0, 1, 0)), Err(HistoryError::Stranger { .. })));
    assert_eq!(history.add(entry(0, 0, 3)), Ok(()));
    assert!(matches!(history.add(entry(0, 0, 4)), Err(HistoryError::Order { last: 4, .. })));
    assert_eq!(history.add(entry(0, 0, 9)), Ok(()));
    assert_eq!(history.add(Line::End), Ok(()));
    assert_eq!(history.add(Line::End), Err(HistoryError::AfterEnd(RUN)));
}
