//! The three echo servers: a bare ring, glommio's own sockets, and the runtime's sockets on a shard.
//!
//! Each runs in a process of its own, on one thread, prints the address that it listens on, and serves until it is killed.

use std::io;
use std::net::SocketAddr;

use clap::{Args, ValueEnum};
use corelane::runtime::{Buffer, Class, Listener, Stream, real, spawn};
use corelane::types::Piece;
use futures_lite::{AsyncReadExt, AsyncWriteExt};

use crate::serving::announce;

/// What serves the echo.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub(crate) enum Server {
    /// io_uring and nothing else: the floor.
    Bare,
    /// glommio's TcpListener and TcpStream.
    Glommio,
    /// The runtime: our ring inside a glommio executor.
    Shard,
}

/// How an echo server is started.
#[derive(Args)]
pub(crate) struct Options {
    /// What serves.
    #[arg(long)]
    pub(crate) server: Server,
    /// Bytes received at once at most.
    #[arg(long)]
    pub(crate) buffer_bytes: usize,
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// Serves until the process is killed.
pub(crate) fn run(options: &Options) -> io::Result<()> {
    let bytes = options.buffer_bytes;
    match options.server {
        Server::Bare => match real::floor::echo(loopback(), bytes, announce)? {},
        Server::Glommio => glommio_echo(bytes),
        Server::Shard => real::run(&real::Options::default(), shard_echo(bytes)).map_err(io::Error::other)?,
    }
}

async fn shard_echo(bytes: usize) -> io::Result<()> {
    let listener = Listener::bind(loopback())?;
    announce(listener.local_address());
    loop {
        spawn(Class::Produce, shard_connection(listener.accept().await?, bytes));
    }
}

/// Echoes until the connection ends, in whatever way.
async fn shard_connection(stream: Stream, bytes: usize) {
    let mut buffer = Buffer::with_capacity(bytes);
    let mut pieces = Vec::with_capacity(1);
    loop {
        let (received, back) = stream.receive(buffer).await;
        buffer = back;
        if !matches!(received, Ok(1..)) {
            return;
        }
        pieces.push(Piece::Shared(buffer.slice(0..buffer.len())));
        let (sent, back) = stream.send(pieces).await;
        pieces = back;
        if sent.is_err() || !buffer.clear() {
            return;
        }
    }
}

fn glommio_echo(bytes: usize) -> io::Result<()> {
    let executor = glommio::LocalExecutorBuilder::default().make()?;
    executor.run(async move {
        let listener = glommio::net::TcpListener::bind(loopback())?;
        announce(listener.local_addr()?);
        loop {
            let mut stream = listener.accept().await?;
            let connection = async move {
                // Echoes until the connection ends, in whatever way.
                let _ = stream.set_nodelay(true);
                let mut buffer = vec![0; bytes];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    if stream.write_all(&buffer[..count]).await.is_err() {
                        return;
                    }
                }
            };
            glommio::spawn_local(connection).detach();
        }
    })
}
