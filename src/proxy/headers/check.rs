//! Whether a request has one meaning: what the parsers let pass and no instance may see. Pure.

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, HeaderMap, HeaderValue,
    PROXY_AUTHORIZATION, TRANSFER_ENCODING, VIA,
};
use http::uri::{Authority, Scheme};
use http::{Method, Version, request};

use super::{Fields, tokens};
use crate::config::types::Via;

/// Burdocks of one name that a request may have passed before. A chain of them is fine; a ring,
/// which an instance's address that leads back makes, is not.
const MAX_ROUNDS: usize = 8;

/// What makes a request one that no instance may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BadRequest {
    /// Host missing, repeated or malformed (RFC 9112 section 3.2).
    Host,
    /// A target in a form that its method has not, or with bytes that no target has (RFC 9112
    /// section 3.2).
    Target,
    /// A length beside a coding, or a coding applied twice (RFC 9112 section 6.1).
    Framing,
    /// A transfer coding besides chunked (RFC 9112 section 6.1): nobody asked for it, and without
    /// its name the instance could not undo it.
    Coding,
    /// CONNECT: Burdock is a gateway, not a tunnel to anywhere (RFC 9110 section 9.3.6).
    Connect,
    /// A TRACE with a body, or with what it would reveal (RFC 9110 section 9.3.8).
    Trace,
    /// A `Max-Forwards` that is no number (RFC 9110 section 7.6.2).
    MaxForwards,
    /// The target's scheme is not what the client came by (RFC 9110 section 7.4).
    Misdirected,
    /// An expectation besides 100-continue (RFC 9110 section 10.1.1).
    Expectation,
    /// It has been here before, and before that (RFC 9110 section 7.6.3).
    Loop,
}

/// Checks what the parsers let pass.
pub fn check(head: &request::Parts, fields: Fields, via: Option<&Via>) -> Result<(), BadRequest> {
    if head.method == Method::CONNECT {
        return Err(BadRequest::Connect);
    }
    if fields.has(Fields::TRANSFER_ENCODING) {
        check_coding(&head.headers)?;
    }
    check_target(head)?;
    check_host(head)?;
    if fields.has(Fields::EXPECT)
        && tokens(&head.headers, &EXPECT).any(|it| !it.eq_ignore_ascii_case(b"100-continue"))
    {
        return Err(BadRequest::Expectation);
    }
    if head.method == Method::TRACE && reveals(&head.headers) {
        return Err(BadRequest::Trace);
    }
    match via {
        Some(via) if fields.has(Fields::VIA) && rounds(&head.headers, via) > MAX_ROUNDS => {
            Err(BadRequest::Loop)
        }
        Some(_) | None => Ok(()),
    }
}

fn check_coding(headers: &HeaderMap) -> Result<(), BadRequest> {
    let is_chunked = |coding: &[u8]| coding.eq_ignore_ascii_case(b"chunked");
    if tokens(headers, &TRANSFER_ENCODING).any(|coding| !is_chunked(coding)) {
        return Err(BadRequest::Coding);
    }
    let mut lines = headers.get_all(TRANSFER_ENCODING).iter().map(HeaderValue::as_bytes);
    let is_plain = lines.next().is_some_and(is_chunked) && lines.next().is_none();
    if is_plain && !headers.contains_key(CONTENT_LENGTH) {
        Ok(())
    } else {
        Err(BadRequest::Framing)
    }
}

/// RFC 9112 section 3.2: of the four forms the one that the method has. RFC 3986 section 2: a target
/// is made of visible ASCII; a backslash in a path is a slash to some.
fn check_target(head: &request::Parts) -> Result<(), BadRequest> {
    let uri = &head.uri;
    let target = uri.path_and_query().map_or("", |target| target.as_str());
    let path = uri.path();
    let is_path = match path {
        "*" => head.method == Method::OPTIONS,
        _ => path.starts_with('/') && target.starts_with(['/', '?']),
    };
    let is_bare_authority =
        head.version < Version::HTTP_2 && uri.scheme().is_none() && uri.authority().is_some();
    let is_clean = target.bytes().all(|it| it.is_ascii_graphic()) && !path.contains('\\');
    if is_path && is_clean && !is_bare_authority { Ok(()) } else { Err(BadRequest::Target) }
}

