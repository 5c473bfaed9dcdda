//! Fetch sessions: named once, told only what is new, and every way in which a client and a broker lose each other.
//!
//! Topics have partitions on every shard; what a session answers does not depend on where they are.

use corelane::types::ErrorCode;
use corelane::wire::client::messages::{FetchRequest, FetchResponse, FetchTopic, ForgottenTopic};
use corelane::wire::messages::DeleteTopicsRequest;

use super::Shared;
use super::clients::wire::{
    Client, FETCH_BY_ID, FETCH_BY_NAME, batch, batches, code, fetch_partition, fetch_request, topic_name,
};

/// A fetch of the session `id` at `epoch`, which adds or changes nothing unless it is told to.
fn session(id: i32, epoch: i32) -> FetchRequest {
    fetch_request(&[]).with_session_id(id).with_session_epoch(epoch)
}

/// Partitions with so many records each, as the answer names them.
fn told(answer: &FetchResponse) -> Vec<(i32, usize)> {
    assert_eq!(code(answer.error_code), ErrorCode::None);
    let partitions = answer.responses.iter().flat_map(|topic| &topic.partitions);
    partitions.map(|data| (data.partition_index, batches(data).len())).collect()
}

/// Opens a session on all partitions of a topic from offset 0; its id, and what it answers.
fn open(client: &mut Client, topic: &str, partitions: i32) -> (i32, Vec<(i32, usize)>) {
    let wanted: Vec<_> = (0..partitions).map(|partition| (topic, partition, 0, 1 << 20)).collect();
    let answer = client.call(FETCH_BY_NAME, &fetch_request(&wanted).with_session_epoch(0));
    assert_ne!(answer.session_id, 0, "a session is opened");
    (answer.session_id, told(&answer))
}

fn assert_refused(answer: &FetchResponse, expected: ErrorCode) {
    assert_eq!(code(answer.error_code), expected);
    assert!(answer.responses.is_empty(), "an error of the session has no topics");
}

#[test]
fn rule_16_without_a_session_every_partition_is_told_every_time() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-16-none", 3, &[]);
    client.append("rule-16-none", 1, &batch(&[b"value"]));
    let wanted = [0, 1, 2].map(|partition| ("rule-16-none", partition, 0, 1 << 20));
    for _ in 0..2 {
        let answer = client.call(FETCH_BY_NAME, &fetch_request(&wanted));
        assert_eq!((answer.session_id, told(&answer)), (0, vec![(0, 0), (1, 1), (2, 0)]));
    }
}

#[test]
fn rule_16_a_session_tells_only_what_is_new() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-16", 4, &[]);
    client.append("rule-16", 2, &batch(&[b"value"]));
    let (id, first) = open(&mut client, "rule-16", 4);
    assert_eq!(first, [(0, 0), (1, 0), (2, 1), (3, 0)], "the first answer is a full one");

    // The client read partition 2: it says so, and nothing else is new.
    let read_on =
        FetchTopic::default().with_topic(topic_name("rule-16")).with_partitions(vec![fetch_partition(2, 1, 1 << 20)]);
    let answer = client.call(FETCH_BY_NAME, &session(id, 1).with_topics(vec![read_on]));
    assert_eq!((answer.session_id, told(&answer)), (id, Vec::new()));

    // New records in two partitions: those are told, from where the session stands.
    client.append("rule-16", 0, &batch(&[b"value"]));
    client.append("rule-16", 2, &batch(&[b"value"]));
    let mut answer = told(&client.call(FETCH_BY_NAME, &session(id, 2)));
    answer.sort_unstable();
    assert_eq!(answer, [(0, 1), (2, 1)]);
    // A client that has not moved on is given the same again.
    let mut again = told(&client.call(FETCH_BY_NAME, &session(id, 3)));
    again.sort_unstable();
    assert_eq!(again, [(0, 1), (2, 1)]);

    // What is forgotten is not told any more.
    let forgotten = ForgottenTopic::default().with_topic(topic_name("rule-16")).with_partitions(vec![0, 1]);
    let request = session(id, 4).with_forgotten_topics_data(vec![forgotten]);
    assert_eq!(told(&client.call(FETCH_BY_NAME, &request)), [(2, 1)]);
}

