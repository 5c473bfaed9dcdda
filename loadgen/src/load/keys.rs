//! Which key a record has, and which partition that is: as Kafka's own producer would choose it.
//!
//! Keys are `key-0` to `key-<N−1>`; their partitions are computed once. A record without a key goes to the partition whose
//! batch is being filled, and the next batch to the next partition, so that every partition has its turn.
//!
//! Source: `BuiltInPartitioner` of Apache Kafka (murmur2 of the key, its sign bit cleared, modulo the partitions); KIP-480
//! for records without keys; Walker's alias method (1977) for drawing from any distribution in constant time.

use super::schedule::Random;

/// How keys are spread over records.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum KeyDistribution {
    /// Records have no keys.
    None,
    /// One after the other.
    RoundRobin,
    /// Each as likely as any other.
    Uniform,
    /// The k-th key with a probability in proportion to 1/k^θ.
    Zipf(f64),
    /// The first key with this probability, the others evenly.
    Hot(f64),
}

/// Draws keys.
#[derive(Clone, Debug)]
pub struct Keys {
    keys: Vec<Box<[u8]>>,
    /// The partition of each key.
    partitions: Vec<u32>,
    draw: Draw,
}

#[derive(Clone, Debug)]
enum Draw {
    None,
    RoundRobin(usize),
    Uniform,
    Weighted(AliasTable),
}

impl Keys {
    /// `count` keys over `partitions` partitions; producers that start at different `first` keys go round in step.
    pub fn new(distribution: KeyDistribution, count: usize, partitions: u32, first: usize) -> Keys {
        let draw = match distribution {
            KeyDistribution::None => return Keys { keys: Vec::new(), partitions: Vec::new(), draw: Draw::None },
            KeyDistribution::RoundRobin => Draw::RoundRobin(first % count),
            KeyDistribution::Uniform => Draw::Uniform,
            KeyDistribution::Zipf(theta) => {
                Draw::Weighted(AliasTable::new((1..=count).map(|rank| (rank as f64).powf(-theta)).collect()))
            }
            KeyDistribution::Hot(share) => {
                let others = (count - 1).max(1) as f64;
                let weight = |key| if key == 0 { share } else { (1.0 - share) / others };
                Draw::Weighted(AliasTable::new((0..count).map(weight).collect()))
            }
        };
        let keys: Vec<Box<[u8]>> = (0..count).map(|key| format!("key-{key}").into_bytes().into_boxed_slice()).collect();
        let partitions = keys.iter().map(|key| partition_of(key, partitions)).collect();
        Keys { keys, partitions, draw }
    }

    /// The next record's key and partition; `None` for a record without a key.
    #[inline]
    pub fn next(&mut self, random: &mut Random) -> Option<(&[u8], u32)> {
        let key = match &mut self.draw {
            Draw::None => return None,
            Draw::RoundRobin(next) => {
                let key = *next;
                *next = if key + 1 == self.keys.len() { 0 } else { key + 1 };
                key
            }
            Draw::Uniform => random.below(self.keys.len() as u64) as usize,
            Draw::Weighted(table) => table.draw(random),
        };
        Some((&self.keys[key], self.partitions[key]))
    }
}

/// The partition that Kafka's producer gives a key.
pub fn partition_of(key: &[u8], partitions: u32) -> u32 {
    (murmur2(key) & 0x7fff_ffff) % partitions
}

