//! The memory of requests: what connections have received and what is worked on, slab by slab.
//!
//! A connection owns a block for receiving that nobody counts. Everything beyond is counted by the slab, as long as the
//! connection receives into it or a frame in it is alive: a frame carries a share of its slab's [`SlabMemory`], beside its
//! slice. Memory is taken before the slab is; a connection that gets none waits and so is not received from.
//!
//! ```text
//! |            open            |  small  |           finish            |
//!  any frame, in order of age    urgent    the oldest started frames
//!      3/8 or more of all         1/8          the largest frame
//! ```
//! - *Open* is for all, the older frame first: when it is spent no new frame gets more than its block.
//! - *Small* is for small frames of other APIs than Produce when open has nothing for them, so that heartbeats, fetches and
//!   metadata pass when producers have taken everything.
//! - *Finish* is for frames that hold memory and need more. The oldest one takes all that it still needs at once, so it waits
//!   for nobody any more, whatever the others hold. The largest frame fits, so half-received frames never lock each other.
//!
//! A frame that has memory and comes slowly is in the way of those that wait. While anyone waits, the slowest connections
//! are ended first, as many as hold what is waited for; see [`RequestMemory::shed`].
//!
//! What this file does not do: it allocates no slab, and it knows neither sockets nor Kafka.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::rc::Rc;

use crate::runtime::sync::Notify;
use crate::runtime::{Buffer, Duration, Instant, timeout};
use crate::types::limits::BLOCK_BYTES;

/// Bytes of the length in front of a frame, which lie in its slab too.
const LENGTH_BYTES: usize = 4;
/// Bytes of a frame at most that is small, its length included: a fetch of a thousand partitions.
pub(in crate::broker) const SMALL_FRAME_BYTES_MAX: usize = 64 << 10;
/// Bytes that the length of a frame buys at once while memory is plenty. More comes with what has arrived, by doubling, and
/// each doubling is a copy: a mebibyte spares most produce requests all of them.
const TRUSTED_BYTES_MAX: usize = 1 << 20;
/// The same while memory is short. A small frame needs no second slab even then, so it never waits with one in its hands.
const TRUSTED_BYTES_MIN: usize = SMALL_FRAME_BYTES_MAX;

/// How long a frame waits for memory before slow ones are looked for, and the time between two such looks.
const PATIENCE: Duration = Duration::from_millis(500);
/// The time over which the speed of a frame is measured: a client on the other side of the world that lost a packet
/// sends again within it.
const SPEED_TIME: Duration = Duration::from_secs(2);
/// Bytes per second that a frame has to come with while others wait: a mebibyte then takes half of the 30 seconds after
/// which clients give a request up.
const SPEED_MIN: u64 = 64 << 10;

/// Memory for requests of one shard.
pub(in crate::broker) struct RequestMemory {
    frame_bytes_max: usize,
    open: Pool,
    small: Pool,
    finish: Pool,
    readers: RefCell<BTreeMap<u64, Rc<Reader>>>,
    waiting: [RefCell<BTreeMap<u64, Rc<Reader>>>; 3],
    /// Numbers readers, and frames by their age.
    next: Cell<u64>,
    shed_last: Cell<Option<Instant>>,
}

#[derive(Default)]
struct Pool {
    bytes_max: usize,
    free: Cell<usize>,
}

impl Pool {
    fn new(bytes_max: usize) -> Pool {
        Pool { bytes_max, free: Cell::new(bytes_max) }
    }

    fn take(&self, bytes: usize) -> bool {
        let left = self.free.get().checked_sub(bytes);
        self.free.set(left.unwrap_or(self.free.get()));
        left.is_some()
    }

    fn give_back(&self, bytes: usize) {
        self.free.set(self.free.get() + bytes);
        debug_assert!(self.free.get() <= self.bytes_max);
    }

    fn taken(&self) -> usize {
        self.bytes_max - self.free.get()
    }
}

/// Bytes taken of each pool.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Taken {
    open: usize,
    small: usize,
    finish: usize,
}

impl Taken {
    fn bytes(&self) -> usize {
        self.open + self.small + self.finish
    }
}

impl AddAssign for Taken {
    fn add_assign(&mut self, more: Taken) {
        self.open += more.open;
        self.small += more.small;
        self.finish += more.finish;
    }
}

