//! What has been asked and not been answered, for lines of JSON.

use std::collections::HashMap;

/// So many bytes of requests may be unanswered before the next one waits: well
/// below what the bus lets one client leave with a worker that doesn't read.
const MAX_OPEN: usize = 8 << 20;

/// By id. The same id may be used again while it is open; the bus has something
/// to say about that.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    /// The length of each request.
    open: HashMap<Box<str>, Vec<usize>>,
    count: usize,
    bytes: usize,
    /// Answers without an id where none was expected: whose they are can't be
    /// known, only that somebody waits no longer.
    strays: usize,
}

impl Ledger {
    /// Whether a request of this length may go. One always may.
    pub(super) fn has_room(&self, bytes: usize) -> bool {
        self.count == 0 || self.bytes + bytes <= MAX_OPEN
    }

    pub(super) fn expect(&mut self, id: &str, bytes: usize) {
        self.open.entry(id.into()).or_default().push(bytes);
        self.count += 1;
        self.bytes += bytes;
    }

    pub(super) fn answered(&mut self, id: &str) {
        match self.open.get_mut(id).and_then(Vec::pop) {
            Some(bytes) => {
                self.count -= 1;
                self.bytes -= bytes;
                if self.open.get(id).is_some_and(Vec::is_empty) {
                    self.open.remove(id);
                }
            }
            None => self.strays += usize::from(id == "null"),
        }
        if self.strays >= self.count {
            *self = Self::default();
        }
    }

    pub(super) fn unanswered(&self) -> usize {
        self.count - self.strays
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_is_open_until_it_is_answered() {
        let mut ledger = Ledger::default();
        for id in ["1", "1", "\"1\""] {
            ledger.expect(id, 10);
        }
        assert_eq!(ledger.unanswered(), 3);
        ledger.answered("1");
        ledger.answered("2");
        assert_eq!(ledger.unanswered(), 2);
        ledger.answered("\"1\"");
        ledger.answered("1");
        assert_eq!(ledger.unanswered(), 0);
        ledger.answered("1");
        assert_eq!(ledger.unanswered(), 0);
    }

    #[test]
    fn an_answer_without_id_is_somebodys() {
        let mut ledger = Ledger::default();
        ledger.answered("null");
        ledger.expect("1", 10);
        ledger.expect("2", 10);
        assert_eq!(ledger.unanswered(), 2, "that before was nobody's");
        ledger.answered("null");
        assert_eq!(ledger.unanswered(), 1);
        ledger.answered("2");
        assert_eq!(ledger.unanswered(), 0);
        ledger.expect("null", 10);
        ledger.answered("null");
        assert_eq!(ledger.unanswered(), 0);
    }

    #[test]
    fn what_is_open_is_bounded_but_one_request_always_goes() {
        let mut ledger = Ledger::default();
        assert!(ledger.has_room(10 * MAX_OPEN));
        ledger.expect("1", MAX_OPEN - 1);
        assert!(ledger.has_room(1) && !ledger.has_room(2));
        ledger.answered("1");
        assert!(ledger.has_room(MAX_OPEN + 1));
    }
}
