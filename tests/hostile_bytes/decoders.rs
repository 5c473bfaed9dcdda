//! Mutated frames by the million into every decoder of requests, under a counted allocator.
//!
//! Each frame goes the way of a connection's: header, body, and for Produce the validation of every batch, with
//! decompression state that lives on as a shard's does. None may panic, none may hold more than [`FRAME_MEMORY_MAX`] at a
//! time, none may take long. What the allocator does not see, zstd's own memory, shows in the process's peak.
//!
//! Environment: CORELANE_HOSTILE_FRAMES (1 000 000), CORELANE_HOSTILE_SEED; see `scripts/hostile`.

use std::collections::BTreeMap;
use std::time::Duration;

use super::corpus::{self, TOPICS};
use super::process::peak_memory;
use super::support::now;
use super::targets::random::Random;
use super::targets::records::Scratch;
use super::targets::requests::{Verdict, decode};
use super::targets::{grow, seeds};
use super::{alone, hex, mutate, number};

/// Bytes that one frame may hold at a time, in the decoders and whatever they make of it: what the elements of a request
/// may ask for (34 MB), and a decompression window that grew.
const FRAME_MEMORY_MAX: u64 = 64 << 20;
/// What the process may grow by at its peak, zstd's contexts and the allocator's own slack included.
const PROCESS_MEMORY_MAX: u64 = 2 * FRAME_MEMORY_MAX;
/// A frame may take no longer. Compressed batches may unpack to 8 MiB.
const FRAME_TIME_MAX: Duration = Duration::from_secs(2);
/// How often a frame that took longer is tried again: it may have been the machine that was busy.
const FRAME_RETRIES: usize = 4;
/// Frames between two looks at the process's memory.
const CHUNK: u64 = 10_000;

/// What frames came to, and what the costliest took.
#[derive(Default, Debug)]
struct Tally {
    verdicts: BTreeMap<&'static str, u64>,
    good_batches: u64,
    largest_bytes: u64,
    longest: Duration,
}

impl Tally {
    /// Decodes a frame and checks what it took; `name` tells it to whoever wants to repeat it.
    fn decode(&mut self, frame: &[u8], scratch: &mut Scratch, name: &dyn Fn() -> String) {
        let mut verdict = None;
        let began = now();
        let memory = allocation_counter::measure(|| verdict = Some(decode(frame, scratch)));
        let mut took = now() - began;
        for _ in 0..FRAME_RETRIES {
            if took > FRAME_TIME_MAX {
                let again = now();
                decode(frame, scratch);
                took = took.min(now() - again);
            }
        }
        self.largest_bytes = self.largest_bytes.max(memory.bytes_max);
        self.longest = self.longest.max(took);
        assert!(memory.bytes_max <= FRAME_MEMORY_MAX, "{}: {memory:?}\n{}", name(), hex(frame));
        assert!(took <= FRAME_TIME_MAX, "{}: {took:?}\n{}", name(), hex(frame));
        let kind = match verdict.expect("it was decoded") {
            Verdict::BadHeader => "bad header",
            Verdict::UnknownApiVersions => "unknown ApiVersions",
            Verdict::BadBody => "bad body",
            Verdict::Request { batches } => {
                self.good_batches += batches as u64;
                "request"
            }
        };
        *self.verdicts.entry(kind).or_default() += 1;
    }
}

