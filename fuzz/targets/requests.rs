//! Requests, as a connection's frame reaches the decoders: header, then the body of its API.
//!
//! [`decode`] goes the way of the broker's router and handlers up to where state would be needed: what a Produce request
//! brings is validated batch by batch. The lists of Produce and Fetch, which are read lazily, are gone through as the
//! handlers do.

use bytes::Bytes;
use corelane::wire::fetch::FetchRequest;
use corelane::wire::produce::ProduceRequest;
use corelane::wire::{Api, ApiKey, HeaderError, Request, TopicKey, decode_request, parse_header};

use super::records::{self, Scratch};
use super::seeds::version_of;

/// What became of a frame.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) enum Verdict {
    /// Its header is not one of a request that this broker takes.
    BadHeader,
    /// ApiVersions of a version from the future: answered without looking further.
    UnknownApiVersions,
    /// Its body is not what its header says.
    BadBody,
    /// A request; of its batches so many were good.
    Request { batches: usize },
}

/// Any frame, without its length, to whatever decoder it asks for.
pub(crate) fn request_frame(frame: &[u8]) {
    decode(frame, &mut Scratch::new());
}

/// The body of a Produce request behind a byte that chooses its version.
pub(crate) fn produce_request(input: &[u8]) {
    let Some((&version, body)) = input.split_first() else { return };
    if let Ok(request) = ProduceRequest::parse(version_of(ApiKey::Produce, version), body) {
        produce(&request, body.len(), &mut Scratch::new());
    }
}

/// The body of a Fetch request behind a byte that chooses its version.
pub(crate) fn fetch_request(input: &[u8]) {
    let Some((&version, body)) = input.split_first() else { return };
    if let Ok(request) = FetchRequest::parse(version_of(ApiKey::Fetch, version), body) {
        fetch(&request, body.len());
    }
}

/// Decodes a frame, its length not included, and everything in it.
pub(crate) fn decode(frame: &[u8], scratch: &mut Scratch) -> Verdict {
    let header = match parse_header(frame) {
        Ok(header) => header,
        Err(HeaderError::UnknownApiVersions { .. }) => return Verdict::UnknownApiVersions,
        Err(HeaderError::Unsupported(_) | HeaderError::Malformed { .. }) => return Verdict::BadHeader,
    };
    let body = &frame[header.body_offset..];
    match header.api.key() {
        ApiKey::Produce => match ProduceRequest::parse(header.api, body) {
            Ok(request) => Verdict::Request { batches: produce(&request, body.len(), scratch) },
            Err(_) => Verdict::BadBody,
        },
        ApiKey::Fetch => match FetchRequest::parse(header.api, body) {
            Ok(request) => {
                fetch(&request, body.len());
                Verdict::Request { batches: 0 }
            }
            Err(_) => Verdict::BadBody,
        },
        _ => match control(header.api, body) {
            Some(_) => Verdict::Request { batches: 0 },
            None => Verdict::BadBody,
        },
    }
}

/// The request of the control plane that `body` holds.
pub(crate) fn control(api: Api, body: &[u8]) -> Option<Request> {
    let request = decode_request(api, Bytes::copy_from_slice(body)).ok()?;
    assert_eq!(request.key(), api.key(), "a request of the API that was asked for");
    Some(request)
}

/// Goes through a Produce request of `bytes` bytes; how many of its batches a leader would append.
fn produce(request: &ProduceRequest<'_>, bytes: usize, scratch: &mut Scratch) -> usize {
    let mut good = 0;
    let mut held = 0;
    for topic in request.topics {
        assert_named(topic.topic, request.api, 13);
        for partition in topic.partitions {
            let records = partition.records.unwrap_or_default();
            held += records.len() + size_of::<i32>();
            good += usize::from(records::validate(records, request.api.version() >= 7, scratch));
        }
    }
    assert!(held <= bytes, "{held} bytes of partitions in a body of {bytes}");
    good
}

fn fetch(request: &FetchRequest<'_>, bytes: usize) {
    let mut held = 0;
    for topic in request.topics {
        assert_named(topic.topic, request.api, 13);
        held += topic.partitions.map(|_| size_of::<i32>()).sum::<usize>();
    }
    for topic in request.forgotten {
        assert_named(topic.topic, request.api, 13);
        held += topic.partitions.map(|_| size_of::<i32>()).sum::<usize>();
    }
    assert!(held + request.rack.len() <= bytes, "{held} bytes of partitions in a body of {bytes}");
}

fn assert_named(topic: TopicKey<'_>, api: Api, ids_from: i16) {
    let by_id = matches!(topic, TopicKey::Id(_));
    assert_eq!(by_id, api.version() >= ids_from, "{api} names topics by name or by id, never both");
}
