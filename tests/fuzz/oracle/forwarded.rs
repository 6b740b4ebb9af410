//! What a request says of its client and of its way: nothing that comes makes Burdock panic, the
//! client is one that was named by somebody who is trusted, and what goes on is well formed.
//!
//! Input: one byte of choices, then lines: the request's target, then fields as `name:value`.

use std::net::{IpAddr, SocketAddr};

use burdock::config::types::Forwarding;
use burdock::proxy::headers::{self, Fields, Origin};
use http::header::{CONNECTION, CONTENT_LENGTH, FORWARDED, HOST, TE, UPGRADE, VIA};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version, request};

const HOP_BY_HOP: [&str; 6] = [
    "keep-alive",
    "proxy-connection",
    "http2-settings",
    "transfer-encoding",
    "upgrade",
    "connection",
];

/// Panics where something is believed, passed on or left out that should not be.
pub(crate) fn check(data: &[u8]) {
    let Some((&choices, rest)) = data.split_first() else { return };
    let mut lines = rest.split(|byte| *byte == b'\n');
    let target = lines.next().unwrap_or_default();
    let mut fields = HeaderMap::new();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            fields.append(name, value);
        }
    }
    settles_lengths(fields.clone());
    passes_an_answer_on(fields.clone(), choices);
    if let Ok(request) = Request::builder().uri(target).body(()) {
        let mut head = request.into_parts().0;
        head.version = match choices >> 6 {
            0 | 1 => Version::HTTP_11,
            2 => Version::HTTP_10,
            _ => Version::HTTP_2,
        };
        head.headers = fields;
        passes_a_request_on(head, choices);
    }
}

fn passes_a_request_on(mut head: request::Parts, choices: u8) {
    let fields = Fields::of(&head.headers);
    let own = Forwarding::default();
    if headers::check(&head, fields, own.via.as_ref()).is_err() {
        return;
    }
    if let Some(authority) = head.uri.authority() {
        let Ok(host) = headers::host_of(authority) else { return };
        head.headers.insert(HOST, host);
    }
    let peer: IpAddr = match choices & 1 {
        0 => [192, 0, 2, 1].into(),
        _ => [0x2001, 0xdb8, 0, 0, 0, 0, 0, 1].into(),
    };
    let trusted =
        ["192.0.2.0/24", "2001:db8::/32", "10.0.0.0/8"].map(|net| net.parse().expect("a network"));
    let peer_text = HeaderValue::try_from(peer.to_string()).expect("an address is header-safe");
    let is_trusted = choices & 2 != 0;
    let version = head.version;
    let origin = Origin { peer, peer_text: &peer_text, trusted: is_trusted, version, https: false };
    let forwarding = Forwarding {
        x_forwarded: choices & 4 != 0,
        forwarded: choices & 8 != 0,
        request_id: choices & 16 != 0,
        via: own.via,
    };
    let client = headers::client_address(&head.headers, origin, &trusted);
    assert!(client == peer || is_trusted && named(&head.headers).contains(&client));

    let before = head.headers.clone();
    let upgrade = (choices & 32 != 0).then(|| HeaderValue::from_static("websocket"));
    let made = || HeaderValue::from_static("made");
    let id = headers::to_instance(
        &mut head.headers,
        fields,
        &forwarding,
        origin,
        upgrade.as_ref(),
        made,
    );
    let sent = &head.headers;
    nothing_of_this_hop_is_left(&before, sent, upgrade.as_ref());
    assert_eq!(sent.get(HOST), before.get(HOST));
    let is_theirs = headers::has_token(&before, &CONNECTION, "via");
    let came = if is_theirs { 0 } else { lines(&before, "via").len() };
    assert_eq!(lines(sent, "via").len(), came + 1);
    let via = match version {
        Version::HTTP_10 => "1.0 burdock",
        Version::HTTP_2 => "2.0 burdock",
        _ => "1.1 burdock",
    };
    assert_eq!(
        sent.get_all(VIA).iter().next_back().map(HeaderValue::as_bytes),
        Some(via.as_bytes())
    );
    let told = sent.get("x-request-id").cloned();
    assert!(id.is_none() || id == told);
    assert!(!forwarding.request_id || id.is_some());
    if let Some(id) = &id {
        assert!((1..=128).contains(&id.len()) && id.as_bytes().iter().all(u8::is_ascii_graphic));
    }
    tells_of_the_client(&before, sent, &forwarding, origin);
}

/// The addresses in `X-Forwarded-For`, in every form in which proxies write them.
fn named(headers: &HeaderMap) -> Vec<IpAddr> {
    let mut named = Vec::new();
    for line in lines(headers, "x-forwarded-for") {
        let text = String::from_utf8_lossy(line).into_owned();
        for member in text.split(',').map(str::trim) {
            let bare = member.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
            let address = bare.unwrap_or(member).parse::<IpAddr>();
            let address = address.or_else(|_| member.parse::<SocketAddr>().map(|it| it.ip()));
            named.extend(address.ok().map(|address| address.to_canonical()));
        }
    }
    named
}

fn lines<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    headers.get_all(name).iter().map(HeaderValue::as_bytes).collect()
}

fn members<'a>(headers: &'a HeaderMap, name: &str) -> Vec<&'a [u8]> {
    let lines = lines(headers, name).into_iter();
    lines.flat_map(|line| line.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii).collect()
}

