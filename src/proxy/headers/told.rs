//! What is told of the client: by trusted proxies to Burdock, and by Burdock to instances.

use std::net::IpAddr;

use http::Version;
use http::header::{FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

use super::{Fields, tokens};
use crate::config::types::Forwarding;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");

/// The client as the instance is told of it.
#[derive(Debug, Clone, Copy)]
pub struct Origin<'a> {
    /// The address at the other end of the connection.
    pub peer: IpAddr,
    /// `peer` as text, made once per connection.
    pub peer_text: &'a HeaderValue,
    /// Whether `peer` is a trusted proxy, so that its word counts.
    pub trusted: bool,
    /// What it speaks.
    pub version: Version,
    /// Whether the connection is TLS.
    pub https: bool,
}

impl Origin<'_> {
    fn scheme(&self) -> &'static str {
        if self.https { "https" } else { "http" }
    }
}

/// Whether `peer` may speak for its clients.
pub fn is_trusted(peer: IpAddr, trusted_proxies: &[IpNet]) -> bool {
    trusted_proxies.iter().any(|network| network.contains(&peer))
}

/// The client's address: the last one in `X-Forwarded-For` that is no trusted proxy itself.
pub fn client_address(headers: &HeaderMap, origin: Origin<'_>, trusted: &[IpNet]) -> IpAddr {
    if !origin.trusted {
        return origin.peer;
    }
    let told: Vec<&[u8]> = tokens(headers, &X_FORWARDED_FOR).collect();
    let mut client = origin.peer;
    for text in told.iter().rev() {
        let Some(address) = std::str::from_utf8(text).ok().and_then(parse_address) else { break };
        client = address;
        if !is_trusted(address, trusted) {
            break;
        }
    }
    client
}

/// Whom `client` names as a client of its own, trusted or not: the last that it says is not itself.
pub fn named_client(headers: &HeaderMap, client: &str) -> Option<IpAddr> {
    let client = client.parse().ok();
    let last = |name: &HeaderName, read: fn(&str) -> Option<IpAddr>| {
        let line = headers.get_all(name).iter().next_back()?;
        let members = line.as_bytes().rsplit(|byte| *byte == b',').take(2);
        let texts = members.filter_map(|member| std::str::from_utf8(member).ok());
        texts.filter_map(|text| read(text.trim())).find(|named| Some(*named) != client)
    };
    last(&X_FORWARDED_FOR, parse_address).or_else(|| last(&FORWARDED, node_for))
}

/// The `for` of an element (RFC 7239 section 4), if that is an address.
fn node_for(element: &str) -> Option<IpAddr> {
    let named = |pair: &str| {
        let (name, value) = pair.trim().split_once('=')?;
        let is_it = name.eq_ignore_ascii_case("for");
        is_it.then(|| parse_address(value.trim_matches('"'))).flatten()
    };
    element.split(';').find_map(named)
}

/// An address, with or without a port. A proxy may write an IPv4 client of a dual-stack socket as an
/// IPv6 one.
fn parse_address(text: &str) -> Option<IpAddr> {
    let bracketed = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let address: Option<IpAddr> = bracketed.unwrap_or(text).parse().ok();
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|at| at.ip());
    address.or_else(with_port).map(|address| address.to_canonical())
}

/// Whether the client came by https: as a trusted proxy tells, else as the connection is.
pub fn is_https(headers: &HeaderMap, origin: Origin<'_>) -> bool {
    let told = if origin.trusted { headers.get(X_FORWARDED_PROTO) } else { None };
    told.map_or(origin.https, |proto| proto == "https")
}

/// Takes out of a request's trailers what has no place there (RFC 9110 section 6.5.1): fields of this
/// hop, framing, and what Burdock alone tells of a client, `certificate` fields among it.
pub fn trim_trailers(trailers: &mut HeaderMap, certificate: &[HeaderName]) {
    const NEVER: [&str; 14] = [
        "connection",
        "keep-alive",
        "proxy-connection",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "http2-settings",
        "content-length",
        "host",
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
    ];
    for name in NEVER {
        trailers.remove(name);
    }
    remove_alike(trailers, certificate);
}

/// Takes out fields that an instance could take for one of `names`: to a program behind CGI or WSGI
/// `_` and `-` are the same.
pub fn remove_alike(headers: &mut HeaderMap, names: &[HeaderName]) {
    let plain = |byte: u8| if byte == b'_' { b'-' } else { byte };
    let alike = |a: &HeaderName, b: &HeaderName| {
        a.as_str().bytes().map(plain).eq(b.as_str().bytes().map(plain))
    };
    let found = headers.keys().filter(|key| names.iter().any(|name| alike(key, name)));
    for name in found.cloned().collect::<Vec<_>>() {
        headers.remove(name);
    }
}

/// What an untrusted peer says of its client is not passed on: an instance could not tell it from
/// Burdock's own word.
pub(super) fn forget(headers: &mut HeaderMap) {
    for name in [X_FORWARDED_FOR, X_FORWARDED_PROTO, X_FORWARDED_HOST, FORWARDED] {
        headers.remove(name);
    }
}

