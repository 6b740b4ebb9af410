//! Session affinity: even without it, one instance per session with it, and a token that a client
//! can neither forge nor break anything with.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::support::burdock::scratch;
use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, Client, Fault, Request, eventually, raw, yaml};

const ON: &str = "session_affinity: true\n";

async fn five() -> Vec<Backend> {
    Backend::several(&["a", "b", "c", "d", "e"]).await
}

fn spread(counts: &BTreeMap<String, usize>) -> usize {
    let (most, least) = (counts.values().max(), counts.values().min());
    most.unwrap_or(&0) - least.unwrap_or(&0)
}

/// A fresh token and the instance it names.
async fn token(burdock: &Burdock) -> (String, String) {
    let answer = burdock.client().get("/").await;
    let value = answer.cookie("BURDOCK").expect("a new session gets a cookie");
    (value, answer.instance().to_owned())
}

fn with_cookie(value: &str) -> Request {
    Request::get("/").with("Cookie", &format!("BURDOCK={value}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn without_affinity_any_prefix_of_requests_is_even_within_one() {
    let backends = five().await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), "")).await;
    let mut clients: Vec<_> = (0..7).map(|_| burdock.session()).collect();
    let mut counts: BTreeMap<_, _> = backends.iter().map(|b| (b.name.clone(), 0)).collect();
    for n in 0..203 {
        let answer = clients[n % 7].get("/").await;
        *counts.get_mut(answer.instance()).expect("a known instance") += 1;
        assert!(spread(&counts) <= 1, "after {} requests: {counts:?}", n + 1);
        assert_eq!(answer.set_cookie("BURDOCK"), None, "affinity is off");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_affinity_each_session_stays_and_sessions_are_even_within_one() {
    let backends = five().await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    let mut sessions: BTreeMap<_, _> = backends.iter().map(|b| (b.name.clone(), 0)).collect();
    for n in 0..300 {
        let mut client = burdock.session();
        let first = client.get("/").await;
        *sessions.get_mut(first.instance()).expect("a known instance") += 1;
        assert!(spread(&sessions) <= 1, "after {} sessions: {sessions:?}", n + 1);
        client.disconnect();
        for _ in 1..20 {
            let answer = client.get("/").await;
            assert_eq!(answer.instance(), first.instance(), "session {n}");
            assert_eq!(answer.set_cookie("BURDOCK"), None, "a kept session needs no new cookie");
        }
    }
    let kept = burdock.metrics().await.sum("burdock_affinity_total", &[("outcome", "kept")]);
    assert_eq!(kept, 300.0 * 19.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_binds_across_connections_and_the_connection_does_not() {
    let backends = Backend::several(&["a", "b"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    // One connection, two sessions: as behind a proxy that pools.
    let mut shared = burdock.client();
    let first = shared.get("/").await;
    let second = shared.get("/").await;
    assert_ne!(first.instance(), second.instance(), "no cookie, so another session");
    for answer in [&first, &second, &first, &second] {
        let again = shared.send(&with_cookie(&answer.cookie("BURDOCK").unwrap())).await;
        assert_eq!(again.instance(), answer.instance());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_with_any_character_changed_is_absent_counted_and_replaced() {
    let backends = Backend::several(&["a", "b"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    let (good, _) = token(&burdock).await;
    let mut client = burdock.client();
    let mut rejected = 0.0;
    for at in 0..good.len() {
        let mut bad = good.clone().into_bytes();
        // The last character of base64 may hold unused bits: step far enough to change used ones.
        bad[at] = if bad[at] == b'A' { b'g' } else { b'A' };
        let answer = client.send(&with_cookie(std::str::from_utf8(&bad).unwrap())).await;
        assert_eq!(answer.status, 200, "character {at}");
        assert!(answer.cookie("BURDOCK").is_some(), "character {at}: a fresh cookie");
        rejected += 1.0;
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_affinity_rejected_total", &[]), rejected);
    let reasons = ["malformed", "tampered", "unknown_key"]
        .map(|reason| metrics.sum("burdock_affinity_rejected_total", &[("reason", reason)]));
    assert_eq!(reasons.iter().sum::<f64>(), rejected, "{reasons:?}");
    assert!(reasons[1] > reasons[0], "most of a token is sealed: {reasons:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn broken_cookies_route_as_absent_by_reason() {
    let backends = Backend::several(&["a", "b"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    let (good, _) = token(&burdock).await;
    let truncated = good[..good.len() / 2].to_owned();
    let long = good.repeat(5000 / good.len() + 1);
    let twice = format!("{good}x; BURDOCK={good}y");
    let cases = [
        ("/empty", "", "malformed"),
        ("/words", "not a token", "malformed"),
        ("/cut", &truncated, ""),
        ("/long", &long, "oversized"),
        ("/twice", &twice, "duplicated"),
    ];
    for (path, value, reason) in cases {
        let request = Request::get(path).with("Cookie", &format!("BURDOCK={value}"));
        let answer = burdock.client().send(&request).await;
        assert_eq!(answer.status, 200, "{path}");
        assert!(answer.cookie("BURDOCK").is_some(), "{path} gets a fresh cookie");
        let line = &burdock.access(path, 1).await[0];
        assert_eq!(line["affinity"], "rejected", "{line}");
        let told = line["affinity_reason"].as_str().unwrap_or_default();
        assert!(!told.is_empty() && (reason.is_empty() || told == reason), "{line}");
        let labels = [("reason", told)];
        let metrics = burdock.metrics().await;
        assert!(metrics.sum("burdock_affinity_rejected_total", &labels) >= 1.0, "{told}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_several_cookies_the_one_renewed_last_is_honoured_in_any_order() {
    let backends = Backend::several(&["a", "b"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    let (old, _) = token(&burdock).await;
    // Tokens tell time in seconds.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let before = second();
    eventually("a later second", || (second() > before).then_some(())).await;
    let (new, home) = token(&burdock).await;
    let mut client = burdock.client();
    let several = |values: &[&str]| with_cookie(&values.join("; BURDOCK="));
    for _ in 0..3 {
        for values in [
            &[new.as_str(), &old][..],
            &[&old, &new],
            &["junk", &new],
            &[&new, ""],
            &[&old, "junk", &new, &old],
        ] {
            let answer = client.send(&several(values)).await;
            assert_eq!(answer.instance(), home, "{values:?}");
            assert_eq!(answer.set_cookie("BURDOCK"), None, "{values:?}: it is a kept session");
        }
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_affinity_rejected_total", &[]), 0.0);
    let answer = client.send(&several(&[new.as_str(); 5])).await;
    assert!(answer.cookie("BURDOCK").is_some(), "more than four are not looked at");
    let labels = [("reason", "duplicated")];
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_affinity_rejected_total", &labels), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_another_service_is_foreign() {
    let backends = Backend::several(&["a", "b"]).await;
    let (a, b) = (backends[0].address, backends[1].address);
    let burdock = Burdock::start(&format!(
        "{}services:\n  one:\n    hosts: [one.test]\n    versions:\n      v1:\n        \
         session_affinity: true\n        instances: [{a}]\n  two:\n    hosts: [two.test]\n    \
         versions:\n      v1:\n        session_affinity: true\n        instances: [{b}]\n",
        support::HEADER
    ))
    .await;
    let mut client = burdock.client();
    let one = client.send(&Request::get("/").with("Host", "one.test")).await;
    let value = one.cookie("BURDOCK").unwrap();
    assert_eq!(one.instance(), "a");
    let two = client.send(&with_cookie(&value).with("Host", "two.test")).await;
    assert_eq!((two.status, two.instance()), (200, "b"));
    assert!(two.cookie("BURDOCK").is_some());
    let labels = [("service", "two"), ("version", "v1"), ("reason", "foreign")];
    assert_eq!(burdock.metrics().await.sum("burdock_affinity_rejected_total", &labels), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_expire_by_age_and_by_rest() {
    for (lifetime, reason) in [("ttl: 1s", "expired"), ("idle_ttl: 1s", "idle_expired")] {
        let backends = Backend::several(&["a", "b"]).await;
        let rest = format!("{ON}affinity: {{ {lifetime} }}\n");
        let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
        let (value, instance) = token(&burdock).await;
        let mut client = burdock.client();
        let fresh = client.send(&with_cookie(&value)).await;
        assert_eq!(fresh.instance(), instance, "{lifetime}: honoured while young");
        loop {
            let answer = client.send(&with_cookie(&value)).await;
            assert_eq!(answer.status, 200);
            let labels = [("reason", reason)];
            if burdock.metrics().await.sum("burdock_affinity_rejected_total", &labels) > 0.0 {
                assert!(answer.cookie("BURDOCK").is_some(), "{lifetime}: a fresh cookie");
                break;
            }
            assert_eq!(answer.instance(), instance, "{lifetime}: honoured until then");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resting_lifetime_is_renewed_only_now_and_then() {
    let backends = Backend::several(&["a", "b"]).await;
    let rest = format!("{ON}affinity: {{ idle_ttl: 4s }}\n");
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let mut client = burdock.session();
    let instance = client.get("/").await.instance().to_owned();
    let begin = std::time::Instant::now();
    let early = client.get("/").await;
    if begin.elapsed().as_millis() < 500 {
        assert_eq!(early.set_cookie("BURDOCK"), None, "a quarter has not passed");
    }
    // Kept past its first lifetime, since each use renews it once a quarter has passed.
    let mut renewals = 0;
    while begin.elapsed().as_secs() < 6 {
        let answer = client.get("/").await;
        assert_eq!(answer.instance(), instance);
        renewals += usize::from(answer.set_cookie("BURDOCK").is_some());
        support::pause().await;
    }
    assert!((3..=7).contains(&renewals), "{renewals} renewals in 6 s at 4 s");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_sees_other_cookies_unharmed_and_never_the_token() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], ON)).await;
    let (value, _) = token(&burdock).await;
    let mut client = burdock.client();
    let line = format!("x=1; BURDOCK={value}; y=\"q, z\"; BURDOCKS=no;odd; =3");
    client.send(&Request::get("/").with("Cookie", &line)).await;
    assert_eq!(a.last_request().head.all("cookie"), ["x=1; y=\"q, z\"; BURDOCKS=no;odd; =3"]);
    client.send(&with_cookie(&value)).await;
    assert_eq!(a.last_request().head.field("cookie"), None, "no empty field is left over");
    let untouched = "b=2;c=3;  d=4; ";
    client.send(&Request::get("/").with("Cookie", untouched)).await;
    assert_eq!(a.last_request().head.field("cookie"), Some(untouched.trim()));
    let passing = format!("{ON}affinity: {{ pass_cookie: true }}\n");
    assert_eq!(burdock.reload(&yaml(&[&a], &passing)).await["message"], "reloaded");
    client.send(&with_cookie(&value)).await;
    assert_eq!(a.last_request().head.field("cookie"), Some(format!("BURDOCK={value}").as_str()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_applications_own_cookies_come_through_beside_ours() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], ON)).await;
    let answer = burdock.client().get("/cookie").await;
    let lines = answer.head.all("set-cookie");
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines.contains(&"app=1; Path=/") && lines.contains(&"other=2; HttpOnly"), "{lines:?}");
}

fn attributes(line: &str) -> Vec<String> {
    let mut parts: Vec<_> = line.split(';').skip(1).map(|part| part.trim().to_owned()).collect();
    parts.sort();
    parts
}

#[tokio::test(flavor = "multi_thread")]
async fn cookie_attributes_are_the_promised_ones() {
    let a = Backend::start("a").await;
    let trusting = format!("{ON}trusted_proxies: [127.0.0.0/8]\n");
    let burdock = Burdock::start(&yaml(&[&a], &trusting)).await;
    let answer = burdock.client().get("/").await;
    let line = answer.set_cookie("BURDOCK").unwrap();
    assert_eq!(attributes(line), ["HttpOnly", "Path=/", "SameSite=Lax"]);
    let https = Request::get("/").with("X-Forwarded-Proto", "https");
    let answer = burdock.client().send(&https).await;
    let line = answer.set_cookie("BURDOCK").unwrap();
    assert_eq!(attributes(line), ["HttpOnly", "Path=/", "SameSite=Lax", "Secure"]);
    let every = "affinity: { cookie: { name: STICK, domain: app.test, path: /app, secure: always, \
                 http_only: false, same_site: none, partitioned: true, max_age: 1h } }\n";
    burdock.reload(&yaml(&[&a], &format!("{ON}{every}"))).await;
    let answer = burdock.client().get("/").await;
    let line = answer.set_cookie("STICK").expect("the configured name");
    let told = ["Domain=app.test", "Max-Age=3600", "Partitioned", "Path=/app", "SameSite=None"];
    assert_eq!(attributes(line), [told.as_slice(), &["Secure"]].concat());
    burdock.reload(&yaml(&[&a], &format!("{ON}affinity: {{ cookie: SHORT }}\n"))).await;
    assert!(burdock.client().get("/").await.cookie("SHORT").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cacheable_answer_that_sets_the_cookie_is_made_private() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], ON)).await;
    let raw = "HTTP/1.1 200 OK\r\nCache-Control: public, max-age=60\r\nContent-Length: 0\r\n\r\n";
    a.misbehaves(Fault::Raw(raw.into()));
    let mut client = burdock.session();
    let answer = client.get("/").await;
    assert!(answer.cookie("BURDOCK").is_some());
    let control = answer.head.all("cache-control").join(", ");
    assert!(control.contains("private") && !control.contains("public"), "{control}");
    let kept = client.get("/").await;
    assert_eq!(kept.field("cache-control"), Some("public, max-age=60"), "nothing set, untouched");
}

/// 32 bytes of one value in base64.
fn key(byte: u8) -> String {
    use base64::Engine;
    base64::engine::general_purpose::STANDARD.encode([byte; 32])
}

#[tokio::test(flavor = "multi_thread")]
async fn rotated_keys_open_old_tokens_and_seal_new_ones() {
    let backends = Backend::several(&["a", "b"]).await;
    let file = scratch().join("affinity.keys");
    std::fs::write(&file, format!("{}\n", key(1))).unwrap();
    let rest = format!("{ON}affinity_keys: {{ file: {} }}\n", file.display());
    let config = yaml(&backends.iter().collect::<Vec<_>>(), &rest);
    let (burdock, replica) = (Burdock::start(&config).await, Burdock::start(&config).await);
    let (old, instance) = token(&burdock).await;
    let other = replica.client().send(&with_cookie(&old)).await;
    assert_eq!(other.instance(), instance, "a replica with the same key honours it");
    assert_eq!(other.set_cookie("BURDOCK"), None);

    std::fs::write(&file, format!("{}\n{}\n", key(2), key(1))).unwrap();
    burdock.signal(libc::SIGHUP);
    eventually("the new key seals", || (!burdock.reloads().is_empty()).then_some(())).await;
    let kept = burdock.client().send(&with_cookie(&old)).await;
    assert_eq!(kept.instance(), instance, "the old token is still honoured");
    let (new, newer) = token(&burdock).await;

    std::fs::write(&file, format!("{}\n", key(2))).unwrap();
    let before = burdock.reloads().len();
    burdock.signal(libc::SIGHUP);
    burdock.reload_after(before).await;
    let kept = burdock.client().send(&with_cookie(&new)).await;
    assert_eq!((kept.instance(), kept.set_cookie("BURDOCK")), (newer.as_str(), None));
    assert!(burdock.client().send(&with_cookie(&old)).await.cookie("BURDOCK").is_some());
    let labels = [("reason", "unknown_key")];
    assert_eq!(burdock.metrics().await.sum("burdock_affinity_rejected_total", &labels), 1.0);
    std::fs::remove_dir_all(file.parent().unwrap()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_made_at_start_outlives_a_restart() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let config = yaml(&backends.iter().collect::<Vec<_>>(), ON);
    let first = Burdock::start(&config).await;
    let (value, instance) = token(&first).await;
    let (directory, path) = (first.directory.clone(), first.config.display().to_string());
    let second = Burdock::spawn(directory, path.clone().into(), &["run", "-c", &path]).await;
    let answer = second.client().send(&with_cookie(&value)).await;
    assert_eq!((answer.instance(), answer.set_cookie("BURDOCK")), (instance.as_str(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cookie_rides_on_a_101_and_binds_the_websocket() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    let mut client = burdock.session();
    let mut socket = WebSocket::open(burdock.address(), "/ws", "").await;
    socket.echo("hello").await;
    client.remember(&socket.head);
    let line = client.cookie_line().expect("a cookie on the 101");
    for _ in 0..6 {
        assert_eq!(client.get("/").await.instance(), socket.instance());
        let extra = format!("Cookie: {line}\r\n");
        let bound = WebSocket::open(burdock.address(), "/ws", &extra).await;
        assert_eq!(bound.instance(), socket.instance());
        assert_eq!(bound.head.field("set-cookie"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_removed_instance_is_never_aimed_at_and_the_line_says_removed() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let drain = format!("{ON}drain: {{ timeout: 1s, spread: 0s }}\n");
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, &drain)).await;
    let (value, instance) = token(&burdock).await;
    let rest: Vec<_> = backends.iter().filter(|b| b.name != instance).collect();
    burdock.reload(&yaml(&rest, &drain)).await;
    let gone = backends.iter().find(|b| b.name == instance).unwrap();
    let mut client = burdock.client();
    loop {
        let answer = client.send(&with_cookie(&value)).await;
        assert_eq!(answer.status, 200);
        if answer.instance() != instance {
            assert!(answer.cookie("BURDOCK").is_some());
            break;
        }
    }
    let count = gone.request_count();
    let answer = client.send(&Request { path: "/after".into(), ..with_cookie(&value) }).await;
    assert_ne!(answer.instance(), instance);
    assert_eq!(gone.request_count(), count);
    let line = &burdock.access("/after", 1).await[0];
    assert_eq!(
        (&line["affinity"], &line["affinity_reason"]),
        (&"rehomed".into(), &"removed".into())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_of_one_session_rehome_together() {
    let backends = five().await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), ON)).await;
    for _ in 0..3 {
        let (value, instance) = token(&burdock).await;
        let gone = backends.iter().find(|b| b.name == instance).unwrap();
        gone.dies().await;
        let mut tasks = tokio::task::JoinSet::new();
        for _ in 0..20 {
            let (address, request) = (burdock.address(), with_cookie(&value));
            tasks.spawn(async move { Client::new(address).send(&request).await });
        }
        let answers = tasks.join_all().await;
        assert!(answers.iter().all(|answer| answer.status == 200));
        let homes: std::collections::BTreeSet<_> =
            answers.iter().map(|answer| answer.instance().to_owned()).collect();
        assert_eq!(homes.len(), 1, "{homes:?}");
        gone.comes_back();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_a_torn_cookie_line_never_breaks_the_request() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], ON)).await;
    let lines: [&[u8]; 6] = [
        b"BURDOCK",
        b"BURDOCK=",
        b"=BURDOCK",
        b"; ;;BURDOCK=;=",
        b"BURDOCK=\"\xff\xfe\"",
        b"\xe9=1",
    ];
    for line in lines {
        let head = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nCookie: ";
        let bytes = [head.as_slice(), line, b"\r\n\r\n"].concat();
        let answer = raw::exchange_text(burdock.address(), bytes).await;
        assert!(answer.starts_with("HTTP/1.1 200 "), "{line:?}: {answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn first_requests_of_one_client_land_together_where_that_is_asked_for() {
    let backends = five().await;
    let rest = format!("{ON}affinity: {{ first_burst: client }}\n");
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let mut homes = BTreeMap::new();
    for browser in 0..40 {
        let begin = std::time::Instant::now();
        let mut burst = tokio::task::JoinSet::new();
        for _ in 0..8 {
            let request = Request::get("/").with("User-Agent", &format!("browser {browser}"));
            let mut client = burdock.client();
            burst.spawn(async move { client.send(&request).await });
        }
        let answers = burst.join_all().await;
        let together = answers.iter().all(|answer| answer.instance() == answers[0].instance());
        assert!(together || begin.elapsed().as_millis() > 900, "browser {browser}");
        assert!(answers.iter().all(|answer| answer.cookie("BURDOCK").is_some()));
        *homes.entry(answers[0].instance().to_owned()).or_insert(0) += 1;
    }
    assert_eq!(homes.values().copied().collect::<Vec<_>>(), [8; 5], "each burst is one turn");
    // A second later the same client is taken for another, and is spread as such.
    let mut seen = std::collections::BTreeSet::new();
    eventually_async("another instance", async || {
        let request = Request::get("/").with("User-Agent", "browser 0");
        seen.insert(burdock.client().send(&request).await.instance().to_owned());
        seen.len() > 1
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_does_not_follow_an_instance_that_cannot_serve() {
    let backends = Backend::several(&["a", "b"]).await;
    let rest = format!("{ON}affinity: {{ first_burst: client }}\nbreaker: off\n");
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let first = burdock.client().get("/").await.instance().to_owned();
    let gone = backends.iter().find(|b| b.name == first).unwrap();
    gone.dies().await;
    for _ in 0..4 {
        let answer = burdock.client().get("/").await;
        assert_eq!(answer.status, 200);
        assert_ne!(answer.instance(), first);
    }
}

/// Asks until the answer is yes.
async fn eventually_async(what: &str, mut probe: impl AsyncFnMut() -> bool) {
    let begin = std::time::Instant::now();
    while !probe().await {
        assert!(begin.elapsed() < support::DEADLINE, "{what}");
        support::pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_with_other_keys_takes_a_token_for_absent() {
    let backends = Backend::several(&["a", "b"]).await;
    let keyed = |byte| format!("{ON}affinity_keys: [\"{}\"]\n", key(byte));
    let all: Vec<_> = backends.iter().collect();
    let (one, other) = (
        Burdock::start(&yaml(&all, &keyed(1))).await,
        Burdock::start(&yaml(&all, &keyed(2))).await,
    );
    let (value, _) = token(&one).await;
    let answer = other.client().send(&with_cookie(&value)).await;
    assert_eq!(answer.status, 200);
    let fresh = answer.cookie("BURDOCK").expect("a session of its own");
    assert_eq!(other.client().send(&with_cookie(&fresh)).await.instance(), answer.instance());
    let labels = [("reason", "unknown_key")];
    assert_eq!(other.metrics().await.sum("burdock_affinity_rejected_total", &labels), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_file_that_changes_is_taken_over_by_itself_and_a_broken_one_is_not() {
    let backends = Backend::several(&["a", "b"]).await;
    let directory = scratch();
    let file = directory.join("affinity.keys");
    let new_key = || {
        let output = support::run_to_end(&directory, &["keys", "new"]);
        assert_eq!(output.status.code(), Some(0));
        String::from_utf8(output.stdout).expect("a line of text")
    };
    let (first, second) = (new_key(), new_key());
    assert_ne!(first, second);
    std::fs::write(&file, &first).unwrap();
    let rest = format!("{ON}affinity_keys: {{ file: {} }}\n", file.display());
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), &rest)).await;
    let (old, instance) = token(&burdock).await;
    std::fs::write(&file, format!("{second}# of last year\n{first}")).unwrap();
    assert_eq!(burdock.reload_after(0).await["changes"], "affinity_keys: 1 added, 0 removed");
    assert_eq!(burdock.client().send(&with_cookie(&old)).await.instance(), instance);
    std::fs::write(&file, "not a key\n").unwrap();
    assert_eq!(burdock.reload_after(1).await["message"], "reload rejected");
    let kept = burdock.client().send(&with_cookie(&old)).await;
    assert_eq!((kept.instance(), kept.set_cookie("BURDOCK")), (instance.as_str(), None));
    drop(burdock);
    std::fs::remove_dir_all(&directory).unwrap();
}
