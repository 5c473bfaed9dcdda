//! Tests of the producer state: the rules one by one, exact roll back, a model that forgets nothing, and the frozen format.

use proptest::prelude::*;

use super::*;
use crate::storage::codec::hex;

const LIMITS: ProducerLimits = ProducerLimits { count_max: 1000, expiry: Duration::from_secs(86_400) };
const ID: i64 = 7;

fn batch(id: i64, epoch: i16, first_sequence: i32, records: u32) -> ProducerBatch {
    ProducerBatch {
        producer: ProducerId::new(id).expect("not negative"),
        epoch: ProducerEpoch::new(epoch).expect("not negative"),
        first_sequence: Sequence::new(first_sequence).expect("not negative"),
        records,
    }
}

fn at(value: i64) -> Offset {
    Offset::new(value).expect("not negative")
}

fn second(value: u64) -> Duration {
    Duration::from_secs(value)
}

/// A log with its producers: appends at rising offsets.
struct Log {
    states: ProducerStates,
    end: Offset,
}

impl Log {
    fn new(limits: ProducerLimits) -> Log {
        Log { states: ProducerStates::new(limits), end: at(100) }
    }

    /// Checks, and accepts if that is the verdict. Returns the base offset it has or had.
    fn send_at(&mut self, batch: &ProducerBatch, now: Duration) -> Result<Offset, SequenceError> {
        match self.states.check(batch)? {
            Verdict::Duplicate(original) => Ok(original.base_offset),
            Verdict::Accept => {
                let base = self.end;
                self.states.accept(batch, base, Timestamp::new(base.value() * 10), now);
                self.end = base.plus(u64::from(batch.records));
                Ok(base)
            }
        }
    }

    fn send(&mut self, epoch: i16, first_sequence: i32, records: u32) -> Result<Offset, SequenceError> {
        self.send_at(&batch(ID, epoch, first_sequence, records), second(1))
    }
}

