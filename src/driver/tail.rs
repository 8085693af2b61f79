//! The last lines of stderr.

use std::collections::VecDeque;

/// Of these bytes at most, one line excepted.
const MAX_BYTES: usize = 256 << 10;

#[derive(Debug)]
pub(crate) struct Tail {
    lines: VecDeque<String>,
    bytes: usize,
    max_lines: usize,
}

impl Tail {
    pub(crate) fn new(max_lines: usize) -> Self {
        Self {
            lines: VecDeque::new(),
            bytes: 0,
            max_lines,
        }
    }

    pub(crate) fn push(&mut self, line: String) {
        self.bytes += line.len();
        self.lines.push_back(line);
        while self.lines.len() > self.max_lines || (self.bytes > MAX_BYTES && self.lines.len() > 1)
        {
            let oldest = self.lines.pop_front().unwrap_or_default();
            self.bytes -= oldest.len();
        }
    }

    /// The last ones, the newest last.
    pub(crate) fn last(&self, lines: usize) -> Vec<String> {
        let skip = self.lines.len().saturating_sub(lines);
        self.lines.iter().skip(skip).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_first() {
        let mut tail = Tail::new(3);
        (0..5).for_each(|i| tail.push(i.to_string()));
        assert_eq!(tail.last(100), ["2", "3", "4"]);
        assert_eq!(tail.last(1), ["4"]);
        tail.push("x".repeat(MAX_BYTES));
        assert_eq!(tail.last(100).len(), 1);
        tail.push("y".into());
        assert_eq!(tail.last(100), ["y"]);
        let mut none = Tail::new(0);
        none.push("a".into());
        assert!(none.last(1).is_empty());
    }
}
