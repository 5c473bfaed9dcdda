//! A connection of a swarm: a socket, and one request at a time.
//!
//! While nothing is asked it is the socket alone: no task, no buffer. So nothing notices that an idle one was closed by the
//! broker, until it is asked the next time. Who uses it keeps a second request from being sent before the first is answered.

use std::io;
use std::net::SocketAddr;

use corelane::runtime::{Buffer, Duration, Slice, Stream, connect, timeout};
use corelane::types::Piece;
use corelane::wire::client::response_correlation;
use corelane::wire::frame::LENGTH_BYTES;

use super::ask::{Asks, CORRELATION, Worth};

/// Bytes of the buffer for an answer; a larger one gets a larger buffer.
const ANSWER_BYTES: usize = 4096;
/// Bytes of an answer at most: what is larger is not a Kafka broker's.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// Why a connection is of no use, or never was.
#[derive(Debug, thiserror::Error)]
pub(super) enum Fault {
    /// connect(2) says so.
    #[error("{0}")]
    Connect(io::Error),
    /// It was closed, or broke, before the answer.
    #[error("the broker closes the connection")]
    Closed,
    /// No answer in time.
    #[error("the broker does not answer")]
    Silent,
    /// An answer that makes no sense, or an error in place of the versions.
    #[error("the broker's answer makes no sense")]
    Nonsense,
}

/// Connects and asks for the versions of the broker: one that answers is there.
pub(super) async fn open(address: SocketAddr, asks: &Asks, silence_max: Duration) -> Result<Stream, Fault> {
    let stream = timeout(silence_max, connect(address)).await.map_err(|_| Fault::Silent)?.map_err(Fault::Connect)?;
    // A port that nobody listens on can be the one that this socket itself was given.
    if stream.local_address() == stream.peer_address() {
        return Err(Fault::Connect(io::ErrorKind::ConnectionRefused.into()));
    }
    greet(&stream, asks, silence_max).await?;
    Ok(stream)
}

/// Asks for the versions of the broker.
pub(super) async fn greet(stream: &Stream, asks: &Asks, silence_max: Duration) -> Result<(), Fault> {
    let frame = exchange(stream, asks.hello(), silence_max).await?;
    match Asks::judge_hello(frame) {
        Worth::Good(_) => Ok(()),
        Worth::Error(_) | Worth::Nonsense => Err(Fault::Nonsense),
    }
}

/// Sends a request and waits for its answer: the frame without the length field.
pub(super) async fn exchange(stream: &Stream, request: Slice, silence_max: Duration) -> Result<Slice, Fault> {
    timeout(silence_max, send_and_receive(stream, request)).await.unwrap_or(Err(Fault::Silent))
}

async fn send_and_receive(stream: &Stream, request: Slice) -> Result<Slice, Fault> {
    let (sent, _) = stream.send(vec![Piece::Shared(request)]).await;
    sent.map_err(|_| Fault::Closed)?;
    let mut buffer = Buffer::with_capacity(ANSWER_BYTES);
    loop {
        let (received, filled) = stream.receive(buffer).await;
        buffer = filled;
        if !received.is_ok_and(|bytes| bytes > 0) {
            return Err(Fault::Closed);
        }
        let whole = answer_bytes(&buffer).ok_or(Fault::Nonsense)?;
        if buffer.len() == whole {
            break;
        }
        if whole > buffer.capacity() {
            let mut larger = Buffer::with_capacity(whole);
            larger.append(&buffer);
            buffer = larger;
        }
    }
    let frame = buffer.freeze();
    let frame = frame.slice(LENGTH_BYTES..frame.len());
    if response_correlation(&frame) == Some(CORRELATION) { Ok(frame) } else { Err(Fault::Nonsense) }
}

/// Bytes of the answer that begins like this, its length field included; the length field's own while it is not there. `None`
/// if nobody would send such an answer, or more than that is there.
fn answer_bytes(received: &[u8]) -> Option<usize> {
    let Some(length) = received.first_chunk::<LENGTH_BYTES>() else { return Some(LENGTH_BYTES) };
    let length = usize::try_from(i32::from_be_bytes(*length)).ok()?;
    let whole = LENGTH_BYTES + length;
    (length <= ANSWER_BYTES_MAX && received.len() <= whole).then_some(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_as_long_as_it_says() {
        assert_eq!((answer_bytes(&[]), answer_bytes(&[0, 0, 0])), (Some(4), Some(4)));
        assert_eq!(answer_bytes(&[0, 0, 0, 2, 9]), Some(6));
        assert_eq!(answer_bytes(&[0, 0, 0, 1, 9]), Some(5));
        assert_eq!(answer_bytes(&[0, 0, 0, 1, 9, 9]), None, "nothing more was asked for");
        assert_eq!((answer_bytes(&[255; 4]), answer_bytes(&[127; 4])), (None, None));
    }
}
