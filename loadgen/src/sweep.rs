//! The search for the knee: the highest rate at which brokers meet an SLO. Pure: the verdict on a run in, the next rate out.
//!
//! Rates are the rungs of a ladder, each higher than the one below by the same part, so that one sweep tries the rates of
//! another. A single verdict may be the machine's noise; so a rung is *met* by so many runs in a row that met the SLO, and
//! *refused* by the second that did not: one stall costs a repeat, not the rung.
//!
//! | pass | begins with | runs in a row | steps |
//! |---|---|---|---|
//! | scout | the lowest rung | 1 | doubles the rate until it is refused, then halves what lies between |
//! | confirm | the rung that was scouted | all repeats | 1, 2, 4 … rungs up or down, then halves what lies between |
//!
//! The knee is what the second pass ends with, and counts nothing of the first, whose rung was chosen for having passed: a
//! rung that was met in every repeat, under one that was refused. It climbs from below, so that the brokers are never
//! loaded with more than twice of what they can bear; an unpaced run would begin with that, and say little about small
//! batches on a schedule. It runs nothing and has no clock.

pub mod criterion;
#[cfg(test)]
mod tests;

/// Runs that do not meet the SLO, after which a rung is refused.
const FAILURES: u32 = 2;

/// What to search.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SearchOptions {
    /// The lowest rate, in records per second: where the search begins.
    pub rate_min: f64,
    /// The highest.
    pub rate_max: f64,
    /// By which part neighbouring rungs differ at most: 0.05 is 5 %.
    pub resolution: f64,
    /// Runs in a row that have to meet the SLO at the knee.
    pub repeats: u32,
}

impl Default for SearchOptions {
    /// What fits brokers from one core of a laptop up.
    fn default() -> SearchOptions {
        SearchOptions { rate_min: 1e3, rate_max: 1e7, resolution: 0.05, repeats: 3 }
    }
}

/// What to do next.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Next {
    /// A run at this rate, in records per second.
    Run(f64),
    /// Nothing: the search has ended.
    Done(End),
}

/// How a search ends.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum End {
    /// The highest rate that met the SLO in every repeat.
    Knee(f64),
    /// The highest rate of the search met it: the knee is there or beyond.
    Beyond(f64),
    /// The lowest rate of the search did not meet it.
    Below,
}

impl End {
    /// The highest rate that met the SLO in every repeat, if one did.
    pub fn rate(self) -> Option<f64> {
        match self {
            End::Knee(rate) | End::Beyond(rate) => Some(rate),
            End::Below => None,
        }
    }
}

/// What is known of the rung that was run last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Judged {
    /// It is run again.
    Open,
    /// It was met.
    Met,
    /// It was refused.
    Refused,
}

/// See the head of this file.
#[derive(Clone, Debug)]
pub struct Search {
    ladder: Ladder,
    repeats: u32,
    pass: Pass,
    /// The highest rung that this pass found met, and the lowest that it found refused.
    met: Option<u32>,
    refused: Option<u32>,
    trial: Trial,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Pass {
    Scout,
    /// With the rungs of the next step.
    Confirm {
        stride: u32,
    },
}

impl Search {
    /// A search that has not begun.
    ///
    /// # Panics
    /// Unless 0 < `rate_min` ≤ `rate_max`, the resolution is above 0 and there is a repeat.
    pub fn new(options: &SearchOptions) -> Search {
        assert!(options.repeats > 0, "a rung that needs no run would always be met");
        let ladder = Ladder::new(options.rate_min, options.rate_max, options.resolution);
        let (pass, trial) = (Pass::Scout, Trial::at(0));
        Search { ladder, repeats: options.repeats, pass, met: None, refused: None, trial, end: None }
    }

    /// What to do now; the same until a verdict comes.
    pub fn next(&self) -> Next {
        self.end.map_or_else(|| Next::Run(self.ladder.rate(self.trial.rung)), Next::Done)
    }

