//! What a Prometheus gets: requests, errors and durations that agree with what clients saw, text that
//! `promtool` accepts, and rules and a dashboard that ask for nothing that isn't there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use burdock::admin::metrics::NAMES;
use serde_json::Value;

use crate::support::burdock::{Metrics, scratch};
use crate::support::{
    Backend, Burdock, Client, FAST_READINESS, Fault, HEADER, Request, pause, raw, within, yaml,
};

fn deployed(file: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(file)
}

fn read(file: &str) -> String {
    std::fs::read_to_string(deployed(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// Runs `promtool`, which `tests/clients/install` installs, and gives what it complains of.
fn promtool(arguments: &[&str], input: &str) -> String {
    let mut child = Command::new("promtool")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("promtool; tests/clients/install installs it");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("its input");
    let output = child.wait_with_output().expect("its end");
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    if output.status.success() { String::new() } else { format!("{}: {told}", output.status) }
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_errors_and_durations_agree_with_what_clients_saw() {
    let backends = Backend::several(&["a", "b"]).await;
    let [a, b] = &backends[..] else { panic!("two") };
    let text = format!(
        "{HEADER}services:\n  app: {{ hosts: [app.test], versions: {{ v1: {{ retry: {{ attempts: 1 }}, \
         breaker: off, instances: [{}, {}] }} }} }}\n",
        a.address, b.address
    );
    let burdock = Burdock::start(&text).await;
    let mut client = burdock.client();
    for _ in 0..4 {
        assert_eq!(client.get("/").await.status, 200);
    }
    a.misbehaves(Fault::Status(503));
    b.misbehaves(Fault::CloseBeforeAnswer);
    let statuses = [client.get("/x").await.status, client.get("/x").await.status];
    assert_eq!(BTreeSet::from(statuses), BTreeSet::from([502, 503]));
    let elsewhere = raw::exchange_text(
        burdock.address(),
        "GET / HTTP/1.1\r\nHost: b.test\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert!(elsewhere.starts_with("HTTP/1.1 404"), "{elsewhere}");
    let count = "burdock_listener_request_duration_seconds_count";
    burdock.wait_metric(count, &[], |n| n == 7.0).await;
    let metrics = burdock.metrics().await;
    let listener = burdock.address().to_string();
    for (name, labels, expected) in [
        ("burdock_listener_requests_total", [("listener", &*listener), ("class", "2xx")], 4.0),
        ("burdock_listener_requests_total", [("listener", &*listener), ("class", "4xx")], 1.0),
        ("burdock_listener_requests_total", [("listener", &*listener), ("class", "5xx")], 2.0),
        ("burdock_client_requests_total", [("service", "app"), ("class", "2xx")], 4.0),
        ("burdock_client_requests_total", [("service", "app"), ("class", "4xx")], 0.0),
        ("burdock_client_requests_total", [("service", "app"), ("class", "5xx")], 2.0),
        ("burdock_client_first_byte_seconds_bucket", [("service", "app"), ("le", "+Inf")], 5.0),
    ] {
        assert_eq!(metrics.sum(name, &labels), expected, "{name}{labels:?}");
    }
    for (name, expected) in [
        ("burdock_listener_errors_total", 2.0),
        ("burdock_client_errors_total", 2.0),
        ("burdock_attempts_total", 6.0),
        ("burdock_client_request_duration_seconds_count", 6.0),
        ("burdock_instance_first_byte_seconds_count", 5.0),
    ] {
        assert_eq!(metrics.sum(name, &[]), expected, "{name}");
    }
    let seconds = metrics.sum("burdock_client_request_duration_seconds_sum", &[]);
    assert!(seconds > 0.0 && seconds < 60.0, "{seconds}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_another_attempt_at_the_same_request() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let burdock = Burdock::start(&yaml(&all, "")).await;
    backends[0].misbehaves(Fault::CloseBeforeAnswer);
    backends[1].misbehaves(Fault::None);
    for _ in 0..2 {
        assert_eq!(burdock.client().get("/").await.status, 200);
    }
    burdock.wait_metric("burdock_client_requests_total", &[("class", "2xx")], |n| n == 2.0).await;
    let metrics = burdock.metrics().await;
    let retries = metrics.sum("burdock_retries_total", &[]);
    assert!(retries >= 1.0);
    assert_eq!(metrics.sum("burdock_attempts_total", &[]), 2.0 + retries);
    assert_eq!(metrics.sum("burdock_client_errors_total", &[]), 0.0);
    let slow = [("instance", "a")];
    assert_eq!(metrics.sum("burdock_instance_first_byte_seconds_count", &slow), 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn probes_reloads_and_events_are_counted() {
    let backends = Backend::several(&["a", "b"]).await;
    let all: Vec<_> = backends.iter().collect();
    let text = yaml(&all, FAST_READINESS);
    let burdock = Burdock::start(&text).await;
    burdock.wait_health("a", "ready").await;
    backends[0].ready(false);
    burdock.wait_health("a", "unready").await;
    let refused = [("instance", "a"), ("check", "readiness"), ("outcome", "refused")];
    burdock.wait_metric("burdock_instance_probes_total", &refused, |n| n >= 1.0).await;
    let before = burdock.metrics().await;
    let success = "burdock_config_last_reload_success_timestamp_seconds";
    assert!(before.sum(success, &[]) >= before.sum("burdock_start_timestamp_seconds", &[]) - 1.0);
    assert_eq!(burdock.reload("instances: 5\n").await["message"], "reload rejected");
    let after = burdock.metrics().await;
    assert_eq!(after.sum("burdock_config_last_reload_success", &[]), 0.0);
    assert_eq!(after.sum(success, &[]), before.sum(success, &[]), "it was no success");
    let last = "burdock_config_last_reload_timestamp_seconds";
    assert!(after.sum(last, &[]) > before.sum(last, &[]));
    assert_eq!(after.sum("burdock_events_total", &[("kind", "reload")]), 1.0);
    assert!(after.sum("burdock_events_total", &[("kind", "health")]) >= 1.0);
    let probes = after.sum("burdock_probe_duration_seconds_count", &[("check", "readiness")]);
    assert!(probes >= 2.0 && after.sum("burdock_probe_duration_seconds_sum", &[]) > 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn promtool_accepts_the_exposition_and_the_rules() {
    let a = Backend::start("a").await;
    let rest = format!("session_affinity: true\n{FAST_READINESS}");
    let burdock = Burdock::start(&yaml(&[&a], &rest)).await;
    burdock.client().get("/").await;
    burdock.client().send(&Request::get("/").with("Cookie", "BURDOCK=x")).await;
    let text = Client::admin(burdock.admin()).get("/metrics").await.text();
    assert_eq!(promtool(&["check", "metrics"], &text), "");
    let rules = deployed("prometheus/alerts.yaml").display().to_string();
    assert_eq!(promtool(&["check", "rules", &rules], ""), "");
    // Nobody has the token here, and Debian's Prometheus does not know Kubernetes.
    let directory = scratch();
    std::fs::copy(&rules, directory.join("alerts.yaml")).expect("copy the rules");
    let mut shipped: Value =
        serde_yaml::from_str(&read("prometheus/prometheus.yaml")).expect("YAML");
    for job in shipped["scrape_configs"].as_array_mut().expect("jobs") {
        job["authorization"]["credentials_file"] = "alerts.yaml".into();
        job.as_object_mut().expect("a job").remove("kubernetes_sd_configs");
    }
    let config = directory.join("prometheus.yaml").display().to_string();
    std::fs::write(&config, shipped.to_string()).expect("write its config");
    assert_eq!(promtool(&["check", "config", &config], ""), "");
}

/// Every word of a text that may be a metric of Burdock's.
fn names(text: &str) -> BTreeSet<&str> {
    let words = text.split(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'));
    words.filter(|word| word.starts_with("burdock_")).collect()
}

#[test]
fn rules_and_dashboard_ask_for_metrics_that_exist() {
    let mut asked = BTreeSet::new();
    for file in ["prometheus/alerts.yaml", "grafana/burdock.json"] {
        let text = read(file);
        for name in names(&text) {
            let known = NAMES.iter().any(|(known, kind, _)| match *kind {
                "histogram" => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|suffix| name.strip_suffix(suffix) == Some(known)),
                _ => name == *known,
            });
            assert!(known, "{file} asks for {name}");
            asked.insert(name.to_owned());
        }
    }
    assert!(asked.len() > 40, "{asked:?}");
}

/// The queries of the dashboard and of the rules, with what Grafana puts in the place of variables.
fn queries() -> Vec<String> {
    let dashboard: Value = serde_json::from_str(&read("grafana/burdock.json")).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().cloned().unwrap_or_default());
    let shown = targets.map(|target| target["expr"].as_str().expect("a query").to_owned());
    let rules: Value = serde_yaml::from_str(&read("prometheus/alerts.yaml")).expect("YAML");
    let rules = rules["groups"][0]["rules"].as_array().expect("rules").clone();
    let alerts = rules.into_iter().map(|rule| rule["expr"].as_str().expect("a query").to_owned());
    let substitutes =
        [("$__rate_interval", "1m"), ("$service", ".*"), ("$version", ".*"), ("$instance", ".*")];
    let substituted = |query: String| {
        substitutes.iter().fold(query, |query, (name, value)| query.replace(name, value))
    };
    shown.chain(alerts).map(substituted).collect()
}

/// What `deploy/` says of asking a Burdock, of the one that has this admin address, which wants no token.
fn shipped_job(admin: SocketAddr) -> Value {
    let config: Value = serde_yaml::from_str(&read("prometheus/prometheus.yaml")).expect("YAML");
    let mut job = config["scrape_configs"][0].clone();
    job.as_object_mut().expect("a job").remove("authorization").expect("a token");
    job["static_configs"][0]["targets"][0] = admin.to_string().into();
    job
}

/// A Prometheus that scrapes one Burdock; ended when dropped.
struct Prometheus {
    child: Child,
    address: SocketAddr,
}

impl Prometheus {
    fn scraping(admin: SocketAddr) -> Self {
        let directory = scratch();
        let rules = deployed("prometheus/alerts.yaml");
        let config = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 1s }}\nrule_files: ['{}']\n\
             scrape_configs: [{}]\n",
            rules.display(),
            shipped_job(admin)
        );
        std::fs::write(directory.join("prometheus.yml"), config).expect("write its config");
        let mut child = Command::new("prometheus")
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg("--web.listen-address=127.0.0.1:0")
            .current_dir(directory)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("prometheus; tests/clients/install installs it");
        let lines = BufReader::new(child.stderr.take().expect("a pipe")).lines();
        let mut lines = lines.map_while(Result::ok);
        // With port 0 the address is told where it listens.
        let address = lines
            .find_map(|line| line.split_once("msg=\"Listening on\" address=")?.1.parse().ok())
            .expect("the address that it listens at");
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    async fn ask(&self, query: &str) -> Value {
        let encode = |byte: u8| match byte.is_ascii_alphanumeric() {
            true => char::from(byte).to_string(),
            false => format!("%{byte:02X}"),
        };
        let query: String = query.bytes().map(encode).collect();
        let path = format!("/api/v1/query?query={query}");
        let answer = Client::admin(self.address).get(&path).await;
        // It says so in plain text as long as it isn't ready.
        serde_json::from_str(&answer.text()).unwrap_or_default()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prometheus_scrapes_it_and_knows_every_query() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], FAST_READINESS)).await;
    burdock.client().get("/").await;
    burdock.wait_metric("burdock_client_requests_total", &[("class", "2xx")], |n| n == 1.0).await;
    let prometheus = Prometheus::scraping(burdock.admin());
    let first = |answer: &Value| answer["data"]["result"][0]["value"][1].clone();
    within("a scrape", async {
        let requests = "burdock_client_requests_total{class=\"2xx\"}";
        while first(&prometheus.ask(requests).await) != "1" {
            pause().await;
        }
    })
    .await;
    assert_eq!(first(&prometheus.ask("up").await), "1");
    // Under these names the rules and the dashboard look for them.
    let of_a = format!("burdock_instance_health{{instance=\"a\",replica=\"{}\"}}", burdock.admin());
    assert_eq!(first(&prometheus.ask(&format!("max({of_a})")).await), "1");
    for query in queries() {
        let answer = prometheus.ask(&query).await;
        assert_eq!(answer["status"], "success", "{query}: {answer}");
    }
    let scraped = first(&prometheus.ask("scrape_samples_scraped").await);
    let told: Metrics = burdock.metrics().await;
    let scraped: usize = scraped.as_str().and_then(|n| n.parse().ok()).expect("a number");
    assert!(scraped.abs_diff(told.series.len()) < 40, "{scraped} of {}", told.series.len());
}
