//! Dialogs with instances that say what they like.

use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::http1::sending::Sending;
use crate::instance::body::{RequestBody, Upload};
use crate::instance::http1::answer::LONGEST;
use crate::instance::http1::dialog::{BrokenOff, Dialog, Failed};
use crate::instance::http1::request::Outgoing;
use crate::instance::kept::Ledger;
use crate::instance::stream::{Stream, Wire};

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (here, listener.accept().await.unwrap().0)
}

/// A dialog, and the instance's end of it.
async fn dialog() -> (Dialog, TcpStream) {
    let (here, instance) = pair().await;
    (Dialog::new(Wire::Plain(Stream::new(here))), instance)
}

fn begin(dialog: &mut Dialog, method: &Method, fields: &HeaderMap, body: RequestBody) {
    let target = Uri::from_static("/a?b");
    let traceparent = None;
    let head = Outgoing { method, target: &target, fields, host: Some("i"), traceparent };
    dialog.begin(&head, body, &mut Context::from_waker(Waker::noop()));
}

fn get(dialog: &mut Dialog) {
    begin(dialog, &Method::GET, &HeaderMap::new(), RequestBody::Empty);
}

async fn head(dialog: &mut Dialog) -> Result<(StatusCode, HeaderMap), Failed> {
    let response = poll_fn(|cx| dialog.poll_head(&mut drop, cx)).await?;
    let (head, ()) = response.into_parts();
    Ok((head.status, head.headers))
}

async fn body(dialog: &mut Dialog) -> Result<Vec<u8>, BrokenOff> {
    let mut whole = Vec::new();
    while let Some(frame) = poll_fn(|cx| dialog.poll_frame(cx)).await {
        if let Ok(data) = frame?.into_data() {
            whole.extend_from_slice(&data);
        }
    }
    Ok(whole)
}

/// Waits until what the other end did has come.
async fn falls(dialog: &mut Dialog) {
    let fallen = async {
        while dialog.stands() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(5), fallen).await.expect("it no longer stands");
}

