//! Instances that speak about sessions: a field of an answer lets a session go, or moves it.

use crate::support::ws::WebSocket;
use crate::support::{Backend, Burdock, FAST_READINESS, Fault, Request, Response, yaml};

const ON: &str = "session_affinity: true\ntrusted_proxies: [127.0.0.0/8]\naffinity: { \
                  instance_header: X-Burdock-Affinity, header: X-Burdock-Session, \
                  cross_site_cookie: true, cookie: { path: /app, max_age: 1h } }\n";

async fn start(rest: &str) -> (Vec<Backend>, Burdock) {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let text = format!("{rest}{FAST_READINESS}");
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &text)).await;
    (backends, burdock)
}

/// A session of `a`: its token.
async fn session_of_a(burdock: &Burdock) -> String {
    loop {
        let answer = burdock.client().get("/").await;
        if answer.instance() == "a" {
            return answer.cookie("BURDOCK").expect("a token");
        }
    }
}

fn bound(token: &str) -> Request {
    Request::get("/x").with("Cookie", &format!("BURDOCK={token}"))
}

/// What `backend` says with its next answer.
fn says(backend: &Backend, fields: &str) {
    let answer = format!(
        "HTTP/1.1 200 OK\r\nX-Instance: {}\r\n{fields}Content-Length: 0\r\n\r\n",
        backend.name
    );
    backend.misbehaves_times(Fault::Raw(answer.into_bytes()), 1);
}

async fn fates(burdock: &Burdock) -> [f64; 3] {
    let metrics = burdock.metrics().await;
    ["released", "rebound", "ignored"]
        .map(|fate| metrics.sum("burdock_affinity_orders_total", &[("fate", fate)]))
}

fn attributes(answer: &Response, cookie: &str) -> Vec<String> {
    let line = answer.set_cookie(cookie).unwrap_or_else(|| panic!("{cookie} in {answer:?}"));
    let mut parts: Vec<_> = line.split("; ").skip(1).map(str::to_owned).collect();
    parts.sort();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn release_makes_the_client_forget_its_token() {
    let (backends, burdock) = start(ON).await;
    let token = session_of_a(&burdock).await;
    says(&backends[0], "X-Burdock-Affinity: release\r\nCache-Control: public\r\n");
    let request = bound(&token).with("X-Forwarded-Proto", "https");
    let answer = burdock.client().send(&request).await;
    assert_eq!(answer.instance(), "a");
    assert_eq!(answer.field("x-burdock-affinity"), None, "the client never sees it");
    assert_eq!(answer.cookie("BURDOCK").as_deref(), Some(""));
    let own = ["HttpOnly", "Max-Age=0", "Path=/app", "SameSite=Lax", "Secure"];
    assert_eq!(attributes(&answer, "BURDOCK"), own);
    let paired = ["HttpOnly", "Max-Age=0", "Partitioned", "Path=/app", "SameSite=None", "Secure"];
    assert_eq!(attributes(&answer, "BURDOCK_XS"), paired);
    assert_eq!(answer.field("x-burdock-session"), Some(""), "nothing stands for none");
    assert_eq!(answer.field("cache-control"), Some("private"));
    // A client that brings the empty value is as one that brings none, or worse things.
    let empty = Request::get("/x").with("X-Burdock-Session", "");
    assert!(burdock.client().send(&empty).await.cookie("BURDOCK").is_some_and(|it| !it.is_empty()));
    assert_eq!(fates(&burdock).await, [1.0, 0.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rebind_moves_the_session_to_an_instance_that_may_serve() {
    let (backends, burdock) = start(ON).await;
    let token = session_of_a(&burdock).await;
    says(&backends[0], "X-Burdock-Affinity: rebind=c\r\n");
    let answer = burdock.client().send(&bound(&token)).await;
    assert_eq!((answer.instance(), answer.field("x-burdock-affinity")), ("a", None));
    let moved = answer.cookie("BURDOCK").expect("a fresh token");
    for _ in 0..4 {
        let answer = burdock.client().send(&bound(&moved)).await;
        assert_eq!((answer.instance(), answer.set_cookie("BURDOCK")), ("c", None));
    }
    // So does one that answers a new session.
    for backend in &backends {
        says(backend, "X-Burdock-Affinity: rebind=b\r\n");
    }
    let answer = burdock.client().get("/").await;
    backends.iter().for_each(|backend| backend.misbehaves(Fault::None));
    let token = answer.cookie("BURDOCK").expect("a token");
    assert_eq!(burdock.client().send(&bound(&token)).await.instance(), "b");
    assert_eq!(fates(&burdock).await, [0.0, 2.0, 0.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_order_or_cannot_be_done_changes_nothing() {
    let (backends, burdock) = start(ON).await;
    let token = session_of_a(&burdock).await;
    backends[1].ready(false);
    burdock.wait_health("b", "unready").await;
    let orders = [
        "X-Burdock-Affinity: rebind=b\r\n",
        "X-Burdock-Affinity: rebind=nobody\r\n",
        "X-Burdock-Affinity: rebind=\r\n",
        "X-Burdock-Affinity: logout\r\n",
        "X-Burdock-Affinity: release\r\nX-Burdock-Affinity: release\r\n",
    ];
    for order in orders {
        says(&backends[0], order);
        let answer = burdock.client().send(&bound(&token)).await;
        assert_eq!((answer.instance(), answer.set_cookie("BURDOCK")), ("a", None), "{order}");
        assert_eq!(answer.field("x-burdock-affinity"), None, "{order}");
    }
    assert_eq!(fates(&burdock).await, [0.0, 0.0, 5.0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_an_instance_gives_orders() {
    let (backends, burdock) = start(ON).await;
    let token = session_of_a(&burdock).await;
    let forged = bound(&token).with("X-Burdock-Affinity", "rebind=c");
    assert_eq!(burdock.client().send(&forged).await.instance(), "a");
    assert_eq!(backends[0].last_request().head.field("x-burdock-affinity"), None);
    let extra = format!("Cookie: BURDOCK={token}\r\nX-Burdock-Affinity: release\r\n");
    let socket = WebSocket::open(burdock.address(), "/ws", &extra).await;
    assert_eq!((socket.instance(), socket.head.field("set-cookie")), ("a", None));
    assert_eq!(fates(&burdock).await, [0.0; 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_key_the_field_is_the_apps_own() {
    let (backends, burdock) = start("session_affinity: true\n").await;
    let token = session_of_a(&burdock).await;
    says(&backends[0], "X-Burdock-Affinity: release\r\n");
    let answer = burdock.client().send(&bound(&token)).await;
    assert_eq!(answer.field("x-burdock-affinity"), Some("release"));
    assert_eq!(answer.set_cookie("BURDOCK"), None);
}
