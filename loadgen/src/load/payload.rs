//! What records hold behind their stamps: sizes, bytes of a given entropy or out of a file, headers.
//!
//! Values are cut out of a pool one behind the other, so that a record costs a copy and nothing else. The pool is made once and
//! shared; before it begins anew it is longer than what codecs look back at their usual levels, so that it adds no
//! repetition of its own.

use std::io;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::schedule::Random;
use crate::stamp::STAMP_BYTES;

/// Bytes of the pool: beyond the 64 KiB that LZ4 and Snappy look back, and the 2 MiB of zstd's usual level.
const POOL_BYTES: usize = 4 << 20;
/// Entropy is mixed in runs of this many bytes: short against any window, long enough for a codec's shortest match.
const RUN_BYTES: usize = 64;
/// Bytes of a header's value.
const HEADER_VALUE_BYTES: usize = 16;

/// What values are made of.
#[derive(Clone, PartialEq, Debug)]
pub enum PayloadSource {
    /// Random bytes for this share of each value, from 0 to 1, the rest the same byte.
    Entropy(f64),
    /// So many different values, each as likely as any other: random bytes for this share of each, the rest the same byte.
    Repeated {
        /// How many there are.
        values: u32,
        /// The share, from 0 to 1.
        entropy: f64,
    },
    /// The bytes of this file, the same in every record.
    Constant(PathBuf),
    /// The lines of this file, in their order, round and round.
    File(PathBuf),
}

/// Records' values and headers.
#[derive(Clone, Debug)]
pub struct Payload {
    pool: Pool,
    headers: Vec<Box<[u8]>>,
}

#[derive(Clone, Debug)]
enum Pool {
    /// `bytes` are long enough that a value of the largest size can begin anywhere in the first [`POOL_BYTES`].
    Cut { bytes: Arc<[u8]>, sizes: RangeInclusive<usize>, next: usize },
    /// Whole values with room for a stamp, one after the other.
    Lines { values: Arc<[Box<[u8]>]>, next: usize },
    /// Whole values with room for a stamp, by chance.
    Any { values: Arc<[Box<[u8]>]> },
}

/// Which value was drawn.
#[derive(Clone, Copy, Debug)]
pub struct Drawn {
    from: usize,
    to: usize,
}

/// A payload file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PayloadError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It has no line.
    #[error("{0}: there is no line in it")]
    Empty(PathBuf),
    /// It has no room for a stamp.
    #[error("{0}: it is shorter than the {STAMP_BYTES} bytes of a stamp")]
    Short(PathBuf),
}

impl Payload {
    /// Values of `sizes` bytes, and `headers` headers a record. Of a file, values are as long as what it holds: whole, with the
    /// stamp in its first bytes, or a line behind a stamp.
    pub fn new(
        source: &PayloadSource,
        sizes: RangeInclusive<usize>,
        headers: usize,
        seed: u64,
    ) -> Result<Payload, PayloadError> {
        let mut random = Random::new(seed);
        let pool = match source {
            PayloadSource::Entropy(entropy) => {
                let bytes = mixed(POOL_BYTES + sizes.end(), *entropy, &mut random).into();
                Pool::Cut { bytes, sizes, next: 0 }
            }
            PayloadSource::Repeated { values, entropy } => {
                let value = |_| mixed(*sizes.end(), *entropy, &mut random);
                Pool::Any { values: (0..*values).map(value).collect() }
            }
            PayloadSource::Constant(path) => Pool::Any { values: Arc::new([whole(path)?]) },
            PayloadSource::File(path) => Pool::Lines { values: lines(path)?.into(), next: 0 },
        };
        let headers = (0..headers).map(|_| mixed(HEADER_VALUE_BYTES, 1.0, &mut random)).collect();
        Ok(Payload { pool, headers })
    }

    /// The same, beginning elsewhere: for another producer.
    #[must_use]
    pub fn from_place(&self, place: u32) -> Payload {
        let mut other = self.clone();
        match &mut other.pool {
            Pool::Cut { next, .. } => *next = place as usize * 65_537 % POOL_BYTES,
            Pool::Lines { values, next } => *next = place as usize % values.len(),
            Pool::Any { .. } => {}
        }
        other
    }

    /// Draws the next record's value.
    #[inline]
    pub fn draw(&mut self, random: &mut Random) -> Drawn {
        match &mut self.pool {
            Pool::Cut { sizes, next, .. } => {
                let (least, most) = (*sizes.start(), *sizes.end());
                let size = if least == most { least } else { least + random.below((most - least + 1) as u64) as usize };
                let from = *next;
                *next = if from + size < POOL_BYTES { from + size } else { 0 };
                Drawn { from, to: from + size }
            }
            Pool::Lines { values, next } => {
                let line = *next;
                *next = if line + 1 == values.len() { 0 } else { line + 1 };
                Drawn { from: line, to: line }
            }
            Pool::Any { values } => {
                let value = random.below(values.len() as u64) as usize;
                Drawn { from: value, to: value }
            }
        }
    }

    /// A value that was drawn, whose first [`STAMP_BYTES`] bytes are to be written over.
    #[inline]
    pub fn at(&self, drawn: Drawn) -> &[u8] {
        match &self.pool {
            Pool::Cut { bytes, .. } => &bytes[drawn.from..drawn.to],
            Pool::Lines { values, .. } | Pool::Any { values } => &values[drawn.from],
        }
    }

