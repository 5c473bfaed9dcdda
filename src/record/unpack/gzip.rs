//! gzip (RFC 1952): header and trailer by hand around raw deflate, so that one inflate state serves every batch.
//!
//! Members may follow each other, as Java's reader allows. CRC-32 and length of each are compared.

use flate2::{Crc, Decompress, FlushDecompress, Status};

use super::UnpackError;
use crate::record::header::Codec;

/// The inflate state: 32 KiB of window and its tables.
pub(super) struct Context {
    inflate: Decompress,
}

impl Default for Context {
    fn default() -> Self {
        Context { inflate: Decompress::new(false) }
    }
}

/// Reads one batch.
pub(super) struct Reader<'s, 'a> {
    inflate: &'s mut Decompress,
    input: &'a [u8],
    crc: Crc,
    in_member: bool,
}

impl<'s, 'a> Reader<'s, 'a> {
    pub(super) fn new(context: &'s mut Context, packed: &'a [u8]) -> Reader<'s, 'a> {
        Reader { inflate: &mut context.inflate, input: packed, crc: Crc::new(), in_member: false }
    }

    #[allow(clippy::cast_possible_truncation, reason = "consumed and produced are parts of slices")]
    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        loop {
            if !self.in_member {
                if self.input.is_empty() {
                    return Ok(0);
                }
                self.input = after_header(self.input)?;
                self.inflate.reset(false);
                self.crc.reset();
                self.in_member = true;
            }
            let (in_before, out_before) = (self.inflate.total_in(), self.inflate.total_out());
            let status = self
                .inflate
                .decompress(self.input, out, FlushDecompress::None)
                .map_err(|_| corrupt("the deflate stream"))?;
            let consumed = (self.inflate.total_in() - in_before) as usize;
            let produced = (self.inflate.total_out() - out_before) as usize;
            self.input = &self.input[consumed..];
            self.crc.update(&out[..produced]);
            if status == Status::StreamEnd {
                self.finish_member()?;
            } else if consumed == 0 && produced == 0 {
                return Err(corrupt("it ends inside the deflate stream"));
            }
            if produced > 0 {
                return Ok(produced);
            }
        }
    }

    fn finish_member(&mut self) -> Result<(), UnpackError> {
        let (crc, rest) = self.input.split_first_chunk().ok_or(corrupt("it ends inside the trailer"))?;
        let (length, rest) = rest.split_first_chunk().ok_or(corrupt("it ends inside the trailer"))?;
        if u32::from_le_bytes(*crc) != self.crc.sum() || u32::from_le_bytes(*length) != self.crc.amount() {
            return Err(corrupt("its checksum or length does not hold"));
        }
        self.input = rest;
        self.in_member = false;
        Ok(())
    }
}

/// What follows a member's header (RFC 1952, section 2.3).
fn after_header(input: &[u8]) -> Result<&[u8], UnpackError> {
    const HAS_CRC: u8 = 1 << 1;
    const EXTRA: u8 = 1 << 2;
    const NAME: u8 = 1 << 3;
    const COMMENT: u8 = 1 << 4;
    const RESERVED: u8 = 0b1110_0000;
    let short = || corrupt("it ends inside the header");
    let ([id1, id2, method, flags, ..], mut rest) = input.split_first_chunk::<10>().ok_or_else(short)?;
    if (*id1, *id2, *method) != (0x1f, 0x8b, 8) || flags & RESERVED != 0 {
        return Err(corrupt("no gzip header"));
    }
    if flags & EXTRA != 0 {
        let (length, after) = rest.split_first_chunk().ok_or_else(short)?;
        rest = after.get(usize::from(u16::from_le_bytes(*length))..).ok_or_else(short)?;
    }
    for text in [NAME, COMMENT] {
        if flags & text != 0 {
            let end = rest.iter().position(|&byte| byte == 0).ok_or_else(short)?;
            rest = &rest[end + 1..];
        }
    }
    if flags & HAS_CRC != 0 {
        rest = rest.get(2..).ok_or_else(short)?;
    }
    Ok(rest)
}

fn corrupt(what: &'static str) -> UnpackError {
    UnpackError::Corrupt { codec: Codec::Gzip, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(flags: u8, optional: &[u8], data: &[u8]) -> Vec<u8> {
        let mut out = vec![0x1f, 0x8b, 8, flags, 0, 0, 0, 0, 0, 255];
        out.extend_from_slice(optional);
        // One stored block (RFC 1951, section 3.2.4).
        let length = data.len() as u16;
        out.push(1);
        out.extend_from_slice(&length.to_le_bytes());
        out.extend_from_slice(&(!length).to_le_bytes());
        out.extend_from_slice(data);
        let mut crc = Crc::new();
        crc.update(data);
        out.extend_from_slice(&crc.sum().to_le_bytes());
        out.extend_from_slice(&u32::from(length).to_le_bytes());
        out
    }

    fn unpacked(packed: &[u8]) -> Result<Vec<u8>, UnpackError> {
        let mut context = Context::default();
        let mut reader = Reader::new(&mut context, packed);
        let (mut all, mut out) = (Vec::new(), [0; 3]);
        loop {
            match reader.read(&mut out)? {
                0 => return Ok(all),
                count => all.extend_from_slice(&out[..count]),
            }
        }
    }

    #[test]
    fn members_follow_each_other_with_every_optional_field() {
        let mut packed = member(0, b"", b"first ");
        packed.extend(member(0b11110, b"\x03\x00abcname\0comment\0\x12\x34", b"second"));
        assert_eq!(unpacked(&packed).as_deref(), Ok(&b"first second"[..]));
        for cut in 1..packed.len() {
            let whole_first = cut == member(0, b"", b"first ").len();
            assert_eq!(unpacked(&packed[..cut]).is_ok(), whole_first, "cut at {cut}");
        }
    }

    #[test]
    fn the_trailer_is_compared() {
        let good = member(0, b"", b"data");
        for at in good.len() - 8..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(unpacked(&bad), Err(corrupt("its checksum or length does not hold")), "byte {at}");
        }
    }
}
