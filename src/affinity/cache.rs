//! Keeps shared caches from handing one client's token to others.

use http::header::{CACHE_CONTROL, HeaderMap, HeaderName, HeaderValue};

/// Fields by which an answer speaks to a CDN alone, which then ignores `Cache-Control` (RFC 9213).
const TARGETED: [HeaderName; 2] =
    [HeaderName::from_static("cdn-cache-control"), HeaderName::from_static("surrogate-control")];

/// Forbids shared caches to store an answer that carries a token.
///
/// RFC 9111 section 3: a shared cache may store any answer with a heuristically cacheable status,
/// with its `Set-Cookie`; `private` (section 5.2.2.7) forbids it. An answer that is already private,
/// or not to be stored at all, is left alone.
pub fn guard(headers: &mut HeaderMap) {
    for name in &TARGETED {
        if headers.contains_key(name) {
            headers.remove(name);
        }
    }
    let directives: Vec<&[u8]> = headers
        .get_all(CACHE_CONTROL)
        .iter()
        .flat_map(|line| directives(line.as_bytes()))
        .collect();
    if directives.iter().any(|directive| forbids(directive)) {
        return;
    }
    let kept: Vec<&[u8]> = directives
        .into_iter()
        .filter(|directive| !contradicts(directive) && is_closed(directive))
        .chain([&b"private"[..]])
        .collect();
    let joined = HeaderValue::from_bytes(&kept.join(&b", "[..]));
    headers.insert(CACHE_CONTROL, joined.unwrap_or(HeaderValue::from_static("private")));
}

/// The directives of a line; a comma between quotes separates none.
fn directives(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut quotes = Quotes::default();
    let split = line.split(move |byte| {
        let ends = *byte == b',' && !quotes.open;
        quotes.pass(*byte);
        ends
    });
    split.map(<[u8]>::trim_ascii).filter(|directive| !directive.is_empty())
}

/// Whether its quotes end: those that don't would take in whatever is put behind them.
fn is_closed(directive: &[u8]) -> bool {
    let mut quotes = Quotes::default();
    directive.iter().for_each(|byte| quotes.pass(*byte));
    !quotes.open
}

/// Where a text stands that may hold quoted strings (RFC 9110 section 5.6.4).
#[derive(Default)]
struct Quotes {
    open: bool,
    escaped: bool,
}

impl Quotes {
    fn pass(&mut self, byte: u8) {
        if byte == b'"' && !self.escaped {
            self.open = !self.open;
        }
        self.escaped = byte == b'\\' && self.open && !self.escaped;
    }
}

/// Name and argument.
fn parts(directive: &[u8]) -> (&[u8], Option<&[u8]>) {
    match directive.iter().position(|byte| *byte == b'=') {
        Some(at) => (&directive[..at], Some(&directive[at + 1..])),
        None => (directive, None),
    }
}

/// `private` with an argument is about the fields that it names only.
fn forbids(directive: &[u8]) -> bool {
    let (name, argument) = parts(directive);
    name.eq_ignore_ascii_case(b"no-store")
        || (name.eq_ignore_ascii_case(b"private") && argument.is_none())
}

/// A cache may believe whichever of two it reads first; what only shared caches read has no use.
fn contradicts(directive: &[u8]) -> bool {
    let (name, _) = parts(directive);
    [&b"public"[..], b"s-maxage", b"private"].iter().any(|known| name.eq_ignore_ascii_case(known))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_caches_are_kept_away_and_nothing_stricter_is_weakened() {
        for (before, after) in [
            (&[][..], "private"),
            (&["max-age=60"], "max-age=60, private"),
            (&["Public, max-age=60"], "max-age=60, private"),
            (&["public", "s-maxage=9, max-age=60"], "max-age=60, private"),
            (&["no-cache"], "no-cache, private"),
            (&["no-store"], "no-store"),
            (&["No-Store, public"], "No-Store, public"),
            (&["max-age=1, Private"], "max-age=1, Private"),
            (&["private=\"x-a, private\", max-age=1"], "max-age=1, private"),
            (&["no-cache=\"set-cookie, no-store\""], "no-cache=\"set-cookie, no-store\", private"),
            (&["ext=\"a\\\"b, public\", public"], "ext=\"a\\\"b, public\", private"),
            (&[", ,"], "private"),
            (&["max-age=1, ext=\"a, b", "no-cache"], "max-age=1, no-cache, private"),
        ] {
            let mut headers = HeaderMap::new();
            for line in before {
                headers.append(CACHE_CONTROL, HeaderValue::from_static(line));
            }
            guard(&mut headers);
            let lines: Vec<_> =
                headers.get_all(CACHE_CONTROL).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(lines.join("|"), after, "{before:?}");
        }
    }

    #[test]
    fn what_is_said_to_a_cdn_alone_does_not_override_it() {
        let mut headers = HeaderMap::new();
        headers.insert("cdn-cache-control", HeaderValue::from_static("max-age=60"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        guard(&mut headers);
        assert_eq!(headers.len(), 1);
    }
}
