//! Requests per CPU-second of an echo server, for three servers and eight loads: what the runtime's sockets cost beside a bare
//! ring and beside glommio's.
//!
//! The servers run in processes of their own; the client is a shard of the runtime in this one. A load is connections × bytes
//! per request × requests in flight per connection. The cost of a run is the CPU time of all threads of the server's process
//! over the run, kernel workers included (proc_pid_schedstat: time on a CPU in ns). Runs are interleaved (A B C, A B C …) and
//! the median per server is shown, so that other load on the machine hits all servers alike.

pub(crate) mod server;

use std::io;
use std::time::Duration;

use clap::Args;

use self::server::Server;
use crate::load::{self, Load, Run};
use crate::serving::{Serving, cpu_nanos, machine_line};

/// Bytes that a server receives at once at most, for small and large requests.
const SMALL_BUFFER_BYTES: usize = 16 << 10;
const LARGE_BUFFER_BYTES: usize = 256 << 10;

const SERVERS: [(Server, &str); 3] =
    [(Server::Glommio, "glommio TcpStream"), (Server::Bare, "bare io_uring"), (Server::Shard, "shard (our ring)")];

const LOADS: [EchoLoad; 8] = [
    EchoLoad { connections: 1, bytes: 16, pipeline: 1 },
    EchoLoad { connections: 1, bytes: 16, pipeline: 64 },
    EchoLoad { connections: 64, bytes: 16, pipeline: 1 },
    EchoLoad { connections: 64, bytes: 16, pipeline: 16 },
    EchoLoad { connections: 1, bytes: 64 << 10, pipeline: 1 },
    EchoLoad { connections: 1, bytes: 64 << 10, pipeline: 16 },
    EchoLoad { connections: 64, bytes: 64 << 10, pipeline: 1 },
    EchoLoad { connections: 64, bytes: 64 << 10, pipeline: 16 },
];

/// What the client asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EchoLoad {
    /// Connections, all at once.
    pub(crate) connections: usize,
    /// Bytes of a request, and of its answer.
    pub(crate) bytes: usize,
    /// Requests in flight per connection.
    pub(crate) pipeline: usize,
}

impl EchoLoad {
    /// connections/bytes/pipeline, for a table's head.
    fn name(self) -> String {
        let bytes = if self.bytes >= 1024 { format!("{}K", self.bytes >> 10) } else { self.bytes.to_string() };
        format!("{}/{}/{}", self.connections, bytes, self.pipeline)
    }
}

/// How much is measured.
#[derive(Args)]
pub(crate) struct Options {
    /// Runs per server and load; the median is shown.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=99))]
    repeats: u32,
    /// Milliseconds of a run, after a tenth of it to warm up.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u64).range(50..=60_000))]
    run_ms: u64,
}

/// Measures and prints the table.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    println!("{}", machine_line()?);
    println!(
        "echo, thousand requests per CPU-second of the server, median of {}, {} ms each",
        options.repeats, options.run_ms
    );
    println!("{:<20}{}", "", LOADS.map(|load| format!("{:>12}", load.name())).concat());
    let mut table = vec![Vec::new(); SERVERS.len()];
    for load in LOADS {
        let mut figures = vec![Vec::new(); SERVERS.len()];
        for _ in 0..options.repeats {
            for (figures, (server, _)) in figures.iter_mut().zip(SERVERS) {
                figures.push(measure(server, load, Duration::from_millis(options.run_ms))?);
            }
        }
        for (row, figures) in table.iter_mut().zip(&mut figures) {
            figures.sort_by(f64::total_cmp);
            row.push(figures[figures.len() / 2]);
        }
    }
    for (row, (_, name)) in table.iter().zip(SERVERS) {
        println!("{name:<20}{}", row.iter().map(|figure| format!("{figure:>12.1}")).collect::<String>());
    }
    let ratios = table[2].iter().zip(&table[1]).map(|(shard, bare)| format!("{:>11.0}%", 100.0 * shard / bare));
    println!("{:<20}{}", "shard / bare", ratios.collect::<String>());
    Ok(())
}

/// Thousand requests per CPU-second of one server under one load.
fn measure(server: Server, load: EchoLoad, time: Duration) -> io::Result<f64> {
    let run = run_one(server, load, time)?;
    let cpu = run.after - run.before;
    Ok(run.requests as f64 / (cpu.max(1) as f64 / 1e9) / 1e3)
}

/// Puts one load on one server; the cost is nanoseconds of the server's CPU time.
pub(crate) fn run_one(server: Server, load: EchoLoad, time: Duration) -> io::Result<Run<u64>> {
    let buffer_bytes = if load.bytes > SMALL_BUFFER_BYTES { LARGE_BUFFER_BYTES } else { SMALL_BUFFER_BYTES };
    let name = clap::ValueEnum::to_possible_value(&server).expect("no server is hidden");
    let arguments = ["echo-server", "--server", name.get_name(), "--buffer-bytes", &buffer_bytes.to_string()];
    let serving = Serving::start(&arguments.map(str::to_owned))?;
    let pid = serving.pid();
    let EchoLoad { connections, bytes, pipeline } = load;
    let load = Load { connections, pipeline, request: vec![b'x'; bytes], answer_bytes: bytes };
    load::drive(serving.address(), &load, time, move || cpu_nanos(pid))
}