fn out_of_order(result: Result<Offset, SequenceError>) -> (i32, i32) {
    match result {
        Err(SequenceError::OutOfOrder { expected, found, .. }) => (expected.value(), found.value()),
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_last_five_batches_answer_like_the_original() {
    let mut log = Log::new(LIMITS);
    for number in 0..7 {
        log.send(0, number * 10, 10).expect("in order");
    }
    for number in 2..7 {
        let Ok(Verdict::Duplicate(original)) = log.states.check(&batch(ID, 0, number * 10, 10)) else {
            panic!("batch {number} is remembered");
        };
        assert_eq!(original.base_offset, at(100 + 10 * i64::from(number)));
        assert_eq!(original.last_offset(), at(109 + 10 * i64::from(number)));
        assert_eq!(original.timestamp, Timestamp::new(original.base_offset.value() * 10));
    }
    for number in 0..2 {
        let result = log.send(0, number * 10, 10);
        assert!(matches!(result, Err(SequenceError::DuplicateTooOld { oldest, .. }) if oldest.value() == 20));
    }
}

#[test]
fn gaps_and_overlaps_are_out_of_order() {
    let mut log = Log::new(LIMITS);
    for number in 0..7 {
        log.send(0, number * 10, 10).expect("in order");
    }
    assert_eq!(out_of_order(log.send(0, 71, 1)), (70, 71));
    assert_eq!(out_of_order(log.send(0, i32::MAX, 1)), (70, i32::MAX));
    // Other cuts of what was accepted are no batch that this producer sent.
    for (first, records) in [(60, 5), (65, 5), (60, 11), (15, 10), (0, 70), (0, 100), (69, 2)] {
        assert_eq!(out_of_order(log.send(0, first, records)), (70, first), "{first} {records}");
    }
    assert_eq!(log.send(0, 70, 1), Ok(at(170)), "what was refused left no trace");
}

#[test]
fn a_producer_without_state_starts_anywhere_but_what_lies_before_is_not_called_a_duplicate() {
    let mut log = Log::new(LIMITS);
    assert_eq!(log.send(3, 500, 10), Ok(at(100)));
    for number in 1..8 {
        log.send(3, 500 + 10 * number, 10).expect("in order");
    }
    assert_eq!(out_of_order(log.send(3, 490, 10)), (580, 490), "490 was never accepted: it may be lost");
    assert_eq!(out_of_order(log.send(3, 495, 10)), (580, 495));
    assert!(matches!(log.send(3, 500, 10), Err(SequenceError::DuplicateTooOld { .. })));
}

#[test]
fn sequences_wrap_from_the_largest_to_zero() {
    let mut log = Log::new(LIMITS);
    assert_eq!(log.send(0, i32::MAX - 15, 10), Ok(at(100)));
    // Ten sequences up to 2^31 − 1 − 6 + …: this batch crosses the wrap, its last sequence is 3.
    assert_eq!(log.send(0, i32::MAX - 5, 10), Ok(at(110)));
    assert_eq!(out_of_order(log.send(0, 5, 1)), (4, 5));
    assert_eq!(log.send(0, 4, 10), Ok(at(120)));
    assert_eq!(log.send(0, i32::MAX - 5, 10), Ok(at(110)), "a duplicate across the wrap");
    for number in 0..5 {
        log.send(0, 14 + number, 1).expect("in order");
    }
    assert!(matches!(log.send(0, i32::MAX - 5, 10), Err(SequenceError::DuplicateTooOld { .. })));

    let mut exact = Log::new(LIMITS);
    exact.send(0, i32::MAX, 1).expect("anywhere");
    assert_eq!(exact.send(0, 0, 1), Ok(at(101)));
}

#[test]
fn epochs_fence_and_begin_at_zero() {
    let mut log = Log::new(LIMITS);
    log.send(1, 0, 5).expect("first");
    assert_eq!(out_of_order(log.send(2, 5, 5)), (0, 5), "a new epoch of a known id begins at 0");
    assert_eq!(log.send(2, 0, 5), Ok(at(105)));
    for sequence in [0, 5] {
        let stale = log.send(1, sequence, 5);
        assert!(matches!(stale, Err(SequenceError::StaleEpoch { current, .. }) if current.value() == 2));
    }
    assert_eq!(log.send(2, 0, 5), Ok(at(105)), "the duplicate is the new epoch's");
    assert_eq!(log.send(9, 0, 1), Ok(at(110)), "epochs may leave gaps");
}

#[test]
fn retention_keeps_producers_until_they_were_silent_for_the_expiry() {
    let mut log = Log::new(ProducerLimits { expiry: second(100), ..LIMITS });
    log.send_at(&batch(1, 0, 0, 1), second(10)).expect("first");
    log.send_at(&batch(2, 0, 0, 1), second(50)).expect("first");
    assert_eq!(log.states.expire(second(109)), 0);
    assert_eq!(log.states.expire(second(110)), 1);
    assert!(log.states.check(&batch(1, 0, 44, 1)).is_ok(), "unknown: any sequence");
    assert!(log.states.check(&batch(2, 0, 44, 1)).is_err(), "known");
    assert_eq!(log.states.expire(second(0)), 0, "a clock that stands before the last batch expires nobody");
}

#[test]
fn the_silence_before_a_restart_counts_whatever_the_new_clock_says() {
    let mut log = Log::new(ProducerLimits { expiry: second(100), ..LIMITS });
    log.send_at(&batch(1, 0, 0, 1), second(5000)).expect("first");
    let mut bytes = Vec::new();
    log.states.encode(&mut bytes, second(5060));
    let limits = log.states.limits;
    let mut states = ProducerStates::decode(&mut Reader::new("p", &bytes), limits, second(3)).expect("intact");
    assert_eq!(states.expire(second(42)), 0);
    assert_eq!(states.expire(second(43)), 1);
}

#[test]
fn a_flood_of_ids_forgets_the_longest_silent() {
    let mut log = Log::new(ProducerLimits { count_max: 16, ..LIMITS });
    for id in 0..16 {
        log.send_at(&batch(id, 0, 0, 1), second(id as u64)).expect("first");
    }
    log.send_at(&batch(0, 0, 1, 1), second(20)).expect("busy");
    for id in 100..200 {
        log.send_at(&batch(id, 0, 0, 1), second(21)).expect("new");
        log.send_at(&batch(0, 0, id as i32 - 98, 1), second(22)).expect("busy producers stay");
        assert!(log.states.len() <= 16);
    }
    assert!(log.states.check(&batch(1, 0, 9, 1)).is_ok(), "the silent one is forgotten");
}

#[test]
fn open_transactions_are_neither_expired_nor_evicted() {
    let mut log = Log::new(ProducerLimits { count_max: 2, expiry: second(1) });
    log.send_at(&batch(1, 0, 0, 1), second(1)).expect("first");
    log.states.producers.get_mut(&ProducerId::new(1).expect("1")).expect("known").open_transaction = Some(at(100));
    for id in 2..9 {
        log.send_at(&batch(id, 0, 0, 1), second(2)).expect("new");
    }
    log.states.expire(second(99));
    assert_eq!((log.states.len(), log.states.first_open_transaction()), (1, Some(at(100))));
}

#[test]
fn roll_back_is_exact() {
    let mut log = Log::new(LIMITS);
    let mut history = vec![(log.end, log.states.producers.clone())];
    let sends = [
        (1, 0, 40, 3),
        (1, 0, 43, 1),
        (2, 5, 0, 2),
        (1, 0, 44, 1),
        (1, 0, 45, 1),
        (1, 0, 46, 1),
        (1, 0, 47, 1),
        (1, 0, 48, 1),
        (2, 6, 0, 1),
        (2, 6, 1, 1),
        (1, 1, 0, 9),
        (3, 0, 0, 1),
    ];
    for (id, epoch, sequence, records) in sends {
        log.send_at(&batch(id, epoch, sequence, records), second(1)).expect("in order");
        history.push((log.end, log.states.producers.clone()));
    }
    let durable = history[2].0;
    log.states.durable(durable);
    for (end, producers) in history.drain(2..).rev() {
        log.states.roll_back(end);
        assert_eq!(log.states.producers, producers, "back to {end}");
    }
    assert!(log.states.undo.is_empty());
    log.states.roll_back(durable);
    assert_eq!(log.states.check(&batch(1, 0, 44, 1)), Ok(Verdict::Accept));
}

#[test]
fn rolling_back_a_producer_that_was_forgotten_leaves_it_unknown() {
    let mut log = Log::new(ProducerLimits { expiry: second(10), ..LIMITS });
    log.send_at(&batch(1, 0, 0, 1), second(1)).expect("first");
    let end = log.end;
    log.send_at(&batch(1, 0, 1, 1), second(1)).expect("second");
    assert_eq!(log.states.expire(second(100)), 1);
    log.send_at(&batch(1, 0, 9, 1), second(101)).expect("unknown: anywhere");
    log.states.roll_back(end);
    assert!(log.states.is_empty());
}

#[test]
fn truncation_is_exact_or_says_that_it_is_not() {
    let mut log = Log::new(LIMITS);
    for number in 0..7 {
        log.send(0, number, 1).expect("in order");
    }
    log.states.durable(log.end);
    let mut cut = log.states.clone();
    assert_eq!(cut.truncate_to(at(104)), Truncation::Exact);
    assert_eq!(cut.check(&batch(ID, 0, 4, 1)), Ok(Verdict::Accept));
    assert!(matches!(cut.check(&batch(ID, 0, 3, 1)), Ok(Verdict::Duplicate(_))));
    assert!(matches!(cut.check(&batch(ID, 0, 0, 1)), Err(SequenceError::DuplicateTooOld { .. })));
    assert_eq!(cut.truncate_to(at(107)), Truncation::Exact);
    assert_eq!(log.states.truncate_to(at(102)), Truncation::Rebuild, "batch 1 is not remembered any more");
}

#[test]
fn replay_takes_the_log_as_it_is() {
    let mut states = ProducerStates::new(LIMITS);
    states.replay(&batch(ID, 0, 5, 5), at(5), None, second(1));
    states.replay(&batch(ID, 0, 20, 5), at(20), None, second(1));
    assert_eq!(states.check(&batch(ID, 0, 25, 1)), Ok(Verdict::Accept));
    for number in 0..5 {
        states.replay(&batch(ID, 0, 25 + number, 1), at(25 + i64::from(number)), None, second(1));
    }
    assert!(matches!(states.check(&batch(ID, 0, 20, 5)), Err(SequenceError::DuplicateTooOld { .. })));
    assert!(matches!(states.check(&batch(ID, 0, 5, 5)), Err(SequenceError::OutOfOrder { .. })), "before the gap");
}

/// A producer that remembers every batch of its epoch.
#[derive(Clone, Default)]
struct Model {
    epoch: i16,
    batches: Vec<(i32, u32)>,
}

impl Model {
    fn sequences(batch: (i32, u32)) -> impl Iterator<Item = Sequence> {
        let first = Sequence::new(batch.0).expect("not negative");
        (0..batch.1).map(move |number| first.plus(number))
    }

    /// What the rules say of a batch: accept, duplicate, or the Kafka error's name.
    fn verdict(known: Option<&Model>, epoch: i16, batch: (i32, u32)) -> &'static str {
        let Some(known) = known else { return "accept" };
        if epoch < known.epoch {
            return "stale";
        }
        if epoch > known.epoch {
            return if batch.0 == 0 { "accept" } else { "out of order" };
        }
        let (old, last_five) = known.batches.split_at(known.batches.len().saturating_sub(5));
        let last = known.batches.last().and_then(|&last| Model::sequences(last).last()).expect("it has written");
        let within_old =
            Model::sequences(batch).all(|one| old.iter().any(|&old| Model::sequences(old).any(|o| o == one)));
        if last_five.contains(&batch) {
            "duplicate"
        } else if batch.0 == last.plus(1).value() {
            "accept"
        } else if within_old {
            "too old"
        } else {
            "out of order"
        }
    }
}

fn name(verdict: Result<Verdict, SequenceError>) -> &'static str {
    match verdict {
        Ok(Verdict::Accept) => "accept",
        Ok(Verdict::Duplicate(_)) => "duplicate",
        Err(SequenceError::StaleEpoch { .. }) => "stale",
        Err(SequenceError::OutOfOrder { .. }) => "out of order",
        Err(SequenceError::DuplicateTooOld { .. }) => "too old",
    }
}

