//! When records are due: an open-loop schedule on the monotonic clock, which does not care how the broker is doing.
//!
//! A schedule is a sequence of points of a steady stream (0, 1, 2 … for a uniform one, sums of exponential gaps for a Poisson
//! one), mapped to times by the inverse of how many records are due up to a time. So a ramp changes the rate of any kind of
//! arrival, and no rounding adds up: a point's time is computed from the start, not from the point before.
//!
//! It knows nothing of records; who falls behind asks for points of the past.

use corelane::runtime::Duration;

/// How records are spread over time at a given rate.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Arrival {
    /// Evenly.
    Uniform,
    /// With exponential gaps, as from many independent sources.
    Poisson,
    /// All records of a period at its beginning.
    Burst(Duration),
}

/// Records per second over time, of all producers together.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Pace {
    /// At the start.
    pub from: f64,
    /// From `over` on, reached in a straight line.
    pub to: f64,
    /// How long it takes; zero for a steady rate, which is `to`.
    pub over: Duration,
}

impl Pace {
    /// A steady rate.
    pub const fn steady(rate: f64) -> Pace {
        Pace { from: rate, to: rate, over: Duration::ZERO }
    }

    /// Records that are due before `at` seconds.
    pub fn due_by(&self, at: f64) -> f64 {
        let over = self.over.as_secs_f64();
        let ramp = at.min(over);
        let ramped =
            if over > 0.0 { self.from * ramp + (self.to - self.from) * ramp * ramp / (2.0 * over) } else { 0.0 };
        ramped + self.to * (at - ramp)
    }

    /// Seconds until so many records are due: the inverse of [`Pace::due_by`].
    fn time_of(&self, records: f64) -> f64 {
        let over = self.over.as_secs_f64();
        let ramped = (self.from + self.to) / 2.0 * over;
        if records >= ramped {
            return over + (records - ramped) / self.to;
        }
        // from·t + slope·t²/2 = records, solved in the form that is exact for small slopes too.
        let slope = (self.to - self.from) / over;
        2.0 * records / (self.from + (self.from * self.from + 2.0 * slope * records).max(0.0).sqrt())
    }
}

/// One producer's share of a schedule.
#[derive(Clone, Debug)]
pub struct Schedule {
    pace: Pace,
    arrival: Arrival,
    start_ns: u64,
    /// Producers that share the pace.
    shares: f64,
    /// The next point, in records of this producer.
    point: f64,
    next_due: u64,
    random: Random,
}