async fn asked(instance: &mut TcpStream) -> String {
    let mut text = Vec::new();
    while !text.ends_with(b"\r\n\r\n") {
        text.push(instance.read_u8().await.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn one_request_follows_another_until_somebody_says_otherwise() {
    let (mut dialog, mut instance) = dialog().await;
    for answer in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\na: b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    ] {
        assert!(dialog.is_at_rest() && dialog.stands());
        get(&mut dialog);
        assert_eq!(asked(&mut instance).await, "GET /a?b HTTP/1.1\r\nhost: i\r\n\r\n");
        instance.write_all(answer).await.unwrap();
        assert_eq!(head(&mut dialog).await.unwrap().0, StatusCode::OK);
        assert_eq!(body(&mut dialog).await.unwrap(), b"ok");
    }
    assert!(!dialog.is_at_rest());
}

#[tokio::test]
async fn what_comes_unasked_ends_a_rest() {
    for rest in [&b"HTTP/1.1 200 OK\r\n"[..], b""] {
        let (mut dialog, mut instance) = dialog().await;
        get(&mut dialog);
        asked(&mut instance).await;
        instance.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").await.unwrap();
        head(&mut dialog).await.unwrap();
        assert!(dialog.is_at_rest() && dialog.stands());
        match rest {
            b"" => drop(instance),
            rest => instance.write_all(rest).await.unwrap(),
        }
        falls(&mut dialog).await;
    }
    let (mut dialog, mut instance) = dialog().await;
    get(&mut dialog);
    asked(&mut instance).await;
    instance.write_all(b"HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK").await.unwrap();
    head(&mut dialog).await.unwrap();
    assert!(!dialog.is_at_rest());
}

#[tokio::test]
async fn a_head_may_come_byte_by_byte_but_not_for_ever() {
    let (mut dialog, mut instance) = dialog().await;
    get(&mut dialog);
    let slow = async {
        for byte in b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n!"
        {
            instance.write_all(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
    };
    let (answered, ()) = tokio::join!(head(&mut dialog), slow);
    assert_eq!(answered.unwrap().0, StatusCode::OK);
    assert_eq!(body(&mut dialog).await.unwrap(), b"!");

    get(&mut dialog);
    let endless = async {
        let line = b"A: ".iter().chain(&[b'b'; 1000]).chain(b"\r\n").copied().collect::<Vec<_>>();
        instance.write_all(b"HTTP/1.1 200 OK\r\n").await.unwrap();
        for _ in 0..LONGEST / 1000 + 1 {
            instance.write_all(&line).await.unwrap();
        }
    };
    let (answered, ()) = tokio::join!(head(&mut dialog), endless);
    assert_eq!(answered, Err(Failed::Malformed));
}

#[tokio::test]
async fn an_answer_is_read_though_the_rest_of_its_request_can_not_be_sent() {
    let (mut dialog, mut instance) = dialog().await;
    let upload = Upload::whole(vec![b'x'; 16 << 20], &Arc::new(Ledger::default()), Instant::now());
    let mut fields = HeaderMap::new();
    fields.insert("transfer-encoding", "chunked".parse().unwrap());
    begin(&mut dialog, &Method::POST, &fields, upload.attempt(None));
    asked(&mut instance).await;
    instance.write_all(b"HTTP/1.1 413 No\r\nContent-Length: 2\r\n\r\nno").await.unwrap();
    drop(instance);
    match head(&mut dialog).await {
        Ok((status, _)) => assert_eq!(status.as_u16(), 413),
        // With so much unread its end resets the connection, which may destroy the answer.
        Err(failed) => assert_eq!(failed, Failed::Cut),
    }
    assert!(!dialog.is_at_rest());
}

#[tokio::test]
async fn a_body_goes_out_whole_and_framed_as_its_head_says() {
    for (name, value, expected) in
        [("content-length", "100000", None), ("transfer-encoding", "chunked", Some("186a0\r\n"))]
    {
        let (mut dialog, mut instance) = dialog().await;
        let text: Vec<u8> = (0..100_000_u32).map(|n| (n % 251) as u8).collect();
        let upload = Upload::whole(text.clone(), &Arc::new(Ledger::default()), Instant::now());
        let mut fields = HeaderMap::new();
        fields.insert(name, value.parse().unwrap());
        begin(&mut dialog, &Method::PUT, &fields, upload.attempt(None));
        let read = async {
            asked(&mut instance).await;
            let mut came = vec![0; expected.map_or(0, str::len)];
            instance.read_exact(&mut came).await.unwrap();
            assert_eq!(came, expected.unwrap_or_default().as_bytes());
            let mut came = vec![0; text.len()];
            instance.read_exact(&mut came).await.unwrap();
            assert!(came == text);
            if expected.is_some() {
                assert_eq!(asked(&mut instance).await, "\r\n0\r\n\r\n");
            }
            instance.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        };
        let (answered, ()) = tokio::join!(head(&mut dialog), read);
        assert_eq!(answered.unwrap().0, StatusCode::OK);
        assert!(dialog.is_at_rest() && upload.is_sent());
    }
}

/// However little the connection takes at once.
#[tokio::test]
async fn a_chunk_is_whole_wherever_its_writing_was_held_up() {
    let text = vec![b'x'; 5000];
    for room in (1..=8).chain([4999, 5000, 5001, 5002, 5008, 5009, 5010, 5090]) {
        let (mut here, mut instance) = tokio::io::duplex(room);
        let upload = Upload::whole(text.clone(), &Arc::new(Ledger::default()), Instant::now());
        let (method, target, fields) = (Method::PUT, Uri::from_static("/"), HeaderMap::new());
        let (host, traceparent) = (Some("i"), None);
        let head =
            Outgoing { method: &method, target: &target, fields: &fields, host, traceparent };
        let mut nobody = Context::from_waker(Waker::noop());
        let body = upload.attempt(None);
        let (mut sending, begun) =
            Sending::begin(|text, body| head.write(body, text), body, &mut here, &mut nobody);
        let send = async {
            if begun.is_pending() {
                poll_fn(|cx| sending.poll(&mut here, cx)).await.unwrap();
            }
            drop(here);
        };
        let mut came = String::new();
        let (read, ()) = tokio::join!(instance.read_to_string(&mut came), send);
        read.unwrap();
        let (head, body) = came.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with("transfer-encoding: chunked"), "{head}");
        let expected = format!("1388\r\n{}\r\n0\r\n\r\n", "x".repeat(5000));
        assert!(body == expected, "{room}: {} bytes", body.len());
    }
}

#[tokio::test]
async fn a_request_on_a_connection_that_was_reset_is_known_to_be_unsent() {
    let (mut dialog, instance) = dialog().await;
    socket2::SockRef::from(&instance).set_linger(Some(Duration::ZERO)).unwrap();
    drop(instance);
    falls(&mut dialog).await;
    get(&mut dialog);
    assert_eq!(head(&mut dialog).await, Err(Failed::Unsent));
}

/// What is made of an answer that these bytes are, and then the end of the connection.
type Meaning = (StatusCode, Vec<u8>);

async fn here(text: &[u8]) -> Option<Meaning> {
    let (mut dialog, mut instance) = dialog().await;
    get(&mut dialog);
    asked(&mut instance).await;
    instance.write_all(text).await.unwrap();
    instance.shutdown().await.unwrap();
    let (status, _) = head(&mut dialog).await.ok()?;
    Some((status, body(&mut dialog).await.ok()?))
}

async fn by_hyper(text: &[u8]) -> Option<Meaning> {
    let (here, mut instance) = pair().await;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(here)).await.unwrap();
    let driven = tokio::spawn(connection);
    let answered = tokio::spawn(async move {
        let request = Request::get("/").body(Empty::<Bytes>::new()).unwrap();
        let response = sender.send_request(request).await.ok()?;
        let status = response.status();
        Some((status, response.into_body().collect().await.ok()?.to_bytes().to_vec()))
    });
    asked(&mut instance).await;
    // It may have hung up already.
    let _ = instance.write_all(text).await;
    let _ = instance.shutdown().await;
    let meaning = answered.await.unwrap();
    driven.abort();
    meaning
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n",
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n",
        b"HTTP/1.1 304 Not Modified\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 6, 6\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Connection: close\r\n",
        b"X-A: b\r\n",
        b"X-A : b\r\n",
        b" folded\r\n",
        b"\r\n",
        b"\n",
        b"\r",
        b"hello",
        b"5\r\nhello\r\n",
        b"5;a=b\r\nhello\r\n",
        b"005 \r\nhello\r\n",
        b"5\nhello\n",
        b"0\r\n\r\n",
        b"0\r\nX-B: c\r\n\r\n",
        b"0\r\n",
    ];
    prop_oneof![
        12 => proptest::sample::select(known).prop_map(<[u8]>::to_vec),
        1 => proptest::collection::vec(any::<u8>(), 1..4),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Whatever is understood here has no other meaning to hyper's client.
    #[test]
    fn an_answer_means_what_it_means_to_others(parts in proptest::collection::vec(fragment(), 1..8)) {
        let text = parts.concat();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (ours, theirs) = runtime.block_on(async { (here(&text).await, by_hyper(&text).await) });
        if let Some(ours) = ours {
            prop_assert_eq!(Some(ours), theirs, "{}", text.escape_ascii());
        }
    }
}

#[tokio::test]
async fn an_answer_that_ends_too_soon_is_broken_off() {
    let (mut dialog, mut instance) = dialog().await;
    get(&mut dialog);
    asked(&mut instance).await;
    instance.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n").await.unwrap();
    head(&mut dialog).await.unwrap();
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(matches!(dialog.poll_frame(&mut nobody), Poll::Pending));
    assert_eq!(dialog.size_hint().exact(), Some(9));
    drop(instance);
    assert_eq!(body(&mut dialog).await, Err(BrokenOff));
}
