//! Building record batches: for clients (the load generator, tests) and for what a broker writes itself.
//!
//! A [`BatchBuilder`] keeps its buffers: after the first batches it allocates nothing for uncompressed ones. Records get the
//! offset deltas 0, 1, 2 … in the order of `append`; the first one's timestamp is the base. The batch has base offset 0 and
//! no leader epoch, as a client's; `Stamp` sets them.
//!
//! Source: `MemoryRecordsBuilder` of Apache Kafka; the drawings in `header` and `walk`.

use zerocopy::{FromZeros, IntoBytes};

use super::header::{
    Attributes, BatchHeader, Codec, HEADER_BYTES, LOG_OVERHEAD, MAGIC, Producer, batch_crc, wire_timestamp,
};
use super::pack::{Compression, Compressors, PackError};
use super::reader::Header;
use super::varint;
use crate::types::Timestamp;

/// Bytes of uncompressed records at most: half of what the batch length can say, so that no codec's growth reaches it.
const PLAIN_BYTES_MAX: usize = 1 << 30;

/// Records that become one batch.
pub struct BatchBuilder {
    attributes: Attributes,
    codec: Codec,
    producer: Option<Producer>,
    /// Room for the header, then the records, uncompressed.
    plain: Vec<u8>,
    /// The batch, where it is compressed.
    packed: Vec<u8>,
    compressors: Compressors,
    count: u32,
    base_timestamp: Option<Timestamp>,
    max_timestamp: Option<Timestamp>,
}

impl BatchBuilder {
    /// A builder of batches with this codec, create time and no flags.
    pub fn new(codec: Codec) -> BatchBuilder {
        BatchBuilder {
            attributes: Attributes::new(codec),
            codec,
            producer: None,
            plain: Vec::new(),
            packed: Vec::new(),
            compressors: Compressors::default(),
            count: 0,
            base_timestamp: None,
            max_timestamp: None,
        }
    }

    /// Sets the producer of the batches from the next [`BatchBuilder::finish`] on. The caller advances the base sequence.
    pub fn set_producer(&mut self, producer: Option<Producer>) {
        self.producer = producer;
    }

    /// Sets timestamp type and flags; the codec stays the builder's.
    pub fn set_attributes(&mut self, attributes: Attributes) {
        self.attributes = attributes.with_codec(self.codec);
    }

    /// Adds a record. A timestamp of `None` is written as −1, a null key, value or header value as null.
    ///
    /// # Panics
    /// If the batch grows beyond 1 GiB: callers end batches near `max.message.bytes`.
    pub fn append(
        &mut self,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
    ) {
        self.append_with(timestamp, key, value, headers, |_| ());
    }

    /// Adds a record like [`BatchBuilder::append`], and lets `edit` change the copy of the value that lies in the batch: for
    /// values of which only a part differs from record to record.
    ///
    /// # Panics
    /// As [`BatchBuilder::append`].
    #[inline]
    pub fn append_with(
        &mut self,
        timestamp: Option<Timestamp>,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[Header<'_>],
        edit: impl FnOnce(&mut [u8]),
    ) {
        if self.count == 0 {
            self.plain.clear();
            self.plain.resize(HEADER_BYTES, 0);
            self.base_timestamp = timestamp;
            self.max_timestamp = None;
        }
        let timestamp_delta = wire_timestamp(timestamp) - wire_timestamp(self.base_timestamp);
        let offset_delta = i64::from(self.count);
        let header_bytes: usize =
            headers.iter().map(|header| field_bytes(Some(header.key)) + field_bytes(header.value)).sum();
        let body_bytes = 1
            + varint::encoded_bytes(timestamp_delta)
            + varint::encoded_bytes(offset_delta)
            + field_bytes(key)
            + field_bytes(value)
            + varint::encoded_bytes(headers.len() as i64)
            + header_bytes;

        assert!(body_bytes < PLAIN_BYTES_MAX - self.plain.len().min(PLAIN_BYTES_MAX), "a batch stays below 1 GiB");
        let out = &mut self.plain;
        out.reserve(body_bytes + varint::VARLONG_BYTES_MAX);
        varint::encode(out, body_bytes as i64);
        out.push(0);
        varint::encode(out, timestamp_delta);
        varint::encode(out, offset_delta);
        put_field(out, key);
        put_field(out, value);
        if let Some(value) = value {
            let start = out.len() - value.len();
            edit(&mut out[start..]);
        }
        varint::encode(out, headers.len() as i64);
        for header in headers {
            put_field(out, Some(header.key));
            put_field(out, header.value);
        }
        self.count += 1;
        self.max_timestamp = self.max_timestamp.max(timestamp);
    }

    /// Records since the last batch.
    pub fn record_count(&self) -> u32 {
        self.count
    }

    /// Bytes of the batch if it were finished now and not compressed; 0 without records.
    pub fn bytes(&self) -> usize {
        if self.count == 0 { 0 } else { self.plain.len() }
    }

    /// Makes the batch of the records so far and starts the next; `None` without records. The batch lies in the builder until
    /// the next `append`.
    pub fn finish(&mut self) -> Result<Option<&[u8]>, PackError> {
        if self.count == 0 {
            return Ok(None);
        }
        let batch = if self.codec == Codec::None {
            &mut self.plain
        } else {
            self.packed.clear();
            self.packed.resize(HEADER_BYTES, 0);
            self.compressors.pack(Compression::new(self.codec), &self.plain[HEADER_BYTES..], &mut self.packed)?;
            &mut self.packed
        };
        let length =
            i32::try_from(batch.len() - LOG_OVERHEAD).expect("records stay below 1 GiB, no codec doubles them");
        let count = i32::try_from(self.count).expect("a record has at least 7 bytes");
        let mut header = BatchHeader::new_zeroed();
        header.batch_length.set(length);
        header.leader_epoch.set(-1);
        header.magic = MAGIC;
        header.attributes.set(self.attributes.bits());
        header.last_offset_delta.set(count - 1);
        header.base_timestamp.set(wire_timestamp(self.base_timestamp));
        header.max_timestamp.set(wire_timestamp(self.max_timestamp));
        header.producer_id.set(self.producer.map_or(-1, |producer| producer.id.value()));
        header.producer_epoch.set(self.producer.map_or(-1, |producer| producer.epoch.value()));
        header.base_sequence.set(self.producer.map_or(-1, |producer| producer.base_sequence.value()));
        header.record_count.set(count);
        header.crc.set(batch_crc(&header, &batch[HEADER_BYTES..]));
        batch[..HEADER_BYTES].copy_from_slice(header.as_bytes());
        self.count = 0;
        Ok(Some(batch))
    }
}

impl std::fmt::Debug for BatchBuilder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BatchBuilder").field("codec", &self.codec).field("count", &self.count).finish_non_exhaustive()
    }
}

/// Bytes of a nullable field with its length.
fn field_bytes(field: Option<&[u8]>) -> usize {
    match field {
        Some(bytes) => varint::encoded_bytes(bytes.len() as i64) + bytes.len(),
        None => varint::encoded_bytes(-1),
    }
}

fn put_field(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        Some(bytes) => {
            varint::encode(out, bytes.len() as i64);
            out.extend_from_slice(bytes);
        }
        None => varint::encode(out, -1),
    }
}
