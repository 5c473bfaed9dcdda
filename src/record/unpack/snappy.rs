//! Snappy in the two forms that Kafka's clients write: one raw block (librdkafka), or xerial's framing (Java and most others):
//!
//! ```text
//! | 82 'SNAPPY' 00 | version u32 = 1 | compatible u32 = 1 | { block bytes u32 | raw block } … |
//! ```
//!
//! All numbers big-endian; a block holds 32 KiB unless the producer says otherwise. A raw block names its unpacked length,
//! which is compared with what Snappy can reach and with the cap before any memory is taken for it.
//! Source: google/snappy `format_description.txt`; xerial/snappy-java `SnappyCodec`, `SnappyInputStream`.

use super::{RETAINED_BYTES_MAX, UnpackError};
use crate::record::header::Codec;

/// The first bytes of xerial's framing.
const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Xerial's whole header: magic, version 1, readable from version 1 on.
pub(in crate::record) const XERIAL_HEADER: [u8; 16] = *b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01";

/// Bytes that one compressed byte can become: a copy of 64 bytes takes 3, rounded up.
const EXPANSION_MAX: usize = 22;

/// The block that is unpacked now.
#[derive(Default)]
pub(super) struct Context {
    decoder: snap::raw::Decoder,
    block: Vec<u8>,
}

/// Reads one batch.
pub(super) struct Reader<'s, 'a> {
    context: &'s mut Context,
    input: &'a [u8],
    framed: bool,
    bytes_max: usize,
    packed: usize,
    /// `block[start..end]` is unpacked and not read yet.
    start: usize,
    end: usize,
}

impl<'s, 'a> Reader<'s, 'a> {
    pub(super) fn new(context: &'s mut Context, packed: &'a [u8], bytes_max: usize) -> Reader<'s, 'a> {
        if context.block.len() > RETAINED_BYTES_MAX {
            context.block = Vec::new();
        }
        let framed = packed.starts_with(&XERIAL_MAGIC) && packed.len() >= XERIAL_HEADER.len();
        let input = if framed { &packed[XERIAL_HEADER.len()..] } else { packed };
        Reader { context, input, framed, bytes_max, packed: packed.len(), start: 0, end: 0 }
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        // A block may be empty; each takes at least its length field, so this ends.
        while self.start == self.end {
            if self.input.is_empty() {
                return Ok(0);
            }
            let block = self.next_block()?;
            self.unpack_block(block)?;
        }
        let count = out.len().min(self.end - self.start);
        out[..count].copy_from_slice(&self.context.block[self.start..self.start + count]);
        self.start += count;
        Ok(count)
    }

    fn next_block(&mut self) -> Result<&'a [u8], UnpackError> {
        if !self.framed {
            return Ok(std::mem::take(&mut self.input));
        }
        let short = || corrupt("it ends inside a block");
        let (length, rest) = self.input.split_first_chunk().ok_or_else(short)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(short)?;
        self.input = rest;
        Ok(block)
    }

    fn unpack_block(&mut self, packed: &[u8]) -> Result<(), UnpackError> {
        let bytes = snap::raw::decompress_len(packed).map_err(|_| corrupt("a block's length"))?;
        if bytes > packed.len().saturating_mul(EXPANSION_MAX) {
            return Err(corrupt("a block's length is beyond what its bytes can hold"));
        }
        if bytes > self.bytes_max {
            return Err(UnpackError::TooLarge { bytes_max: self.bytes_max, packed: self.packed });
        }
        let Context { decoder, block } = &mut *self.context;
        if block.len() < bytes {
            block.resize(bytes, 0);
        }
        self.end = decoder.decompress(packed, &mut block[..bytes]).map_err(|_| corrupt("a block"))?;
        self.start = 0;
        Ok(())
    }
}

fn corrupt(what: &'static str) -> UnpackError {
    UnpackError::Corrupt { codec: Codec::Snappy, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unpacked(packed: &[u8], bytes_max: usize) -> Result<Vec<u8>, UnpackError> {
        let mut context = Context::default();
        let mut reader = Reader::new(&mut context, packed, bytes_max);
        let (mut all, mut out) = (Vec::new(), [0; 5]);
        loop {
            match reader.read(&mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn both_forms_are_read() {
        let block = snap::raw::Encoder::new().compress_vec(b"one and one and one").unwrap();
        assert_eq!(unpacked(&block, 100).as_deref(), Ok(&b"one and one and one"[..]));
        let mut framed = XERIAL_HEADER.to_vec();
        for _ in 0..2 {
            framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
            framed.extend_from_slice(&block);
        }
        assert_eq!(unpacked(&framed, 100).as_deref(), Ok(&b"one and one and oneone and one and one"[..]));
        let cut = &framed[..framed.len() - 1];
        assert_eq!(unpacked(cut, 100), Err(corrupt("it ends inside a block")));
    }

    #[test]
    fn a_claimed_length_takes_no_memory() {
        // The varint of 4 GiB − 1, and nothing behind it.
        let claim = [0xff, 0xff, 0xff, 0xff, 0x0f];
        assert!(matches!(unpacked(&claim, usize::MAX), Err(UnpackError::Corrupt { codec: Codec::Snappy, .. })));
        let block = snap::raw::Encoder::new().compress_vec(&[7; 2000]).unwrap();
        assert_eq!(unpacked(&block, 1999), Err(UnpackError::TooLarge { bytes_max: 1999, packed: block.len() }));
    }
}
