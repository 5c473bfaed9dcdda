//! The frames that are mutated: what real clients sent, and what no client sends but the table promises.
//!
//! `corpus/<client>.bin` holds what `scripts/capture-frames` recorded of a client that was written elsewhere: whole frames,
//! each with its length, as they went over the wire. Beside them every version of Produce and Fetch with a batch of every
//! codec, made by the codec crate, and grown requests of every other row. So every (key, version) of the table is here, and
//! a new row is here as soon as it is in the table.

use std::collections::BTreeSet;

use corelane::wire::fetch::FetchRequest;
use corelane::wire::produce::ProduceRequest;
use corelane::wire::{Api, ApiKey, TopicKey, parse_header};

use super::targets::grow::{self, Place, places};
use super::targets::random::Random;
use super::targets::seeds;

/// The clients, their versions as recorded, and their frames.
const CAPTURED: &[(&str, &[u8])] = &[
    ("librdkafka", include_bytes!("corpus/librdkafka.bin")),
    ("kafka-python", include_bytes!("corpus/kafka-python.bin")),
    ("franz-go", include_bytes!("corpus/franz-go.bin")),
    ("java", include_bytes!("corpus/java.bin")),
];

/// Bodies that are grown for each API and version.
const GROWN: u64 = 3;

/// The topics that made frames name.
pub(crate) const TOPICS: [&str; 2] = ["hostile-a", "hostile-b"];

/// A well-formed frame, its length not included.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) bytes: Vec<u8>,
    /// Where it says how many elements or bytes follow.
    pub(crate) places: Vec<Place>,
}

impl Frame {
    pub(crate) fn new(bytes: Vec<u8>) -> Frame {
        let places = places(&bytes);
        Frame { bytes, places }
    }

    /// The API and version that it is of.
    pub(crate) fn api(&self) -> Api {
        parse_header(&self.bytes).expect("well formed").api
    }
}

/// The frames of a client, without their lengths.
fn captured(mut rest: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some((length, after)) = rest.split_first_chunk() {
        let (frame, after) = after.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = after;
    }
    assert!(rest.is_empty(), "bytes behind the last frame");
    frames
}

/// Every frame that real clients sent and this broker advertises.
pub(crate) fn all_captured() -> Vec<Vec<u8>> {
    let known = |frame: &Vec<u8>| parse_header(frame).is_ok();
    CAPTURED.iter().flat_map(|(_, bytes)| captured(bytes)).filter(known).collect()
}

/// Every frame: captured, made and grown.
pub(crate) fn all() -> Vec<Frame> {
    let batches = seeds::batches();
    let made = Api::all().filter_map(|api| match api.key() {
        ApiKey::Produce => Some(seeds::produce(api, &TOPICS, &batches)),
        ApiKey::Fetch => Some(seeds::fetch(api, &TOPICS)),
        _ => None,
    });
    let grown = Api::all().flat_map(|api| {
        (0..GROWN).map(move |stream| grow::frame(api, &grow::body(api, &mut Random::stream(api_seed(api), stream))))
    });
    all_captured().into_iter().chain(made).chain(grown).map(Frame::new).collect()
}

fn api_seed(api: Api) -> u64 {
    u64::from(api.key().code().unsigned_abs()) << 16 | u64::from(api.version().unsigned_abs())
}

/// The names of the topics that frames of the data plane use.
pub(crate) fn topic_names() -> BTreeSet<String> {
    let mut names: BTreeSet<String> = TOPICS.map(str::to_owned).into();
    each_topic(|topic| {
        if let TopicKey::Name(name) = topic {
            names.insert(name.to_owned());
        }
    });
    names
}

/// The ids of topics that frames of the data plane use.
pub(crate) fn topic_ids() -> BTreeSet<[u8; 16]> {
    let mut ids: BTreeSet<[u8; 16]> = TOPICS.iter().map(|name| seeds::id_of(name).into_bytes()).collect();
    each_topic(|topic| {
        if let TopicKey::Id(id) = topic {
            ids.insert(id.bytes());
        }
    });
    ids
}

fn each_topic(mut visit: impl FnMut(TopicKey<'_>)) {
    for frame in all_captured() {
        let header = parse_header(&frame).expect("well formed");
        let body = &frame[header.body_offset..];
        match header.api.key() {
            ApiKey::Produce => {
                let request = ProduceRequest::parse(header.api, body).expect("a client sent it");
                request.topics.for_each(|topic| visit(topic.topic));
            }
            ApiKey::Fetch => {
                let request = FetchRequest::parse(header.api, body).expect("a client sent it");
                request.topics.for_each(|topic| visit(topic.topic));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use corelane::wire::table::TABLE;

    use super::super::targets::records::Scratch;
    use super::super::targets::requests::{Verdict, decode};
    use super::*;

    #[test]
    fn every_advertised_key_and_version_is_hit_by_a_well_formed_frame() {
        let frames = all();
        let hit: BTreeSet<(i16, i16)> =
            frames.iter().map(|frame| (frame.api().key().code(), frame.api().version())).collect();
        let advertised: BTreeSet<(i16, i16)> =
            TABLE.iter().flat_map(|row| (row.min..=row.max).map(|version| (row.key.code(), version))).collect();
        assert_eq!(hit, advertised);
        for frame in &frames {
            let verdict = decode(&frame.bytes, &mut Scratch::new());
            assert!(matches!(verdict, Verdict::Request { .. }), "{}: {verdict:?}", frame.api());
        }
    }

    #[test]
    fn captured_frames_are_of_clients_that_were_written_elsewhere() {
        let mut total = 0;
        for (client, bytes) in CAPTURED {
            let frames = captured(bytes);
            let mut apis: BTreeMap<ApiKey, BTreeSet<i16>> = BTreeMap::new();
            for frame in &frames {
                // A client may ask for a version of ApiVersions that is unknown here.
                let Ok(header) = parse_header(frame) else { continue };
                apis.entry(header.api.key()).or_default().insert(header.api.version());
                let verdict = decode(frame, &mut Scratch::new());
                assert!(matches!(verdict, Verdict::Request { .. }), "{client} sent {}: {verdict:?}", header.api);
            }
            for key in [ApiKey::Produce, ApiKey::Fetch, ApiKey::Metadata, ApiKey::ApiVersions, ApiKey::ListOffsets] {
                assert!(apis.contains_key(&key), "{client} never sent {key}");
            }
            println!("{client}: {} frames, {apis:?}", frames.len());
            total += bytes.len();
        }
        assert!(total < 512 << 10, "{total} bytes are checked in");
    }

    #[test]
    fn arrays_and_lengths_are_found_where_they_lie() {
        let frames = all();
        // Every request but ApiVersions and InitProducerId has an array, and those have strings in some version.
        for key in TABLE.iter().map(|row| row.key).filter(|key| *key != ApiKey::ApiVersions) {
            let some = frames.iter().any(|frame| frame.api().key() == key && !frame.places.is_empty());
            assert!(some, "{key} has neither an array nor a string");
        }
        for frame in &frames {
            for place in &frame.places {
                let number = grow::number_at(&frame.bytes, *place);
                assert_eq!(grow::with_number(&frame.bytes, *place, number), frame.bytes, "{}: {place:?}", frame.api());
            }
        }
    }
}
