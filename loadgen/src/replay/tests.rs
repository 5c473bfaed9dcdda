//! The shapes of the benchmark's own workload files, written anew, and every way in which a file can be wrong.

use super::*;

/// A fixed rate and a payload file.
const PACED: &str = "
name: one topic, sixteen partitions
topics: 1
partitionsPerTopic: 16
messageSize: 1024
payloadFile: \"payload/payload-1Kb.data\"
subscriptionsPerTopic: 1
consumerPerSubscription: 1
producersPerTopic: 1
producerRate: 50000
consumerBacklogSizeGB: 0
testDurationMinutes: 15
";

/// Random payloads, several producers and consumers, with blank lines and comments.
const RANDOM: &str = "
# Half of every value can be compressed away.
name: 200k, four by four

topics: 1
partitionsPerTopic: 100

messageSize: 1024
useRandomizedPayloads: true
randomBytesRatio: 0.5
randomizedPayloadPoolSize: 1000

subscriptionsPerTopic: 1
consumerPerSubscription: 4
producersPerTopic: 4

producerRate: 200000

consumerBacklogSizeGB: 0
testDurationMinutes: 5
";

/// `text` with the line of `field` replaced by `line`, or with `line` behind it if there is no such line.
fn with(text: &str, field: &str, line: &str) -> String {
    let has = |candidate: &&str| candidate.starts_with(&format!("{field}:"));
    let kept: Vec<&str> = text.lines().filter(|candidate| !has(candidate)).collect();
    format!("{}\n{line}\n", kept.join("\n"))
}

fn plan(text: &str) -> Result<ReplayPlan, PlanError> {
    Workload::parse(text).expect("a workload").plan()
}

#[test]
fn a_paced_workload_is_planned() {
    let expected = ReplayPlan {
        name: "one topic, sixteen partitions".to_owned(),
        topics: 1,
        partitions_per_topic: 16,
        record_bytes: 1024,
        payload: Payload::File("payload/payload-1Kb.data".into()),
        keys: Keys::None,
        producers_per_topic: 1,
        subscriptions_per_topic: 1,
        consumers_per_subscription: 1,
        rate: Some(50_000.0),
        duration: Duration::from_secs(15 * 60),
        warmup: Duration::from_secs(60),
        backlog: None,
    };
    assert_eq!(plan(PACED), Ok(expected));
}

#[test]
fn random_payloads_are_planned() {
    let planned = plan(RANDOM).unwrap();
    assert_eq!(planned.payload, Payload::Random { entropy: 0.5, pool: 1000 });
    assert_eq!((planned.producers_per_topic, planned.consumers_per_subscription), (4, 4));
    assert_eq!(planned.rate, Some(200_000.0));
}

#[test]
fn rate_0_looks_for_the_highest() {
    assert_eq!(plan(&with(PACED, "producerRate", "producerRate: 0")).unwrap().rate, None);
}

#[test]
fn a_backlog_is_counted_in_gib() {
    let text = with(RANDOM, "consumerBacklogSizeGB", "consumerBacklogSizeGB: 512");
    assert_eq!(plan(&text).unwrap().backlog, Some(Backlog { bytes: 512 << 30, drain_ratio: 1.0 }));
    let partly = with(&text, "backlogDrainRatio", "backlogDrainRatio: 0.99");
    assert_eq!(plan(&partly).unwrap().backlog, Some(Backlog { bytes: 512 << 30, drain_ratio: 0.99 }));
}

#[test]
fn the_warm_up_can_be_left_out() {
    let text = with(PACED, "warmupDurationMinutes", "warmupDurationMinutes: 0");
    assert_eq!(plan(&text).unwrap().warmup, Duration::ZERO);
}

#[test]
fn keys_are_chosen_as_the_benchmark_does() {
    for (name, keys) in
        [("NO_KEY", Keys::None), ("KEY_ROUND_ROBIN", Keys::RoundRobin(10_000)), ("RANDOM_NANO", Keys::Uniform(10_000))]
    {
        let text = with(PACED, "keyDistributor", &format!("keyDistributor: \"{name}\""));
        assert_eq!(plan(&text).unwrap().keys, keys, "{name}");
    }
    let unknown = Workload::parse(&with(PACED, "keyDistributor", "keyDistributor: ZIPF"));
    assert!(unknown.unwrap_err().to_string().contains("ZIPF"), "the benchmark would silently use no keys");
}

#[test]
fn an_unknown_field_is_answered_with_the_one_that_was_meant() {
    for (slip, meant) in [
        ("producerrate", Some("producerRate")),
        ("consumersPerSubscription", Some("consumerPerSubscription")),
        ("partitionPerTopic", Some("partitionsPerTopic")),
        ("testDurationMinuets", Some("testDurationMinutes")),
        ("zzz", None),
    ] {
        match Workload::parse(&format!("{PACED}{slip}: 1\n")) {
            Err(WorkloadError::UnknownField { field, nearest }) => assert_eq!((field.as_str(), nearest), (slip, meant)),
            other => panic!("{slip}: {other:?}"),
        }
    }
    let error = Workload::parse(&format!("{PACED}topic: 1\n")).unwrap_err();
    assert_eq!(error.to_string(), "a workload has no field 'topic'; did you mean 'topics'?");
}

