//! Metadata records as payloads of the frame log: what one frame holds.
//!
//! ```text
//! offset u64 of the first record, or of the snapshot · count u32 · (length u32 · record)*
//! ```
//!
//! The records of one proposal are one payload, so that all of them are in the log or none. A snapshot is as many payloads
//! as it takes; each says the offset at which the snapshot was taken. What a record's bytes mean is `schema/metadata.fbs`.

use bytes::BufMut;

use crate::controller::{self, ClusterImage, MetadataRecord};
use crate::storage::codec::{DecodeError, Reader};
use crate::storage::frames::FRAME_PAYLOAD_BYTES_MAX;
use crate::types::Offset;

/// Bytes of one payload of a snapshot, unless a single record is larger: a snapshot is written and read in pieces of this size.
const SNAPSHOT_PAYLOAD_BYTES: usize = 1 << 20;
const HEAD_BYTES: usize = 12;
/// Records of one payload at most: with at least eight bytes each, no payload can hold more.
const RECORDS_MAX: usize = FRAME_PAYLOAD_BYTES_MAX / 8;

/// Why a payload cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum PayloadError {
    /// The payload is not a list of records.
    #[error(transparent)]
    List(#[from] DecodeError),
    /// A record of it cannot be read.
    #[error(transparent)]
    Record(#[from] controller::DecodeError),
}

/// The records of one payload.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Payload {
    /// The offset of the first record, or of the snapshot.
    pub(super) offset: Offset,
    /// The records.
    pub(super) records: Vec<MetadataRecord>,
}

/// The payload of one proposal.
pub(super) fn encode(offset: Offset, records: &[MetadataRecord]) -> Vec<u8> {
    let mut writer = Writer::new(offset);
    records.iter().for_each(|record| writer.push(&record.encode()));
    writer.finish()
}

/// The payloads of a snapshot of `image`.
pub(super) fn encode_snapshot(image: &ClusterImage) -> Vec<Vec<u8>> {
    let mut payloads = Vec::new();
    let mut writer = Writer::new(image.version());
    for record in image.snapshot() {
        let record = record.encode();
        if writer.count > 0 && writer.bytes.len() + record.len() > SNAPSHOT_PAYLOAD_BYTES {
            payloads.push(std::mem::replace(&mut writer, Writer::new(image.version())).finish());
        }
        writer.push(&record);
    }
    // The last one may be empty of records, and still says the offset.
    payloads.push(writer.finish());
    payloads
}

/// Reads a payload.
pub(super) fn decode(bytes: &[u8]) -> Result<Payload, PayloadError> {
    let mut reader = Reader::new("metadata payload", bytes);
    let offset = reader.checked("offset", Offset::new)?;
    let count = reader.count("records", RECORDS_MAX, size_of::<u32>())?;
    let mut records = Vec::new();
    for _ in 0..count {
        let length = reader.u32()? as usize;
        records.push(MetadataRecord::decode(reader.bytes(length)?)?);
    }
    reader.finish()?;
    Ok(Payload { offset, records })
}

struct Writer {
    bytes: Vec<u8>,
    count: u32,
}

impl Writer {
    fn new(offset: Offset) -> Writer {
        let mut bytes = Vec::new();
        bytes.put_i64(offset.value());
        bytes.put_u32(0);
        Writer { bytes, count: 0 }
    }

    fn push(&mut self, record: &[u8]) {
        self.bytes.put_u32(u32::try_from(record.len()).expect("a record is far below 4 GiB"));
        self.bytes.extend_from_slice(record);
        self.count += 1;
    }

    fn finish(mut self) -> Vec<u8> {
        self.bytes[HEAD_BYTES - 4..HEAD_BYTES].copy_from_slice(&self.count.to_be_bytes());
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::ConfigResource;
    use crate::types::ProducerId;

    fn records(count: i64) -> Vec<MetadataRecord> {
        let record = |next| MetadataRecord::ProducerIdsReserved { next: ProducerId::new(next).unwrap(), broker: None };
        (1..=count).map(record).collect()
    }

    #[test]
    fn the_frame_of_the_list_is_frozen() {
        let records = records(1);
        let bytes = encode(Offset::ZERO.plus(258), &records);
        let record = records[0].encode();
        let mut golden = vec![0, 0, 0, 0, 0, 0, 1, 2, 0, 0, 0, 1, 0, 0, 0, record.len() as u8];
        golden.extend_from_slice(&record);
        assert_eq!(bytes, golden);
    }

    #[test]
    fn what_is_written_is_read_and_nothing_shorter() {
        let payload = Payload { offset: Offset::ZERO.plus(9), records: records(3) };
        let bytes = encode(payload.offset, &payload.records);
        assert_eq!(decode(&bytes), Ok(payload));
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length}");
        }
        let mut longer = bytes;
        longer.push(0);
        assert!(matches!(decode(&longer), Err(PayloadError::List(DecodeError::Trailing { .. }))));
    }

    #[test]
    fn a_large_image_is_a_snapshot_of_several_payloads() {
        let mut image = ClusterImage::new();
        for number in 0..40 {
            let resource = ConfigResource::AllBrokers;
            let (key, value) = (format!("key.{number}"), Some("x".repeat(100_000)));
            image.apply(Offset::ZERO.plus(number), &MetadataRecord::ConfigChanged { resource, key, value }).unwrap();
        }
        let payloads = encode_snapshot(&image);
        assert_eq!(payloads.len(), 4);
        assert!(payloads.iter().all(|payload| payload.len() <= SNAPSHOT_PAYLOAD_BYTES));
        let decoded: Vec<Payload> = payloads.iter().map(|payload| decode(payload).unwrap()).collect();
        assert!(decoded.iter().all(|payload| payload.offset == image.version()));
        let records: Vec<&MetadataRecord> = decoded.iter().flat_map(|payload| &payload.records).collect();
        assert_eq!(ClusterImage::from_snapshot(image.version(), records), Ok(image));
    }

    #[test]
    fn an_empty_image_is_a_snapshot_of_one_payload() {
        let payloads = encode_snapshot(&ClusterImage::new());
        assert_eq!(payloads.len(), 1);
        assert_eq!(decode(&payloads[0]), Ok(Payload { offset: Offset::ZERO, records: Vec::new() }));
    }
}
