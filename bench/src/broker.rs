//! A broker's configuration and one of its partitions, as measurements want them: on one shard, with little memory.
//!
//! Both are made by the broker's own functions from its own defaults, so that what is measured is what runs. Nothing is served
//! here.

use std::fmt::Display;
use std::fs;
use std::io;
use std::path::Path;
use std::rc::Rc;

use corelane::cli;
use corelane::config::BrokerConfig;
use corelane::partition::{Partition, log_options, storage_options};
use corelane::storage::{Log, Storage};
use corelane::types::{LeaderEpoch, PartitionId, TopicId, TopicName, TopicPartition};

/// Memory of the broker, in bytes: so little that the append buffers, 45 % of it, are full after a moment and their memory is
/// used again, as in a broker that has run for a while, and enough for the largest requests in flight.
const MEMORY: &str = "memory.bytes=268435456";

/// The configuration that is measured: the defaults but for the memory, on a free port of the loopback, on one shard.
///
/// # Errors
/// A directory whose name is not UTF-8.
pub fn config(data_dir: &Path) -> io::Result<BrokerConfig> {
    let data_dir = data_dir.to_str().ok_or(io::ErrorKind::InvalidInput)?;
    let words = [
        "corelane",
        "serve",
        "--data-dir",
        data_dir,
        "--listen",
        "127.0.0.1:0",
        "--shards",
        "1",
        "--set",
        "log.level=error",
        "--set",
        MEMORY,
    ];
    match cli::parse(words).map_err(io::Error::other)? {
        cli::Request::Serve(arguments) => arguments.load().map_err(io::Error::other),
        cli::Request::Print(text) => Err(io::Error::other(text)),
    }
}

/// A new partition in `directory`, on the current shard, and the storage that its log lies in.
///
/// # Errors
/// Those of the disk, and a directory with a log in it.
pub async fn open_partition(directory: &Path, write_caching: bool) -> io::Result<(Rc<Storage>, Rc<Partition>)> {
    fs::create_dir_all(directory)?;
    let config = config(directory)?;
    let topic = config.topic([("write.caching", write_caching.to_string())]).map_err(io::Error::other)?;
    let storage = Storage::new(storage_options(&config));
    let partition = PartitionId::new(0).expect("not negative");
    let at = TopicPartition { topic: TopicId::from_random(1), partition };
    let options = log_options(&topic, &config);
    let log = Log::create(&storage, &directory.join("log"), at, options).await.map_err(other)?;
    let name = TopicName::new("cost").map_err(io::Error::other)?;
    Ok((storage, Partition::new(name, at, log, LeaderEpoch::ZERO, topic)))
}

/// An error of a shard as one of this program: those of logs stay on their thread, their text does not.
pub fn other(error: impl Display) -> io::Error {
    io::Error::other(error.to_string())
}
