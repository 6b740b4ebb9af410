//! Who may ask, and what a page of somebody else's may not make a browser ask.
//!
//! Pure: from a request's head to a verdict.

use http::header::{
    AUTHORIZATION, CONTENT_TYPE, FORWARDED, HOST, HeaderMap, HeaderName, ORIGIN, VIA,
};
use http::{Method, StatusCode};
use sha2::{Digest, Sha256};

use crate::admin::problem::Problem;
use crate::config::types::Token;

/// What tells that somebody else's request was passed on, by Burdock itself too if an instance of its
/// own is at this address.
const THROUGH_PROXY: [HeaderName; 3] = [VIA, FORWARDED, HeaderName::from_static("x-forwarded-for")];
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Whether whoever sent this may ask at all.
pub(super) fn admit(headers: &HeaderMap, token: Option<&Token>) -> Result<(), Problem> {
    match token {
        Some(token) if brings(headers, &token.text) => Ok(()),
        Some(_) => {
            let detail = "needed: Authorization: Bearer, and the token of admin.token_file";
            Err(Problem::new(StatusCode::UNAUTHORIZED, detail))
        }
        // Without a token only this machine is trusted, and a page whose name was made to mean this
        // machine (DNS rebinding) still says that name.
        None if THROUGH_PROXY.iter().any(|name| headers.contains_key(name)) => {
            let detail = "this came through a proxy, and there is no token_file";
            Err(Problem::new(StatusCode::FORBIDDEN, detail))
        }
        None if is_local(text(headers, &HOST)) => Ok(()),
        None => {
            let detail = "the Host field names no loopback address, and there is no token_file";
            Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail))
        }
    }
}

/// Whether this may change something: it must come from no page but Burdock's own.
pub(super) fn may_change(method: &Method, headers: &HeaderMap) -> Result<(), Problem> {
    if matches!(*method, Method::GET | Method::HEAD) {
        return Ok(());
    }
    // No form can send this type, and a script of another origin has to ask first, which is refused.
    let kind = text(headers, &CONTENT_TYPE).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        let detail = format!("{method} needs Content-Type: application/json");
        return Err(Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail));
    }
    let is_same_site = match text(headers, &SEC_FETCH_SITE) {
        None => !headers.contains_key(&SEC_FETCH_SITE),
        Some(site) => matches!(site, "same-origin" | "none"),
    };
    if is_same_site && is_own_origin(headers) {
        return Ok(());
    }
    Err(Problem::new(StatusCode::FORBIDDEN, "a page of another origin asks for this"))
}

fn is_own_origin(headers: &HeaderMap) -> bool {
    let mut origins = headers.get_all(&ORIGIN).iter();
    let Some(origin) = origins.next() else { return true };
    let host = text(headers, &HOST);
    let origin = origin.to_str().ok();
    let authority =
        origin.and_then(|it| it.strip_prefix("http://").or_else(|| it.strip_prefix("https://")));
    origins.next().is_none() && authority.is_some() && authority == host
}

/// By their digests, so that how long it takes tells nothing of how much was right.
fn brings(headers: &HeaderMap, token: &str) -> bool {
    let Some(given) = text(headers, &AUTHORIZATION) else { return false };
    let Some((scheme, given)) = given.split_once(' ') else { return false };
    let digests = [given.trim(), token].map(|text| Sha256::digest(text.as_bytes()));
    let mut pairs = digests[0].iter().zip(digests[1].iter());
    let differs = pairs.by_ref().fold(0, |differs, (one, other)| differs | (one ^ other));
    scheme.eq_ignore_ascii_case("bearer") && std::hint::black_box(differs) == 0
}

/// A field that is there once.
fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let first = values.next()?.to_str().ok()?;
    values.next().is_none().then_some(first)
}

