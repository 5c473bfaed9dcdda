//! What counts, whom it stops, and that it all comes back.

use std::pin::Pin;
use std::task::{Context, Waker};

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

const ALL: usize = 1 << 20;

/// A slab of `bytes` bytes, a power of two.
fn slab(bytes: usize) -> Buffer {
    let mut buffer = Buffer::with_capacity(bytes);
    buffer.append_zeros(bytes);
    assert_eq!(buffer.capacity(), bytes);
    buffer
}

fn encoded(bytes: usize) -> Pieces<Slice> {
    vec![Piece::Encoded(Bytes::from(vec![1; bytes]))].into()
}

fn slices(of: &[Slice]) -> Pieces<Slice> {
    of.iter().cloned().map(Piece::Shared).collect::<Vec<_>>().into()
}

type Room = Pin<Box<dyn Future<Output = ()>>>;

fn room(sender: &Rc<SendMemory>) -> Room {
    let sender = sender.clone();
    Box::pin(async move { sender.room().await })
}

fn is_ready(room: &mut Room) -> bool {
    room.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn a_slab_counts_whole_and_once() {
    let memory = ResponseMemory::new(ALL);
    let [one, other] = [SendMemory::new(&memory), SendMemory::new(&memory)];
    let log = slab(64 << 10);
    let first = one.queue(&mut slices(&[log.slice(0..10), log.slice(20..30)]));
    assert_eq!((memory.taken(), one.bytes()), (64 << 10, 20));
    let second = other.queue(&mut slices(&[log.slice(100..105)]));
    assert_eq!((memory.taken(), other.bytes()), (64 << 10, 5));
    let third = other.queue(&mut encoded(1000));
    assert_eq!((memory.taken(), other.bytes()), ((64 << 10) + 1000, 1005));
    drop(first);
    assert_eq!((memory.taken(), one.bytes()), ((64 << 10) + 1000, 0));
    drop(second);
    assert_eq!(memory.taken(), 1000);
    drop(third);
    assert_eq!((memory.taken(), memory.slabs.borrow().len()), (0, 0));
}

#[test]
fn a_connection_over_its_share_waits_alone() {
    let memory = ResponseMemory::new(ALL);
    let [slow, other] = [(); 2].map(|()| Rc::new(SendMemory::new(&memory)));
    let queued = slow.queue(&mut encoded(ALL / 4 - 1));
    assert!(is_ready(&mut room(&slow)));
    let last = slow.queue(&mut encoded(1));
    let mut waits = room(&slow);
    assert!(!is_ready(&mut waits) && is_ready(&mut room(&other)));
    drop(last);
    assert!(is_ready(&mut waits));
    drop(queued);
}

#[test]
fn all_wait_when_nothing_is_left_and_are_called_one_after_the_other() {
    let memory = ResponseMemory::new(ALL);
    let slow: Vec<_> = (0..4).map(|_| SendMemory::new(&memory)).collect();
    let mut queued: Vec<_> = slow.iter().map(|slow| slow.queue(&mut encoded(ALL / 4))).collect();
    let others: Vec<_> = (0..3).map(|_| Rc::new(SendMemory::new(&memory))).collect();
    let mut rooms: Vec<Room> = others.iter().map(room).collect();
    assert!(!rooms.iter_mut().any(is_ready));
    queued.pop();
    assert!(!is_ready(&mut rooms[1]), "the first one looks first");
    assert!(is_ready(&mut rooms[0]) && is_ready(&mut rooms[1]) && is_ready(&mut rooms[2]));
}

/// A connection that ends while it is its turn passes the turn on.
#[test]
fn a_turn_is_not_lost() {
    let memory = ResponseMemory::new(ALL);
    let slow = SendMemory::new(&memory);
    let queued = slow.queue(&mut encoded(ALL));
    let others: Vec<_> = (0..3).map(|_| Rc::new(SendMemory::new(&memory))).collect();
    let mut rooms: Vec<Room> = others.iter().map(room).collect();
    assert!(!rooms.iter_mut().any(is_ready));
    drop(queued);
    drop(rooms.remove(0));
    assert!(is_ready(&mut rooms[0]) && is_ready(&mut rooms[1]));
}

#[test]
fn an_answer_holds_what_is_left() {
    let memory = ResponseMemory::new(ALL);
    let [one, other] = [SendMemory::new(&memory), SendMemory::new(&memory)];
    assert_eq!((one.answer_bytes(1000), one.answer_bytes(usize::MAX)), (1000, ALL / 4));
    let queued = one.queue(&mut encoded(100_000));
    assert_eq!((one.answer_bytes(usize::MAX), other.answer_bytes(usize::MAX)), (ALL / 4 - 100_000, ALL / 4));
    let more = other.queue(&mut encoded(ALL));
    assert_eq!(one.answer_bytes(usize::MAX), ANSWER_BYTES_MIN, "every answer makes progress");
    drop((queued, more));
}

#[test]
fn short_slices_are_copied_once_slabs_take_half() {
    let memory = ResponseMemory::new(ALL);
    let sender = SendMemory::new(&memory);
    let (first, second) = (slab(ALL / 2), slab(ALL / 4));
    let wanted = [second.slice(0..100), second.slice(200..300), second.slice(0..ALL / 8), second.slice(5..10)];
    let whole = |pieces: &Pieces<Slice>| pieces.as_slice().iter().map(|piece| piece.as_ref().len()).collect::<Vec<_>>();
    let half = sender.queue(&mut slices(&[first.slice(0..10)]));
    let mut kept = slices(&wanted);
    let queued = sender.queue(&mut kept);
    assert_eq!(memory.taken(), ALL / 4 * 3, "exactly half is not too much");
    assert_eq!(whole(&kept), [100, 100, ALL / 8, 5]);
    let mut copied = slices(&wanted[..2]);
    let short = sender.queue(&mut copied);
    assert_eq!((whole(&copied), memory.taken()), (vec![200], ALL / 4 * 3 + 4096), "neighbours share a block");
    let mut mixed = slices(&wanted);
    let long = sender.queue(&mut mixed);
    assert_eq!(whole(&mixed), [200, ALL / 8, 5]);
    assert_eq!(mixed.to_bytes(), kept.to_bytes());
    drop((half, queued, short, long));
    assert_eq!(memory.taken(), 0);
}

#[derive(Clone, Debug)]
enum Step {
    Queue { sender: usize, encoded: usize, slabs: Vec<(usize, usize)> },
    Sent(prop::sample::Index),
    Wait(usize),
    GiveUp(prop::sample::Index),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let slabs = prop::collection::vec((0usize..6, 1usize..5000), 0..5);
    let step = prop_oneof![
        (0usize..4, 0usize..100_000, slabs).prop_map(|(sender, encoded, slabs)| Step::Queue { sender, encoded, slabs }),
        any::<prop::sample::Index>().prop_map(Step::Sent),
        (0usize..4).prop_map(Step::Wait),
        any::<prop::sample::Index>().prop_map(Step::GiveUp),
    ];
    prop::collection::vec(step, 0..80)
}

proptest! {
    #[test]
    fn everything_comes_back(steps in steps()) {
        let memory = ResponseMemory::new(ALL);
        let senders: Vec<_> = (0..4).map(|_| Rc::new(SendMemory::new(&memory))).collect();
        let logs: Vec<Buffer> = (0..6).map(|log| slab(8192 << log)).collect();
        let mut queued: Vec<(Queued, Pieces<Slice>)> = Vec::new();
        let mut rooms: Vec<(usize, Room)> = Vec::new();
        for step in steps {
            match step {
                Step::Queue { sender, encoded, slabs } => {
                    let mut pieces = vec![Piece::Encoded(Bytes::from(vec![0; encoded]))];
                    pieces.extend(slabs.iter().map(|(log, bytes)| Piece::Shared(logs[*log].slice(0..*bytes))));
                    let mut pieces = pieces.into();
                    let counted = senders[sender].queue(&mut pieces);
                    queued.push((counted, pieces));
                }
                Step::Sent(at) if !queued.is_empty() => drop(queued.remove(at.index(queued.len()))),
                // A connection waits once at a time.
                Step::Wait(sender) if rooms.iter().all(|(other, _)| *other != sender) => {
                    rooms.push((sender, room(&senders[sender])));
                }
                Step::GiveUp(at) if !rooms.is_empty() => drop(rooms.remove(at.index(rooms.len()))),
                _ => {}
            }
            rooms.retain_mut(|(_, room)| !is_ready(room));
            let waiting = senders.iter().map(|sender| sender.bytes()).sum::<usize>();
            let sent: usize = queued.iter().map(|(_, pieces)| pieces.bytes()).sum();
            prop_assert_eq!(waiting, sent);
        }
        queued.clear();
        prop_assert_eq!((memory.taken(), memory.slabs.borrow().len()), (0, 0));
        prop_assert!(senders.iter().all(|sender| sender.bytes() == 0));
        prop_assert!(rooms.iter_mut().all(|(_, room)| is_ready(room)), "whoever waits is called");
    }
}
