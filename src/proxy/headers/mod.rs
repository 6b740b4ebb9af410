//! The fields of a message on their way through: which stop here, which are added, which are
//! refused. Pure: the client's address and the request id are arguments.

mod check;
pub mod hops;
mod told;

use http::header::{
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, EXPECT, HOST, HeaderMap, HeaderName, HeaderValue, TE,
    TRANSFER_ENCODING, UPGRADE, VIA,
};
use http::{Response, StatusCode};

use crate::config::types::Forwarding;

pub use check::{BadRequest, check, check_scheme, host_of};
pub use told::{
    Origin, client_address, is_https, is_trusted, named_client, remove_alike, trim_trailers,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
/// Names a request from the client through to the instance's log.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// A client's request id longer than this is replaced.
const MAX_REQUEST_ID: usize = 128;

/// Whether an answer on a stream is one (RFC 9110 section 15), and says clearly how long it is. That there
/// is no coding (RFC 9113 section 8.2.2) has been seen to.
pub fn settle<Body>(answer: &mut Response<Body>) -> bool {
    answer.status().as_u16() < 600 && settle_length(answer.headers_mut())
}

/// Whether an answer says clearly how long it is. Equal lengths on several lines become one (RFC
/// 9112 section 6.3); anything else that isn't one number is nothing to pass on.
fn settle_length(headers: &mut HeaderMap) -> bool {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let (Some(first), more) = (lines.next(), lines.next().is_some()) else { return true };
    if !more && first.as_bytes().iter().all(u8::is_ascii_digit) {
        return !first.is_empty();
    }
    let lengths: Vec<&[u8]> = tokens(headers, &CONTENT_LENGTH).collect();
    let equal = lengths.iter().all(|length| *length == lengths[0]);
    let length = lengths.first().filter(|length| equal && length.iter().all(u8::is_ascii_digit));
    let length = length.and_then(|length| HeaderValue::from_bytes(length).ok());
    length.is_some_and(|length| headers.insert(CONTENT_LENGTH, length).is_some())
}

/// Whether a comma-separated list in any line of `name` holds `token`.
pub fn has_token(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|found| found.eq_ignore_ascii_case(token.as_bytes()))
}

/// The members of a comma-separated list, from all lines of `name`.
pub fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a [u8]> {
    headers
        .get_all(name)
        .iter()
        .flat_map(|line| line.as_bytes().split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Whether an answer is a stream of server-sent events without an end that is known beforehand.
pub fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).map_or(&[][..], HeaderValue::as_bytes);
    let kind = kind.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii();
    kind.eq_ignore_ascii_case(b"text/event-stream") && !headers.contains_key(CONTENT_LENGTH)
}

/// Whether the client waits for a 100 before it sends its body (RFC 9110 section 10.1.1).
pub fn expects_continue(headers: &HeaderMap) -> bool {
    headers.contains_key(EXPECT) && has_token(headers, &EXPECT, "100-continue")
}

/// Which of the fields that matter here a message has: one look at each line costs less than
/// looking up every name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Fields(u16);

impl Fields {
    const CONNECTION: Self = Self(1);
    const TRANSFER_ENCODING: Self = Self(1 << 1);
    /// `Upgrade`.
    pub const UPGRADE: Self = Self(1 << 2);
    const TE: Self = Self(1 << 3);
    /// The rest of what is meant for this hop only.
    const HOP: Self = Self(1 << 4);
    /// What proxies tell of their clients.
    pub const TOLD: Self = Self(1 << 5);
    const X_REQUEST_ID: Self = Self(1 << 6);
    /// Any cookie.
    pub const COOKIE: Self = Self(1 << 7);
    /// `Expect`.
    pub const EXPECT: Self = Self(1 << 8);
    const VIA: Self = Self(1 << 9);

    /// Looks at all fields.
    pub fn of(headers: &HeaderMap) -> Self {
        headers.keys().fold(Self::default(), |found, name| found.and(Self::known(name.as_str())))
    }

