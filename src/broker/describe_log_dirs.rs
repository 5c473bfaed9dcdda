//! DescribeLogDirs: the data directory, the file system that holds it, and the bytes of the partitions in it.
//!
//! There is one directory. Of the partitions asked for (null: all) those are listed whose logs are open here; what is not here
//! is left out, as Kafka does. The size of a partition is that of its segments up to the log end, without the space that is
//! zeroed ahead. No log is moved between directories, so that none is a future one and none lags.
//!
//! Source: KIP-113, KIP-827 (total and usable bytes).

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use tracing::warn;

use super::shard::Shard;
use crate::controller::ClusterImage;
use crate::runtime::directory;
use crate::types::{ErrorCode, PartitionId, TopicId, TopicPartition};
use crate::wire::messages::{
    DescribableLogDirTopic, DescribeLogDirsPartition, DescribeLogDirsRequest, DescribeLogDirsResponse,
    DescribeLogDirsResult, DescribeLogDirsTopic, StrBytes, TopicName,
};

/// Partitions by topic.
type Wanted = BTreeMap<TopicId, Vec<PartitionId>>;

pub(super) async fn answer(shard: &Rc<Shard>, request: DescribeLogDirsRequest) -> DescribeLogDirsResponse {
    let root = shard.data.root();
    let result = match file_system(root).await {
        Ok((path, space)) => {
            let image = shard.image();
            let wanted = request.topics.map_or_else(|| every(&image), |topics| asked(&image, &topics));
            DescribeLogDirsResult::default()
                .with_log_dir(text(&path))
                .with_topics(describe(shard, &image, wanted).await)
                .with_total_bytes(wire_bytes(space.total_bytes))
                .with_usable_bytes(wire_bytes(space.free_bytes))
        }
        Err(error) => {
            warn!(path = %root.display(), %error, "the data directory cannot be described");
            let result = DescribeLogDirsResult::default().with_log_dir(text(root));
            result.with_error_code(ErrorCode::KafkaStorageError.code())
        }
    };
    DescribeLogDirsResponse::default().with_results(vec![result])
}

async fn file_system(root: &Path) -> io::Result<(PathBuf, directory::Space)> {
    Ok((directory::absolute(root)?, directory::space(root).await?))
}

fn every(image: &ClusterImage) -> Wanted {
    let partitions = |topic: &crate::controller::Topic| topic.partitions.iter().map(|p| p.index).collect();
    image.topics().map(|topic| (topic.id, partitions(topic))).collect()
}

/// The partitions of topics that exist, each once, however often it is asked for.
fn asked(image: &ClusterImage, topics: &[DescribableLogDirTopic]) -> Wanted {
    let mut wanted = Wanted::new();
    for asked in topics {
        if let Some(topic) = image.topic_by_name(&asked.topic) {
            let indexes = asked.partitions.iter().filter_map(|&index| PartitionId::new(index));
            wanted.entry(topic.id).or_default().extend(indexes);
        }
    }
    for partitions in wanted.values_mut() {
        partitions.sort_unstable();
        partitions.dedup();
    }
    wanted
}

async fn describe(shard: &Rc<Shard>, image: &ClusterImage, wanted: Wanted) -> Vec<DescribeLogDirsTopic> {
    let at = |topic: TopicId, partition: &PartitionId| (Ok(TopicPartition { topic, partition: *partition }), ());
    let asked = wanted.iter().flat_map(|(id, indexes)| indexes.iter().map(|index| at(*id, index))).collect();
    let sizes = shard.gather(asked, |shard, at, ()| async move { size(&shard, at) });
    let mut sizes = sizes.await.into_iter();
    let mut topics = Vec::with_capacity(wanted.len());
    for (id, indexes) in wanted {
        let described = indexes.into_iter().zip(sizes.by_ref()).filter_map(|(index, size)| {
            let described = DescribeLogDirsPartition::default().with_partition_index(index.value());
            Some(described.with_partition_size(wire_bytes(size.ok()?)))
        });
        let partitions: Vec<DescribeLogDirsPartition> = described.collect();
        let Some(topic) = image.topic(id).filter(|_| !partitions.is_empty()) else { continue };
        let name = TopicName(StrBytes::from_string(topic.name.to_string()));
        topics.push(DescribeLogDirsTopic::default().with_name(name).with_partitions(partitions));
    }
    topics
}

/// Bytes of one partition's segments.
fn size(shard: &Rc<Shard>, at: TopicPartition) -> Result<u64, ErrorCode> {
    shard.partition(&shard.image(), at).map(|partition| partition.size_bytes())
}

fn text(path: &Path) -> StrBytes {
    StrBytes::from_string(path.to_string_lossy().into_owned())
}

fn wire_bytes(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}
