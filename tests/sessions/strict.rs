//! What decides about a session besides its token: `affinity.strict`, and what answers that carry a
//! token say to caches.

use crate::support::{Backend, Burdock, FAST_READINESS, Fault, Request, Response, yaml};

const STRICT: &str = "session_affinity: true\naffinity: { strict: true, engine_io: true }\n\
                      drain: { timeout: 0s }\n";

fn config(backends: &[Backend], rest: &str) -> String {
    yaml(&backends.iter().collect::<Vec<_>>(), rest)
}

/// A session, and the place of its instance.
async fn session(burdock: &Burdock, backends: &[Backend]) -> (Request, usize) {
    let answer = burdock.client().get("/").await;
    let place = backends.iter().position(|b| b.name == answer.instance()).expect("an instance");
    let cookie = format!("BURDOCK={}", answer.cookie("BURDOCK").expect("a token"));
    (Request::get("/bound").with("Cookie", &cookie), place)
}

fn assert_unavailable(answer: &Response) {
    assert_eq!(answer.status, 503, "{answer:?}");
    assert_eq!(answer.text(), "503 session_unavailable\n");
    assert_eq!(answer.field("retry-after"), Some("1"));
    assert_eq!(answer.set_cookie("BURDOCK"), None, "the session stays bound");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_session_waits_for_its_instance() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let rest = format!("{STRICT}{FAST_READINESS}");
    let burdock = Burdock::start(&config(&backends, &rest)).await;
    let (request, place) = session(&burdock, &backends).await;
    let own = &backends[place];
    own.ready(false);
    burdock.wait_health(&own.name, "unready").await;
    let others = |b: &&Backend| b.name != own.name;
    let before: usize = backends.iter().filter(others).map(Backend::request_count).sum();
    for _ in 0..3 {
        assert_unavailable(&burdock.client().send(&request).await);
    }
    let after: usize = backends.iter().filter(others).map(Backend::request_count).sum();
    assert_eq!(after, before, "no other instance was asked");
    let line = &burdock.access("/bound", 3).await[0];
    assert_eq!(
        (&line["affinity"], &line["affinity_reason"], &line["error"]),
        (&"refused".into(), &"unready".into(), &"session_unavailable".into())
    );
    assert_eq!(burdock.client().get("/").await.status, 200, "new sessions go elsewhere");
    own.ready(true);
    burdock.wait_health(&own.name, "ready").await;
    assert_eq!(burdock.client().send(&request).await.instance(), own.name);
    let labels = [("reason", "session_unavailable")];
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_errors_total", &labels), 3.0);
    assert_eq!(metrics.sum("burdock_rehomes_total", &[]), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_session_is_not_tried_elsewhere_and_a_new_one_is() {
    let backends = Backend::several(&["a", "b"]).await;
    let rest = format!("{STRICT}breaker: off\n");
    let burdock = Burdock::start(&config(&backends, &rest)).await;
    let (request, place) = session(&burdock, &backends).await;
    backends[place].dies().await;
    let before = backends[1 - place].request_count();
    assert_unavailable(&burdock.client().send(&request).await);
    assert_eq!(backends[1 - place].request_count(), before);
    for _ in 0..4 {
        assert_eq!(burdock.client().get("/").await.instance(), backends[1 - place].name);
    }
    backends[place].comes_back();
    assert_eq!(burdock.client().send(&request).await.instance(), backends[place].name);
    // What was sent may have been done: it is an error like any other.
    backends[place].misbehaves_times(Fault::ResetBeforeAnswer, 1);
    let post = Request { method: "POST".into(), ..request };
    assert_eq!(burdock.client().send(&post).await.text(), "502 instance_reset\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_strict_session_of_an_instance_that_was_taken_out_begins_anew() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&config(&backends, STRICT)).await;
    let (request, place) = session(&burdock, &backends).await;
    let others: Vec<_> = backends.iter().filter(|b| b.name != backends[place].name).collect();
    burdock.reload(&yaml(&others, STRICT)).await;
    burdock.wait_metric("burdock_instance_weight", &[], |weights| weights < 3.0).await;
    let answer = burdock.client().send(&request).await;
    assert_eq!(answer.status, 200);
    assert!(answer.cookie("BURDOCK").is_some());
}

async fn answered(rest: &str, fields: &str) -> Response {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], &format!("session_affinity: true\n{rest}"))).await;
    a.misbehaves(Fault::Raw(
        format!("HTTP/1.1 200 OK\r\n{fields}Content-Length: 0\r\n\r\n").into_bytes(),
    ));
    let answer = burdock.client().get("/").await;
    assert!(answer.cookie("BURDOCK").is_some());
    answer
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_caches_is_made_private_and_never_weaker() {
    for (fields, told) in [
        ("", &["private"][..]),
        (
            "Cache-Control: public, s-maxage=60\r\nCache-Control: max-age=9\r\n",
            &["max-age=9, private"],
        ),
        ("Cache-Control: no-store\r\nCDN-Cache-Control: max-age=60\r\n", &["no-store"]),
        ("Cache-Control: private, no-cache\r\n", &["private, no-cache"]),
    ] {
        let answer = answered("", fields).await;
        assert_eq!(answer.head.all("cache-control"), told, "{fields}");
        assert_eq!(answer.field("cdn-cache-control"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_protection_nothing_is_said_to_caches() {
    let fields = "Cache-Control: public, max-age=60\r\nCDN-Cache-Control: max-age=60\r\n";
    let answer = answered("affinity: { cache_control: off }\n", fields).await;
    assert_eq!(answer.head.all("cache-control"), ["public, max-age=60"]);
    assert_eq!(answer.field("cdn-cache-control"), Some("max-age=60"));
}
