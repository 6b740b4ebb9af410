//! The command line: what it prints, and its exit codes. 0 fine, 2 usage, 3 config rejected.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::burdock::{binary, scratch, send_signal};
use crate::support::{self, Backend, Burdock, Client, eventually, run_to_end, within};

/// Exit code, standard output, standard error.
fn run(folder: &Path, arguments: &[&str]) -> (Option<i32>, String, String) {
    let output = run_to_end(folder, arguments);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn write(folder: &Path, name: &str, text: &str) {
    std::fs::write(folder.join(name), text).expect("write a file");
}

#[test]
fn version_and_help_are_told() {
    let folder = scratch();
    let (code, out, _) = run(&folder, &["--version"]);
    assert_eq!((code, out), (Some(0), format!("burdock {}\n", env!("CARGO_PKG_VERSION"))));
    let (code, out, _) = run(&folder, &["--help"]);
    assert_eq!(code, Some(0));
    for command in ["run", "check", "demo", "drill", "keys"] {
        assert!(out.contains(command), "{command} in {out}");
    }
}

#[test]
fn wrong_usage_is_2() {
    let folder = scratch();
    for arguments in [&["fly"][..], &["run", "--nothing"], &["check"], &["run", "-c"], &[]] {
        let (code, _, err) = run(&folder, arguments);
        assert_eq!(code, Some(2), "{arguments:?}: {err}");
        assert!(!err.is_empty());
    }
}

#[test]
fn a_missing_file_is_3_and_names_it() {
    let folder = scratch();
    for arguments in [&["run", "-c", "absent.yaml"][..], &["check", "absent.yaml"]] {
        let (code, out, err) = run(&folder, arguments);
        assert_eq!(code, Some(3), "{arguments:?}");
        assert!((out + &err).contains("absent.yaml"));
    }
}

#[test]
fn check_prints_a_file_that_means_the_same() {
    let folder = scratch();
    write(
        &folder,
        "burdock.yaml",
        "instances: [127.0.0.1:9001, 127.0.0.1:9002]\nsession_affinity: true\n",
    );
    let (code, effective, err) = run(&folder, &["check", "burdock.yaml"]);
    assert_eq!(code, Some(0), "{err}");
    for told in ["127.0.0.1:9001", "127.0.0.1:9002", "BURDOCK", "8080"] {
        assert!(effective.contains(told), "{told} in {effective}");
    }
    write(&folder, "effective.yaml", &effective);
    let (code, again, err) = run(&folder, &["check", "effective.yaml"]);
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(again, effective, "what it prints is itself a file with the same meaning");
}

#[test]
fn check_fills_in_app_engines_defaults() {
    let folder = scratch();
    let text =
        "instances: [127.0.0.1:1]\nreadiness_check: { path: /r }\nliveness_check: { path: /l }\n";
    write(&folder, "burdock.yaml", text);
    let (code, spelled, _) = run(&folder, &["check", "burdock.yaml"]);
    assert_eq!(code, Some(0));
    let every = "instances: [127.0.0.1:1]\nreadiness_check: { path: /r, timeout_sec: 4, \
                 check_interval_sec: 5, failure_threshold: 2, success_threshold: 2, \
                 app_start_timeout_sec: 300 }\nliveness_check: { path: /l, timeout_sec: 4, \
                 check_interval_sec: 30, failure_threshold: 4, success_threshold: 2, \
                 initial_delay_sec: 300 }\n";
    write(&folder, "every.yaml", every);
    let (code, other, err) = run(&folder, &["check", "every.yaml"]);
    assert_eq!((code, other), (Some(0), spelled), "{err}");
    write(&folder, "units.yaml", &every.replace("timeout_sec: 4,", "timeout: 4000ms,"));
    let (code, units, err) = run(&folder, &["check", "units.yaml"]);
    assert_eq!(
        (code, Some(units)),
        (Some(0), Some(run(&folder, &["check", "every.yaml"]).1)),
        "{err}"
    );
}

#[test]
fn every_problem_is_told_at_once_with_line_key_and_hint() {
    let folder = scratch();
    let text = "instances: []\nsession_afinity: true\ntimeouts:\n  connect: 5\n  first_byt: 3s\n\
                balance: fair\nreadiness_check:\n  failure_threshold: eleven\n\
                listeners: [{ address: nowhere }]\n";
    write(&folder, "bad.yaml", text);
    let (code, out, err) = run(&folder, &["check", "bad.yaml"]);
    assert_eq!(code, Some(3));
    let told = out + &err;
    let expected = [
        ("bad.yaml:1: ", "instances"),
        ("bad.yaml:2: ", "session_affinity"),
        ("bad.yaml:4: ", "timeouts.connect"),
        ("bad.yaml:5: ", "first_byte"),
        ("bad.yaml:6: ", "even"),
        ("bad.yaml:8: ", "failure_threshold"),
        ("bad.yaml:9: ", "address"),
    ];
    for (place, hint) in expected {
        let found = told.lines().any(|line| line.contains(place) && line.contains(hint));
        assert!(found, "{place} {hint} in\n{told}");
    }
}

#[test]
fn a_user_whom_this_machine_does_not_know_is_a_problem_of_its_line() {
    let directory = scratch();
    for (user, unknown) in [
        ("nobody-at-all", Some("nobody-at-all")),
        ("root:no-such", Some("no-such")),
        ("root", None),
    ] {
        let text = format!("instances: [a:1]\n\nuser: {user}\n");
        std::fs::write(directory.join("c.yaml"), text).unwrap();
        let output = run_to_end(&directory, &["check", "c.yaml"]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        let Some(unknown) = unknown else {
            assert_eq!((output.status.code(), &*told), (Some(0), ""));
            continue;
        };
        let problem = format!(
            "c.yaml:3: user: {unknown} is not known to this system; allowed: a user and a group of this \
             system, none\n"
        );
        assert_eq!((output.status.code(), told), (Some(3), problem));
    }
}

#[test]
fn the_same_name_twice_and_odd_values_are_problems() {
    let folder = scratch();
    let bad = [
        "instances: [{ name: a, address: 127.0.0.1:1 }, { name: a, address: 127.0.0.1:2 }]\n",
        "instances: [127.0.0.1:1, 127.0.0.1:1]\n",
        "instances: [127.0.0.1]\n",
        "instances: [127.0.0.1:99999]\n",
        "instances: [127.0.0.1:1]\ninstances: [127.0.0.1:2]\n",
        "instances: [127.0.0.1:1]\nadmin: { address: 0.0.0.0:9900 }\n",
        "instances: [127.0.0.1:1]\nworkers: 0\n",
        "instances: [127.0.0.1:1]\naffinity: { cookie: 'a b' }\n",
        "instances: [127.0.0.1:1]\nretry: { attempts: 0 }\n",
        "instances: [127.0.0.1:1]\ntrusted_proxies: [10.0.0.0/99]\n",
        "instances: [127.0.0.1:1]\nsession_affinity: maybe\n",
        "instances: [127.0.0.1:1]\ntimeouts: { connect: -1s }\n",
        "- a list\n",
        "instances: [\n",
        "",
    ];
    for text in bad {
        write(&folder, "bad.yaml", text);
        let (code, out, err) = run(&folder, &["check", "bad.yaml"]);
        assert_eq!(code, Some(3), "{text}");
        assert!((out + &err).contains("bad.yaml"), "{text}: {err}");
    }
}

#[test]
fn run_with_a_bad_file_binds_nothing_and_is_3() {
    let folder = scratch();
    write(&folder, "bad.yaml", "instances: [127.0.0.1:1]\nnonsense: 1\n");
    let (code, out, err) = run(&folder, &["run", "-c", "bad.yaml"]);
    assert_eq!(code, Some(3));
    let told = out + &err;
    assert!(told.contains("bad.yaml:2: ") && !told.contains("listening"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn run_with_a_taken_address_is_1_and_names_it() {
    let a = Backend::start("a").await;
    let folder = scratch();
    let text = format!(
        "listeners: [{{ address: {0} }}]\nadmin: {{ address: 127.0.0.1:0 }}\ninstances: [{0}]\n",
        a.address
    );
    write(&folder, "taken.yaml", &text);
    let at = folder.clone();
    let run = tokio::task::spawn_blocking(move || run(&at, &["run", "-c", "taken.yaml"]));
    let (code, out, err) = run.await.unwrap();
    assert_eq!(code, Some(1), "{out}{err}");
    assert!((out + &err).contains(&a.address.to_string()));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_yaml_is_served_as_it_is() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let app = "runtime: python\nenv: flex\nruntime_config:\n  operating_system: ubuntu22\n\
               manual_scaling:\n  instances: 2\nresources:\n  cpu: 1\nnetwork:\n  \
               session_affinity: true\nreadiness_check:\n  path: /readyz\n  check_interval_sec: 1\n\
               liveness_check:\n  path: /healthz\n  initial_delay_sec: 0\n";
    let folder = scratch();
    write(&folder, "app.yaml", app);
    let (first, second) = (a.address.to_string(), b.address.to_string());
    let arguments = [
        "run",
        "--app-yaml",
        "app.yaml",
        "--instance",
        &first,
        "--instance",
        &second,
        "--listen",
        "127.0.0.1:0",
        "--admin",
        "127.0.0.1:0",
    ];
    let burdock = Burdock::spawn(folder.clone(), folder.join("app.yaml"), &arguments).await;
    burdock.wait_health(&first, "ready").await;
    burdock.wait_health(&second, "ready").await;
    let mut homes = Vec::new();
    for _ in 0..4 {
        let mut client = burdock.session();
        let home = client.get("/").await;
        assert!(home.cookie("BURDOCK").is_some(), "session_affinity under network");
        for _ in 0..5 {
            assert_eq!(client.get("/").await.instance(), home.instance());
        }
        homes.push(home.instance().to_owned());
    }
    homes.sort();
    assert_eq!(homes, ["a", "a", "b", "b"]);
    let told = burdock.output();
    let lines: Vec<_> = told.lines().filter(|line| line.contains("manual_scaling")).collect();
    assert_eq!(lines.len(), 1, "what means nothing here is listed once: {told}");
    assert!(["runtime", "env", "resources"].iter().all(|key| lines[0].contains(key)));
    a.ready(false);
    burdock.wait_health(&first, "unready").await;
    assert_eq!(burdock.client().get("/").await.instance(), "b");
}

#[tokio::test(flavor = "multi_thread")]
async fn affinity_may_stand_at_the_top_of_an_app_yaml_too() {
    let a = Backend::start("a").await;
    let folder = scratch();
    write(&folder, "app.yaml", "runtime: custom\nenv: flex\nsession_affinity: true\n");
    let config = format!("{}app_yaml: app.yaml\ninstances: [{}]\n", support::HEADER, a.address);
    write(&folder, "burdock.yaml", &config);
    let path = folder.join("burdock.yaml");
    let burdock = Burdock::spawn(folder, path, &["run", "-c", "burdock.yaml"]).await;
    assert!(burdock.client().get("/").await.cookie("BURDOCK").is_some());
}

/// `burdock demo`; killed when dropped.
struct Demo(Child);

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_tells_its_address_and_not_each_request() {
    let mut command = Command::new(binary());
    command.args(["demo", "--listen", "127.0.0.1:0"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut demo = Demo(command.spawn().unwrap());
    let mut lines = BufReader::new(demo.0.stdout.take().unwrap()).lines().map_while(Result::ok);
    let page = tokio::task::spawn_blocking(move || {
        let page = lines.find_map(|line| Some(line.split_once("http://")?.1.to_owned()));
        (page, lines)
    });
    let (page, lines) = within("the address of the page", page).await.unwrap();
    let page = page.unwrap();
    let address = page.trim_end_matches('/').parse().unwrap();
    let mut client = Client::session(address);
    for n in 1..=20 {
        let answer = client.get("/whoami").await.text();
        assert!(answer.contains(&format!("(request number {n} here)")), "{answer}");
    }
    send_signal(&demo.0, libc::SIGTERM);
    let rest = tokio::task::spawn_blocking(move || lines.collect::<Vec<_>>());
    let rest = within("the end of the output", rest).await.unwrap();
    let status = eventually("the end of the demo", || demo.0.try_wait().unwrap()).await;
    assert_eq!(status.code(), Some(0), "{rest:?}");
    assert!(!rest.iter().any(|line| line.contains("access") || line.contains("cut")), "{rest:?}");
}

#[test]
fn keys_new_prints_a_key_that_a_file_can_have() {
    let folder = scratch();
    let (code, line, err) = run(&folder, &["keys", "new"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!((line.lines().count(), line.len()), (1, 45), "32 bytes in base64 and a newline");
    let (_, other, _) = run(&folder, &["keys", "new"]);
    assert_ne!(line, other);
    write(&folder, "affinity.keys", &format!("{other}{line}"));
    write(&folder, "c.yaml", "instances: [a:1]\naffinity_keys: { file: affinity.keys }\n");
    assert_eq!(run(&folder, &["check", "c.yaml"]).0, Some(0));
    for arguments in [&["keys"][..], &["keys", "old"]] {
        assert_eq!(run(&folder, arguments).0, Some(2));
    }
}
