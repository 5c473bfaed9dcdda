//! A Kafka client on a simulated socket: frames out, frames in, in order; nothing is retried here.
//!
//! Several requests may be under way on a connection; answers come in their order. Whatever goes wrong, from a refused
//! connection to a silent peer, is [`Lost`]: what became of the requests under way is not known then.

use std::net::SocketAddr;

use bytes::{Buf, BytesMut};
use corelane::runtime::{Buffer, Duration, Slice, Stream, connect, timeout};
use corelane::types::Piece;
use corelane::wire::client::{decode_response, encode_request};
use corelane::wire::{Api, ApiKey, CorrelationId};
use kafka_protocol::protocol::{Decodable, Request};

/// How long an answer may take: more than any wait that requests ask for, and than a peer needs to be found dead.
const PATIENCE: Duration = Duration::from_secs(8);
const RECEIVE_BYTES: usize = 64 << 10;

/// The connection is of no use any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Lost;

/// A connection to a broker.
pub(crate) struct Client {
    stream: Stream,
    buffer: Option<Buffer>,
    received: BytesMut,
    correlation: i32,
}

/// The API at this version, which is in the table.
pub(crate) fn api(key: ApiKey, version: i16) -> Api {
    Api::new(key, version).unwrap_or_else(|_| panic!("{} v{version} is in the table", key.name()))
}

impl Client {
    pub(crate) async fn connect(address: SocketAddr) -> Result<Client, Lost> {
        let stream = timeout(PATIENCE, connect(address)).await.map_err(|_| Lost)?.map_err(|_| Lost)?;
        let buffer = Some(Buffer::with_capacity(RECEIVE_BYTES));
        Ok(Client { stream, buffer, received: BytesMut::new(), correlation: 0 })
    }

    /// Sends a request; its answer is to be received after those of the requests before.
    pub(crate) async fn send<R: Request>(&mut self, api: Api, body: &R) -> Result<CorrelationId, Lost> {
        self.correlation += 1;
        let correlation = CorrelationId(self.correlation);
        let frame = encode_request(api, correlation, Some("sim"), body).unwrap_or_else(|error| panic!("{error}"));
        let pieces: Vec<Piece<Slice>> = vec![Piece::Encoded(frame)];
        let sent = timeout(PATIENCE, self.stream.send(pieces)).await.map_err(|_| Lost)?;
        sent.0.map_err(|_| Lost)?;
        Ok(correlation)
    }

    /// Receives the answer to the oldest request under way.
    pub(crate) async fn receive<R: Decodable>(&mut self, api: Api, correlation: CorrelationId) -> Result<R, Lost> {
        loop {
            if let Some(frame) = self.take_frame() {
                let decoded = decode_response(api, correlation, frame.freeze());
                return Ok(decoded.unwrap_or_else(|error| panic!("{}: {error}", api.key().name())));
            }
            let mut buffer = self.buffer.take().ok_or(Lost)?;
            if !buffer.clear() {
                buffer = Buffer::with_capacity(RECEIVE_BYTES);
            }
            let (received, buffer) = timeout(PATIENCE, self.stream.receive(buffer)).await.map_err(|_| Lost)?;
            match received {
                Ok(bytes) if bytes > 0 => self.received.extend_from_slice(&buffer),
                _ => return Err(Lost),
            }
            self.buffer = Some(buffer);
        }
    }

    fn take_frame(&mut self) -> Option<BytesMut> {
        let length = self.received.first_chunk().map(|bytes| i32::from_be_bytes(*bytes))?;
        let length = usize::try_from(length).expect("no frame has a negative length");
        if self.received.len() < 4 + length {
            return None;
        }
        self.received.advance(4);
        Some(self.received.split_to(length))
    }

    /// Sends a request and waits for its answer, with nothing else under way.
    pub(crate) async fn call<Q: Request, R: Decodable>(&mut self, api: Api, body: &Q) -> Result<R, Lost> {
        let correlation = self.send(api, body).await?;
        self.receive(api, correlation).await
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.stream.shutdown();
    }
}
