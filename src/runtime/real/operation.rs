//! An operation on the ring as a future, and the memory that it owns while the kernel works on it.
//!
//! The future holds a key only: what the kernel reads or writes lives in the operation's slot, at addresses that do not
//! change when the slot moves. Dropping the future leaves slot, memory and descriptor where they are until the kernel has
//! completed the operation.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use io_uring::{opcode, squeue, types};
use socket2::SockAddr;

use super::ring::Ring;
use super::slot::{Completion, Key};
use crate::runtime::memory::{Buffer, Slice};
use crate::types::Piece;

/// Pieces of one system call at most (UIO_MAXIOV of the kernel, sysconf(3) `_SC_IOV_MAX`).
const VECTORS_MAX: usize = 1024;

/// Memory that the kernel may touch until the operation has completed. All of it lies on the heap, so that moving the enum
/// moves nothing that the kernel knows of.
pub(super) enum Memory {
    /// None, or memory of a descriptor.
    Nothing,
    /// The room of a buffer.
    Buffer(Buffer),
    /// Vectors and what they point to.
    Transfer(Box<Transfer>),
    /// Names of files.
    Paths { _from: CString, _to: Option<CString> },
    /// A socket address.
    Address { _address: Box<SockAddr> },
    /// A file's attributes.
    Attributes(Box<libc::statx>),
}

impl Completion {
    /// The result as io::Result.
    pub(super) fn count(&self) -> io::Result<usize> {
        usize::try_from(self.result).map_err(|_| io::Error::from_raw_os_error(-self.result))
    }

    /// The buffer that the operation was started with.
    pub(super) fn into_buffer(self) -> Buffer {
        match self.held.memory {
            Memory::Buffer(buffer) => buffer,
            _ => unreachable!("started with a buffer"),
        }
    }

    /// The transfer that the operation was started with.
    pub(super) fn into_transfer(self) -> Box<Transfer> {
        match self.held.memory {
            Memory::Transfer(transfer) => transfer,
            _ => unreachable!("started with a transfer"),
        }
    }
}

/// A started operation: a future of its completion.
pub(super) struct Operation {
    ring: Rc<Ring>,
    key: Key,
    taken: bool,
}

impl Operation {
    pub(super) fn new(ring: Rc<Ring>, key: Key) -> Operation {
        Operation { ring, key, taken: false }
    }
}