#[test]
fn mutated_frames_never_panic_and_never_take_more_memory_than_they_may() {
    let _alone = alone();
    let count = number("CORELANE_HOSTILE_FRAMES").unwrap_or(1_000_000);
    let seed = number("CORELANE_HOSTILE_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let frames = corpus::all();
    let (mut tally, mut scratch) = (Tally::default(), Scratch::new());
    let (began, idle) = (now(), peak_memory());
    for index in 0..count {
        let frame = mutate::frame(&frames, seed, index);
        tally.decode(&frame, &mut scratch, &|| format!("frame {index} of seed {seed}"));
        if index % CHUNK == 0 {
            let grown = peak_memory() - idle;
            assert!(grown <= PROCESS_MEMORY_MAX, "the process grew by {grown} bytes before frame {index} of {seed}");
        }
    }
    let grown = peak_memory() - idle;
    assert!(grown <= PROCESS_MEMORY_MAX, "the process grew by {grown} bytes, seed {seed}");
    println!(
        "{count} frames of {} bases, seed {seed}, {:?}, {grown} bytes grown: {tally:?}",
        frames.len(),
        now() - began
    );
    // Mutation that only ever broke headers would prove nothing about bodies, and the other way round.
    for kind in ["bad header", "bad body", "request"] {
        let share = tally.verdicts.get(kind).copied().unwrap_or_default() as f64 / count as f64;
        assert!(count < CHUNK || share > 0.05, "{kind}: {share:.3} of all frames");
    }
    assert!(count < CHUNK || tally.good_batches > count / 1000, "batches are reached: {}", tally.good_batches);
}

#[test]
fn every_truncation_of_every_request_is_refused_or_understood() {
    let (mut tally, mut scratch) = (Tally::default(), Scratch::new());
    for frame in corpus::all() {
        let longest = frame.bytes.len().min(512);
        for end in 0..longest {
            tally.decode(&frame.bytes[..end], &mut scratch, &|| format!("{} cut at {end}", frame.api()));
        }
    }
    println!("{tally:?}");
}

/// A dozen bytes that claim two billion elements, at every place of every request where a count or a length stands.
#[test]
fn two_billion_elements_are_refused_wherever_they_are_claimed() {
    let (mut tally, mut scratch, mut claims) = (Tally::default(), Scratch::new(), 0);
    for frame in corpus::all() {
        for place in &frame.places {
            for claim in [i32::MAX, i32::MAX - 1, 1 << 30, 1 << 24] {
                let claimed = grow::with_number(&frame.bytes, *place, claim);
                for bytes in [&claimed[..], &claimed[..(place.at + 5).min(claimed.len())]] {
                    let verdict = decode(bytes, &mut scratch);
                    let short = place.bytes == 2;
                    assert!(short || verdict == Verdict::BadBody, "{} at {place:?}: {verdict:?}", frame.api());
                    tally.decode(bytes, &mut scratch, &|| format!("{} at {place:?}", frame.api()));
                    claims += 1;
                }
            }
        }
    }
    println!("{claims} claims: {tally:?}");
    assert!(claims > 1000, "{claims} claims");
}

/// As many elements as a frame of a megabyte can hold, for every array of every API: the costliest that is well formed.
#[test]
fn arrays_that_fill_a_megabyte_stay_within_the_memory_of_a_frame() {
    let (mut tally, mut scratch) = (Tally::default(), Scratch::new());
    for frame in corpus::all() {
        for place in frame.places.iter().filter(|place| place.counts) {
            let elements = grow::number_at(&frame.bytes, *place);
            if elements < 1 {
                continue;
            }
            for fill in [0, 1, 0xff] {
                for count in [1 << 16, 1 << 17, (1 << 17) + 1, 1 << 20] {
                    let mut full = grow::with_number(&frame.bytes, *place, count);
                    full.truncate(place.at + if place.compact { grow::varint(count as u32 + 1).len() } else { 4 });
                    full.resize(full.len() + (1 << 20), fill);
                    tally.decode(&full, &mut scratch, &|| format!("{} × {count} at {place:?}", frame.api()));
                }
            }
        }
    }
    println!("{tally:?}");
    assert!(tally.largest_bytes > 1 << 20, "large requests were reached");
}

#[test]
fn the_same_seed_gives_the_same_frames() {
    let frames = corpus::all();
    for index in 0..1000 {
        assert_eq!(mutate::frame(&frames, 7, index), mutate::frame(&frames, 7, index));
    }
    let other = (0..100).filter(|index| mutate::frame(&frames, 7, *index) != mutate::frame(&frames, 8, *index));
    assert!(other.count() > 90, "seeds differ");
    // What is grown and made does not depend on anything but the table.
    let api = frames[0].api();
    assert_eq!(grow::body(api, &mut Random::new(3)), grow::body(api, &mut Random::new(3)));
    assert_eq!(seeds::id_of(TOPICS[0]), seeds::id_of(TOPICS[0]));
}
