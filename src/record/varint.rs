//! Variable-length integers of Kafka's records: zigzag, then 7 bits a byte, lowest first, the top bit saying "more".
//!
//! Decoding is bounded: at most 5 bytes for 32 bits, 10 for 64, and bits beyond the type are an error, not dropped. Padded
//! forms (`80 00` for 0) are accepted as Kafka accepts them.
//!
//! Source: Protocol Buffers encoding (zigzag); `ByteUtils.readVarint` of Apache Kafka.

/// Bytes of a 64-bit varint at most.
pub(super) const VARLONG_BYTES_MAX: usize = 10;

/// Bytes of a 32-bit varint at most.
const VARINT_BYTES_MAX: usize = 5;

/// Why no number was decoded.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum VarintError {
    /// The bytes end before the number does.
    Truncated,
    /// The number does not fit its type.
    Overlong,
}

/// Decodes a 32-bit number at the start of `bytes`; gives it and its length in bytes.
#[inline]
pub(super) fn decode_i32(bytes: &[u8]) -> Result<(i32, usize), VarintError> {
    let (raw, used) = decode(bytes, VARINT_BYTES_MAX)?;
    let raw = u32::try_from(raw).map_err(|_| VarintError::Overlong)?;
    Ok(((raw >> 1) as i32 ^ -((raw & 1) as i32), used))
}

/// Decodes a 64-bit number at the start of `bytes`; gives it and its length in bytes.
#[inline]
pub(super) fn decode_i64(bytes: &[u8]) -> Result<(i64, usize), VarintError> {
    let (raw, used) = decode(bytes, VARLONG_BYTES_MAX)?;
    Ok(((raw >> 1) as i64 ^ -((raw & 1) as i64), used))
}

#[inline]
fn decode(bytes: &[u8], bytes_max: usize) -> Result<(u64, usize), VarintError> {
    // One and two bytes, as almost all are: deltas, and lengths below 8 KiB.
    match *bytes {
        [byte, ..] if byte < 0x80 => Ok((u64::from(byte), 1)),
        [low, high, ..] if high < 0x80 => Ok((u64::from(high) << 7 | u64::from(low & 0x7f), 2)),
        _ => decode_long(bytes, bytes_max),
    }
}

fn decode_long(bytes: &[u8], bytes_max: usize) -> Result<(u64, usize), VarintError> {
    let mut raw = 0u64;
    let mut shift = 0u32;
    for (index, &byte) in bytes.iter().take(bytes_max).enumerate() {
        let group = u64::from(byte & 0x7f);
        // Only the tenth group can lose bits: it has room for one.
        if group << shift >> shift != group {
            return Err(VarintError::Overlong);
        }
        raw |= group << shift;
        if byte < 0x80 {
            return Ok((raw, index + 1));
        }
        shift += 7;
    }
    Err(if bytes.len() >= bytes_max { VarintError::Overlong } else { VarintError::Truncated })
}

/// Appends a number, which may also be one that fits 32 bits: both have the same encoding.
#[inline]
pub(super) fn encode(out: &mut Vec<u8>, value: i64) {
    let mut raw = zigzag(value);
    while raw >= 0x80 {
        out.push((raw & 0x7f) as u8 | 0x80);
        raw >>= 7;
    }
    out.push((raw & 0x7f) as u8);
}

/// Bytes of a number as [`encode`] writes it.
#[inline]
pub(super) const fn encoded_bytes(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

const fn zigzag(value: i64) -> u64 {
    (value << 1 ^ value >> 63) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(value: i64) -> Vec<u8> {
        let mut out = Vec::new();
        encode(&mut out, value);
        out
    }

    #[test]
    fn known_bytes() {
        let golden: [(i64, &[u8]); 7] = [
            (0, &[0]),
            (-1, &[1]),
            (1, &[2]),
            (-64, &[0x7f]),
            (64, &[0x80, 0x01]),
            (i32::MAX.into(), &[0xfe, 0xff, 0xff, 0xff, 0x0f]),
            (i64::MIN, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]),
        ];
        for (value, bytes) in golden {
            assert_eq!(encoded(value), bytes, "{value}");
            assert_eq!(decode_i64(bytes), Ok((value, bytes.len())));
        }
    }

    #[test]
    fn hostile_forms_are_bounded() {
        assert_eq!(decode_i32(&[]), Err(VarintError::Truncated));
        assert_eq!(decode_i32(&[0x80; 4]), Err(VarintError::Truncated));
        assert_eq!(decode_i32(&[0x80; 5]), Err(VarintError::Overlong));
        assert_eq!(decode_i32(&[0xff, 0xff, 0xff, 0xff, 0x1f]), Err(VarintError::Overlong), "33 bits");
        assert_eq!(decode_i64(&[0x80; 10]), Err(VarintError::Overlong));
        assert_eq!(
            decode_i64(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]),
            Err(VarintError::Overlong)
        );
        assert_eq!(decode_i32(&[0x80, 0x80, 0x00]), Ok((0, 3)), "padded, as Kafka accepts it");
    }

    proptest! {
        #[test]
        fn round_trip(value: i64, narrow: i32) {
            let bytes = encoded(value);
            prop_assert_eq!(bytes.len(), encoded_bytes(value));
            prop_assert_eq!(decode_i64(&bytes), Ok((value, bytes.len())));
            for cut in 0..bytes.len() {
                prop_assert_eq!(decode_i64(&bytes[..cut]), Err(VarintError::Truncated));
            }
            let bytes = encoded(narrow.into());
            prop_assert_eq!(decode_i32(&bytes), Ok((narrow, bytes.len())));
        }
    }
}
