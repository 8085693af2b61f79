//! The echo worker: it answers each request with its params.
//!
//! It reads as much as is there and answers it at once, so that it costs the bus
//! under test as little as a worker can. Calls of "hold" it doesn't answer.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::process::ExitCode;

use memchr::{memchr, memchr2};

const CHUNK: usize = 256 << 10;

pub(crate) fn run() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => crate::fail(format_args!("echo worker: {error}")),
    }
}

fn serve() -> io::Result<()> {
    // Without the buffers and locks of the standard streams.
    let mut from = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    let mut to = File::from(io::stdout().as_fd().try_clone_to_owned()?);
    let mut input = vec![0; CHUNK];
    let (mut filled, mut searched) = (0, 0);
    let mut output = Vec::with_capacity(2 * CHUNK);
    loop {
        if filled == input.len() {
            input.resize(2 * filled, 0);
        }
        let n = match from.read(&mut input[filled..]) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        filled += n;
        let mut taken = 0;
        while let Some(at) = memchr(b'\n', &input[searched..filled]) {
            let end = searched + at;
            answer(&input[taken..end], &mut output);
            (taken, searched) = (end + 1, end + 1);
            if output.len() >= CHUNK {
                to.write_all(&output)?;
                output.clear();
            }
        }
        to.write_all(&output)?;
        output.clear();
        input.copy_within(taken..filled, 0);
        filled -= taken;
        searched = filled;
    }
}

/// Nothing is said to what is no request.
fn answer(line: &[u8], output: &mut Vec<u8>) {
    let Some(Members {
        id: Some(id),
        method: Some(method),
        session,
        params,
    }) = members(line)
    else {
        return;
    };
    if method == b"\"hold\"" {
        return;
    }
    output.extend_from_slice(b"{\"jsonrpc\":\"2.0\",\"id\":");
    output.extend_from_slice(id);
    if let Some(session) = session {
        output.extend_from_slice(b",\"sessionId\":");
        output.extend_from_slice(session);
    }
    output.extend_from_slice(b",\"result\":");
    output.extend_from_slice(params.unwrap_or(b"null"));
    output.extend_from_slice(b"}\n");
}

/// Members of a message, as they are written.
#[derive(Default)]
struct Members<'a> {
    id: Option<&'a [u8]>,
    method: Option<&'a [u8]>,
    session: Option<&'a [u8]>,
    params: Option<&'a [u8]>,
}

/// The members at the root. The bus has checked that the line is an object, so
/// this only finds its way.
fn members(line: &[u8]) -> Option<Members<'_>> {
    let mut found = Members::default();
    let mut at = space(line, 0) + 1;
    loop {
        at = space(line, at);
        match line.get(at)? {
            b'}' => return Some(found),
            b',' => {
                at += 1;
                continue;
            }
            b'"' => {}
            _ => return None,
        }
        let key = at..string(line, at)?;
        let value = space(line, space(line, key.end) + 1);
        at = end_of(line, value)?;
        let text = Some(&line[value..at]);
        match &line[key] {
            b"\"id\"" => found.id = text,
            b"\"method\"" => found.method = text,
            b"\"sessionId\"" => found.session = text,
            b"\"params\"" => found.params = text,
            _ => {}
        }
    }
}

fn space(line: &[u8], at: usize) -> usize {
    let rest = line.get(at..).unwrap_or_default();
    at + rest.iter().take_while(|b| b.is_ascii_whitespace()).count()
}

/// One past the string that begins at `at`.
fn string(line: &[u8], at: usize) -> Option<usize> {
    let mut at = at + 1;
    loop {
        at += memchr2(b'"', b'\\', line.get(at..)?)?;
        if line[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// One past the value that begins at `at`.
fn end_of(line: &[u8], at: usize) -> Option<usize> {
    match line.get(at)? {
        b'"' => string(line, at),
        b'{' | b'[' => bracket(line, at),
        _ => {
            let ends = |b: &u8| matches!(b, b',' | b'}') || b.is_ascii_whitespace();
            Some(at + line[at..].iter().position(ends)?)
        }
    }
}

/// One past the bracket that closes the one at `at`.
fn bracket(line: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0usize;
    loop {
        match line.get(at)? {
            b'"' => {
                at = string(line, at)?;
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return Some(at + 1);
                }
            }
            _ => {}
        }
        at += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(line: &str) -> String {
        let mut output = Vec::new();
        answer(line.as_bytes(), &mut output);
        String::from_utf8(output).expect("text")
    }

    #[test]
    fn params_come_back_byte_for_byte() {
        let params = r#"{"a":[1,{"b":"]}\"\\"}],"c":" , ","d":1.50}"#;
        let line = format!(
            r#" {{ "jsonrpc":"2.0", "params": {params} ,"id":"x","method":"m","sessionId":"s"}}"#
        );
        let wanted = format!(
            "{}{params}}}\n",
            r#"{"jsonrpc":"2.0","id":"x","sessionId":"s","result":"#
        );
        assert_eq!(answered(&line), wanted);
        assert_eq!(
            answered(r#"{"id":7,"method":"m"}"#),
            "{\"jsonrpc\":\"2.0\",\"id\":7,\"result\":null}\n"
        );
    }

    #[test]
    fn what_needs_no_answer_gets_none() {
        for line in [
            r#"{"method":"m"}"#,
            r#"{"id":1,"result":{}}"#,
            r#"{"id":1,"method":"hold","params":{}}"#,
            r#"{"id":1,"method":"#,
            "{",
            "",
            "[]",
        ] {
            assert_eq!(answered(line), "", "{line}");
        }
    }
}
