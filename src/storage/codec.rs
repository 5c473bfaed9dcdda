//! The envelope of the checksummed files beside a log, and reading them without trust.
//!
//! Every such file is one [`Envelope`], all numbers big-endian as in record batches. What follows the body up to the end of
//! its block must be zeros; blocks behind that are what a longer body left there, and nobody looks at them, so that a file can
//! be written over without being cut first. A reader takes nothing for granted: every length is compared with the bytes that
//! are there before anything is allocated, and a body is read to its last byte or refused.
//!
//! It does no I/O, and does not know what the bodies mean.

use bytes::BufMut;

use crate::types::limits::BLOCK_BYTES;

/// Bytes before the body.
pub const ENVELOPE_BYTES: usize = 20;
const CRC_AT: usize = 12;

/// Bytes of a body at most: what the largest log state can need (see the limits of the parts), and a bound on what a damaged
/// length can make a reader allocate.
pub const BODY_BYTES_MAX: usize = 64 << 20;

/// Why stored bytes are not what they should be. Always corruption or a newer format; nothing here is worth a retry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Fewer bytes than the structure needs.
    #[error("{what} ends early: {expected} bytes expected, {found} found")]
    Short {
        /// The structure that was read.
        what: &'static str,
        /// Bytes that it needs at least.
        expected: usize,
        /// Bytes that are there.
        found: usize,
    },
    /// Another kind of file, or nothing of ours.
    #[error("{what} begins with {found:02x?}, not with {expected:02x?}")]
    Magic {
        /// The structure that was expected.
        what: &'static str,
        /// Its magic.
        expected: [u8; 8],
        /// The first bytes found.
        found: [u8; 8],
    },
    /// A format that this program does not know.
    #[error("{what} has format version {found}, this program reads {expected}")]
    Version {
        /// The structure.
        what: &'static str,
        /// The version that this program writes.
        expected: u16,
        /// The version found.
        found: u16,
    },
    /// The checksum does not fit the bytes.
    #[error("{what} has CRC {found:#010x}, its bytes give {expected:#010x}")]
    Checksum {
        /// The structure.
        what: &'static str,
        /// The CRC-32C of the bytes.
        expected: u32,
        /// The CRC-32C that is stored.
        found: u32,
    },
    /// A field that cannot have this value.
    #[error("{what}: {field} is {found}, expected {expected}")]
    Field {
        /// The structure.
        what: &'static str,
        /// The field.
        field: &'static str,
        /// What the format allows there.
        expected: &'static str,
        /// The value found.
        found: i128,
    },
    /// Bytes behind the end of the structure.
    #[error("{what} is followed by {found} bytes that do not belong to it")]
    Trailing {
        /// The structure.
        what: &'static str,
        /// How many bytes, or where the first byte of non-zero padding lies.
        found: usize,
    },
}

/// A kind of checksummed file:
///
/// ```text
/// 0   magic     8 bytes of ASCII, one per kind of file
/// 8   version   u16
/// 10  zero      u16
/// 12  crc32c    u32, of the bytes 0–11 and of everything from 16 to the end
/// 16  length    u32, bytes of the body
/// 20  body
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Envelope {
    /// The name of the structure in errors.
    pub what: &'static str,
    /// The first bytes.
    pub magic: [u8; 8],
    /// The version that is written, and the only one read.
    pub version: u16,
}

impl Envelope {
    /// The envelope around what `write` appends; its length is not padded.
    pub fn encode(&self, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut bytes = vec![0; ENVELOPE_BYTES];
        write(&mut bytes);
        let length = u32::try_from(bytes.len() - ENVELOPE_BYTES).expect("a body is far below 4 GiB by its limits");
        bytes[..8].copy_from_slice(&self.magic);
        bytes[8..10].copy_from_slice(&self.version.to_be_bytes());
        bytes[16..ENVELOPE_BYTES].copy_from_slice(&length.to_be_bytes());
        let crc = checksum(&bytes);
        bytes[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_be_bytes());
        bytes
    }

