//! Configuration: every broker and topic key defined once, its sources, and the typed values that the program reads.
//!
//! [`keys`] is the one table (Kafka's name, type, default, unit, range, documentation). [`Settings`] merges the sources
//! (set of this broker > set of all brokers > flag > `--set` > file > default) and refuses what is unknown, out of range or
//! meaningless here; [`BrokerConfig`] and [`TopicConfig`] are the result, in real types. A key that is not in the table does
//! not exist; nothing is parsed and ignored.
//!
//! Not here: reading files, looking up names, asking the machine for its memory: `runtime` does that, and this module is
//! given text and figures. Source of names and defaults: Kafka 4.2, `ServerLogConfigs`, `TopicConfig`, `SocketServerConfigs`.

mod broker;
mod dynamic;
mod entry;
mod key;
pub mod keys;
mod listener;
mod refused;
mod settings;
mod topic;

pub use broker::{BrokerConfig, LogFormat, LogLevel, memory_bytes_default};
pub use dynamic::{DynamicSettings, Level};
pub use entry::ConfigEntry;
pub use key::{Change, Key, Kind, Unit, Value, ValueError, Width};
pub use listener::{AdminListener, Advertised, BindHost, Listener, ListenerError};
pub use settings::{ConfigError, Origin, Settings, Source, Synonym, split_assignment};
pub use topic::{CompressionType, FlushPolicy, TimestampType, TopicConfig};
