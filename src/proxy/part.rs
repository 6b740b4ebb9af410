//! What is done to the requests of a part of a service: they are sent elsewhere, or get to instances with
//! another path and other fields.

use http::header::{HeaderMap, HeaderValue};
use http::uri::PathAndQuery;
use http::{StatusCode, Uri, request};

use crate::config::types::{Edits, Redirect};
use crate::proxy::error::Reason;
use crate::route::rewrite::{self, Told};

/// Where a client is sent that asks for this under `prefix`.
pub fn elsewhere(
    redirect: &Redirect,
    prefix: &str,
    head: &request::Parts,
    (https, host): (bool, &str),
) -> Result<(StatusCode, HeaderValue), Reason> {
    // RFC 9110 section 7.1: `*` asks for the whole server.
    let path = if head.uri.path().starts_with('/') { head.uri.path() } else { "/" };
    let (path, rest) = (rewrite::rest(path, "/"), rewrite::rest(path, prefix));
    let scheme = if https { "https" } else { "http" };
    let host = match host.rsplit_once(':') {
        // The colons of an IPv6 address are in brackets.
        Some((name, port)) if !port.ends_with(']') => name,
        Some(_) | None => host,
    };
    if host.is_empty() && redirect.to.contains("{host}") {
        return Err(Reason::BadHost);
    }
    let told = Told { scheme, host, path: &path, rest: &rest, query: head.uri.query() };
    let to = HeaderValue::try_from(rewrite::filled(&redirect.to, told));
    let status = StatusCode::from_u16(redirect.status).unwrap_or(StatusCode::PERMANENT_REDIRECT);
    Ok((status, to.map_err(|_unclear| Reason::BadRequest)?))
}

/// Gives a request the path that instances get instead.
pub fn rewrite(head: &mut request::Parts, prefix: &str, to: &str) -> Result<(), Reason> {
    if !head.uri.path().starts_with('/') {
        return Ok(());
    }
    let mut target = rewrite::rewritten(head.uri.path(), prefix, to);
    if let Some(query) = head.uri.query() {
        target.push('?');
        target.push_str(query);
    }
    let target = PathAndQuery::try_from(target).map_err(|_unclear| Reason::BadRequest)?;
    head.uri = Uri::from(target);
    Ok(())
}

/// Takes fields out, sets and adds them, in this order.
pub fn edit(headers: &mut HeaderMap, edits: &Edits) {
    for name in &edits.remove {
        headers.remove(name);
    }
    for (name, value) in &edits.set {
        headers.insert(name, value.clone());
    }
    for (name, value) in &edits.add {
        headers.append(name, value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;
    use http::header::HeaderName;

    fn head(target: &str) -> request::Parts {
        Request::builder().uri(target).body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_redirect_leads_where_its_author_says_or_nowhere() {
        let to = |to: &str, target, host| {
            let redirect = Redirect { to: to.to_owned(), status: 308 };
            let told = elsewhere(&redirect, "/a", &head(target), (true, host));
            told.map(|(_, to)| to.to_str().unwrap().to_owned())
        };
        let sub = "https://b.test/sub{path}";
        for (target, expected) in [
            ("/a/x%20y?q", "https://b.test/sub/a/x%20y"),
            ("/a/../../x", "https://b.test/sub/x"),
            ("/a/%2e%2E/%2e%2e/x", "https://b.test/sub/x"),
            ("/a/..;/..%5c/x", "https://b.test/sub/x"),
        ] {
            assert_eq!(to(sub, target, "a.test"), Ok(expected.to_owned()), "{target}");
        }
        let host = "https://{host}/x";
        assert_eq!(to(host, "/a", "a.test:80"), Ok("https://a.test/x".to_owned()));
        assert_eq!(to(host, "/a", ""), Err(Reason::BadHost));
    }

    #[test]
    fn the_query_stays_when_the_path_is_another() {
        for (target, expected) in
            [("/a/b?c=%20d", "/z/b?c=%20d"), ("/a", "/z"), ("/a?", "/z?"), ("*", "*")]
        {
            let mut head = head(target);
            rewrite(&mut head, "/a", "/z").unwrap();
            assert_eq!(head.uri.to_string(), expected);
        }
    }

    #[test]
    fn fields_are_taken_out_then_set_then_added() {
        let mut headers = HeaderMap::new();
        for (name, value) in [("a", "1"), ("a", "2"), ("b", "1"), ("c", "1")] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let pair = |name, value| (HeaderName::from_static(name), HeaderValue::from_static(value));
        let edits = Edits {
            remove: vec![HeaderName::from_static("a"), HeaderName::from_static("x")],
            set: vec![pair("b", "2"), pair("a", "3")],
            add: vec![pair("c", "2"), pair("a", "4")],
        };
        edit(&mut headers, &edits);
        let all =
            |name| headers.get_all(name).iter().map(|it| it.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!((all("a"), all("b"), all("c")), (vec!["3", "4"], vec!["2"], vec!["1", "2"]));
    }
}