/// What one slab has taken, until the last share is dropped.
pub(in crate::broker) struct SlabMemory {
    memory: Rc<RequestMemory>,
    taken: Cell<Taken>,
}

impl Drop for SlabMemory {
    fn drop(&mut self) {
        self.memory.give_back(self.taken.get());
    }
}

/// What a reader waits for.
#[derive(Clone, Copy)]
struct Wait {
    kind: Kind,
    /// Bytes that it wants now.
    bytes: usize,
    /// Bytes that it wants until its frame is complete.
    bytes_to_end: usize,
    /// Whether they are for a second slab, because frames are alive in the present one.
    is_second: bool,
}

/// The block that nobody counts, left behind by its connection because frames are alive in it.
const BLOCK: Wait = Wait { kind: Kind::New, bytes: BLOCK_BYTES, bytes_to_end: BLOCK_BYTES, is_second: false };

/// How a waiting frame may be served.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// From open.
    New,
    /// From open, or to its end from finish.
    Started,
    /// From open or small.
    Urgent,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::New, Kind::Started, Kind::Urgent];
}

/// A frame of which a part has been received.
#[derive(Clone, Copy)]
struct Frame {
    /// Bytes in all.
    bytes: usize,
    is_urgent: bool,
    /// Since when the speed is measured, and what has come since.
    measured_since: Instant,
    measured_bytes: usize,
}

/// A connection, as the others see it.
struct Reader {
    slab: RefCell<Rc<SlabMemory>>,
    /// The age of its frame: the lowest is the oldest. Drawn when its first bytes are there.
    age: Cell<Option<u64>>,
    frame: Cell<Option<Frame>>,
    wait: Cell<Option<Wait>>,
    granted: Cell<Option<Taken>>,
    call: Notify,
    is_shed: Cell<bool>,
    end: Box<dyn Fn()>,
}

/// The memory that one connection receives into.
pub(in crate::broker) struct ReceiveMemory {
    memory: Rc<RequestMemory>,
    reader: Rc<Reader>,
    number: u64,
}

impl RequestMemory {
    /// Memory of which nothing is taken. A frame has `frame_bytes_max` bytes at most, or half of all if that is less.
    pub(in crate::broker) fn new(bytes_max: usize, frame_bytes_max: usize) -> Rc<RequestMemory> {
        let half = bytes_max / 2 / BLOCK_BYTES * BLOCK_BYTES;
        let frame_bytes_max = frame_bytes_max.min(half.saturating_sub(LENGTH_BYTES));
        let finish = Buffer::capacity_for(frame_bytes_max + LENGTH_BYTES);
        let small = bytes_max / 8;
        let open = (bytes_max - small).saturating_sub(finish);
        // What busy connections may keep between requests leaves room for a new frame.
        assert!(open / 2 >= TRUSTED_BYTES_MAX, "{bytes_max} bytes are too few for requests");
        Rc::new(RequestMemory {
            frame_bytes_max,
            open: Pool::new(open),
            small: Pool::new(small),
            finish: Pool::new(finish),
            readers: RefCell::default(),
            waiting: Default::default(),
            next: Cell::new(0),
            shed_last: Cell::new(None),
        })
    }

    /// Bytes of a frame at most, without its length.
    pub(in crate::broker) fn frame_bytes_max(&self) -> usize {
        self.frame_bytes_max
    }

    /// Bytes that are taken.
    pub(in crate::broker) fn taken(&self) -> usize {
        self.open.taken() + self.small.taken() + self.finish.taken()
    }

    /// Whether nobody waits and half of what is for all is free: enough to spend some for speed.
    fn is_plenty(&self) -> bool {
        self.open.taken() <= self.open.bytes_max / 2 && self.nobody_waits()
    }

    fn nobody_waits(&self) -> bool {
        self.waiting.iter().all(|waiting| waiting.borrow().is_empty())
    }

    fn waiting(&self, kind: Kind) -> &RefCell<BTreeMap<u64, Rc<Reader>>> {
        &self.waiting[kind as usize]
    }

    fn draw(&self) -> u64 {
        let number = self.next.get();
        self.next.set(number + 1);
        number
    }

    fn give_back(&self, taken: Taken) {
        if taken == Taken::default() {
            return;
        }
        self.open.give_back(taken.open);
        self.small.give_back(taken.small);
        self.finish.give_back(taken.finish);
        self.serve();
    }

