//! The answers of one connection, in the order of its requests.
//!
//! The reader puts an answer into the queue for every request that gets one; the writer takes them out front to back, waits
//! for those that are not settled yet, and sends as many at once as are ready. An answer is *settled* when it waits for
//! nothing any more: a request other than Produce starts when all earlier answers are.
//!
//! The queue is bounded: a client that sends without reading is not read from. Since answers leave in order, their times wait
//! in a queue of their own.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use crate::metrics::Recording;
use crate::runtime::sync::Notify;
use crate::runtime::{Instant, Slice, metrics};
use crate::types::{Piece, Pieces};

use super::budgets::requests::SlabMemory;
use super::budgets::responses::{Queued, SendMemory};
use super::produce::ProduceAnswer;
use super::timing::Timed;

/// Answers that a connection may owe at a time. A client that pipelines deeper waits in its own send buffer.
const ANSWERS_OWED_MAX: usize = 256;

/// Emptied lists of pieces that are kept for the next answers, and the pieces that one of them has room for at most: a few
/// kilobytes for a connection that fetches from many partitions with many requests in flight.
const LISTS_KEPT: usize = 16;
const LIST_PIECES_MAX: usize = 256;

/// An answer on its way out.
pub(super) enum Response {
    /// Encoded, with what it takes of the memory for responses once it is queued.
    Ready { pieces: Pieces<Slice>, queued: Option<Queued> },
    /// Encoded once the records are committed.
    Produced(Box<ProduceAnswer>),
}

impl Response {
    /// An answer that is encoded.
    pub(super) fn ready(pieces: Pieces<Slice>) -> Response {
        Response::Ready { pieces, queued: None }
    }

    /// Counts what the answer takes until it is sent, `request` being the memory of its request.
    pub(super) fn count(&mut self, request: Rc<SlabMemory>, sending: &SendMemory) {
        match self {
            Response::Ready { pieces, queued } => *queued = Some(sending.queue(pieces)),
            Response::Produced(answer) => answer.keep_while_away(request),
        }
    }
}

/// The queue of answers between a connection's reader and its writer.
pub(super) struct Responses {
    metrics: Recording,
    /// Of every answer that has not been handed over, in order.
    times: RefCell<VecDeque<Timed>>,
    queue: RefCell<VecDeque<Response>>,
    lists: RefCell<Vec<Vec<Piece<Slice>>>>,
    unsettled: Cell<usize>,
    owed: Cell<usize>,
    ended: Cell<bool>,
    failed: Cell<bool>,
    for_writer: Notify,
    for_reader: Notify,
}

impl Responses {
    /// Of a new connection of the current shard.
    pub(super) fn new() -> Responses {
        Responses {
            metrics: metrics(),
            times: RefCell::default(),
            queue: RefCell::default(),
            lists: RefCell::default(),
            unsettled: Cell::default(),
            owed: Cell::default(),
            ended: Cell::default(),
            failed: Cell::default(),
            for_writer: Notify::default(),
            for_reader: Notify::default(),
        }
    }

    /// A request has been worked on that gets no answer.
    pub(super) fn skip(&self, timed: Timed) {
        timed.end(&self.metrics, Instant::now());
    }

    /// Adds the answer to the request that `timed` belongs to.
    pub(super) fn push(&self, response: Response, timed: Timed) {
        self.times.borrow_mut().push_back(timed);
        if matches!(response, Response::Produced(_)) {
            self.unsettled.set(self.unsettled.get() + 1);
        }
        self.owed.set(self.owed.get() + 1);
        self.queue.borrow_mut().push_back(response);
        self.for_writer.notify();
    }

    /// An empty list for the pieces of an answer.
    pub(super) fn take_list(&self) -> Vec<Piece<Slice>> {
        self.lists.borrow_mut().pop().unwrap_or_default()
    }

    /// Gives an emptied list back.
    pub(super) fn give_list(&self, list: Vec<Piece<Slice>>) {
        let mut lists = self.lists.borrow_mut();
        if lists.len() < LISTS_KEPT && list.capacity() <= LIST_PIECES_MAX {
            lists.push(list);
        }
    }

    /// Waits until another answer may be owed.
    pub(super) async fn room(&self) {
        while self.owed.get() >= ANSWERS_OWED_MAX && !self.failed.get() {
            self.for_reader.notified().await;
        }
    }

    /// Waits until every answer in the queue is settled.
    pub(super) async fn all_settled(&self) {
        while self.unsettled.get() > 0 && !self.failed.get() {
            self.for_reader.notified().await;
        }
    }

    /// No further answer will come.
    pub(super) fn end(&self) {
        self.ended.set(true);
        self.for_writer.notify();
    }

    /// No further answer can be sent.
    pub(super) fn fail(&self) {
        self.failed.set(true);
        self.for_reader.notify();
    }

    /// Whether sending has failed.
    pub(super) fn has_failed(&self) -> bool {
        self.failed.get()
    }

    /// Whether every answer has been sent.
    pub(super) fn is_idle(&self) -> bool {
        self.owed.get() == 0
    }

    /// The next answer, if one is there.
    pub(super) fn pop(&self) -> Option<Response> {
        self.queue.borrow_mut().pop_front()
    }

    /// The next answer; `None` when the last one has been taken.
    pub(super) async fn next(&self) -> Option<Response> {
        loop {
            if let Some(response) = self.pop() {
                return Some(response);
            }
            if self.ended.get() {
                return None;
            }
            self.for_writer.notified().await;
        }
    }

    /// An answer that waited for its commit is settled.
    pub(super) fn settled(&self) {
        self.unsettled.set(self.unsettled.get() - 1);
        self.for_reader.notify();
    }

    /// The next `count` answers are given to the socket now.
    pub(super) fn hand_over(&self, count: usize) {
        let now = Instant::now();
        for timed in self.times.borrow_mut().drain(..count) {
            timed.end(&self.metrics, now);
        }
    }

    /// `count` answers have left for the client.
    pub(super) fn sent(&self, count: usize) {
        self.owed.set(self.owed.get() - count);
        self.for_reader.notify();
    }
}
