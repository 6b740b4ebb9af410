//! What carries a token besides its cookie: the paired cookie, a field, a query parameter; and
//! engine.io's own session ids, for clients that carry nothing.

use std::collections::BTreeMap;

use crate::support::wire::chunked;
use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, FAST_READINESS, Fault, Request, yaml};

const ALL: &str = "session_affinity: true\ntrusted_proxies: [127.0.0.0/8]\naffinity: { header: \
                   X-Burdock-Session, query: burdock, cross_site_cookie: true }\n";

async fn start(names: &[&str], rest: &str) -> (Vec<Backend>, Burdock) {
    let backends = Backend::several(names).await;
    let burdock = Burdock::start(&yaml(&backends.iter().collect::<Vec<_>>(), rest)).await;
    (backends, burdock)
}

/// A token of each instance.
async fn tokens(burdock: &Burdock, instances: usize) -> BTreeMap<String, String> {
    let mut tokens = BTreeMap::new();
    while tokens.len() < instances {
        let answer = burdock.client().get("/").await;
        tokens.insert(answer.instance().to_owned(), answer.cookie("BURDOCK").expect("a cookie"));
    }
    tokens
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Held {
    Nothing,
    Good,
    Bad,
}

/// Carriers in the order in which they are believed.
const CARRIERS: [&str; 4] = ["header", "query", "cookie", "paired"];

fn request(held: [Held; 4], tokens: &[String]) -> Request {
    let mut request = Request::get("/");
    let mut cookies = Vec::new();
    for ((carrier, held), token) in CARRIERS.iter().zip(held).zip(tokens) {
        let value = match held {
            Held::Nothing => continue,
            Held::Good => token.clone(),
            Held::Bad => format!("{token}AAAA"),
        };
        match *carrier {
            "header" => request = request.with("X-Burdock-Session", &value),
            "query" => request.path = format!("/?burdock={value}"),
            "cookie" => cookies.push(format!("BURDOCK={value}")),
            _ => cookies.push(format!("BURDOCK_XS={value}")),
        }
    }
    // The paired cookie comes first on the line: its place decides nothing.
    cookies.reverse();
    if cookies.is_empty() { request } else { request.with("Cookie", &cookies.join("; ")) }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_all_carriers_the_first_whose_token_is_honoured_decides() {
    let (_backends, burdock) = start(&["a", "b", "c", "d"], ALL).await;
    let (instances, tokens): (Vec<_>, Vec<_>) = tokens(&burdock, 4).await.into_iter().unzip();
    let mut client = burdock.client();
    for case in 0..81_usize {
        let held: [Held; 4] = std::array::from_fn(|place| {
            [Held::Nothing, Held::Good, Held::Bad][case / 3_usize.pow(place as u32) % 3]
        });
        let path = format!("/{case}");
        let mut request = request(held, &tokens);
        request.path = request.path.replacen('/', &path, 1);
        let answer = client.send(&request).await;
        let logged = request.path.split('=').next().unwrap_or_default().to_owned();
        let logged = if held[1] == Held::Nothing { logged } else { format!("{logged}=redacted") };
        let line = &burdock.access(&logged, 1).await[0];
        assert_eq!(answer.status, 200, "{held:?}");
        let winner = held.iter().position(|held| *held == Held::Good);
        let first_bad = held.iter().position(|held| *held == Held::Bad);
        let outcome = match (winner, first_bad) {
            (Some(_), _) => "kept",
            (None, Some(_)) => "rejected",
            (None, None) => "new",
        };
        assert_eq!(line["affinity"], outcome, "{held:?}: {line}");
        if let Some(winner) = winner {
            assert_eq!(answer.instance(), instances[winner], "{held:?}");
        }
        // A carrier that was asked and refused is mended, whatever else was honoured.
        let mends = first_bad.is_some_and(|bad| winner.is_none_or(|winner| bad < winner));
        let fresh = winner.is_none() || mends;
        assert_eq!(answer.cookie("BURDOCK").is_some(), fresh, "{held:?}");
        assert_eq!(answer.field("x-burdock-session").is_some(), fresh, "{held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_without_a_cookie_jar_brings_the_token_back_in_the_field() {
    let (backends, burdock) = start(&["a", "b", "c"], ALL).await;
    let mut client = burdock.client();
    let first = client.get("/").await;
    let token = first.field("x-burdock-session").expect("a token").to_owned();
    assert_eq!(first.cookie("BURDOCK"), Some(token.clone()), "it is the same in both");
    for _ in 0..6 {
        let answer = client.send(&Request::get("/").with("X-Burdock-Session", &token)).await;
        assert_eq!(answer.instance(), first.instance());
        assert_eq!(answer.field("x-burdock-session"), None, "nothing new to tell");
        assert_eq!(answer.set_cookie("BURDOCK"), None);
    }
    let backend = backends.iter().find(|b| b.name == first.instance()).unwrap();
    assert_eq!(backend.last_request().head.field("x-burdock-session"), None, "taken out");
    let raw = "HTTP/1.1 200 OK\r\nX-Burdock-Session: forged\r\nContent-Length: 0\r\n\r\n";
    backend.misbehaves_times(Fault::Raw(raw.into()), 1);
    let answer = client.send(&Request::get("/").with("X-Burdock-Session", &token)).await;
    assert_eq!(answer.field("x-burdock-session"), None, "only Burdock speaks there");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_in_the_query_binds_and_nobody_else_sees_it() {
    let (backends, burdock) = start(&["a", "b"], ALL).await;
    let tokens = tokens(&burdock, 2).await;
    let token = &tokens["a"];
    let (a, mut client) = (&backends[0], burdock.client());
    for (asked, seen, logged) in [
        (format!("/one?burdock={token}"), "/one", "/one?burdock=redacted"),
        (format!("/two?x=%20&burdock={token}&y"), "/two?x=%20&y", "/two?x=%20&burdock=redacted&y"),
    ] {
        let answer = client.get(&asked).await;
        assert_eq!(answer.instance(), "a");
        assert_eq!(a.last_request().head.target(), seen);
        assert_eq!(burdock.access(logged, 1).await.len(), 1);
    }
    let target = format!("/ws?burdock={token}");
    let mut socket = WebSocket::open(burdock.address(), &target, "").await;
    assert_eq!(socket.instance(), "a");
    assert_eq!(a.last_request().head.target(), "/ws");
    socket.echo("hello").await;
    drop(socket);
    // Nor where the request comes to no service, or is refused at once.
    let mut request = Request::get(&format!("/bad?burdock={token}")).with("Host", "a");
    request = request.with("Host", "b");
    assert_eq!(client.send(&request).await.status, 400);
    burdock.access("/bad?burdock=redacted", 1).await;
    support::eventually("the tunnel's line", || {
        let lines = burdock.log("tunnel");
        lines.iter().any(|line| line["path"] == "/ws?burdock=redacted").then_some(())
    })
    .await;
    assert!(!burdock.output().contains(&token[10..40]), "no part of it is printed");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_paired_cookie_goes_with_the_other_over_https_only() {
    let (_backends, burdock) = start(&["a", "b"], ALL).await;
    let answer = burdock.client().get("/").await;
    assert!(answer.set_cookie("BURDOCK").is_some() && answer.set_cookie("BURDOCK_XS").is_none());
    let https = Request::get("/").with("X-Forwarded-Proto", "https");
    let answer = burdock.client().send(&https).await;
    let line = answer.set_cookie("BURDOCK_XS").expect("a paired cookie");
    let mut attributes: Vec<_> = line.split("; ").skip(1).collect();
    attributes.sort_unstable();
    assert_eq!(attributes, ["HttpOnly", "Partitioned", "Path=/", "SameSite=None", "Secure"]);
    assert_eq!(answer.cookie("BURDOCK_XS"), answer.cookie("BURDOCK"), "one token in both");
    let paired = format!("BURDOCK_XS={}; app=1", answer.cookie("BURDOCK_XS").unwrap());
    for _ in 0..4 {
        let again = burdock.client().send(&Request::get("/").with("Cookie", &paired)).await;
        assert_eq!(again.instance(), answer.instance());
        assert_eq!(again.set_cookie("BURDOCK"), None);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cookie_that_is_always_secure_is_always_paired() {
    let always = "session_affinity: true\naffinity: { cross_site_cookie: true, cookie: { name: \
                  __Host-S, secure: always } }\n";
    let (backends, burdock) = start(&["a"], always).await;
    let answer = burdock.client().get("/").await;
    assert!(answer.set_cookie("__Host-S_XS").is_some_and(|line| line.contains("Partitioned")));
    let both = "__Host-S=x; __Host-S_XS=y; app=1";
    burdock.client().send(&Request::get("/").with("Cookie", both)).await;
    assert_eq!(backends[0].last_request().head.field("cookie"), Some("app=1"));
}

const ENGINE_IO: &str = "session_affinity: true\naffinity: { engine_io: true }\n";
const OPENS: &str = "/socket.io/?EIO=4&transport=polling&t=x1";

fn continues(sid: &str) -> String {
    format!("{OPENS}&sid={sid}")
}

/// The next request of this backend is answered as a handshake, its packet in these parts.
fn hands_out(backend: &Backend, sid: &str, cut: usize) {
    let packet =
        format!("0{{\"sid\":\"{sid}\",\"upgrades\":[\"websocket\"],\"pingInterval\":25000}}");
    let (begin, rest) = packet.as_bytes().split_at(cut);
    let parts = [begin, rest];
    let parts: Vec<_> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    let head = format!(
        "HTTP/1.1 200 OK\r\nX-Instance: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
        backend.name
    );
    let answer = [head.as_bytes(), &chunked(&parts, &[])].concat();
    backend.misbehaves_times(Fault::Raw(answer), 1);
}

/// Opens a session somewhere; gives its id and its instance's place.
async fn handshake(burdock: &Burdock, backends: &[Backend], cut: usize) -> (String, usize) {
    for backend in backends {
        hands_out(backend, &format!("of-{}-{cut}", backend.name), cut);
    }
    let answer = burdock.client().get(OPENS).await;
    let place = backends.iter().position(|b| b.name == answer.instance()).expect("an instance");
    let sid = format!("of-{}-{cut}", backends[place].name);
    assert!(answer.text().contains(&sid), "passed on as it came: {}", answer.text());
    backends.iter().for_each(|backend| backend.misbehaves(Fault::None));
    (sid, place)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_drops_cookies_is_kept_where_its_sid_was_issued() {
    let (backends, burdock) = start(&["a", "b", "c"], ENGINE_IO).await;
    for cut in [0, 1, 9, 17] {
        let (sid, place) = handshake(&burdock, &backends, cut).await;
        let name = &backends[place].name;
        for method in ["GET", "POST", "OPTIONS"] {
            for _ in 0..4 {
                // Each on a connection of its own, so that all workers are met.
                let answer = burdock.client().send(&Request::new(method, &continues(&sid))).await;
                assert_eq!(answer.instance(), name, "{method} after {cut}");
                assert_eq!(answer.set_cookie("BURDOCK"), None, "the sid is enough");
            }
        }
        let target = format!("/ws?EIO=4&transport=websocket&sid={sid}");
        assert_eq!(WebSocket::open(burdock.address(), &target, "").await.instance(), name);
        let lines = burdock.access(&continues(&sid), 12).await;
        assert!(lines.iter().all(|line| line["affinity"] == "kept"), "{lines:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_goes_before_a_sid_and_an_unknown_sid_is_nobodys() {
    let (backends, burdock) = start(&["a", "b", "c"], ENGINE_IO).await;
    let tokens = tokens(&burdock, 3).await;
    let (sid, place) = handshake(&burdock, &backends, 0).await;
    for (name, token) in &tokens {
        let request = Request::get(&continues(&sid)).with("Cookie", &format!("BURDOCK={token}"));
        assert_eq!(burdock.client().send(&request).await.instance(), name);
    }
    let bad = Request::get(&continues(&sid)).with("Cookie", "BURDOCK=x");
    let answer = burdock.client().send(&bad).await;
    assert_eq!(answer.instance(), backends[place].name, "a rejected token counts as none");
    assert!(answer.cookie("BURDOCK").is_some(), "and is replaced");
    let answer = burdock.client().get(&continues("nobody")).await;
    assert!(answer.cookie("BURDOCK").is_some(), "a new session");
    let other = format!("/socket.io/?EIO=4&sid={sid}");
    assert!(burdock.client().get(&other).await.cookie("BURDOCK").is_some(), "not engine.io's");
}

#[tokio::test(flavor = "multi_thread")]
async fn without_the_switch_a_sid_binds_nothing() {
    let (backends, burdock) = start(&["a", "b"], "session_affinity: true\n").await;
    let (sid, _) = handshake(&burdock, &backends, 0).await;
    let mut homes = std::collections::BTreeSet::new();
    for _ in 0..2 {
        homes.insert(burdock.client().get(&continues(&sid)).await.instance().to_owned());
    }
    assert_eq!(homes.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sid_of_an_instance_that_cannot_serve_moves_all_its_requests_together() {
    let rest = format!("{ENGINE_IO}{FAST_READINESS}");
    let (backends, burdock) = start(&["a", "b", "c", "d"], &rest).await;
    let (sid, place) = handshake(&burdock, &backends, 0).await;
    let gone = &backends[place];
    gone.ready(false);
    burdock.wait_health(&gone.name, "unready").await;
    let first = burdock.client().get(&continues(&sid)).await;
    assert_eq!(first.status, 200);
    assert_ne!(first.instance(), gone.name);
    assert!(first.cookie("BURDOCK").is_some(), "it is a session of another instance now");
    for _ in 0..4 {
        let answer = burdock.client().get(&continues(&sid)).await;
        assert_eq!(answer.instance(), first.instance());
    }
    let labels = [("reason", "unready")];
    assert_eq!(burdock.metrics().await.sum("burdock_rehomes_total", &labels), 5.0);
}
