//! Zstandard (RFC 8878): frames, one or several, through one context.
//!
//! A frame names the window it needs. Up to 128 MiB (2²⁷, zstd's own default limit, which its level 22 asks for) is accepted,
//! since the memory is touched only as far as data comes out, and that is capped; a context that grew is given back.

use zstd::zstd_safe::{DCtx, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::{RETAINED_BYTES_MAX, UnpackError};
use crate::record::header::Codec;

/// The library's context.
pub(super) type Context = DCtx<'static>;

/// Reads one batch.
pub(super) struct Reader<'s, 'a> {
    context: Result<&'s mut Context, UnpackError>,
    input: InBuffer<'a>,
    bytes: usize,
    between_frames: bool,
}

impl<'s, 'a> Reader<'s, 'a> {
    pub(super) fn new(context: &'s mut Option<Context>, packed: &'a [u8]) -> Reader<'s, 'a> {
        context.take_if(|used| used.sizeof() > RETAINED_BYTES_MAX);
        let context = context.get_or_insert_with(DCtx::create);
        let context = context.reset(ResetDirective::SessionOnly).map_err(corrupt).map(|_| context);
        Reader { context, input: InBuffer::around(packed), bytes: packed.len(), between_frames: true }
    }

    pub(super) fn read(&mut self, out: &mut [u8]) -> Result<usize, UnpackError> {
        let context = self.context.as_mut().map_err(|error| *error)?;
        loop {
            if self.between_frames && self.input.pos() == self.bytes {
                return Ok(0);
            }
            let before = self.input.pos();
            let mut output = OutBuffer::around(out);
            let hint = context.decompress_stream(&mut output, &mut self.input).map_err(corrupt)?;
            let produced = output.pos();
            self.between_frames = hint == 0;
            if produced > 0 {
                return Ok(produced);
            }
            if self.input.pos() == before {
                return Err(UnpackError::Corrupt { codec: Codec::Zstd, what: "it ends inside a frame" });
            }
        }
    }
}

fn corrupt(code: usize) -> UnpackError {
    UnpackError::Corrupt { codec: Codec::Zstd, what: get_error_name(code) }
}
