//! Messages pass as they are: fields both ways, hop-by-hop ones removed, what the client is told
//! about and what the instance is told about, and the odd corners of HTTP/1.1.

use crate::support::burdock::Burdock;
use crate::support::wire::Head;
use crate::support::{self, Backend, Request, pattern, raw, within, yaml};

async fn one(rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], rest)).await;
    (a, burdock)
}

/// What the instance got of a request with these extra lines.
async fn seen(a: &Backend, burdock: &Burdock, lines: &str) -> Head {
    let request = format!("GET /p?q=1 HTTP/1.1\r\nHost: app.test\r\n{lines}\r\n");
    let mut conn = raw::open(burdock.address(), request).await;
    let head = within("an answer", conn.head()).await.ok().flatten().expect("an answer");
    assert_eq!(head.status(), 200);
    a.last_request().head
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_a_request_stop_here_on_every_connection_line() {
    let (a, burdock) = one("").await;
    let lines = "Connection: X-One, keep-alive\r\nX-One: 1\r\nconnection:x-two ,X-Three\r\n\
                 X-Two: 2\r\nX-three: 3\r\nKeep-Alive: 5\r\nProxy-Connection: keep-alive\r\n\
                 TE: trailers\r\nTrailer: X\r\nUpgrade: h2c\r\n\
                 X-Kept: yes\r\n";
    let head = seen(&a, &burdock, lines).await;
    for name in ["x-one", "x-two", "x-three", "keep-alive", "proxy-connection", "upgrade"] {
        assert_eq!(head.field(name), None, "{name}");
    }
    assert_eq!(head.field("x-kept"), Some("yes"));
    let connection = head.field("connection").unwrap_or_default().to_ascii_lowercase();
    assert!(!connection.contains("x-"), "{connection}");
}

#[tokio::test(flavor = "multi_thread")]
async fn hop_by_hop_fields_of_a_response_stop_here_on_every_connection_line() {
    let (_a, burdock) = one("").await;
    let answer = burdock.client().get("/hop").await;
    for name in ["x-private", "x-more", "keep-alive", "proxy-connection"] {
        assert_eq!(answer.field(name), None, "{name}");
    }
    assert_eq!(answer.field("x-public"), Some("shown"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_option_can_not_remove_what_the_path_relies_on() {
    let (a, burdock) = one("").await;
    let head = seen(&a, &burdock, "Connection: Host, X-Forwarded-For, X-Request-Id\r\n").await;
    assert_eq!(head.field("host"), Some("app.test"));
    assert_eq!(head.field("x-forwarded-for"), Some("127.0.0.1"));
    assert!(head.field("x-request-id").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn other_fields_pass_with_their_order_and_bytes() {
    let (a, burdock) = one("").await;
    let lines = "X-A: 1\r\nAccept: */*\r\nX-A: 2, 3\r\nX-Empty:\r\nX-Odd: a=\"b;c\", \u{e9}\r\n";
    let head = seen(&a, &burdock, lines).await;
    assert_eq!(head.all("x-a"), ["1", "2, 3"]);
    assert_eq!((head.field("x-empty"), head.field("accept")), (Some(""), Some("*/*")));
    assert_eq!(head.field("x-odd"), Some("a=\"b;c\", \u{e9}"));
    assert_eq!((head.method(), head.target()), ("GET", "/p?q=1"));
    let targets = ["/%2e%2E/a%20b", "//double//slash/", "/a?b=c&d=%zz&&", "/x;y=1?", "/*'()!$@:,~"];
    for target in targets {
        burdock.client().get(target).await;
        assert_eq!(a.last_request().head.target(), target, "the target passes as it is");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_instance_is_told_about_the_client() {
    let (a, burdock) = one("").await;
    let head = seen(&a, &burdock, "").await;
    assert_eq!(head.all("x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(head.field("x-forwarded-proto"), Some("http"));
    assert_eq!(head.field("x-forwarded-host"), Some("app.test"));
    assert_eq!((head.field("host"), head.field("forwarded")), (Some("app.test"), None));
    let forged =
        "X-Forwarded-For: 10.9.8.7\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\n";
    let head = seen(&a, &burdock, forged).await;
    let last = head.all("x-forwarded-for").join(", ");
    assert!(last.ends_with("127.0.0.1"), "{last}");
    assert_eq!(head.field("x-forwarded-proto"), Some("http"), "not from just anybody");
    assert_eq!(head.field("x-forwarded-host"), Some("app.test"), "not from just anybody");
    assert!(burdock.access("/p?q=1", 2).await.iter().all(|line| line["client"] == "127.0.0.1"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trusted_proxy_is_believed() {
    let (a, burdock) = one("trusted_proxies: [127.0.0.0/8]\n").await;
    let lines = "X-Forwarded-For: 6.6.6.6, 10.9.8.7\r\nX-Forwarded-Proto: https\r\n\
                 X-Forwarded-Host: public.test\r\n";
    let head = seen(&a, &burdock, lines).await;
    let list: Vec<_> = head
        .all("x-forwarded-for")
        .join(",")
        .split(',')
        .map(str::trim)
        .map(str::to_owned)
        .collect();
    assert_eq!(list, ["6.6.6.6", "10.9.8.7", "127.0.0.1"]);
    assert_eq!(head.field("x-forwarded-proto"), Some("https"));
    assert_eq!(head.field("x-forwarded-host"), Some("public.test"));
    // The right-most address that no trusted proxy is: what stands left of it is hearsay.
    assert_eq!(burdock.access("/p?q=1", 1).await[0]["client"], "10.9.8.7");
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarded_is_sent_where_asked_and_the_rest_can_be_switched_off() {
    let rest = "forwarding: { x_forwarded: false, forwarded: true, request_id: false }\n";
    let (a, burdock) = one(rest).await;
    let head = seen(&a, &burdock, "").await;
    let forwarded = head.field("forwarded").expect("a Forwarded field").to_ascii_lowercase();
    for part in ["for=127.0.0.1", "proto=http", "host=app.test"] {
        assert!(forwarded.replace('"', "").contains(part), "{part} in {forwarded}");
    }
    let names = ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-request-id"];
    assert!(names.iter().all(|name| head.field(name).is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_in_via_can_be_another_or_none() {
    let (a, burdock) = one("forwarding: { via: lb-1 }\n").await;
    let head = seen(&a, &burdock, "Via: 1.0 fred, 1.1 p.example\r\n").await;
    assert_eq!(head.all("via"), ["1.0 fred, 1.1 p.example", "1.1 lb-1"]);
    burdock.reload(&yaml(&[&a], "forwarding: { via: off }\n")).await;
    let head = seen(&a, &burdock, "Via: 1.0 fred\r\n").await;
    assert_eq!(head.all("via"), ["1.0 fred"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_id_is_kept_or_made() {
    let (a, burdock) = one("").await;
    let head = seen(&a, &burdock, "X-Request-Id: my-id_1.2\r\n").await;
    assert_eq!(head.all("x-request-id"), ["my-id_1.2"]);
    let mut made = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let head = seen(&a, &burdock, "").await;
        made.insert(head.field("x-request-id").expect("a new one").to_owned());
    }
    assert_eq!(made.len(), 20, "never the same twice");
    let long = "x".repeat(5000);
    let head = seen(&a, &burdock, &format!("X-Request-Id: {long}\r\n")).await;
    assert_ne!(head.field("x-request-id"), Some(long.as_str()), "an insane one is replaced");
    let lines = burdock.access("/p?q=1", 22).await;
    assert!(lines.iter().any(|line| line["request_id"] == "my-id_1.2"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_pass_in_every_framing_both_ways() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    for size in [0, 1, 65_535, 65_536, 65_537, 1_000_000] {
        let sized = client.get(&format!("/sized/{size}")).await;
        assert!(sized.body.bytes == pattern(size) && sized.field("content-length").is_some());
        let chunked = client.get(&format!("/chunked/{size}")).await;
        assert!(chunked.body.bytes == pattern(size), "{size} chunked");
        assert_eq!(chunked.field("content-length"), None);
        let up = client.post("/echo", &pattern(size)).await;
        assert!(up.body.bytes == pattern(size), "{size} up");
        assert_eq!(a.last_request().head.field("content-length"), Some(size.to_string().as_str()));
        let request = Request::post("/echo", &pattern(size)).chunked(&[]);
        assert!(client.send(&request).await.body.bytes == pattern(size), "{size} up in chunks");
    }
    assert_eq!(client.get("/to-end").await.text(), "to the end");
    assert_eq!(client.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_pass_both_ways() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    let request = Request::get("/trailers").with("TE", "trailers");
    let answer = client.send(&request).await;
    let told: Vec<_> =
        answer.body.trailers.iter().map(|(n, v)| (n.to_ascii_lowercase(), v.clone())).collect();
    assert!(told.contains(&("x-sum".into(), "42".into())), "{told:?}");
    assert!(told.contains(&("x-last".into(), "yes".into())), "{told:?}");
    let trailers = [("X-Check", "7"), ("Content-Length", "9"), ("Host", "b.test")];
    for told_of in ["X-Check", "X-Other"] {
        let request = Request::post("/echo", b"body").with("Trailer", told_of).chunked(&trailers);
        client.send(&request).await;
        let told = a.last_request().body.unwrap().trailers;
        assert_eq!(told.len(), 1, "{told:?}");
        assert!(told[0].0.eq_ignore_ascii_case("x-check") && told[0].1 == "7");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn trailers_of_an_answer_are_for_whoever_asked_and_never_frame() {
    let (a, burdock) = one("").await;
    let said = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\
                X-Sum: 42\r\nContent-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n";
    for (te, expected) in [("trailers", "0\r\nx-sum: 42\r\n\r\n"), ("gzip", "0\r\n\r\n")] {
        a.misbehaves(support::Fault::Raw(said.into()));
        let request =
            format!("GET / HTTP/1.1\r\nHost: x\r\nTE: {te}\r\nConnection: TE, close\r\n\r\n");
        let answer = raw::exchange_text(burdock.address(), request).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        assert!(head.contains("\r\ntransfer-encoding: chunked"), "{head}");
        assert_eq!(body, format!("4\r\nbody\r\n{expected}"), "{te}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_http_1_0_client_is_served_in_its_own_terms() {
    let (_a, burdock) = one("").await;
    let ask = async |path: &str, connection: &str| {
        let request = format!("GET {path} HTTP/1.0\r\nHost: x\r\nConnection: {connection}\r\n\r\n");
        raw::exchange_text(burdock.address(), request.repeat(2)).await
    };
    let answer = ask("/chunked/5000", "keep-alive").await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.0 200 "), "{head}");
    assert!(
        !head.contains("transfer-encoding") && head.contains("\r\nconnection: close"),
        "{head}"
    );
    assert_eq!(body.as_bytes(), pattern(5000), "its end is that of the connection");
    let answer = ask("/sized/3", "close").await;
    assert_eq!(answer.matches("HTTP/1.0 200 ").count(), 1, "{answer}");
    let mut conn = raw::open(
        burdock.address(),
        "GET /sized/3 HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n",
    )
    .await;
    for _ in 0..2 {
        let head = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(head.field("connection"), Some("keep-alive"));
        within("its body", conn.body(head.response_framing("GET"))).await.unwrap();
        conn.write(b"GET /sized/3 HTTP/1.0\r\nHost: x\r\nConnection: keep-alive\r\n\r\n")
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_is_dated_once() {
    let (a, burdock) = one("").await;
    let date = "Sun, 06 Nov 1994 08:49:37 GMT";
    for (told, expected) in [(format!("Date: {date}\r\n"), Some(date)), (String::new(), None)] {
        let said = format!("HTTP/1.1 200 OK\r\n{told}Content-Length: 0\r\n\r\n");
        a.misbehaves(support::Fault::Raw(said.into()));
        let request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = raw::exchange_text(burdock.address(), request).await;
        let dates: Vec<_> = answer.lines().filter_map(|line| line.strip_prefix("date: ")).collect();
        assert_eq!(dates.len(), 1, "{answer}");
        let now =
            httpdate::parse_http_date(dates[0]).expect("a date").elapsed().unwrap_or_default();
        match expected {
            Some(date) => assert_eq!(dates, [date]),
            None => assert!(now < std::time::Duration::from_secs(60), "{answer}"),
        }
    }
    for broken in ["GET /\r\n\r\n", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n"] {
        let answer = raw::exchange_text(burdock.address(), broken).await;
        assert!(answer.starts_with("HTTP/1.1 400 ") && answer.contains("\r\ndate: "), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_without_a_body_stay_without_one() {
    let (_a, burdock) = one("").await;
    let mut client = burdock.client();
    for path in ["/sized/5000", "/chunked/5000"] {
        let head = client.send(&Request::new("HEAD", path)).await;
        assert_eq!((head.status, head.body.size), (200, 0));
    }
    let head = client.send(&Request::new("HEAD", "/sized/5000")).await;
    assert_eq!(head.field("content-length"), Some("5000"));
    for status in [204, 304] {
        let answer = client.get(&format!("/status/{status}")).await;
        assert_eq!((answer.status, answer.field("transfer-encoding")), (status, None));
    }
    assert_eq!(client.get("/").await.text(), "a", "the connection is still in step");
    assert_eq!(client.reconnects, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_waits_for_100_gets_it() {
    let (a, burdock) = one("").await;
    for size in [10, 200_000] {
        let head = format!(
            "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {size}\r\n\r\n"
        );
        let mut conn = raw::open(burdock.address(), head).await;
        let interim = within("100", conn.head()).await.unwrap().unwrap();
        assert_eq!(interim.status(), 100);
        conn.write(&pattern(size)).await.unwrap();
        let head = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(head.status(), 200);
        let body = within("its body", conn.body(head.response_framing("POST"))).await.unwrap();
        assert!(body.bytes == pattern(size));
    }
    assert_eq!(a.request_count(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_instead_of_100_reaches_the_client() {
    let (_a, burdock) = one("").await;
    let head = "POST /expect/refuse HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Length: 500000\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    let mut answer = within("an answer", conn.head()).await.unwrap().unwrap();
    if answer.status() == 100 {
        // Burdock may ask for the body itself; then the refusal still has to arrive.
        conn.write(&pattern(100_000)).await.unwrap();
        answer = within("a final answer", conn.head()).await.unwrap().unwrap();
    }
    assert_eq!(answer.status(), 417);
}

#[tokio::test(flavor = "multi_thread")]
async fn pipelined_requests_are_answered_in_order() {
    let (_a, burdock) = one("").await;
    let mut text = String::new();
    for n in 1..=5 {
        text += &format!("GET /sized/{n} HTTP/1.1\r\nHost: x\r\n\r\n");
    }
    text += "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
             GET /sized/7 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut conn = raw::open(burdock.address(), text).await;
    let mut sizes = Vec::new();
    for _ in 0..7 {
        let head = within("an answer", conn.head()).await.unwrap().unwrap();
        sizes.push(within("its body", conn.body(head.response_framing("GET"))).await.unwrap().size);
    }
    assert_eq!(sizes, [1, 2, 3, 4, 5, 3, 7]);
    assert!(within("the end", conn.closed_without_a_byte()).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_absolute_target_names_the_host() {
    let (a, burdock) = one("").await;
    let request =
        "GET http://target.test/x?y HTTP/1.1\r\nHost: other.test\r\nConnection: close\r\n\r\n";
    assert!(raw::exchange_text(burdock.address(), request).await.starts_with("HTTP/1.1 200 "));
    let head = a.last_request().head;
    assert_eq!((head.target(), head.field("host")), ("/x?y", Some("target.test")));
    let request = "OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    assert!(raw::exchange_text(burdock.address(), request).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(a.last_request().head.target(), "*");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_host_is_400_and_connect_is_501() {
    let (a, burdock) = one("").await;
    let hosts = ["", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: u@h\r\n"];
    for host in hosts {
        let request = format!("GET / HTTP/1.1\r\n{host}Connection: close\r\n\r\n");
        let answer = raw::exchange_text(burdock.address(), request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{host:?}: {answer}");
        assert!(answer.ends_with("400 bad_host\n"), "{host:?}: {answer}");
    }
    let request = "GET http://u:p@a.test/ HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n";
    assert!(raw::exchange_text(burdock.address(), request).await.ends_with("400 bad_host\n"));
    let request = "CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: close\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 501 ") && answer.ends_with("501 connect_unsupported\n"));
    assert_eq!(a.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_two_parsers_could_read_differently_reaches_no_instance() {
    let (a, burdock) = one("").await;
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let heads = [
        "Content-Length: 6\r\nContent-Length: 7",
        "Content-Length: 6, 7",
        "Content-Length: +6",
        "Content-Length: -1",
        "Transfer-Encoding: chunked, identity",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding : chunked",
        "Folded: a\r\n b: c",
    ];
    for head in heads {
        let request =
            format!("POST /first HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n0\r\n\r\n{smuggled}");
        let answer = raw::exchange_and_finish(burdock.address(), request).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(
            answer.is_empty()
                || answer.starts_with("HTTP/1.1 4")
                || answer.starts_with("HTTP/1.1 501"),
            "{head}: {answer}"
        );
        assert_eq!(a.request_count(), 0, "{head}");
    }
}

/// RFC 9112 section 6.1: Transfer-Encoding overrides, and the connection is closed behind it.
#[tokio::test(flavor = "multi_thread")]
async fn behind_both_framings_the_connection_ends() {
    let heads = [
        "Content-Length: 6\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 6",
    ];
    for head in heads {
        let (a, burdock) = one("").await;
        let request = format!(
            "POST /first HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n0\r\n\r\n\
             GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
        );
        let answer = raw::exchange_and_finish(burdock.address(), request).await;
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{head}: {answer}");
        assert!(answer.to_ascii_lowercase().contains("connection: close"), "{head}: {answer}");
        assert!(
            a.requests().iter().all(|seen| !seen.head.target().contains("/smuggled")),
            "{head}"
        );
        assert!(
            a.requests().iter().all(|seen| seen.head.field("content-length").is_none()),
            "{head}: one framing is what the instance sees"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_meet_their_limits() {
    let rest = "timeouts: { header_read: 400ms, keep_alive: 400ms, idle: 400ms }\n";
    let (_a, burdock) = one(rest).await;
    let mut conn = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\nX-Half: ").await;
    let answer = within("the limit", conn.read_to_end()).await;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("408 header_read_timeout\n"),
        "{answer}"
    );

    let mut conn = raw::open(burdock.address(), "GET / HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = within("an answer", conn.head()).await.unwrap().unwrap();
    within("its body", conn.body(head.response_framing("GET"))).await.unwrap();
    assert!(
        within("the limit", conn.closed_without_a_byte()).await,
        "a resting one is just closed"
    );

    let post = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nten bytes.";
    let answer = raw::exchange_text(burdock.address(), post).await;
    assert!(
        answer.starts_with("HTTP/1.1 408 ") && answer.ends_with("408 request_idle_timeout\n"),
        "{answer}"
    );
    let reasons = ["header_read_timeout", "request_idle_timeout"];
    for reason in reasons {
        burdock.wait_metric("burdock_errors_total", &[("reason", reason)], |v| v == 1.0).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_stalls_is_cut_and_does_not_look_whole() {
    let (a, burdock) = one("timeouts: { idle: 400ms }\n").await;
    a.misbehaves(support::Fault::StallMidAnswer(700));
    let mut conn = raw::open(burdock.address(), "GET /s HTTP/1.1\r\nHost: x\r\n\r\n").await;
    let head = within("the head", conn.head()).await.unwrap().unwrap();
    assert_eq!(head.field("content-length"), Some("1700"));
    assert_eq!(within("the cut", conn.read_to_end()).await, pattern(700));
    assert!(burdock.access("/s", 1).await[0]["error"].is_string());
}

/// RFC 9112 section 6.3: chunks say where the body ends, whatever Content-Length says.
#[tokio::test(flavor = "multi_thread")]
async fn an_answer_with_both_framings_arrives_whole() {
    let (_a, burdock) = one("").await;
    let answer = burdock.client().get("/both").await;
    assert_eq!(answer.text(), "more than three");
    assert_eq!(answer.field("content-length"), None);
}

/// RFC 9112 section 3.2: HTTP/1.0 may leave Host out, HTTP/1.1 may not.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_without_host_gets_one_for_its_instance() {
    let (a, burdock) = one("").await;
    let answer = raw::exchange_text(burdock.address(), "GET /old HTTP/1.0\r\n\r\n").await;
    assert!(answer.contains(" 200 "), "{answer}");
    let seen = a.last_request().head;
    assert_eq!(seen.all("host"), [a.address.to_string()]);
    assert_eq!(seen.field("x-forwarded-host"), None, "the client named none");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_with_a_body_is_a_request_like_any_other() {
    let (a, burdock) = one("").await;
    let inner = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n";
    let head = "Host: x\r\nUpgrade: websocket\r\nConnection: Upgrade, close\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    let length = inner.len();
    let request = format!("GET /echo HTTP/1.1\r\n{head}Content-Length: {length}\r\n\r\n{inner}");
    let answer = raw::exchange_text(burdock.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with(inner), "{answer}");
    assert_eq!(a.request_count(), 1);
    assert_eq!(a.last_request().head.field("upgrade"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coding_that_nobody_could_undo_is_501() {
    let (a, burdock) = one("").await;
    let request =
        "POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n";
    let answer = raw::exchange_text(burdock.address(), request).await;
    assert!(answer.starts_with("HTTP/1.1 501 "), "{answer}");
    assert!(answer.ends_with("501 unsupported_coding\n"), "{answer}");
    assert_eq!(a.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn chunks_that_make_no_sense_are_the_clients_fault() {
    let (_a, burdock) = one("breaker: { failures: 1, open: 60s }\n").await;
    for chunks in ["5\r\nhello\r\nxyz\r\n", "5\r\nhellooo\r\n", "-1\r\n"] {
        let request =
            format!("POST /x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}");
        let answer = raw::exchange_text(burdock.address(), request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{chunks:?}: {answer}");
        assert!(answer.ends_with("400 bad_request\n"), "{chunks:?}: {answer}");
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_failures_total", &[]), 0.0);
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_refused_unread_has_a_line_too() {
    let (a, burdock) = one("").await;
    let large = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(100_000));
    for (request, status, reason) in [
        ("GET / HTTP/1.1\r\nHost : x\r\n\r\n", 400, "bad_request"),
        (&large, 431, "head_too_large"),
    ] {
        let answer = raw::exchange_text(burdock.address(), request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        let line = |line: &serde_json::Value| line["error"] == reason && line["status"] == status;
        let lines = || burdock.access_lines().iter().any(line).then_some(());
        support::eventually("a line for it", lines).await;
        let labels = [("reason", reason)];
        assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &labels), 1.0);
    }
    assert_eq!(a.request_count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_an_answer_with_trailers_the_connection_is_kept() {
    let (a, burdock) = one("").await;
    let mut client = burdock.client();
    for _ in 0..5 {
        assert_eq!(client.get("/trailers").await.text(), "body");
    }
    let probes = a.probes().len();
    assert!(a.connections() <= probes + 1, "one connection for all");
    let labels = [("reason", "client_closed")];
    assert_eq!(burdock.metrics().await.sum("burdock_errors_total", &labels), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_contradicts_itself_is_502_and_one_that_repeats_itself_passes() {
    let (a, burdock) = one("breaker: off\n").await;
    for (lengths, status) in [
        ("Content-Length: 2\r\nContent-Length: 2", 200),
        ("Content-Length: 2, 2", 200),
        ("Content-Length: 2\r\nContent-Length: 3", 502),
        ("Content-Length: -2", 502),
    ] {
        a.misbehaves(support::Fault::Raw(format!("HTTP/1.1 200 OK\r\n{lengths}\r\n\r\n").into()));
        let request = "HEAD / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        let answer = raw::exchange_text(burdock.address(), request).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{lengths:?}: {answer}");
        let lengths = answer.to_ascii_lowercase().matches("content-length:").count();
        assert_eq!(lengths, 1, "{answer}");
    }
}

/// RFC 9110 section 10.1.1: nobody knows whether the client will send its body after that.
#[tokio::test(flavor = "multi_thread")]
async fn behind_a_refusal_instead_of_100_the_connection_ends() {
    let (a, burdock) = one("").await;
    let head = "POST /early/keep HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\
                Content-Length: 30\r\n\r\n";
    let mut conn = raw::open(burdock.address(), head).await;
    let answer = within("an answer", conn.head()).await.unwrap().unwrap();
    assert_eq!((answer.status(), answer.field("connection")), (401, Some("close")));
    drop(conn.write(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n").await);
    within("the end", conn.read_to_end()).await;
    assert_eq!(burdock.client().get("/").await.status, 200);
    assert_eq!(a.request_count(), 2, "nothing was taken for a body or for a request");
}
