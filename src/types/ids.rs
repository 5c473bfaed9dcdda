//! Identifiers: topics, partitions, brokers, shards, producers, and the names that people give.
//!
//! Numbers are never negative by construction, ids of 16 bytes print and parse as Kafka prints them. Nothing here hands out
//! an id or checks that one exists.
//! Source: KIP-98 (producers), KIP-516 (topic ids), `org.apache.kafka.common.Uuid`, `org.apache.kafka.common.internals.Topic`.

use std::fmt;
use std::sync::Arc;

use super::limits::TOPIC_NAME_BYTES_MAX;

macro_rules! number {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
        pub struct $name($inner);

        impl $name {
            /// The identifier `value`; `None` if it is negative.
            pub const fn new(value: $inner) -> Option<$name> {
                if value < 0 { None } else { Some($name(value)) }
            }

            /// The number as Kafka writes it.
            pub const fn value(self) -> $inner {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

number! {
    /// The index of a partition in its topic, from 0.
    PartitionId(i32)
}
number! {
    /// A broker (`node.id`), unique in the cluster.
    BrokerId(i32)
}
number! {
    /// The epoch of a broker's registration; a higher one fences what the broker sent under lower ones (KIP-841, KIP-903).
    BrokerEpoch(i64)
}
number! {
    /// The epoch of a partition's state in the metadata, raised at every change of its leader, epoch or in-sync replicas.
    PartitionEpoch(i32)
}

impl PartitionEpoch {
    /// The epoch of a new partition.
    pub const ZERO: PartitionEpoch = PartitionEpoch(0);

    /// The epoch of the next change.
    #[must_use]
    pub const fn next(self) -> PartitionEpoch {
        PartitionEpoch(self.0 + 1)
    }
}

number! {
    /// A producer's id, handed out once and never again (KIP-98).
    ProducerId(i64)
}
number! {
    /// The epoch of a producer id; a higher one fences the lower ones.
    ProducerEpoch(i16)
}
number! {
    /// The sequence number of a record of an idempotent producer; wraps from 2³¹−1 to 0.
    Sequence(i32)
}

impl Sequence {
    /// The sequence `records` later, wrapping from 2³¹−1 to 0.
    #[must_use]
    pub const fn plus(self, records: u32) -> Sequence {
        const WRAP: i64 = 1 << 31;
        let value = (self.0 as i64 + records as i64) % WRAP;
        Sequence(value as i32)
    }
}

/// A shard of this process: an executor bound to a core, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ShardId(pub u16);

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// 16 bytes as the 22 characters of unpadded URL-safe base64 (RFC 4648 §5), as Kafka prints its ids.
fn write_base64(f: &mut fmt::Formatter<'_>, bytes: [u8; 16]) -> fmt::Result {
    let number = u128::from_be_bytes(bytes);
    for character in 0..22 {
        // The 22nd character holds the last two bits, shifted up by four.
        let sextet = if character < 21 { number >> (122 - 6 * character) } else { number << 4 };
        let symbol = BASE64_URL[(sextet & 63) as usize];
        fmt::Write::write_char(f, symbol as char)?;
    }
    Ok(())
}

/// Text that is not an id in Kafka's 22-character form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not an id of 22 characters of URL-safe base64")]
pub struct ParseIdError {
    /// What was given.
    pub text: String,
}

fn parse_base64(text: &str) -> Result<[u8; 16], ParseIdError> {
    let wrong = || ParseIdError { text: text.chars().take(64).collect() };
    if text.len() != 22 {
        return Err(wrong());
    }
    let mut number: u128 = 0;
    for (index, symbol) in text.bytes().enumerate() {
        let sextet = BASE64_URL.iter().position(|&known| known == symbol).ok_or_else(wrong)? as u128;
        number = if index < 21 { number << 6 | sextet } else { number << 2 | sextet >> 4 };
        if index == 21 && sextet & 15 != 0 {
            return Err(wrong());
        }
    }
    Ok(number.to_be_bytes())
}

macro_rules! id_of_16_bytes {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name([u8; 16]);

        impl $name {
            /// The id of these bytes.
            pub const fn from_bytes(bytes: [u8; 16]) -> $name {
                $name(bytes)
            }

            /// A random (version 4) UUID made of 128 random bits.
            pub const fn from_random(random: u128) -> $name {
                let versioned = random & !(0xf << 76) | 4 << 76;
                $name((versioned & !(3 << 62) | 2 << 62).to_be_bytes())
            }

            /// The 16 bytes, as on the wire.
            pub const fn bytes(self) -> [u8; 16] {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base64(f, self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_base64(f, self.0)
            }
        }

        impl std::str::FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<$name, ParseIdError> {
                parse_base64(text).map($name)
            }
        }
    };
}

id_of_16_bytes! {
    /// A topic's id (KIP-516): a topic that is deleted and created again under the same name has another one.
    TopicId
}
id_of_16_bytes! {
    /// The cluster's id, made once when the first node starts.
    ClusterId
}
id_of_16_bytes! {
    /// One start of a broker's process: drawn at random, so that two starts of one broker are told apart.
    Incarnation
}

/// Why a topic's name is not allowed (Kafka's `Topic.validate`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameError {
    /// No characters at all.
    #[error("a topic's name is not empty")]
    Empty,
    /// `.` or `..`.
    #[error("a topic's name is not '.' or '..'")]
    Dots,
    /// More than 249 characters.
    #[error("a topic's name has at most {TOPIC_NAME_BYTES_MAX} characters, this one has {0}")]
    Long(usize),
    /// A character outside `[a-zA-Z0-9._-]`.
    #[error("a topic's name consists of ASCII letters, digits, '.', '_' and '-', not {0:?}")]
    Character(char),
}

/// A topic's name: 1–249 characters of `[a-zA-Z0-9._-]`, not `.` or `..`. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicName(Arc<str>);

impl TopicName {
    /// Checks a name by Kafka's rules.
    pub fn new(name: &str) -> Result<TopicName, TopicNameError> {
        let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
        match name {
            "" => Err(TopicNameError::Empty),
            "." | ".." => Err(TopicNameError::Dots),
            _ if name.len() > TOPIC_NAME_BYTES_MAX => Err(TopicNameError::Long(name.len())),
            _ => match name.chars().find(|&c| !legal(c)) {
                Some(c) => Err(TopicNameError::Character(c)),
                None => Ok(TopicName(name.into())),
            },
        }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name with `.` read as `_`: two topics may not share it, since metrics could not tell them apart (Kafka's
    /// `Topic.unifyCollisionChars`).
    pub fn unified(&self) -> String {
        self.0.replace('.', "_")
    }
}

impl std::borrow::Borrow<str> for TopicName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TopicName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A partition of a topic, by the topic's id.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct TopicPartition {
    /// The topic.
    pub topic: TopicId,
    /// The partition's index in it.
    pub partition: PartitionId,
}

impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_print_as_kafka_prints_them() {
        let id = TopicId::from_bytes([0xff; 16]);
        assert_eq!(id.to_string(), "_____________________w");
        assert_eq!(TopicId::from_bytes([0; 16]).to_string(), "AAAAAAAAAAAAAAAAAAAAAA");
        for bits in [0u128, 1, u128::MAX, 0x0123_4567_89ab_cdef_0011_2233_4455_6677] {
            let id = TopicId::from_bytes(bits.to_be_bytes());
            assert_eq!(id.to_string().parse::<TopicId>(), Ok(id));
        }
        for wrong in ["", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAAAB", "AAAAAAAAAAAAAAAAAAAA=="] {
            assert!(wrong.parse::<TopicId>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn random_ids_are_version_4() {
        let bytes = TopicId::from_random(u128::MAX).bytes();
        assert_eq!((bytes[6] >> 4, bytes[8] >> 6), (4, 2));
    }

    #[test]
    fn topic_names_follow_kafkas_rules() {
        assert!(TopicName::new("trades.eu-1_A").is_ok());
        assert_eq!(TopicName::new(""), Err(TopicNameError::Empty));
        assert_eq!(TopicName::new(".."), Err(TopicNameError::Dots));
        assert_eq!(TopicName::new("a b"), Err(TopicNameError::Character(' ')));
        assert_eq!(TopicName::new(&"x".repeat(250)), Err(TopicNameError::Long(250)));
        assert!(TopicName::new(&"x".repeat(249)).is_ok());
    }

    #[test]
    fn sequences_wrap_to_zero() {
        let last = Sequence::new(i32::MAX).expect("not negative");
        assert_eq!(last.plus(1).value(), 0);
        assert_eq!(last.plus(3).value(), 2);
    }
}
