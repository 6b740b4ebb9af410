//! What becomes of a path behind a prefix: for instances another prefix, for clients another URL. Pure.

use std::borrow::Cow;
use std::fmt::Write;

use super::reading::{is_tame, plain_bytes};

/// What is left of `path` behind `prefix`, which covers it: empty, or begins with a slash. As it came, unless
/// it may lead out of where it is put; then as it is matched.
pub fn rest<'a>(path: &'a str, prefix: &str) -> Cow<'a, str> {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    let behind = |path: &'a str| path.strip_prefix(prefix).filter(|rest| begins(rest));
    if let Some(rest) = behind(path).filter(|rest| is_tame(rest)) {
        return Cow::Borrowed(rest);
    }
    let path = plain_bytes(path);
    let rest = path.strip_prefix(prefix.as_bytes());
    let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with(b"/"));
    Cow::Owned(encoded(rest.unwrap_or(&path)))
}

/// The path with `to` in the place of `prefix`.
pub fn rewritten(path: &str, prefix: &str, to: &str) -> String {
    let rest = rest(path, prefix);
    let to = to.strip_suffix('/').unwrap_or(to);
    match to.is_empty() && rest.is_empty() {
        true => "/".to_owned(),
        false => format!("{to}{rest}"),
    }
}

/// What a template may speak of.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// `http` or `https`.
    pub scheme: &'a str,
    /// Without a port.
    pub host: &'a str,
    /// As it came; begins with a slash.
    pub path: &'a str,
    /// What is left of it behind the prefix.
    pub rest: &'a str,
    /// Without its question mark, if there is one.
    pub query: Option<&'a str>,
}

/// A template of a redirect, filled in. What begins with a slash never comes to begin with two, which
/// would lead to another host.
pub fn filled(template: &str, told: Told<'_>) -> String {
    let (mut text, mut left) = (String::with_capacity(64), template);
    while let Some((before, after)) = left.split_once('{') {
        let (name, after) = after.split_once('}').unwrap_or((after, ""));
        text.push_str(before);
        match name {
            "scheme" => text.push_str(told.scheme),
            "host" => text.push_str(told.host),
            "path" => text.push_str(told.path),
            "rest" => text.push_str(told.rest),
            "query" => {
                let _ = told.query.map(|query| write!(text, "?{query}"));
            }
            _ => {}
        }
        left = after;
    }
    text.push_str(left);
    if text.starts_with(['/', '\\']) || text.is_empty() {
        return format!("/{}", text.trim_start_matches(['/', '\\']));
    }
    // A rest that is empty leaves what comes behind it.
    if template.starts_with('{') && !template.starts_with("{scheme}") {
        return format!("/{text}");
    }
    text
}

fn begins(rest: &str) -> bool {
    rest.is_empty() || rest.starts_with('/')
}

/// With escapes for all that can't stand in a path (RFC 3986 section 3.3).
fn encoded(path: &[u8]) -> String {
    let mut text = String::with_capacity(path.len());
    for byte in path.iter().copied() {
        if byte.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@".contains(&byte) {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_prefix_takes_the_place_of_the_one_that_matched() {
        for (path, prefix, to, expected) in [
            ("/api/v1/x", "/api", "/", "/v1/x"),
            ("/api/v1/x", "/api/", "/app/", "/app/v1/x"),
            ("/api", "/api", "/", "/"),
            ("/api", "/api", "/app", "/app"),
            ("/api/", "/api", "/app", "/app/"),
            ("/x", "/", "/app", "/app/x"),
            ("/", "/", "/app", "/app/"),
            // As it came where that is safe.
            ("/api/a%2fb%20c", "/api", "/app", "/app/a%2fb%20c"),
            ("/api//x", "/api", "/app", "/app//x"),
            // As it is matched where it is not.
            ("/api/x/../y", "/api", "/app", "/app/y"),
            ("/api/../api/x", "/api", "/app", "/app/x"),
            ("/x/..//%61pi/x%20y", "/api", "/app", "/app/x%20y"),
            ("/api/a%2f%2e%2E%2f..%2fapi%2fb", "/api", "/app", "/app/b"),
            ("/api/x%2f..%2f..%2fapi%2fz", "/api", "/app", "/app/z"),
            ("/api%2fx", "/api", "/app", "/app/x"),
            ("/caf%c3%a9/x", "/caf\u{e9}", "/", "/x"),
            ("/api/..x/caf%c3%a9", "/api", "/app", "/app/..x/caf%c3%a9"),
            ("/api/a%2Fb/compare/v1...v2", "/api", "/app", "/app/a%2Fb/compare/v1...v2"),
            ("/api/%ff%fe/x..y", "/api", "/app", "/app/%ff%fe/x..y"),
            ("/api/%ff/../%fe", "/api", "/app", "/app/%FE"),
            ("/api/x;v=1", "/api", "/app", "/app/x;v=1"),
            ("/api/..;/api/x", "/api", "/app", "/app/x"),
            ("/api/x%5c..%5cy", "/api", "/app", "/app/y"),
        ] {
            assert_eq!(rewritten(path, prefix, to), expected, "{path}");
            // Whatever reads it finds it below the new prefix.
            let read = super::super::reading::plain(&rewritten(path, prefix, to)).into_owned();
            assert!(super::super::covers(to.trim_end_matches('/'), &read), "{path}: {read}");
        }
    }

    #[test]
    fn templates_lead_where_their_author_says() {
        let told = |path, rest, query| Told { scheme: "http", host: "a.org", path, rest, query };
        for (template, path, rest, query, expected) in [
            ("https://new.org{path}{query}", "/a/b", "/b", Some("c=d"), "https://new.org/a/b?c=d"),
            ("https://{host}{path}", "/a", "", None, "https://a.org/a"),
            ("{scheme}://www.{host}/x{rest}{query}", "/a/b", "/b", None, "http://www.a.org/x/b"),
            ("/new{rest}", "/a", "", Some("q"), "/new"),
            ("{path}/", "/a", "", None, "/a/"),
            ("{rest}", "/a//evil.org", "//evil.org", None, "/evil.org"),
            ("{rest}", "/a", "", None, "/"),
            ("{rest}x", "/a", "", None, "/x"),
            ("{path}", "/\\evil.org", "", None, "/evil.org"),
            ("{path}", "//evil.org/%2f", "", None, "/evil.org/%2f"),
            ("{rest}", "/a/\\evil.org", "\\/evil.org", None, "/evil.org"),
            (
                "https://new.org{rest}",
                "/a//evil.org",
                "//evil.org",
                None,
                "https://new.org//evil.org",
            ),
        ] {
            assert_eq!(filled(template, told(path, rest, query)), expected, "{template} {path}");
        }
    }
}