    fn known(name: &str) -> Self {
        match name {
            "connection" => Self::CONNECTION,
            "transfer-encoding" => Self::TRANSFER_ENCODING,
            "upgrade" => Self::UPGRADE,
            "te" => Self::TE,
            "keep-alive" | "proxy-connection" | "http2-settings" => Self::HOP,
            "forwarded" | "x-forwarded-for" | "x-forwarded-proto" | "x-forwarded-host" => {
                Self::TOLD
            }
            "x-request-id" => Self::X_REQUEST_ID,
            "cookie" => Self::COOKIE,
            "expect" => Self::EXPECT,
            "via" => Self::VIA,
            _ => Self::default(),
        }
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether `field` is among them.
    pub const fn has(self, field: Self) -> bool {
        self.0 & field.0 != 0
    }
}

/// Takes out what is meant for this hop only (RFC 9110 section 7.6.1), on every `Connection` line.
///
/// A field that frames or routes the message can't be nominated away.
fn remove_hop_by_hop(headers: &mut HeaderMap, fields: Fields) {
    if fields.has(Fields::CONNECTION) {
        if !headers.get_all(CONNECTION).iter().all(|line| names_no_field(line.as_bytes())) {
            remove_nominated(headers);
        }
        headers.remove(CONNECTION);
    }
    if fields.has(Fields::HOP) {
        for name in [KEEP_ALIVE, PROXY_CONNECTION, HTTP2_SETTINGS] {
            headers.remove(name);
        }
    }
    for (field, name) in [
        (Fields::TRANSFER_ENCODING, TRANSFER_ENCODING),
        (Fields::UPGRADE, UPGRADE),
        (Fields::TE, TE),
    ] {
        if fields.has(field) {
            headers.remove(name);
        }
    }
}

fn remove_nominated(headers: &mut HeaderMap) {
    let nominated: Vec<HeaderName> = tokens(headers, &CONNECTION)
        .filter(|token| !names_no_field(token))
        .filter_map(|token| HeaderName::from_bytes(token).ok())
        .filter(|name| *name != HOST && *name != CONTENT_LENGTH)
        .collect();
    for name in nominated {
        headers.remove(name);
    }
}

/// What most connections say, and what names no field of its own or one that is removed anyway.
fn names_no_field(token: &[u8]) -> bool {
    token.eq_ignore_ascii_case(b"keep-alive") || token.eq_ignore_ascii_case(b"close")
}

/// Makes a request's fields fit for an instance. `upgrade` is what to switch to. Gives the request's
/// id, if it has one.
pub fn to_instance(
    headers: &mut HeaderMap,
    fields: Fields,
    forwarding: &Forwarding,
    origin: Origin<'_>,
    upgrade: Option<&HeaderValue>,
    request_id: impl FnOnce() -> HeaderValue,
) -> Option<HeaderValue> {
    let trailers = fields.has(Fields::TE) && has_token(headers, &TE, "trailers");
    remove_hop_by_hop(headers, fields);
    if fields.has(Fields::TOLD) && !origin.trusted {
        told::forget(headers);
    }
    // Room for what is added, so that the map grows at most once.
    headers.reserve(8);
    if trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    if let Some(upgrade) = upgrade {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, upgrade.clone());
    }
    // RFC 9110 section 7.6.3: a gateway must name itself to the next server.
    if let Some(via) = &forwarding.via {
        headers.append(VIA, via.line(origin.version).clone());
    }
    told::tell(headers, fields, forwarding, origin);
    let known = match fields.has(Fields::X_REQUEST_ID) {
        true => headers.get(X_REQUEST_ID).filter(|id| is_sane_id(id)).cloned(),
        false => None,
    };
    if known.is_none() && forwarding.request_id {
        let made = request_id();
        headers.insert(X_REQUEST_ID, made.clone());
        return Some(made);
    }
    known
}

/// Whether an id can go into a log line as it is.
fn is_sane_id(id: &HeaderValue) -> bool {
    let bytes = id.as_bytes();
    !bytes.is_empty() && bytes.len() <= MAX_REQUEST_ID && bytes.iter().all(u8::is_ascii_graphic)
}

/// Makes an interim answer's fields fit for the client. RFC 9110 section 8.6: there is no length.
pub fn to_client_interim(headers: &mut HeaderMap, status: StatusCode) {
    to_client(headers, status);
    headers.remove(CONTENT_LENGTH);
}

