//! The cookie that carries a token: found in a request, taken out of it, set on a response.
//!
//! Knows nothing of what the value means. Other cookies pass byte for byte.

use std::ops::Range;

use ::cookie::{Cookie, SameSite as CookieSameSite};
use http::header::{CACHE_CONTROL, COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::affinity::Rejection;
use crate::config::types::{AffinityCookie, SameSite, Secure};

/// A carrier's value, which outlives its removal from the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    line: HeaderValue,
    place: Range<usize>,
}

impl Value {
    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.line.as_bytes()[self.place.clone()]
    }
}

/// Finds the cookie `name`. With `strip` it is taken out of the fields that are passed on.
///
/// A client with two cookies of that name (set for two paths or domains) says nothing clear, and
/// the order in which they come is not to be relied upon (RFC 6265bis section 5.8.3).
pub fn find(headers: &mut HeaderMap, name: &str, strip: bool) -> Result<Option<Value>, Rejection> {
    let (mut found, mut alone) = (Ok(None), true);
    for line in headers.get_all(COOKIE) {
        for pair in pairs(line.as_bytes()) {
            let Some(place) = value_of(line.as_bytes(), pair, name) else {
                alone = false;
                continue;
            };
            found = match found {
                Ok(None) => Ok(Some(Value { line: line.clone(), place })),
                Ok(Some(_)) | Err(_) => Err(Rejection::Duplicated),
            };
        }
    }
    if strip && !matches!(found, Ok(None)) {
        match alone {
            true => drop(headers.remove(COOKIE)),
            false => remove(headers, name),
        }
    }
    found
}

/// Where the pairs of a line stand, with the blanks around them.
fn pairs(line: &[u8]) -> impl Iterator<Item = Range<usize>> {
    let ends = memchr::memchr_iter(b';', line).chain([line.len()]);
    ends.scan(0, |next, end| {
        let start = std::mem::replace(next, end + 1);
        Some(start..end)
    })
}

/// Where the value stands if the pair is `name=value`; cookie names are case-sensitive.
fn value_of(line: &[u8], pair: Range<usize>, name: &str) -> Option<Range<usize>> {
    let text = line[pair.clone()].trim_ascii_start();
    let value = text.strip_prefix(name.as_bytes())?.strip_prefix(b"=")?;
    let start = pair.end - value.len();
    Some(start..start + value.trim_ascii_end().len())
}

fn remove(headers: &mut HeaderMap, name: &str) {
    let lines: Vec<HeaderValue> = headers.get_all(COOKIE).iter().cloned().collect();
    headers.remove(COOKIE);
    for line in lines {
        let line = line.as_bytes();
        let kept = pairs(line).filter(|pair| value_of(line, pair.clone(), name).is_none());
        let kept: Vec<&[u8]> = kept.map(|pair| &line[pair]).collect();
        let rest = kept.join(&b';');
        if let (false, Ok(rest)) =
            (rest.trim_ascii().is_empty(), HeaderValue::from_bytes(rest.trim_ascii_start()))
        {
            headers.append(COOKIE, rest);
        }
    }
}

/// The `Set-Cookie` value that carries `value`; `https` is how the client came.
pub fn set(cookie: &AffinityCookie, value: String, https: bool) -> HeaderValue {
    let mut built = Cookie::build((cookie.name.as_str(), value))
        .path(cookie.path.as_str())
        .http_only(cookie.http_only)
        .partitioned(cookie.partitioned)
        .same_site(match cookie.same_site {
            SameSite::Strict => CookieSameSite::Strict,
            SameSite::Lax => CookieSameSite::Lax,
            SameSite::None => CookieSameSite::None,
        })
        .secure(match cookie.secure {
            Secure::Auto => https,
            Secure::Always => true,
            Secure::Never => false,
        });
    if let Some(domain) = &cookie.domain {
        built = built.domain(domain.as_str());
    }
    if let Some(max_age) = cookie.max_age {
        let seconds = i64::try_from(max_age.as_secs()).unwrap_or(i64::MAX);
        built = built.max_age(::cookie::time::Duration::seconds(seconds));
    }
    HeaderValue::try_from(built.build().to_string())
        .expect("config allows only header-safe attributes, and a token is base64url")
}

/// Puts `set_cookie` on a response and keeps shared caches from handing it to other clients.
///
/// RFC 9111 section 3: a shared cache may store any answer with a heuristically cacheable status;
/// `private` (5.2.2.7) forbids it. An answer that is already private or not stored is left alone.
pub fn attach(headers: &mut HeaderMap, set_cookie: HeaderValue) {
    headers.append(SET_COOKIE, set_cookie);
    let guarded = directives_of(headers).any(|directive| {
        directive.eq_ignore_ascii_case(b"private") || directive.eq_ignore_ascii_case(b"no-store")
    });
    if guarded {
        return;
    }
    // `public` contradicts it, and a cache may believe whichever it reads first.
    let kept: Vec<&[u8]> = directives_of(headers)
        .filter(|directive| !directive.eq_ignore_ascii_case(b"public") && !directive.is_empty())
        .chain([&b"private"[..]])
        .collect();
    let joined = HeaderValue::from_bytes(&kept.join(&b", "[..]));
    headers.insert(CACHE_CONTROL, joined.unwrap_or(HeaderValue::from_static("private")));
}

