//! Real broker processes for the tests: started on a port of their own, watched, stopped in every way, never left behind.
//!
//! [`BrokerOptions`] start a broker on a data directory and may do so again and again; [`Starting`] has not printed its ready
//! line yet and [`Broker`] has. Whatever a test does, also when it panics, dropping either kills the process by its id and
//! waits for it. Standard error is kept and is part of every message. It knows no Kafka: clients are the tests' own.
#![allow(dead_code, reason = "every test uses a part of it")]

mod shared;

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use corelane::cli::ReadyLine;

#[allow(unused_imports, reason = "every test uses a part of it")]
pub(crate) use shared::SharedBroker;

/// A broker that is not ready after this long has failed: debug builds on a busy machine recover within seconds.
pub(crate) const READY_WITHIN: Duration = Duration::from_secs(60);
/// A broker that has not drained after this long has failed; its own limit (`shutdown.timeout.ms`) is 30 s.
pub(crate) const DRAINED_WITHIN: Duration = Duration::from_secs(45);
/// Lines of standard error that are kept, the last ones: enough for every report, little enough for hours of logs.
const LOG_LINES_MAX: usize = 10_000;
/// Ports below those that the kernel hands out to outgoing connections (ip_local_port_range), for brokers that come back on
/// the port that they had: a client that keeps trying such a port must not end up connected to itself.
const FIXED_PORTS: std::ops::Range<u16> = 20_000..32_000;

/// A new directory below the target directory, removed with everything in it once its owner goes out of scope. After a
/// panic it is kept, to be looked at.
pub(crate) struct Scratch {
    directory: Option<tempfile::TempDir>,
    path: PathBuf,
}

impl Scratch {
    /// A directory whose name begins with `name`.
    pub(crate) fn new(name: &str) -> Scratch {
        let directory = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in(env!("CARGO_TARGET_TMPDIR"));
        let directory = directory.expect("the target directory is writable");
        Scratch { path: directory.path().to_owned(), directory: Some(directory) }
    }

    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if thread::panicking()
            && let Some(directory) = self.directory.take()
        {
            eprintln!("kept: {}", directory.keep().display());
        }
    }
}

/// A port of 127.0.0.1 that is free now and stays out of the way of outgoing connections.
pub(crate) fn fixed_port() -> u16 {
    // Tests that run at the same time begin at different places.
    let spread = FIXED_PORTS.end - FIXED_PORTS.start;
    let first = (std::process::id().wrapping_mul(31) % u32::from(spread)) as u16;
    let ports = (0..spread).map(|step| FIXED_PORTS.start + (first + step) % spread);
    let mut free = ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
    free.next().expect("a port is free")
}

/// How a broker is started. The same options start it again on the same data.
#[derive(Clone, Debug)]
pub(crate) struct BrokerOptions {
    data_dir: PathBuf,
    listen: String,
    directory: Option<PathBuf>,
    admin_listen: String,
    arguments: Vec<OsString>,
    environment: Vec<(OsString, OsString)>,
}

impl BrokerOptions {
    /// On `data_dir`, on a free port of 127.0.0.1, without admin server, with the defaults for everything else.
    pub(crate) fn new(data_dir: &Path) -> BrokerOptions {
        BrokerOptions {
            data_dir: data_dir.to_owned(),
            listen: "127.0.0.1:0".to_owned(),
            admin_listen: "none".to_owned(),
            directory: None,
            arguments: Vec::new(),
            environment: Vec::new(),
        }
    }

    /// With an admin server at this address; port 0 takes a free one.
    pub(crate) fn admin(mut self, address: &str) -> BrokerOptions {
        address.clone_into(&mut self.admin_listen);
        self
    }

    /// On this port instead, so that a broker that comes back is found where it was. See [`fixed_port`].
    pub(crate) fn port(mut self, port: u16) -> BrokerOptions {
        self.listen = format!("127.0.0.1:{port}");
        self
    }

    /// On these addresses instead, with commas between.
    pub(crate) fn listen(self, addresses: &str) -> BrokerOptions {
        BrokerOptions { listen: addresses.to_owned(), ..self }
    }

    /// In this working directory, below which a relative data directory lies.
    pub(crate) fn directory(self, directory: &Path) -> BrokerOptions {
        BrokerOptions { directory: Some(directory.to_owned()), ..self }
    }

    /// With a configuration key.
    pub(crate) fn set(self, key: &str, value: &str) -> BrokerOptions {
        self.argument("--set").argument(&format!("{key}={value}"))
    }

    /// With another argument of the command line.
    pub(crate) fn argument(mut self, argument: &str) -> BrokerOptions {
        self.arguments.push(argument.into());
        self
    }

    /// With an environment variable.
    pub(crate) fn environment(mut self, name: &str, value: &str) -> BrokerOptions {
        self.environment.push((name.into(), value.into()));
        self
    }

    /// The data directory.
    pub(crate) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// Starts a broker and does not wait for it.
    pub(crate) fn spawn(&self) -> Starting {
        let mut command = Command::new(env!("CARGO_BIN_EXE_corelane"));
        command.arg("serve").arg("--data-dir").arg(&self.data_dir).arg("--listen").arg(&self.listen);
        command.arg("--admin-listen").arg(&self.admin_listen);
        command.args(&self.arguments).envs(self.environment.iter().cloned());
        command.current_dir(self.directory.as_deref().unwrap_or(Path::new(".")));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the broker's binary runs");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("standard output is piped");
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody waits for lines after the ready line, but the pipe must not fill up.
                let _ = sender.send(line);
            }
        });
        let log = Log::default();
        let stderr = child.stderr.take().expect("standard error is piped");
        let reader = thread::spawn({
            let log = log.clone();
            move || log.keep(stderr)
        });
        Starting { process: Process { child, log, reader: Some(reader) }, lines }
    }

    /// Starts a broker and waits until it is ready.
    pub(crate) fn start(&self) -> Result<Broker, Ended> {
        self.spawn().ready()
    }
}