    /// A reader of the body of the envelope that `bytes` begin with.
    ///
    /// # Errors
    /// Any difference from what [`Envelope::encode`] wrote.
    pub fn open<'a>(&self, bytes: &'a [u8]) -> Result<Reader<'a>, DecodeError> {
        let what = self.what;
        let Some((head, rest)) = bytes.split_first_chunk::<ENVELOPE_BYTES>() else {
            return Err(DecodeError::Short { what, expected: ENVELOPE_BYTES, found: bytes.len() });
        };
        let mut header = Reader::new(what, head);
        let magic = header.array()?;
        if magic != self.magic {
            return Err(DecodeError::Magic { what, expected: self.magic, found: magic });
        }
        let (version, zero, crc, length) = (header.u16()?, header.u16()?, header.u32()?, header.u32()? as usize);
        if length > BODY_BYTES_MAX {
            return Err(header.wrong("length", "at most 64 MiB", length as i128));
        }
        if rest.len() < length {
            return Err(DecodeError::Short { what, expected: ENVELOPE_BYTES + length, found: bytes.len() });
        }
        let (body, behind) = rest.split_at(length);
        let end = ENVELOPE_BYTES + length;
        let padding = &behind[..behind.len().min(end.next_multiple_of(BLOCK_BYTES) - end)];
        let expected = checksum(&bytes[..end]);
        if crc != expected {
            return Err(DecodeError::Checksum { what, expected, found: crc });
        }
        // The version counts only once the checksum has shown that it was written so.
        if version != self.version || zero != 0 {
            return Err(DecodeError::Version { what, expected: self.version, found: version });
        }
        if let Some(found) = padding.iter().position(|&byte| byte != 0) {
            return Err(DecodeError::Trailing { what, found });
        }
        Ok(Reader::new(what, body))
    }
}

/// The CRC-32C of an envelope, without the field that holds it.
fn checksum(envelope: &[u8]) -> u32 {
    let before = crc32c::crc32c(&envelope[..CRC_AT]);
    crc32c::crc32c_append(before, &envelope[CRC_AT + 4..])
}

