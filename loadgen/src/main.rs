//! The `loadgen` binary: reads the command line, does what it says, and ends with the result line and its exit code.
//!
//! Standard output's last line is always the result line. Errors go to standard error; `LOADGEN_LOG=debug` adds what the
//! client meets.

use std::io::IsTerminal;

use clap::Parser;
use loadgen::cli::{Command, CommandLine, Exit, ResultLine};
use loadgen::commands;

fn main() -> Exit {
    let line = match CommandLine::try_parse() {
        Ok(line) => line,
        Err(error) => {
            let exit = if error.use_stderr() { Exit::Usage } else { Exit::Done };
            // Where nobody reads, nobody needs to be told.
            let _ = error.print();
            return if exit == Exit::Done { exit } else { end(ResultLine::failed(exit)) };
        }
    };
    start_logging();
    end(match line.command() {
        Command::E2e(arguments) => commands::e2e(*arguments),
        Command::Produce(arguments) => commands::produce(*arguments),
        Command::Consume(arguments) => commands::consume(*arguments),
        Command::Verify(verify) => commands::verify(*verify),
        Command::Sweep(arguments) => commands::sweep(*arguments),
        Command::Replay(arguments) => commands::replay(*arguments),
        Command::Swarm(arguments) => commands::swarm(*arguments),
        Command::Compare(arguments) => commands::compare(*arguments),
        Command::Report(arguments) => commands::report(arguments),
        Command::Selftest(arguments) => commands::selftest(arguments),
        Command::Doctor(arguments) => commands::doctor(arguments),
    })
}

fn start_logging() {
    let level = match std::env::var("LOADGEN_LOG").as_deref() {
        Ok("debug") => tracing::Level::DEBUG,
        _ => tracing::Level::WARN,
    };
    let stderr = std::io::stderr;
    tracing_subscriber::fmt().with_max_level(level).with_writer(stderr).with_ansi(stderr().is_terminal()).init();
}

fn end(line: ResultLine) -> Exit {
    commands::print(&line);
    line.exit
}
