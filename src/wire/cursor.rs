//! A read position in a body, and lists that are verified once and read lazily.
//!
//! A [`Cursor`] knows the version and whether it is flexible, so a field is read by one call whatever its encoding: lengths
//! are `INT16`/`INT32` in the classic versions, unsigned varints of length + 1 in the flexible ones (KIP-482). Every read is
//! checked against the bytes left; nothing allocates and nothing panics. Errors say the byte, counted from the start of the
//! body, and what was expected there.
//!
//! Strings are limited to 32 767 bytes in both encodings, as in Kafka, and must be UTF-8. A request holds at most
//! [`ELEMENTS_MAX`] elements, since what is made of an element can be far larger than the element.

use std::fmt;
use std::marker::PhantomData;

use thiserror::Error;

use super::table::Api;

/// Bytes of a string at most: what Kafka accepts, in either encoding.
pub(crate) const STRING_BYTES_MAX: usize = i16::MAX as usize;

/// Array elements and tagged fields of a request at most, all together. What the control plane's codec makes of a pair of
/// bytes can take 520 (a topic of 112 with a map node of 408 for its one tagged field), so a frame of 100 MiB would ask for
/// gigabytes; with this limit a request asks for 34 MB at most. Kafka runs with 200 000 partitions in a cluster, of which
/// a request to one broker names those that this broker leads.
pub const ELEMENTS_MAX: usize = 1 << 17;

/// What a malformed message should have held.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Expected {
    /// So many bytes; fewer are left.
    Bytes(usize),
    /// An unsigned varint of at most 32 bits.
    Varint,
    /// A length that is not negative, and not null where null is not allowed.
    Length,
    /// A string of at most 32 767 bytes.
    ShortString,
    /// UTF-8.
    Utf8,
    /// An array that fits: so many elements of at least one byte or more each cannot be in what is left.
    Elements(usize),
    /// No more elements in all than `max.request.elements` allows.
    FewerElements,
    /// A tagged field whose size is that of its content.
    TaggedSize,
    /// Isolation level 0 or 1.
    IsolationLevel,
    /// The byte before a structure that may be null: 1, or −1 where it is.
    NullMark,
    /// A body that the codec accepts.
    Decodable,
}

impl fmt::Display for Expected {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Expected::Bytes(bytes) => write!(f, "{bytes} more bytes"),
            Expected::Varint => f.write_str("an unsigned varint of at most 32 bits"),
            Expected::Length => f.write_str("a length of at least 0"),
            Expected::ShortString => write!(f, "a string of at most {STRING_BYTES_MAX} bytes"),
            Expected::Utf8 => f.write_str("UTF-8"),
            Expected::Elements(count) => write!(f, "room for {count} elements"),
            Expected::FewerElements => f.write_str("fewer elements in all, see max.request.elements"),
            Expected::TaggedSize => f.write_str("a tagged field of the size of its content"),
            Expected::IsolationLevel => f.write_str("isolation level 0 or 1"),
            Expected::NullMark => f.write_str("1 before a structure, or -1 for null"),
            Expected::Decodable => f.write_str("a body that the codec accepts"),
        }
    }
}

/// Where bytes stopped making sense.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed {
    /// Bytes from the start of what is read.
    pub(crate) position: usize,
    /// What should have been there.
    pub(crate) expected: Expected,
}

impl Malformed {
    pub(crate) fn of(self, api: Api) -> DecodeError {
        DecodeError { api, position: self.position, expected: self.expected }
    }
}

/// A body that is not what its API and version say. The client's fault: the connection is closed (rule 28).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
#[error("{api}: expected {expected} at byte {position} of the body")]
pub struct DecodeError {
    /// The API and version.
    pub api: Api,
    /// Bytes from the start of the body.
    pub position: usize,
    /// What should have been there.
    pub expected: Expected,
}

/// A read position in the bytes of one body.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    version: i16,
    flexible: bool,
    elements_left: usize,
}

impl<'a> Cursor<'a> {
    /// At the start of a body of this API and version.
    pub(crate) fn new(bytes: &'a [u8], api: Api) -> Cursor<'a> {
        Cursor { bytes, position: 0, version: api.version(), flexible: api.is_flexible(), elements_left: ELEMENTS_MAX }
    }

    /// At the start of a request's header, whose fields before the tagged ones are classic in every version.
    pub(crate) fn classic(bytes: &'a [u8]) -> Cursor<'a> {
        Cursor { bytes, position: 0, version: 0, flexible: false, elements_left: ELEMENTS_MAX }
    }

    /// The same position, with at most so many elements to come; no more than there were.
    pub(crate) fn within(self, elements_max: usize) -> Cursor<'a> {
        Cursor { elements_left: self.elements_left.min(elements_max), ..self }
    }

    /// The same position, reading flexibly or not.
    pub(crate) fn with_flexible(self, flexible: bool) -> Cursor<'a> {
        Cursor { flexible, ..self }
    }

