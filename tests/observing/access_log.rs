//! The access log elsewhere than among the log of the process: its formats, its share, its rotation;
//! and that nothing that befalls its file is felt by traffic.

use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::support::burdock::{scratch, signal_process};
use crate::support::client::Request;
use crate::support::ws::WebSocket;
use crate::support::{self, Backend, Burdock, Fault, Load, eventually, run_to_end, yaml};

/// A configuration whose access log is `log`.
fn logging(backend: &Backend, log: &str, rest: &str) -> String {
    yaml(&[backend], rest).replace("access_log: true", &format!("access_log: {log}"))
}

async fn start(text: &str, directory: PathBuf) -> Burdock {
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let arguments = ["run", "-c", "burdock.yaml", "--pid-file", "pid"];
    Burdock::spawn(directory, config, &arguments).await
}

fn lines(file: &Path) -> Vec<String> {
    std::fs::read_to_string(file).unwrap_or_default().lines().map(str::to_owned).collect()
}

/// The lines of a file, once there are `n`.
async fn has(file: &Path, n: usize) -> Vec<String> {
    eventually(&format!("{n} lines in {}", file.display()), || {
        let lines = lines(file);
        (lines.len() >= n).then_some(lines)
    })
    .await
}

fn json(line: &str) -> Value {
    serde_json::from_str(line).unwrap_or_else(|error| panic!("{error} in {line}"))
}

