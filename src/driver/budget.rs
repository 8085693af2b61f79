//! How many bytes of requests this process has in flight, and who waits for
//! room.
//!
//! A place is taken by the task that sends, so that it can be told at once that
//! there is none; one without room travels to the bus thread all the same and
//! waits there, in its order and under its own deadline. Whoever comes while
//! others wait waits behind them: requests don't overtake each other. Places of
//! requests that were sent are given back on the bus thread only, which then
//! looks who comes next, so nobody needs to be woken.

use std::sync::Arc;

use super::sync::{AtomicUsize, Ordering};

#[derive(Debug)]
pub(crate) struct Budget {
    cap: usize,
    used: AtomicUsize,
    waiting: AtomicUsize,
}

impl Budget {
    pub(crate) fn new(cap: usize) -> Arc<Self> {
        Arc::new(Self {
            cap,
            used: AtomicUsize::new(0),
            waiting: AtomicUsize::new(0),
        })
    }

    pub(crate) fn cap(&self) -> usize {
        self.cap
    }

    /// Bytes in flight.
    pub(super) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Requests that wait for room.
    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// A place for a request of so many bytes, with room or in the line.
    pub(crate) fn enter(self: &Arc<Self>, bytes: usize) -> Place {
        self.try_enter(bytes).unwrap_or_else(|| {
            self.waiting.fetch_add(1, Ordering::Relaxed);
            self.place(bytes, false)
        })
    }

    /// A place with room; `None` where there is none, or others wait for it.
    pub(crate) fn try_enter(self: &Arc<Self>, bytes: usize) -> Option<Place> {
        (self.waiting() == 0 && self.reserve(self.cost(bytes))).then(|| self.place(bytes, true))
    }

    fn place(self: &Arc<Self>, bytes: usize, granted: bool) -> Place {
        Place {
            budget: Arc::clone(self),
            cost: self.cost(bytes),
            granted,
        }
    }

    /// A request larger than all there is goes when nothing else is in flight.
    fn cost(&self, bytes: usize) -> usize {
        bytes.min(self.cap)
    }

    fn reserve(&self, cost: usize) -> bool {
        let add = |used: usize| used.checked_add(cost).filter(|sum| *sum <= self.cap);
        let order = Ordering::Relaxed;
        self.used.fetch_update(order, order, add).is_ok()
    }
}

/// The place of one request, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place {
    budget: Arc<Budget>,
    cost: usize,
    granted: bool,
}

impl Place {
    pub(super) fn is_granted(&self) -> bool {
        self.granted
    }

    /// The bus thread, for the first in the line: `false` while there is no
    /// room.
    pub(super) fn grant(&mut self) -> bool {
        if !self.granted && self.budget.reserve(self.cost) {
            self.granted = true;
            self.budget.waiting.fetch_sub(1, Ordering::Relaxed);
        }
        self.granted
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let (counter, amount) = match self.granted {
            true => (&self.budget.used, self.cost),
            false => (&self.budget.waiting, 1),
        };
        counter.fetch_sub(amount, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_room_up_to_the_cap_and_it_comes_back() {
        let budget = Budget::new(10);
        let first = budget.try_enter(4).expect("room");
        let second = budget.try_enter(6).expect("room");
        assert!(budget.try_enter(1).is_none());
        drop(first);
        assert_eq!(budget.used(), 6);
        drop((budget.try_enter(4).expect("room"), second));
        assert_eq!(budget.used(), 0);
    }

    #[test]
    fn nobody_overtakes_those_who_wait() {
        let budget = Budget::new(10);
        let first = budget.enter(8);
        assert!(first.is_granted());
        let mut second = budget.enter(5);
        assert!(!second.is_granted() && !second.grant());
        assert!(budget.try_enter(1).is_none() && !budget.enter(1).is_granted());
        drop(first);
        assert!(budget.try_enter(1).is_none());
        assert!(second.grant());
        assert_eq!((budget.used(), budget.waiting()), (5, 0));
        assert!(budget.enter(5).is_granted());
    }

    #[test]
    fn one_that_is_larger_than_everything_goes_alone() {
        let budget = Budget::new(10);
        let large = budget.enter(1000);
        assert!(large.is_granted() && budget.used() == 10);
        drop(large);
        let small = budget.enter(1);
        let mut large = budget.enter(1000);
        assert!(!large.grant());
        drop(small);
        assert!(large.grant());
    }

    #[test]
    fn those_who_give_up_waiting_leave_the_line() {
        let budget = Budget::new(1);
        let first = budget.enter(1);
        drop(budget.enter(1));
        assert_eq!(budget.waiting(), 0);
        drop(first);
        assert!(budget.try_enter(1).is_some());
    }
}