#[test]
fn rule_16_ids_and_epochs_that_do_not_fit_are_refused_and_the_session_stays() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-16-wrong", 2, &[]);
    let (id, _) = open(&mut client, "rule-16-wrong", 2);
    assert_refused(&client.call(FETCH_BY_NAME, &session(id ^ 1, 1)), ErrorCode::FetchSessionIdNotFound);
    for epoch in [2, 7, i32::MAX, -5] {
        assert_refused(&client.call(FETCH_BY_NAME, &session(id, epoch)), ErrorCode::InvalidFetchSessionEpoch);
    }
    assert_refused(&client.call(FETCH_BY_ID, &session(id, 1)), ErrorCode::FetchSessionTopicIdError);
    assert_eq!(told(&client.call(FETCH_BY_NAME, &session(id, 1))), []);

    // A full fetch that names the session ends it: epoch 0 for a new one, -1 for none.
    let wanted = [("rule-16-wrong", 0, 0, 1)];
    let renewed = client.call(FETCH_BY_NAME, &fetch_request(&wanted).with_session_id(id).with_session_epoch(0));
    assert!(renewed.session_id != 0 && renewed.session_id != id);
    assert_refused(&client.call(FETCH_BY_NAME, &session(id, 2)), ErrorCode::FetchSessionIdNotFound);
    let id = renewed.session_id;
    let ended = client.call(FETCH_BY_NAME, &fetch_request(&wanted).with_session_id(id).with_session_epoch(-1));
    assert_eq!((ended.session_id, told(&ended).len()), (0, 1));
    assert_refused(&client.call(FETCH_BY_NAME, &session(id, 1)), ErrorCode::FetchSessionIdNotFound);
}

#[test]
fn rule_16_a_session_over_another_connection_goes_on_or_is_not_found() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-16-moved", 2, &[]);
    // Connections go round the shards: of these some are on the session's shard and some are not.
    let mut others: Vec<Client> = (0..4).map(|_| shared.client()).collect();
    for other in &mut others {
        let (id, _) = open(&mut client, "rule-16-moved", 2);
        let answer = other.call(FETCH_BY_NAME, &session(id, 1));
        match code(answer.error_code) {
            ErrorCode::None => assert_eq!(answer.session_id, id),
            refused => assert_eq!(refused, ErrorCode::FetchSessionIdNotFound),
        }
    }
}

#[test]
fn rule_16_a_topic_that_is_deleted_and_made_again_is_told_as_such() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let first = client.create_topic("rule-16-again", 1, &[]);
    client.append("rule-16-again", 0, &batch(&[b"value"]));
    let topic = FetchTopic::default().with_topic_id(first).with_partitions(vec![fetch_partition(0, 1, 1 << 20)]);
    let opened = client.call(FETCH_BY_ID, &fetch_request(&[]).with_topics(vec![topic]).with_session_epoch(0));
    let id = opened.session_id;
    assert_eq!(told(&opened), [(0, 0)]);
    delete_topic(&mut client, "rule-16-again");
    let failed = |answer: FetchResponse| {
        assert_eq!((code(answer.error_code), answer.session_id), (ErrorCode::None, id), "the session stays");
        code(answer.responses[0].partitions[0].error_code)
    };
    let gone = failed(client.call(FETCH_BY_ID, &session(id, 1)));
    assert!(matches!(gone, ErrorCode::UnknownTopicId | ErrorCode::UnknownTopicOrPartition), "{gone:?}");
    client.create_topic("rule-16-again", 1, &[]);
    let other = failed(client.call(FETCH_BY_ID, &session(id, 2)));
    assert!(matches!(other, ErrorCode::UnknownTopicId | ErrorCode::InconsistentTopicId), "{other:?}");
}

fn delete_topic(client: &mut Client, name: &str) {
    let request = DeleteTopicsRequest::default().with_topic_names(vec![topic_name(name)]).with_timeout_ms(10_000);
    assert_eq!(code(client.call(5, &request).responses[0].error_code), ErrorCode::None);
}
