//! Classic mistakes are told with the line that cures them, in every place where an operator looks; and
//! what is no mistake is not told of, however odd the clients.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpSocket;

use crate::support::burdock::{run_in, scratch};
use crate::support::wire::Conn;
use crate::support::{
    Api, Backend, Burdock, Client, DEADLINE, Request, eventually, pause, raw, within,
};

const HEADER: &str = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n\
    workers: 2\naccess_log: false\n";

/// One service for each mistake, behind [`HEADER`]. Line 5 is the first of `services`.
const MISTAKES: &str = "\
services:
  chat:
    hosts: [chat.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
  secure:
    hosts: [secure.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    session_affinity: true
    affinity:
      cookie: { name: SAFE, secure: always }
  lost:
    hosts: [lost.test]
    versions:
      v1:
        instances: [{ name: a, address: A }, { name: b, address: B }]
        session_affinity: true
        affinity:
          cookie: { name: LOST, path: /app }
  keys:
    hosts: [keys.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    session_affinity: true
  nat:
    hosts: [nat.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    balance: hash
    hash_by: client_ip
";

/// Code, `SERVICE/VERSION`, the line of the cure, and how it begins.
const CURES: [(&str, &str, usize, &str); 5] = [
    (
        "cookie_lost",
        "lost/v1",
        22,
        "services.lost.versions.v1.affinity.cookie: { name: LOST, path: / }",
    ),
    ("one_client_address", "nat/default", 0, "trusted_proxies: [127.0.0.1/32]"),
    (
        "secure_cookie_on_http",
        "secure/default",
        14,
        "services.secure.affinity.cookie: { name: SAFE, secure: auto }",
    ),
    ("sid_unknown", "chat/default", 6, "services.chat.session_affinity: true"),
    ("unknown_key", "keys/default", 0, "affinity_keys: { file: affinity.keys }"),
];

struct Site {
    burdock: Burdock,
    _instances: [Backend; 2],
}

impl Site {
    async fn start(services: &str) -> Self {
        let instances = [Backend::start("a").await, Backend::start("b").await];
        let [a, b] = [&instances[0], &instances[1]].map(|it| it.address.to_string());
        let text = format!("{HEADER}{services}").replace("address: A", &format!("address: {a}"));
        let burdock = Burdock::start(&text.replace("address: B", &format!("address: {b}"))).await;
        Self { burdock, _instances: instances }
    }

    /// What is warned of now, by code.
    async fn warnings(&self) -> BTreeMap<String, Value> {
        let status = Api::of(&self.burdock).status().await;
        let warnings = status["warnings"].as_array().expect("a list").clone();
        warnings
            .into_iter()
            .map(|it| (it["code"].as_str().expect("a code").to_owned(), it))
            .collect()
    }

    /// Events of the doctor, as code and whether it was raised.
    async fn told(&self) -> Vec<(String, bool)> {
        let (_, page) = Api::of(&self.burdock).get("events?format=json").await;
        let events = page["events"].as_array().expect("a list");
        let doctors = events.iter().filter(|event| event["kind"] == "doctor");
        let of = |event: &Value| {
            let fields = &event["fields"];
            let code = fields["code"].as_str().expect("a code").to_owned();
            (code, fields["raised"].as_bool().expect("a word"))
        };
        doctors.map(of).collect()
    }

    /// Traffic until it is warned of all of these.
    async fn until_warned_of(&self, codes: &[&str], traffic: impl AsyncFn(&mut Client)) {
        let (begun, mut client) = (Instant::now(), self.burdock.client());
        loop {
            traffic(&mut client).await;
            let warnings = self.warnings().await;
            if codes.iter().all(|code| warnings.contains_key(*code)) {
                return;
            }
            assert!(begun.elapsed() < DEADLINE, "not all of {codes:?}: {warnings:#?}");
            pause().await;
        }
    }
}

fn to(host: &str, path: &str, agent: &str) -> Request {
    Request::get(path).with("Host", host).with("User-Agent", agent)
}

/// A page that polls, as a browser would that nobody keeps at its instance.
async fn poll(client: &mut Client, host: &str) {
    let path = "/socket.io/?EIO=4&transport=polling&strict";
    let opened = client.send(&to(host, path, "page")).await.text();
    let sid = opened.split('"').nth(3).expect("an open packet").to_owned();
    client.send(&to(host, &format!("{path}&sid={sid}"), "page")).await;
}

async fn make_every_mistake(client: &mut Client) {
    poll(client, "chat.test").await;
    for number in 0..25 {
        let agent = format!("client/{number}");
        for host in ["secure.test", "lost.test"] {
            client.send(&to(host, "/", &agent)).await;
        }
        client.send(&by_proxy(number)).await;
    }
}

/// A request that a proxy passes on.
fn by_proxy(client: usize) -> Request {
    to("nat.test", "/", "page").with("X-Forwarded-For", &format!("192.0.2.{client}"))
}

/// Clients that another replica has given their tokens: of sixteen addresses, since two may share a seat
/// where ten must be seen.
async fn come_from_another_replica(site: &Site, stranger: &str) {
    let cookie = format!("BURDOCK={stranger}");
    let request = to("keys.test", "/", "page").with("Cookie", &cookie).encode(None);
    for last in 11..27 {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(SocketAddr::from(([127, 0, 0, last], 0))).expect("a loopback address");
        let stream = socket.connect(site.burdock.address()).await.expect("connect");
        let mut conn = Conn::new(stream);
        conn.write(&request).await.expect("write");
        let answer = within("an answer", conn.head()).await.expect("a head");
        assert_eq!(answer.map(|head| head.status()), Some(200));
    }
}

/// A token that another key has sealed.
async fn strangers_token(site: &Site) -> String {
    let answer = site.burdock.client().send(&to("keys.test", "/", "x")).await;
    let mut token = answer.cookie("BURDOCK").expect("a token");
    let other = if token.as_bytes()[2] == b'A' { "B" } else { "A" };
    token.replace_range(2..3, other);
    token
}

fn codes<'a>(of: impl IntoIterator<Item = &'a String>) -> Vec<&'a str> {
    of.into_iter().map(String::as_str).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_mistake_is_told_everywhere_with_the_line_that_cures_it() {
    let mut site = Site::start(MISTAKES).await;
    let all = CURES.map(|(code, ..)| code);
    let stranger = strangers_token(&site).await;
    let traffic = async |client: &mut Client| {
        make_every_mistake(client).await;
        come_from_another_replica(&site, &stranger).await;
    };
    site.until_warned_of(&all, traffic).await;

    let warnings = site.warnings().await;
    assert_eq!(codes(warnings.keys()), all, "and of nothing else");
    let file = site.burdock.config.display().to_string();
    for (code, version, line, cure) in CURES {
        let at =
            if line > 0 { format!("{file}:{line}: {cure}") } else { format!("{file}: {cure}") };
        let is_sure = code != "one_client_address";
        let at = if is_sure { at } else { format!("if 127.0.0.1 is a proxy of yours: {at}") };
        let (warning, told) = (&warnings[code], |it: &Value| it.as_str().expect("text").to_owned());
        assert!(told(&warning["cure"]).starts_with(&at), "{warning}, not {at}");
        assert!(told(&warning["message"]).starts_with(&format!("{version}: ")), "{warning}");
        assert!(warning["count"].as_u64() >= Some(3), "{warning}");
        let is_it = |line: &Value| line["code"] == code && line["level"] == "WARN";
        let lines = || {
            let output = site.burdock.output();
            let lines = output.lines().filter_map(|line| serde_json::from_str(line).ok());
            lines.filter(is_it).collect::<Vec<Value>>()
        };
        // It is known a moment before it is told of.
        let logged = eventually(code, || lines().pop()).await;
        assert_eq!(lines().len(), 1, "{code} once in the log");
        assert!(told(&logged["cure"]).starts_with(&at), "{logged}");
    }
    let begun = Instant::now();
    let mut told = site.told().await;
    while told.len() < all.len() && begun.elapsed() < DEADLINE {
        pause().await;
        told = site.told().await;
    }
    told.sort();
    assert_eq!(told, all.map(|code| (code.to_owned(), true)));
    let seen = site.burdock.metrics().await.sum("burdock_events_total", &[("kind", "doctor")]);
    assert_eq!(seen, 5.0);
    let url = format!("http://{}", site.burdock.admin());
    let printed = tokio::task::spawn_blocking(move || {
        run_in(&scratch(), &["status"], &[("BURDOCK_ADMIN", &url)])
    });
    let printed =
        String::from_utf8(printed.await.expect("a command that ends").stdout).expect("text");
    for (code, _, _, cure) in CURES {
        assert!(
            printed.contains(&format!("warning {code}")) && printed.contains(cure),
            "{printed}"
        );
    }
    cured(&mut site).await;
}

/// The cure is written into the file, and the warning is gone at the next look.
async fn cured(site: &mut Site) {
    let text = std::fs::read_to_string(&site.burdock.config).expect("read the configuration");
    let cured =
        text.replace("hosts: [chat.test]", "hosts: [chat.test]\n    session_affinity: true");
    assert_eq!(site.burdock.reload(&cured).await["message"], "reloaded");
    site.burdock.wait_log("no longer so", |line| line["code"] == "sid_unknown").await;
    let warnings = site.warnings().await;
    assert_eq!(warnings.len(), 4, "{warnings:#?}");
    let begun = Instant::now();
    while !site.told().await.contains(&("sid_unknown".to_owned(), false)) {
        assert!(begun.elapsed() < DEADLINE, "no event: {:?}", site.told().await);
        pause().await;
    }
    let line = warnings["cookie_lost"]["cure"].as_str().expect("text").to_owned();
    assert!(line.contains(".yaml:23: "), "a line further down: {line}");
}

const HEALTHY: &str = "\
services:
  chat:
    hosts: [chat.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
  web:
    hosts: [web.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    session_affinity: true
  checked:
    hosts: [checked.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    session_affinity: true
  one:
    hosts: [one.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    balance: hash
    hash_by: client_ip
  nat:
    hosts: [nat.test]
    instances: [{ name: a, address: A }, { name: b, address: B }]
    balance: hash
    hash_by: client_ip
";

/// Clients as they are about any service, none of which is a mistake of the operator's.
async fn be_odd(site: &Site, browsers: &mut [Client], client: &mut Client, stranger: &str) {
    for browser in browsers {
        browser.send(&to("web.test", "/", "browser")).await;
    }
    for number in 0..10 {
        let checker = format!("checker/{number}");
        client.send(&to("checked.test", "/", &checker)).await;
        client.send(&to("one.test", "/", &checker)).await;
        client.send(&to("web.test", "/", &checker)).await;
        let guess = "/socket.io/?EIO=4&transport=polling&strict&sid=guessed";
        assert_eq!(client.send(&to("chat.test", guess, &checker)).await.status, 400);
        let forged = format!("BURDOCK={stranger}");
        client.send(&to("web.test", "/", &checker).with("Cookie", &forged)).await;
    }
    let old = "GET / HTTP/1.0\r\nHost: checked.test\r\n\r\n";
    raw::exchange(site.burdock.address(), old).await;
    // Each opens a session and is never seen again.
    client.send(&to("chat.test", "/socket.io/?EIO=4&transport=polling&strict", "page")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn odd_clients_of_a_healthy_service_raise_no_alarm() {
    let site = Site::start(HEALTHY).await;
    let answer = site.burdock.client().send(&to("web.test", "/", "x")).await;
    let mut stranger = answer.cookie("BURDOCK").expect("a token");
    stranger.replace_range(2..3, if stranger.as_bytes()[2] == b'A' { "B" } else { "A" });
    let mut browsers: Vec<_> = (0..30).map(|_| site.burdock.session()).collect();
    let (begun, mut client) = (Instant::now(), site.burdock.client());
    // Long enough for a client to have come in four seconds.
    while begun.elapsed() < Duration::from_secs(4) {
        be_odd(&site, &mut browsers, &mut client, &stranger).await;
        pause().await;
    }
    // The look that finds this one has looked at all the others.
    let traffic = async |client: &mut Client| {
        for number in 0..60 {
            client.send(&by_proxy(number)).await;
        }
    };
    site.until_warned_of(&["one_client_address"], traffic).await;
    let warnings = site.warnings().await;
    assert_eq!(codes(warnings.keys()), ["one_client_address"], "{warnings:#?}");
    assert!(warnings["one_client_address"]["message"].as_str().expect("text").starts_with("nat/"));
    let begun = Instant::now();
    while site.told().await.is_empty() && begun.elapsed() < DEADLINE {
        pause().await;
    }
    assert_eq!(site.told().await, [("one_client_address".to_owned(), true)]);
}
