//! The dashboard in Chromium: what an operator sees, what the buttons and keys do, and that whatever the
//! API answers is text. One test has the whole real binary behind the page. In the others the page comes
//! from it, and the API is played by `clients/admin_api.mjs`, which may have what a configuration refuses.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::burdock::scratch;
use crate::support::etcd::Etcd;
use crate::support::{Api, Backend, Burdock, Client, FAST_CHECKS, Load, Request, yaml};
use crate::support_clients::process::Process;
use crate::support_clients::{browser, listening, program};

/// A browser takes seconds to start on a busy machine.
const TIMEOUT: Duration = Duration::from_secs(60);

const TOKEN: &str = "sixteen-letters!";

/// The page in a browser.
struct Page(Process);

/// The page over an API that is played.
struct Played {
    page: Page,
    api: Process,
    _burdock: Burdock,
    _backend: Backend,
}

impl Page {
    fn open(url: &str) -> Self {
        let mut page = Self(program("dashboard.mjs", &["--url", url, "--browser", &browser()]));
        page.does(json!({ "do": "visit" }));
        page
    }

    /// What became of a command; nothing may have troubled the page until then.
    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value")]
    fn does(&mut self, command: Value) -> Value {
        self.0.say(&command.to_string());
        self.0.wait_for("an answer", TIMEOUT, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            assert_eq!(line["event"], "done", "{line}");
            Some(line["value"].clone())
        })
    }

    fn sees(&mut self, at: &str, text: &str) {
        self.does(json!({ "do": "see", "at": at, "text": text }));
    }

    fn clicks(&mut self, at: &str) {
        self.does(json!({ "do": "click", "at": at }));
    }

    fn presses(&mut self, keys: &str) {
        for key in keys.split(' ') {
            self.does(json!({ "do": "press", "key": key }));
        }
    }

    fn asks(&mut self, script: &str) -> Value {
        self.does(json!({ "do": "ask", "script": script }))
    }
}

impl Played {
    async fn open(arguments: &[&str]) -> Self {
        let backend = Backend::start("a").await;
        let burdock = Burdock::start(&yaml(&[&backend], "")).await;
        let page = format!("http://{}", burdock.admin());
        let arguments: Vec<&str> = ["--page", &page].iter().chain(arguments).copied().collect();
        let mut api = program("admin_api.mjs", &arguments);
        let page = Page::open(&format!("http://127.0.0.1:{}", listening(&mut api)));
        Self { page, api, _burdock: burdock, _backend: backend }
    }

    #[expect(clippy::needless_pass_by_value, reason = "json! makes a value")]
    fn plays(&mut self, line: Value) {
        self.api.say(&line.to_string());
    }

    /// The next change that the API was asked for.
    fn asked(&mut self) -> Value {
        self.api.wait_for("a change", TIMEOUT, |line| {
            let line: Value = serde_json::from_str(line).ok()?;
            line["changed"].is_string().then_some(line)
        })
    }
}

impl Deref for Played {
    type Target = Page;

    fn deref(&self) -> &Page {
        &self.page
    }
}

impl DerefMut for Played {
    fn deref_mut(&mut self) -> &mut Page {
        &mut self.page
    }
}

fn row(name: &str) -> String {
    format!("#table .row[data-instance='chat/v1/{name}']")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_file_comes_with_its_type_its_policy_and_a_tag() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut client = Client::new(burdock.admin());
    for (path, kind) in [
        ("/", "text/html; charset=utf-8"),
        ("/assets/main.js", "text/javascript; charset=utf-8"),
        ("/assets/style.css", "text/css; charset=utf-8"),
        ("/assets/burr.svg", "image/svg+xml"),
    ] {
        let file = client.get(path).await;
        let field = |name: &str| file.field(name).unwrap_or_default().to_owned();
        assert_eq!((file.status, field("content-type").as_str()), (200, kind), "{path}");
        assert_eq!(
            (field("cache-control").as_str(), field("x-content-type-options").as_str()),
            ("no-cache", "nosniff")
        );
        let policy = field("content-security-policy");
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
        let head = client.send(&Request::new("HEAD", path)).await;
        assert_eq!(
            (head.status, head.field("etag"), head.text().as_str()),
            (200, file.field("etag"), ""),
            "{path}"
        );
        let again = Request::get(path).with("If-None-Match", &field("etag"));
        assert_eq!(client.send(&again).await.status, 304, "{path}");
    }
    assert_eq!(client.send(&Request::post("/", b"x")).await.status, 405);
}

