//! Requests on streams of HTTP/2 that would be two things, or none, once they are HTTP/1.1 (RFC 9113
//! sections 8.1 to 8.3, 10.3): the instance gets none of them, and the others of their connection are
//! served.

use crate::frames::{
    DATA, END_HEADERS, END_STREAM, End, HEADERS, RST_STREAM, Raw, fields, frame, get,
};
use crate::origin::{Event, Origin};
use crate::support::Burdock;

type Lines = &'static [(&'static str, &'static str)];

const POST: Lines =
    &[(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")];
const GET: Lines =
    &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")];

/// What is added to an ordinary request.
const ADDED: &[(&str, Lines)] = &[
    ("H2.TE", &[("transfer-encoding", "chunked")]),
    ("a coding in capitals", &[("Transfer-Encoding", "chunked")]),
    ("a connection option", &[("connection", "x-a")]),
    ("an empty connection option", &[("connection", "")]),
    ("keep-alive", &[("keep-alive", "timeout=5")]),
    ("proxy-connection", &[("proxy-connection", "keep-alive")]),
    ("upgrade", &[("upgrade", "websocket")]),
    ("TE of a coding", &[("te", "gzip")]),
    ("a name in capitals", &[("X-A", "1")]),
    ("an empty name", &[("", "1")]),
    ("a colon in a name", &[("x:a", "1")]),
    ("a space in a name", &[("x a", "1")]),
    ("a line in a name", &[("x: 1\r\ny", "1")]),
    ("a line in a value", &[("x-a", "1\r\ny: 2")]),
    ("a request in a value", &[("x-a", "1\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n")]),
    ("an LF in a value", &[("x-a", "1\ny: 2")]),
    ("a CR in a value", &[("x-a", "1\ry: 2")]),
    ("a NUL in a value", &[("x-a", "1\0")]),
    ("a line in a cookie", &[("cookie", "a=b\r\ny: 2")]),
    ("another host", &[("host", "b.test")]),
    ("two hosts", &[("host", "a.test"), ("host", "a.test")]),
    ("a host with a path", &[("host", "a.test/x")]),
    ("a length that is no number", &[("content-length", "x")]),
    ("a negative length", &[("content-length", "-1")]),
    ("a length with a plus sign", &[("content-length", "+5")]),
    ("differing lengths", &[("content-length", "5"), ("content-length", "6")]),
    ("a second path", &[(":path", "/y")]),
    ("a second method", &[(":method", "GET")]),
    ("a pseudo-field behind a field", &[("x-a", "1"), (":path", "/y")]),
    ("an unknown pseudo-field", &[(":x", "1")]),
    ("a status", &[(":status", "200")]),
    ("an expectation that nobody knows", &[("expect", "tea")]),
];

/// Heads of their own.
const HEADS: &[(&str, Lines)] = &[
    ("no method", &[(":scheme", "http"), (":path", "/x"), (":authority", "a.test")]),
    ("no path", &[(":method", "GET"), (":scheme", "http"), (":authority", "a.test")]),
    ("no scheme", &[(":method", "GET"), (":path", "/x"), (":authority", "a.test")]),
    ("no host", &[(":method", "GET"), (":scheme", "http"), (":path", "/x")]),
    (
        "an empty path",
        &[(":method", "GET"), (":scheme", "http"), (":path", ""), (":authority", "a.test")],
    ),
    (
        "no slash",
        &[(":method", "GET"), (":scheme", "http"), (":path", "x"), (":authority", "a.test")],
    ),
    (
        "an asterisk",
        &[(":method", "GET"), (":scheme", "http"), (":path", "*"), (":authority", "a.test")],
    ),
    (
        "a space in the path",
        &[(":method", "GET"), (":scheme", "http"), (":path", "/x y"), (":authority", "a.test")],
    ),
    (
        "a request line in the path",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/x HTTP/1.1\r\nX: y"),
            (":authority", "a.test"),
        ],
    ),
    (
        "an absolute path",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "http://b.test/"),
            (":authority", "a.test"),
        ],
    ),
    (
        "bytes of no ASCII in the path",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/\u{c3}\u{a9}"),
            (":authority", "a.test"),
        ],
    ),
    (
        "a method of two words",
        &[
            (":method", "GET /y HTTP/1.1\r\nX: "),
            (":scheme", "http"),
            (":path", "/x"),
            (":authority", "a.test"),
        ],
    ),
    (
        "an empty method",
        &[(":method", ""), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")],
    ),
    (
        "userinfo",
        &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "u@a.test")],
    ),
    (
        "a path in the host",
        &[(":method", "GET"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test/y")],
    ),
    (
        "a line in the host",
        &[
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/x"),
            (":authority", "a.test\r\nX: y"),
        ],
    ),
    ("CONNECT", &[(":method", "CONNECT"), (":authority", "a.test:443")]),
    (
        "a pseudo-field last",
        &[
            ("x-a", "1"),
            (":method", "GET"),
            (":scheme", "http"),
            (":path", "/x"),
            (":authority", "a.test"),
        ],
    ),
];

const SMUGGLED: &[u8] = b"GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// A POST on the first stream.
fn upload(length: &'static str, data: &[u8]) -> Vec<u8> {
    let payload = fields(&[POST, &[("content-length", length)]].concat());
    let head = frame(HEADERS, END_HEADERS, 1, &payload);
    [head, frame(DATA, END_STREAM, 1, data)].concat()
}

/// A request as frames, and what is wrong with it.
fn hostile() -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    let alone = END_HEADERS | END_STREAM;
    for (name, added) in ADDED {
        let payload = fields(&[GET, added].concat());
        all.push(((*name).to_owned(), frame(HEADERS, alone, 1, &payload)));
    }
    for (name, head) in HEADS {
        all.push(((*name).to_owned(), frame(HEADERS, alone, 1, &fields(head))));
    }
    all.push(("H2.CL: shorter than the body".to_owned(), upload("3", SMUGGLED)));
    all.push(("longer than the body".to_owned(), upload("100", SMUGGLED)));
    let no_body = fields(&[GET, &[("content-length", "5")]].concat());
    all.push(("a length and no body".to_owned(), frame(HEADERS, alone, 1, &no_body)));
    let behind = |trailers: Lines, flags: u8| {
        let head = frame(HEADERS, END_HEADERS, 1, &fields(POST));
        [head, frame(DATA, 0, 1, b"ok"), frame(HEADERS, flags, 1, &fields(trailers))].concat()
    };
    all.push(("a line in trailers".to_owned(), behind(&[("x-a", "1\r\ny: 2")], alone)));
    all.push((
        "trailers that do not end the stream".to_owned(),
        behind(&[("x-a", "1")], END_HEADERS),
    ));
    all
}

