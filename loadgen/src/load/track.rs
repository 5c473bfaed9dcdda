//! Who wrote what, and who read what: live verification of a run in which producers and consumers are together.
//!
//! A [`Sent`] tells of one producer's records in one partition, a [`Seen`] of what a consumer was handed of them. Both stay small
//! while all goes well, since they keep what deviates: ranges that were not acknowledged, ranges that are missing. After the
//! run [`verify`] holds one against the other. Unlike [`crate::history`] it needs no journal and cannot prove anything about a
//! run whose own process died, or about offsets.

use std::ops::Range;

use crate::journal::Outcome;
use crate::result::Verification;

/// Ranges that deviate, at most, by producer and partition: a broker that loses every other batch is proved to be broken by
/// far fewer. What comes after widens the last range, so that the counts are no longer exact and the verdict still is.
const RANGES_MAX: usize = 100_000;

/// What one producer sent to one partition. Sequences count its records there from 0 on.
#[derive(Clone, Debug, Default)]
pub struct Sent {
    /// The sequence after the last record with a known or given-up end.
    next: u64,
    /// What was not acknowledged, in order.
    unacked: Vec<Unacked>,
}

#[derive(Clone, Debug)]
struct Unacked {
    range: Range<u64>,
    /// Whether it certainly was not appended.
    refused: bool,
}

impl Sent {
    /// Notes what became of `count` records from `sequence` on. Batches of a partition end in any order.
    pub fn settle(&mut self, sequence: u64, count: u32, outcome: Outcome) {
        let range = sequence..sequence + u64::from(count);
        self.next = self.next.max(range.end);
        let refused = match outcome {
            Outcome::Acked(_) => return,
            Outcome::Refused(_) => true,
            Outcome::Unknown => false,
        };
        let at = self.unacked.partition_point(|unacked| unacked.range.start < range.start);
        let is_full = self.unacked.len() == RANGES_MAX;
        match at.checked_sub(1).map(|before| &mut self.unacked[before]) {
            Some(before) if is_full || before.range.end == range.start && before.refused == refused => {
                before.range.end = range.end;
            }
            _ => self.unacked.insert(at, Unacked { range, refused }),
        }
    }
}

/// What a consumer was handed of one producer's records in one partition.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// The sequence after the highest one.
    next: u64,
    /// Sequences below it that were not handed out, in order.
    missing: Vec<Range<u64>>,
    duplicated: u64,
    reordered: u64,
    delivered: u64,
}

impl Seen {
    /// Takes the next record.
    #[inline]
    pub fn record(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next = sequence + 1;
            self.delivered += 1;
        } else {
            self.out_of_turn(sequence);
        }
    }

    #[cold]
    fn out_of_turn(&mut self, sequence: u64) {
        if sequence > self.next {
            let is_full = self.missing.len() == RANGES_MAX;
            match self.missing.last_mut() {
                Some(last) if is_full => last.end = sequence,
                _ => self.missing.push(self.next..sequence),
            }
            self.next = sequence + 1;
            self.delivered += 1;
            return;
        }
        let at = self.missing.partition_point(|range| range.end <= sequence);
        match self.missing.get(at).cloned() {
            Some(range) if range.contains(&sequence) => {
                self.reordered += 1;
                self.delivered += 1;
                let rests = [range.start..sequence, sequence + 1..range.end];
                self.missing.splice(at..=at, rests.into_iter().filter(|rest| !rest.is_empty()));
            }
            _ => self.duplicated += 1,
        }
    }

    /// Records, each counted once.
    pub fn delivered(&self) -> u64 {
        self.delivered
    }
}

/// What of one producer's records in one partition arrived, if everything was waited for.
pub fn verify(sent: &Sent, seen: &Seen) -> Verification {
    // What is missing: the holes, and everything from the highest record on.
    let tail = seen.next.min(sent.next)..sent.next;
    let missing: Vec<Range<u64>> = seen.missing.iter().cloned().chain(Some(tail)).collect();
    let missing_total: u64 = missing.iter().map(|range| range.end - range.start).sum();
    let mut result = Verification { duplicated: seen.duplicated, reordered: seen.reordered, ..Verification::default() };
    let (mut unacked_total, mut unacked_missing) = (0, 0);
    for unacked in &sent.unacked {
        let total = unacked.range.end - unacked.range.start;
        let absent = overlap(&unacked.range, &missing);
        unacked_total += total;
        unacked_missing += absent;
        if unacked.refused {
            result.phantom += total - absent;
        } else {
            result.unacked_delivered += total - absent;
        }
    }
    result.unacked_lost = unacked_missing;
    result.lost = missing_total - unacked_missing;
    // Records beyond what was sent carry this run's stamp, and nobody wrote them.
    result.phantom += seen.next.saturating_sub(sent.next);
    result.delivered = sent.next - unacked_total - result.lost;
    result
}

