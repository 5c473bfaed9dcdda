//! A key with its value in force and where that comes from, as CreateTopics and DescribeConfigs report it.
//!
//! Nothing is hidden: a key that has no value is an entry without one, and what a stronger source hides stands among the
//! synonyms. The numbers that the wire has for types and sources are not known here.

use super::key::{Change, Key, Value};
use super::settings::{Source, Synonym};

/// A key of a topic or broker with its value in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// The name on the level of the topic or broker.
    pub name: &'static str,
    /// The value, in the unit of this key; `None` if nothing gives it one.
    pub value: Option<Value>,
    /// Where the value comes from.
    pub source: Source,
    /// Every value that the key has somewhere, the one in force first. Coarser keys tell theirs in their own unit.
    pub synonyms: Vec<Synonym>,
    /// The row of the table.
    pub key: &'static Key,
}

impl ConfigEntry {
    /// Whether the value cannot be changed while the broker runs.
    pub fn is_read_only(&self) -> bool {
        self.key.change == Change::ReadOnly
    }
}