#[tokio::test(flavor = "multi_thread")]
async fn what_would_be_another_request_in_http1_reaches_no_instance() {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&crate::config(&origin)).await;
    let mut wrong = Vec::new();
    for (name, request) in hostile() {
        origin.clear();
        let mut client = Raw::open(burdock.address()).await;
        client.send(&request).await;
        let end = client.end_of(1).await;
        let got = origin.events();
        let passed = got.iter().any(|event| !matches!(event, Event::Cut(_)));
        if passed || !matches!(end, End::Answer(false) | End::Reset(_) | End::GoAway(_)) {
            wrong.push(format!("{name}: {end:?}, the instance got {got:?}"));
        }
        // A mistake on a stream is that stream's alone; one that is the connection's ends all.
        if !matches!(end, End::GoAway(_)) {
            client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/after"))).await;
            let after = client.end_of(3).await;
            if after != End::Answer(true) {
                wrong.push(format!("{name}: the next stream: {after:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), hostile().len(), wrong.join("\n"));
}

/// H2.CL: nobody need wait for the body of a request that says that it has none.
#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_a_length_of_0_denies_is_passed_to_nobody() {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&crate::config(&origin)).await;
    let mut client = Raw::open(burdock.address()).await;
    client.send(&upload("0", SMUGGLED)).await;
    assert!(matches!(client.end_of(1).await, End::Reset(_)));
    client.send(&frame(HEADERS, END_HEADERS | END_STREAM, 3, &get("/after"))).await;
    assert_eq!(client.end_of(3).await, End::Answer(true));
    for event in origin.events() {
        let Event::Got(got) = event else { panic!("{event:?}") };
        assert_eq!(got.body, "");
        assert!(["/x", "/after"].contains(&got.word(1)), "{got:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_that_its_client_resets_never_ends_for_the_instance() {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&crate::config(&origin)).await;
    let mut client = Raw::open(burdock.address()).await;
    let head = frame(HEADERS, END_HEADERS, 1, &fields(POST));
    client.send(&[head, frame(DATA, 0, 1, b"half")].concat()).await;
    crate::support::within("its beginning", origin.head()).await;
    client.send(&frame(RST_STREAM, 0, 1, &8_u32.to_be_bytes())).await;
    let cut = || matches!(origin.events()[..], [Event::Cut(_)]).then_some(());
    crate::support::eventually("its end without an end", cut).await;
}