fn nothing_of_this_hop_is_left(
    before: &HeaderMap,
    sent: &HeaderMap,
    upgrade: Option<&HeaderValue>,
) {
    let trailers = members(before, "te").iter().any(|it| it.eq_ignore_ascii_case(b"trailers"));
    for name in HOP_BY_HOP {
        let ours: &[&[u8]] = match (name, upgrade) {
            ("upgrade", Some(upgrade)) => &[upgrade.as_bytes()],
            ("connection", Some(_)) => &[b"Upgrade"],
            ("connection", None) if trailers => &[b"te"],
            _ => &[],
        };
        assert_eq!(lines(sent, name), ours, "{name}");
    }
    assert_eq!(sent.get(TE).map(HeaderValue::as_bytes), trailers.then_some(&b"trailers"[..]));
    let added = [
        "x-forwarded-for",
        "x-forwarded-proto",
        "x-forwarded-host",
        "forwarded",
        "te",
        "x-request-id",
        "via",
        "host",
        "content-length",
        "connection",
        "upgrade",
    ];
    for name in members(before, "connection") {
        let Ok(name) = HeaderName::from_bytes(name) else { continue };
        let stays =
            added.contains(&name.as_str()) || ["close", "keep-alive"].contains(&name.as_str());
        assert!(stays || !sent.contains_key(&name), "{name} was named as of this hop");
    }
    assert_eq!(sent.get(CONTENT_LENGTH), before.get(CONTENT_LENGTH));
    assert!(upgrade.is_some() || !sent.contains_key(UPGRADE));
    assert!(sent.get_all(CONNECTION).iter().count() < 2);
}

fn tells_of_the_client(
    before: &HeaderMap,
    sent: &HeaderMap,
    forwarding: &Forwarding,
    origin: Origin<'_>,
) {
    let peer = origin.peer_text.as_bytes();
    let nominated = members(before, "connection");
    let kept = |name: &str| {
        let nominated = nominated.iter().any(|it| it.eq_ignore_ascii_case(name.as_bytes()));
        origin.trusted && !nominated && before.contains_key(name)
    };
    let chain = lines(sent, "x-forwarded-for");
    if forwarding.x_forwarded {
        assert_eq!(chain.len(), 1);
        match kept("x-forwarded-for") {
            true => assert!(chain[0].ends_with(&[b", ", peer].concat()), "{chain:?}"),
            false => assert_eq!(chain[0], peer),
        }
        match kept("x-forwarded-proto") {
            true => assert!(!lines(sent, "x-forwarded-proto").is_empty()),
            false => assert_eq!(lines(sent, "x-forwarded-proto"), [b"http"]),
        }
        if !kept("x-forwarded-host") {
            assert_eq!(sent.get("x-forwarded-host"), sent.get(HOST));
        }
    } else if !origin.trusted {
        assert!(chain.is_empty());
    }
    let forwarded = lines(sent, FORWARDED.as_str());
    if forwarding.forwarded {
        let own = forwarded.last().expect("one of Burdock's own");
        is_forwarded_element(own, origin.peer);
    }
    if !origin.trusted {
        assert_eq!(forwarded.len(), usize::from(forwarding.forwarded));
    }
}

/// RFC 7239 section 4, as far as Burdock writes it.
fn is_forwarded_element(element: &[u8], peer: IpAddr) {
    let text = std::str::from_utf8(element).expect("ASCII");
    let node = if peer.is_ipv6() { format!("\"[{peer}]\"") } else { peer.to_string() };
    let rest = text.strip_prefix(&format!("for={node}")).expect("the peer comes first");
    let host = rest.strip_suffix(";proto=http").expect("then how it came");
    if !host.is_empty() {
        let quoted = host.strip_prefix(";host=\"").and_then(|rest| rest.strip_suffix('"'));
        let quoted = quoted.expect("a quoted host");
        assert!(
            !quoted.contains(['"', '\\']) && quoted.bytes().all(|byte| byte.is_ascii_graphic())
        );
    }
}

fn settles_lengths(answer: HeaderMap) {
    let told = members(&answer, "content-length").iter().map(|it| it.to_vec()).collect::<Vec<_>>();
    let mut response = Response::new(());
    *response.headers_mut() = answer;
    let is_clear = headers::settle(&mut response);
    let left = lines(response.headers(), "content-length");
    if is_clear && !told.is_empty() {
        assert_eq!(left.len(), 1);
        assert!(!left[0].is_empty() && left[0].iter().all(u8::is_ascii_digit));
        assert!(told.iter().all(|length| length.is_empty() || *length == left[0]));
    }
}

fn passes_an_answer_on(mut answer: HeaderMap, choices: u8) {
    let status = match choices & 3 {
        0 => StatusCode::SWITCHING_PROTOCOLS,
        1 => StatusCode::UPGRADE_REQUIRED,
        _ => StatusCode::OK,
    };
    let coded = answer.contains_key("transfer-encoding");
    let upgrade = answer.get(UPGRADE).filter(|_| choices & 3 < 2).cloned();
    headers::to_client(&mut answer, status);
    for name in HOP_BY_HOP {
        let ours = upgrade.is_some() && ["upgrade", "connection"].contains(&name);
        assert_eq!(lines(&answer, name).len(), usize::from(ours), "{name}");
    }
    assert_eq!(answer.get(UPGRADE), upgrade.as_ref());
    assert!(!coded || !answer.contains_key(CONTENT_LENGTH));
}
