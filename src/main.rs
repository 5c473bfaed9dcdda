//! The `corelane` binary: reads the command line, loads the configuration, starts the broker and waits for its end.
//!
//! It owns the process's exit code and its standard output, which carries the ready line and what `version` and `--help`
//! print. Everything it does by way of the machine goes through `corelane::runtime`.

use std::io::Write;

use corelane::admin::Admin;
use corelane::broker::{Broker, ListenerPlan, Ready, StartError};
use corelane::cli::{self, Exit, ReadyLine, Request};
use corelane::config::BrokerConfig;
use corelane::runtime::{SocketAddr, real, startup};
use corelane::types::ShardId;

fn main() -> Exit {
    let arguments = match cli::parse(std::env::args_os()) {
        Ok(Request::Serve(arguments)) => arguments,
        Ok(Request::Print(text)) => {
            print(&text);
            return Exit::Drained;
        }
        Err(error) => return usage(&error),
    };
    match arguments.load() {
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
    let (shards, cores) = (config.shards, startup::cores());
    if usize::from(shards) > cores {
        tracing::warn!(shards, cores, "there are more shards than cores: shards share cores");
    }
    // A single shard may go where there is room.
    let pins = shards > 1 && usize::from(shards) <= cores;
    let core = move |shard: ShardId| startup::core(usize::from(shard.0)).filter(|_| pins);
    let options = move |shard| real::Options { core: core(shard) };
    let admin_listener = config.admin_listener.clone();
    let broker = Broker::new(config, plans);
    let admin = admin_listener.map(|listener| Admin::start(&listener, broker.status().clone()));
    let admin = match admin.transpose() {
        Ok(admin) => admin,
        Err(error) if error.is_bind() => return failed(&error, Exit::Bind),
        Err(error) => return failed(&error, Exit::System),
    };
    let admin_address = admin.as_ref().map(Admin::address);
    let ran = real::run_shards(shards, options, move |shard| {
        broker.clone().run(shard, move |ready| print(&format!("{}\n", ready_line(ready, admin_address))))
    });
    let exit = match ran {
        Err(error) => failed(&error, Exit::System),
        Ok(outcomes) => match outcomes.into_iter().find_map(Result::err) {
            Some(error) => failed(&error, exit(&error)),
            None => Exit::Drained,
        },
    };
    if let Some(admin) = admin {
        admin.stop();
    }
    exit
}

fn exit(error: &StartError) -> Exit {
    match error {
        error if error.is_bind() => Exit::Bind,
        error if error.is_corrupt_metadata() => Exit::MetadataCorrupt,
        StartError::Mailbox { .. } | StartError::Silent(_) => Exit::System,
        _ => Exit::DataDirectory,
    }
}

fn failed(error: &dyn std::error::Error, exit: Exit) -> Exit {
    tracing::error!("{error}");
    exit
}

fn ready_line(ready: &Ready, admin: Option<SocketAddr>) -> ReadyLine {
    ReadyLine {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        node: ready.node,
        cluster: ready.cluster,
        shards: ready.shards,
        listen: ready.listening.clone(),
        admin,
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
