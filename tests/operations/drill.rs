//! Drills: every one in `config/drills` passes, and misses its limits when what it rehearses is
//! switched off; the same seed does the same; reports, exit codes and messages.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::support::burdock::{binary, scratch, send_signal};
use crate::support::run_to_end;

/// A drill takes up to 30 s, and the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(90);
/// Drills that run at once; with more, busy machines would measure themselves.
const AT_ONCE: usize = 5;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("config/drills")
}

/// What is replaced in a scenario, and the limits of which one then must be missed.
struct Without {
    drill: &'static str,
    feature: &'static str,
    replace: &'static [(&'static str, &'static str)],
    missed: &'static [&'static str],
}

const AFFINITY: &[(&str, &str)] = &[("session_affinity: true", "session_affinity: false")];
const RETRY: &[(&str, &str)] =
    &[("  instances:\n", "  retry: off\n  breaker: off\n  instances:\n")];

const WITHOUT: [Without; 15] = [
    Without { drill: "kill-one", feature: "retry", replace: RETRY, missed: &["errors"] },
    Without {
        drill: "kill-one",
        feature: "affinity",
        replace: AFFINITY,
        missed: &["needless_moves"],
    },
    Without {
        drill: "hang-one",
        feature: "checks",
        replace: &[("  readiness_check:", "  breaker: off\n  # readiness_check:")],
        missed: &["errors", "detect_within"],
    },
    Without { drill: "half-gone", feature: "retry", replace: RETRY, missed: &["errors"] },
    Without {
        drill: "all-gone-and-back",
        feature: "affinity",
        replace: AFFINITY,
        missed: &["needless_moves"],
    },
    Without {
        drill: "rolling-restart",
        feature: "a drain that closes tunnels",
        replace: &[(
            "  drain: {",
            "  websocket: { closes: { draining: { action: keep } } }\n  drain: {",
        )],
        missed: &["closed with 1012"],
    },
    Without {
        drill: "flapping",
        feature: "checks",
        replace: &[("  readiness_check:", "  # readiness_check:")],
        missed: &["detect_within"],
    },
    Without {
        drill: "slow-instance",
        feature: "hedging",
        replace: &[("hedge_after: 150ms, ", "")],
        missed: &["p99"],
    },
    Without {
        drill: "deploy-new-version",
        feature: "a drain that closes tunnels",
        replace: &[(
            "  drain: {",
            "  websocket: { closes: { removed: { action: keep } } }\n  drain: {",
        )],
        missed: &["closed with 1012"],
    },
    Without { drill: "reload-storm", feature: "affinity", replace: AFFINITY, missed: &["moved"] },
    Without {
        drill: "drain-for-maintenance",
        feature: "a drain that closes tunnels",
        replace: &[(
            "  drain: {",
            "  websocket: { closes: { draining: { action: keep } } }\n  drain: {",
        )],
        missed: &["closed with 1012"],
    },
    Without {
        drill: "scale-up-and-rebalance",
        feature: "rebalancing",
        replace: &[("mode: bounded", "mode: never")],
        missed: &["tunnel_evenness"],
    },
    Without {
        drill: "lifetime-expiry",
        feature: "lifetimes",
        replace: &[("max_lifetime: 3s", "max_lifetime: none")],
        missed: &["closed with 1001"],
    },
    Without {
        drill: "balancer-killed",
        feature: "affinity",
        replace: AFFINITY,
        missed: &["moved"],
    },
    Without {
        drill: "balancer-upgraded",
        feature: "affinity",
        replace: AFFINITY,
        missed: &["moved"],
    },
];

/// How a drill ended.
struct Ended {
    code: Option<i32>,
    output: String,
    report: Value,
}

/// Runs a scenario to its end.
fn drill(scenario: &Path, arguments: &[&str]) -> Ended {
    let folder = scratch();
    let json = folder.join("report.json");
    let mut command = Command::new(binary());
    command.arg("drill").arg(scenario).arg("--json").arg(&json).args(arguments);
    let mut child = command
        .current_dir(&folder)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("start the binary");
    let errors = reader(child.stderr.take().expect("stderr is piped"));
    let summary = reader(child.stdout.take().expect("stdout is piped"));
    let code = wait(&mut child);
    let [summary, errors] = [summary, errors].map(|it| it.join().expect("a reader"));
    let report = std::fs::read_to_string(&json).unwrap_or_default();
    let report = serde_json::from_str(&report).unwrap_or_default();
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    Ended { code, output: format!("{summary}{errors}"), report }
}

