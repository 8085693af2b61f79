//! Lines out of bytes that come in any pieces.

use bytes::{Buf, BytesMut};

/// Beyond this the room of a buffer is given back once it is empty.
const KEPT: usize = 1 << 20;

/// Gives back the room of a large buffer that is empty.
pub(crate) fn release(buffer: &mut BytesMut) {
    // The room in front of what was taken counts only once it is reclaimed.
    if buffer.is_empty() && buffer.try_reclaim(KEPT + 1) {
        *buffer = BytesMut::new();
    }
}

/// Splits what is pushed into lines.
#[derive(Debug)]
pub(crate) struct Lines {
    buffer: BytesMut,
    /// So much of it has no newline.
    searched: usize,
    limit: usize,
}

/// A line is longer than the limit.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct TooLong;

impl Lines {
    /// Lines of at most so many bytes.
    pub(crate) fn new(limit: usize) -> Self {
        Self {
            buffer: BytesMut::new(),
            searched: 0,
            limit,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next line that is not blank, without its end.
    pub(crate) fn next(&mut self) -> Result<Option<Vec<u8>>, TooLong> {
        loop {
            let Some(at) = memchr::memchr(b'\n', &self.buffer[self.searched..]) else {
                self.searched = self.buffer.len();
                return match self.searched > self.limit {
                    true => Err(TooLong),
                    false => Ok(None),
                };
            };
            let line = self.take(self.searched + at);
            if line.len() > self.limit {
                return Err(TooLong);
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                return Ok(Some(line));
            }
        }
    }

    /// The next line that is not blank, or the beginning of one that is longer
    /// than the limit.
    pub(crate) fn piece(&mut self) -> Option<Vec<u8>> {
        loop {
            let end = memchr::memchr(b'\n', &self.buffer[self.searched..]);
            let piece = match end.map(|at| self.searched + at) {
                Some(at) if at <= self.limit => self.take(at),
                _ if self.buffer.len() > self.limit => {
                    self.searched = 0;
                    let piece = self.buffer[..self.limit].to_vec();
                    self.buffer.advance(self.limit);
                    piece
                }
                _ => {
                    self.searched = self.buffer.len();
                    return None;
                }
            };
            if !piece.iter().all(u8::is_ascii_whitespace) {
                return Some(piece);
            }
        }
    }

    /// What is left when nothing more comes, if it is not blank.
    pub(crate) fn rest(&mut self) -> Option<Vec<u8>> {
        let rest = self.buffer.split().to_vec();
        self.searched = 0;
        (!rest.iter().all(u8::is_ascii_whitespace)).then_some(rest)
    }

    fn take(&mut self, len: usize) -> Vec<u8> {
        let line = &self.buffer[..len];
        let line = line.strip_suffix(b"\r").unwrap_or(line).to_vec();
        self.buffer.advance(len + 1);
        self.searched = 0;
        release(&mut self.buffer);
        line
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(lines: &mut Lines) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| lines.next().expect("short lines")).collect()
    }

    #[test]
    fn blank_lines_are_skipped_and_carriage_returns_taken_off() {
        let mut lines = Lines::new(10);
        lines.push(b"a\r\n\n \r\nb\nc");
        assert_eq!(all(&mut lines), [b"a", b"b"]);
        assert_eq!(lines.rest().as_deref(), Some(&b"c"[..]));
        assert_eq!(lines.rest(), None);
    }

    #[test]
    fn a_line_above_the_limit_is_told_before_it_is_whole() {
        let mut lines = Lines::new(3);
        lines.push(b"abc\nabcd");
        assert_eq!(lines.next(), Ok(Some(b"abc".to_vec())));
        assert_eq!(lines.next(), Err(TooLong));
        let mut lines = Lines::new(3);
        lines.push(b"abcd\n");
        assert_eq!(lines.next(), Err(TooLong));
    }

    #[test]
    fn a_line_above_the_limit_can_be_had_in_pieces_and_the_others_whole() {
        let mut lines = Lines::new(4);
        lines.push(b"ab");
        assert_eq!(lines.piece(), None);
        lines.push(b"cdefghij\nkl\n\nmnop\nq");
        let pieces: Vec<_> = std::iter::from_fn(|| lines.piece()).collect();
        assert_eq!(pieces, [&b"abcd"[..], b"efgh", b"ij", b"kl", b"mnop"]);
        lines.push(b"rstu");
        assert_eq!(lines.piece().as_deref(), Some(&b"qrst"[..]));
        assert_eq!(lines.rest().as_deref(), Some(&b"u"[..]));
    }

    #[test]
    fn the_room_of_a_large_line_is_given_back() {
        let mut lines = Lines::new(usize::MAX);
        lines.push(&[b'x'; 4 << 20]);
        lines.push(b"\n");
        assert_eq!(all(&mut lines).len(), 1);
        assert!(!lines.buffer.try_reclaim(KEPT + 1));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(
            text in prop::collection::vec("[a-c]{0,5}\r?", 0..20),
            cuts in prop::collection::vec(0usize..80, 0..10),
        ) {
            let whole: Vec<u8> = text.iter().flat_map(|l| format!("{l}\n").into_bytes()).collect();
            let mut at_once = Lines::new(100);
            at_once.push(&whole);
            let mut in_pieces = Lines::new(100);
            let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.min(&whole.len()).to_owned()).collect();
            cuts.extend([0, whole.len()]);
            cuts.sort_unstable();
            let mut got = Vec::new();
            for pair in cuts.windows(2) {
                in_pieces.push(&whole[pair[0]..pair[1]]);
                got.extend(all(&mut in_pieces));
            }
            prop_assert_eq!(got, all(&mut at_once));
        }
    }
}