    pub(crate) fn version(&self) -> i16 {
        self.version
    }

    pub(crate) fn is_flexible(&self) -> bool {
        self.flexible
    }

    pub(crate) fn position(&self) -> usize {
        self.position
    }

    #[inline]
    pub(crate) fn left(&self) -> usize {
        self.bytes.len() - self.position
    }

    #[inline]
    pub(crate) fn malformed(&self, expected: Expected) -> Malformed {
        Malformed { position: self.position, expected }
    }

    /// The next `count` bytes.
    #[inline]
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        match self.bytes[self.position..].get(..count) {
            Some(taken) => {
                self.position += count;
                Ok(taken)
            }
            None => Err(self.malformed(Expected::Bytes(count))),
        }
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        match self.bytes[self.position..].first_chunk::<N>() {
            Some(taken) => {
                self.position += N;
                Ok(*taken)
            }
            None => Err(self.malformed(Expected::Bytes(N))),
        }
    }

    #[inline]
    pub(crate) fn i8(&mut self) -> Result<i8, Malformed> {
        self.array().map(i8::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i16(&mut self) -> Result<i16, Malformed> {
        self.array().map(i16::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i32(&mut self) -> Result<i32, Malformed> {
        self.array().map(i32::from_be_bytes)
    }

    #[inline]
    pub(crate) fn i64(&mut self) -> Result<i64, Malformed> {
        self.array().map(i64::from_be_bytes)
    }

    #[inline]
    pub(crate) fn uuid(&mut self) -> Result<[u8; 16], Malformed> {
        self.array()
    }

    /// An unsigned varint; one that needs more than 32 bits, or more than five bytes, is refused.
    #[inline]
    pub(crate) fn varint(&mut self) -> Result<u32, Malformed> {
        // Nearly all are counts of tagged fields and lengths of names.
        match self.bytes.get(self.position) {
            Some(&byte) if byte < 0x80 => {
                self.position += 1;
                Ok(u32::from(byte))
            }
            _ => self.long_varint(),
        }
    }

    fn long_varint(&mut self) -> Result<u32, Malformed> {
        let start = *self;
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.array()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(start.malformed(Expected::Varint))
    }

    /// The length of a string, bytes or array of the flexible versions, where 0 is null.
    #[inline]
    fn compact_length(&mut self) -> Result<Option<usize>, Malformed> {
        Ok(self.varint()?.checked_sub(1).map(|length| length as usize))
    }

    /// A length of the classic versions, where −1 is null.
    fn classic_length(&mut self, length: i32, start: Cursor<'a>) -> Result<Option<usize>, Malformed> {
        match usize::try_from(length) {
            Ok(length) => Ok(Some(length)),
            Err(_) if length == -1 => Ok(None),
            Err(_) => Err(start.malformed(Expected::Length)),
        }
    }

    #[inline]
    fn length_32(&mut self) -> Result<Option<usize>, Malformed> {
        if self.flexible {
            return self.compact_length();
        }
        let start = *self;
        let length = self.i32()?;
        self.classic_length(length, start)
    }

    #[inline]
    pub(crate) fn nullable_string(&mut self) -> Result<Option<&'a str>, Malformed> {
        let start = *self;
        let length = if self.flexible {
            self.compact_length()?
        } else {
            let length = i32::from(self.i16()?);
            self.classic_length(length, start)?
        };
        let Some(length) = length else { return Ok(None) };
        if length > STRING_BYTES_MAX {
            return Err(start.malformed(Expected::ShortString));
        }
        let text = *self;
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map(Some).map_err(|_| text.malformed(Expected::Utf8))
    }

    #[inline]
    pub(crate) fn string(&mut self) -> Result<&'a str, Malformed> {
        let start = *self;
        self.nullable_string()?.ok_or(start.malformed(Expected::Length))
    }

    #[inline]
    pub(crate) fn nullable_bytes(&mut self) -> Result<Option<&'a [u8]>, Malformed> {
        match self.length_32()? {
            Some(length) => self.take(length).map(Some),
            None => Ok(None),
        }
    }

    /// The number of elements of an array whose elements take at least `least` bytes each; `None` for null. It is refused
    /// unless so many fit into what is left. An element is counted as one byte at least, so that the count bounds the
    /// work even where a version leaves an element empty.
    #[inline]
    pub(crate) fn nullable_count(&mut self, least: usize) -> Result<Option<usize>, Malformed> {
        let start = *self;
        let count = self.length_32()?;
        self.admit(count.unwrap_or(0), least, start)?;
        Ok(count)
    }

    /// Lets `count` elements of at least `least` bytes be read, if so many fit here and into the request's limit.
    #[inline]
    fn admit(&mut self, count: usize, least: usize, start: Cursor<'a>) -> Result<(), Malformed> {
        if count > self.left() / least.max(1) {
            return Err(start.malformed(Expected::Elements(count)));
        }
        self.elements_left = self.elements_left.checked_sub(count).ok_or(start.malformed(Expected::FewerElements))?;
        Ok(())
    }

    #[inline]
    pub(crate) fn count(&mut self, least: usize) -> Result<usize, Malformed> {
        let start = *self;
        self.nullable_count(least)?.ok_or(start.malformed(Expected::Length))
    }

    /// Reads the tagged fields that end a structure of a flexible version; nothing in a classic one. `known` is given each
    /// tag with a cursor over exactly its content and says whether it read it; what it does not know is skipped.
    #[inline]
    pub(crate) fn tagged_fields(
        &mut self,
        mut known: impl FnMut(u32, &mut Cursor<'a>) -> Result<bool, Malformed>,
    ) -> Result<(), Malformed> {
        if !self.flexible {
            return Ok(());
        }
        let start = *self;
        let fields = self.varint()? as usize;
        if fields == 0 {
            return Ok(());
        }
        // Each takes at least its tag and its size.
        self.admit(fields, 2, start)?;
        for _ in 0..fields {
            let tag = self.varint()?;
            let size = self.varint()? as usize;
            let content = *self;
            self.take(size)?;
            let mut content = Cursor { bytes: &self.bytes[..self.position], ..content };
            if known(tag, &mut content)? && content.left() > 0 {
                return Err(content.malformed(Expected::TaggedSize));
            }
            self.elements_left = content.elements_left;
        }
        Ok(())
    }

    /// Skips the tagged fields that end a structure.
    #[inline]
    pub(crate) fn skip_tagged_fields(&mut self) -> Result<(), Malformed> {
        self.tagged_fields(|_, _| Ok(false))
    }
}

/// Something that arrays consist of.
pub(crate) trait Element<'a>: Sized {
    /// Bytes that it takes at least, in any version.
    const LEAST_BYTES: usize;

    /// Reads one, checking everything in it.
    fn read(cursor: &mut Cursor<'a>) -> Result<Self, Malformed>;
}

/// An array in a body: its elements are read where they lie, each time they are asked for. All of them were verified when
/// the body was parsed, so iterating neither fails nor allocates. A copy starts again where the list stands.
#[derive(Clone, Copy, Debug)]
pub struct List<'a, T> {
    cursor: Cursor<'a>,
    left: usize,
    element: PhantomData<fn() -> T>,
}

