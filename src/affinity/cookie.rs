//! The cookie that carries a token: found in a request, taken out of it, set on a response.
//!
//! Knows nothing of what the value means. Other cookies pass byte for byte.

use std::ops::Range;
use std::time::Duration;

use ::cookie::{Cookie, SameSite as CookieSameSite};
use http::header::{COOKIE, HeaderMap, HeaderValue, SET_COOKIE};

use crate::affinity::Rejection;
use crate::config::types::{AffinityCookie, SameSite, Secure};

/// Cookies of one name that are looked at; each costs a token to open.
pub const MAX_VALUES: usize = 4;
/// What the name of a paired cookie ends with.
const PAIRED: &[u8] = b"_XS";

/// A carrier's value, which outlives its removal from the fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    line: HeaderValue,
    place: Range<usize>,
}

impl Value {
    /// A value that is all of a field.
    pub fn whole(line: HeaderValue) -> Self {
        Self { place: 0..line.len(), line }
    }

    /// The bytes as they came.
    pub fn as_bytes(&self) -> &[u8] {
        &self.line.as_bytes()[self.place.clone()]
    }
}

/// What one carrier holds: one value, or up to [`MAX_VALUES`] of cookies that share a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Values {
    first: Value,
    /// Nearly always empty, and then costs nothing.
    others: Vec<Value>,
}

impl Values {
    /// The value, where it is the only one.
    pub fn single(&self) -> Option<&Value> {
        self.others.is_empty().then_some(&self.first)
    }

    /// All of them, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = &Value> {
        std::iter::once(&self.first).chain(&self.others)
    }

    fn bounded(self) -> Result<Self, Rejection> {
        if self.others.len() < MAX_VALUES { Ok(self) } else { Err(Rejection::Duplicated) }
    }
}

impl From<Value> for Values {
    fn from(first: Value) -> Self {
        Self { first, others: Vec::new() }
    }
}

/// Finds the cookie `name`. With `strip` it is taken out of the fields that are passed on.
///
/// A client holds several of that name if they were set for different paths or domains: after the
/// configuration has changed, or because a site beside this one set one. They are all given, because
/// the order in which they come is not to be relied upon (RFC 6265bis section 5.8.3).
pub fn find(headers: &mut HeaderMap, name: &str, strip: bool) -> Result<Option<Values>, Rejection> {
    let (found, alone) = search(headers, name);
    if strip && found.is_some() {
        match alone {
            true => drop(headers.remove(COOKIE)),
            false => remove(headers, name),
        }
    }
    found.map(Values::bounded).transpose()
}

/// The same, and nothing is taken out.
pub fn peek(headers: &HeaderMap, name: &str) -> Result<Option<Values>, Rejection> {
    search(headers, name).0.map(Values::bounded).transpose()
}