/// RFC 9110 section 7.4: what is asked for by https must have come by it. In HTTP/2 each request
/// names a scheme, as the balancers in front do that nobody told Burdock to trust.
pub fn check_scheme(head: &request::Parts, https: bool) -> Result<(), BadRequest> {
    match head.uri.scheme() {
        Some(scheme) if head.version < Version::HTTP_2 => {
            let came_so = *scheme == Scheme::HTTP || (*scheme == Scheme::HTTPS && https);
            if came_so { Ok(()) } else { Err(BadRequest::Misdirected) }
        }
        Some(_) | None => Ok(()),
    }
}

fn check_host(head: &request::Parts) -> Result<(), BadRequest> {
    let mut hosts = head.headers.get_all(HOST).iter();
    // RFC 9113 section 8.3.1: in HTTP/2 `:authority` stands for Host, and must not say another.
    let authority = head.uri.authority().filter(|_| head.version == Version::HTTP_2);
    let agrees = |host: &HeaderValue| {
        let same = |it: &Authority| it.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes());
        authority.is_none_or(same)
    };
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_authority(host.as_bytes()) && agrees(host) => Ok(()),
        (None, None) if head.version < Version::HTTP_11 || authority.is_some() => Ok(()),
        (Some(_) | None, _) => Err(BadRequest::Host),
    }
}

/// The Host field that an absolute target stands for. RFC 9110 section 4.2.4: userinfo is an error.
pub fn host_of(authority: &Authority) -> Result<HeaderValue, BadRequest> {
    let bytes = authority.as_str().as_bytes();
    let host = HeaderValue::from_bytes(bytes).ok().filter(|_| is_authority(bytes));
    host.ok_or(BadRequest::Host)
}

/// Host and optional port (RFC 3986 section 3.2.2), without userinfo.
fn is_authority(bytes: &[u8]) -> bool {
    // Nearly every one is a plain name, and each request has one.
    let is_plain = |it: &u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'.');
    match bytes.iter().position(|it| !is_plain(it)) {
        None => return !bytes.is_empty(),
        Some(colon @ 1..) if bytes[colon] == b':' && is_port(&bytes[colon + 1..]) => return true,
        Some(_) => {}
    }
    let host = match bytes.iter().rposition(|byte| *byte == b':') {
        Some(colon) if is_port(&bytes[colon + 1..]) => &bytes[..colon],
        Some(_) | None => bytes,
    };
    match host {
        [b'[', address @ .., b']'] => std::str::from_utf8(address)
            .is_ok_and(|text| text.parse::<std::net::Ipv6Addr>().is_ok()),
        [] => false,
        name => {
            let fits = |it: &u8| it.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(it);
            name.iter().all(fits) && name.split(|it| *it == b'%').skip(1).all(is_escaped)
        }
    }
}

/// RFC 9110 section 4.2.1: it may be empty.
fn is_port(digits: &[u8]) -> bool {
    // As many as this can't run over, and leading zeros are nobody's port.
    digits.len() <= 5
        && digits.iter().all(u8::is_ascii_digit)
        && digits.iter().fold(0, |port, digit| port * 10 + u32::from(digit - b'0')) <= 65_535
}

/// Whether what stands behind a percent sign is an escape (RFC 3986 section 2.1).
fn is_escaped(rest: &[u8]) -> bool {
    matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit())
}

/// Whether an echo of the fields would hand out what only their receiver should know.
fn reveals(headers: &HeaderMap) -> bool {
    [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION].iter().any(|name| headers.contains_key(name))
}