    /// The values of a record's headers.
    pub fn headers(&self) -> &[Box<[u8]>] {
        &self.headers
    }
}

/// Runs of random bytes, each in its last part the same byte.
fn mixed(length: usize, entropy: f64, random: &mut Random) -> Box<[u8]> {
    let mut bytes = vec![b'.'; length].into_boxed_slice();
    for run in bytes.chunks_mut(RUN_BYTES) {
        let share = (entropy * run.len() as f64).round() as usize;
        for chunk in run[..share].chunks_mut(8) {
            let drawn = random.bits().to_le_bytes();
            let length = chunk.len();
            chunk.copy_from_slice(&drawn[..length]);
        }
    }
    bytes
}

fn whole(path: &Path) -> Result<Box<[u8]>, PayloadError> {
    let bytes = std::fs::read(path).map_err(|source| PayloadError::Read { path: path.to_owned(), source })?;
    if bytes.len() < STAMP_BYTES { Err(PayloadError::Short(path.to_owned())) } else { Ok(bytes.into()) }
}

fn lines(path: &Path) -> Result<Vec<Box<[u8]>>, PayloadError> {
    let text = std::fs::read(path).map_err(|source| PayloadError::Read { path: path.to_owned(), source })?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let values: Vec<_> = lines.map(|line| [&[0; STAMP_BYTES], line].concat().into_boxed_slice()).collect();
    if values.is_empty() { Err(PayloadError::Empty(path.to_owned())) } else { Ok(values) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lz4_share(entropy: f64) -> f64 {
        use corelane::record::{BatchBuilder, Codec};
        let mut payload = Payload::new(&PayloadSource::Entropy(entropy), 1000..=1000, 0, 1).expect("no file");
        let (mut random, mut builder) = (Random::new(2), BatchBuilder::new(Codec::Lz4));
        for _ in 0..64 {
            let drawn = payload.draw(&mut random);
            builder.append(None, None, Some(payload.at(drawn)), &[]);
        }
        let plain = builder.bytes();
        let batch = builder.finish().expect("compresses").expect("there are records");
        batch.len() as f64 / plain as f64
    }

    #[test]
    fn entropy_is_what_a_codec_cannot_take_away() {
        assert!(lz4_share(1.0) > 0.99);
        let half = lz4_share(0.5);
        assert!((0.45..0.65).contains(&half), "{half}");
        assert!(lz4_share(0.0) < 0.05);
    }

    #[test]
    fn values_that_repeat_are_so_many_and_each_comes_as_often() {
        let source = PayloadSource::Repeated { values: 4, entropy: 1.0 };
        let mut payload = Payload::new(&source, 100..=100, 0, 1).expect("no file");
        let mut random = Random::new(2);
        let mut seen = std::collections::HashMap::new();
        for _ in 0..1000 {
            let drawn = payload.draw(&mut random);
            *seen.entry(payload.at(drawn).to_vec()).or_insert(0) += 1;
        }
        assert!(seen.len() == 4 && seen.values().all(|count| *count > 150), "{:?}", seen.values());
    }

    #[test]
    fn a_constant_value_is_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("value");
        let values = |bytes: &[u8]| {
            std::fs::write(&path, bytes).unwrap();
            let mut payload = Payload::new(&PayloadSource::Constant(path.clone()), 1..=1, 0, 1)?;
            let drawn = payload.draw(&mut Random::new(2));
            Ok::<_, PayloadError>(payload.at(drawn).to_vec())
        };
        assert_eq!(values(&[7; 100]).unwrap(), [7; 100]);
        assert!(matches!(values(&[7; STAMP_BYTES - 1]), Err(PayloadError::Short(_))));
    }

    #[test]
    fn sizes_are_within_their_range_and_reach_both_ends() {
        let mut payload = Payload::new(&PayloadSource::Entropy(1.0), 40..=43, 2, 1).expect("no file");
        let mut random = Random::new(2);
        let mut seen = [0; 4];
        for _ in 0..1000 {
            let drawn = payload.draw(&mut random);
            seen[payload.at(drawn).len() - 40] += 1;
        }
        assert!(seen.iter().all(|count| *count > 150), "{seen:?}");
        assert_eq!(payload.headers().len(), 2);
        let (mut one, mut other) = (payload.from_place(0), payload.from_place(1));
        let (first, second) = (one.draw(&mut random), other.draw(&mut random));
        assert_ne!(one.at(first)[..40], other.at(second)[..40]);
    }

    #[test]
    fn lines_of_a_file_go_round_behind_a_stamp() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("lines");
        std::fs::write(&path, "one\n\ntwo\n").expect("written");
        let source = PayloadSource::File(path.clone());
        let mut payload = Payload::new(&source, 1..=1, 0, 1).expect("a file");
        let mut random = Random::new(2);
        let mut next = || {
            let drawn = payload.draw(&mut random);
            payload.at(drawn)[STAMP_BYTES..].to_vec()
        };
        assert_eq!([next(), next(), next()], [b"one".to_vec(), b"two".to_vec(), b"one".to_vec()]);
        std::fs::write(&path, "\n").expect("written");
        assert!(matches!(Payload::new(&source, 1..=1, 0, 1), Err(PayloadError::Empty(_))));
    }
}