/// How a process ended, or that it did not when it should have and was killed for it.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Its exit status.
    pub status: ExitStatus,
    /// Whether it ran out of time and was killed.
    pub timed_out: bool,
    /// What it wrote to standard error, the end of it.
    pub stderr: String,
}

impl Ended {
    /// Its exit code, unless a signal or its time ended it.
    pub(crate) fn code(&self) -> Option<i32> {
        if self.timed_out { None } else { self.status.code() }
    }
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let how = if self.timed_out { "ran out of time" } else { "ended" };
        write!(f, "the broker {how} ({}), its log:\n{}", self.status, self.stderr)
    }
}

impl std::error::Error for Ended {}

/// A broker whose ready line has not been seen.
pub(crate) struct Starting {
    process: Process,
    lines: Receiver<String>,
}

impl Starting {
    /// Waits for the ready line, [`READY_WITHIN`] at most.
    pub(crate) fn ready(mut self) -> Result<Broker, Ended> {
        match self.lines.recv_timeout(READY_WITHIN) {
            Ok(line) => match line.parse::<ReadyLine>() {
                Ok(ready) => Ok(Broker { process: self.process, ready }),
                Err(error) => panic!("the first line of standard output: {error}\n{}", self.process.log),
            },
            Err(RecvTimeoutError::Timeout) => Err(self.process.kill(true)),
            Err(RecvTimeoutError::Disconnected) => Err(self.process.ended_within(DRAINED_WITHIN)),
        }
    }

    /// Whether the ready line comes within `delay`.
    pub(crate) fn is_ready_within(&mut self, delay: Duration) -> bool {
        // The line is needed no more: whoever asks goes on to kill.
        self.lines.recv_timeout(delay).is_ok()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) -> Ended {
        self.process.kill(false)
    }
}

/// A broker that is ready.
pub(crate) struct Broker {
    process: Process,
    ready: ReadyLine,
}

impl Broker {
    /// What its ready line said.
    pub(crate) fn ready(&self) -> &ReadyLine {
        &self.ready
    }

    /// The first address that it listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.ready.listen[0]
    }

    /// The same as clients want it: `host:port`.
    pub(crate) fn bootstrap(&self) -> String {
        self.address().to_string()
    }

    /// Its process id.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// What it has written to standard error so far.
    pub(crate) fn stderr(&self) -> String {
        self.process.log.to_string()
    }

    /// Whether it is still there.
    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.process.child.try_wait(), Ok(None))
    }

    /// Sends it a signal by name: `TERM`, `STOP`, `CONT` …
    pub(crate) fn signal(&self, name: &str) {
        let status = Command::new("sh").arg("-c").arg(format!("kill -{name} {}", self.pid())).status();
        assert!(status.is_ok_and(|status| status.success()), "kill -{name} {}", self.pid());
    }

    /// SIGKILL: what a crash of the process leaves behind.
    pub(crate) fn kill(mut self) -> Ended {
        self.process.kill(false)
    }

    /// SIGTERM, and waits until it has drained; its exit code is then 0.
    pub(crate) fn terminate(mut self) -> Ended {
        self.signal("TERM");
        self.process.ended_within(DRAINED_WITHIN)
    }

    /// Waits for it to end by itself.
    pub(crate) fn wait(mut self, within: Duration) -> Ended {
        self.process.ended_within(within)
    }
}

/// A child that does not outlive its owner.
struct Process {
    child: Child,
    log: Log,
    reader: Option<thread::JoinHandle<()>>,
}

impl Process {
    fn kill(&mut self, timed_out: bool) -> Ended {
        // It may have ended already; then there is nothing to kill, and its status is what it was.
        let _ = self.child.kill();
        let status = self.child.wait().expect("a child is waited for");
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        Ended { status, timed_out, stderr: self.log.to_string() }
    }

    fn ended_within(&mut self, within: Duration) -> Ended {
        let deadline = now() + within;
        while now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return self.kill(false);
            }
            thread::sleep(Duration::from_millis(2));
        }
        self.kill(true)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.reader.is_some() {
            let ended = self.kill(false);
            if thread::panicking() {
                eprintln!("{ended}");
            }
        }
    }
}

/// The time of the machine that the tests run on: no simulator owns it.
#[allow(clippy::disallowed_methods)]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The last lines of standard error.
#[derive(Clone, Default)]
struct Log {
    lines: Arc<Mutex<VecDeque<String>>>,
}

impl Log {
    fn keep(&self, stderr: impl Read) {
        let mut reader = BufReader::new(stderr);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|bytes| bytes > 0) {
            let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
            if lines.len() == LOG_LINES_MAX {
                lines.pop_front();
            }
            lines.push_back(String::from_utf8_lossy(&line).into_owned());
            line.clear();
        }
    }
}

impl fmt::Display for Log {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().try_for_each(|line| f.write_str(line))
    }
}