/// Whether this names this machine, with or without a port.
fn is_local(host: Option<&str>) -> bool {
    let Some(host) = host else { return false };
    let Ok(authority) = host.parse::<http::uri::Authority>() else { return false };
    if authority.as_str().contains('@') {
        return false;
    }
    let name = authority.host();
    let ip = name.trim_start_matches('[').trim_end_matches(']');
    name.eq_ignore_ascii_case("localhost")
        || ip.parse::<std::net::IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(of: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in of {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn what_came_through_a_proxy_needs_a_token() {
        for field in ["via", "forwarded", "x-forwarded-for"] {
            let asked = headers(&[("host", "127.0.0.1:9900"), (field, "1.1 burdock")]);
            let problem = admit(&asked, None).unwrap_err();
            assert_eq!(problem.status, StatusCode::FORBIDDEN, "{field}");
        }
    }

    #[test]
    fn without_a_token_only_names_of_this_machine_are_answered() {
        for (host, expected) in [
            ("127.0.0.1:9900", true),
            ("127.9.9.9", true),
            ("localhost:1", true),
            ("LOCALHOST", true),
            ("[::1]:9900", true),
            ("evil.example", false),
            ("localhost.evil.example", false),
            ("127.0.0.1.evil.example:9900", false),
            ("10.0.0.1", false),
            ("localhost@evil.example", false),
            ("evil.example@localhost", false),
            ("", false),
        ] {
            let verdict = admit(&headers(&[("host", host)]), None);
            assert_eq!(verdict.is_ok(), expected, "{host}");
        }
        assert!(admit(&headers(&[]), None).is_err());
        assert!(admit(&headers(&[("host", "localhost"), ("host", "localhost")]), None).is_err());
    }

    #[test]
    fn with_a_token_it_must_be_brought() {
        let text = "0123456789abcdef".to_owned();
        let token = Token { file: "t".into(), text };
        for (field, expected) in [
            ("Bearer 0123456789abcdef", true),
            ("bearer 0123456789abcdef", true),
            ("Bearer 0123456789abcde", false),
            ("Bearer 0123456789abcdef0", false),
            ("Bearer 0123456789abcdeF", false),
            ("Basic 0123456789abcdef", false),
            ("0123456789abcdef", false),
            ("Bearer", false),
            ("", false),
        ] {
            let brought = headers(&[("authorization", field), ("host", "any.example")]);
            assert_eq!(admit(&brought, Some(&token)).is_ok(), expected, "{field}");
        }
        let refused = admit(&headers(&[("host", "localhost")]), Some(&token)).unwrap_err();
        assert_eq!(refused.status, StatusCode::UNAUTHORIZED);
    }

    #[test]
    fn no_page_of_another_origin_changes_anything() {
        let json = ("content-type", "application/json; charset=utf-8");
        let host = ("host", "127.0.0.1:9900");
        let verdict = |of: &[(&'static str, &str)]| {
            may_change(&Method::POST, &headers(of)).err().map(|problem| problem.status.as_u16())
        };
        assert_eq!(verdict(&[host, json]), None);
        assert_eq!(verdict(&[host]), Some(415));
        for kind in ["text/plain", "application/x-www-form-urlencoded", "application/jsonp", ""] {
            assert_eq!(verdict(&[host, ("content-type", kind)]), Some(415), "{kind}");
        }
        for (origin, expected) in [
            ("http://127.0.0.1:9900", None),
            ("https://127.0.0.1:9900", None),
            ("http://127.0.0.1:9901", Some(403)),
            ("http://evil.example", Some(403)),
            ("null", Some(403)),
            ("", Some(403)),
        ] {
            assert_eq!(verdict(&[host, json, ("origin", origin)]), expected, "{origin}");
        }
        for (site, expected) in [
            ("same-origin", None),
            ("none", None),
            ("same-site", Some(403)),
            ("cross-site", Some(403)),
            ("?", Some(403)),
        ] {
            assert_eq!(verdict(&[host, json, ("sec-fetch-site", site)]), expected, "{site}");
        }
        assert_eq!(may_change(&Method::GET, &headers(&[("origin", "http://evil")])), Ok(()));
    }
}
