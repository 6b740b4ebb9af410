//! One instance over loopback, from outside: its routes, its two transports and its death. Knows
//! only the wire and [`Instance`]'s public face.

use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Error, Message};

use super::Instance;

const DEADLINE: Duration = Duration::from_secs(10);

async fn start(name: &str) -> Instance {
    Instance::start(name, SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap()
}

/// One request on a connection of its own.
async fn ask(at: &Instance, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let stream = TcpStream::connect(at.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("host", at.address().to_string())
        .body(Full::new(Bytes::from(body.to_owned())))
        .unwrap();
    let exchange = async {
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    };
    tokio::select! {
        answer = timeout(DEADLINE, exchange) => answer.expect("an answer before the deadline"),
        Err(error) = connection => panic!("connection to the instance: {error}"),
    }
}

async fn get(at: &Instance, path: &str) -> (StatusCode, String) {
    ask(at, Method::GET, path, "").await
}

async fn open_poll(at: &Instance) -> String {
    let (status, body) = ask(at, Method::POST, "/poll/open", "").await;
    assert_eq!(status, StatusCode::OK);
    let hello: Value = serde_json::from_str(&body).unwrap();
    assert_eq!((&hello["type"], &hello["instance"]), (&json!("hello"), &json!(at.name())));
    format!("/poll/{}", hello["sid"].as_str().unwrap())
}

async fn open_ws(at: &Instance) -> WebSocketStream<TcpStream> {
    let stream = TcpStream::connect(at.address()).await.unwrap();
    let (mut socket, _) =
        tokio_tungstenite::client_async(format!("ws://{}/ws", at.address()), stream).await.unwrap();
    assert_eq!(event(&mut socket, "hello").await["instance"], at.name());
    socket
}

/// The next event of this type; others, such as ticks, are skipped.
async fn event(socket: &mut WebSocketStream<TcpStream>, kind: &str) -> Value {
    let search = async {
        loop {
            if let Message::Text(text) = socket.next().await.unwrap().unwrap() {
                let event: Value = serde_json::from_str(&text).unwrap();
                if event["type"] == kind {
                    return event;
                }
            }
        }
    };
    timeout(DEADLINE, search).await.expect("the event before the deadline")
}

/// The next chat message of a polling session.
async fn poll_chat(at: &Instance, session: &str) -> Value {
    let search = async {
        loop {
            let (status, body) = get(at, session).await;
            assert_eq!(status, StatusCode::OK, "{body}");
            let events: Vec<Value> = serde_json::from_str(&body).unwrap();
            if let Some(chat) = events.into_iter().find(|e| e["type"] == "chat") {
                return chat;
            }
        }
    };
    timeout(DEADLINE, search).await.expect("the message before the deadline")
}

#[tokio::test]
async fn whoami_names_the_instance_and_counts() {
    let aster = start("aster").await;
    for number in 1..=2 {
        let expected = format!("aster (request number {number} here)\n");
        assert_eq!(get(&aster, "/whoami").await, (StatusCode::OK, expected));
    }
}

#[tokio::test]
async fn page_its_assets_and_checks_are_served() {
    let aster = start("aster").await;
    let paths = ["/", "/app.js", "/style.css", "/burr.svg", "/readyz", "/healthz"];
    for path in paths {
        let (status, body) = get(&aster, path).await;
        assert_eq!(status, StatusCode::OK, "{path}");
        assert!(!body.is_empty(), "{path}");
    }
    let page = get(&aster, "/").await.1;
    for inline in ["<script>", "<style", " style=", " onclick", "http:"] {
        assert!(!page.contains(inline), "the policy forbids {inline:?}");
    }
}

#[tokio::test]
async fn wrong_path_or_method_is_refused() {
    let aster = start("aster").await;
    for (method, path, status) in [
        (Method::GET, "/nothing", StatusCode::NOT_FOUND),
        (Method::POST, "/", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/poll/open", StatusCode::METHOD_NOT_ALLOWED),
        (Method::PUT, "/poll/x", StatusCode::METHOD_NOT_ALLOWED),
        (Method::GET, "/ws", StatusCode::UPGRADE_REQUIRED),
    ] {
        assert_eq!(ask(&aster, method, path, "").await.0, status, "{path}");
    }
}

#[tokio::test]
async fn polled_message_goes_round() {
    let aster = start("aster").await;
    let (mine, other) = (open_poll(&aster).await, open_poll(&aster).await);
    let draft = r#"{"from":"finch","text":" hello \"there\" "}"#;
    assert_eq!(ask(&aster, Method::POST, &mine, draft).await.0, StatusCode::NO_CONTENT);
    for session in [mine, other] {
        let chat = poll_chat(&aster, &session).await;
        assert_eq!(chat["text"], r#"hello "there""#);
        assert_eq!((&chat["from"], &chat["instance"]), (&json!("finch"), &json!("aster")));
    }
}

#[tokio::test]
async fn held_poll_is_answered_by_the_tick() {
    let aster = start("aster").await;
    let session = open_poll(&aster).await;
    loop {
        let events: Vec<Value> = serde_json::from_str(&get(&aster, &session).await.1).unwrap();
        assert!(!events.is_empty());
        if let Some(tick) = events.iter().find(|e| e["type"] == "tick") {
            assert_eq!(tick["sessions"], 1);
            return;
        }
    }
}

#[tokio::test]
async fn session_of_another_instance_is_unknown() {
    let (aster, bellis) = (start("aster").await, start("bellis").await);
    let session = open_poll(&aster).await;
    let refusal = r#"{"code":1,"message":"Session ID unknown"}"#.to_owned();
    let draft = r#"{"from":"finch","text":"hi"}"#;
    for (method, path) in
        [(Method::GET, session.as_str()), (Method::POST, &session), (Method::GET, "/poll/../../x")]
    {
        let answer = ask(&bellis, method, path, draft).await;
        assert_eq!(answer, (StatusCode::BAD_REQUEST, refusal.clone()));
    }
    assert_eq!(ask(&aster, Method::DELETE, &session, "").await.0, StatusCode::NO_CONTENT);
    assert_eq!(get(&aster, &session).await, (StatusCode::BAD_REQUEST, refusal));
}

#[tokio::test]
async fn bad_message_is_refused() {
    let aster = start("aster").await;
    let session = open_poll(&aster).await;
    let long_name = json!({ "from": "x".repeat(25), "text": "hi" }).to_string();
    let long_text = json!({ "from": "x", "text": "y".repeat(5000) }).to_string();
    for (body, status) in [
        ("", StatusCode::BAD_REQUEST),
        ("[]", StatusCode::BAD_REQUEST),
        (r#"{"from":"x","text":" "}"#, StatusCode::BAD_REQUEST),
        (r#"{"from":"x","text":"a\u0007"}"#, StatusCode::BAD_REQUEST),
        (&long_name, StatusCode::BAD_REQUEST),
        (&long_text, StatusCode::PAYLOAD_TOO_LARGE),
    ] {
        assert_eq!(ask(&aster, Method::POST, &session, body).await.0, status, "{body}");
    }
}

#[tokio::test]
async fn websocket_and_polling_share_one_chat() {
    let aster = start("aster").await;
    let mut socket = open_ws(&aster).await;
    let session = open_poll(&aster).await;
    socket.send(Message::text(r#"{"from":"finch","text":"hi"}"#)).await.unwrap();
    assert_eq!(event(&mut socket, "chat").await["text"], "hi");
    assert_eq!(poll_chat(&aster, &session).await["text"], "hi");
    assert!(event(&mut socket, "tick").await["count"].as_u64().unwrap() > 0);
}

#[tokio::test]
async fn websocket_is_told_of_a_bad_message_and_closed_for_a_long_one() {
    let aster = start("aster").await;
    let mut socket = open_ws(&aster).await;
    socket.send(Message::text("{}")).await.unwrap();
    event(&mut socket, "refused").await;
    socket.send(Message::text("x".repeat(5000))).await.unwrap();
    let code = timeout(DEADLINE, async {
        loop {
            if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
                return frame.map(|frame| u16::from(frame.code));
            }
        }
    });
    assert_eq!(code.await.expect("a close before the deadline"), Some(1009));
}

#[tokio::test]
async fn left_websocket_frees_its_session() {
    let aster = start("aster").await;
    let mut leaving = open_ws(&aster).await;
    let mut staying = open_ws(&aster).await;
    leaving.close(None).await.unwrap();
    while leaving.next().await.is_some_and(|end| end.is_ok()) {}
    timeout(DEADLINE, async { while event(&mut staying, "tick").await["sessions"] != 1 {} })
        .await
        .expect("one session before the deadline");
}

#[tokio::test]
async fn kill_resets_connections_and_frees_the_port() {
    let aster = start("aster").await;
    let address = aster.address();
    let mut socket = open_ws(&aster).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /readyz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut seen = Vec::new();
    while !seen.ends_with(b"ok\n") {
        assert_ne!(idle.read_buf(&mut seen).await.unwrap(), 0);
    }
    let session = open_poll(&aster).await;

    timeout(DEADLINE, aster.kill()).await.expect("death before the deadline");

    let ended = idle.read_buf(&mut seen).await.unwrap_err();
    assert_eq!(ended.kind(), ErrorKind::ConnectionReset);
    let ended = loop {
        if let Err(error) = socket.next().await.unwrap() {
            break error;
        }
    };
    assert!(matches!(ended, Error::Io(e) if e.kind() == ErrorKind::ConnectionReset));
    let refused = TcpStream::connect(address).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ConnectionRefused);

    let restored = Instance::start("aster", address).await.unwrap();
    assert_eq!(restored.address(), address);
    assert_eq!(get(&restored, &session).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn dropped_instance_dies_too() {
    let aster = start("aster").await;
    let mut socket = open_ws(&aster).await;
    drop(aster);
    let death = async { while socket.next().await.is_some_and(|event| event.is_ok()) {} };
    timeout(DEADLINE, death).await.expect("death before the deadline");
}

#[tokio::test]
async fn name_unfit_for_a_header_is_refused() {
    for name in ["", "a b", "a\r\nb", "é"] {
        let refused = Instance::start(name, SocketAddr::from(([127, 0, 0, 1], 0))).await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::InvalidInput, "{name:?}");
    }
}