proptest! {
    /// Three producers around the wrap of the sequences; steps 0–8 send, 9 rolls back what is not durable, 10 makes durable.
    #[test]
    fn the_rules_hold_against_a_model_that_forgets_nothing(
        start in (i32::MAX - 12)..=i32::MAX,
        steps in prop::collection::vec((0..11u8, 0..3i64, 0..8u8, -14..3i64, 1..4u32), 1..120),
    ) {
        let mut log = Log::new(LIMITS);
        let mut models: HashMap<i64, Model> = HashMap::new();
        let mut durable = (log.end, log.states.producers.clone(), models.clone());
        for (action, id, newer, step, records) in steps {
            if action == 9 {
                log.states.roll_back(durable.0);
                (log.end, models) = (durable.0, durable.2.clone());
                prop_assert_eq!(&log.states.producers, &durable.1);
                continue;
            }
            if action == 10 {
                log.states.durable(log.end);
                durable = (log.end, log.states.producers.clone(), models.clone());
                continue;
            }
            let known = models.get(&id);
            let epoch = known.map_or(3, |known| known.epoch) + match newer { 0 => -1, 1 => 1, _ => 0 };
            let next = known.and_then(|known| known.batches.last()).map_or(i64::from(start), |&(first, records)| {
                i64::from(first) + i64::from(records)
            });
            // Mostly what comes next or lies a little before it, seldom a new start.
            let first = if newer == 1 && step > -8 { 0 } else { (next + step.min(0)).rem_euclid(1 << 31) as i32 };
            let first = if step == 2 { Sequence::new(first).expect("not negative").plus(2).value() } else { first };
            let sent = batch(id, epoch, first, records);
            let expected = Model::verdict(known, epoch, (first, records));
            prop_assert_eq!(name(log.states.check(&sent)), expected, "{:?} after {:?}", sent, known.map(|k| &k.batches));
            if expected == "accept" {
                log.send_at(&sent, second(1)).expect("accepted");
                let model = models.entry(id).or_default();
                if model.epoch != epoch {
                    *model = Model { epoch, batches: Vec::new() };
                }
                model.batches.push((first, records));
            }
            let mut bytes = Vec::new();
            log.states.encode(&mut bytes, second(1));
            let decoded = ProducerStates::decode(&mut Reader::new("producers", &bytes), LIMITS, second(1)).expect("intact");
            prop_assert_eq!(&decoded.producers, &log.states.producers);
        }
    }
}

