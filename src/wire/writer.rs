//! Writing a response, or a request, by hand: the frame's start and Kafka's field encodings, into one growing buffer.
//!
//! A [`Writer`] knows whether its version is flexible, as [`super::cursor::Cursor`] does for reading. What callers pass in
//! is trusted: names and counts come from requests that were read under the same limits, or from this broker.
//!
//! Source: Kafka's protocol guide, "Protocol Primitive Types"; KIP-482.

use core::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};

use super::cursor::STRING_BYTES_MAX;
use super::frame::{CorrelationId, LENGTH_BYTES};
use super::table::Api;

/// Bytes that an explaining message keeps. Texts quote what clients sent; an answer stays small whatever that was.
const MESSAGE_BYTES_MAX: usize = 1024;

/// One response or request, written into a buffer that outlives it: the buffer's allocation serves many responses.
#[derive(Debug)]
pub(crate) struct Writer<'b> {
    buffer: &'b mut BytesMut,
    flexible: bool,
}

impl<'b> Writer<'b> {
    /// Starts a response: room for its length, then its header. `capacity` is what it will about take; whatever was left
    /// in the buffer is dropped.
    pub(crate) fn response(api: Api, correlation: CorrelationId, buffer: &'b mut BytesMut, capacity: usize) -> Self {
        buffer.clear();
        buffer.reserve(capacity);
        let mut writer = Writer { buffer, flexible: api.is_flexible() };
        writer.i32(0);
        writer.i32(correlation.0);
        if api.response_header_version() >= 1 {
            writer.u8(0);
        }
        writer
    }

    /// Starts a request: room for its length, then its header, whose client id is classic in every version.
    pub(crate) fn request(
        api: Api,
        correlation: CorrelationId,
        client_id: &str,
        buffer: &'b mut BytesMut,
        capacity: usize,
    ) -> Self {
        buffer.clear();
        buffer.reserve(capacity);
        let mut writer = Writer { buffer, flexible: false };
        writer.i32(0);
        writer.i16(api.key().code());
        writer.i16(api.version());
        writer.i32(correlation.0);
        writer.string(client_id);
        writer.flexible = api.is_flexible();
        writer.no_tagged_fields();
        writer
    }

    /// Takes out what was written since the last time.
    pub(crate) fn take(&mut self) -> BytesMut {
        self.buffer.split()
    }

    /// Ends a frame that lies in this buffer alone.
    pub(crate) fn finish(mut self) -> Bytes {
        let mut frame = self.take();
        let bytes = frame.len();
        write_length(&mut frame, bytes);
        frame.freeze()
    }

    pub(crate) fn position(&self) -> usize {
        self.buffer.len()
    }

    pub(crate) fn u8(&mut self, value: u8) {
        self.buffer.put_u8(value);
    }

    pub(crate) fn i16(&mut self, value: i16) {
        self.buffer.put_i16(value);
    }

    pub(crate) fn i32(&mut self, value: i32) {
        self.buffer.put_i32(value);
    }

    pub(crate) fn i64(&mut self, value: i64) {
        self.buffer.put_i64(value);
    }

    /// A time in milliseconds, cut at the 24 days that the field holds.
    pub(crate) fn duration(&mut self, duration: Duration) {
        self.i32(i32::try_from(duration.as_millis()).unwrap_or(i32::MAX));
    }

    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        self.buffer.put_slice(bytes);
    }

    pub(crate) fn varint(&mut self, mut value: usize) {
        assert!(value <= u32::MAX as usize, "a varint of {value} has more than 32 bits");
        while value >= 0x80 {
            self.u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.u8(value as u8);
    }

    /// The length of an array or of bytes.
    pub(crate) fn length(&mut self, length: usize) {
        if self.flexible {
            self.varint(length + 1);
        } else {
            self.i32(i32::try_from(length).expect("lengths are bounded by the response, far below 2 GiB"));
        }
    }

    pub(crate) fn null_length(&mut self) {
        if self.flexible { self.u8(0) } else { self.i32(-1) }
    }

    pub(crate) fn string(&mut self, text: &str) {
        assert!(text.len() <= STRING_BYTES_MAX, "a string of {} bytes does not fit", text.len());
        if self.flexible {
            self.varint(text.len() + 1);
        } else {
            self.i16(text.len() as i16);
        }
        self.raw(text.as_bytes());
    }

    pub(crate) fn nullable_string(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.string(text),
            None if self.flexible => self.u8(0),
            None => self.i16(-1),
        }
    }

    /// A text for people, cut if it is very long.
    pub(crate) fn message(&mut self, text: Option<&str>) {
        self.nullable_string(text.map(|text| &text[..text.floor_char_boundary(MESSAGE_BYTES_MAX)]));
    }

    /// Ends a structure that has no tagged field to write.
    pub(crate) fn no_tagged_fields(&mut self) {
        if self.flexible {
            self.u8(0);
        }
    }
}

/// Writes the length of a frame, `bytes` with its length field, into its start.
pub(crate) fn write_length(start: &mut [u8], bytes: usize) {
    let length = i32::try_from(bytes - LENGTH_BYTES).expect("a shard's response budget is far below 2 GiB");
    start[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
}

/// Bytes of `value` as an unsigned varint.
pub(crate) fn varint_bytes(value: usize) -> usize {
    let bits = usize::BITS - (value | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn varints_take_the_bytes_that_are_computed() {
        for value in [0, 1, 127, 128, 16_383, 16_384, (1 << 21) - 1, 1 << 21, (1 << 28) - 1, 1 << 28, u32::MAX as usize]
        {
            let mut writer = Writer { buffer: &mut BytesMut::new(), flexible: true };
            writer.varint(value);
            assert_eq!(writer.position(), varint_bytes(value), "{value}");
        }
    }

    #[test]
    fn long_messages_are_cut_between_characters() {
        let mut writer = Writer { buffer: &mut BytesMut::new(), flexible: false };
        writer.message(Some(&"é".repeat(1000).replacen('é', "x", 1)));
        assert_eq!(writer.position(), 2 + 1023);
    }
}
