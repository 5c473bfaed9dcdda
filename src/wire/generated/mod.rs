//! Flatbuffers code, one file per schema in `schema/`, written by `scripts/generate` and never edited.
//!
//! The generator's style is not ours, so lints and formatting stop at this module; its `unsafe` reads fields of buffers that a
//! verifier has walked, so nothing outside this module reads a buffer by an `unchecked` function.
//!
//! Source: the code generator of flatbuffers 25.12.19.

#![allow(unsafe_code, missing_docs, unreachable_pub, unused_imports, dead_code, deprecated, clippy::all)]
#![allow(clippy::undocumented_unsafe_blocks, clippy::unwrap_used)]

#[rustfmt::skip]
#[path = "metadata.rs"]
mod metadata_schema;

pub use metadata_schema::corelane::metadata;