/// Reads numbers off the front of bytes that nobody vouches for.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    what: &'static str,
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    /// A reader of `bytes`, which errors call `what`.
    pub fn new(what: &'static str, bytes: &'a [u8]) -> Reader<'a> {
        Reader { what, rest: bytes }
    }

    /// Bytes not yet read.
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// The next `count` bytes.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], DecodeError> {
        let short = DecodeError::Short { what: self.what, expected: count, found: self.rest.len() };
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(short)?;
        self.rest = rest;
        Ok(taken)
    }

    /// The next `N` bytes.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut array = [0; N];
        array.copy_from_slice(self.bytes(N)?);
        Ok(array)
    }

    /// One byte.
    pub fn u8(&mut self) -> Result<u8, DecodeError> {
        self.array().map(u8::from_be_bytes)
    }

    /// Two bytes.
    pub fn u16(&mut self) -> Result<u16, DecodeError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    pub fn u32(&mut self) -> Result<u32, DecodeError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    pub fn u64(&mut self) -> Result<u64, DecodeError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Two bytes, signed.
    pub fn i16(&mut self) -> Result<i16, DecodeError> {
        self.array().map(i16::from_be_bytes)
    }

    /// Four bytes, signed.
    pub fn i32(&mut self) -> Result<i32, DecodeError> {
        self.array().map(i32::from_be_bytes)
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self) -> Result<i64, DecodeError> {
        self.array().map(i64::from_be_bytes)
    }

    /// A byte that is 0 or 1.
    pub fn flag(&mut self, field: &'static str) -> Result<bool, DecodeError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(self.wrong(field, "0 or 1", other.into())),
        }
    }

    /// Eight bytes that `make` takes, such as an offset.
    pub fn checked<T>(&mut self, field: &'static str, make: fn(i64) -> Option<T>) -> Result<T, DecodeError> {
        let found = self.i64()?;
        make(found).ok_or_else(|| self.wrong(field, "not negative", found.into()))
    }

    /// Eight bytes that `make` takes, or −1 for nothing.
    pub fn optional<T>(&mut self, field: &'static str, make: fn(i64) -> Option<T>) -> Result<Option<T>, DecodeError> {
        match self.i64()? {
            -1 => Ok(None),
            found => make(found).map(Some).ok_or_else(|| self.wrong(field, "not below -1", found.into())),
        }
    }

    /// Four bytes that count what follows: at most `max` elements of at least `element_bytes_min` bytes each. So the memory
    /// that a count can ask for is bounded by the bytes that are really there.
    pub fn count(&mut self, field: &'static str, max: usize, element_bytes_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32()? as usize;
        if count > max || count > self.remaining() / element_bytes_min {
            return Err(self.wrong(field, "a count that its limit and the bytes left allow", count as i128));
        }
        Ok(count)
    }

    /// An unsigned number in groups of seven bits, least significant first (LEB128), in its shortest form.
    pub fn varint(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(self.wrong(field, "a varint of 64 bits in its shortest form", byte.into()));
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(self.wrong(field, "a varint of at most 10 bytes", value.into()))
    }

    /// An error about `field`, for callers that know more than this reader.
    pub fn wrong(&self, field: &'static str, expected: &'static str, found: i128) -> DecodeError {
        DecodeError::Field { what: self.what, field, expected, found }
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`] if bytes are left.
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing { what: self.what, found: self.rest.len() })
    }
}

/// Appends what [`Reader::optional`] reads.
pub(super) fn put_optional(bytes: &mut Vec<u8>, value: Option<i64>) {
    bytes.put_i64(value.unwrap_or(-1));
}

/// Appends what [`Reader::count`] reads.
pub(super) fn put_count(bytes: &mut Vec<u8>, count: usize) {
    bytes.put_u32(u32::try_from(count).expect("lists are bounded far below 2^32"));
}

/// Appends what [`Reader::varint`] reads.
pub(super) fn put_varint(bytes: &mut Vec<u8>, mut value: u64) {
    loop {
        let bits = (value & 0x7f) as u8;
        value >>= 7;
        if value == 0 {
            return bytes.push(bits);
        }
        bytes.push(bits | 0x80);
    }
}

/// Asserts for the tests of a format that `decode` refuses every shorter input and every input with one bit flipped.
#[cfg(test)]
pub(super) fn assert_every_damage_is_refused<T>(bytes: &[u8], decode: impl Fn(&[u8]) -> Result<T, DecodeError>) {
    assert!(decode(bytes).is_ok());
    for length in 0..bytes.len() {
        assert!(decode(&bytes[..length]).is_err(), "cut to {length} of {} bytes", bytes.len());
    }
    let mut damaged = bytes.to_vec();
    for bit in 0..bytes.len() * 8 {
        damaged[bit / 8] ^= 1 << (bit % 8);
        assert!(decode(&damaged).is_err(), "bit {bit} flipped");
        damaged[bit / 8] ^= 1 << (bit % 8);
    }
}

/// The bytes as lines of hex, for golden tests.
#[cfg(test)]
pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KIND: Envelope = Envelope { what: "test", magic: *b"CLtest\0\0", version: 3 };

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, DecodeError> {
        let mut reader = KIND.open(bytes)?;
        let body = reader.bytes(reader.remaining())?.to_vec();
        reader.finish()?;
        Ok(body)
    }

    #[test]
    fn the_envelope_is_frozen() {
        let bytes = KIND.encode(|body| body.extend_from_slice(b"abc"));
        assert_eq!(hex(&bytes), "434c746573740000000300008cc4976600000003616263");
        assert_eq!(decode(&bytes), Ok(b"abc".to_vec()));
        assert_every_damage_is_refused(&bytes, decode);
    }

    #[test]
    fn padding_is_zeros() {
        let mut bytes = KIND.encode(|body| body.push(7));
        bytes.resize(4096, 0);
        assert_eq!(decode(&bytes), Ok(vec![7]));
        bytes[4000] = 1;
        assert!(matches!(decode(&bytes), Err(DecodeError::Trailing { .. })));
        bytes[4000] = 0;
        bytes.extend_from_slice(b"left by a longer body");
        assert_eq!(decode(&bytes), Ok(vec![7]));
    }

    #[test]
    fn another_version_is_named() {
        let newer = Envelope { version: 4, ..KIND };
        let bytes = newer.encode(|_| {});
        assert_eq!(decode(&bytes), Err(DecodeError::Version { what: "test", expected: 3, found: 4 }));
    }

    #[test]
    fn a_count_is_bounded_by_its_limit_and_by_the_bytes() {
        let bytes = [0, 0, 0, 3, 1, 1, 2, 2, 3, 3];
        assert_eq!(Reader::new("x", &bytes).count("n", 3, 2), Ok(3));
        assert!(Reader::new("x", &bytes).count("n", 2, 2).is_err());
        assert!(Reader::new("x", &bytes).count("n", 3, 3).is_err());
    }

    #[test]
    fn varints_have_one_form() {
        for value in [0, 1, 127, 128, 300, u64::from(u32::MAX), u64::MAX - 1, u64::MAX] {
            let mut bytes = Vec::new();
            put_varint(&mut bytes, value);
            assert_eq!(Reader::new("x", &bytes).varint("v"), Ok(value));
            for length in 0..bytes.len() {
                assert!(Reader::new("x", &bytes[..length]).varint("v").is_err());
            }
        }
        assert!(Reader::new("x", &[0x80, 0]).varint("v").is_err());
        assert!(Reader::new("x", &[0xff; 11]).varint("v").is_err());
        assert!(Reader::new("x", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2]).varint("v").is_err());
    }
}
