//! Where a request may carry its token, and in which order carriers are believed.
//!
//! What a client puts there itself comes first (header, query), then what its browser adds (cookie,
//! paired cookie): who chooses a token means that one. The paired cookie is last, because it stands
//! in for the other where that is not sent.

use http::Uri;
use http::header::{HeaderMap, HeaderValue};

use crate::affinity::cookie::{self, Value, Values};
use crate::affinity::{Rejection, query};
use crate::config::types::Affinity;

/// Where a token was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carrier {
    /// In a field.
    Header,
    /// In the query.
    Query,
    /// In a cookie.
    Cookie,
    /// In the cookie that is paired with it.
    PairedCookie,
}

impl Carrier {
    /// As an operator reads it.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Query => "query",
            Self::Cookie => "cookie",
            Self::PairedCookie => "paired cookie",
        }
    }
}

/// Takes what the carriers hold out of what the instance will see, and offers it to `believe` until
/// that honours one. Cookies stay if `affinity.pass_cookie` says so; without `has_cookies` there is
/// none to look for.
pub fn take(
    affinity: &Affinity,
    headers: &mut HeaderMap,
    target: &mut Uri,
    has_cookies: bool,
    mut believe: impl FnMut(Carrier, Result<Values, Rejection>) -> bool,
) {
    let mut honoured = false;
    let mut offer = |carrier, found: Option<Result<Values, Rejection>>| {
        honoured = honoured || found.is_some_and(|values| believe(carrier, values));
    };
    if let Some(name) = &affinity.header {
        offer(Carrier::Header, from_header(headers, name));
    }
    if let Some(name) = &affinity.query {
        offer(Carrier::Query, from_query(target, name));
    }
    if !has_cookies {
        return;
    }
    let strip = !affinity.pass_cookie;
    let found = cookie::find(headers, &affinity.cookie.name, strip);
    offer(Carrier::Cookie, found.transpose());
    if affinity.cross_site_cookie {
        let name = cookie::paired_name(&affinity.cookie.name);
        offer(Carrier::PairedCookie, cookie::find(headers, &name, strip).transpose());
    }
}

/// Offers what the carriers hold to `believe` until that honours one, and takes nothing out.
pub fn peek(
    affinity: &Affinity,
    headers: &HeaderMap,
    target: &Uri,
    mut believe: impl FnMut(Result<Values, Rejection>) -> bool,
) {
    let by_header = || affinity.header.as_ref().and_then(|name| in_header(headers, name));
    let by_query = || affinity.query.as_ref().and_then(|name| in_query(target, name));
    let by_cookie = || cookie::peek(headers, &affinity.cookie.name).transpose();
    let by_paired = || {
        let name =
            affinity.cross_site_cookie.then(|| cookie::paired_name(&affinity.cookie.name))?;
        cookie::peek(headers, &name).transpose()
    };
    let carriers: [&dyn Fn() -> Option<_>; 4] = [&by_header, &by_query, &by_cookie, &by_paired];
    let mut found = carriers.into_iter().filter_map(|carrier| carrier());
    let _ = found.any(&mut believe);
}

fn in_header(headers: &HeaderMap, name: &str) -> Option<Result<Values, Rejection>> {
    let mut lines = headers.get_all(name).iter();
    let (first, more) = (lines.next()?.clone(), lines.next().is_some());
    Some(if more { Err(Rejection::Duplicated) } else { Ok(Value::whole(first).into()) })
}

fn from_header(headers: &mut HeaderMap, name: &str) -> Option<Result<Values, Rejection>> {
    let found = in_header(headers, name)?;
    headers.remove(name);
    Some(found)
}

fn in_query(target: &Uri, name: &str) -> Option<Result<Values, Rejection>> {
    let mut values = query::values(target.query()?, name);
    let first = HeaderValue::from_str(values.next()?);
    Some(match values.next() {
        Some(_) => Err(Rejection::Duplicated),
        None => match first {
            Ok(first) => Ok(Value::whole(first).into()),
            Err(_not_a_token) => Err(Rejection::Malformed),
        },
    })
}

fn from_query(target: &mut Uri, name: &str) -> Option<Result<Values, Rejection>> {
    let found = in_query(target, name)?;
    *target = query::without(target, name)?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    type Text = Result<String, Rejection>;

    /// What is offered until `wanted` is.
    fn taken(
        affinity: &Affinity,
        headers: &mut HeaderMap,
        target: &mut Uri,
        wanted: &str,
    ) -> Vec<Text> {
        let mut offered = Vec::new();
        take(affinity, headers, target, true, |_, values| {
            offered.push(values.map(|values| {
                let texts = values.iter().map(|it| std::str::from_utf8(it.as_bytes()).unwrap());
                texts.collect::<Vec<_>>().join("+")
            }));
            offered.last() == Some(&Ok(wanted.to_owned()))
        });
        offered
    }

    #[test]
    fn every_carrier_is_found_in_its_order_and_taken_out() {
        let affinity = Affinity {
            header: Some("x-s".into()),
            query: Some("s".into()),
            cross_site_cookie: true,
            ..Affinity::default()
        };
        let all = ["h", "q", "c", "x"].map(|text| Ok(text.to_owned()));
        for (wanted, offered) in [("", &all[..]), ("h", &all[..1]), ("c", &all[..3])] {
            let mut headers = HeaderMap::new();
            headers.insert("x-s", HeaderValue::from_static("h"));
            headers.insert(COOKIE, HeaderValue::from_static("BURDOCK_XS=x; a=1; BURDOCK=c"));
            let mut target: Uri = "/p?a=1&s=q".parse().unwrap();
            assert_eq!(taken(&affinity, &mut headers, &mut target, wanted), offered);
            assert_eq!((target.to_string().as_str(), headers.len()), ("/p?a=1", 1), "all the same");
            assert_eq!(headers[COOKIE], "a=1");
        }
    }

    #[test]
    fn what_is_not_configured_is_neither_found_nor_touched() {
        let mut headers = HeaderMap::new();
        headers.insert("x-s", HeaderValue::from_static("h"));
        headers.insert(COOKIE, HeaderValue::from_static("BURDOCK_XS=x"));
        let mut target: Uri = "/p?s=q".parse().unwrap();
        assert!(taken(&Affinity::default(), &mut headers, &mut target, "").is_empty());
        assert_eq!((target.to_string().as_str(), headers.len()), ("/p?s=q", 2));
    }

    #[test]
    fn a_field_or_parameter_that_comes_twice_says_nothing_clear() {
        let affinity =
            Affinity { header: Some("x-s".into()), query: Some("s".into()), ..Affinity::default() };
        let mut headers = HeaderMap::new();
        headers.append("x-s", HeaderValue::from_static("h"));
        headers.append("x-s", HeaderValue::from_static("h"));
        let mut target: Uri = "/p?s=q&s=q".parse().unwrap();
        let offered = taken(&affinity, &mut headers, &mut target, "");
        assert_eq!(offered, [const { Err(Rejection::Duplicated) }; 2]);
        assert_eq!((target.to_string().as_str(), headers.len()), ("/p", 0));
    }

    #[test]
    fn cookies_of_one_name_are_offered_together() {
        let affinity = Affinity { cross_site_cookie: true, ..Affinity::default() };
        let mut headers = HeaderMap::new();
        let line = HeaderValue::from_static("BURDOCK=c; BURDOCK_XS=x; BURDOCK=d");
        headers.insert(COOKIE, line);
        let offered = taken(&affinity, &mut headers, &mut Uri::from_static("/"), "");
        assert_eq!(offered, ["c+d", "x"].map(|text| Ok(text.to_owned())));
    }
}
