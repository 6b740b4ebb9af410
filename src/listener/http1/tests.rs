//! Clients that say what they like.

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::conversation::Conversation;
use super::head::{self, Limits};
use super::wire::{Access, Settled};
use crate::affinity::token::Keyring;
use crate::http1::content::{Content, Length, Next};
use crate::instance::body::{self, Broken};
use crate::listener::paced::Paced;
use crate::listener::transport::Transport;
use crate::listener::watchdog::Step;
use crate::proxy::client::{Arrival, Client};
use crate::proxy_protocol::Ends;
use crate::snapshot::Live;
use crate::tunnel::registry::Registry;

/// A request's method and target, its fields, and its body.
type Meaning = (String, HeaderMap, Vec<u8>);

/// All requests that these bytes are, as far as they are whole.
fn here(text: &[u8]) -> Vec<Meaning> {
    let (mut input, mut found) = (Bytes::copy_from_slice(text), Vec::new());
    let limits = Limits { bytes: 64 * 1024, fields: 100 };
    while let Ok(Some(head)) = head::parse(&mut input, limits) {
        let (mut content, mut whole) = (Content::bounded(head.length), Vec::new());
        loop {
            match content.next(&mut input) {
                Next::Frame(frame) => {
                    whole.extend_from_slice(&frame.into_data().unwrap_or_default())
                }
                Next::Over => break,
                Next::More | Next::Broken(_) => return found,
            }
        }
        let (parts, ()) = head.request.into_parts();
        let is_framed_twice = parts.headers.contains_key(CONTENT_LENGTH)
            && parts.headers.contains_key(TRANSFER_ENCODING);
        if is_framed_twice {
            return found;
        }
        found.push((format!("{} {}", parts.method, parts.uri), parts.headers, whole));
        if !head.said.persists {
            return found;
        }
    }
    found
}

async fn by_hyper(text: &[u8]) -> Vec<Meaning> {
    let (mut client, server) = tokio::io::duplex(64 * 1024);
    let found = Arc::new(Mutex::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let found = Arc::clone(&found);
        async move {
            let (parts, body) = request.into_parts();
            if let Ok(body) = body.collect().await {
                let line = format!("{} {}", parts.method, parts.uri);
                found.lock().unwrap().push((line, parts.headers, body.to_bytes().to_vec()));
            }
            Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
        }
    });
    let mut builder = hyper::server::conn::http1::Builder::new();
    let served = builder.half_close(true).serve_connection(TokioIo::new(server), service);
    let asked = async {
        client.write_all(text).await.unwrap();
        client.shutdown().await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
    };
    // What makes no sense to it ends with an error.
    let _ = tokio::join!(served, asked);
    std::mem::take(&mut *found.lock().unwrap())
}

fn fragment() -> impl Strategy<Value = Vec<u8>> {
    let known: Vec<&[u8]> = vec![
        b"GET / HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\r\n",
        b"POST /b HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"PUT /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /d HTTP/1.0\r\n",
        b"OPTIONS * HTTP/1.1\r\n",
        b"GET http://a.test/e?f HTTP/1.1\r\n",
        b"Host: a\r\n",
        b"Content-Length: 5\r\n",
        b"Content-Length: 05\r\n",
        b"Content-Length: 6, 6\r\n",
        b"Content-Length: +5\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Transfer-Encoding: gzip, chunked\r\n",
        b"Transfer-Encoding: chunked, identity\r\n",
        b"Connection: close\r\n",
        b"Connection: keep-alive\r\n",
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
    #![proptest_config(ProptestConfig::with_cases(1024))]

    /// Whatever is understood here has no other meaning to hyper's server.
    #[test]
    fn a_request_means_what_it_means_to_others(parts in proptest::collection::vec(fragment(), 1..10)) {
        let text = parts.concat();
        let ours = here(&text);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let theirs = runtime.block_on(by_hyper(&text));
        prop_assert!(theirs.starts_with(&ours), "{}: {ours:?}, {theirs:?}", text.escape_ascii());
    }
}

/// A client's connection, what is known of it, and the client's end.
async fn accepted() -> (Transport, Arc<Client>, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let end = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, peer) = listener.accept().await.unwrap();
    let text = "instances: [127.0.0.1:1]\n";
    let config = crate::config::parse(text, Path::new("c.yaml")).unwrap().config;
    let keyring = Arc::new(Keyring::new(&[[1; 32]]).unwrap());
    let live = Arc::new(Live::new(Arc::new(config), keyring, 1).0);
    let ends = Ends { source: peer, destination: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)) };
    let here = (0, Registry::new());
    let client = Arc::new(Client::new(live, here, (ends, Box::new(())), Arrival::default()));
    (Transport::plain(stream), client, end)
}