/// How often a request has passed a proxy of this name.
fn rounds(headers: &HeaderMap, via: &Via) -> usize {
    let names_it = |member: &&[u8]| {
        let mut words = member.split(|it| it.is_ascii_whitespace()).filter(|it| !it.is_empty());
        words.nth(1) == Some(via.name().as_bytes())
    };
    tokens(headers, &VIA).filter(names_it).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::Request;

    fn verdict(builder: request::Builder) -> Result<(), BadRequest> {
        let head = builder.body(()).unwrap().into_parts().0;
        check(&head, Fields::of(&head.headers), Some(&Via::default()))
    }

    fn plain() -> request::Builder {
        Request::builder().uri("/")
    }

    #[test]
    fn hosts_are_checked() {
        for (host, fine) in [
            ("example.com", true),
            ("example.com:8080", true),
            ("example.com:", true),
            ("[::1]:80", true),
            ("127.0.0.1", true),
            ("a_b.local", true),
            ("a%c3%a9", true),
            ("", false),
            (":80", false),
            ("a b", false),
            ("user@host", false),
            ("a/b", false),
            ("a:b", false),
            ("a:65536", false),
            ("a%zz", false),
            ("a%4", false),
            ("[::g]", false),
            ("a,b/", false),
        ] {
            assert_eq!(is_authority(host.as_bytes()), fine, "{host:?}");
        }
        assert_eq!(verdict(plain()), Err(BadRequest::Host));
        assert_eq!(verdict(plain().version(Version::HTTP_10)), Ok(()));
        let twice = plain().header(HOST, "a").header(HOST, "a");
        assert_eq!(verdict(twice), Err(BadRequest::Host));
        let connect = Request::builder().method(Method::CONNECT).uri("a:1").header(HOST, "a:1");
        assert_eq!(verdict(connect), Err(BadRequest::Connect));
    }

    #[test]
    fn a_coding_is_chunked_once() {
        for (coding, result) in [
            ("chunked", Ok(())),
            ("Chunked", Ok(())),
            ("gzip, chunked", Err(BadRequest::Coding)),
            ("chunked, chunked", Err(BadRequest::Framing)),
            (", chunked", Err(BadRequest::Framing)),
        ] {
            let coded = plain().header(HOST, "a").header(TRANSFER_ENCODING, coding);
            assert_eq!(verdict(coded), result, "{coding}");
        }
        let both = plain().header(HOST, "a").header(TRANSFER_ENCODING, "chunked");
        assert_eq!(verdict(both.header(CONTENT_LENGTH, "3")), Err(BadRequest::Framing));
    }

    #[test]
    fn a_target_has_the_form_of_its_method() {
        for (method, target, fine) in [
            (Method::GET, "/a?b=\\", true),
            (Method::GET, "http://a/b", true),
            (Method::GET, "http://a?b", true),
            (Method::OPTIONS, "*", true),
            (Method::GET, "*", false),
            (Method::GET, "a", false),
            (Method::GET, "a:80", false),
            (Method::GET, "/a\\b", false),
            (Method::GET, "/\u{e9}", false),
        ] {
            let head = Request::builder().method(&method).uri(target).header(HOST, "a");
            assert_eq!(verdict(head).is_ok(), fine, "{method} {target}");
        }
    }

    #[test]
    fn https_must_be_what_the_client_came_by() {
        for (target, https, fine) in [
            ("/", false, true),
            ("http://a/", false, true),
            ("http://a/", true, true),
            ("https://a/", true, true),
            ("https://a/", false, false),
            ("ftp://a/", true, false),
        ] {
            let head = Request::builder().uri(target).body(()).unwrap().into_parts().0;
            assert_eq!(check_scheme(&head, https).is_ok(), fine, "{target}");
        }
    }

    #[test]
    fn a_ring_is_left_and_a_chain_is_not() {
        for (rounds, fine) in [(1, true), (MAX_ROUNDS, true), (MAX_ROUNDS + 1, false)] {
            let via = vec!["1.1 burdock"; rounds].join(", ") + ", 1.1 other (burdock)";
            assert_eq!(verdict(plain().header(HOST, "a").header(VIA, via)).is_ok(), fine);
        }
    }
}
