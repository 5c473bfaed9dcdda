//! HdrHistogram's interval log, version 1.3: one line per interval and latency, with the histogram itself.
//!
//! The tag of a line is the latency's name. Times are seconds since the start time in the head; values stay microseconds, and
//! the maximum, which the format repeats for people, is in milliseconds. Histograms are in the compressed V2 encoding: it is
//! the one that HdrHistogram's readers in other languages take. The caller gives intervals in the order of their beginnings.

use std::io::Write;
use std::time::{Duration, SystemTime};

use hdrhistogram::Histogram;
use hdrhistogram::serialization::V2DeflateSerializer;
use hdrhistogram::serialization::interval_log::{IntervalLogWriterBuilder, Tag};

/// Microseconds per millisecond.
const MAX_VALUE_DIVISOR: f64 = 1_000.0;
/// The line that readers know the columns by.
const COLUMNS: &str = "\"StartTimestamp\",\"Interval_Length\",\"Interval_Max\",\"Interval_Compressed_Histogram\"";

/// What was recorded in one interval under one name.
#[derive(Clone, Copy, Debug)]
pub struct Recorded<'a> {
    /// Its beginning, since the start of the load.
    pub start: Duration,
    /// Its length.
    pub length: Duration,
    /// The name of the latency.
    pub tag: &'a str,
    /// In microseconds.
    pub histogram: &'a Histogram<u64>,
}

/// A log that could not be written.
#[derive(Debug, thiserror::Error)]
pub enum HlogError {
    /// What takes it does not.
    #[error(transparent)]
    Io(#[from] std::io::Error),
    /// A name that would end its field.
    #[error("{0:?} is no tag: it has a comma, a space or a line break, or is empty")]
    Tag(String),
    /// A histogram that the encoding does not take.
    #[error("cannot encode a histogram: {0}")]
    Histogram(String),
}

/// Writes the log of a load that began at `started_ms` (milliseconds since 1970).
pub fn write<'a>(
    mut out: impl Write,
    started_ms: u64,
    intervals: impl Iterator<Item = Recorded<'a>>,
) -> Result<(), HlogError> {
    let mut serializer = V2DeflateSerializer::new();
    let started = SystemTime::UNIX_EPOCH + Duration::from_millis(started_ms);
    let mut head = IntervalLogWriterBuilder::new();
    head.add_comment("[Histogram log format version 1.3]").with_start_time(started).with_base_time(started);
    let mut log = head.with_max_value_divisor(MAX_VALUE_DIVISOR).begin_log_with(&mut out, &mut serializer)?;
    log.write_comment(COLUMNS)?;
    for Recorded { start, length, tag, histogram } in intervals {
        let checked = Tag::new(tag).filter(|_| !tag.is_empty()).ok_or_else(|| HlogError::Tag(tag.to_owned()))?;
        let written = log.write_histogram(histogram, start, length, Some(checked));
        written.map_err(|error| HlogError::Histogram(error.to_string()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD as BASE64;
    use hdrhistogram::serialization::Deserializer;
    use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

    use super::*;
    use crate::result::latency_histogram;

    fn histogram(values: &[u64]) -> Histogram<u64> {
        let mut histogram = latency_histogram();
        values.iter().for_each(|value| histogram.record(*value).unwrap());
        histogram
    }

    fn recorded<'a>(second: u64, tag: &'a str, histogram: &'a Histogram<u64>) -> Recorded<'a> {
        Recorded { start: Duration::from_secs(second), length: Duration::from_millis(999), tag, histogram }
    }

    #[test]
    fn what_was_written_is_read_back() {
        let (first, second) = (histogram(&[1, 50, 1_234_567]), histogram(&[]));
        let intervals = [recorded(5, "response", &first), recorded(6, "e2e", &second)];
        let mut log = Vec::new();
        write(&mut log, 1_700_000_000_123, intervals.into_iter()).unwrap();
        let text = std::str::from_utf8(&log).unwrap();
        assert!(
            text.starts_with("#[Histogram log format version 1.3]\n#[StartTime: 1700000000.123 (seconds"),
            "{text}"
        );

        let entries: Vec<LogEntry> = IntervalLogIterator::new(&log).map(|entry| entry.unwrap()).collect();
        let read: Vec<_> = entries
            .iter()
            .filter_map(|entry| match entry {
                LogEntry::Interval(interval) => Some(interval),
                _ => None,
            })
            .collect();
        assert_eq!(read.len(), 2);
        for (read, written) in read.iter().zip(intervals) {
            assert_eq!((read.start_timestamp(), read.duration()), (written.start, written.length));
            assert_eq!(read.tag().unwrap().as_str(), written.tag);
            let bytes = BASE64.decode(read.encoded_histogram()).unwrap();
            let histogram: Histogram<u64> = Deserializer::new().deserialize(&mut bytes.as_slice()).unwrap();
            assert_eq!(&histogram, written.histogram);
        }
        assert!((read[0].max() - 1_234.9).abs() < 1.0, "the maximum is in milliseconds: {}", read[0].max());
    }

    #[test]
    fn a_tag_that_would_end_its_field_is_refused() {
        let empty = histogram(&[]);
        for wrong in ["a,b", "a b", "a\nb", ""] {
            let error = write(Vec::new(), 0, [recorded(0, wrong, &empty)].into_iter()).unwrap_err();
            assert!(matches!(error, HlogError::Tag(_)), "{wrong:?}");
        }
    }
}