fn reader(mut from: impl Read + Send + 'static) -> std::thread::JoinHandle<String> {
    std::thread::spawn(move || {
        let mut text = String::new();
        from.read_to_string(&mut text).expect("read the output");
        text
    })
}

fn wait(child: &mut Child) -> Option<i32> {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("ask for the exit code") {
            return status.code();
        }
        if begin.elapsed() > PATIENCE {
            child.kill().expect("end a drill that does not end");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Does all of it, a few at once, and gives back what is wrong.
fn all<T: Sync>(items: &[T], check: impl Fn(&T) -> Option<String> + Sync) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let work = || {
        let mut wrong = Vec::new();
        while let Some(item) = items.get(next.fetch_add(1, Ordering::Relaxed)) {
            wrong.extend(check(item));
        }
        wrong
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers.into_iter().flat_map(|worker| worker.join().expect("a worker")).collect()
    })
}

fn missed(report: &Value) -> Vec<&str> {
    let limits = report["limits"].as_array().map(Vec::as_slice).unwrap_or_default();
    let missed = limits.iter().filter(|limit| limit["met"] == false);
    missed.filter_map(|limit| limit["measure"].as_str()).collect()
}

#[test]
fn every_shipped_drill_passes_and_misses_without_what_it_rehearses() {
    let files = std::fs::read_dir(folder()).expect("config/drills");
    let files = files.map(|entry| entry.expect("a readable entry").path());
    // Those for a running balancer are played by live_drill.rs.
    let is_live = |path: &PathBuf| {
        path.file_name().is_some_and(|it| it.to_string_lossy().starts_with("live-"))
    };
    let files = files.filter(|path| !is_live(path));
    let files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    assert!(files.len() >= 12, "{files:?}");
    for file in &files {
        let name = file.file_stem().expect("a name").to_string_lossy();
        assert!(WITHOUT.iter().any(|it| it.drill == name), "{name} is never seen to fail");
    }
    let wholes = files.iter().map(|file| (file.clone(), None));
    let withouts = WITHOUT.iter().map(|it| (folder().join(format!("{}.yaml", it.drill)), Some(it)));
    let cases: Vec<_> = wholes.chain(withouts).collect();
    let wrong = all(&cases, |(file, without)| match without {
        None => passes(file),
        Some(without) => fails(file, without),
    });
    assert!(wrong.is_empty(), "{}", wrong.join("\n\n"));
}

fn passes(file: &Path) -> Option<String> {
    let begin = Instant::now();
    let ended = drill(file, &["--embedded"]);
    let duration = ended.report["duration_seconds"].as_f64().unwrap_or_default();
    println!("{:<32} {:>5.1} s", file.display(), begin.elapsed().as_secs_f64());
    let is_right = ended.code == Some(0) && ended.report["passed"] == true && duration < 30.0;
    (!is_right).then(|| format!("{}: {:?}\n{}", file.display(), ended.code, ended.output))
}

fn fails(file: &Path, without: &Without) -> Option<String> {
    let mut text = std::fs::read_to_string(file).expect("a drill");
    for (from, to) in without.replace {
        assert!(text.contains(from), "{} has no {from:?}", without.drill);
        text = text.replace(from, to);
    }
    let folder = scratch();
    let changed = folder.join("changed.yaml");
    std::fs::write(&changed, text).expect("write a scenario");
    let ended = drill(&changed, &[]);
    std::fs::remove_dir_all(&folder).expect("remove the folder");
    let seen = missed(&ended.report);
    let is_right = ended.code == Some(4) && seen.iter().any(|it| without.missed.contains(it));
    let told = || {
        let (drill, feature, code) = (without.drill, without.feature, ended.code);
        format!("{drill} without {feature}: {code:?}, missed {seen:?}\n{}", ended.output)
    };
    (!is_right).then(told)
}