impl Future for Operation {
    type Output = Completion;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Completion> {
        assert!(!self.taken, "a future is not polled after it was ready");
        match self.ring.poll(self.key, context) {
            Some(completion) => {
                self.taken = true;
                Poll::Ready(completion)
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Operation {
    fn drop(&mut self) {
        if !self.taken {
            self.ring.abandon(self.key);
        }
    }
}

/// Vectors for a vectored write or send, with the bytes that they point to. Kept by the ring for reuse.
pub(super) struct Transfer {
    slices: Vec<Slice>,
    pieces: Vec<Piece<Slice>>,
    vectors: Vec<libc::iovec>,
    /// The first vector that is not done; it is shortened as it is.
    next: usize,
    message: libc::msghdr,
}

impl Transfer {
    pub(super) fn new() -> Box<Transfer> {
        // SAFETY: msghdr is a C struct of integers and pointers, for which all zeros is a value: no name, nothing to send.
        let message = unsafe { std::mem::zeroed() };
        Box::new(Transfer { slices: Vec::new(), pieces: Vec::new(), vectors: Vec::new(), next: 0, message })
    }

    /// Points the vectors at the slices.
    pub(super) fn load_slices(&mut self, slices: Vec<Slice>) {
        self.slices = slices;
        self.vectors.extend(self.slices.iter().filter(|slice| !slice.is_empty()).map(|slice| vector(slice)));
    }

    /// Points the vectors at the pieces.
    pub(super) fn load_pieces(&mut self, pieces: Vec<Piece<Slice>>) {
        self.pieces = pieces;
        self.vectors.extend(self.pieces.iter().map(Piece::as_ref).filter(|piece| !piece.is_empty()).map(vector));
    }

    /// Whether every byte is done.
    pub(super) fn is_done(&self) -> bool {
        self.next == self.vectors.len()
    }

    /// Counts the next `count` bytes as done.
    pub(super) fn advance(&mut self, mut count: usize) {
        while count > 0 {
            let vector = &mut self.vectors[self.next];
            let step = count.min(vector.iov_len);
            vector.iov_base = vector.iov_base.cast::<u8>().wrapping_add(step).cast();
            vector.iov_len -= step;
            count -= step;
            if vector.iov_len == 0 {
                self.next += 1;
            }
        }
    }

    /// A write of what is not done, at `position`.
    pub(super) fn write(&self, fd: types::Fd, position: u64, flags: i32) -> squeue::Entry {
        let vectors = self.batch();
        match vectors {
            [only] => {
                let length = u32::try_from(only.iov_len).unwrap_or(super::file::TRANSFER_BYTES_MAX);
                opcode::Write::new(fd, only.iov_base.cast(), length).offset(position).rw_flags(flags).build()
            }
            _ => {
                let count = vectors.len() as u32;
                opcode::Writev::new(fd, vectors.as_ptr(), count).offset(position).rw_flags(flags).build()
            }
        }
    }

    /// A send of what is not done.
    pub(super) fn send(&mut self, fd: types::Fd) -> squeue::Entry {
        let count = self.batch().len();
        self.message.msg_iov = self.vectors[self.next..].as_mut_ptr();
        self.message.msg_iovlen = count;
        let flags = (libc::MSG_WAITALL | libc::MSG_NOSIGNAL) as u32;
        opcode::SendMsg::new(fd, &raw const self.message).flags(flags).build()
    }

    fn batch(&self) -> &[libc::iovec] {
        let rest = &self.vectors[self.next..];
        &rest[..rest.len().min(VECTORS_MAX)]
    }

    /// Lets go of the bytes and returns the emptied list of slices.
    pub(super) fn take_slices(&mut self) -> Vec<Slice> {
        self.reset();
        std::mem::take(&mut self.slices)
    }

    /// Lets go of the bytes and returns the emptied list of pieces.
    pub(super) fn take_pieces(&mut self) -> Vec<Piece<Slice>> {
        self.reset();
        std::mem::take(&mut self.pieces)
    }

    fn reset(&mut self) {
        self.slices.clear();
        self.pieces.clear();
        self.vectors.clear();
        self.next = 0;
    }
}

fn vector(bytes: &[u8]) -> libc::iovec {
    libc::iovec { iov_base: bytes.as_ptr().cast_mut().cast(), iov_len: bytes.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slice(bytes: usize) -> Slice {
        let mut buffer = Buffer::with_capacity(bytes.max(1));
        buffer.append_zeros(bytes);
        buffer.freeze()
    }

    #[test]
    fn short_counts_move_through_the_vectors() {
        let mut transfer = Transfer::new();
        transfer.load_slices(vec![slice(10), slice(0), slice(20), slice(5)]);
        assert_eq!(transfer.batch().len(), 3, "an empty slice needs no vector");
        transfer.advance(12);
        let left: Vec<usize> = transfer.batch().iter().map(|vector| vector.iov_len).collect();
        assert_eq!(left, [18, 5]);
        assert!(!transfer.is_done());
        transfer.advance(23);
        assert!(transfer.is_done());
        assert!(transfer.take_slices().is_empty() && transfer.vectors.is_empty());
    }

    #[test]
    fn a_call_takes_as_many_vectors_as_the_kernel_allows() {
        let mut transfer = Transfer::new();
        transfer.load_pieces((0..3_000).map(|_| Piece::Encoded(bytes::Bytes::from_static(b"ab"))).collect());
        assert_eq!(transfer.batch().len(), VECTORS_MAX);
        transfer.advance(2 * VECTORS_MAX * 2);
        assert_eq!(transfer.batch().len(), 3_000 - 2 * VECTORS_MAX);
    }
}
