//! Clients of HTTP/2 that send much and ask for little: their connection ends with ENHANCE_YOUR_CALM
//! or an error, what they hold stays bounded, and others are served meanwhile.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, End, HEADERS, PING, PRIORITY, RST_STREAM, Raw,
    SETTINGS, field, fields, frame, get,
};
use crate::origin::{Event, Origin};
use crate::support::{self, Burdock};

const ENHANCE_YOUR_CALM: u32 = 0xb;
const REFUSED_STREAM: u32 = 7;
const CANCEL: [u8; 4] = [0, 0, 0, 8];

async fn one() -> (Origin, Burdock) {
    let origin = Origin::start().await;
    let burdock = Burdock::start(&crate::config(&origin)).await;
    (origin, burdock)
}

/// Sends `flood` and gives how the connection ends; another client is served while it goes on.
async fn flood(burdock: &Burdock, flood: Vec<u8>) -> End {
    let mut client = Raw::open(burdock.address()).await;
    let address = burdock.address();
    let other = tokio::spawn(async move {
        let mut client = support::Client::new(address);
        for _ in 0..50 {
            assert_eq!(client.get("/other").await.status, 200);
        }
    });
    let mut sender = client.sender();
    let send = tokio::spawn(async move {
        let _ = sender.write_all(&flood).await;
        sender
    });
    let end = client.end_of(u32::MAX).await;
    drop(send.await);
    support::within("the other client is served", other).await.expect("it is");
    end
}

fn open(stream: u32) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &get("/x"))
}

#[tokio::test(flavor = "multi_thread")]
async fn floods_of_frames_that_ask_for_nothing_end_with_enhance_your_calm() {
    let (_origin, burdock) = one().await;
    let upload = frame(HEADERS, END_HEADERS, 1, &get("/x"));
    let floods = [
        ("settings", frame(SETTINGS, 0, 0, &[]).repeat(5000)),
        ("pings", frame(PING, 0, 0, &[7; 8]).repeat(5000)),
        ("priorities", frame(PRIORITY, 0, 1, &[0, 0, 0, 3, 1]).repeat(5000)),
        ("frames of no kind", frame(0xee, 0, 0, b"x").repeat(5000)),
        ("empty data", [upload, frame(DATA, 0, 1, &[]).repeat(5000)].concat()),
    ];
    for (name, bytes) in &floods {
        let end = flood(&burdock, bytes.clone()).await;
        assert_eq!(end, End::GoAway(ENHANCE_YOUR_CALM), "{name}");
    }
    // The library below ends the last by itself, for a reason of its own.
    let labels = [("reason", "flood")];
    let told = burdock.metrics().await.sum("burdock_errors_total", &labels);
    assert_eq!(told, floods.len() as f64 - 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_are_reset_as_fast_as_they_are_opened_end_with_enhance_your_calm() {
    let (origin, burdock) = one().await;
    let pairs = (0..20_000).map(|n| n * 2 + 1);
    let bytes = pairs.flat_map(|id| [open(id), frame(RST_STREAM, 0, id, &CANCEL)].concat());
    let end = flood(&burdock, bytes.collect()).await;
    assert_eq!(end, End::GoAway(ENHANCE_YOUR_CALM));
    let got = origin.events().iter().filter(|event| matches!(event, Event::Got(_))).count();
    assert!(got < 3000, "the instance got {got}");
}

#[tokio::test(flavor = "multi_thread")]
async fn fields_without_end_end_the_connection() {
    let (origin, burdock) = one().await;
    let begin = frame(HEADERS, END_STREAM, 1, &get("/x"));
    let empty = [begin.clone(), frame(CONTINUATION, 0, 1, &[]).repeat(50_000)].concat();
    let more = frame(CONTINUATION, 0, 1, &field("x-a", &"y".repeat(1000)));
    let large = [begin, more.repeat(20_000)].concat();
    for (name, bytes) in [("empty", empty), ("large", large)] {
        let end = flood(&burdock, bytes).await;
        assert!(matches!(end, End::GoAway(_)), "{name}: {end:?}");
    }
    let others = |event: &Event| matches!(event, Event::Got(got) if got.word(1) == "/other");
    assert!(origin.events().iter().all(others));
}

/// A list of 64 KiB counts 32 bytes for each field more than it has (RFC 9113 section 10.5.1), and a
/// field that was remembered costs a byte to repeat (a "bomb" of HPACK).
#[tokio::test(flavor = "multi_thread")]
async fn a_list_of_fields_that_is_too_large_is_refused_on_its_stream() {
    let (origin, burdock) = one().await;
    let remembered = [&[0x40, 1, b'x', 127, 0xf1, 0x1e][..], &[b'y'; 4000]].concat();
    let bomb = [get("/x"), remembered, vec![0xbe; 10_000]].concat();
    let plain = [get("/x"), field("x-a", &"y".repeat(1000)).repeat(80)].concat();
    for (name, payload) in [("plain", plain), ("remembered", bomb)] {
        origin.clear();
        let mut client = Raw::open(burdock.address()).await;
        let mut parts = payload.chunks(16_000).peekable();
        let mut bytes = frame(HEADERS, END_STREAM, 1, parts.next().expect("a first part"));
        while let Some(part) = parts.next() {
            let flags = if parts.peek().is_none() { END_HEADERS } else { 0 };
            bytes.extend(frame(CONTINUATION, flags, 1, part));
        }
        if payload.len() <= 16_000 {
            bytes[4] |= END_HEADERS;
        }
        client.send(&bytes).await;
        let end = client.end_of(1).await;
        assert!(
            matches!(end, End::Answer(false) | End::Reset(_) | End::GoAway(_)),
            "{name}: {end:?}"
        );
        assert_eq!(origin.events(), [], "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_beyond_what_a_connection_may_have_are_refused() {
    let (_origin, burdock) = one().await;
    let mut client = Raw::open(burdock.address()).await;
    let uploads = (0..251_u32).flat_map(|n| {
        let head =
            [(":method", "POST"), (":scheme", "http"), (":path", "/x"), (":authority", "a.test")];
        frame(HEADERS, END_HEADERS, n * 2 + 1, &fields(&head))
    });
    client.send(&uploads.collect::<Vec<_>>()).await;
    assert_eq!(client.end_of(501).await, End::Reset(REFUSED_STREAM));
    client.send(&frame(DATA, END_STREAM, 1, b"x")).await;
    assert_eq!(client.end_of(1).await, End::Answer(true));
}

/// Ordinary use is far from every limit.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_resets_one_stream_in_ten_and_pings_is_served() {
    let (_origin, burdock) = one().await;
    let mut client = Raw::open(burdock.address()).await;
    for id in (0..2000_u32).map(|n| n * 2 + 1) {
        client.send(&open(id)).await;
        if id % 20 == 1 {
            let more = [frame(RST_STREAM, 0, id, &CANCEL), frame(PING, 0, 0, &[1; 8])].concat();
            client.send(&more).await;
        } else {
            assert_eq!(client.end_of(id).await, End::Answer(true), "{id}");
        }
    }
    tokio::time::timeout(Duration::from_millis(1), client.next()).await.ok();
}
