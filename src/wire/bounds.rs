//! The check that a control-plane request passes before the `kafka-protocol` crate may see it.
//!
//! That crate puts the length of an array straight into an allocation, so a dozen bytes could ask for hundreds of
//! gigabytes. The walk here follows the request's schema and proves that every array, string and tagged field fits into
//! what is left of the frame: an array's count times the least size of its element. The number of elements in all is
//! limited too ([`super::ELEMENTS_MAX`]), and with it what the codec allocates.
//!
//! Invariant: no allocation, no panic, a stack bounded by the schema's depth, and time linear in the frame's length.
//! Bytes after the request are no error, since Kafka ignores them and clients were only ever tested against it; the codec is
//! given what the walk covered and no more. What values mean is not looked at.

use super::cursor::{Cursor, DecodeError, Expected, Malformed};
use super::schema::{self, Field, Kind};
use super::table::Api;

/// Walks the body of a control-plane request and returns its length in bytes; what follows it is to be ignored.
///
/// Panics for Produce and Fetch, which have no schema here: their decoders are their own check.
pub(super) fn check(elements_max: usize, api: Api, body: &[u8]) -> Result<usize, DecodeError> {
    let fields = schema::of(api.key()).expect("only control-plane requests come here");
    let mut cursor = Cursor::new(body, api).within(elements_max);
    structure(&mut cursor, fields).map_err(|malformed| malformed.of(api))?;
    Ok(cursor.position())
}

fn structure(cursor: &mut Cursor<'_>, fields: &'static [Field]) -> Result<(), Malformed> {
    let version = cursor.version();
    for field in fields.iter().filter(|field| field.is_in(version)) {
        value(cursor, &field.kind, field.is_nullable(version))?;
    }
    cursor.skip_tagged_fields()
}

fn value(cursor: &mut Cursor<'_>, kind: &'static Kind, nullable: bool) -> Result<(), Malformed> {
    match kind {
        Kind::String if nullable => cursor.nullable_string().map(drop),
        Kind::String => cursor.string().map(drop),
        Kind::Array(element) => {
            let least = element.least_bytes(cursor.version(), cursor.is_flexible());
            let count = if nullable { cursor.nullable_count(least)?.unwrap_or(0) } else { cursor.count(least)? };
            (0..count).try_for_each(|_| value(cursor, element, false))
        }
        Kind::Struct(fields) => structure(cursor, fields),
        Kind::Optional(fields) => {
            let mark = *cursor;
            match cursor.i8()? {
                -1 => Ok(()),
                1 => structure(cursor, fields),
                _ => Err(mark.malformed(Expected::NullMark)),
            }
        }
        Kind::Int8 | Kind::Int16 | Kind::Int32 | Kind::Int64 | Kind::Uuid => {
            let size = kind.least_bytes(cursor.version(), cursor.is_flexible());
            cursor.take(size).map(drop)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ELEMENTS_MAX;
    use crate::wire::table::ApiKey;

    fn api(key: ApiKey, version: i16) -> Api {
        Api::new(key, version).expect("in the table")
    }

    #[test]
    fn arrays_that_cannot_fit_are_refused_before_their_elements_are_looked_at() {
        let huge = [0x7f, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0];
        let refused =
            DecodeError { api: api(ApiKey::Metadata, 1), position: 0, expected: Expected::Elements(0x7fff_ffff) };
        assert_eq!(check(ELEMENTS_MAX, api(ApiKey::Metadata, 1), &huge), Err(refused));
        assert_eq!(refused.to_string(), "Metadata v1: expected room for 2147483647 elements at byte 0 of the body");
        let huge = [0xff, 0xff, 0xff, 0xff, 0x0f, 0, 0, 0, 0, 0, 0, 0];
        let refused = check(ELEMENTS_MAX, api(ApiKey::Metadata, 12), &huge).map_err(|error| error.expected);
        assert_eq!(refused, Err(Expected::Elements(u32::MAX as usize - 1)));
    }

    #[test]
    fn the_least_size_of_an_element_counts() {
        // 18 bytes hold one topic of Metadata v12 (16-byte id, null name, no tagged fields), not two.
        let body = |count: u8| [&[count + 1][..], &[0; 18], &[1, 0, 0]].concat();
        assert_eq!(check(ELEMENTS_MAX, api(ApiKey::Metadata, 12), &body(1)), Ok(22));
        let refused = check(ELEMENTS_MAX, api(ApiKey::Metadata, 12), &body(2)).map_err(|error| error.expected);
        assert_eq!(refused, Err(Expected::Elements(2)));
    }

    #[test]
    fn null_is_refused_where_kafka_does_not_allow_it() {
        let null = [0xff; 4];
        assert_eq!(check(ELEMENTS_MAX, api(ApiKey::Metadata, 1), &null), Ok(4));
        let refused = check(ELEMENTS_MAX, api(ApiKey::Metadata, 0), &null).map_err(|error| error.expected);
        assert_eq!(refused, Err(Expected::Length));
    }

    #[test]
    fn a_structure_is_there_or_null_and_nothing_else() {
        let page = api(ApiKey::DescribeTopicPartitions, 0);
        // No topics, a limit of 9, the mark.
        let body = |mark: u8, cursor: &[u8]| [&[1, 0, 0, 0, 9, mark], cursor, &[0]].concat();
        assert_eq!(check(ELEMENTS_MAX, page, &body(0xff, &[])), Ok(7));
        let cursor = [2, b't', 0, 0, 0, 3, 0];
        assert_eq!(check(ELEMENTS_MAX, page, &body(1, &cursor)), Ok(14));
        for mark in [0, 2, 0x7f, 0x80, 0xfe] {
            let refused = DecodeError { api: page, position: 5, expected: Expected::NullMark };
            assert_eq!(check(ELEMENTS_MAX, page, &body(mark, &cursor)), Err(refused));
        }
    }

    #[test]
    fn bytes_after_the_request_are_left_alone() {
        assert_eq!(check(ELEMENTS_MAX, api(ApiKey::ApiVersions, 0), b"junk"), Ok(0));
        assert_eq!(check(ELEMENTS_MAX, api(ApiKey::ApiVersions, 3), &[1, 1, 0, 9, 9]), Ok(3));
    }
}
