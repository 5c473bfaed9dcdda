//! What is fuzzed: every decoder of bytes that nobody vouches for, as plain functions from bytes to nothing.
//!
//! A target feeds its bytes to one decoder as the broker does and demands what holds for every input: no panic, memory that
//! follows the length of the input, and agreement with a second reading where there is one. Each is called in three ways: by
//! libFuzzer (`fuzz/fuzz_targets`, `scripts/fuzz`), by the replay of the corpus in `tests/hostile_bytes`, and some by the
//! million mutated frames there. Inputs with a checksum get a right one first: else nothing would ever come behind it.
//!
//! | module | targets |
//! |---|---|
//! | [`requests`] | the request header, the control plane, Produce, Fetch |
//! | [`records`] | what a leader demands of a batch, and every codec's unpacking |
//! | [`answers`] | the answers that are encoded by hand, read by another decoder |
//! | [`stored`] | the files of the data directory |
//! | [`grow`], [`seeds`], [`random`] | well-formed requests of every row of the table; inputs to begin with; chance |
//!
//! Nothing here does I/O or knows the time.
#![allow(dead_code, reason = "every program that includes this module calls a part of it")]

pub(crate) mod answers;
pub(crate) mod grow;
pub(crate) mod random;
pub(crate) mod records;
pub(crate) mod requests;
pub(crate) mod seeds;
pub(crate) mod stored;

/// A decoder under test, as the table of all of them lists it.
pub(crate) struct Target {
    /// The name of its binary, of its corpus and of its function.
    pub(crate) name: &'static str,
    /// Feeds it one input; panics if a promise is broken.
    pub(crate) run: fn(&[u8]),
}

macro_rules! targets {
    ($($module:ident::$name:ident;)+) => {
        /// Every target.
        pub(crate) const TARGETS: &[Target] = &[$(Target { name: stringify!($name), run: $module::$name },)+];
    };
}

targets! {
    requests::request_frame;
    requests::produce_request;
    requests::fetch_request;
    records::produced_batch;
    records::unpack_gzip;
    records::unpack_snappy;
    records::unpack_lz4;
    records::unpack_zstd;
    answers::response_encoders;
    stored::segment_header;
    stored::checkpoint;
    stored::seal;
    stored::metadata_file;
    stored::metadata_payload;
}

/// The next bytes of an input, zeros behind its end: how an input becomes numbers.
pub(crate) struct Source<'a> {
    rest: &'a [u8],
}

impl<'a> Source<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Source<'a> {
        Source { rest: bytes }
    }

    /// The next byte.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((&byte, rest)) = self.rest.split_first() else { return 0 };
        self.rest = rest;
        byte
    }

    /// The next eight bytes as a number.
    pub(crate) fn number(&mut self) -> i64 {
        i64::from_be_bytes(std::array::from_fn(|_| self.byte()))
    }

    /// The next `bytes` bytes, as far as there are so many.
    pub(crate) fn bytes(&mut self, bytes: usize) -> &'a [u8] {
        let (taken, rest) = self.rest.split_at(bytes.min(self.rest.len()));
        self.rest = rest;
        taken
    }

    /// All that is left.
    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }
}