impl Schedule {
    /// The schedule of producer `number` of `shares`, from `start_ns` of the monotonic clock on. Uniform schedules of several
    /// producers interleave.
    pub fn new(pace: Pace, arrival: Arrival, start_ns: u64, (number, shares): (u32, u32), seed: u64) -> Schedule {
        assert!(number < shares && pace.from > 0.0 && pace.to > 0.0);
        let mut random = Random::new(seed ^ u64::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let shares = f64::from(shares);
        let point = match arrival {
            Arrival::Poisson => random.exponential(),
            Arrival::Uniform | Arrival::Burst(_) => f64::from(number) / shares,
        };
        let mut schedule = Schedule { pace, arrival, start_ns, shares, point, next_due: 0, random };
        schedule.next_due = schedule.time_of(point);
        schedule
    }

    /// When the next record is due, in nanoseconds of the monotonic clock.
    #[inline]
    pub fn next_due(&self) -> u64 {
        self.next_due
    }

    /// When the record that comes `records` after it is due, as far as that is known before it is drawn.
    pub fn due_after(&self, records: u64) -> u64 {
        self.time_of(self.point + records as f64)
    }

    /// Goes on to the record after it.
    #[inline]
    pub fn advance(&mut self) {
        self.point += match self.arrival {
            Arrival::Poisson => self.random.exponential(),
            Arrival::Uniform | Arrival::Burst(_) => 1.0,
        };
        self.next_due = self.time_of(self.point);
    }

    #[inline]
    fn time_of(&self, point: f64) -> u64 {
        let seconds = self.pace.time_of(point * self.shares);
        let nanos = match self.arrival {
            Arrival::Burst(period) => {
                let period = period.as_secs_f64();
                (seconds / period).floor() * period * 1e9
            }
            Arrival::Uniform | Arrival::Poisson => seconds * 1e9,
        };
        self.start_ns + nanos as u64
    }
}

/// Random numbers for load: fast, seeded, the same on every machine (xorshift64*, Vigna 2016).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// Any seed will do.
    pub fn new(seed: u64) -> Random {
        // A state of 0 would stay 0; the mixing (splitmix64) keeps neighbouring seeds apart.
        let mut state = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        state = (state ^ state >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ state >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        Random((state ^ state >> 31).max(1))
    }

    /// 64 bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// From 0 to `end`, which is not reached and not 0 (Lemire's multiplication; the bias is below 2⁻³² for small ends).
    #[inline]
    pub fn below(&mut self, end: u64) -> u64 {
        ((u128::from(self.bits()) * u128::from(end)) >> 64) as u64
    }

    /// From 0 to 1, which is not reached.
    #[inline]
    pub fn unit(&mut self) -> f64 {
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Exponentially distributed with mean 1.
    #[inline]
    fn exponential(&mut self) -> f64 {
        -(1.0 - self.unit()).ln()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_000_000_000_000;

    fn until(schedule: &mut Schedule, end: u64) -> Vec<u64> {
        let mut due = Vec::new();
        while schedule.next_due() < end {
            due.push(schedule.next_due());
            schedule.advance();
        }
        due
    }

    #[test]
    fn later_points_are_known_ahead() {
        let mut schedule = Schedule::new(Pace::steady(1000.0), Arrival::Uniform, START, (1, 2), 1);
        let ahead: Vec<u64> = (0..50).map(|records| schedule.due_after(records)).collect();
        for due_ns in ahead {
            assert_eq!(schedule.next_due(), due_ns);
            schedule.advance();
        }
    }

    #[test]
    fn a_uniform_schedule_is_exact_after_hours() {
        let mut schedule = Schedule::new(Pace::steady(3.0), Arrival::Uniform, START, (0, 1), 0);
        let due = until(&mut schedule, START + 3_600_000_000_000);
        assert_eq!(due.len(), 3 * 3600);
        assert_eq!(due[1], START + 333_333_333);
        assert!(due[3 * 3599].abs_diff(START + 3_599_000_000_000) <= 1, "no rounding adds up");
    }

    #[test]
    fn producers_share_a_rate_and_interleave() {
        let mut all = Vec::new();
        for number in 0..4 {
            let mut schedule = Schedule::new(Pace::steady(1000.0), Arrival::Uniform, START, (number, 4), 0);
            all.extend(until(&mut schedule, START + 1_000_000_000));
        }
        all.sort_unstable();
        assert_eq!(all.len(), 1000);
        assert!(all.windows(2).all(|pair| (pair[1] - pair[0]).abs_diff(1_000_000) <= 1));
    }

    #[test]
    fn a_poisson_schedule_has_its_mean_and_its_variance() {
        let mut schedule = Schedule::new(Pace::steady(10_000.0), Arrival::Poisson, START, (0, 1), 7);
        let due = until(&mut schedule, START + 10_000_000_000);
        assert!(due.len().abs_diff(100_000) < 1_500, "{} of 100 000", due.len());
        let gaps: Vec<f64> = due.windows(2).map(|pair| (pair[1] - pair[0]) as f64).collect();
        let mean = gaps.iter().sum::<f64>() / gaps.len() as f64;
        let deviation = (gaps.iter().map(|gap| (gap - mean).powi(2)).sum::<f64>() / gaps.len() as f64).sqrt();
        assert!((deviation / mean - 1.0).abs() < 0.03, "an exponential's deviation is its mean: {deviation} of {mean}");
    }

    #[test]
    fn bursts_begin_with_their_periods() {
        let burst = Arrival::Burst(Duration::from_millis(100));
        let mut schedule = Schedule::new(Pace::steady(1000.0), burst, START, (0, 1), 0);
        let due = until(&mut schedule, START + 1_000_000_000);
        assert_eq!(due.len(), 1000);
        assert!(due.iter().all(|due| (due - START) % 100_000_000 <= 1));
        assert_eq!(due.iter().filter(|due| **due - START < 100_000_000).count(), 100);
    }

    #[test]
    fn a_ramp_goes_in_a_straight_line_and_stays() {
        let pace = Pace { from: 100.0, to: 1100.0, over: Duration::from_secs(10) };
        let mut schedule = Schedule::new(pace, Arrival::Uniform, START, (0, 1), 0);
        let due = until(&mut schedule, START + 12_000_000_000);
        let in_second = |second: u64| {
            let from = START + second * 1_000_000_000;
            due.iter().filter(|due| (from..from + 1_000_000_000).contains(due)).count()
        };
        for second in 0..10 {
            assert!(in_second(second).abs_diff(150 + 100 * second as usize) <= 1, "second {second}");
        }
        assert_eq!((in_second(10), in_second(11)), (1100, 1100));
        assert!((pace.due_by(12.0) - due.len() as f64).abs() <= 1.0);
    }

    #[test]
    fn random_numbers_stay_in_their_range_and_reach_its_ends() {
        let mut random = Random::new(0);
        let mut seen = [0; 5];
        for _ in 0..5000 {
            seen[random.below(5) as usize] += 1;
            assert!((0.0..1.0).contains(&random.unit()));
        }
        assert!(seen.iter().all(|count| (900..1100).contains(count)), "{seen:?}");
    }
}
