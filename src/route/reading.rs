//! How instances may read a path. Most resolve its dot segments and undo its escapes; some take an escaped
//! slash for a slash, a backslash for one, or drop what stands behind a semicolon. What leads to a part of
//! a site by one reading must not come in by another. Pure; knows no routes.

use std::borrow::Cow;

/// An escaped slash parts segments.
const SLASH: u8 = 1;
/// So does a backslash (IIS).
const BACKSLASH: u8 = 2;
/// What stands behind a semicolon belongs to no segment (servlets).
const PARAMETERS: u8 = 4;
/// Slashes that follow each other are one before dot segments are resolved.
const MERGED: u8 = 8;

/// A path that instances read in several ways, and each of them. None if there is only one.
#[derive(Debug, Clone, Copy)]
pub struct Readings<'a> {
    path: &'a str,
    /// What it has that is read differently.
    present: u8,
}

impl<'a> Readings<'a> {
    /// Of a path.
    pub fn of(path: &'a str) -> Self {
        let bytes = path.as_bytes();
        let mut present = 0;
        if !path.starts_with('/') || is_plain(path) {
            return Self { path, present };
        }
        let has = |escape: &[u8; 3]| bytes.windows(3).any(|it| it.eq_ignore_ascii_case(escape));
        if has(b"%2f") {
            present |= SLASH;
        }
        if bytes.contains(&b'\\') || has(b"%5c") {
            present |= BACKSLASH;
        }
        if bytes.contains(&b';') || has(b"%3b") {
            present |= PARAMETERS;
        }
        if present != 0 || path.contains("//") {
            present |= MERGED;
        }
        Self { path, present }
    }

    /// Those that are not the one of [`plain`].
    pub fn others(self) -> impl Iterator<Item = String> {
        let all = (0..self.present).filter(move |it| it & !self.present == 0);
        all.map(move |reading| text(resolved(self.path, reading)))
    }
}

/// A path in the form in which it is compared: escapes undone, dot segments resolved (RFC 3986 section
/// 6.2.2), slashes that follow each other one; every byte that some instance takes for a slash is one, and
/// there are no parameters.
pub fn plain(path: &str) -> Cow<'_, str> {
    match is_plain(path) || !path.starts_with('/') {
        true => Cow::Borrowed(path),
        false => Cow::Owned(text(plain_bytes(path))),
    }
}

/// The same, before it is known to be text.
pub fn plain_bytes(path: &str) -> Vec<u8> {
    resolved(path, SLASH | BACKSLASH | PARAMETERS | MERGED)
}

/// Whether no reading of it has a dot segment.
pub fn is_tame(path: &str) -> bool {
    let may_have = path.contains('.') || path.contains('%');
    let mut is_dotted = false;
    if may_have {
        walked(path, SLASH | BACKSLASH | PARAMETERS, || is_dotted = true);
    }
    !is_dotted
}

/// Whether there is but one reading, which is the path as it is.
fn is_plain(path: &str) -> bool {
    let is_odd = |byte: u8| matches!(byte, b'%' | b';' | b'\\');
    !path.bytes().any(is_odd) && !path.contains("//") && !path.contains("/.")
}

fn text(path: Vec<u8>) -> String {
    String::from_utf8(path)
        .unwrap_or_else(|odd| String::from_utf8_lossy(odd.as_bytes()).into_owned())
}