/// A connection of which this was read, and the client's end of it.
async fn wire(read: &'static [u8]) -> (Access, TcpStream) {
    let (stream, client, end) = accepted().await;
    (Access::new(Paced::new(stream, client), Bytes::from_static(read)), end)
}

async fn whole(mut body: body::Incoming) -> Result<Vec<u8>, Broken> {
    let mut whole = Vec::new();
    while let Some(frame) = body.frame().await {
        whole.extend_from_slice(&frame?.into_data().unwrap_or_default());
    }
    Ok(whole)
}

#[tokio::test]
async fn a_body_ends_where_it_ends_whoever_still_holds_it() {
    let (mut wire, _end) = wire(b"first, second").await;
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(wire.body(Length::Exactly(0), false).is_none());
    let mut first = wire.body(Length::Exactly(5), false).unwrap();
    assert_eq!(wire.poll_settled(&mut nobody), Poll::Pending);
    let frame = first.frame().await.unwrap().unwrap();
    assert_eq!(frame.into_data().unwrap(), "first");
    assert_eq!(wire.poll_settled(&mut nobody), Poll::Ready(Settled::Clear));
    let second = wire.body(Length::Exactly(8), false).unwrap();
    assert!(first.frame().await.is_none(), "what comes now is not its own");
    drop(first);
    assert_eq!(wire.poll_settled(&mut nobody), Poll::Pending);
    assert_eq!(whole(second).await.unwrap(), b", second");
    assert!(matches!(wire, Access::Shared(_)));
    assert_eq!(wire.poll_settled(&mut nobody), Poll::Ready(Settled::Clear));
    assert!(matches!(wire, Access::Sole(_)), "nobody reads any more");
}

#[tokio::test]
async fn what_nobody_wants_is_passed_over_only_if_it_is_there() {
    let mut nobody = Context::from_waker(Waker::noop());
    for (read, settled) in
        [(&b"5\r\nhello\r\n0\r\n\r\n"[..], Settled::Clear), (b"5\r\nhel", Settled::Unread)]
    {
        let (mut wire, _end) = wire(read).await;
        drop(wire.body(Length::Chunked, false));
        assert_eq!(wire.poll_settled(&mut nobody), Poll::Ready(settled));
    }
}

#[tokio::test]
async fn whoever_reads_a_body_hears_when_its_connection_is_taken_away() {
    let (mut wire, _end) = wire(b"hel").await;
    let reading = tokio::spawn(whole(wire.body(Length::Exactly(5), false).unwrap()));
    while wire.lock().input.came.len() == 3 {
        tokio::task::yield_now().await;
    }
    tokio::task::yield_now().await;
    let (_stream, read) = wire.into_parts().expect("it is there");
    assert_eq!(read, "");
    assert_eq!(reading.await.unwrap(), Err(Broken::Gone));
}

#[tokio::test]
async fn a_100_is_asked_for_by_whoever_asks_for_a_body_that_has_not_come() {
    let (mut wire, mut end) = wire(b"").await;
    let mut body = wire.body(Length::Exactly(2), true).unwrap();
    assert!(!wire.lock().continues(Waker::noop()));
    let mut nobody = Context::from_waker(Waker::noop());
    assert!(http_body::Body::poll_frame(body.as_mut(), &mut nobody).is_pending());
    assert!(wire.lock().continues(Waker::noop()));
    assert!(!wire.lock().continues(Waker::noop()), "once");
    end.write_all(b"ok").await.unwrap();
    assert_eq!(whole(body).await.unwrap(), b"ok");
}

#[tokio::test]
async fn a_request_that_was_read_and_not_looked_at_is_waited_for() {
    for (asked, is_over) in [(&b""[..], true), (b"GET / HTTP/1.1\r\nHost: a\r\n\r\n", false)] {
        let (stream, client, mut end) = accepted().await;
        let limits = client.live.snapshot().config.client_limits;
        let mut conversation = Conversation::new(stream, &client, &limits, Bytes::new());
        end.write_all(asked).await.unwrap();
        if !asked.is_empty() {
            let step = poll_fn(|cx| conversation.poll(cx)).await;
            assert!(matches!(step, Step::Turn));
            assert!(!client.pace.is_busy(), "it is not known yet that this is a request");
        }
        assert_eq!(conversation.leave(), is_over);
    }
}
