//! Versions, headers, the order of answers, and what ends a connection.
//!
//! A connection that ends is ended without an answer and with one line in the log; others do not notice.

use std::net::SocketAddr;

use bytes::Bytes;
use corelane::types::ErrorCode;
use corelane::wire::messages::{ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, StrBytes};
use corelane::wire::table::TABLE;
use corelane::wire::{ApiKey, CorrelationId, client};

use super::Shared;
use super::clients::wire::{Client, PRODUCE_BY_NAME, batch, code, fetch_request, produce_request};

/// A request header of version 1 without a client id.
fn header(key: i16, version: i16, correlation: i32) -> Vec<u8> {
    let (key, version) = (key.to_be_bytes(), version.to_be_bytes());
    [&key[..], &version, &correlation.to_be_bytes(), &(-1i16).to_be_bytes()].concat()
}

fn api_versions() -> ApiVersionsRequest {
    ApiVersionsRequest::default()
        .with_client_software_name(StrBytes::from_static_str("corelane-tests"))
        .with_client_software_version(StrBytes::from_static_str("1"))
}

/// Whether the connection still answers.
#[track_caller]
fn assert_served(client: &mut Client) {
    assert_eq!(code(client.call(3, &api_versions()).error_code), ErrorCode::None);
}

#[test]
fn rule_01_an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in [5, 99, i16::MAX, -1] {
        // The body is of a version that nobody knows: it is not read.
        client.send_frame(&[header(18, version, 77), vec![0xff; 9]].concat());
        let frame = client.receive_frame();
        let api = corelane::wire::Api::lookup(18, 0).expect("in the table");
        let answer: ApiVersionsResponse = client::decode_response(api, CorrelationId(77), frame).expect("version 0");
        assert_eq!(code(answer.error_code), ErrorCode::UnsupportedVersion);
        assert_eq!(answer.api_keys.len(), TABLE.len(), "the table is whole");
        assert_served(&mut client);
    }
}

#[test]
fn rule_01_any_other_unknown_key_or_version_closes_the_connection() {
    let shared = Shared::broker();
    for (key, version, line) in [
        (4242, 0, "API key 4242 (version 0)"),
        (-1, 0, "API key -1 (version 0)"),
        (ApiKey::Metadata.code(), 14, "Metadata is spoken in versions 0 to 13, not 14"),
        (ApiKey::Fetch.code(), 3, "Fetch is spoken in versions 4 to 18, not 3"),
        (ApiKey::Produce.code(), 14, "Produce is spoken in versions 0 to 13, not 14"),
        (ApiKey::ListOffsets.code(), -7, "ListOffsets is spoken in versions 1 to 11, not -7"),
    ] {
        let mut client = shared.client();
        assert_served(&mut client);
        client.send_frame(&[header(key, version, 1), vec![0; 16]].concat());
        client.assert_closed();
        shared.await_log(&[line, "127.0.0.1"]);
    }
}

#[test]
fn rule_02_the_header_of_an_api_versions_answer_is_version_0() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in 0..=4 {
        let frame = client.encode(version, &api_versions()).0;
        client.send_bytes(&frame);
        let answer = client.receive_frame();
        assert_eq!(answer[..4], frame[8..12], "the correlation id");
        // A header of version 1 would put an empty list of tagged fields (one zero byte) in front of the error code, and
        // the number of APIs would not follow it.
        assert_eq!(answer[4..6], [0, 0], "the error code follows it at once");
        let count = TABLE.len() as u8;
        let expected: &[u8] = if version >= 3 { &[count + 1] } else { &[0, 0, 0, count] };
        assert_eq!(&answer[6..6 + expected.len()], expected, "the number of APIs of version {version}");
        assert_eq!(code(client.call(version, &api_versions()).error_code), ErrorCode::None);
    }
}

#[test]
fn rule_03_features_with_a_minimum_of_0_are_left_out_below_version_4() {
    let shared = Shared::broker();
    let mut client = shared.client();
    for version in 0..=4 {
        let answer = client.call(version, &api_versions());
        let zero = answer.supported_features.iter().find(|feature| feature.min_version == 0);
        assert!(version >= 4 || zero.is_none(), "version {version} lists {zero:?}");
        let transactions = answer.finalized_features.iter().find(|feature| &*feature.name == "transaction.version");
        assert!(transactions.is_none_or(|feature| feature.max_version_level < 2), "{transactions:?}");
    }
}

#[test]
fn rule_05_answers_come_in_the_order_of_the_requests() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-05", 3, &[]);
    let mut bytes = Vec::new();
    let mut correlations = Vec::new();
    // Slow and fast ones by turns, all sent before the first answer is read: produces wait for the disk, fetches for
    // bytes that do not come, the others for nothing.
    for round in 0..20 {
        let waiting = fetch_request(&[("rule-05", 2, 0, 1 << 20)]).with_max_wait_ms(20).with_min_bytes(1);
        for frame in [
            client.encode(PRODUCE_BY_NAME, &produce_request("rule-05", round % 2, &batch(&[b"one", b"two"]), -1)).0,
            client.encode(PRODUCE_BY_NAME, &produce_request("rule-05", 0, &batch(&[b"three"]), 1)).0,
            client.encode(4, &api_versions()).0,
            client.encode(12, &waiting).0,
            client.encode(9, &MetadataRequest::default().with_topics(Some(Vec::new()))).0,
        ] {
            correlations.push(frame.slice(8..12));
            bytes.extend_from_slice(&frame);
        }
    }
    client.send_bytes(&bytes);
    let answered: Vec<Bytes> = correlations.iter().map(|_| client.receive_frame().slice(..4)).collect();
    assert_eq!(answered, correlations);
}