#[tokio::test(flavor = "multi_thread")]
async fn format_share_and_file_change_with_a_reload() {
    let a = Backend::start("a").await;
    let text = |log: &str| logging(&a, log, "");
    let burdock = Burdock::start(&text("{ to: one.log, format: combined }")).await;
    let [one, two] = ["one.log", "two.log"].map(|name| burdock.directory.join(name));
    let mode = one.metadata().expect("a file is made").permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0, "{mode:o}");
    let mut client = burdock.client();
    let request = Request::post("/echo?a=%22b", b"12345").with("Referer", "http://x/");
    client.send(&request.with("User-Agent", "evil\" \\\t\u{9b}2J")).await;
    let line = &has(&one, 1).await[0];
    let (before, after) = line.split_once('[').expect("a time");
    let (time, after) = after.split_once(']').expect("an end of it");
    assert_eq!((before, time.len(), &time[20..]), ("127.0.0.1 - - ", 26, " +0000"), "{line}");
    let told =
        " \"POST /echo?a=%22b HTTP/1.1\" 200 5 \"http://x/\" \"evil\\\" \\\\\\t\\xc2\\x9b2J\"";
    assert_eq!(after, told);

    burdock.reload(&text("{ to: one.log, format: common }")).await;
    client.get("/status/404").await;
    let line = &has(&one, 2).await[1];
    assert!(line.contains("] \"GET /status/404 HTTP/1.1\" ") && !line.contains("\"-\""), "{line}");
    burdock.reload(&text("{ to: two.log }")).await;
    client.get("/in-json").await;
    assert_eq!(json(&has(&two, 1).await[0])["path"], "/in-json");
    burdock.reload(&text("{ to: stderr }")).await;
    client.get("/by-stderr").await;
    burdock.access("/by-stderr", 1).await;
    assert_eq!((lines(&one).len(), lines(&two).len()), (2, 1));

    let refused = burdock.reload(&text("{ to: /proc/access.log }")).await;
    assert_eq!(refused["message"], "reload rejected");
    assert!(refused["error"].to_string().contains("opening the access log /proc/access.log"));
    client.get("/as-before").await;
    burdock.access("/as-before", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sample_leaves_out_no_failure_and_says_what_it_stands_for() {
    let a = Backend::start("a").await;
    let log = "{ to: access.log, sample: 50% }";
    let burdock = Burdock::start(&logging(&a, log, "retry: { attempts: 1 }\n")).await;
    let file = burdock.directory.join("access.log");
    let mut client = burdock.client();
    for _ in 0..200 {
        assert_eq!(client.get("/fine").await.status, 200);
    }
    a.misbehaves(Fault::Status(503));
    for _ in 0..20 {
        client.get("/failed").await;
    }
    a.misbehaves(Fault::ResetBeforeAnswer);
    assert_eq!(client.send(&Request::post("/broken", b"x")).await.status, 502);
    let of = |lines: &[String], path: &str| -> Vec<Value> {
        lines.iter().map(|line| json(line)).filter(|line| line["path"] == path).collect()
    };
    eventually("the last line", || (of(&lines(&file), "/broken").len() == 1).then_some(())).await;
    let lines = lines(&file);
    let (fine, failed) = (of(&lines, "/fine"), of(&lines, "/failed"));
    assert_eq!(failed.len(), 20);
    // A coin that fell on one side 160 times of 200 is none.
    assert!((40..160).contains(&fine.len()), "{}", fine.len());
    assert!(fine.iter().all(|line| line["sample"] == 0.5), "{:?}", fine.first());
    assert!(failed.iter().all(|line| line["sample"].is_null()), "{:?}", failed.first());
}

#[tokio::test(flavor = "multi_thread")]
async fn logrotate_loses_no_line_as_it_is_shipped() {
    let a = Backend::start("a").await;
    let directory = scratch();
    let burdock = start(&logging(&a, "{ to: access.log }", ""), directory).await;
    let here = burdock.directory.display().to_string();
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/logrotate/burdock");
    let shipped = std::fs::read_to_string(shipped).expect("a configuration of logrotate");
    let owner = burdock.directory.metadata().expect("a folder");
    let ours = shipped
        .replace("/var/log/burdock/", &format!("{here}/"))
        .replace("/run/burdock/pid", &format!("{here}/pid"))
        .replace("su burdock burdock", &format!("su {} {}", name(owner.uid()), group(owner.gid())));
    // logrotate reads nothing that others may write.
    let config = burdock.directory.join("rotate.conf");
    std::fs::write(&config, ours).expect("write the configuration");
    std::fs::set_permissions(&config, PermissionsExt::from_mode(0o644)).expect("its mode");
    let file = burdock.directory.join("access.log");

    let load = Load::start(burdock.address(), 10, 500, "/");
    for round in 1..=3 {
        load.passes(50).await;
        let state = burdock.directory.join("state");
        let mut rotate = Command::new("logrotate");
        rotate.arg("--force").arg("--state").arg(state).arg(&config);
        let rotated = rotate.output().expect("logrotate");
        assert!(rotated.status.success(), "{}", String::from_utf8_lossy(&rotated.stderr));
        eventually("the log to be opened anew", || {
            (burdock.log("the access log was opened anew").len() == round).then_some(())
        })
        .await;
    }
    load.passes(50).await;
    let answers: usize = load.stop().await.iter().map(|seen| seen.instances.len()).sum();
    let all = || {
        let mut unzip = Command::new("sh");
        unzip.args(["-c", "cat access.log access.log.1; zcat access.log.*.gz"]);
        let output = unzip.current_dir(&burdock.directory).output().expect("sh");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let text = eventually("every line", || Some(all()).filter(|it| it.lines().count() >= answers));
    let text = text.await;
    assert_eq!(text.lines().count(), answers, "one line for each answer");
    assert!(text.lines().all(|line| json(line)["status"] == 200), "no line was split");
    assert!(!lines(&file).is_empty() && burdock.directory.join("access.log.3.gz").exists());
}

/// The name of a user, as the system's list has it.
fn name(id: u32) -> String {
    named("/etc/passwd", id)
}

fn group(id: u32) -> String {
    named("/etc/group", id)
}

fn named(list: &str, id: u32) -> String {
    let text = std::fs::read_to_string(list).expect("a list of names");
    let is_it = |row: &&str| row.split(':').nth(2) == Some(&id.to_string());
    let row = text.lines().find(is_it).expect("a name for us");
    row.split(':').next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_disk_that_is_full_disturbs_nobody_and_is_told_of_once() {
    let a = Backend::start("a").await;
    let mut burdock = Burdock::start(&logging(&a, "{ to: /dev/full, format: json }", "")).await;
    let mut client = burdock.client();
    for _ in 0..50 {
        assert_eq!(client.get("/").await.status, 200);
    }
    let labels = [("reason", "failed")];
    let name = "burdock_access_log_lines_dropped_total";
    burdock.wait_metric(name, &labels, |lost| lost == 50.0).await;
    let told = burdock.wait_log("log lines were dropped", |_| true).await;
    assert_eq!(told["output"], "/dev/full");
    assert!(told["error"].to_string().contains("No space left"), "{told}");
    assert_eq!(burdock.log("log lines were dropped").len(), 1);
    burdock.reload(&logging(&a, "{ to: access.log }", "")).await;
    client.get("/").await;
    has(&burdock.directory.join("access.log"), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_heir_writes_on_and_the_old_process_follows_where_the_file_went() {
    let a = Backend::start("a").await;
    let rest = "upgrade: { timeout: 1d, spread: 0s }\n";
    let mut burdock = start(&logging(&a, "{ to: access.log }", rest), scratch()).await;
    let file = burdock.directory.join("access.log");
    burdock.client().get("/old").await;
    let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
    burdock.signal(libc::SIGUSR2);
    let line = burdock.wait_log("another process has taken over", |_| true).await;
    let heir = line["process"].as_i64().expect("a process id") as i32;
    burdock.client().get("/new").await;
    let paths = |lines: &[String]| -> Vec<String> {
        let path = |line: &String| json(line)["path"].as_str().unwrap_or("-").to_owned();
        let mut paths: Vec<_> = lines.iter().map(path).collect();
        paths.sort();
        paths
    };
    assert_eq!(paths(&has(&file, 3).await), ["/new", "/old", "/ws"], "and its 101");
    let moved = burdock.directory.join("moved.log");
    std::fs::rename(&file, &moved).expect("rotate");
    signal_process(heir, libc::SIGUSR1);
    eventually("a new file", || file.exists().then_some(())).await;
    tunnel.echo("it lives on in the old process").await;
    drop(tunnel);
    assert_eq!(paths(&has(&file, 1).await), ["/ws"]);
    assert_eq!(lines(&moved).len(), 3);
    assert_eq!(burdock.exit_code().await, 0);
    signal_process(heir, libc::SIGTERM);
    let gone = PathBuf::from(format!("/proc/{heir}"));
    eventually("the end of the heir", || (!gone.exists()).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_file_belongs_to_whom_root_becomes_and_can_be_opened_again() {
    let a = Backend::start("a").await;
    let directory = scratch();
    std::fs::set_permissions(&directory, PermissionsExt::from_mode(0o777)).expect("a mode");
    let is_root = directory.metadata().expect("a folder").uid() == 0;
    let burdock = start(&logging(&a, "{ to: access.log }", "user: nobody\n"), directory).await;
    let file = burdock.directory.join("access.log");
    assert_ne!(file.metadata().expect("a file").uid(), 0);
    assert_eq!(burdock.log("root's rights are given up").len(), usize::from(is_root));
    std::fs::rename(&file, burdock.directory.join("moved.log")).expect("rotate");
    burdock.signal(libc::SIGUSR1);
    eventually("a new file", || file.exists().then_some(())).await;
    burdock.client().get("/").await;
    has(&file, 1).await;
}

#[test]
fn a_file_that_cannot_be_is_an_error_that_names_it() {
    let directory = scratch();
    let start = |to: &str| {
        let text = support::HEADER.replace("true", &format!("{{ to: {to} }}"));
        let text = format!("{text}instances: [127.0.0.1:1]\n");
        std::fs::write(directory.join("burdock.yaml"), text).expect("write the config");
        let failed = run_to_end(&directory, &["run"]);
        (failed.status.code(), String::from_utf8_lossy(&failed.stderr).into_owned())
    };
    let (code, said) = start("no-such-folder/access.log");
    assert_eq!(code, Some(3));
    assert!(
        said.contains("access_log.to: ") && said.contains("no-such-folder is no folder"),
        "{said}"
    );
    let (code, said) = start("/proc/access.log");
    assert_eq!(code, Some(1));
    assert!(said.starts_with("burdock: opening the access log /proc/access.log: "), "{said}");
}