/// A path by one reading, with what its dot segments mean done. `is_dotted` is told of each of them. One pass
/// and one buffer, since a client may send it long and odd.
fn walked(path: &str, reading: u8, mut is_dotted: impl FnMut()) -> Vec<u8> {
    let bytes = path.as_bytes();
    let mut text = Vec::with_capacity(bytes.len() + 1);
    // Where segments begin that are kept.
    let mut kept: Vec<usize> = Vec::new();
    let (mut start, mut is_parameter) = (0, false);
    let mut at = usize::from(path.starts_with('/'));
    text.push(b'/');
    loop {
        let raw = bytes.get(at).copied();
        let escaped = raw.and_then(|_| escape(bytes, at));
        let byte = escaped.or(raw);
        let parts = match byte {
            None => true,
            Some(b'/') => escaped.is_none() || reading & SLASH != 0,
            Some(b'\\') => reading & BACKSLASH != 0,
            Some(_) => false,
        };
        match byte {
            _ if parts => {
                match &text[start + 1..] {
                    b"" if reading & MERGED != 0 => text.truncate(start),
                    b"." => {
                        is_dotted();
                        text.truncate(start);
                    }
                    b".." => {
                        is_dotted();
                        text.truncate(kept.pop().unwrap_or_default());
                    }
                    _ => kept.push(start),
                }
                start = text.len();
                text.push(b'/');
                is_parameter = false;
            }
            Some(b';') if reading & PARAMETERS != 0 => is_parameter = true,
            _ if is_parameter => {}
            // As it is no slash, it must not look like one.
            Some(b'/') => text.extend_from_slice(b"%2F"),
            Some(byte) => text.push(byte),
            None => {}
        }
        if byte.is_none() {
            break;
        }
        at += if escaped.is_some() { 3 } else { 1 };
    }
    text.truncate(start);
    text
}

fn resolved(path: &str, reading: u8) -> Vec<u8> {
    let mut text = walked(path, reading, || {});
    while text.last() == Some(&b'/') {
        text.pop();
    }
    text.dedup_by(|next, before| (*next, *before) == (b'/', b'/'));
    if text.is_empty() {
        text.push(b'/');
    }
    text
}

/// The byte that is escaped here, if one is.
fn escape(path: &[u8], at: usize) -> Option<u8> {
    let digit = |at: usize| path.get(at).and_then(|byte| char::from(*byte).to_digit(16));
    let (high, low) = digit(at + 1).zip(digit(at + 2)).filter(|_| path[at] == b'%')?;
    // Two digits are a byte.
    u8::try_from(high * 16 + low).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_that_instances_read_alike_are_alike() {
        for (path, expected) in [
            ("/a/b/", "/a/b/"),
            ("*", "*"),
            ("/%61dmin/x", "/admin/x"),
            ("/%2561", "/%61"),
            ("/a%2fb", "/a/b"),
            ("//admin///x", "/admin/x"),
            ("/x/../admin", "/admin"),
            ("/x/%2e%2E/./admin", "/admin"),
            ("/../..", "/"),
            ("/a%", "/a%"),
            ("/a%4", "/a%4"),
            ("/a%zz", "/a%zz"),
            ("/caf%c3%a9", "/caf\u{e9}"),
            ("/.well-known/x", "/.well-known/x"),
            ("/admin;x=1/y;z", "/admin/y"),
            ("/;/admin", "/admin"),
            ("/x/..;/admin", "/admin"),
            ("/x/%2e.%3bq/admin", "/admin"),
            ("/x%5c..%5cadmin", "/admin"),
        ] {
            assert_eq!(plain(path), expected, "{path}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_read_in_both() {
        let others = |path| Readings::of(path).others().collect::<Vec<_>>();
        for path in ["/", "/a/b", "/a%20b", "/a/../b", "/caf%c3%a9", "*", "/.x", "/a%2e%2e/"] {
            assert_eq!(others(path), [""; 0], "{path}");
        }
        for (path, reading) in [
            ("/admin;x", "/admin;x"),
            ("/admin/..;/x", "/admin/..;/x"),
            ("/admin/..%2fx", "/admin/..%2Fx"),
            ("/a%5c..%5cb", "/a\\..\\b"),
            ("/admin//../x", "/admin/x"),
        ] {
            let found = others(path);
            assert!(found.iter().any(|it| it == reading), "{path}: {found:?}");
        }
        assert!(others(&"/%2f%5c;".repeat(100)).len() < 16);
    }

    #[test]
    fn only_dot_segments_are_not_tame() {
        for path in ["/v1...v2/x", "/a%2Fb", "/..x/%ff", "", "/", "/x;y", "/a%2e"] {
            assert!(is_tame(path), "{path}");
        }
        for path in ["/..", "/x/./y", "/%2e%2E/", "/..;/x", "/x%5c..", "/x%2f..%2f", "/.;x"] {
            assert!(!is_tame(path), "{path}");
        }
    }
}