fn example() -> ProducerStates {
    let mut log = Log::new(LIMITS);
    log.send_at(&batch(2, 0, 0, 3), second(1)).expect("first");
    for number in 0..6 {
        log.send_at(&batch(1, 9, number, 1), second(2)).expect("in order");
    }
    log.states.replay(&batch(300, 1, 8, 1), at(400), None, second(3));
    let open = log.states.producers.get_mut(&ProducerId::new(2).expect("2")).expect("known");
    (open.open_transaction, open.coordinator_epoch) = (Some(at(100)), Some(4));
    log.states.durable(Offset::MAX);
    log.states
}

#[test]
fn the_format_is_frozen() {
    let states = example();
    let mut bytes = Vec::new();
    states.encode(&mut bytes, second(3));
    let golden = [
        "00000003",
        "00000000000000010009 00000006 00000000000003e8 ffffffffffffffff ffffffff 05",
        "00000001 00000001 0000000000000068 0000000000000410",
        "00000002 00000001 0000000000000069 000000000000041a",
        "00000003 00000001 000000000000006a 0000000000000424",
        "00000004 00000001 000000000000006b 000000000000042e",
        "00000005 00000001 000000000000006c 0000000000000438",
        "00000000000000020000 00000003 00000000000007d0 0000000000000064 00000004 01",
        "00000000 00000003 0000000000000064 00000000000003e8",
        "000000000000012c0001 00000001 0000000000000000 ffffffffffffffff ffffffff 01",
        "00000008 00000001 0000000000000190 ffffffffffffffff",
    ];
    assert_eq!(hex(&bytes), golden.concat().replace(' ', ""));
    let mut reader = Reader::new("producers", &bytes);
    let decoded = ProducerStates::decode(&mut reader, LIMITS, second(3)).expect("intact");
    assert_eq!(reader.finish(), Ok(()));
    assert_eq!(decoded.producers, states.producers);
    for length in 0..bytes.len() {
        let mut reader = Reader::new("producers", &bytes[..length]);
        assert!(ProducerStates::decode(&mut reader, LIMITS, second(3)).is_err(), "{length}");
    }
}