    /// Takes the verdict on the run that was to be made.
    ///
    /// # Panics
    /// If the search has ended.
    pub fn record(&mut self, met: bool) -> Judged {
        assert!(self.end.is_none(), "nothing was to be run");
        let needed = if self.pass == Pass::Scout { 1 } else { self.repeats };
        let judged = self.trial.record(met, needed);
        match judged {
            Judged::Open => return judged,
            Judged::Met => self.met = Some(self.trial.rung),
            Judged::Refused => self.refused = Some(self.trial.rung),
        }
        debug_assert!(self.met.zip(self.refused).is_none_or(|(met, refused)| met < refused));
        match (self.next_rung(), self.pass, self.met) {
            (Some(rung), ..) => self.trial = Trial::at(rung),
            (None, Pass::Scout, Some(scouted)) => {
                (self.met, self.refused) = (None, None);
                (self.pass, self.trial) = (Pass::Confirm { stride: 1 }, Trial::at(scouted));
            }
            (None, _, None) => self.end = Some(End::Below),
            (None, _, Some(met)) => {
                let rate = self.ladder.rate(met);
                self.end = Some(if met == self.ladder.last { End::Beyond(rate) } else { End::Knee(rate) });
            }
        }
        judged
    }

    /// The rung that this pass looks at next; `None` if it has found its own.
    fn next_rung(&mut self) -> Option<u32> {
        if let (Some(met), Some(refused)) = (self.met, self.refused) {
            return (refused - met > 1).then(|| met + (refused - met) / 2);
        }
        let stride = match &mut self.pass {
            Pass::Scout => self.ladder.doubling,
            Pass::Confirm { stride } => std::mem::replace(stride, stride.saturating_mul(2)),
        };
        match (self.met, self.refused) {
            (Some(met), _) => (met < self.ladder.last).then(|| met.saturating_add(stride).min(self.ladder.last)),
            (None, Some(refused)) => (refused > 0).then(|| refused.saturating_sub(stride)),
            (None, None) => unreachable!("a rung was judged before"),
        }
    }
}

/// The rates of a search: rung 0 is the lowest, `last` the highest.
#[derive(Clone, Copy, Debug)]
struct Ladder {
    rate_min: f64,
    rate_max: f64,
    last: u32,
    /// Rungs from a rate to about its double.
    doubling: u32,
}

impl Ladder {
    fn new(rate_min: f64, rate_max: f64, resolution: f64) -> Ladder {
        assert!(rate_min > 0.0 && rate_min <= rate_max && resolution > 0.0);
        // A little less than a rung more is no rung more.
        let last = ((rate_max / rate_min).ln() / resolution.ln_1p() - 1e-9).ceil().max(0.0);
        let octaves = (rate_max / rate_min).log2();
        let doubling = if octaves > 0.0 { (last / octaves).round().max(1.0) } else { 1.0 };
        Ladder { rate_min, rate_max, last: last as u32, doubling: doubling as u32 }
    }

    /// In records per second: four digits, which people can type again, except at the ends, which they typed.
    fn rate(&self, rung: u32) -> f64 {
        debug_assert!(rung <= self.last);
        match rung {
            0 => self.rate_min,
            rung if rung == self.last => self.rate_max,
            _ => {
                let share = f64::from(rung) / f64::from(self.last);
                let exact = self.rate_min * (self.rate_max / self.rate_min).powf(share);
                let unit = 10f64.powi(exact.log10().floor() as i32 - 3);
                // Dividing by a power of ten gives the nearest number to what is meant, multiplying with 0.1 does not.
                if unit < 1.0 { (exact / unit).round() / unit.recip().round() } else { (exact / unit).round() * unit }
            }
        }
    }
}

/// The runs at a rung.
#[derive(Clone, Copy, Debug)]
struct Trial {
    rung: u32,
    met_in_row: u32,
    failures: u32,
}

impl Trial {
    fn at(rung: u32) -> Trial {
        Trial { rung, met_in_row: 0, failures: 0 }
    }

    fn record(&mut self, met: bool, needed: u32) -> Judged {
        if met {
            self.met_in_row += 1;
        } else {
            (self.met_in_row, self.failures) = (0, self.failures + 1);
        }
        match self {
            Trial { failures: FAILURES, .. } => Judged::Refused,
            Trial { met_in_row, .. } if *met_in_row == needed => Judged::Met,
            _ => Judged::Open,
        }
    }
}
