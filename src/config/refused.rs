//! Keys of Kafka's that cannot mean anything here, each with what to use in its place.
//!
//! A configuration that was written for Kafka is refused with advice, not half obeyed: a key that were read and ignored
//! would promise what does not happen. Keys that this broker does not know at all are not here; they get the nearest name.

/// (name on either level, what to do in its place).
pub(super) static REFUSED: &[(&str, &str)] = &[
    ("advertised.host.name", "use advertised.listeners"),
    ("advertised.port", "use advertised.listeners"),
    ("background.threads", NO_THREAD_POOLS),
    ("broker.id", "use node.id"),
    ("compression.lz4.level", "LZ4 is packed at one level here; leave it out"),
    ("controller.listener.names", OWN_QUORUM),
    ("controller.quorum.bootstrap.servers", OWN_QUORUM),
    ("controller.quorum.voters", OWN_QUORUM),
    ("file.delete.delay.ms", FILES_GO_AFTER_THEIR_READERS),
    ("host.name", "use listeners"),
    ("inter.broker.protocol.version", "there is one protocol per release; leave it out"),
    ("log.dir", "use log.dirs, which names one directory"),
    ("log.flush.offset.checkpoint.interval.ms", "use checkpoint.interval.ms"),
    ("log.flush.scheduler.interval.ms", "use write.caching=true and log.flush.interval.ms"),
    ("log.flush.start.offset.checkpoint.interval.ms", "the start offset is durable before it is used; leave it out"),
    ("log.index.size.max.bytes", INDEX_SIZES_ITSELF),
    ("log.message.downconversion.enable", ONE_FORMAT),
    ("log.message.format.version", ONE_FORMAT),
    (
        "log.message.timestamp.difference.max.ms",
        "use log.message.timestamp.before.max.ms and log.message.timestamp.after.max.ms",
    ),
    ("log.preallocate", SPACE_IS_PRE_WRITTEN),
    ("log.segment.delete.delay.ms", FILES_GO_AFTER_THEIR_READERS),
    ("message.downconversion.enable", ONE_FORMAT),
    ("message.format.version", ONE_FORMAT),
    ("message.timestamp.difference.max.ms", "use message.timestamp.before.max.ms and message.timestamp.after.max.ms"),
    ("num.io.threads", NO_THREAD_POOLS),
    ("num.network.threads", NO_THREAD_POOLS),
    ("num.recovery.threads.per.data.dir", NO_THREAD_POOLS),
    ("num.replica.alter.log.dirs.threads", NO_THREAD_POOLS),
    ("num.replica.fetchers", NO_THREAD_POOLS),
    ("port", "use listeners"),
    ("preallocate", SPACE_IS_PRE_WRITTEN),
    ("process.roles", OWN_QUORUM),
    ("queued.max.request.bytes", "use memory.bytes, of which requests have a fixed share"),
    ("queued.max.requests", "use memory.bytes, of which requests have a fixed share"),
    ("segment.index.bytes", INDEX_SIZES_ITSELF),
    ("socket.receive.buffer.bytes", KERNEL_SIZES_BUFFERS),
    ("socket.send.buffer.bytes", KERNEL_SIZES_BUFFERS),
    ("zookeeper.connect", "there is no ZooKeeper: metadata lives in the data directory; leave it out"),
    ("zookeeper.connection.timeout.ms", "there is no ZooKeeper; leave it out"),
    ("zookeeper.session.timeout.ms", "there is no ZooKeeper; leave it out"),
];

const NO_THREAD_POOLS: &str = "there are no thread pools, a shard does all the work of its core; leave it out";
const OWN_QUORUM: &str = "a single node is its own quorum; leave it out";
const FILES_GO_AFTER_THEIR_READERS: &str = "a file is deleted after its last reader; leave it out";
const INDEX_SIZES_ITSELF: &str =
    "the index takes what its entries need; see log.index.interval.bytes (index.interval.bytes)";
const ONE_FORMAT: &str = "records are stored in format v2 only; leave it out";
const SPACE_IS_PRE_WRITTEN: &str = "space is always written ahead at the rate of the partition; leave it out";
const KERNEL_SIZES_BUFFERS: &str = "the kernel sizes socket buffers; leave it out";

/// What to do in place of the key `name`, if it is one of these.
pub(super) fn advice(name: &str) -> Option<&'static str> {
    REFUSED.iter().find(|(refused, _)| *refused == name).map(|(_, advice)| *advice)
}

#[cfg(test)]
mod tests {
    use super::super::keys;
    use super::*;

    #[test]
    fn no_key_is_both_refused_and_known() {
        for (name, _) in REFUSED {
            assert!(keys::by_name(name).is_none() && keys::by_topic_name(name).is_none(), "{name}");
        }
    }

    #[test]
    fn the_table_is_sorted() {
        assert!(REFUSED.is_sorted_by(|a, b| a.0 < b.0));
    }
}
