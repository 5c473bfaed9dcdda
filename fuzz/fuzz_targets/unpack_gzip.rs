//! libFuzzer's way into `targets::records::unpack_gzip`.
//!
//! What is checked is written there; nothing is decided here.
#![no_main]

#[path = "../targets/mod.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::records::unpack_gzip(input));
