//! An answer as an ordered list of pieces: bytes that an encoder wrote, and slices of buffers that are sent where they lie.
//!
//! The encoder is generic over the slice type `S`, so that it can name a log's buffers without knowing where they come from.
//! Nothing is sent here, and no piece is ever copied but in `to_bytes`.

use bytes::Bytes;

/// One piece of an answer.
#[derive(Clone, Debug)]
pub enum Piece<S> {
    /// Bytes written by the encoder.
    Encoded(Bytes),
    /// Bytes of somebody else's buffer, sent in place.
    Shared(S),
}

impl<S: AsRef<[u8]>> AsRef<[u8]> for Piece<S> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Piece::Encoded(bytes) => bytes,
            Piece::Shared(slice) => slice.as_ref(),
        }
    }
}

/// An ordered list of pieces and its length in bytes.
#[derive(Clone, Debug)]
pub struct Pieces<S> {
    pieces: Vec<Piece<S>>,
    bytes: usize,
}

impl<S: AsRef<[u8]>> Pieces<S> {
    /// An empty list.
    pub fn new() -> Pieces<S> {
        Pieces { pieces: Vec::new(), bytes: 0 }
    }

    /// Appends bytes of the encoder; nothing happens for an empty piece.
    pub fn push_encoded(&mut self, bytes: Bytes) {
        self.push(Piece::Encoded(bytes));
    }

    /// Appends a slice that is sent where it lies; nothing happens for an empty one.
    pub fn push_shared(&mut self, slice: S) {
        self.push(Piece::Shared(slice));
    }

    fn push(&mut self, piece: Piece<S>) {
        let length = piece.as_ref().len();
        if length > 0 {
            self.bytes += length;
            self.pieces.push(piece);
        }
    }

    /// The length of all pieces together, in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The pieces in order.
    pub fn as_slice(&self) -> &[Piece<S>] {
        &self.pieces
    }

    /// Takes the pieces out, in order.
    pub fn into_vec(self) -> Vec<Piece<S>> {
        self.pieces
    }

    /// One contiguous copy; for tests and small answers.
    pub fn to_bytes(&self) -> Bytes {
        let mut all = Vec::with_capacity(self.bytes);
        for piece in &self.pieces {
            all.extend_from_slice(piece.as_ref());
        }
        all.into()
    }
}

impl<S: AsRef<[u8]>> From<Vec<Piece<S>>> for Pieces<S> {
    /// The pieces in order; empty ones are dropped.
    fn from(mut pieces: Vec<Piece<S>>) -> Pieces<S> {
        pieces.retain(|piece| !piece.as_ref().is_empty());
        let bytes = pieces.iter().map(|piece| piece.as_ref().len()).sum();
        Pieces { pieces, bytes }
    }
}

impl<S: AsRef<[u8]>> Default for Pieces<S> {
    fn default() -> Self {
        Pieces::new()
    }
}