    /// What a frame gets now if it is the oldest that waits.
    fn take_for(&self, wait: &Wait) -> Option<Taken> {
        if self.open.take(wait.bytes) {
            return Some(Taken { open: wait.bytes, ..Taken::default() });
        }
        match wait.kind {
            Kind::New => None,
            Kind::Started => self.take_to_end(wait),
            Kind::Urgent => self.take_small(wait),
        }
    }

    fn take_small(&self, wait: &Wait) -> Option<Taken> {
        self.small.take(wait.bytes).then_some(Taken { small: wait.bytes, ..Taken::default() })
    }

    fn take_to_end(&self, wait: &Wait) -> Option<Taken> {
        self.finish.take(wait.bytes_to_end).then_some(Taken { finish: wait.bytes_to_end, ..Taken::default() })
    }

    /// Serves those that wait: from open the oldest of all, from each reserve the oldest that may have of it.
    fn serve(&self) {
        loop {
            let age = |kind: &Kind| self.waiting(*kind).borrow().first_key_value().map(|(age, _)| *age);
            let oldest = Kind::ALL.into_iter().filter(|kind| age(kind).is_some()).min_by_key(age);
            let Some(kind) = oldest else { return };
            let open =
                |wait: &Wait| self.open.take(wait.bytes).then_some(Taken { open: wait.bytes, ..Taken::default() });
            if !self.serve_first(kind, open) {
                break;
            }
        }
        while self.serve_first(Kind::Urgent, |wait| self.take_small(wait)) {}
        while self.serve_first(Kind::Started, |wait| self.take_to_end(wait)) {}
    }

    fn serve_first(&self, kind: Kind, take: impl Fn(&Wait) -> Option<Taken>) -> bool {
        let mut waiting = self.waiting(kind).borrow_mut();
        let Some(first) = waiting.first_entry() else { return false };
        let wait = first.get().wait.get().expect("whoever waits says for what");
        let Some(taken) = take(&wait) else { return false };
        let reader = first.remove();
        reader.granted.set(Some(taken));
        reader.call.notify();
        true
    }

    /// Ends connections whose frames come slowly, the slowest first, until what they hold is as much as others wait for.
    /// A frame that waits for memory itself is not slow.
    fn shed(&self, now: Instant) {
        if self.shed_last.get().is_some_and(|last| now.since(last) < PATIENCE) {
            return;
        }
        self.shed_last.set(Some(now));
        let wanted = |reader: &Rc<Reader>| reader.wait.get().map_or(0, |wait| wait.bytes);
        let mut missing: usize = self.waiting.iter().map(|all| all.borrow().values().map(wanted).sum::<usize>()).sum();
        let readers = self.readers.borrow();
        let mut slow: Vec<(u64, &Rc<Reader>)> =
            readers.values().filter_map(|reader| Some((reader.look(now)?, reader))).collect();
        slow.sort_by_key(|(speed, _)| *speed);
        for (_, reader) in slow {
            if missing == 0 {
                break;
            }
            missing = missing.saturating_sub(reader.slab.borrow().taken.get().bytes());
            reader.is_shed.set(true);
            (reader.end)();
        }
    }
}

impl Reader {
    /// The bytes per second of a frame that holds memory and comes too slowly. One that is fast enough is measured anew, so
    /// that what it has sent before counts no more.
    fn look(&self, now: Instant) -> Option<u64> {
        let frame = self.frame.get().filter(|_| self.wait.get().is_none() && !self.is_shed.get())?;
        let time = now.since(frame.measured_since);
        if self.slab.borrow().taken.get().bytes() == 0 || time < SPEED_TIME {
            return None;
        }
        let speed = u64::try_from(frame.measured_bytes as u128 * 1_000_000_000 / time.as_nanos()).unwrap_or(u64::MAX);
        if speed < SPEED_MIN {
            return Some(speed);
        }
        self.measure(frame, now);
        None
    }

    /// Measures the speed of the frame from now on.
    fn measure(&self, frame: Frame, now: Instant) {
        self.frame.set(Some(Frame { measured_since: now, measured_bytes: 0, ..frame }));
    }
}

