//! Requests in flight: found by id, ended by deadline. Both cost the same
//! however many there are.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};
use std::time::Instant;

/// Fewer entries than this are never worth a clean-up.
const SMALL: usize = 64;

/// A table of `T` by id, each with an optional deadline.
#[derive(Debug)]
pub(crate) struct Pending<T> {
    entries: HashMap<u64, Entry<T>, BuildHasherDefault<IdHasher>>,
    /// Earliest first. An entry that was removed leaves its deadline behind;
    /// those are swept when they outnumber the others, so the heap stays in
    /// proportion and a removal costs nothing here. A deadline that was put off
    /// stays where it is until its old time comes.
    deadlines: BinaryHeap<Reverse<(Instant, u64)>>,
}

#[derive(Debug)]
struct Entry<T> {
    value: T,
    deadline: Option<Instant>,
}

impl<T> Pending<T> {
    pub(crate) fn new() -> Self {
        Self {
            entries: HashMap::default(),
            deadlines: BinaryHeap::new(),
        }
    }

    /// Adds an entry. Ids are never used twice.
    pub(crate) fn insert(&mut self, id: u64, deadline: Option<Instant>, value: T) {
        let before = self.entries.insert(id, Entry { value, deadline });
        debug_assert!(before.is_none(), "id {id} used twice");
        if let Some(deadline) = deadline {
            self.sweep();
            self.deadlines.push(Reverse((deadline, id)));
        }
    }

    pub(crate) fn get(&self, id: u64) -> Option<&T> {
        self.entries.get(&id).map(|entry| &entry.value)
    }

    pub(crate) fn get_mut(&mut self, id: u64) -> Option<&mut T> {
        self.entries.get_mut(&id).map(|entry| &mut entry.value)
    }

    /// Puts the deadline of an entry off; one without a deadline keeps none.
    pub(crate) fn put_off(&mut self, id: u64, until: Instant) {
        if let Some(deadline) = self.entries.get_mut(&id).and_then(|e| e.deadline.as_mut()) {
            *deadline = until.max(*deadline);
        }
    }

    pub(crate) fn remove(&mut self, id: u64) -> Option<T> {
        let entry = self.entries.remove(&id)?;
        if self.entries.is_empty() {
            self.deadlines.clear();
        }
        self.give_memory_back();
        Some(entry.value)
    }

    /// The time to look at deadlines again. It may be that of an entry that is
    /// gone or was put off, but only while there are others: with none left
    /// there is no deadline.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.deadlines
            .peek()
            .map(|Reverse((deadline, _))| *deadline)
    }

    /// Removes one entry whose deadline is not after `now`.
    pub(crate) fn pop_expired(&mut self, now: Instant) -> Option<(u64, T)> {
        while self.next_deadline().is_some_and(|deadline| deadline <= now) {
            let Reverse((_, id)) = self.deadlines.pop()?;
            match self.entries.get(&id).and_then(|entry| entry.deadline) {
                Some(later) if later > now => self.deadlines.push(Reverse((later, id))),
                Some(_) => return self.remove(id).map(|value| (id, value)),
                None => {}
            }
        }
        None
    }

    /// Removes everything.
    pub(crate) fn take_all(&mut self) -> impl Iterator<Item = T> + use<T> {
        self.deadlines = BinaryHeap::new();
        let entries = std::mem::take(&mut self.entries);
        entries.into_values().map(|entry| entry.value)
    }

    /// Drops the deadlines of entries that are gone, once they are the most.
    fn sweep(&mut self) {
        if self.deadlines.len() >= SMALL && self.deadlines.len() / 2 >= self.entries.len() {
            let entries = &self.entries;
            self.deadlines
                .retain(|Reverse((_, id))| entries.contains_key(id));
            self.deadlines.shrink_to(SMALL.max(2 * entries.len()));
        }
    }

    fn give_memory_back(&mut self) {
        let capacity = self.entries.capacity();
        if capacity > 64 * SMALL && self.entries.len() < capacity / 8 {
            self.entries.shrink_to(capacity / 4);
        }
    }
}

/// Ids count up and come from this process, so spreading them is enough.
#[derive(Debug, Default)]
struct IdHasher(u64);

impl Hasher for IdHasher {
    fn write_u64(&mut self, id: u64) {
        // An odd factor near 2^64 / golden ratio: neighbours end far apart in
        // the high bits, and stay distinct in the low ones.
        self.0 = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_entry_is_found_once() {
        let mut pending = Pending::new();
        pending.insert(1, None, "a");
        pending.insert(2, None, "b");
        assert_eq!(pending.remove(1), Some("a"));
        assert_eq!(pending.remove(1), None);
        assert_eq!(pending.take_all().collect::<Vec<_>>(), ["b"]);
        assert_eq!(pending.remove(2), None);
    }

    #[test]
    fn deadlines_end_entries_in_their_order() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pending = Pending::new();
        pending.insert(1, Some(at(30)), 1);
        pending.insert(2, Some(at(10)), 2);
        pending.insert(3, Some(at(20)), 3);
        pending.insert(4, None, 4);
        assert_eq!(pending.next_deadline(), Some(at(10)));
        assert_eq!(pending.pop_expired(at(9)), None);
        pending.remove(3);
        assert_eq!(pending.pop_expired(at(25)), Some((2, 2)));
        assert_eq!(pending.pop_expired(at(25)), None);
        assert_eq!(pending.pop_expired(at(30)), Some((1, 1)));
        assert_eq!(pending.pop_expired(at(99)), None);
        assert_eq!(pending.remove(4), Some(4));
    }

    #[test]
    fn a_deadline_that_was_put_off_comes_later_and_once() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let mut pending = Pending::new();
        pending.insert(1, Some(at(10)), 1);
        pending.insert(2, None, 2);
        for ms in 20..1000 {
            pending.put_off(1, at(ms));
        }
        pending.put_off(1, at(5));
        pending.put_off(2, at(5));
        assert_eq!(pending.deadlines.len(), 1);
        assert_eq!(pending.pop_expired(at(998)), None);
        assert_eq!(pending.next_deadline(), Some(at(999)));
        assert_eq!(pending.pop_expired(at(999)), Some((1, 1)));
        assert_eq!(pending.pop_expired(at(5000)), None);
        assert_eq!(pending.get(2), Some(&2));
    }

    #[test]
    fn an_empty_table_has_no_deadline() {
        let mut pending = Pending::new();
        pending.insert(1, Some(Instant::now()), ());
        pending.remove(1);
        assert_eq!(pending.next_deadline(), None);
    }

    #[test]
    fn deadlines_of_answered_requests_do_not_pile_up() {
        let mut pending = Pending::new();
        let later = Instant::now() + Duration::from_secs(30);
        // One that stays, so the table is never empty.
        pending.insert(0, Some(later), ());
        for id in 1..100_000 {
            pending.insert(id, Some(later), ());
            pending.remove(id);
        }
        assert!(
            pending.deadlines.len() <= SMALL + 1,
            "{}",
            pending.deadlines.len()
        );
    }

    #[test]
    fn memory_comes_back_after_a_burst() {
        let mut pending = Pending::new();
        for id in 0..100_000 {
            pending.insert(id, None, id);
        }
        for id in 0..100_000 {
            assert_eq!(pending.remove(id), Some(id));
        }
        assert!(
            pending.entries.capacity() <= 64 * SMALL * 2,
            "{}",
            pending.entries.capacity()
        );
    }
}
