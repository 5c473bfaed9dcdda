//! `selftest`: how fast the load generator is by itself, and what a record costs it.
//!
//! Each row is a run against a synthetic broker, in memory of the same thread (`--noop`: the whole path, only the socket calls
//! replaced) or over loopback sockets from a thread beside it. Every record is scheduled, made, stamped, batched, encoded,
//! acknowledged and timed; in the rows that consume, it is decoded, its checksums are compared, and its place is verified too.
//! The schedule is far ahead of what can be done, so that producers are never idle.

use std::net::SocketAddr;

use comfy_table::Table;
use comfy_table::presets::UTF8_HORIZONTAL_ONLY;
use corelane::record::Codec;
use corelane::runtime::Duration;
use serde::Serialize;

use super::load::load_exit;
use super::serve::serve;
use super::{fail, print, write_json};
use crate::cli::{Exit, ResultLine, SelftestArguments, SelftestPart};
use crate::client::{Bootstrap, ConnectionOptions};
use crate::figures;
use crate::load::options::{ConsumerOptions, LoadOptions, ProducerOptions};
use crate::load::payload::PayloadSource;
use crate::load::schedule::Pace;
use crate::load::{self, LoadResult};
use crate::result::RunState;
use crate::synthetic::{self, Faults, SyntheticOptions};

/// Records per second of the schedule: more than any core makes.
const SCHEDULE: f64 = 1e9;
/// Bytes that each partition of the synthetic broker keeps: enough for what is on its way to the consumer, and few enough
/// that its memory is used again and again.
const RETAINED_BYTES: usize = 8 << 20;
/// The share of bytes that codecs cannot shorten: half, as much as JSON or logs have.
const ENTROPY: f64 = 0.5;

/// A run of the self-test.
#[derive(Clone, Copy)]
struct Scenario {
    name: &'static str,
    codec: Codec,
    consumes: bool,
}

const SCENARIOS: [Scenario; 4] = [
    Scenario { name: "produce", codec: Codec::None, consumes: false },
    Scenario { name: "produce lz4", codec: Codec::Lz4, consumes: false },
    Scenario { name: "produce, consume, verify", codec: Codec::None, consumes: true },
    Scenario { name: "produce, consume, verify lz4", codec: Codec::Lz4, consumes: true },
];

/// What a run showed.
#[derive(Clone, Debug, Serialize)]
struct Row {
    name: &'static str,
    /// Records per second of wall-clock time.
    rate: f64,
    /// Records per second of the thread's CPU time.
    rate_per_cpu: f64,
    /// Nanoseconds of CPU per record, the synthetic broker's included where it shares the thread.
    ns: f64,
}

/// Runs the self-test.
pub fn selftest(arguments: SelftestArguments) -> ResultLine {
    if let Some(SelftestPart::Serve(arguments)) = arguments.part {
        return serve(arguments);
    }
    let mut rows = Vec::new();
    for scenario in SCENARIOS {
        let measured = match options(&arguments, scenario) {
            Ok(options) => load::run(options, |_| ()),
            Err(error) => return fail(&error, Exit::Invalid),
        };
        let measured = match measured {
            Ok(measured) => measured,
            Err(error) => return fail(&error, load_exit(&error)),
        };
        if let Some(verify) = measured.outcome.verify.filter(|verify| !verify.is_clean()) {
            return fail(&format_args!("{}: {verify:?}", scenario.name), Exit::Data);
        }
        if measured.outcome.records_in != arguments.num_records {
            let (got, wanted) = (measured.outcome.records_in, arguments.num_records);
            return fail(&format_args!("{}: {got} of {wanted} records", scenario.name), Exit::Invalid);
        }
        rows.push(row(scenario, &measured));
    }
    print(&table(&rows, &arguments));
    if let Some(path) = &arguments.json
        && let Err(error) = write_json(path, &serde_json::json!({"schema": 1, "kind": "selftest", "rows": rows}))
    {
        return fail(&error, Exit::Usage);
    }
    let whole = rows.iter().find(|row| row.name == SCENARIOS[2].name).map_or(0.0, |row| row.rate);
    let exit = if arguments.min_rate.is_some_and(|least| whole < least) { Exit::Slo } else { Exit::Done };
    ResultLine { state: RunState::Ok, rate: whole, p99: None, exit }
}

fn row(scenario: Scenario, measured: &LoadResult) -> Row {
    let outcome = &measured.outcome;
    let cpu_s = outcome.own.cpu * outcome.seconds;
    let records = outcome.records_in as f64;
    Row { name: scenario.name, rate: outcome.rate_in, rate_per_cpu: records / cpu_s, ns: cpu_s / records * 1e9 }
}

fn table(rows: &[Row], arguments: &SelftestArguments) -> Table {
    let mut table = Table::new();
    let size = arguments.record_size;
    let place = if arguments.noop { "in memory" } else { "over loopback" };
    table.load_style(UTF8_HORIZONTAL_ONLY);
    table.set_header([&format!("{size} B, {place}"), "records/s", "records per CPU-second", "ns of CPU per record"]);
    for row in rows {
        let cells = [figures::scaled(row.rate), figures::scaled(row.rate_per_cpu), format!("{:.0}", row.ns)];
        table.add_row([row.name].into_iter().chain(cells.iter().map(String::as_str)));
    }
    for (name, with, without) in [("consume, verify", 2, 0), ("consume, verify lz4", 3, 1)] {
        let ns = rows[with].ns - rows[without].ns;
        let rate = figures::scaled(1e9 / ns);
        table.add_row([&format!("{name} (the difference)"), "-", &rate, &format!("{ns:.0}")]);
    }
    table
}

fn options(arguments: &SelftestArguments, scenario: Scenario) -> std::io::Result<LoadOptions> {
    let partitions = arguments.partitions;
    let synthetic = SyntheticOptions { partitions, retained_bytes: RETAINED_BYTES, faults: Faults::default() };
    let mut connections = ConnectionOptions::default();
    let address = if arguments.noop {
        connections.dial = synthetic::in_memory(synthetic);
        SocketAddr::from(([127, 0, 0, 1], 1))
    } else {
        synthetic::serve_beside(synthetic, None)?
    };
    let producers = ProducerOptions {
        pace: Some(Pace::steady(SCHEDULE)),
        batch_bytes: arguments.batch_size,
        codec: scenario.codec,
        payload: PayloadSource::Entropy(ENTROPY),
        record_bytes: arguments.record_size..=arguments.record_size,
        ..ProducerOptions::default()
    };
    let consumers = ConsumerOptions { fetch_bytes_max: 4 << 20, ..ConsumerOptions::default() };
    Ok(LoadOptions {
        cores: arguments.cpu.into_iter().collect(),
        producers: Some(producers),
        consumers: scenario.consumes.then_some(consumers),
        // Never reached: the number of records ends the run.
        duration: Duration::from_secs(3600),
        num_records: Some(arguments.num_records),
        ..LoadOptions::new(Bootstrap::at(address, connections), "selftest")
    })
}