impl ReceiveMemory {
    /// A connection that has its block and nothing else. `end` is called when the connection is to be ended for being slow.
    pub(in crate::broker) fn new(memory: &Rc<RequestMemory>, end: impl Fn() + 'static) -> ReceiveMemory {
        let slab = Rc::new(SlabMemory { memory: memory.clone(), taken: Cell::default() });
        let reader = Rc::new(Reader {
            slab: RefCell::new(slab),
            age: Cell::new(None),
            frame: Cell::new(None),
            wait: Cell::new(None),
            granted: Cell::new(None),
            call: Notify::new(),
            is_shed: Cell::new(false),
            end: Box::new(end),
        });
        let number = memory.draw();
        memory.readers.borrow_mut().insert(number, reader.clone());
        ReceiveMemory { memory: memory.clone(), reader, number }
    }

    /// The memory of the slab that is received into, for a frame that lies in it.
    pub(in crate::broker) fn slab(&self) -> Rc<SlabMemory> {
        self.reader.slab.borrow().clone()
    }

    /// Whether the connection was ended for being slow.
    pub(in crate::broker) fn is_shed(&self) -> bool {
        self.reader.is_shed.get()
    }

    /// Bytes that the length of a frame buys before it has come.
    pub(in crate::broker) fn trusted_bytes(&self) -> usize {
        if self.memory.is_plenty() { TRUSTED_BYTES_MAX } else { TRUSTED_BYTES_MIN }
    }

    /// A part of a frame of `bytes` bytes in all has been received. Called again and again until it is complete.
    pub(in crate::broker) fn in_frame(&self, bytes: usize, is_produce: bool, now: Instant) {
        if self.reader.frame.get().is_none() {
            let is_urgent = bytes <= SMALL_FRAME_BYTES_MAX && !is_produce;
            self.reader.frame.set(Some(Frame { bytes, is_urgent, measured_since: now, measured_bytes: 0 }));
            self.reader.age.set(Some(self.memory.draw()));
        }
    }

    /// The frame is complete.
    pub(in crate::broker) fn frame_ends(&self) {
        self.reader.frame.set(None);
        self.reader.age.set(None);
    }

    /// So many bytes of the frame came.
    pub(in crate::broker) fn received(&self, bytes: usize) {
        if let Some(frame) = self.reader.frame.get() {
            self.reader.frame.set(Some(Frame { measured_bytes: frame.measured_bytes + bytes, ..frame }));
        }
    }

    /// Whether the slab, of so many bytes, may be kept until the next frame: a block, or any while memory is plenty. Then it
    /// takes nothing of the reserves any more.
    pub(in crate::broker) fn keeps(&self, slab_bytes: usize) -> bool {
        let memory = &self.memory;
        let slab = self.reader.slab.borrow();
        let taken = slab.taken.get();
        if slab_bytes <= BLOCK_BYTES {
            if !self.is_shared() {
                slab.taken.set(Taken::default());
                memory.give_back(taken);
            }
            return true;
        }
        let more = slab_bytes.saturating_sub(taken.open);
        if !memory.is_plenty() || memory.open.taken() + more > memory.open.bytes_max / 2 || !memory.open.take(more) {
            return false;
        }
        slab.taken.set(Taken { open: slab_bytes, ..Taken::default() });
        memory.give_back(Taken { open: taken.open + more - slab_bytes, ..taken });
        true
    }

    /// Takes what a slab of so many bytes needs, which is only for speed: `false` unless memory is plenty.
    pub(in crate::broker) fn prefers(&self, slab_bytes: usize) -> bool {
        let wait = self.wait(slab_bytes);
        let half = self.memory.open.bytes_max / 2;
        let is_plenty = self.memory.is_plenty() && self.memory.open.taken() + wait.bytes <= half;
        is_plenty && self.pays_now() && self.take_now(&wait)
    }

    /// Takes what a slab of so many bytes needs, to receive a frame into, if that is there for it now.
    pub(in crate::broker) fn takes(&self, slab_bytes: usize) -> bool {
        self.pays_now() && self.take_now(&self.wait(slab_bytes))
    }

