//! The records inside a batch, field by field, over plain bytes or over a decompressing stream.
//!
//! ```text
//! record: | length varint | attributes i8 | timestamp delta varlong | offset delta varint
//!         | key length varint (−1 null) | key | value length varint (−1 null) | value
//!         | header count varint | { key length varint | key | value length varint (−1 null) | value } … |
//! ```
//!
//! *Length* counts the bytes after itself, and the fields must use them all. No field is trusted beyond the bytes that its
//! record has left, so nothing is allocated or skipped on a claim. A header's key is bytes here: Kafka's clients write UTF-8,
//! and nothing on the broker reads it.
//!
//! Source: KIP-98 (message format), KIP-82 (headers); `DefaultRecord` of Apache Kafka.

use super::unpack::UnpackError;
use super::varint::{self, VarintError};

/// Where records are read from. `Piece` is what a key or value becomes: the bytes, or nothing where they only pass by.
pub(super) trait Input {
    type Piece;

    /// The next bytes: as many as a varint can have, or all that are left.
    fn head(&mut self) -> Result<&[u8], UnpackError>;

    /// Consumes bytes that `head` showed.
    fn advance(&mut self, bytes: usize);

    /// Consumes `bytes` bytes; `None` if there are fewer.
    fn take(&mut self, bytes: usize) -> Result<Option<Self::Piece>, UnpackError>;
}

/// Uncompressed records.
pub(super) struct Plain<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Input for Plain<'a> {
    type Piece = &'a [u8];

    #[inline]
    fn head(&mut self) -> Result<&[u8], UnpackError> {
        Ok(self.rest)
    }

    #[inline]
    fn advance(&mut self, bytes: usize) {
        self.rest = &self.rest[bytes..];
    }

    #[inline]
    fn take(&mut self, bytes: usize) -> Result<Option<&'a [u8]>, UnpackError> {
        let Some((piece, rest)) = self.rest.split_at_checked(bytes) else {
            return Ok(None);
        };
        self.rest = rest;
        Ok(Some(piece))
    }
}

/// A field of a record, for errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RecordField {
    /// The record's length.
    Length,
    /// The record's attributes.
    Attributes,
    /// The timestamp delta.
    TimestampDelta,
    /// The offset delta.
    OffsetDelta,
    /// The key's length.
    Key,
    /// The value's length.
    Value,
    /// The number of headers.
    HeaderCount,
    /// The length of a header's key.
    HeaderKey,
    /// The length of a header's value.
    HeaderValue,
}

impl std::fmt::Display for RecordField {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            RecordField::Length => "the record's length",
            RecordField::Attributes => "the record's attributes",
            RecordField::TimestampDelta => "the timestamp delta",
            RecordField::OffsetDelta => "the offset delta",
            RecordField::Key => "the key's length",
            RecordField::Value => "the value's length",
            RecordField::HeaderCount => "the number of headers",
            RecordField::HeaderKey => "the length of a header's key",
            RecordField::HeaderValue => "the length of a header's value",
        })
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordFault {
    /// The batch or the record ends before the field does.
    #[error("{field} is not there, the bytes end")]
    Truncated {
        /// The field.
        field: RecordField,
    },
    /// A varint of too many bytes or bits.
    #[error("{field} is no number")]
    Varint {
        /// The field.
        field: RecordField,
    },
    /// A length or count that its record has no bytes for, or a negative one other than null where null may be.
    #[error("{field} is {found}, {left} bytes are left")]
    Length {
        /// The field.
        field: RecordField,
        /// What it says.
        found: i32,
        /// The bytes that the record, or the batch, has left.
        left: usize,
    },
    /// The fields end before the record does.
    #[error("{left} bytes follow the record's last field")]
    Unused {
        /// Bytes between the last field and the record's end.
        left: usize,
    },
    /// The compression around it.
    #[error(transparent)]
    Unpack(#[from] UnpackError),
}

/// Why the records of a batch cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record is not well formed.
    #[error("record {index}: {fault}")]
    Malformed {
        /// Its place in the batch, from 0.
        index: u32,
        /// What is wrong with it.
        fault: RecordFault,
    },
    /// Bytes follow the last record.
    #[error("bytes follow the {count} records of the batch")]
    Trailing {
        /// The number of records that the header says.
        count: u32,
    },
    /// The compression around them does not end well.
    #[error("after the {count} records of the batch: {fault}")]
    Ending {
        /// The number of records that the header says.
        count: u32,
        /// What is wrong with it.
        fault: UnpackError,
    },
}

impl RecordError {
    /// More comes out of the compression than allowed.
    pub const fn is_too_large(&self) -> bool {
        matches!(
            self,
            RecordError::Malformed { fault: RecordFault::Unpack(UnpackError::TooLarge { .. }), .. }
                | RecordError::Ending { fault: UnpackError::TooLarge { .. }, .. }
        )
    }
}

/// One record's fields.
pub(super) struct Fields<P> {
    pub(super) timestamp_delta: i64,
    pub(super) offset_delta: i32,
    pub(super) key: Option<P>,
    pub(super) value: Option<P>,
    pub(super) header_count: u32,
    /// Bytes of the headers, after their count.
    pub(super) header_bytes: usize,
}

