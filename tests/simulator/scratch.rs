//! A client that creates topics, uses them for a moment and deletes them, some by the same name again.
//!
//! A topic that was deleted is gone with all that was in it, whatever crashes in between; one of the same name that comes
//! after it starts empty. As soon as an answer is lost the client gives the name up, since it cannot know what there is.

use std::rc::Rc;

use corelane::record::{BatchScanner, Decompressors};
use corelane::runtime::sim::Random;
use corelane::runtime::{Duration, sleep, wall_clock};
use corelane::types::ErrorCode;
use corelane::wire::ApiKey;
use corelane::wire::client::messages::ProduceResponse;
use corelane::wire::messages::{
    CreatableTopic, CreateTopicsRequest, CreateTopicsResponse, DeleteTopicState, DeleteTopicsRequest,
    DeleteTopicsResponse, MetadataRequest, MetadataRequestTopic, MetadataResponse,
};

use crate::broker_clients::{
    Shared, fetch_request, fetched_partition, produce_request, produced_partition, topic_name,
};
use crate::client::{Client, Lost, api};
use crate::payload::{Maker, Sizes, Stamp};

/// Stamps of these topics begin here, so that none is taken for that of a partition that lasts.
const STAMPS_FROM: u64 = 1 << 32;

/// Why a name is given up.
enum GiveUp {
    Lost,
    /// The broker cannot do it now.
    Refused,
}

impl From<Lost> for GiveUp {
    fn from(Lost: Lost) -> GiveUp {
        GiveUp::Lost
    }
}

/// Creates, uses and deletes topics until the seed comes to its end.
pub(crate) async fn churn(shared: Rc<Shared>, mut random: Random) {
    let (mut name_number, mut life) = (0_u64, 0_u64);
    while !shared.stop.get() {
        sleep(Duration::from_millis(50 + random.below(1_500))).await;
        if shared.stop.get() {
            break;
        }
        life += 1;
        let name = format!("scratch-{name_number}");
        if live_once(&shared, &name, STAMPS_FROM + life, &mut random).await.is_err() {
            name_number += 1;
        }
    }
    shared.running.set(shared.running.get() - 1);
}

/// One life of a topic, from its creation to its end.
async fn live_once(shared: &Shared, name: &str, log: u64, random: &mut Random) -> Result<(), GiveUp> {
    let mut client = Client::connect(shared.address).await?;
    create(&mut client, name).await?;
    let mut maker = Maker::new(random);
    let batches = random.below(4);
    for number in 0..batches {
        let stamp = Stamp { log, producer: 1, number };
        let sent = maker.make(random, stamp, Sizes::Mixed { bytes_max: 20_000 }, None, wall_clock());
        let request = produce_request(name, 0, -1, &sent.bytes);
        let response: ProduceResponse = client.call(api(ApiKey::Produce, 9), &request).await?;
        if produced_partition(&response).0 != 0 {
            return Err(GiveUp::Refused);
        }
    }
    let partition =
        fetched_partition(client.call(api(ApiKey::Fetch, 12), &fetch_request(name, 0, 0, 0, 1 << 20)).await?);
    if partition.error_code != 0 {
        return Err(GiveUp::Refused);
    }
    let mut decompressors = Decompressors::new();
    let mut found = 0;
    for batch in BatchScanner::new(partition.records.as_deref().unwrap_or_default(), 0, usize::MAX) {
        let batch = batch.unwrap_or_else(|error| panic!("{name}: {error}"));
        let stamp = Stamp::of(&batch, &mut decompressors);
        assert_eq!(stamp, Some(Stamp { log, producer: 1, number: found }), "{name}: a record of another topic's life");
        found += 1;
    }
    assert_eq!(found, batches, "{name}: acknowledged batches are lost");
    delete(&mut client, name).await
}

async fn create(client: &mut Client, name: &str) -> Result<(), GiveUp> {
    let topic = CreatableTopic::default().with_name(topic_name(name)).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_timeout_ms(4_000).with_topics(vec![topic]);
    let response: CreateTopicsResponse = client.call(api(ApiKey::CreateTopics, 7), &request).await?;
    let code = response.topics[0].error_code;
    assert!(code != ErrorCode::TopicAlreadyExists.code(), "{name} was deleted and is there again");
    if code == 0 { Ok(()) } else { Err(GiveUp::Refused) }
}

async fn delete(client: &mut Client, name: &str) -> Result<(), GiveUp> {
    let topic = DeleteTopicState::default().with_name(Some(topic_name(name)));
    let request = DeleteTopicsRequest::default().with_timeout_ms(4_000).with_topics(vec![topic]);
    let response: DeleteTopicsResponse = client.call(api(ApiKey::DeleteTopics, 6), &request).await?;
    if response.responses[0].error_code != 0 {
        return Err(GiveUp::Refused);
    }
    let topic = MetadataRequestTopic::default().with_name(Some(topic_name(name)));
    let request = MetadataRequest::default().with_topics(Some(vec![topic]));
    let response: MetadataResponse = client.call(api(ApiKey::Metadata, 9), &request).await?;
    let code = response.topics[0].error_code;
    assert_eq!(code, ErrorCode::UnknownTopicOrPartition.code(), "{name} was deleted and is still listed");
    Ok(())
}