    /// Takes what a slab of so many bytes needs, to receive a frame into, as soon as that is there for it.
    pub(in crate::broker) async fn takes_in_turn(&self, slab_bytes: usize) {
        if !self.pays_now() {
            let taken = self.wait_for(BLOCK).await;
            self.add(taken, false);
        }
        let wait = self.wait(slab_bytes);
        if !self.take_now(&wait) {
            let taken = self.wait_for(wait).await;
            self.add(taken, wait.is_second);
        }
    }

    /// Goes back to a block from a slab that counts; what it took is given back with the last frame in it.
    pub(in crate::broker) fn gives_up(&self) {
        assert!(!self.must_pay_first(), "a block that frames keep is paid for");
        self.reader.slab.replace(self.uncounted());
    }

    /// Memory of a block that nobody counts: what a connection has in any case, or a frame of that size that it waits for.
    pub(in crate::broker) fn uncounted(&self) -> Rc<SlabMemory> {
        Rc::new(SlabMemory { memory: self.memory.clone(), taken: Cell::default() })
    }

    /// Whether frames are alive in the slab, so that the next one is a second one.
    fn is_shared(&self) -> bool {
        Rc::strong_count(&self.reader.slab.borrow()) > 1
    }

    /// Whether frames keep the block that nobody counts, so that it counts from now on.
    fn must_pay_first(&self) -> bool {
        self.is_shared() && self.reader.slab.borrow().taken.get() == Taken::default()
    }

    /// Pays for the block that frames keep, if there is one; `false` if that has to wait.
    fn pays_now(&self) -> bool {
        !self.must_pay_first() || self.take_now(&BLOCK)
    }

    /// What is missing for a slab of so many bytes in place of the present one.
    fn wait(&self, slab_bytes: usize) -> Wait {
        let (is_second, taken) = (self.is_shared(), self.reader.slab.borrow().taken.get().bytes());
        let frame = self.reader.frame.get();
        let to_end = frame.map_or(slab_bytes, |frame| Buffer::capacity_for(frame.bytes).max(slab_bytes));
        let kind = match frame {
            Some(frame) if frame.is_urgent => Kind::Urgent,
            Some(_) if taken > 0 => Kind::Started,
            _ => Kind::New,
        };
        let present = if is_second { 0 } else { taken };
        let missing = |bytes: usize| if bytes <= BLOCK_BYTES { 0 } else { bytes.saturating_sub(present) };
        Wait { kind, bytes: missing(slab_bytes), bytes_to_end: missing(to_end), is_second }
    }

    fn take_now(&self, wait: &Wait) -> bool {
        if wait.bytes > 0 && !self.memory.nobody_waits() {
            return false;
        }
        let taken = self.memory.take_for(wait);
        if let Some(taken) = taken {
            self.add(taken, wait.is_second);
        }
        taken.is_some()
    }

    fn add(&self, taken: Taken, is_second: bool) {
        if is_second {
            self.gives_up();
        }
        let slab = self.reader.slab.borrow();
        let mut all = slab.taken.get();
        all += taken;
        slab.taken.set(all);
    }

    async fn wait_for(&self, wait: Wait) -> Taken {
        let age = self.reader.age.get().unwrap_or_else(|| self.memory.draw());
        self.reader.age.set(Some(age));
        self.reader.wait.set(Some(wait));
        self.memory.waiting(wait.kind).borrow_mut().insert(age, self.reader.clone());
        let waiting = Waiting { of: self, kind: wait.kind, age };
        self.memory.serve();
        loop {
            let called = timeout(PATIENCE, self.reader.call.notified()).await;
            if let Some(taken) = self.reader.granted.take() {
                drop(waiting);
                return taken;
            }
            if called.is_err() {
                self.memory.shed(Instant::now());
            }
        }
    }
}

impl Drop for ReceiveMemory {
    fn drop(&mut self) {
        self.memory.readers.borrow_mut().remove(&self.number);
    }
}

/// A place among those that wait.
struct Waiting<'a> {
    of: &'a ReceiveMemory,
    kind: Kind,
    age: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        let reader = &self.of.reader;
        reader.wait.set(None);
        // The time of waiting was not the client's.
        if let Some(frame) = reader.frame.get() {
            reader.measure(frame, Instant::now());
        }
        let gave_up = self.of.memory.waiting(self.kind).borrow_mut().remove(&self.age).is_some();
        match reader.granted.take() {
            Some(taken) => self.of.memory.give_back(taken),
            None if gave_up => self.of.memory.serve(),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