/// Reads the length of the next record.
#[inline]
pub(super) fn walk_length<I: Input>(input: &mut I) -> Result<usize, RecordFault> {
    let field = RecordField::Length;
    let mut walk = Walk { input, left: usize::MAX };
    let found = walk.varint(field)?;
    usize::try_from(found).map_err(|_| RecordFault::Length { field, found, left: 0 })
}

/// Reads the fields of a record of `length` bytes and consumes exactly these.
pub(super) fn walk_body<I: Input>(input: &mut I, length: usize) -> Result<Fields<I::Piece>, RecordFault> {
    let mut walk = Walk { input, left: length };
    // Bits of a record's attributes have no meaning yet; Kafka ignores them too.
    walk.bytes(RecordField::Attributes, 1)?;
    let timestamp_delta = walk.varlong(RecordField::TimestampDelta)?;
    let offset_delta = walk.varint(RecordField::OffsetDelta)?;
    let key = walk.nullable(RecordField::Key)?;
    let value = walk.nullable(RecordField::Value)?;
    let found = walk.varint(RecordField::HeaderCount)?;
    let left = walk.left;
    // A header has at least the two lengths.
    let header_count = match u32::try_from(found) {
        Ok(count) if count as usize <= left / 2 => count,
        _ => return Err(RecordFault::Length { field: RecordField::HeaderCount, found, left }),
    };
    for _ in 0..header_count {
        walk.header()?;
    }
    match walk.left {
        0 => Ok(Fields { timestamp_delta, offset_delta, key, value, header_count, header_bytes: left }),
        left => Err(RecordFault::Unused { left }),
    }
}

/// Reads one header at the start of `input`; gives key and value.
pub(super) fn walk_header<'a>(input: &mut Plain<'a>) -> Result<(&'a [u8], Option<&'a [u8]>), RecordFault> {
    let left = input.rest.len();
    Walk { input, left }.header()
}

/// A record that is read: its input and the bytes that it has left.
struct Walk<'i, I> {
    input: &'i mut I,
    left: usize,
}

impl<I: Input> Walk<'_, I> {
    #[inline(always)]
    fn varint(&mut self, field: RecordField) -> Result<i32, RecordFault> {
        let decoded = varint::decode_i32(self.input.head()?);
        self.number(field, decoded)
    }

    #[inline(always)]
    fn varlong(&mut self, field: RecordField) -> Result<i64, RecordFault> {
        let decoded = varint::decode_i64(self.input.head()?);
        self.number(field, decoded)
    }

    #[inline(always)]
    fn number<T>(&mut self, field: RecordField, decoded: Result<(T, usize), VarintError>) -> Result<T, RecordFault> {
        match decoded {
            Ok((value, used)) if used <= self.left => {
                self.input.advance(used);
                self.left -= used;
                Ok(value)
            }
            Ok(_) | Err(VarintError::Truncated) => Err(RecordFault::Truncated { field }),
            Err(VarintError::Overlong) => Err(RecordFault::Varint { field }),
        }
    }

    #[inline(always)]
    fn bytes(&mut self, field: RecordField, bytes: usize) -> Result<I::Piece, RecordFault> {
        if bytes > self.left {
            return Err(RecordFault::Truncated { field });
        }
        self.left -= bytes;
        self.input.take(bytes)?.ok_or(RecordFault::Truncated { field })
    }

    #[inline(always)]
    fn nullable(&mut self, field: RecordField) -> Result<Option<I::Piece>, RecordFault> {
        let found = self.varint(field)?;
        match usize::try_from(found) {
            Ok(bytes) if bytes <= self.left => self.bytes(field, bytes).map(Some),
            Err(_) if found == -1 => Ok(None),
            _ => Err(RecordFault::Length { field, found, left: self.left }),
        }
    }

    fn header(&mut self) -> Result<(I::Piece, Option<I::Piece>), RecordFault> {
        let field = RecordField::HeaderKey;
        let Some(key) = self.nullable(field)? else {
            return Err(RecordFault::Length { field, found: -1, left: self.left });
        };
        Ok((key, self.nullable(RecordField::HeaderValue)?))
    }
}

/// Walks `count` records and then expects the end; `visit` sees the index and the fields of each, and may stop the walk.
pub(super) fn walk_records<I, E>(
    input: &mut I,
    count: u32,
    mut visit: impl FnMut(u32, &Fields<I::Piece>) -> Result<(), E>,
) -> Result<(), E>
where
    I: Input,
    E: From<RecordError>,
{
    for index in 0..count {
        let malformed = |fault| RecordError::Malformed { index, fault };
        let length = walk_length(input).map_err(malformed)?;
        let fields = walk_body(input, length).map_err(malformed)?;
        visit(index, &fields)?;
    }
    Ok(expect_end(input, count)?)
}

/// Expects that nothing follows the last of `count` records.
pub(super) fn expect_end<I: Input>(input: &mut I, count: u32) -> Result<(), RecordError> {
    match input.head() {
        Ok([]) => Ok(()),
        Ok(_) => Err(RecordError::Trailing { count }),
        Err(fault) => Err(RecordError::Ending { count, fault }),
    }
}