/// Makes an answer's fields fit for the client.
pub fn to_client(headers: &mut HeaderMap, status: StatusCode) {
    let fields = Fields::of(headers);
    let upgrade = fields.has(Fields::UPGRADE).then(|| headers.get(UPGRADE).cloned()).flatten();
    // RFC 9112 section 6.3: Transfer-Encoding overrides Content-Length.
    if fields.has(Fields::TRANSFER_ENCODING) {
        headers.remove(CONTENT_LENGTH);
    }
    remove_hop_by_hop(headers, fields);
    // RFC 9110 section 15.5.22: a 426 without Upgrade tells the client nothing.
    if let Some(upgrade) = upgrade
        && matches!(status, StatusCode::SWITCHING_PROTOCOLS | StatusCode::UPGRADE_REQUIRED)
    {
        headers.insert(UPGRADE, upgrade);
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::types::Via;
    use http::Version;
    use proptest::prelude::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    fn lines(headers: &HeaderMap) -> Vec<String> {
        let mut lines: Vec<_> = headers
            .iter()
            .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
            .collect();
        lines.sort();
        lines
    }

    fn send(lines: &[(&'static str, &str)], forwarding: &Forwarding, trusted: bool) -> HeaderMap {
        let mut headers = map(lines);
        let text = HeaderValue::from_static("192.0.2.1");
        let peer = "192.0.2.1".parse().unwrap();
        let version = Version::HTTP_11;
        let origin = Origin { peer, peer_text: &text, trusted, version, https: false };
        let fields = Fields::of(&headers);
        to_instance(&mut headers, fields, forwarding, origin, None, || {
            HeaderValue::from_static("made")
        });
        headers
    }

    fn quiet() -> Forwarding {
        Forwarding { x_forwarded: false, request_id: false, ..Forwarding::default() }
    }

    #[test]
    fn every_connection_line_is_honoured() {
        let headers = send(
            &[
                ("host", "a"),
                ("connection", "close, X-One"),
                ("connection", "x-two,te"),
                ("x-one", "1"),
                ("x-two", "2"),
                ("x-three", "3"),
                ("te", "trailers, deflate"),
                ("keep-alive", "5"),
                ("proxy-connection", "close"),
                ("upgrade", "h2c"),
                ("http2-settings", "x"),
            ],
            &quiet(),
            false,
        );
        assert_eq!(
            lines(&headers),
            ["connection: te", "host: a", "te: trailers", "via: 1.1 burdock", "x-three: 3"]
        );
    }

    #[test]
    fn framing_and_host_cannot_be_nominated_away() {
        let nominated =
            [("host", "a"), ("connection", "host, content-length"), ("content-length", "3")];
        let headers = send(&nominated, &quiet(), false);
        assert_eq!(lines(&headers), ["content-length: 3", "host: a", "via: 1.1 burdock"]);
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        let told = [
            ("host", "a"),
            ("x-forwarded-for", "203.0.113.9"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "b"),
            ("x-request-id", "theirs"),
        ];
        let headers = send(&told, &Forwarding::default(), true);
        assert_eq!(headers["x-forwarded-for"], "203.0.113.9, 192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "b");
        let headers = send(&told, &Forwarding::default(), false);
        assert_eq!(headers["x-forwarded-for"], "192.0.2.1");
        assert_eq!(headers["x-forwarded-proto"], "http");
        assert_eq!(headers["x-forwarded-host"], "a");
        assert_eq!(headers["x-request-id"], "theirs");
    }

    #[test]
    fn forwarded_is_written_where_asked() {
        let asked = Forwarding { forwarded: true, ..quiet() };
        let headers = send(&[("host", "a:80")], &asked, false);
        assert_eq!(headers["forwarded"], "for=192.0.2.1;host=\"a:80\";proto=http");
    }

    #[test]
    fn an_id_that_could_hurt_a_log_is_replaced() {
        for id in ["", "a b", &"x".repeat(MAX_REQUEST_ID + 1)] {
            let headers =
                send(&[("host", "a"), ("x-request-id", id)], &Forwarding::default(), false);
            assert_eq!(headers["x-request-id"], "made", "{id:?}");
        }
    }

    #[test]
    fn a_length_is_one_number_or_none() {
        for (lines, settled) in [
            (&[][..], Some(None)),
            (&["5"][..], Some(Some("5"))),
            (&["5", "5"][..], Some(Some("5"))),
            (&["5, 5"][..], Some(Some("5"))),
            (&["5", "6"][..], None),
            (&["5, 6"][..], None),
            (&["-1"][..], None),
            (&["+5"][..], None),
            (&["abc"][..], None),
            (&[""][..], None),
            (&[","][..], None),
        ] {
            let lines: Vec<_> = lines.iter().map(|line| ("content-length", *line)).collect();
            let mut headers = map(&lines);
            assert_eq!(settle_length(&mut headers), settled.is_some(), "{lines:?}");
            if let Some(length) = settled {
                let left: Vec<_> = headers.get_all(CONTENT_LENGTH).iter().collect();
                assert_eq!(left, length.as_slice(), "{lines:?}");
            }
        }
    }

    #[test]
    fn via_is_what_the_configuration_says() {
        for (via, line) in [(Via::new("lb-1"), Some("1.1 lb-1")), (None, None)] {
            let headers = send(&[("host", "a")], &Forwarding { via, ..quiet() }, false);
            assert_eq!(headers.get(VIA).map(|it| it.to_str().unwrap()), line);
        }
    }

    #[test]
    fn an_answer_has_a_status_that_there_is() {
        for (status, settled) in [(200, true), (599, true), (600, false)] {
            let mut answer = Response::new(());
            *answer.status_mut() = StatusCode::from_u16(status).unwrap();
            assert_eq!(settle(&mut answer), settled, "{status}");
        }
    }

    #[test]
    fn an_answer_keeps_upgrade_only_where_it_means_something() {
        for (status, kept) in [(101, true), (426, true), (200, false)] {
            let mut headers =
                map(&[("upgrade", "websocket"), ("connection", "upgrade, x-a"), ("x-a", "1")]);
            to_client(&mut headers, StatusCode::from_u16(status).unwrap());
            assert_eq!(headers.contains_key(UPGRADE), kept);
            assert_eq!(headers.contains_key(CONNECTION), kept);
            assert!(!headers.contains_key("x-a"));
        }
    }

    proptest! {
        #[test]
        fn removal_is_idempotent(nominated in "[a-c, ]{0,12}", present in "[a-c]{0,6}") {
            let mut headers = map(&[("connection", nominated.as_str())]);
            for name in present.chars() {
                let name = HeaderName::from_bytes(name.to_string().as_bytes()).unwrap();
                headers.append(name, HeaderValue::from_static("1"));
            }
            let fields = Fields::of(&headers);
            remove_hop_by_hop(&mut headers, fields);
            let once = headers.clone();
            let fields = Fields::of(&headers);
            remove_hop_by_hop(&mut headers, fields);
            prop_assert_eq!(once, headers);
        }
    }
}