/// Faults that no shipped drill has, all in one: each does something, and everybody is well afterwards.
#[test]
fn the_other_faults_are_noticed_and_undone() {
    let folder = scratch();
    let text = "duration: 9s\nconfig:\n  workers: 1\n  session_affinity: true\n  retry: off\n  breaker: off\n  \
        readiness_check: { path: /readyz, check_interval: 100ms, timeout: 300ms, failure_threshold: 2, success_threshold: 1 }\n  \
        liveness_check: { path: /healthz, check_interval: 100ms, timeout: 300ms, failure_threshold: 2, success_threshold: 1, initial_delay: 0s }\n  \
        instances:\n    - { name: a, address: a:1 }\n    - { name: b, address: b:1 }\n    - { name: c, address: c:1 }\n\
        load:\n  sessions: { clients: 6, every: 100ms }\n  websockets: { clients: 3, every: 100ms }\n  \
        polling: { clients: 3, every: 200ms }\n  downloads: { clients: 3, every: 200ms, size: 64KiB }\n\
        steps:\n  \
        - { at: 500ms, delay: { who: all, by: 250ms }, for: 600ms }\n  \
        - { at: 700ms, until: 400ms, expect: { p90: 5s } }\n  \
        - { at: 1500ms, reset: { who: all, share: 50% }, for: 500ms, expect: { errors: { at_least: 1 } } }\n  \
        - { at: 2500ms, fail: { who: all, share: 50%, status: 500 }, for: 500ms, expect: { errors: { at_least: 1 } } }\n  \
        - { at: 3200ms, dead: a, for: 1500ms, until: 1500ms, expect: { detect_within: 2s, closed: { code: 1014, at_least: 1 } } }\n  \
        - { at: 4800ms, throttle: { who: all, rate: 64KiB }, for: 400ms }\n  \
        - { at: 5200ms, cut: b }\n  \
        - { at: 5600ms, forget: c }\n  \
        - { at: 6s, refuse: b, for: 700ms, expect: { detect_within: 2s } }\n  \
        - { at: 7500ms, expect: { errors: 0, recover_within: 1500ms } }\n\
        expect: { needless_moves: 100%, lost: 100%, duplicated: 100%, reordered: 100%, wrong: 0 }\n";
    let scenario = folder.join("scenario.yaml");
    std::fs::write(&scenario, text).expect("write a scenario");
    let ended = drill(&scenario, &["--embedded"]);
    assert_eq!(ended.code, Some(0), "{}", ended.output);
    let told = ended.report["faults"].to_string();
    for fault in ["delay", "reset", "fail", "dead", "throttle", "cut", "forget", "refuse"] {
        assert!(told.contains(&format!("\"what\":\"{fault}\"")), "{fault}: {told}");
    }
    let slowest = |second: usize| ended.report["seconds"][second]["p99"].as_f64().unwrap_or(0.0);
    let [delayed, throttled] =
        [[0, 1], [4, 5]].map(|of| of.map(slowest).into_iter().fold(0.0, f64::max));
    assert!(delayed >= 250.0 && throttled >= 200.0, "{delayed} {throttled}\n{}", ended.output);
}

/// A second and a half of something.
const SHORT: &str = "duration: 1500ms\nconfig:\n  workers: 1\n  instances:\n    \
    - { name: a, address: a:1 }\n    - { name: b, address: b:1 }\n    - { name: c, address: c:1 }\n\
    load: { sessions: { clients: 3, every: 200ms } }\n";

fn written(folder: &Path, rest: &str) -> PathBuf {
    let path = folder.join("scenario.yaml");
    std::fs::write(&path, format!("{SHORT}{rest}")).expect("write a scenario");
    path
}

#[test]
fn a_seed_injects_the_same_faults_at_the_same_times() {
    let folder = scratch();
    let steps = "steps:\n  - { at: 300ms, fail: { who: one, share: 50% }, for: 300ms, \
                 repeat: { every: 400ms, times: 2 } }\n  - { at: 500ms, unready: one }\n\
                 expect: { needless_moves: 100% }\n";
    let scenario = written(&folder, steps);
    let plan = |seed| {
        let report = drill(&scenario, &["--seed", seed]).report;
        let events = report["events"].as_array().expect("events").clone();
        let acts = events.into_iter().filter(|event| event["by"] == "drill");
        acts.map(|act| format!("{} {}", act["planned"], act["what"])).collect::<Vec<_>>()
    };
    let first = plan("5");
    assert_eq!(first.len(), 5, "{first:?}");
    assert_eq!(first, plan("5"));
}

