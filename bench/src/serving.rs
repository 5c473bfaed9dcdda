//! A server in a process of its own, and what it costs: the CPU time of all its threads, those of the kernel that work for it
//! included, and the machine that this was measured on.
//!
//! A server prints the address that it listens on as its first line and serves until it is killed, which dropping
//! [`Serving`] does. CPU time is time on a CPU in nanoseconds (proc_pid_schedstat(5)); it lags by a tick of the kernel, a
//! few milliseconds.

use std::fs;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// USER_HZ, which Linux has fixed at 100 for x86-64 and arm64.
const TICKS_PER_SECOND: f64 = 100.0;

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

/// Seconds of user and system time that a process has used so far, threads that have ended included.
///
/// In ticks of 10 ms (proc_pid_stat(5), fields 14 and 15): for runs of seconds, during which kernel workers come and go.
pub(crate) fn cpu_seconds(pid: u32) -> io::Result<f64> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    // The name of the program, in parentheses, may hold spaces.
    let fields = text.rsplit_once(')').map(|(_, fields)| fields.split_ascii_whitespace().skip(11).take(2));
    let ticks = fields.into_iter().flatten().map(|field| field.parse::<u64>().ok()).collect::<Option<Vec<_>>>();
    match ticks.as_deref() {
        Some(&[user, system]) => Ok((user + system) as f64 / TICKS_PER_SECOND),
        _ => Err(io::ErrorKind::InvalidData.into()),
    }
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

/// Writes a result as one JSON object and a line feed.
pub(crate) fn write_json(path: &Path, result: &impl serde::Serialize) -> io::Result<()> {
    fs::write(path, serde_json::to_string(result)? + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use corelane::runtime::real::thread_cpu_nanos;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "the test is no shard")]
    fn the_time_of_this_process_is_what_its_threads_have_spun() {
        let own = || cpu_seconds(std::process::id()).expect("there is /proc");
        let (begin, before, spun_before) = (std::time::Instant::now(), own(), thread_cpu_nanos());
        while thread_cpu_nanos() - spun_before < 300_000_000 {}
        let grown = own() - before;
        // Other tests run beside this one, on as many cores as there are.
        let most = begin.elapsed().as_secs_f64() * corelane::runtime::startup::cores() as f64;
        assert!(grown > 0.27 && grown < most + 0.03, "{grown} s, where 0.3 were spun and {most} s could be");
    }
}