#[test]
fn a_driver_file_is_told_from_a_workload() {
    let driver = "name: Kafka\ndriverClass: some.Driver\nreplicationFactor: 3\ntopicConfig: |\n  a=b\n";
    assert!(matches!(Workload::parse(driver), Err(WorkloadError::DriverField(_))));
}

#[test]
fn what_is_not_a_workload_is_refused_with_its_place() {
    for field in FIELDS {
        let optional = ["name", "payloadFile", "consumerBacklogSizeGB"].contains(&field);
        if PACED.contains(&format!("\n{field}:")) && !optional {
            let error = Workload::parse(&with(PACED, field, "")).unwrap_err();
            assert!(error.to_string().contains(field), "{error}");
        }
    }
    let wrong = [
        ("topics", "topics: many"),
        ("topics", "topics: -1"),
        ("messageSize", "messageSize: 1.5"),
        ("topics", "topics: 1\ntopics: 2"),
        ("topics", "topics: [1]"),
        ("producerRate", "producerRate: 99999999999"),
    ];
    for (field, line) in wrong {
        let error = Workload::parse(&with(PACED, field, line)).unwrap_err();
        assert!(matches!(error, WorkloadError::Yaml(_)), "{line}: {error}");
        assert!(error.to_string().contains("line "), "{line}: {error}");
    }
    for text in ["", "- a\n- b\n", "just words", "a: [", "topics: 1\n---\ntopics: 2\n"] {
        assert!(Workload::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn fields_that_cannot_be_run_say_why() {
    let idle = |field, reason| PlanError::Idle { field, reason };
    let missing = |needed| PlanError::Missing { needed, field: "useRandomizedPayloads" };
    let ratio = |field, value| PlanError::Ratio { field, value };
    let rows = [
        (PACED, "topics", "topics: 0", PlanError::Zero("topics")),
        (PACED, "partitionsPerTopic", "partitionsPerTopic: 0", PlanError::Zero("partitionsPerTopic")),
        (PACED, "producersPerTopic", "producersPerTopic: 0", PlanError::Zero("producersPerTopic")),
        (PACED, "testDurationMinutes", "testDurationMinutes: 0", PlanError::Endless),
        (PACED, "messageSize", "messageSize: 39", PlanError::Small(39)),
        (PACED, "payloadFile", "", PlanError::NoPayload),
        (PACED, "", "randomBytesRatio: 0.5", idle("randomBytesRatio", "without 'useRandomizedPayloads: true'")),
        (
            PACED,
            "",
            "randomizedPayloadPoolSize: 9",
            idle("randomizedPayloadPoolSize", "without 'useRandomizedPayloads: true'"),
        ),
        (PACED, "", "backlogDrainRatio: 0.9", idle("backlogDrainRatio", "without a backlog")),
        (RANDOM, "", "payloadFile: f", idle("payloadFile", "with 'useRandomizedPayloads: true'")),
        (RANDOM, "randomBytesRatio", "", missing("randomBytesRatio")),
        (RANDOM, "randomizedPayloadPoolSize", "", missing("randomizedPayloadPoolSize")),
        (
            RANDOM,
            "randomizedPayloadPoolSize",
            "randomizedPayloadPoolSize: 0",
            PlanError::Zero("randomizedPayloadPoolSize"),
        ),
        (RANDOM, "randomBytesRatio", "randomBytesRatio: 1.5", ratio("randomBytesRatio", 1.5)),
        (RANDOM, "randomBytesRatio", "randomBytesRatio: -0.1", ratio("randomBytesRatio", -0.1)),
        (
            RANDOM,
            "consumerBacklogSizeGB",
            "consumerBacklogSizeGB: 1\nbacklogDrainRatio: 2",
            ratio("backlogDrainRatio", 2.0),
        ),
        (
            RANDOM,
            "consumerBacklogSizeGB",
            "consumerBacklogSizeGB: 18446744073709551615",
            PlanError::BacklogTooLarge(u64::MAX),
        ),
    ];
    for (text, field, line, expected) in rows {
        assert_eq!(plan(&with(text, field, line)), Err(expected), "{line}");
    }
    let backlog = with(RANDOM, "consumerBacklogSizeGB", "consumerBacklogSizeGB: 1");
    let unpaced = with(&backlog, "producerRate", "producerRate: 0");
    assert_eq!(plan(&unpaced), Err(PlanError::BacklogWithoutRate));
    let unread = with(&backlog, "subscriptionsPerTopic", "subscriptionsPerTopic: 0");
    assert_eq!(plan(&unread), Err(PlanError::UnreadBacklog));
}
