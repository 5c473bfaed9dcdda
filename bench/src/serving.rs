//! A server in a process of its own, and what it costs: the CPU time of all its threads, those of the kernel that work for it
//! included, and the machine that this was measured on.
//!
//! A server prints the address that it listens on as its first line and serves until it is killed, which dropping
//! [`Serving`] does. CPU time is time on a CPU in nanoseconds (proc_pid_schedstat(5)); it lags by a tick of the kernel, a
//! few milliseconds.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A server's process, killed when it is dropped.
pub(crate) struct Serving {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    address: SocketAddr,
}

impl Serving {
    /// Starts this program with `arguments` and waits for its address.
    pub(crate) fn start(arguments: &[String]) -> io::Result<Serving> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let input = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let output = BufReader::new(child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?);
        // Made before the check, so that a server with bad words is killed too.
        let mut serving = Serving { child, input, output, address: SocketAddr::from(([127, 0, 0, 1], 0)) };
        let line = serving.line()?;
        serving.address = line.trim().parse().map_err(|_| io::Error::other(format!("the server said {line:?}")))?;
        Ok(serving)
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        Ok(line)
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Asks a server that runs [`answer_questions`].
    pub(crate) fn ask(&mut self) -> io::Result<u64> {
        self.input.write_all(b"?")?;
        let line = self.line()?;
        line.trim().parse().map_err(|_| io::Error::other(format!("the server said {line:?}")))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Says a server's address to the process that started it.
pub(crate) fn announce(address: SocketAddr) {
    println!("{address}");
    // The parent waits for the line; if it is gone nobody minds.
    let _ = io::stdout().flush();
}

/// Answers every byte on standard input with a number, on a thread of its own, until the input ends.
pub(crate) fn answer_questions(number: impl Fn() -> u64 + Send + 'static) {
    std::thread::spawn(move || {
        let mut question = [0];
        while io::stdin().read_exact(&mut question).is_ok() {
            println!("{}", number());
        }
    });
}

/// Nanoseconds that all threads of a process have spent on a CPU.
pub(crate) fn cpu_nanos(pid: u32) -> io::Result<u64> {
    let mut total = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        // A thread may end between the two calls.
        let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
        let nanos: Option<u64> = text.split(' ').next().and_then(|field| field.parse().ok());
        total += nanos.ok_or(io::ErrorKind::InvalidData)?;
    }
    Ok(total)
}

/// Kernel, processor, cores, load and date in one line.
pub(crate) fn machine_line() -> io::Result<String> {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let cpus = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
    let load = fs::read_to_string("/proc/loadavg")?;
    let date = Command::new("date").args(["-u", "+%Y-%m-%d %H:%M:%S UTC"]).output()?;
    Ok(format!(
        "{} · Linux {} · {} × {} · load {}",
        String::from_utf8_lossy(&date.stdout).trim(),
        kernel.trim(),
        corelane::runtime::startup::cores(),
        model.trim_start_matches([' ', '\t', ':']),
        load.split(' ').next().unwrap_or("unknown"),
    ))
}