#[test]
fn rule_05_requests_start_in_the_order_of_their_arrival() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-05-starts", 1, &[]);
    let values: Vec<Vec<u8>> = (0..100).map(|number: u32| number.to_be_bytes().to_vec()).collect();
    let mut bytes = Vec::new();
    let mut sent = Vec::new();
    for value in &values {
        let (frame, waiting) =
            client.encode(PRODUCE_BY_NAME, &produce_request("rule-05-starts", 0, &batch(&[value]), -1));
        bytes.extend_from_slice(&frame);
        sent.push(waiting);
    }
    // Sent without waiting for the produces: it sees what they wrote.
    let (frame, fetched) = client.encode(12, &fetch_request(&[("rule-05-starts", 0, 0, 8 << 20)]));
    bytes.extend_from_slice(&frame);
    client.send_bytes(&bytes);
    for (offset, waiting) in (0i64..).zip(sent) {
        let answer = client.receive(waiting).responses.remove(0).partition_responses.remove(0);
        assert_eq!((code(answer.error_code), answer.base_offset), (ErrorCode::None, offset));
    }
    let data = super::clients::wire::partitions(client.receive(fetched)).remove(0);
    assert_eq!((data.high_watermark, super::clients::wire::batches(&data).len()), (100, 100));
}

/// Sends `bytes` as they are to a broker that serves others, and demands that this connection ends, one line of the log
/// says why, and a neighbour is served as before.
#[track_caller]
fn assert_ends_alone(shared: &Shared, bytes: &[u8], then_end: bool, words: &[&str]) {
    let mut neighbour = shared.client();
    assert_served(&mut neighbour);
    let address: SocketAddr = shared.address();
    let mut client = Client::connect(address);
    client.send_bytes(bytes);
    if then_end {
        client.end_sending();
    }
    client.assert_closed();
    shared.await_log(words);
    assert_served(&mut neighbour);
}

#[test]
fn rule_28_a_negative_frame_length_closes_the_connection() {
    let shared = Shared::broker();
    assert_ends_alone(&shared, &(-1i32).to_be_bytes(), false, &["a frame of -1 bytes", "127.0.0.1"]);
    assert_ends_alone(&shared, &i32::MIN.to_be_bytes(), false, &["a frame of -2147483648 bytes"]);
}

#[test]
fn rule_28_a_frame_above_the_limit_closes_the_connection() {
    let shared = Shared::broker();
    let words = ["socket.request.max.bytes", "2147483647", "127.0.0.1"];
    assert_ends_alone(&shared, &i32::MAX.to_be_bytes(), false, &words);
    // What looks like the start of an HTTP request is a length of 1.2 GB.
    assert_ends_alone(&shared, b"GET / HTTP/1.1\r\n\r\n", false, &["socket.request.max.bytes", "1195725856"]);
}

#[test]
fn rule_28_a_truncated_frame_closes_the_connection() {
    let shared = Shared::broker();
    let mut client = shared.client();
    let whole = client.encode(3, &api_versions()).0;
    for length in [1, 4, 5, whole.len() - 1] {
        assert_ends_alone(&shared, &whole[..length], true, &["before the end of a frame", "127.0.0.1"]);
    }
}

#[test]
fn rule_28_a_malformed_request_closes_the_connection() {
    let shared = Shared::broker();
    let framed = |contents: Vec<u8>| [&(contents.len() as u32).to_be_bytes()[..], &contents].concat();
    // Too short for a header.
    assert_ends_alone(&shared, &framed(vec![0, 3, 0]), false, &["request header", "127.0.0.1"]);
    assert_ends_alone(&shared, &framed(Vec::new()), false, &["request header"]);
    // Two billion topics in a body of a few bytes: nothing may be allocated for them.
    let giant = [header(3, 1, 1), i32::MAX.to_be_bytes().to_vec()].concat();
    assert_ends_alone(&shared, &framed(giant), false, &["Metadata v1", "127.0.0.1"]);
    let giant = [header(1, 4, 1), vec![0xff; 4], vec![0; 13], i32::MAX.to_be_bytes().to_vec()].concat();
    assert_ends_alone(&shared, &framed(giant), false, &["Fetch v4", "127.0.0.1"]);
    let giant = [header(0, 3, 1), vec![0xff, 0xff, 0, 1, 0, 0, 0, 1], i32::MAX.to_be_bytes().to_vec()].concat();
    assert_ends_alone(&shared, &framed(giant), false, &["Produce v3", "127.0.0.1"]);
    // Bytes behind the end of a request are nothing: Kafka does not look at them either.
    let mut client = shared.client();
    let long = client.encode(1, &MetadataRequest::default().with_topics(Some(Vec::new()))).0;
    client.send_frame(&[&long[4..], &[1]].concat());
    assert_eq!(client.receive_frame()[..4], long[8..12]);
}

#[test]
fn rule_28_every_truncation_of_a_request_closes_the_connection_and_nothing_else() {
    let shared = Shared::broker();
    let mut client = shared.client();
    client.create_topic("rule-28", 1, &[]);
    let produce = client.encode(9, &produce_request("rule-28", 0, &batch(&[b"whole"]), -1)).0;
    let fetch = client.encode(12, &fetch_request(&[("rule-28", 0, 0, 1 << 20)])).0;
    let metadata = client.encode(12, &MetadataRequest::default().with_topics(None)).0;
    for whole in [produce, fetch, metadata] {
        let contents = &whole[4..];
        for length in 0..contents.len() {
            let mut truncated = shared.client();
            truncated.send_frame(&contents[..length]);
            truncated.assert_closed();
        }
    }
    assert_eq!(client.fetch("rule-28", 0, 0).high_watermark, 0, "none of them was carried out");
    assert_eq!(client.append("rule-28", 0, &batch(&[b"whole"])), 0);
}
