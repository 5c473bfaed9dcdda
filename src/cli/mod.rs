//! The command line: arguments, exit codes, log output and the ready line.
//!
//! It turns arguments, a file and the defaults into a [`BrokerConfig`] and says how the process ends; it starts nothing. An
//! option exists only if it works, so whatever is not listed here is a usage error. It writes to no stream but the log's:
//! what is to be printed is handed back.

mod exit;
mod logging;
mod ready;

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::Parser;

pub use exit::Exit;
pub use logging::start_logging;
pub use ready::{ReadyLine, ReadyLineError};

use crate::config::{BrokerConfig, ConfigError, Settings, keys, memory_bytes_default, split_assignment};
use crate::runtime::startup;

/// A Kafka-compatible event-streaming broker. Without a subcommand it serves.
#[derive(Debug, Parser)]
#[command(name = "corelane", args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Subcommand>,
    #[command(flatten)]
    serve: ServeArguments,
}

#[derive(Debug, clap::Subcommand)]
enum Subcommand {
    /// Starts the broker
    Serve(ServeArguments),
    /// Prints the version
    Version,
}

/// The options of `corelane serve`. A flag wins over `--set`, that over the file, that over the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct ServeArguments {
    /// Reads configuration keys from a TOML file
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Sets a configuration key; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// The data directory (log.dirs; ./data)
    #[arg(long, value_name = "DIR")]
    data_dir: Option<String>,
    /// The address to listen on, or several with commas between (listeners; localhost:9092)
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// The address that clients are told (advertised.listeners; that of --listen)
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// The shards, each with a part of the partitions (shards; one for each core)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    shards: Option<String>,
    /// The address for metrics and health over HTTP, or none (admin.listener; 127.0.0.1:9644)
    #[arg(long, value_name = "HOST:PORT")]
    admin_listen: Option<String>,
    /// The id of this broker in its cluster (node.id; 1)
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    node_id: Option<String>,
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = split_assignment(text).ok_or("it has the form key=value")?;
    Ok((name.to_owned(), value.to_owned()))
}

/// What the command line asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Start the broker.
    Serve(ServeArguments),
    /// Print this text to standard output and end well.
    Print(String),
}

/// Why the process ends before it serves, as a person reads it.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// Not a valid command line; clap's own text.
    #[error("{0}")]
    Arguments(String),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// The configuration is refused.
    #[error(transparent)]
    Config(#[from] ConfigError),
}

/// Reads the command line; the first argument is the program's name.
pub fn parse(arguments: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> Result<Request, UsageError> {
    match CommandLine::try_parse_from(arguments) {
        Ok(CommandLine { command: Some(Subcommand::Version), .. }) => {
            Ok(Request::Print(format!("corelane {}\n", env!("CARGO_PKG_VERSION"))))
        }
        Ok(CommandLine { command: Some(Subcommand::Serve(serve)), .. }) => Ok(Request::Serve(serve)),
        Ok(CommandLine { command: None, serve }) => Ok(Request::Serve(serve)),
        Err(error) if error.use_stderr() => {
            let text = error.to_string();
            Err(UsageError::Arguments(text.strip_prefix("error: ").unwrap_or(&text).to_owned()))
        }
        Err(error) => Ok(Request::Print(error.to_string())),
    }
}

impl ServeArguments {
    /// Merges flags, `--set`, the file and the defaults for this machine.
    pub fn load(&self) -> Result<BrokerConfig, UsageError> {
        let mut settings = Settings::new();
        if let Some(path) = &self.config {
            let text = startup::read_text(path);
            let text = text.map_err(|error| UsageError::File { path: path.clone(), error })?;
            settings.add_file(&Path::display(path).to_string(), &text)?;
        }
        for (name, value) in &self.set {
            settings.add_set(name, value)?;
        }
        for (flag, key, value) in [
            ("--data-dir", &keys::LOG_DIRS, &self.data_dir),
            ("--listen", &keys::LISTENERS, &self.listen),
            ("--advertise", &keys::ADVERTISED_LISTENERS, &self.advertise),
            ("--admin-listen", &keys::ADMIN_LISTENER, &self.admin_listen),
            ("--node-id", &keys::NODE_ID, &self.node_id),
            ("--shards", &keys::SHARDS, &self.shards),
        ] {
            if let Some(value) = value {
                settings.add_flag(flag, key, value)?;
            }
        }
        let shards = settings.shards().unwrap_or_else(|| u16::try_from(startup::cores()).unwrap_or(u16::MAX).min(1024));
        let memory = startup::memory();
        let default = memory_bytes_default(memory.machine_bytes, memory.cgroup_bytes, shards);
        Ok(BrokerConfig::new(settings, shards, default)?)
    }
}

#[cfg(test)]
mod tests;