/// Three backends behind a Burdock that wants `TOKEN`.
async fn guarded(backends: &[Backend]) -> Burdock {
    let folder = scratch();
    std::fs::write(folder.join("admin.token"), TOKEN).expect("write the token");
    let all: Vec<_> = backends.iter().collect();
    let admin = "admin: { address: 127.0.0.1:0, token_file: admin.token }";
    let text = yaml(&all, &format!("session_affinity: true\n{FAST_CHECKS}"))
        .replace("admin: { address: 127.0.0.1:0 }", admin);
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let path = config.display().to_string();
    Burdock::spawn(folder, config, &["run", "-c", &path]).await
}

/// What the API says of an instance.
async fn told(burdock: &Burdock, instance: &str) -> Value {
    let path = format!("/api/v1/instances/default/default/{instance}");
    let request = Request::get(&path).with("Authorization", &format!("Bearer {TOKEN}"));
    let answer = Client::new(burdock.admin()).send(&request).await;
    serde_json::from_str(&answer.text()).expect("an instance")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_balancer_of_a_fleet_is_shown_and_marked_when_it_is_gone() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let a = Backend::start("a").await;
    let text = |name: &str| {
        let etcd = format!("{{ endpoints: [\"{}\"], prefix: /f }}", etcd.url());
        yaml(&[&a], &format!("fleet: {{ name: {name}, etcd: {etcd} }}\n"))
    };
    let here = Burdock::start(&text("lb-1")).await;
    let mut other = Burdock::start(&text("lb-2")).await;
    let mut page = Page::open(&format!("http://{}", here.admin()));
    page.sees("#fleet-text", "as lb-1 knows it: heard; 0 orders");
    page.sees("#fleet-nodes tr[data-node=lb-1]", "this one");
    page.sees("#fleet-nodes tr[data-node=lb-2][data-presence=fresh]", &other.admin().to_string());
    other.signal(libc::SIGTERM);
    other.exit_code().await;
    page.sees("#fleet-nodes tr[data-node=lb-2][data-presence=gone]", "gone, heard");
    etcd.kill();
    page.sees("#fleet-text", "not heard");
    page.sees("#warnings", "all goes on as it is");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_operator_sees_traffic_and_a_death_and_drains_an_instance() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let burdock = guarded(&backends).await;
    let load = Load::start(burdock.address(), 5, 50, "/");
    let mut page = Page::open(&format!("http://{}", burdock.admin()));
    page.sees("dialog.ask", "Token of the admin API");
    page.does(json!({ "do": "fill", "at": "#token", "text": TOKEN }));
    page.presses("Enter");
    page.sees("#link", "Live");
    page.sees("#verdict", "All 3 instances are ready.");
    let figure = "document.querySelector('#figures dd span').textContent";
    page.asks(&format!(
        "new Promise((moved) => setInterval(() => Number({figure}) > 10 && moved(true), 50))"
    ));
    page.sees(".chart [data-series=requests] b", "");
    backends[2].dies().await;
    page.sees("#verdict[data-tone=bad]", "1 of 3 instances needs a look: 1 dead.");
    page.sees("#table .row[data-instance='default/default/c'][data-tone=bad]", "connecting");
    page.sees("#event-list", "c is dead");
    page.clicks("#table .row[data-instance='default/default/a'] .act button");
    page.sees("dialog.ask", "All of it would go to one instance, b.");
    page.does(json!({ "do": "fill", "at": "#deadline", "text": "2s" }));
    page.clicks("dialog.ask footer button[type=submit]");
    page.sees("#table .row[data-instance='default/default/a']", "draining");
    assert_eq!(told(&burdock, "a").await["admin"], "draining");
    page.sees("#differences", "default/default/a");
    load.leaves("a").await;
    page.sees("#table .row[data-instance='default/default/a']", "draining, done");
    page.clicks("#table .row[data-instance='default/default/a'] .act button");
    page.presses("Enter");
    page.sees("#table .row[data-instance='default/default/a'][data-tone=good]", "ready");
    assert_eq!(told(&burdock, "a").await["admin"], "active");
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_is_told_of_while_it_runs_and_can_be_ended() {
    let backends = Backend::several(&["a", "b"]).await;
    let text = yaml(&backends.iter().collect::<Vec<_>>(), FAST_CHECKS);
    let burdock = Burdock::start(&text).await;
    let mut page = Page::open(&format!("http://{}", burdock.admin()));
    page.sees("#verdict", "All 2 instances are ready.");
    assert_eq!(page.asks("document.querySelector('#drill').hidden"), true);
    let mut api = Api::of(&burdock);
    let terms =
        json!({ "name": "<b>game day", "holder": "ann", "max_duration": "60s", "lease": "60s" });
    let (status, told) = api.post("drill", terms).await;
    assert_eq!(status, 201, "{told}");
    let fault = json!({ "kind": "eject", "as": "dead", "instances": ["default/default/a"] });
    let path = format!("drill/{}/faults", told["id"].as_str().expect("an id"));
    assert_eq!(api.post(&path, fault).await.0, 201);
    page.sees("#drill-text", "The drill <b>game day of ann runs");
    page.sees("#drill-faults", "eject default/default/a as dead");
    page.sees("#event-list", "the drill <b>game day: eject default/default/a as dead");
    page.sees("#table .row[data-instance='default/default/a'][data-tone=bad]", "dead");
    page.clicks("#drill-end");
    page.sees("dialog.ask", "1 fault will be undone now.");
    page.clicks("dialog.ask footer button[type=submit]");
    page.sees("#event-list", "the drill <b>game day was ended: somebody ended it by the admin API");
    page.sees("#table .row[data-instance='default/default/a'][data-tone=good]", "ready");
    page.asks("new Promise((gone) => setInterval(() => document.querySelector('#drill').hidden && gone(true), 50))");
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_move_and_an_instance_that_dies_turns_red() {
    let mut page = Played::open(&[]).await;
    page.sees("#verdict", "All 8 instances are ready.");
    page.sees("#link", "Live");
    let figure = "document.querySelector('#figures dd span').textContent";
    let before = page.asks(figure);
    page.asks(&format!(
        "new Promise((moved) => setInterval(() => {figure} !== {before} && moved(true), 50))"
    ));
    page.sees("#warnings", "affinity: { engine_io: true }");
    page.plays(json!({ "id": "chat/v1/bellis", "health": "dead", "takes": { "new": false, "bound": false, "reason": "dead" },
        "probes": { "readiness": { "at": "2026-01-01T00:00:00.000Z", "ok": false, "detail": "connection refused" }, "liveness": null } }));
    page.plays(json!({ "event": { "kind": "health", "severity": "error", "instance": "chat/v1/bellis", "text": "bellis is dead: connection refused" } }));
    page.sees("#verdict[data-tone=bad]", "1 of 8 instances needs a look: 1 dead.");
    page.sees(&format!("{}[data-tone=bad]", row("bellis")), "connection refused");
    page.sees("#map .instance[data-tone=bad]", "dead");
    page.sees("#event-list [data-severity=error]", "bellis is dead");
    // Red is not all that tells: there is a word, a shape, and a mark in the charts.
    let first = "document.querySelector('#table-body .row[aria-rowindex=\"2\"]').dataset.instance";
    assert_eq!(page.asks(first), "chat/v1/bellis", "worst first");
    assert_eq!(page.asks("document.querySelectorAll('.plot use[data-severity=error]').length"), 4);
    page.clicks("#verdict-look");
    page.sees("#table-summary", "1 of 8 instances");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_is_asked_for_with_what_it_moves_and_watched_to_its_end() {
    let mut page = Played::open(&[]).await;
    page.clicks(&format!("{} .act button", row("aster")));
    page.sees("dialog.ask", "412 sessions and 37 tunnels will move.");
    page.clicks("dialog.ask footer button:first-child");
    page.does(json!({ "do": "gone", "at": "dialog.ask" }));
    page.clicks(&format!("{} .act button", row("aster")));
    page.does(json!({ "do": "fill", "at": "#deadline", "text": "10 s" }));
    page.clicks("dialog.ask footer button[type=submit]");
    // Nothing was sent when the first question was left.
    let expected = json!({ "changed": "chat/v1/aster", "state": "draining", "deadline": "10s" });
    assert_eq!(page.asked(), expected);
    page.sees(&row("aster"), "draining");
    page.sees("#differences", "chat/v1/aster");
    page.clicks(&format!("{} .name button", row("aster")));
    page.sees("#detail .drain", "left, deadline in");
    page.sees("#detail .drain", "The drain is done.");
    page.clicks("#detail .acts button:has-text('Enable')");
    page.sees("dialog.ask", "Enable aster?");
    page.presses("Enter");
    assert_eq!(page.asked()["state"], "active");
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_reach_everything() {
    let mut page = Played::open(&[]).await;
    page.sees("#link", "Live");
    page.presses("/");
    page.does(json!({ "do": "fill", "at": "#search", "text": "CHAT cirsium" }));
    page.sees("#table-summary", "1 of 8 instances");
    page.presses("Tab");
    assert_eq!(page.asks("document.activeElement.id"), "table");
    page.presses("ArrowDown Enter");
    page.sees("#detail", "cirsium");
    page.presses("Escape");
    page.does(json!({ "do": "gone", "at": "#detail" }));
    assert_eq!(page.asks("document.activeElement.id"), "table", "the focus comes back");
    // The only answer that does nothing has the focus where something would be cut.
    page.presses("x");
    page.sees("dialog.ask", "Disable cirsium?");
    page.presses("Enter");
    page.does(json!({ "do": "gone", "at": "dialog.ask" }));
    page.presses("w");
    page.does(json!({ "do": "fill", "at": "#weight", "text": "3" }));
    page.presses("Enter");
    assert_eq!(page.asked(), json!({ "changed": "chat/v1/cirsium", "weight": 3 }));
    page.presses("r");
    page.sees("dialog.ask", "Reload?");
    page.presses("Enter");
    page.sees("dialog.ask", "Generation 4 is served");
    page.sees("dialog.ask", "drain.timeout: 30s -> 1m");
    page.presses("Escape ?");
    page.sees("dialog.ask", "drain it");
    page.presses("Escape t");
    assert_eq!(page.asks("document.documentElement.dataset.theme"), "dark");
}

#[tokio::test(flavor = "multi_thread")]
async fn it_explains_where_a_request_would_go() {
    let mut page = Played::open(&[]).await;
    page.sees("#link", "Live");
    page.presses("y");
    page.does(json!({ "do": "fill", "at": "#explain-url", "text": "http://a.test/x?y=<b>" }));
    page.presses("Enter");
    page.sees(".explained .lead", "It goes to bellis, assigned: its turn");
    page.sees(".explained", "any host, path / of http://a.test/x?y=<b>");
    page.sees(".explained", "rejected: expired");
    page.sees(".explained .candidates", "in: active");
    page.clicks(".explained .lead button");
    page.sees("#detail", "bellis");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_token_is_asked_for_and_kept_for_this_tab_only() {
    let mut page = Played::open(&["--token", "sixteen-letters!"]).await;
    page.sees("dialog.ask", "Token of the admin API");
    page.does(json!({ "do": "fill", "at": "#token", "text": "another-one" }));
    page.presses("Enter");
    page.sees("dialog.ask .refused", "That token was refused.");
    page.does(json!({ "do": "fill", "at": "#token", "text": "sixteen-letters!" }));
    page.presses("Enter");
    page.sees("#link", "Live");
    page.sees("#verdict", "All 8 instances are ready.");
    page.does(json!({ "do": "visit" }));
    page.sees("#link", "Live");
    assert_eq!(page.asks("JSON.stringify(localStorage).includes('sixteen')"), false);
    page.clicks("#forget");
    page.sees("dialog.ask", "Token of the admin API");
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_text_whatever_they_say() {
    let mut page = Played::open(&[]).await;
    page.sees("#table", "<img src=x onerror=alert(1)>");
    page.sees("#map", "<script>document.title = 'owned'</script>");
    // A name cannot be read as another.
    page.sees("#table", "a⟨U+202E⟩gnp.exe");
    page.plays(json!({ "event": { "kind": "health", "severity": "warning", "text": "<b>bold</b>\u{202e}" } }));
    page.sees("#event-list", "<b>bold</b>⟨U+202E⟩");
    page.does(json!({ "do": "fill", "at": "#search", "text": "a/b" }));
    page.clicks("#table .act button");
    page.sees("dialog.ask h2", "Drain a/b c&d?e#f%2F?");
    page.clicks("dialog.ask footer button[type=submit]");
    assert_eq!(page.asked()["changed"], "chat/v1/a/b c&d?e#f%2F");
    assert_eq!(page.asks("document.querySelectorAll('img, script').length"), 3, "its own");
    assert_eq!(page.asks("document.title.includes('owned')"), false);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_old_looks_old_until_burdock_is_back() {
    let mut page = Played::open(&[]).await;
    page.sees("#link", "Live");
    page.plays(json!({ "mute": true }));
    page.sees("body[data-link=stale] #link", "Stale: figures of");
    page.plays(json!({ "mute": false }));
    page.sees("body[data-link=live] #link", "Live");
}

#[tokio::test(flavor = "multi_thread")]
async fn ten_thousand_instances_are_drawn_where_one_looks() {
    let mut page = Played::open(&["--instances", "10000"]).await;
    page.plays(json!({ "id": "chat/v1/pod-07777", "health": "unready" }));
    page.sees("#verdict", "1 of 10,008 instances needs a look: 1 unready.");
    page.sees("#table-body .row[aria-rowindex='2']", "pod-07777");
    let drawn = "document.querySelectorAll('#table-body .row').length < 40";
    assert_eq!(page.asks(drawn), true);
    page.does(json!({ "do": "click", "at": "#table-head .name button" }));
    page.asks("document.getElementById('table').focus()");
    page.presses("End");
    page.sees("#table-body .row[aria-rowindex='10009'][aria-selected=true]", "x");
    assert_eq!(page.asks(drawn), true);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_phone_shows_all_of_it() {
    let mut page = Played::open(&[]).await;
    page.does(json!({ "do": "resize", "width": 360, "height": 780 }));
    page.sees("#verdict", "All 8 instances are ready.");
    page.sees(&row("aster"), "Drain");
    assert_eq!(page.asks("document.documentElement.scrollWidth <= innerWidth"), true);
}
