//! Where a request may carry its token, and in which order carriers are believed.
//!
//! What a client puts there itself comes first (header, query), then what its browser adds (cookie,
//! paired cookie): who chooses a token means that one. The paired cookie is last, because it stands
//! in for the other where that is not sent.

use http::Uri;
use http::header::{HeaderMap, HeaderValue};

use crate::affinity::cookie::{self, Value};
use crate::affinity::{Rejection, query};
use crate::config::types::Affinity;

/// Carriers of one request.
const CARRIERS: usize = 4;

/// What each carrier of a request holds, in the order in which they are believed.
pub type Found = [Option<Result<Value, Rejection>>; CARRIERS];

/// Finds what the carriers hold, and takes them out of what the instance will see; cookies stay if
/// `affinity.pass_cookie` says so. Without `has_cookies` there is no cookie to look for.
pub fn take(
    affinity: &Affinity,
    headers: &mut HeaderMap,
    target: &mut Uri,
    has_cookies: bool,
) -> Found {
    let header = affinity.header.as_deref().and_then(|name| from_header(headers, name));
    let query = affinity.query.as_deref().and_then(|name| from_query(target, name));
    if !has_cookies {
        return [header, query, None, None];
    }
    let strip = !affinity.pass_cookie;
    let cookie = cookie::find(headers, &affinity.cookie.name, strip).transpose();
    let paired = affinity.cross_site_cookie.then(|| {
        cookie::find(headers, &cookie::paired_name(&affinity.cookie.name), strip).transpose()
    });
    [header, query, cookie, paired.flatten()]
}

fn from_header(headers: &mut HeaderMap, name: &str) -> Option<Result<Value, Rejection>> {
    let mut lines = headers.get_all(name).iter();
    let (first, more) = (lines.next()?.clone(), lines.next().is_some());
    headers.remove(name);
    Some(if more { Err(Rejection::Duplicated) } else { Ok(Value::whole(first)) })
}

fn from_query(target: &mut Uri, name: &str) -> Option<Result<Value, Rejection>> {
    let found = {
        let mut values = query::values(target.query()?, name);
        let first = HeaderValue::from_str(values.next()?);
        match values.next() {
            Some(_) => Err(Rejection::Duplicated),
            None => first.map(Value::whole).map_err(|_not_a_token| Rejection::Malformed),
        }
    };
    *target = query::without(target, name)?;
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::COOKIE;

    type Texts = [Option<Result<String, Rejection>>; CARRIERS];

    fn texts(found: Found) -> Texts {
        found.map(|value| {
            value.map(|value| value.map(|v| String::from_utf8(v.as_bytes().to_vec()).unwrap()))
        })
    }

    #[test]
    fn every_carrier_is_found_in_its_order_and_taken_out() {
        let affinity = Affinity {
            header: Some("x-s".into()),
            query: Some("s".into()),
            cross_site_cookie: true,
            ..Affinity::default()
        };
        let mut headers = HeaderMap::new();
        headers.insert("x-s", HeaderValue::from_static("h"));
        headers.insert(COOKIE, HeaderValue::from_static("BURDOCK_XS=x; a=1; BURDOCK=c"));
        let mut target: Uri = "/p?a=1&s=q".parse().unwrap();
        let found = texts(take(&affinity, &mut headers, &mut target, true));
        assert_eq!(found, ["h", "q", "c", "x"].map(|text| Some(Ok(text.to_owned()))));
        assert_eq!(target, "/p?a=1");
        assert_eq!(headers.len(), 1);
        assert_eq!(headers[COOKIE], "a=1");
    }

    #[test]
    fn what_is_not_configured_is_neither_found_nor_touched() {
        let mut headers = HeaderMap::new();
        headers.insert("x-s", HeaderValue::from_static("h"));
        headers.insert(COOKIE, HeaderValue::from_static("BURDOCK_XS=x"));
        let mut target: Uri = "/p?s=q".parse().unwrap();
        let found = texts(take(&Affinity::default(), &mut headers, &mut target, true));
        assert_eq!(found, [const { None }; CARRIERS]);
        assert_eq!((target.to_string().as_str(), headers.len()), ("/p?s=q", 2));
    }

    #[test]
    fn a_carrier_that_comes_twice_says_nothing_clear() {
        let affinity =
            Affinity { header: Some("x-s".into()), query: Some("s".into()), ..Affinity::default() };
        let mut headers = HeaderMap::new();
        headers.append("x-s", HeaderValue::from_static("h"));
        headers.append("x-s", HeaderValue::from_static("h"));
        let mut target: Uri = "/p?s=q&s=q".parse().unwrap();
        let found = texts(take(&affinity, &mut headers, &mut target, false));
        let twice = Some(Err(Rejection::Duplicated));
        assert_eq!(found, [twice.clone(), twice, None, None]);
        assert_eq!((target.to_string().as_str(), headers.len()), ("/p", 0));
    }
}