#[test]
fn a_report_can_be_read_by_people_and_compared() {
    let folder = scratch();
    let scenario =
        written(&folder, "about: <b>bold</b>\nsteps: []\nexpect: { errors: 0, moved: 0 }\n");
    let [page, good] =
        ["page.html", "good.json"].map(|name| folder.join(name).display().to_string());
    let bad = folder.join("bad.json").display().to_string();
    let ended = drill(&scenario, &["--html", &page]);
    assert!(ended.output.contains("failed:") && ended.code == Some(4), "{}", ended.output);
    std::fs::write(&bad, ended.report.to_string()).expect("write a report");
    let mut better = ended.report.clone();
    for limit in better["limits"].as_array_mut().expect("limits") {
        limit["met"] = true.into();
    }
    std::fs::write(&good, better.to_string()).expect("write a report");
    let page = std::fs::read_to_string(&page).expect("a page");
    assert!(
        page.contains("&lt;b&gt;bold") && !page.contains("<b>bold") && !page.contains("<script")
    );
    assert!(page.matches("<svg").count() >= 4 && page.contains("prefers-color-scheme: dark"));
    for (a, b, code) in [(&bad, &good, 0), (&good, &bad, 4), (&good, &good, 0)] {
        let output = run_to_end(&folder, &["drill", "compare", a, b]);
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stdout));
    }
    let output = run_to_end(&folder, &["drill", "compare", &good, &scenario.display().to_string()]);
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_wrong_scenario_is_3_and_wrong_usage_2() {
    let folder = scratch();
    let path = written(&folder, "steps: [{ at: 1s, krash: a }]\n").display().to_string();
    let output = run_to_end(&folder, &["drill", &path]);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{told}");
    assert!(
        told.contains("scenario.yaml:9: steps[0].krash: unknown key, did you mean `crash`?"),
        "{told}"
    );
    let both = ["drill", "x.yaml", "--embedded", "--admin", "http://127.0.0.1:1"];
    assert_eq!(run_to_end(&folder, &both).status.code(), Some(2));
    for usage in [&["drill"][..], &["drill", "x.yaml", "--nothing"], &["drill", "compare", "a"]] {
        assert_eq!(run_to_end(&folder, usage).status.code(), Some(2), "{usage:?}");
    }
}

#[test]
fn commands_run_only_where_they_are_allowed() {
    let folder = scratch();
    let mark = folder.join("mark").display().to_string();
    let steps = format!(
        "steps: [{{ at: 200ms, exec: {{ run: [touch, {mark}], undo: [touch, {mark}.undone] }} }}]\n\
         expect: {{ needless_moves: 100% }}\n"
    );
    let scenario = written(&folder, &steps);
    let refused = drill(&scenario, &[]);
    assert_eq!(refused.code, Some(1), "{}", refused.output);
    assert!(refused.output.contains("--allow-exec") && !Path::new(&mark).exists());
    let allowed = drill(&scenario, &["--allow-exec"]);
    assert_eq!(allowed.code, Some(0), "{}", allowed.output);
    assert!(Path::new(&mark).exists() && Path::new(&format!("{mark}.undone")).exists());
}

#[test]
fn an_interrupted_drill_undoes_its_faults_and_reports() {
    let folder = scratch();
    let mark = folder.join("undone").display().to_string();
    let scenario = written(
        &folder,
        &format!("steps: [{{ at: 0s, exec: {{ run: [touch, begun], undo: [touch, {mark}] }} }}]\n"),
    );
    let text = std::fs::read_to_string(&scenario).expect("a scenario");
    std::fs::write(&scenario, text.replace("1500ms", "60s")).expect("write a scenario");
    let mut child = Command::new(binary())
        .args(["drill", "scenario.yaml", "--allow-exec", "--json", "report.json"])
        .current_dir(&folder)
        .stdout(Stdio::piped())
        .spawn()
        .expect("start the binary");
    let summary = reader(child.stdout.take().expect("stdout is piped"));
    let begin = Instant::now();
    while !folder.join("begun").exists() {
        assert!(begin.elapsed() < PATIENCE, "it never began");
        std::thread::sleep(Duration::from_millis(10));
    }
    send_signal(&child, libc::SIGINT);
    assert_eq!(wait(&mut child), Some(4));
    assert!(summary.join().expect("a reader").contains("interrupted after"));
    assert!(Path::new(&mark).exists() && folder.join("report.json").exists());
}
