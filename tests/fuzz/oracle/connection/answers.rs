//! What instances answer, and what a client may get of it.

use burdock::proxy::error::Reason;

use super::http1::{Body, Framing, Head, Mood, Request};

/// Numbers the answers, so that a client's can be told from what stood behind it or was made up.
const NUMBER: &str = "x-answer";

/// What becomes of a connection behind an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    Stay,
    Close,
    Reset,
}

/// One answer of an instance.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) bytes: Vec<u8>,
    pub(super) then: Then,
    /// Whether it may turn its connection into a tunnel.
    pub(super) switches: bool,
    /// Whether the client can tell it from others.
    numbered: bool,
}

impl Answer {
    /// The `n`th of an input.
    pub(super) fn new(n: usize, text: &[u8]) -> Self {
        let (text, then) = match (text.strip_suffix(b"%close"), text.strip_suffix(b"%reset")) {
            (Some(text), _) => (text, Then::Close),
            (None, Some(text)) => (text, Then::Reset),
            (None, None) => (text, Then::Stay),
        };
        let switches = text.windows(4).any(|window| window == b" 101");
        let is_free =
            !text.windows(NUMBER.len()).any(|it| it.eq_ignore_ascii_case(NUMBER.as_bytes()));
        let place = first_field(text).filter(|_| is_free);
        let bytes = match place {
            Some(at) => {
                let number = format!("{NUMBER}: {n}\r\n");
                [&text[..at], number.as_bytes(), &text[at..]].concat()
            }
            None => text.to_vec(),
        };
        Self { bytes, then, switches, numbered: place.is_some() }
    }

    /// What is answered where an input says nothing.
    pub(super) fn usual(n: usize) -> Self {
        Self::new(n, b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
    }
}

/// Where the fields of the first final answer begin.
fn first_field(text: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let head = Head::read(&text[at..], Mood::Strict).ok()??;
        if !is_interim(&head) {
            return Some(at + text[at..].iter().position(|byte| *byte == b'\n')? + 1);
        }
        at += head.length;
    }
}

fn is_interim(head: &Head) -> bool {
    head.start[1].starts_with(b"1") && head.start[1] != b"101"
}

fn framing(head: &Head, asked: Option<&Request>) -> Result<Framing, &'static str> {
    let told = head.framing(Framing::ToEnd, Mood::Strict)?;
    let is_head = asked.is_some_and(|asked| asked.head.start[0] == b"HEAD");
    let is_bare = [&b"204"[..], b"304"].contains(&head.start[1].as_slice());
    Ok(if is_head || is_bare { Framing::Nothing } else { told })
}

/// Whether all that was asked has been answered, or nothing more will be.
pub(super) fn are_whole(mut received: &[u8], asked: &[Request]) -> bool {
    let mut left = asked.iter();
    while !left.as_slice().is_empty() {
        let Ok(Some(head)) = Head::read(received, Mood::Strict) else { return false };
        let asked = if is_interim(&head) { None } else { left.next() };
        let Ok(framing) = framing(&head, asked) else { return true };
        let framing = if is_interim(&head) { Framing::Nothing } else { framing };
        let body = Body::read(&received[head.length..], framing, Mood::Strict);
        let Some(length) = body.length else { return body.wrong.is_some() };
        received = &received[head.length + length..];
    }
    !asked.is_empty()
}

/// The client got answers beyond doubt, one for each request at most, each from the instance that
/// was asked or from Burdock itself.
pub(super) fn each_is_flawless(received: &[u8], asked: &[Request], answers: &[Answer]) {
    let told = || received.escape_ascii();
    let all_numbered = answers.iter().all(|answer| answer.numbered);
    let (mut rest, mut count, mut last) = (received, 0, None);
    loop {
        let head = match Head::read(rest, Mood::Strict) {
            Ok(Some(head)) => head,
            Ok(None) => break,
            Err(wrong) => panic!("the client got {wrong}: {}", told()),
        };
        let [version, status, _] = &head.start;
        assert!([&b"HTTP/1.1"[..], b"HTTP/1.0"].contains(&version.as_slice()), "{}", told());
        assert!(status.len() == 3 && status.iter().all(u8::is_ascii_digit), "{}", told());
        if status == b"101" {
            let asked = asked.get(count).is_some_and(|it| it.head.says("connection", "upgrade"));
            let granted = answers.iter().any(|answer| answer.switches);
            assert!(asked && granted, "a tunnel that nobody asked for: {}", told());
            return;
        }
        if is_interim(&head) {
            rest = &rest[head.length..];
            continue;
        }
        let request = asked.get(count);
        count += 1;
        assert!(count <= asked.len() + 1, "an answer that nobody asked for: {}", told());
        let framing = framing(&head, request).unwrap_or_else(|it| panic!("{it}: {}", told()));
        let ends = head.says("connection", "close") || version == b"HTTP/1.0";
        assert!(framing != Framing::ToEnd || ends, "an answer without an end: {}", told());
        let body = Body::read(&rest[head.length..], framing, Mood::Strict);
        assert!(body.wrong.is_none(), "{:?}: {}", body.wrong, told());
        if all_numbered {
            let number =
                head.all(NUMBER).first().map(|it| String::from_utf8_lossy(it).into_owned());
            let number = number.and_then(|text| text.parse::<usize>().ok());
            let is_next = number.is_some() && number > last;
            assert!(
                is_next || number.is_none() && is_own(&head, &body),
                "not an answer: {}",
                told()
            );
            last = number.or(last);
        }
        let Some(length) = body.length else { return };
        rest = &rest[head.length + length..];
    }
    let start = rest.len().min(7);
    assert!(rest[..start] == b"HTTP/1."[..start], "more than answers: {}", told());
}

/// Whether Burdock said this itself; hyper does in its name where a head makes no sense.
fn is_own(head: &Head, body: &Body) -> bool {
    let status = String::from_utf8_lossy(&head.start[1]).into_owned();
    let said = |reason: &Reason| body.data == format!("{status} {}\n", reason.label()).as_bytes();
    body.data.is_empty() || body.length.is_none() || Reason::ALL.iter().any(said)
}
