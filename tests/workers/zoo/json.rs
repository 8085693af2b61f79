//! As much JSON as an echo needs.

pub type Members<'a> = Vec<(&'a [u8], &'a [u8])>;

/// The members of the object in `text`: names without their quotes, values as they are written.
pub fn members(text: &[u8]) -> Option<Members<'_>> {
    let mut members = Vec::new();
    let mut at = blanks(text, 0);
    if text.get(at) != Some(&b'{') {
        return None;
    }
    at = blanks(text, at + 1);
    while *text.get(at)? == b'"' {
        let name_end = string_end(text, at)?;
        let name = &text[at + 1..name_end - 1];
        at = blanks(text, name_end);
        if *text.get(at)? != b':' {
            return None;
        }
        at = blanks(text, at + 1);
        let value_end = value_end(text, at)?;
        members.push((name, &text[at..value_end]));
        at = blanks(text, value_end);
        if *text.get(at)? == b',' {
            at = blanks(text, at + 1);
        }
    }
    (text[at] == b'}').then_some(members)
}

/// The elements of the array in `text`, as they are written.
pub fn elements(text: &[u8]) -> Vec<&[u8]> {
    let mut elements = Vec::new();
    let mut at = blanks(text, 1);
    while let Some(end) = value_end(text, at).filter(|end| *end > at) {
        elements.push(&text[at..end]);
        at = blanks(text, end);
        if text.get(at) != Some(&b',') {
            break;
        }
        at = blanks(text, at + 1);
    }
    elements
}

pub fn get<'a>(members: &Members<'a>, name: &str) -> Option<&'a [u8]> {
    members
        .iter()
        .find(|(key, _)| *key == name.as_bytes())
        .map(|(_, value)| *value)
}

/// `text` as a JSON string token.
pub fn string(text: &str) -> Vec<u8> {
    let mut token = String::with_capacity(text.len() + 2);
    token.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => token.extend(['\\', c]),
            c if c < ' ' => token.push_str(&format!("\\u{:04x}", c as u32)),
            c => token.push(c),
        }
    }
    token.push('"');
    token.into_bytes()
}

fn blanks(text: &[u8], mut at: usize) -> usize {
    while text.get(at).is_some_and(u8::is_ascii_whitespace) {
        at += 1;
    }
    at
}

/// The position after the string that starts at `at`.
fn string_end(text: &[u8], mut at: usize) -> Option<usize> {
    at += 1;
    loop {
        at += text
            .get(at..)?
            .iter()
            .position(|c| matches!(c, b'"' | b'\\'))?;
        if text[at] == b'"' {
            return Some(at + 1);
        }
        at += 2;
    }
}

/// The position after the value that starts at `at`.
fn value_end(text: &[u8], mut at: usize) -> Option<usize> {
    let mut depth = 0;
    loop {
        match *text.get(at)? {
            b'"' => at = string_end(text, at)?,
            b'{' | b'[' => (depth, at) = (depth + 1, at + 1),
            b'}' | b']' => (depth, at) = (depth - 1, at + 1),
            _ if depth > 0 => at += 1,
            _ => {
                let ends = |c: &u8| c.is_ascii_whitespace() || b",}]".contains(c);
                return Some(at + text[at..].iter().position(ends)?);
            }
        }
        if depth == 0 {
            return Some(at);
        }
    }
}
