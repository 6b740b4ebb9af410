//! Frames of HTTP/2 that are wrong by themselves or at their place (RFC 9113 sections 4 to 6 and 8, RFC
//! 7541): each ends its stream or its connection, what is unknown is passed over, and another connection
//! is served after all of it. The library below names PROTOCOL_ERROR for much that has a name of its own.

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, End, GOAWAY, HEADERS, PING, PRIORITY, RST_STREAM,
    Raw, SETTINGS, field, fields, frame, get,
};
use crate::origin::Origin;
use crate::support::{self, Burdock};

const PUSH_PROMISE: u8 = 5;
const WINDOW_UPDATE: u8 = 8;

const ACK: u8 = 1;
const PADDED: u8 = 8;
const WITH_PRIORITY: u8 = 0x20;

const PROTOCOL: u32 = 1;
const FLOW_CONTROL: u32 = 3;
const STREAM_CLOSED: u32 = 5;
const FRAME_SIZE: u32 = 6;
const COMPRESSION: u32 = 9;

/// What must come of it.
enum Wanted {
    /// An end of all streams, with one of these codes, or PROTOCOL_ERROR.
    Connection(&'static [u32]),
    /// An end of this stream at least (RFC 9113 section 5.4.1 lets all of them end), with one of these
    /// codes; or an answer that says no, where a request is malformed (section 8.1.1).
    Stream(u32, &'static [u32]),
    /// Nothing: an ordinary request on this stream, which follows, is answered.
    Served(u32),
}

use Wanted::{Connection, Served, Stream};

struct Case {
    name: &'static str,
    bytes: Vec<u8>,
    wanted: Wanted,
}

fn case(name: &'static str, parts: &[Vec<u8>], wanted: Wanted) -> Case {
    Case { name, bytes: parts.concat(), wanted }
}

/// A request that has come to its end.
fn whole(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/x"))
}

/// One whose body is to follow.
fn open(stream: u32) -> Vec<u8> {
    let head =
        [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")];
    frame(HEADERS, END_HEADERS, stream, &fields(&head))
}

fn reset(stream: u32) -> Vec<u8> {
    frame(RST_STREAM, 0, stream, &[0, 0, 0, 8])
}

fn setting(key: u16, value: u32) -> Vec<u8> {
    let setting = [&key.to_be_bytes()[..], &value.to_be_bytes()].concat();
    frame(SETTINGS, 0, 0, &setting)
}

fn wider(stream: u32, by: u32) -> Vec<u8> {
    frame(WINDOW_UPDATE, 0, stream, &by.to_be_bytes())
}

/// A head with bytes that HPACK gives no meaning to, or another than they seem to have.
fn packed(tail: &[u8]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, 1, &[&get("/x")[..], tail].concat())
}

/// RFC 9113 sections 4.1, 4.2, 5.5: sizes, and what nobody knows.
fn sizes() -> Vec<Case> {
    let block = frame(HEADERS, END_STREAM, 1, &get("/x"));
    vec![
        case("a frame of no kind", &[frame(0xee, 0xff, 0, b"x")], Served(1)),
        case("one on a stream", &[frame(0xee, 0, 1, b"x")], Served(1)),
        case("flags that a ping does not have", &[frame(PING, 0xfe, 0, &[0; 8])], Served(1)),
        case("the reserved bit", &[frame(PING, 0, 1 << 31, &[0; 8])], Served(1)),
        case("a setting of no kind", &[setting(0xff, 7)], Served(1)),
        case(
            "data that is too long",
            &[open(1), frame(DATA, 0, 1, &[0; 16_385])],
            Stream(1, &[FRAME_SIZE]),
        ),
        case(
            "a head that is too long",
            &[frame(HEADERS, END_HEADERS, 1, &[0; 16_385])],
            Connection(&[FRAME_SIZE]),
        ),
        case("a short priority", &[frame(PRIORITY, 0, 1, &[0; 4])], Stream(1, &[FRAME_SIZE])),
        case(
            "a short reset",
            &[open(1), frame(RST_STREAM, 0, 1, &[0; 3])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "settings of seven bytes",
            &[frame(SETTINGS, 0, 0, &[0; 7])],
            Connection(&[FRAME_SIZE]),
        ),
        case(
            "an answer to settings with some",
            &[frame(SETTINGS, ACK, 0, &[0; 6])],
            Connection(&[FRAME_SIZE]),
        ),
        case("a ping of seven bytes", &[frame(PING, 0, 0, &[0; 7])], Connection(&[FRAME_SIZE])),
        case("a short window", &[frame(WINDOW_UPDATE, 0, 0, &[0; 3])], Connection(&[FRAME_SIZE])),
        case(
            "a stranger in a block",
            &[block.clone(), frame(0xee, 0, 1, b"x")],
            Connection(&[PROTOCOL]),
        ),
        case(
            "a priority in a block",
            &[block.clone(), frame(PRIORITY, 0, 1, &[0; 5])],
            Connection(&[PROTOCOL]),
        ),
        case("another head in a block", &[block.clone(), whole(3)], Connection(&[PROTOCOL])),
        case("data in a block", &[block.clone(), frame(DATA, 0, 1, b"x")], Connection(&[PROTOCOL])),
        case(
            "another's rest in a block",
            &[block, frame(CONTINUATION, END_HEADERS, 3, &[])],
            Connection(&[PROTOCOL]),
        ),
    ]
}

/// RFC 9113 sections 5.1, 6.1 to 6.10: what is no place for it.
fn places() -> Vec<Case> {
    let promise = [&[0, 0, 0, 2][..], &get("/x")].concat();
    vec![
        case("data on stream 0", &[frame(DATA, 0, 0, b"x")], Connection(&[PROTOCOL])),
        case("a head on stream 0", &[whole(0)], Connection(&[PROTOCOL])),
        case("a priority on stream 0", &[frame(PRIORITY, 0, 0, &[0; 5])], Connection(&[PROTOCOL])),
        case("a reset of stream 0", &[reset(0)], Connection(&[PROTOCOL])),
        case(
            "a rest on stream 0",
            &[frame(CONTINUATION, END_HEADERS, 0, &[])],
            Connection(&[PROTOCOL]),
        ),
        case("settings on a stream", &[frame(SETTINGS, 0, 1, &[])], Connection(&[PROTOCOL])),
        case("a ping on a stream", &[frame(PING, 0, 1, &[0; 8])], Connection(&[PROTOCOL])),
        case("a goodbye on a stream", &[frame(GOAWAY, 0, 1, &[0; 8])], Connection(&[PROTOCOL])),
        case(
            "a promise of a client",
            &[open(1), frame(PUSH_PROMISE, END_HEADERS, 1, &promise)],
            Connection(&[PROTOCOL]),
        ),
        case("data before a head", &[frame(DATA, 0, 1, b"x")], Connection(&[PROTOCOL])),
        case("a reset before a head", &[reset(1)], Connection(&[PROTOCOL])),
        case("a window before a head", &[wider(1, 1)], Connection(&[PROTOCOL])),
        case(
            "a rest before a head",
            &[frame(CONTINUATION, END_HEADERS, 1, &[])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "a rest of what is complete",
            &[open(1), frame(CONTINUATION, END_HEADERS, 1, &[])],
            Connection(&[PROTOCOL]),
        ),
        case("a stream of the server's", &[whole(2)], Connection(&[PROTOCOL])),
        case(
            "a stream behind a later one",
            &[open(5), whole(3)],
            Connection(&[PROTOCOL, STREAM_CLOSED]),
        ),
        case(
            "data behind the end",
            &[whole(1), frame(DATA, 0, 1, b"x")],
            Stream(1, &[STREAM_CLOSED]),
        ),
        case("a head behind the end", &[whole(1), whole(1)], Stream(1, &[STREAM_CLOSED])),
        case(
            "a head behind a reset",
            &[open(1), reset(1), whole(1)],
            Stream(1, &[STREAM_CLOSED, PROTOCOL]),
        ),
        case("a second head that is no end", &[open(1), open(1)], Stream(1, &[PROTOCOL])),
        case(
            "a padding longer than data",
            &[open(1), frame(DATA, PADDED | END_STREAM, 1, &[5, 0, 0])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "a padding longer than a head",
            &[frame(HEADERS, PADDED | END_HEADERS, 1, &[200, 0x82])],
            Connection(&[PROTOCOL]),
        ),
        case(
            "a padding of no length",
            &[open(1), frame(DATA, PADDED | END_STREAM, 1, &[])],
            Connection(&[PROTOCOL, FRAME_SIZE]),
        ),
        case(
            "a head that waits for itself",
            &[frame(
                HEADERS,
                WITH_PRIORITY | END_HEADERS | END_STREAM,
                1,
                &[&[0, 0, 0, 1, 1][..], &get("/x")].concat(),
            )],
            Stream(1, &[PROTOCOL]),
        ),
        case(
            "less than its length",
            &[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &[&get("/x")[..], &field("content-length", "2")].concat(),
                ),
                frame(DATA, END_STREAM, 1, b"x"),
            ],
            Stream(1, &[PROTOCOL]),
        ),
        case(
            "more than its length",
            &[
                frame(
                    HEADERS,
                    END_HEADERS,
                    1,
                    &[&get("/x")[..], &field("content-length", "1")].concat(),
                ),
                frame(DATA, END_STREAM, 1, b"xx"),
            ],
            Stream(1, &[PROTOCOL]),
        ),
    ]
}

/// RFC 9113 sections 6.5.2, 6.9: numbers.
fn numbers() -> Vec<Case> {
    const MOST: u32 = (1 << 31) - 1;
    vec![
        case("a push that is neither on nor off", &[setting(2, 2)], Connection(&[PROTOCOL])),
        case("a window that is too wide", &[setting(4, 1 << 31)], Connection(&[FLOW_CONTROL])),
        case("frames that are too short", &[setting(5, 16_383)], Connection(&[PROTOCOL])),
        case("frames that are too long", &[setting(5, 1 << 24)], Connection(&[PROTOCOL])),
        case("a connection's window by nothing", &[wider(0, 0)], Connection(&[PROTOCOL])),
        case("a stream's window by nothing", &[open(1), wider(1, 0)], Stream(1, &[PROTOCOL])),
        case(
            "a connection's window too far",
            &[wider(0, MOST), wider(0, MOST)],
            Connection(&[FLOW_CONTROL]),
        ),
        case(
            "a stream's window too far",
            &[open(1), wider(1, MOST), wider(1, MOST)],
            Stream(1, &[FLOW_CONTROL]),
        ),
        case(
            "all windows too far",
            &[open(1), wider(1, MOST - 65_535), setting(4, 65_536)],
            Connection(&[FLOW_CONTROL]),
        ),
    ]
}

/// RFC 7541 sections 2.3.3, 4.2, 5 and 6.
fn packings() -> Vec<Case> {
    let all = |name, tail: &[u8]| case(name, &[packed(tail)], Connection(&[COMPRESSION]));
    vec![
        all("index 0", &[0x80]),
        all("an index that nothing has", &[0xff, 0x00]),
        all("a name that nothing has", &[0x7f, 0x00, 1, b'x']),
        all("an index without end", &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x7f]),
        all("a text that is cut off", &[0, 1, b'x', 5, b'y']),
        all("a Huffman code of the end", &[0, 1, b'x', 0x84, 0xff, 0xff, 0xff, 0xff]),
        all("a Huffman padding of eight bits", &[0, 1, b'x', 0x82, 0x1f, 0xff]),
        all("a Huffman padding of zeros", &[0, 1, b'x', 0x81, 0x18]),
        all("a table's size behind a field", &[0x20]),
        case(
            "a table that is too large",
            &[frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &[&[0x3f, 0xe2, 0x1f][..], &get("/x")].concat(),
            )],
            Connection(&[COMPRESSION]),
        ),
    ]
}

fn fits(wanted: &Wanted, end: End) -> bool {
    match (wanted, end) {
        (Connection(codes) | Stream(_, codes), End::GoAway(code)) => {
            codes.contains(&code) || code == PROTOCOL
        }
        (Stream(_, codes), End::Reset(code)) => codes.contains(&code),
        (Stream(_, codes), End::Answer(false)) => codes.contains(&PROTOCOL),
        (Served(_), End::Answer(is_fine)) => is_fine,
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_in_frames_ends_what_it_must() {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&crate::config(&origin)).await;
    let mut wrong = Vec::new();
    for Case { name, mut bytes, wanted } in
        [sizes(), places(), numbers(), packings()].into_iter().flatten()
    {
        let mut client = Raw::open(burdock.address()).await;
        let stream = match wanted {
            Connection(_) => u32::MAX,
            Stream(stream, _) => stream,
            Served(stream) => {
                bytes.extend(whole(stream));
                stream
            }
        };
        client.send(&bytes).await;
        let end = client.end_of(stream).await;
        if !fits(&wanted, end) {
            wrong.push(format!("{name}: {end:?}"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let mut other = support::Client::new(burdock.address());
    assert_eq!(other.get("/other").await.status, 200);
}
