//! The `corelane` binary: reads the command line, loads the configuration, starts the broker and waits for its end.
//!
//! It owns the process's exit code and its standard output, which carries the ready line and what `version` and `--help`
//! print. Everything it does by way of the machine goes through `corelane::runtime`.

use std::io::Write;

use corelane::broker::{self, ListenerPlan, Ready};
use corelane::cli::{self, Exit, ReadyLine, Request};
use corelane::config::BrokerConfig;
use corelane::runtime::real;

/// Shards of a broker: one until partitions are spread over cores.
const SHARDS: u16 = 1;

fn main() -> Exit {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(Request::Serve(arguments)) => arguments,
        Ok(Request::Print(text)) => {
            print(&text);
            return Exit::Drained;
        }
        Err(error) => return usage(&error),
    };
    match arguments.load(SHARDS) {
        Ok(config) => {
            cli::start_logging(&config);
            serve(config)
        }
        Err(error) => usage(&error),
    }
}

fn serve(config: BrokerConfig) -> Exit {
    let plans = config.listeners.iter().map(ListenerPlan::new).collect::<Result<Vec<_>, _>>();
    let plans = match plans {
        Ok(plans) => plans,
        Err(error) => return failed(&error, Exit::Bind),
    };
    let broker = broker::serve(config, plans, |ready| print(&format!("{}\n", ready_line(ready))));
    match real::run(&real::Options::default(), broker) {
        Err(error) => failed(&error, Exit::System),
        Ok(Err(error)) if error.is_bind() => failed(&error, Exit::Bind),
        Ok(Err(error)) if error.is_corrupt_metadata() => failed(&error, Exit::MetadataCorrupt),
        Ok(Err(error)) => failed(&error, Exit::DataDirectory),
        Ok(Ok(())) => Exit::Drained,
    }
}

fn failed(error: &dyn std::error::Error, exit: Exit) -> Exit {
    tracing::error!("{error}");
    exit
}

fn ready_line(ready: &Ready) -> ReadyLine {
    ReadyLine {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: ready.node,
        cluster: ready.cluster,
        shards: SHARDS,
        listen: ready.listening.clone(),
        admin: None,
        partitions: ready.partitions,
        recovered: ready.recovered,
        elapsed: ready.elapsed,
    }
}

fn usage(error: &cli::UsageError) -> Exit {
    eprintln!("corelane: {}", error.to_string().trim_end());
    Exit::Usage
}

/// Writes to standard output; a reader that has gone away is no failure.
fn print(text: &str) {
    let mut output = std::io::stdout().lock();
    let _ = output.write_all(text.as_bytes()).and_then(|()| output.flush());
}
