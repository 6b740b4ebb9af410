//! The PROXY protocol: who is believed in front of a connection, what becomes of its client's address,
//! and what instances are told in front of theirs.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::task::AbortHandle;

use crate::support::wire::Conn;
use crate::support::{self, Backend, Burdock, eventually, raw, within, yaml};

const V1: &[u8] = b"PROXY TCP4 203.0.113.7 198.51.100.9 5000 80\r\n";
const GET: &[u8] = b"GET /p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n";
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A header of version 2 for a client of IPv4, with this behind its addresses.
fn v2(added: &[u8]) -> Vec<u8> {
    let length = u16::try_from(12 + added.len()).expect("a short header").to_be_bytes();
    let ends = [203, 0, 113, 8, 198, 51, 100, 9, 0x13, 0x88, 0, 80];
    [SIGNATURE, &[0x21, 0x11], &length, &ends, added].concat()
}

/// A configuration whose listener takes headers, and whose trusted peer is this one or none.
fn listening(instances: &[&Backend], acceptance: &str, trusted: &str, rest: &str) -> String {
    let listener = format!("address: 127.0.0.1:0, proxy_protocol: {acceptance}");
    let text = yaml(instances, &format!("trusted_proxies: [{trusted}]\n{rest}"));
    text.replacen("address: 127.0.0.1:0", &listener, 1)
}

async fn one(acceptance: &str, trusted: &str, rest: &str) -> (Backend, Burdock) {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&listening(&[&a], acceptance, trusted, rest)).await;
    (a, burdock)
}