/// MurmurHash2 with Kafka's seed (`Utils.murmur2`).
fn murmur2(data: &[u8]) -> u32 {
    const M: u32 = 0x5bd1_e995;
    let mut hash = 0x9747_b28c ^ data.len() as u32;
    let mut chunks = data.chunks_exact(4);
    for chunk in &mut chunks {
        let mut word = u32::from_le_bytes(chunk.try_into().expect("four bytes")).wrapping_mul(M);
        word = (word ^ word >> 24).wrapping_mul(M);
        hash = hash.wrapping_mul(M) ^ word;
    }
    let rest = chunks.remainder();
    if !rest.is_empty() {
        for (at, &byte) in rest.iter().enumerate() {
            hash ^= u32::from(byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash = (hash ^ hash >> 13).wrapping_mul(M);
    hash ^ hash >> 15
}

/// Draws an index in proportion to its weight, in constant time.
#[derive(Clone, Debug)]
struct AliasTable {
    /// By column: the probability of the column's own index, and the index that has the rest of the column.
    columns: Vec<(f64, u32)>,
}

impl AliasTable {
    fn new(weights: Vec<f64>) -> AliasTable {
        let count = weights.len();
        let scale = count as f64 / weights.iter().sum::<f64>();
        let mut columns: Vec<(f64, u32)> = weights.iter().map(|weight| (weight * scale, 0)).collect();
        let (mut small, mut large): (Vec<usize>, Vec<usize>) = (0..count).partition(|&index| columns[index].0 < 1.0);
        while let (Some(less), Some(&more)) = (small.pop(), large.last()) {
            columns[less].1 = more as u32;
            columns[more].0 -= 1.0 - columns[less].0;
            if columns[more].0 < 1.0 {
                large.pop();
                small.push(more);
            }
        }
        // What is left is 1 but for rounding.
        for index in small.into_iter().chain(large) {
            columns[index] = (1.0, index as u32);
        }
        AliasTable { columns }
    }

    #[inline]
    fn draw(&self, random: &mut Random) -> usize {
        let column = random.below(self.columns.len() as u64) as usize;
        let (own, other) = self.columns[column];
        if random.unit() < own { column } else { other as usize }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(distribution: KeyDistribution, draws: usize) -> Vec<usize> {
        let mut keys = Keys::new(distribution, 10, 4, 0);
        let (mut random, mut counts) = (Random::new(3), vec![0; 10]);
        for _ in 0..draws {
            let (key, partition) = keys.next(&mut random).expect("there are keys");
            assert_eq!(partition, partition_of(key, 4));
            let number: usize = std::str::from_utf8(&key[4..]).expect("text").parse().expect("a number");
            counts[number] += 1;
        }
        counts
    }

    #[test]
    fn partitions_are_those_of_kafkas_own_producer() {
        // Check values of Kafka's UtilsTest.testMurmur2.
        assert_eq!(murmur2(b"21"), -973_932_308_i32 as u32);
        assert_eq!(murmur2(b"foobar"), -790_332_482_i32 as u32);
        assert_eq!(murmur2(b"a-little-bit-long-string"), -985_981_536_i32 as u32);
        assert_eq!(murmur2(b"a-little-bit-longer-string"), -1_486_304_829_i32 as u32);
        assert_eq!(murmur2(b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8"), -58_897_971_i32 as u32);
        assert_eq!(murmur2(b"abc"), 479_470_107);
    }

    #[test]
    fn keys_are_spread_as_asked() {
        assert_eq!(counts(KeyDistribution::RoundRobin, 25), [3, 3, 3, 3, 3, 2, 2, 2, 2, 2]);
        assert!(counts(KeyDistribution::Uniform, 10_000).iter().all(|count| (850..1150).contains(count)));
        let zipf = counts(KeyDistribution::Zipf(1.0), 100_000);
        assert!(
            (zipf[0] as f64 / zipf[1] as f64 - 2.0).abs() < 0.1 && (zipf[0] as f64 / zipf[9] as f64 - 10.0).abs() < 1.0
        );
        let hot = counts(KeyDistribution::Hot(0.9), 10_000);
        assert!((8_900..9_100).contains(&hot[0]) && hot[1..].iter().all(|count| (60..170).contains(count)), "{hot:?}");
        assert!(Keys::new(KeyDistribution::None, 10, 4, 0).next(&mut Random::new(0)).is_none());
    }
}