#[test]
fn values_that_no_producer_can_have_are_refused() {
    let mut bytes = Vec::new();
    example().encode(&mut bytes, second(3));
    // (position, byte): negative id, ids that do not rise, negative epoch, too long a row, too many batches, negative
    // sequence, no records, negative offset, offsets that do not rise.
    let batch = 4 + 35;
    for (position, value) in
        [(4, 0x80), (11, 9), (12, 0x80), (14, 0x80), (38, 6), (batch, 0x80), (batch + 7, 0), (batch + 8, 0x80)]
    {
        let mut wrong = bytes.clone();
        wrong[position] = value;
        let decoded = ProducerStates::decode(&mut Reader::new("producers", &wrong), LIMITS, second(3));
        assert!(matches!(decoded, Err(DecodeError::Field { .. })), "byte {position}: {:?}", decoded.err());
    }
    let mut wrong = bytes;
    wrong[batch + 15] = 0xff;
    assert!(ProducerStates::decode(&mut Reader::new("producers", &wrong), LIMITS, second(3)).is_err());
}

#[test]
fn active_producers_are_told_by_id_with_their_last_batch() {
    let mut log = Log::new(LIMITS);
    assert_eq!(log.states.active(), []);
    for (id, epoch, first_sequence, records) in [(9, 0, i32::MAX, 3), (7, 0, 0, 2), (7, 0, 2, 1), (7, 4, 0, 5)] {
        log.send_at(&batch(id, epoch, first_sequence, records), second(1)).expect("in order");
    }
    let active = |id: i64, epoch, last_sequence, base: i64| ActiveProducer {
        producer: ProducerId::new(id).expect("not negative"),
        epoch: ProducerEpoch::new(epoch).expect("not negative"),
        last_sequence: Sequence::new(last_sequence),
        last_timestamp: Timestamp::new(base * 10),
        open_transaction: None,
        coordinator_epoch: None,
    };
    assert_eq!(log.states.active(), [active(7, 4, 4, 106), active(9, 0, 1, 100)]);
    // What a failed write took back was never there.
    log.states.roll_back(at(106));
    assert_eq!(log.states.active(), [active(7, 0, 2, 105), active(9, 0, 1, 100)]);
}
