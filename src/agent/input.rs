//! Lines of an agent's input. Other than those of a bus, blank ones count.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt};

/// What is read at once.
const CHUNK: usize = 64 << 10;

/// Splits a stream into lines.
#[derive(Debug)]
pub(super) struct Input<R> {
    reader: R,
    buffer: BytesMut,
    /// So much of it has no newline.
    searched: usize,
    limit: usize,
    /// In a line that was too long.
    skipping: bool,
    ended: bool,
}

/// One line.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// Without its end.
    Whole(BytesMut),
    /// It is longer than the limit.
    TooLong,
}

impl<R: AsyncRead + Unpin> Input<R> {
    /// Lines of at most so many bytes.
    pub(super) fn new(reader: R, limit: usize) -> Self {
        Self {
            reader,
            buffer: BytesMut::new(),
            searched: 0,
            limit,
            skipping: false,
            ended: false,
        }
    }

    /// The next one; the last one needs no newline. Cancel safe.
    pub(super) async fn next(&mut self) -> io::Result<Option<Line>> {
        loop {
            if let Some(line) = self.take() {
                return Ok(Some(line));
            }
            if self.ended {
                return Ok(None);
            }
            self.buffer.reserve(CHUNK);
            self.ended = self.reader.read_buf(&mut self.buffer).await? == 0;
        }
    }

    /// A line that is there already.
    fn take(&mut self) -> Option<Line> {
        loop {
            let newline = memchr::memchr(b'\n', &self.buffer[self.searched..]);
            let len = newline.map_or(self.buffer.len(), |at| self.searched + at);
            let too_long = len > self.limit;
            if newline.is_none() && !self.ended {
                if too_long || self.skipping {
                    // It is told now, and its rest is not kept.
                    self.buffer.clear();
                }
                self.searched = self.buffer.len();
                let first = too_long && !self.skipping;
                self.skipping |= too_long;
                return first.then_some(Line::TooLong);
            }
            if newline.is_none() && len == 0 {
                return None;
            }
            let mut line = self.buffer.split_to(len);
            self.searched = 0;
            if newline.is_some() {
                self.buffer.advance(1);
            }
            if std::mem::take(&mut self.skipping) {
                continue;
            }
            if too_long {
                return Some(Line::TooLong);
            }
            if line.last() == Some(&b'\r') {
                line.truncate(len - 1);
            }
            return Some(Line::Whole(line));
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn whole(text: &str) -> Line {
        Line::Whole(text.as_bytes().into())
    }

    /// What a limit of 5 makes of this, in pieces of so many bytes.
    fn lines(text: &str, piece: usize) -> Vec<Line> {
        let runtime = tokio::runtime::Builder::new_current_thread().build();
        runtime.expect("runtime").block_on(async {
            let (mut to, from) = tokio::io::duplex(piece);
            let mut input = Input::new(from, 5);
            let feed = async {
                tokio::io::AsyncWriteExt::write_all(&mut to, text.as_bytes())
                    .await
                    .expect("taken");
                drop(to);
            };
            let read = async {
                let mut lines = Vec::new();
                while let Some(line) = input.next().await.expect("readable") {
                    lines.push(line);
                }
                lines
            };
            tokio::join!(feed, read).1
        })
    }

    #[test]
    fn blank_lines_count_and_the_last_one_needs_no_end() {
        let text = "a\r\n\n\r\n b\r\r\nend";
        let expected = ["a", "", "", " b\r", "end"].map(whole);
        assert_eq!(lines(text, 100), expected);
        assert_eq!(lines("", 100), []);
        assert_eq!(lines("\n", 100), [whole("")]);
    }

    #[test]
    fn a_line_above_the_limit_is_told_once_and_skipped() {
        let text = "12345\n123456\nok\n123456789012\n\n1234567";
        let expected = [
            whole("12345"),
            Line::TooLong,
            whole("ok"),
            Line::TooLong,
            whole(""),
            Line::TooLong,
        ];
        for piece in [1, 2, 3, 7, 100] {
            assert_eq!(lines(text, piece), expected, "{piece}");
        }
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_lines(text in "[ab\r\n]{0,60}", piece in 1usize..20) {
            prop_assert_eq!(lines(&text, piece), lines(&text, 100));
        }
    }
}