pub(super) fn tell(
    headers: &mut HeaderMap,
    fields: Fields,
    forwarding: &Forwarding,
    origin: Origin<'_>,
) {
    if forwarding.forwarded {
        headers.append(FORWARDED, forwarded(headers, origin));
    }
    if !forwarding.x_forwarded {
        return;
    }
    let host = headers.get(HOST).cloned();
    let chain = match fields.has(Fields::TOLD) {
        true => appended(headers, &X_FORWARDED_FOR, origin.peer_text),
        false => origin.peer_text.clone(),
    };
    headers.insert(X_FORWARDED_FOR, chain);
    headers.entry(X_FORWARDED_PROTO).or_insert(HeaderValue::from_static(origin.scheme()));
    if let Some(host) = host {
        headers.entry(X_FORWARDED_HOST).or_insert(host);
    }
}

/// All lines of `name` and `value` as one list.
fn appended(headers: &HeaderMap, name: &HeaderName, value: &HeaderValue) -> HeaderValue {
    let mut list: Vec<&[u8]> = headers.get_all(name).iter().map(HeaderValue::as_bytes).collect();
    if list.is_empty() {
        return value.clone();
    }
    list.push(value.as_bytes());
    HeaderValue::from_bytes(&list.join(&b", "[..])).unwrap_or_else(|_not_a_field| value.clone())
}

/// RFC 7239 section 4; an IPv6 address and a host with a port are quoted.
fn forwarded(headers: &HeaderMap, origin: Origin<'_>) -> HeaderValue {
    let node = match origin.peer {
        IpAddr::V4(address) => address.to_string(),
        IpAddr::V6(address) => format!("\"[{address}]\""),
    };
    let host = headers.get(HOST).and_then(|host| host.to_str().ok());
    let host = host.map(|host| format!(";host=\"{host}\"")).unwrap_or_default();
    HeaderValue::try_from(format!("for={node}{host};proto={}", origin.scheme()))
        .expect("an address and a checked host are header-safe")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trailers_say_nothing_that_is_burdocks_to_say() {
        let mut trailers = HeaderMap::new();
        for name in
            ["grpc-status", "connection", "upgrade", "x-forwarded-for", "client_cert", "host"]
        {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("x"));
        }
        trim_trailers(&mut trailers, &[HeaderName::from_static("client-cert")]);
        assert_eq!(trailers.keys().map(HeaderName::as_str).collect::<Vec<_>>(), ["grpc-status"]);
    }

    #[test]
    fn fields_that_pass_for_another_are_found() {
        let mut headers = HeaderMap::new();
        for name in ["client-cert", "client_cert", "client-cert-chain", "client"] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        remove_alike(&mut headers, &[HeaderName::from_static("client-cert")]);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["client", "client-cert-chain"]);
    }

    #[test]
    fn the_client_is_the_last_untrusted_address() {
        let trusted: Vec<IpNet> =
            vec!["192.0.2.0/24".parse().unwrap(), "10.0.0.0/8".parse().unwrap()];
        let text = HeaderValue::from_static("192.0.2.1");
        let peer = "192.0.2.1".parse().unwrap();
        for (told, client) in [
            (&["1.1.1.1, 2.2.2.2, 10.1.1.1"][..], "2.2.2.2"),
            (&["1.1.1.1", "10.1.1.1:5000"][..], "1.1.1.1"),
            (&["nonsense, 10.1.1.1"][..], "10.1.1.1"),
            (&["[2001:db8::1]"][..], "2001:db8::1"),
            (&["1.1.1.1, ::ffff:10.1.1.1, [::ffff:192.0.2.7]:80"][..], "1.1.1.1"),
            (&["1.1.1.1, [[10.1.1.1]]]"][..], "192.0.2.1"),
            (&[][..], "192.0.2.1"),
        ] {
            let mut headers = HeaderMap::new();
            for line in told {
                headers.append(X_FORWARDED_FOR, HeaderValue::from_str(line).unwrap());
            }
            let origin = Origin {
                peer,
                peer_text: &text,
                trusted: is_trusted(peer, &trusted),
                version: Version::HTTP_11,
                https: false,
            };
            let found = client_address(&headers, origin, &trusted);
            assert_eq!(found, client.parse::<IpAddr>().unwrap(), "{told:?}");
        }
    }

    #[test]
    fn a_client_names_its_own_clients_in_either_field() {
        for (name, line, named) in [
            ("x-forwarded-for", "198.51.100.1", Some("198.51.100.1")),
            ("x-forwarded-for", "198.51.100.1, 198.51.100.2:4711", Some("198.51.100.2")),
            // A trusted proxy has written down the one that is looked at.
            ("x-forwarded-for", "198.51.100.1, 192.0.2.1", Some("198.51.100.1")),
            ("x-forwarded-for", "192.0.2.1", None),
            ("x-forwarded-for", "unknown", None),
            ("forwarded", "for=198.51.100.1;proto=https", Some("198.51.100.1")),
            ("forwarded", "for=a, proto=http; For=\"[2001:db8::1]:4711\"", Some("2001:db8::1")),
            ("forwarded", "for=_hidden, by=198.51.100.1", None),
            ("x-forwarded-proto", "https", None),
        ] {
            let field = (HeaderName::from_static(name), HeaderValue::from_static(line));
            let headers = HeaderMap::from_iter([field]);
            let named = named.map(|text| text.parse().unwrap());
            assert_eq!(named_client(&headers, "192.0.2.1"), named, "{line}");
        }
    }
}