/// How much of `range` lies in `ranges`, which are in order.
fn overlap(range: &Range<u64>, ranges: &[Range<u64>]) -> u64 {
    let first = ranges.partition_point(|other| other.end <= range.start);
    let touching = ranges[first..].iter().take_while(|other| other.start < range.end);
    touching.map(|other| other.end.min(range.end) - other.start.max(range.start)).sum()
}

/// Adds up verifications.
pub fn merge(into: &mut Verification, part: &Verification) {
    let Verification {
        lost,
        duplicated,
        reordered,
        corrupt,
        misplaced,
        phantom,
        delivered,
        unacked_delivered,
        unacked_lost,
        foreign,
    } = *part;
    into.lost += lost;
    into.duplicated += duplicated;
    into.reordered += reordered;
    into.corrupt += corrupt;
    into.misplaced += misplaced;
    into.phantom += phantom;
    into.delivered += delivered;
    into.unacked_delivered += unacked_delivered;
    into.unacked_lost += unacked_lost;
    into.foreign += foreign;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent(outcomes: &[(u64, u32, Outcome)]) -> Sent {
        let mut sent = Sent::default();
        for &(sequence, count, outcome) in outcomes {
            sent.settle(sequence, count, outcome);
        }
        sent
    }

    fn seen(sequences: impl IntoIterator<Item = u64>) -> Seen {
        let mut seen = Seen::default();
        sequences.into_iter().for_each(|sequence| seen.record(sequence));
        seen
    }

    const ACKED: Outcome = Outcome::Acked(None);

    #[test]
    fn all_that_was_acknowledged_and_arrived_is_clean() {
        let result = verify(&sent(&[(0, 10, ACKED), (10, 5, ACKED)]), &seen(0..15));
        assert_eq!(result, Verification { delivered: 15, ..Default::default() });
    }

    #[test]
    fn holes_and_missing_ends_are_lost() {
        let sent = sent(&[(0, 10, ACKED), (10, 10, ACKED)]);
        let result = verify(&sent, &seen((0..4).chain(7..15)));
        assert_eq!((result.lost, result.delivered), (3 + 5, 12));
        assert_eq!(verify(&sent, &Seen::default()).lost, 20);
    }

    #[test]
    fn repeats_and_late_ones_are_told_apart() {
        let result = verify(&sent(&[(0, 6, ACKED)]), &seen([0, 1, 1, 4, 5, 2, 3, 3]));
        assert_eq!((result.duplicated, result.reordered, result.lost, result.delivered), (2, 2, 0, 6));
    }

    #[test]
    fn what_was_not_acknowledged_may_be_there_or_not() {
        let sent = sent(&[(0, 10, ACKED), (20, 10, ACKED), (10, 10, Outcome::Unknown)]);
        let result = verify(&sent, &seen((0..15).chain(20..30)));
        assert!(result.is_clean());
        assert_eq!((result.unacked_delivered, result.unacked_lost, result.delivered), (5, 5, 20));
    }

    #[test]
    fn what_was_refused_or_never_sent_must_not_be_there() {
        let sent = sent(&[(0, 5, ACKED), (5, 5, Outcome::Refused(10))]);
        assert!(verify(&sent, &seen(0..5)).is_clean());
        let result = verify(&sent, &seen(0..12));
        assert_eq!((result.phantom, result.delivered, result.lost), (5 + 2, 5, 0));
    }

    #[test]
    fn it_agrees_with_a_count_by_hand_on_random_histories() {
        use super::super::schedule::Random;
        use std::collections::BTreeMap;
        for seed in 0..300 {
            let mut random = Random::new(seed);
            let (mut sent, mut unknown) = (Sent::default(), Vec::new());
            for batch in 0..20 {
                let is_unknown = random.below(4) == 0;
                unknown.extend([is_unknown; 5]);
                sent.settle(batch * 5, 5, if is_unknown { Outcome::Unknown } else { ACKED });
            }
            let mut order: Vec<u64> = Vec::new();
            for sequence in 0..100 {
                match random.below(10) {
                    0 => {}
                    1 => order.extend([sequence, sequence]),
                    2 if !order.is_empty() => order.insert(order.len() - 1, sequence),
                    _ => order.push(sequence),
                }
            }
            let mut counts = BTreeMap::new();
            order.iter().for_each(|sequence| *counts.entry(*sequence).or_insert(0_u64) += 1);
            let absent = |unknowns: bool| {
                (0..100).filter(|at| !counts.contains_key(at) && unknown[*at as usize] == unknowns).count() as u64
            };
            let result = verify(&sent, &seen(order));
            assert_eq!(result.duplicated, counts.values().map(|count| count - 1).sum::<u64>(), "seed {seed}");
            assert_eq!((result.lost, result.unacked_lost), (absent(false), absent(true)), "seed {seed}");
        }
    }
}