#[expect(private_bounds, reason = "what lists consist of is decided in this module alone")]
impl<'a, T: Element<'a>> List<'a, T> {
    /// Reads the array at the cursor and verifies every element.
    pub(crate) fn read(cursor: &mut Cursor<'a>) -> Result<List<'a, T>, Malformed> {
        let left = cursor.count(T::LEAST_BYTES)?;
        let list = List { cursor: *cursor, left, element: PhantomData };
        for _ in 0..left {
            T::read(cursor)?;
        }
        Ok(list)
    }

    /// An array without elements.
    pub(crate) fn empty(cursor: &Cursor<'a>) -> List<'a, T> {
        List { cursor: *cursor, left: 0, element: PhantomData }
    }
}

impl<'a, T: Element<'a>> Iterator for List<'a, T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        self.left = self.left.checked_sub(1)?;
        Some(T::read(&mut self.cursor).expect("`List::read` read this very element with success"))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<'a, T: Element<'a>> ExactSizeIterator for List<'a, T> {}

impl<'a> Element<'a> for i32 {
    const LEAST_BYTES: usize = 4;

    fn read(cursor: &mut Cursor<'a>) -> Result<i32, Malformed> {
        cursor.i32()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ApiKey;

    fn flexible(bytes: &[u8]) -> Cursor<'_> {
        Cursor::new(bytes, Api::new(ApiKey::Metadata, 9).expect("in the table"))
    }

    fn classic(bytes: &[u8]) -> Cursor<'_> {
        Cursor::classic(bytes)
    }

    #[test]
    fn varints_hold_32_bits_and_no_more() {
        assert_eq!(flexible(&[0x7f]).varint(), Ok(127));
        assert_eq!(flexible(&[0x80, 0x01]).varint(), Ok(128));
        assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0x0f]).varint(), Ok(u32::MAX));
        let wrong = Malformed { position: 0, expected: Expected::Varint };
        assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0x10]).varint(), Err(wrong));
        assert_eq!(flexible(&[0xff, 0xff, 0xff, 0xff, 0xff, 0x01]).varint(), Err(wrong));
        let short = Malformed { position: 1, expected: Expected::Bytes(1) };
        assert_eq!(flexible(&[0x80]).varint(), Err(short));
    }

    #[test]
    fn strings_in_both_encodings() {
        assert_eq!(classic(&[0, 2, b'a', b'b']).string(), Ok("ab"));
        assert_eq!(flexible(&[3, b'a', b'b']).string(), Ok("ab"));
        assert_eq!(classic(&[0xff, 0xff]).nullable_string(), Ok(None));
        assert_eq!(flexible(&[0]).nullable_string(), Ok(None));
        assert_eq!(flexible(&[0]).string(), Err(Malformed { position: 0, expected: Expected::Length }));
        assert_eq!(
            classic(&[0xff, 0xfe]).nullable_string(),
            Err(Malformed { position: 0, expected: Expected::Length })
        );
        assert_eq!(classic(&[0, 1, 0xff]).string(), Err(Malformed { position: 2, expected: Expected::Utf8 }));
        assert_eq!(classic(&[0, 3, b'a']).string(), Err(Malformed { position: 2, expected: Expected::Bytes(3) }));
        let long = [&[0x81, 0x80, 0x02][..], &[b'x'; 32_768]].concat();
        assert_eq!(flexible(&long).string(), Err(Malformed { position: 0, expected: Expected::ShortString }));
    }

    #[test]
    fn counts_are_bounded_by_the_bytes_left() {
        let claim = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0];
        let refused = Malformed { position: 0, expected: Expected::Elements(0x7fff_ffff) };
        assert_eq!(classic(&claim).count(0), Err(refused));
        assert_eq!(classic(&[0, 0, 0, 1, 0, 0, 0]).count(4).map_err(|m| m.expected), Err(Expected::Elements(1)));
        assert_eq!(classic(&[0, 0, 0, 1, 0, 0, 0, 0]).count(4), Ok(1));
        assert_eq!(classic(&[0xff; 4]).nullable_count(4), Ok(None));
        assert_eq!(classic(&[0xff; 4]).count(4).map_err(|m| m.expected), Err(Expected::Length));
    }

    #[test]
    fn elements_are_limited_over_the_whole_request() {
        let half = ELEMENTS_MAX / 2;
        let mut body = Vec::new();
        for _ in 0..3 {
            body.extend((half as i32).to_be_bytes());
            body.resize(body.len() + half * 4, 0);
        }
        let mut cursor = classic(&body);
        assert!(List::<i32>::read(&mut cursor).is_ok() && List::<i32>::read(&mut cursor).is_ok());
        let third = cursor.position();
        let refused = List::<i32>::read(&mut cursor).map(drop);
        assert_eq!(refused, Err(Malformed { position: third, expected: Expected::FewerElements }));
    }

    #[test]
    fn tagged_fields_are_read_or_skipped_but_never_overrun() {
        let mut seen = Vec::new();
        let mut cursor = flexible(&[2, 0, 1, 0xaa, 9, 2, 1, 2, 0x55]);
        cursor
            .tagged_fields(|tag, content| {
                seen.push((tag, content.left()));
                Ok(tag == 0 && content.i8().is_ok())
            })
            .expect("well formed");
        assert_eq!(seen, [(0, 1), (9, 2)]);
        assert_eq!(cursor.left(), 1);
        let longer = flexible(&[1, 0, 2, 1, 2]).tagged_fields(|_, content| content.i8().map(|_| true));
        assert_eq!(longer, Err(Malformed { position: 4, expected: Expected::TaggedSize }));
        let beyond = flexible(&[1, 0, 9, 1]).skip_tagged_fields();
        assert_eq!(beyond, Err(Malformed { position: 3, expected: Expected::Bytes(9) }));
        let many = flexible(&[0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0]).skip_tagged_fields();
        assert_eq!(many, Err(Malformed { position: 0, expected: Expected::Elements(u32::MAX as usize) }));
        assert_eq!(classic(&[1]).skip_tagged_fields(), Ok(()));
    }
}