/// What there is of that name, and whether there is nothing else.
fn search(headers: &HeaderMap, name: &str) -> (Option<Values>, bool) {
    let (mut found, mut alone): (Option<Values>, _) = (None, true);
    for line in headers.get_all(COOKIE) {
        for pair in pairs(line.as_bytes()) {
            let Some(place) = value_of(line.as_bytes(), pair, name) else {
                alone = false;
                continue;
            };
            let value = Value { line: line.clone(), place };
            match &mut found {
                None => found = Some(value.into()),
                // One too many tells that there are too many.
                Some(values) if values.others.len() < MAX_VALUES => values.others.push(value),
                Some(_) => {}
            }
        }
    }
    (found, alone)
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

/// Takes the cookie of this name, and the one that is paired with it, out of what an answer sets.
pub fn unset(headers: &mut HeaderMap, name: &str) {
    let is_ours = |line: &HeaderValue| {
        let line = line.as_bytes();
        let set = line.split(|byte| *byte == b'=').next().unwrap_or_default().trim_ascii();
        set.strip_suffix(PAIRED).unwrap_or(set) == name.as_bytes()
    };
    if !headers.get_all(SET_COOKIE).iter().any(is_ours) {
        return;
    }
    let lines: Vec<HeaderValue> = headers.get_all(SET_COOKIE).iter().cloned().collect();
    headers.remove(SET_COOKIE);
    for line in lines.into_iter().filter(|line| !is_ours(line)) {
        headers.append(SET_COOKIE, line);
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

/// The `Set-Cookie` value that makes a browser forget the cookie: it has all its attributes, else it
/// would be another cookie (RFC 6265bis section 5.7).
pub fn expire(cookie: &AffinityCookie, https: bool) -> HeaderValue {
    let expired = AffinityCookie { max_age: Some(Duration::ZERO), ..cookie.clone() };
    set(&expired, String::new(), https)
}

/// What the cookie is called that is paired with `name` for use by pages of other sites.
pub fn paired_name(name: &str) -> String {
    format!("{name}_XS")
}

/// The paired cookie. A browser sends it where the page is of another site, in a jar of that site's
/// own (CHIPS), for which it must be `SameSite=None; Secure; Partitioned`.
pub fn paired(cookie: &AffinityCookie) -> AffinityCookie {
    AffinityCookie {
        name: paired_name(&cookie.name),
        secure: Secure::Always,
        same_site: SameSite::None,
        partitioned: true,
        ..cookie.clone()
    }
}

/// Whether a browser takes the paired cookie from an answer; `https` is how the client came.
pub fn may_pair(cookie: &AffinityCookie, https: bool) -> bool {
    https || cookie.secure == Secure::Always
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn an_instance_cannot_set_the_cookies_of_the_token() {
        let mut headers = HeaderMap::new();
        unset(&mut headers, "B");
        for line in ["B=forged", "app=1; Path=/", " B_XS =forged", "BB=2", "b=3", "B"] {
            headers.append(SET_COOKIE, HeaderValue::from_static(line));
        }
        unset(&mut headers, "B");
        let left: Vec<_> = headers.get_all(SET_COOKIE).iter().collect();
        assert_eq!(left, ["app=1; Path=/", "BB=2", "b=3"]);
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
            let found = found.as_ref().and_then(Values::single).map(Value::as_bytes);
            assert_eq!(found, value.map(str::as_bytes), "{lines:?}");
            assert_eq!(cookies(&headers), *rest, "{lines:?}");
        }
    }

    #[test]
    fn up_to_four_of_a_name_are_found_and_all_are_taken_out_however_many() {
        for lines in [&["B=1; a=1; B=2; B=3"][..], &["B=1; a=1", "B=2", " B=3"][..]] {
            let mut headers = headers(lines);
            let found = find(&mut headers, "B", true).unwrap().unwrap();
            let found: Vec<_> = found.iter().map(Value::as_bytes).collect();
            assert_eq!(found, [b"1", b"2", b"3"]);
            assert_eq!(cookies(&headers), ["a=1"]);
        }
        for (count, expected) in [(4, Ok(4)), (5, Err(Rejection::Duplicated))] {
            let mut headers = headers(&[&format!("a=1{}", "; B=x".repeat(count))]);
            let found = find(&mut headers, "B", true);
            assert_eq!(found.map(|values| values.unwrap().iter().count()), expected);
            assert_eq!(cookies(&headers), ["a=1"]);
        }
        let mut headers = headers(&["B=x; ".repeat(10_000).as_str()]);
        assert_eq!(find(&mut headers, "B", true), Err(Rejection::Duplicated));
    }

    #[test]
    fn the_value_is_what_stands_between_the_separators() {
        for line in ["BURDOCK=x=y", "a=1; BURDOCK=x=y ;b=2", " BURDOCK=x=y", "a=1;BURDOCK=x=y"] {
            let found = find(&mut headers(&[line]), "BURDOCK", true).unwrap().unwrap();
            assert_eq!(found.single().unwrap().as_bytes(), b"x=y", "{line:?}");
        }
        let empty = find(&mut headers(&["BURDOCK=; a=1"]), "BURDOCK", false).unwrap().unwrap();
        assert_eq!(empty.single().unwrap().as_bytes(), b"");
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
    fn a_cookie_expires_with_the_attributes_that_it_has() {
        let cookie = AffinityCookie {
            domain: Some("example.com".into()),
            path: "/app".into(),
            max_age: Some(Duration::from_secs(60)),
            ..AffinityCookie::default()
        };
        assert_eq!(
            expire(&cookie, true),
            "BURDOCK=; HttpOnly; SameSite=Lax; Secure; Path=/app; Domain=example.com; Max-Age=0"
        );
    }

    #[test]
    fn the_paired_cookie_is_for_other_sites_and_else_the_same() {
        let cookie = AffinityCookie {
            name: "__Host-S".into(),
            max_age: Some(Duration::from_secs(60)),
            ..AffinityCookie::default()
        };
        let told = set(&paired(&cookie), "v".into(), false);
        assert_eq!(
            told,
            "__Host-S_XS=v; HttpOnly; SameSite=None; Partitioned; Secure; Path=/; Max-Age=60"
        );
        assert!(may_pair(&cookie, true) && !may_pair(&cookie, false));
        assert!(may_pair(&AffinityCookie { secure: Secure::Always, ..cookie }, false));
    }
}
