//! Values in an order, each at a place of its own that it keeps while others come and go.
//!
//! A doubly linked list in one vector: adding, removing and moving a value to the end take constant time, and none of them
//! allocates once the vector is as long as the list ever was. A place that is given up is the next to be taken.
//!
//! What this file does not do: it does not look values up; whoever needs that keeps an index of places.

use std::num::NonZeroU32;
use std::ops::{Index, IndexMut};

/// Where a value is: its position in the vector, from 1, so that an optional place takes no more room.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) struct Place(NonZeroU32);

impl Place {
    fn of(position: usize) -> Place {
        let number = u32::try_from(position + 1).ok().and_then(NonZeroU32::new);
        Place(number.expect("memory for fetch sessions ends long before 2^32 places"))
    }

    fn position(self) -> usize {
        self.0.get() as usize - 1
    }
}

struct Entry<T> {
    /// `None` while the place is free; then only `after` means anything.
    value: Option<T>,
    before: Option<Place>,
    /// The next value in the order, or the next free place.
    after: Option<Place>,
}

/// Values in an order.
pub(super) struct Ordered<T> {
    entries: Vec<Entry<T>>,
    first: Option<Place>,
    last: Option<Place>,
    free: Option<Place>,
    len: usize,
}

impl<T> Ordered<T> {
    /// No values, and room for `capacity`.
    pub(super) fn with_capacity(capacity: usize) -> Ordered<T> {
        Ordered { entries: Vec::with_capacity(capacity), first: None, last: None, free: None, len: 0 }
    }

    /// How many values there are.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many values there have been at a time at most: what the memory is worth.
    pub(super) fn places(&self) -> usize {
        self.entries.len()
    }

    /// Adds a value at the end.
    pub(super) fn push(&mut self, value: T) -> Place {
        let place = match self.free {
            Some(place) => {
                let entry = &mut self.entries[place.position()];
                self.free = entry.after.take();
                entry.value = Some(value);
                place
            }
            None => {
                self.entries.push(Entry { value: Some(value), before: None, after: None });
                Place::of(self.entries.len() - 1)
            }
        };
        self.len += 1;
        self.link_last(place);
        place
    }

    /// Takes a value out.
    pub(super) fn remove(&mut self, place: Place) -> T {
        let value = self.entries[place.position()].value.take().expect("a place is given up once");
        self.unlink(place);
        self.entries[place.position()].after = self.free.replace(place);
        self.len -= 1;
        value
    }

    /// Makes a value the last one.
    pub(super) fn move_to_end(&mut self, place: Place) {
        assert!(self.get(place).is_some(), "only what is there is moved");
        self.unlink(place);
        self.link_last(place);
    }

    pub(super) fn first(&self) -> Option<Place> {
        self.first
    }

    /// The place after this one in the order.
    pub(super) fn after(&self, place: Place) -> Option<Place> {
        debug_assert!(self.get(place).is_some());
        self.entries[place.position()].after
    }

    /// What is at a place, if it is taken.
    pub(super) fn get(&self, place: Place) -> Option<&T> {
        self.entries.get(place.position())?.value.as_ref()
    }

    /// The values in order.
    #[cfg(test)]
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::successors(self.first, |place| self.after(*place)).map(|place| &self[place])
    }

    /// The values in no particular order, to be changed.
    pub(super) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().filter_map(|entry| entry.value.as_mut())
    }

    fn link_last(&mut self, place: Place) {
        let before = self.last.replace(place);
        match before {
            Some(before) => self.entries[before.position()].after = Some(place),
            None => self.first = Some(place),
        }
        let entry = &mut self.entries[place.position()];
        (entry.before, entry.after) = (before, None);
    }

    fn unlink(&mut self, place: Place) {
        let Entry { before, after, .. } = self.entries[place.position()];
        match before {
            Some(before) => self.entries[before.position()].after = after,
            None => self.first = after,
        }
        match after {
            Some(after) => self.entries[after.position()].before = before,
            None => self.last = before,
        }
    }
}

impl<T> Index<Place> for Ordered<T> {
    type Output = T;

    fn index(&self, place: Place) -> &T {
        self.get(place).expect("the place is taken")
    }
}

impl<T> IndexMut<Place> for Ordered<T> {
    fn index_mut(&mut self, place: Place) -> &mut T {
        self.entries[place.position()].value.as_mut().expect("the place is taken")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Push,
        Remove(prop::sample::Index),
        MoveToEnd(prop::sample::Index),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            3 => Just(Step::Push),
            2 => any::<prop::sample::Index>().prop_map(Step::Remove),
            2 => any::<prop::sample::Index>().prop_map(Step::MoveToEnd),
        ];
        prop::collection::vec(step, 0..100)
    }

    proptest! {
        /// Against a plain vector of values with their places.
        #[test]
        fn it_is_a_list_whose_places_stay(steps in steps()) {
            let mut list = Ordered::with_capacity(0);
            let mut model: Vec<(u32, Place)> = Vec::new();
            let mut most = 0;
            for (value, step) in (0..).zip(steps) {
                match step {
                    Step::Push => model.push((value, list.push(value))),
                    Step::Remove(at) if !model.is_empty() => {
                        let (value, place) = model.remove(at.index(model.len()));
                        prop_assert_eq!(list.remove(place), value);
                        prop_assert_eq!(list.get(place), None);
                    }
                    Step::MoveToEnd(at) if !model.is_empty() => {
                        let moved = model.remove(at.index(model.len()));
                        list.move_to_end(moved.1);
                        model.push(moved);
                    }
                    Step::Remove(_) | Step::MoveToEnd(_) => {}
                }
                most = most.max(model.len());
                prop_assert_eq!(list.iter().copied().collect::<Vec<_>>(), model.iter().map(|m| m.0).collect::<Vec<_>>());
                prop_assert!(model.iter().all(|(value, place)| list[*place] == *value));
                prop_assert_eq!((list.len(), list.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(list.first(), model.first().map(|m| m.1));
                prop_assert_eq!(list.places(), most, "places are taken again");
            }
        }
    }

    #[test]
    fn an_optional_place_takes_no_more_room() {
        assert_eq!(size_of::<Option<Place>>(), 4);
    }
}
