//! Sockets of a real shard: bytes arrive as they are, ends of a connection, and accepts that are given up or impossible.
//!
//! Buffers that are in flight when a shard ends are the subject of `ends`.

use std::io::{Read, Write};
use std::net::Shutdown;

use super::*;
use crate::runtime::{Slice, random_u64};

#[test]
fn bytes_go_through_sockets_as_they_are() {
    on_shard(async {
        let (client, server) = pair().await;
        client.send(vec![Piece::Encoded(bytes::Bytes::from_static(b"x"))]).await.0.expect("connected");
        assert_eq!(*receive_all(&server, 1).await, *b"x");

        // More pieces than one system call takes, more bytes than the socket's buffers hold, in both directions at once.
        let content = pattern(4 * MIB, 11).freeze();
        let pieces = || -> Vec<Piece<Slice>> {
            (0..4096).map(|at| Piece::Shared(content.slice(at * 1024..(at + 1) * 1024))).collect()
        };
        let back = {
            let (client, pieces) = (client.clone(), pieces());
            spawn(Class::Fetch, async move { client.send(pieces).await })
        };
        let forth = {
            let (server, pieces) = (server.clone(), pieces());
            spawn(Class::Produce, async move { server.send(pieces).await })
        };
        assert!(*receive_all(&server, 4 * MIB).await == *content);
        assert!(*receive_all(&client, 4 * MIB).await == *content);
        for sender in [back, forth] {
            let (result, pieces) = sender.await;
            result.expect("sent");
            assert!(pieces.is_empty() && pieces.capacity() >= 4096);
        }

        let waiting = {
            let server = server.clone();
            spawn(Class::Produce, async move { server.receive(Buffer::with_capacity(10)).await.0 })
        };
        yield_now().await;
        server.shutdown();
        assert_eq!(waiting.await.expect("the end"), 0);
        assert_eq!(client.receive(Buffer::with_capacity(10)).await.0.expect("the end"), 0);
        let (result, pieces) = server.send(vec![Piece::Shared(content.slice(0..10))]).await;
        assert_eq!(result.expect_err("shut down").kind(), io::ErrorKind::BrokenPipe);
        assert!(pieces.is_empty());
    });
}

#[test]
fn a_half_closed_connection_still_takes_the_answer() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let address = listener.local_address();
        let peer = thread::spawn(move || {
            let mut socket = std::net::TcpStream::connect(address).expect("listening");
            socket.write_all(b"question").expect("connected");
            socket.shutdown(Shutdown::Write).expect("connected");
            let mut answer = Vec::new();
            socket.read_to_end(&mut answer).expect("connected");
            answer
        });
        let stream = listener.accept().await.expect("connected");
        let question = receive_all(&stream, 8).await;
        assert_eq!(stream.receive(Buffer::with_capacity(10)).await.0.expect("the end"), 0);
        stream.send(vec![Piece::Shared(question.freeze())]).await.0.expect("half open");
        drop(stream);
        assert_eq!(peer.join().expect("no panic"), b"question");
    });
}

#[test]
fn dropping_an_accept_loses_no_connection() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let address = listener.local_address();
        const CONNECTIONS: usize = 200;
        let clients = spawn(Class::Fetch, async move {
            let mut clients = Vec::new();
            for _ in 0..CONNECTIONS {
                clients.push(connect(address).await.expect("listening"));
            }
            clients
        });
        let mut accepted = Vec::new();
        while accepted.len() < CONNECTIONS {
            poll_once_and_drop(listener.accept()).await;
            if let Ok(stream) = timeout(Duration::from_micros(random_u64() % 200), listener.accept()).await {
                accepted.push(stream.expect("connected").peer_address());
            }
        }
        let clients = clients.await;
        let mut expected: Vec<SocketAddr> = clients.iter().map(Stream::local_address).collect();
        expected.sort();
        accepted.sort();
        assert_eq!(accepted, expected);

        let taken = Listener::bind(address).err().expect("in use");
        assert_eq!(taken.kind(), io::ErrorKind::AddrInUse);
        drop(listener);
        sleep(Duration::from_millis(20)).await;
        let refused = connect(address).await.err().expect("nobody listens");
        assert_eq!(refused.kind(), io::ErrorKind::ConnectionRefused);
        Listener::bind(address).expect("the port is free again, connections or not");
    });
}

#[test]
fn running_out_of_descriptors_is_an_error_of_accept() {
    assert_passed(&in_own_process("sockets::child_runs_out_of_descriptors"));
}

#[test]
#[ignore = "started by another test, in a process of its own"]
fn child_runs_out_of_descriptors() {
    on_shard(async {
        let listener = Listener::bind(loopback()).expect("a free port");
        let client = connect(listener.local_address()).await.expect("listening");
        let limit = |soft| {
            let files = libc::rlimit { rlim_cur: soft, rlim_max: 4096 };
            // SAFETY: reads the struct.
            assert_eq!(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &files) }, 0);
        };
        limit(3);
        let error = listener.accept().await.err().expect("no descriptor");
        assert_eq!(error.raw_os_error(), Some(libc::EMFILE));
        limit(4096);
        let server = listener.accept().await.expect("the connection has waited");
        assert_eq!(server.peer_address(), client.local_address());
    });
}