async fn refused(burdock: &Burdock, n: f64) {
    burdock.wait_metric("burdock_errors_total", &[("reason", "proxy_header")], |v| v == n).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_of_a_header_is_the_client_everywhere() {
    for acceptance in ["accept", "require"] {
        let (a, burdock) = one(acceptance, "127.0.0.1", "").await;
        for (header, client) in [(V1.to_vec(), "203.0.113.7"), (v2(&[4, 0, 1, 9]), "203.0.113.8")] {
            let answer = raw::exchange_text(burdock.address(), [&header, GET].concat()).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
            let seen = a.last_request().head;
            assert_eq!(seen.all("x-forwarded-for"), [client]);
        }
        let clients: Vec<_> =
            burdock.access("/p", 2).await.iter().map(|line| line["client"].clone()).collect();
        assert_eq!(clients, ["203.0.113.7", "203.0.113.8"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_may_come_byte_by_byte_and_nothing_behind_it_is_lost() {
    let (a, burdock) = one("accept", "127.0.0.1", "").await;
    for header in [V1.to_vec(), v2(&[4, 0, 1, 9])] {
        let mut conn = Conn::connect(burdock.address()).await.unwrap();
        for byte in [&header, GET].concat() {
            conn.write(&[byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        let head = within("an answer", conn.head()).await.unwrap().unwrap();
        assert_eq!(head.status(), 200);
    }
    // All at once, with two requests and a body behind.
    let request = |close: &str| {
        let head = format!("POST /echo HTTP/1.1\r\nHost: a\r\n{close}Content-Length: 5\r\n\r\n");
        [head.as_bytes(), b"PROXY"].concat()
    };
    let both = [V1, &request(""), &request("Connection: close\r\n")].concat();
    let answers = raw::exchange_text(burdock.address(), both).await;
    assert_eq!(answers.matches("PROXY").count(), 2, "{answers}");
    assert_eq!(a.request_count(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_begins_like_a_header_and_is_none_is_served_where_none_is_needed() {
    let (_a, burdock) = one("accept", "127.0.0.1", "").await;
    let plain = [b"\r\n\r\n", GET].concat();
    for request in [GET, &plain] {
        let mut conn = Conn::connect(burdock.address()).await.unwrap();
        for byte in request {
            conn.write(&[*byte]).await.unwrap();
            tokio::task::yield_now().await;
        }
        assert_eq!(within("an answer", conn.head()).await.unwrap().unwrap().status(), 200);
    }
    let mut h2 = support::h2::H2::connect(burdock.address()).await;
    assert_eq!(h2.get("/").await.status, 200);
    refused(&burdock, 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_but_a_trusted_proxy_is_believed() {
    let (a, burdock) = one("accept", "192.0.2.1", "").await;
    assert_eq!(burdock.client().get("/").await.status, 200);
    assert_eq!(a.last_request().head.all("x-forwarded-for"), ["127.0.0.1"]);
    for header in [V1.to_vec(), v2(&[])] {
        let answer = raw::exchange_text(burdock.address(), [&header, GET].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    }
    assert_eq!(a.request_count(), 1);
    let (a, burdock) = one("require", "192.0.2.1", "").await;
    let answer = raw::exchange_text(burdock.address(), [V1, GET].concat()).await;
    assert_eq!((answer.as_str(), a.request_count()), ("", 0));
    refused(&burdock, 1.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_must_come_is_waited_for_but_not_for_ever() {
    let rest = "timeouts: { header_read: 300ms }\n";
    let (a, burdock) = one("require", "127.0.0.1", rest).await;
    let mut damaged = v2(&[3, 0, 4, 1, 2, 3, 4]);
    for (n, bytes) in [GET, b"PROXY TCP4 nonsense\r\n", &damaged].into_iter().enumerate() {
        let answer = raw::exchange_text(burdock.address(), [bytes, GET].concat()).await;
        assert_eq!(answer, "");
        refused(&burdock, n as f64 + 1.0).await;
    }
    damaged.truncate(20);
    assert!(raw::exchange_and_finish(burdock.address(), &damaged).await.is_empty());
    refused(&burdock, 4.0).await;
    assert!(raw::exchange_and_finish(burdock.address(), b"").await.is_empty());
    let late = [("reason", "header_read_timeout")];
    burdock.wait_metric("burdock_errors_total", &late, |v| v == 0.0).await;
    // Another connection is served while this one is waited for.
    let mut slow = raw::open(burdock.address(), &damaged).await;
    let answer = raw::exchange_text(burdock.address(), [V1, GET].concat()).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert!(within("the end", slow.closed_without_a_byte()).await);
    burdock.wait_metric("burdock_errors_total", &late, |v| v == 1.0).await;
    refused(&burdock, 4.0).await;
    assert_eq!(a.request_count(), 1);
    burdock.wait_metric("burdock_client_connections", &[], |v| v == 0.0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxys_own_connections_are_its_own() {
    let (a, burdock) = one("require", "127.0.0.1", "").await;
    let local = [SIGNATURE, &[0x20, 0, 0, 0]].concat();
    for header in [b"PROXY UNKNOWN\r\n", &local[..]] {
        let answer = raw::exchange_text(burdock.address(), [header, GET].concat()).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert_eq!(a.last_request().head.all("x-forwarded-for"), ["127.0.0.1"]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn forwarding_fields_count_only_if_the_client_of_the_header_is_trusted_itself() {
    let with_field = b"GET /p HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 198.18.0.1\r\n\
                       Connection: close\r\n\r\n";
    for (trusted, seen, client) in [
        ("127.0.0.1", "203.0.113.7", "203.0.113.7"),
        ("127.0.0.1, 203.0.113.7", "198.18.0.1, 203.0.113.7", "198.18.0.1"),
    ] {
        let (a, burdock) = one("require", trusted, "").await;
        raw::exchange(burdock.address(), [V1, with_field].concat()).await;
        assert_eq!(a.last_request().head.all("x-forwarded-for"), [seen]);
        assert_eq!(burdock.access("/p", 1).await[0]["client"], client);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reload_turns_headers_on_and_off() {
    let (a, burdock) = one("off", "127.0.0.1", "").await;
    let ask = || async { raw::exchange_text(burdock.address(), [V1, GET].concat()).await };
    assert!(ask().await.starts_with("HTTP/1.1 400"));
    let told = burdock.reload(&listening(&[&a], "require", "127.0.0.1", "")).await;
    assert!(told["changes"].as_str().unwrap().contains("changed"), "{told}");
    assert!(ask().await.starts_with("HTTP/1.1 200"));
}

/// An instance that takes a header in front of each connection, and notes it with the requests.
struct Introduced {
    address: SocketAddr,
    /// The headers, one for each connection.
    headers: Arc<Mutex<Vec<Vec<u8>>>>,
    accepting: AbortHandle,
}

impl Introduced {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let headers = Arc::default();
        let accepting = tokio::spawn(accept(listener, Arc::clone(&headers))).abort_handle();
        Self { address, headers, accepting }
    }

    fn headers(&self) -> Vec<Vec<u8>> {
        self.headers.lock().expect("no test panics with it").clone()
    }

    /// The headers that are for a client, once there are so many.
    async fn clients(&self, n: usize) -> Vec<Vec<u8>> {
        eventually("headers of clients", || {
            let mut headers = self.headers();
            headers.retain(|header| !is_local(header));
            (headers.len() >= n).then_some(headers)
        })
        .await
    }
}

impl Drop for Introduced {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn is_local(header: &[u8]) -> bool {
    header == b"PROXY UNKNOWN\r\n" || header == [SIGNATURE, &[0x20, 0, 0, 0]].concat()
}

async fn accept(listener: TcpListener, headers: Arc<Mutex<Vec<Vec<u8>>>>) {
    while let Ok((stream, _peer)) = listener.accept().await {
        let headers = Arc::clone(&headers);
        tokio::spawn(async move {
            let mut conn = Conn::new(stream);
            let Ok(header) = header(&mut conn).await else { return };
            headers.lock().expect("no test panics with it").push(header);
            while let Ok(Some(head)) = conn.head().await {
                let answer: &[u8] = match head.field("upgrade") {
                    Some(_) => {
                        b"HTTP/1.1 101 \r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n"
                    }
                    None => b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
                };
                if conn.write(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn header(conn: &mut Conn) -> std::io::Result<Vec<u8>> {
    let start = conn.exactly(6).await?;
    if start == b"PROXY " {
        return Ok([&start[..], conn.line().await?.as_bytes(), b"\r\n"].concat());
    }
    let fixed = conn.exactly(10).await?;
    let length = usize::from(u16::from_be_bytes([fixed[8], fixed[9]]));
    let rest = conn.exactly(length).await?;
    Ok([start, fixed, rest].concat())
}

async fn introducing(version: &str, rest: &str) -> (Introduced, Burdock) {
    let instance = Introduced::start().await;
    let text = format!(
        "{}instances: [{}]\nproxy_protocol: {version}\n{rest}",
        support::HEADER.replace("workers: 2", "workers: 1"),
        instance.address
    );
    let burdock = Burdock::start(&text).await;
    (instance, burdock)
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_is_told_of_the_client_in_front_of_each_connection() {
    for version in ["v1", "v2"] {
        let (instance, burdock) = introducing(version, "").await;
        let mut client = Conn::connect(burdock.address()).await.unwrap();
        let from = client.stream.local_addr().unwrap().port();
        let keep = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        for _ in 0..3 {
            client.write(keep).await.unwrap();
            assert_eq!(within("an answer", client.head()).await.unwrap().unwrap().status(), 200);
        }
        let to = burdock.address().port();
        let expected = match version {
            "v1" => format!("PROXY TCP4 127.0.0.1 127.0.0.1 {from} {to}\r\n").into_bytes(),
            _ => {
                let ports = [from.to_be_bytes(), to.to_be_bytes()].concat();
                let ends = [127, 0, 0, 1, 127, 0, 0, 1];
                [SIGNATURE, &[0x21, 0x11, 0, 12], &ends, &ports].concat()
            }
        };
        assert_eq!(instance.clients(1).await, [expected], "one connection for one client");
        // Another client's requests go out on a connection of its own.
        assert_eq!(burdock.client().get("/").await.status, 200);
        assert_eq!(instance.clients(2).await.len(), 2);
        client.write(keep).await.unwrap();
        assert_eq!(within("an answer", client.head()).await.unwrap().unwrap().status(), 200);
        assert_eq!(instance.clients(2).await.len(), 2, "the first was kept for its client");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_a_proxy_tells_of_is_passed_on_with_where_it_connected_to() {
    let listener = "address: 127.0.0.1:0, proxy_protocol: accept";
    let instance = Introduced::start().await;
    let text = format!(
        "{}instances: [{}]\nproxy_protocol: v1\ntrusted_proxies: [127.0.0.1]\n",
        support::HEADER.replacen("address: 127.0.0.1:0", listener, 1),
        instance.address
    );
    let burdock = Burdock::start(&text).await;
    raw::exchange(burdock.address(), [V1, GET].concat()).await;
    assert_eq!(instance.clients(1).await, [V1]);
    let request = support::Request::get("/").with("X-Forwarded-For", "2001:db8::9");
    assert_eq!(burdock.client().send(&request).await.status, 200);
    let to = burdock.address().port();
    let expected = format!("PROXY TCP6 2001:db8::9 ::ffff:127.0.0.1 0 {to}\r\n");
    assert_eq!(String::from_utf8_lossy(&instance.clients(2).await[1]), expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_say_that_they_are_burdocks_own() {
    for version in ["v1", "v2"] {
        let rest = "readiness_check: { path: /, check_interval: 50ms }\n\
                    liveness_check: { check_interval: 50ms, initial_delay: 0s }\n";
        let (instance, burdock) = introducing(version, rest).await;
        burdock.wait_health(&instance.address.to_string(), "ready").await;
        let headers = eventually("both kinds of probe", || {
            let headers = instance.headers();
            (headers.len() >= 4).then_some(headers)
        });
        assert!(headers.await.iter().all(|header| is_local(header)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tunnel_is_introduced_too() {
    let (instance, burdock) = introducing("v1", "").await;
    let mut client = Conn::connect(burdock.address()).await.unwrap();
    let from = client.stream.local_addr().unwrap().port();
    let ask = b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\
                Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    client.write(ask).await.unwrap();
    assert_eq!(within("an answer", client.head()).await.unwrap().unwrap().status(), 101);
    let header = String::from_utf8(instance.clients(1).await.remove(0)).unwrap();
    assert!(header.contains(&format!(" {from} ")), "{header}");
}
