//! What Chromium shows a page of the ends that Burdock makes: the code and the reason of the
//! configuration in `onclose`, cleanly closed, never the 1006 of a connection that broke. And what it does
//! by https: HTTP/2, WebSockets, and the cookies of a frame in a page of another site.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::burdock::scratch;
use crate::support::tls::Authority;
use crate::support::{self, Burdock, Request, within};
use crate::support_clients::process::Process;
use crate::support_clients::{browser, listening, program};

/// A browser takes seconds to start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(40);

/// A page in a browser, its servers, and Burdock between them.
struct Site {
    browser: Process,
    servers: Vec<Process>,
    instances: Vec<String>,
    burdock: Burdock,
    rest: &'static str,
}

impl Site {
    /// Burdock knows the first of two servers; `rest` ends its configuration.
    async fn open(rest: &'static str) -> Self {
        let mut servers: Vec<Process> =
            ["a", "b"].iter().map(|name| program("page_server.mjs", &["--name", name])).collect();
        let instances: Vec<String> =
            servers.iter_mut().map(|server| format!("127.0.0.1:{}", listening(server))).collect();
        let burdock = Burdock::start(&configuration(&instances[0], rest)).await;
        let url = format!("http://{}", burdock.address());
        let browser = program("browser.mjs", &["--url", &url, "--browser", &browser()]);
        let mut site = Self { browser, servers, instances, burdock, rest };
        let page = site.hears("page");
        assert_eq!(page["title"], "sockets", "{page}");
        site.opens("first");
        site
    }

    fn opens(&mut self, name: &str) {
        self.browser.say(&format!("open {name} /ws"));
        assert_eq!(self.hears("echo"), json!({ "event": "echo", "name": name, "data": "hello" }));
    }

    fn hears(&mut self, event: &str) -> Value {
        self.browser.wait_for(event, TIMEOUT, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            // An end that nobody waits for is a failure, not a line to pass over.
            assert!(line["event"] != "close" || event == "close", "{line}");
            (line["event"] == event).then_some(line)
        })
    }

    fn sees_close(&mut self, code: u16, reason: &str) {
        let close = self.hears("close");
        let expected = json!({ "event": "close", "name": "first", "code": code, "reason": reason, "wasClean": true });
        assert_eq!(close, expected);
    }
}

