//! What Chromium shows a page of the ends that Burdock makes: the code and the reason of the
//! configuration in `onclose`, cleanly closed, never the 1006 of a connection that broke.

mod support;
mod support_clients;

use std::time::Duration;

use serde_json::{Value, json};
use support::Burdock;
use support_clients::process::Process;
use support_clients::{browser, listening, program};

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