fn directives_of(headers: &HeaderMap) -> impl Iterator<Item = &[u8]> {
    headers
        .get_all(CACHE_CONTROL)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(COOKIE, HeaderValue::from_str(line).unwrap());
        }
        headers
    }

    fn cookies(headers: &HeaderMap) -> Vec<&str> {
        headers.get_all(COOKIE).iter().map(|line| line.to_str().unwrap()).collect()
    }

    #[test]
    fn it_is_found_and_taken_out_and_the_rest_stays_byte_for_byte() {
        let table: &[(&[&str], Option<&str>, &[&str])] = &[
            (&["BURDOCK=x"], Some("x"), &[]),
            (&["a=1; BURDOCK=x; b=2"], Some("x"), &["a=1; b=2"]),
            (&["BURDOCK=x; b=\"q;\"; c"], Some("x"), &["b=\"q;\"; c"]),
            (&["a=1", "BURDOCK=x", "b=2"], Some("x"), &["a=1", "b=2"]),
            (&["a=1;  burdock=x;XBURDOCK=y"], None, &["a=1;  burdock=x;XBURDOCK=y"]),
            (&["a=BURDOCK=x"], None, &["a=BURDOCK=x"]),
            (&["BURDOCK="], Some(""), &[]),
        ];
        for (lines, value, rest) in table {
            let mut headers = headers(lines);
            let found = find(&mut headers, "BURDOCK", true).unwrap();
            assert_eq!(found.as_ref().map(Value::as_bytes), value.map(str::as_bytes), "{lines:?}");
            assert_eq!(cookies(&headers), *rest, "{lines:?}");
        }
    }

    #[test]
    fn a_cookie_that_comes_twice_is_rejected_and_both_are_taken_out() {
        for lines in [&["BURDOCK=x; a=1; BURDOCK=y"][..], &["BURDOCK=x; a=1", "BURDOCK=x"][..]] {
            let mut headers = headers(lines);
            assert_eq!(find(&mut headers, "BURDOCK", true).unwrap_err(), Rejection::Duplicated);
            assert_eq!(cookies(&headers), ["a=1"]);
        }
    }

    #[test]
    fn the_value_is_what_stands_between_the_separators() {
        for line in ["BURDOCK=x=y", "a=1; BURDOCK=x=y ;b=2", " BURDOCK=x=y", "a=1;BURDOCK=x=y"] {
            let found = find(&mut headers(&[line]), "BURDOCK", true).unwrap().unwrap();
            assert_eq!(found.as_bytes(), b"x=y", "{line:?}");
        }
        let empty = find(&mut headers(&["BURDOCK=; a=1"]), "BURDOCK", false).unwrap().unwrap();
        assert_eq!(empty.as_bytes(), b"");
    }

    #[test]
    fn attributes_are_those_of_the_configuration() {
        let plain = AffinityCookie::default();
        assert_eq!(set(&plain, "v".into(), false), "BURDOCK=v; HttpOnly; SameSite=Lax; Path=/");
        assert_eq!(
            set(&plain, "v".into(), true),
            "BURDOCK=v; HttpOnly; SameSite=Lax; Secure; Path=/"
        );
        let full = AffinityCookie {
            name: "S".into(),
            domain: Some("example.com".into()),
            path: "/app".into(),
            secure: Secure::Always,
            http_only: false,
            same_site: SameSite::None,
            partitioned: true,
            max_age: Some(Duration::from_secs(60)),
        };
        assert_eq!(
            set(&full, "v".into(), false),
            "S=v; SameSite=None; Partitioned; Secure; Path=/app; Domain=example.com; Max-Age=60"
        );
    }

    #[test]
    fn shared_caches_are_kept_away() {
        for (before, after) in [
            (None, Some("private")),
            (Some("max-age=60"), Some("max-age=60, private")),
            (Some("Public, max-age=60"), Some("max-age=60, private")),
            (Some("no-store"), Some("no-store")),
            (Some("max-age=1, Private"), Some("max-age=1, Private")),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(before) = before {
                headers.insert(CACHE_CONTROL, HeaderValue::from_static(before));
            }
            attach(&mut headers, HeaderValue::from_static("a=b"));
            let lines: Vec<_> =
                headers.get_all(CACHE_CONTROL).iter().map(|v| v.to_str().unwrap()).collect();
            assert_eq!(Some(lines.join("|").as_str()), after);
        }
    }
}