fn configuration(instance: &str, rest: &str) -> String {
    format!("{}instances: [\"{instance}\"]\n{rest}\n", support::HEADER)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_sees_1012_and_the_configured_reason_when_its_instance_is_removed() {
    let mut site = Site::open(
        "drain: { timeout: 500ms, spread: 500ms }\n\
         websocket: { closes: { removed: { reason: \"wir bauen um\" } } }",
    )
    .await;
    let other = configuration(&site.instances[1], site.rest);
    assert_eq!(site.burdock.reload(&other).await["message"], "reloaded");
    site.sees_close(1012, "wir bauen um");
    site.opens("second");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_sees_1001_at_the_end_of_a_lifetime() {
    let mut site = Site::open("websocket: { max_lifetime: 2s, lifetime_jitter: 0% }").await;
    site.sees_close(1001, "the connection reached its lifetime");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_sees_1012_when_burdock_is_stopped() {
    let mut site = Site::open("").await;
    let rest = "shutdown: { timeout: 2s, spread: 500ms }";
    let short = configuration(&site.instances[0], rest);
    assert_eq!(site.burdock.reload(&short).await["message"], "reloaded");
    site.burdock.signal(libc::SIGTERM);
    site.sees_close(1012, "the balancer is restarting");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_sees_1014_when_its_instance_is_killed() {
    let mut site = Site::open("").await;
    site.servers[0].kill();
    site.sees_close(1014, "the instance is gone");
}

/// A browser that comes by https, two servers, and Burdock between them.
struct Secure {
    browser: Process,
    _servers: Vec<Process>,
    burdock: Burdock,
    ca: Authority,
}

impl Secure {
    async fn open(rest: &str) -> Self {
        let mut servers: Vec<Process> =
            ["a", "b"].iter().map(|name| program("page_server.mjs", &["--name", name])).collect();
        let instances: Vec<String> =
            servers.iter_mut().map(|server| format!("127.0.0.1:{}", listening(server))).collect();
        let (ca, folder) = (Authority::new("ca"), scratch());
        ca.issue(&["home.test", "other.test"]).save(&folder, "a");
        let listener =
            "{ address: 127.0.0.1:0, tls: { certificates: [{ cert: a.pem, key: a.key }] } }";
        let text = configuration(&instances.join("\", \""), rest)
            .replace("{ address: 127.0.0.1:0 }]", &format!("{listener}]"));
        let config = folder.join("burdock.yaml");
        std::fs::write(&config, text).expect("write the config");
        let path = config.display().to_string();
        let burdock = Burdock::spawn(folder, config, &["run", "-c", &path]).await;
        let url = format!("https://home.test:{}", burdock.address().port());
        let arguments = ["--hosts", "--url", &url, "--browser", &browser()];
        Self { browser: program("browser.mjs", &arguments), _servers: servers, burdock, ca }
    }

    fn hears(&mut self, event: &str) -> Value {
        self.browser.wait_for(event, TIMEOUT, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            (line["event"] == event).then_some(line)
        })
    }

    /// The server and the cookies of a page, after `command`.
    fn sees(&mut self, command: &str, event: &str) -> (String, Vec<String>) {
        self.browser.say(command);
        let seen = self.hears(event);
        assert_eq!(seen["proto"], "https", "{seen}");
        let cookies = seen["cookies"].as_array().expect("names of cookies");
        let mut cookies: Vec<_> =
            cookies.iter().map(|name| name.as_str().expect("a name").to_owned()).collect();
        cookies.sort();
        (seen["name"].as_str().expect("a name").to_owned(), cookies)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_by_https_speaks_http2_and_opens_websockets() {
    let mut site = Secure::open("websocket: { max_lifetime: 2s, lifetime_jitter: 0% }").await;
    assert_eq!(site.hears("page")["protocol"], "h2");
    site.browser.say("open first /ws");
    site.hears("echo");
    let close = site.hears("close");
    assert_eq!((&close["code"], &close["wasClean"]), (&json!(1001), &json!(true)));
    let line = site.burdock.wait_log("tunnel", |_| true).await;
    assert_eq!(line["tls_version"], "1.3");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frame_of_another_site_keeps_its_session_by_the_paired_cookie() {
    let mut site = Secure::open(
        "session_affinity: true\naffinity: { cross_site_cookie: true, pass_cookie: true }",
    )
    .await;
    site.hears("page");
    let port = site.burdock.address().port();
    let page = format!("https://home.test:{port}/seen");
    let (home, cookies) = site.sees(&format!("see {page}"), "seen");
    assert_eq!(cookies, ["BURDOCK", "BURDOCK_XS"]);
    // Another site has a jar of its own, which the paired cookie alone gets into.
    let around = format!("frame https://other.test:{port}/around?{page}");
    let (framed, cookies) = site.sees(&around, "framed");
    assert_eq!(cookies, [""]);
    for _ in 0..3 {
        assert_eq!(site.sees(&around, "framed"), (framed.clone(), vec!["BURDOCK_XS".to_owned()]));
    }
    // Of two cookies that say different things the plain one counts.
    let (server, token) = elsewhere(&site, &home).await;
    site.browser.say(&format!("cookie https://home.test:{port} BURDOCK {token}"));
    site.hears("put");
    let both = vec!["BURDOCK".to_owned(), "BURDOCK_XS".to_owned()];
    assert_eq!(site.sees(&format!("see {page}"), "seen"), (server, both));
}

/// Another server than `home`, and the token of a session there.
async fn elsewhere(site: &Secure, home: &str) -> (String, String) {
    let mut conn = site.ca.client().conn(site.burdock.address(), "home.test").await;
    loop {
        conn.write(&Request::get("/seen").encode(None)).await.expect("write a request");
        let head = within("a head", conn.head()).await.expect("read a head").expect("an answer");
        let body =
            within("a body", conn.body(head.response_framing("GET"))).await.expect("read a body");
        let text = String::from_utf8(body.bytes).expect("a text");
        let name = if text.contains("\"name\":\"a\"") { "a" } else { "b" };
        if name != home {
            let line = head.all("set-cookie").into_iter().find(|it| it.starts_with("BURDOCK="));
            let pair = line.and_then(|line| line.split(';').next()).expect("a cookie");
            return (name.to_owned(), pair["BURDOCK=".len()..].to_owned());
        }
    }
}
