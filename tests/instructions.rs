//! What a request costs, in instructions that Burdock executes for it: unlike times these repeat. A
//! change that makes one of the paths here dearer by more than [`MORE`] fails, until whoever makes it
//! looks, and records the new count with `BURDOCK_RECORD=1 cargo test --test instructions`.
//!
//! Counted by valgrind on the build that the tests use, not on a release: what is recorded tells
//! changes apart, and nothing of what a release costs. `benches/` measures that.

mod support;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use support::burdock::{binary, scratch};
use support::ws::WebSocket;
use support::{Backend, Burdock, eventually};

/// By how much a count may grow unnoticed, in percent.
const MORE: u64 = 5;
/// Another compiler makes other code of the same source: then only a blunder is found.
const MORE_BY_ANOTHER_COMPILER: u64 = 25;
/// What is counted is the difference between this many rounds and three times as many: the start and
/// the end of the process are no part of it.
const ROUNDS: u64 = 400;

/// What one round is.
#[derive(Clone, Copy)]
enum Round {
    Get,
    Echo,
}

/// A path: its name, and what is counted of it.
struct Counted {
    name: &'static str,
    sticky: bool,
    logged: bool,
    round: Round,
}

const PATHS: [Counted; 4] = [
    Counted { name: "plain", sticky: false, logged: false, round: Round::Get },
    Counted { name: "sticky", sticky: true, logged: false, round: Round::Get },
    Counted { name: "logged", sticky: true, logged: true, round: Round::Get },
    Counted { name: "tunnel", sticky: true, logged: false, round: Round::Echo },
];

fn record() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions.txt")
}

/// The compiler that is used here, and what was recorded: a line for each compiler and path.
fn compiler() -> String {
    let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
    let output = Command::new(rustc).arg("--version").output().expect("ask rustc who it is");
    let text = String::from_utf8_lossy(&output.stdout);
    text.split_whitespace().nth(1).expect("rustc tells its version").to_owned()
}

/// By compiler, then by path.
type Counts = BTreeMap<String, BTreeMap<String, u64>>;

fn recorded() -> Counts {
    let mut counts = Counts::new();
    let text = std::fs::read_to_string(record()).unwrap_or_default();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let words: Vec<_> = line.split_whitespace().collect();
        let [compiler, path, count] = words[..] else { panic!("{line}") };
        let count = count.parse().expect("a count");
        counts.entry(compiler.to_owned()).or_default().insert(path.to_owned(), count);
    }
    counts
}

/// Runs so many rounds, and gives what the whole process executed.
async fn executed(path: &Counted, rounds: u64) -> u64 {
    let backend = Backend::start("a").await;
    let text = format!(
        "listeners: [{{ address: 127.0.0.1:0 }}]\nadmin: {{ address: 127.0.0.1:0 }}\nworkers: 1\n\
         access_log: {}\nsession_affinity: {}\ninstances: [{}]\n",
        path.logged, path.sticky, backend.address
    );
    let directory = scratch();
    let file = directory.join("burdock.yaml");
    std::fs::write(&file, text).expect("write the config");
    let counts = directory.join("counts.txt");
    let mut command = Command::new("valgrind");
    command
        .args(["--tool=cachegrind", "--cache-sim=no", "--cachegrind-out-file=/dev/null"])
        .arg(format!("--log-file={}", counts.display()))
        .arg(binary())
        .args(["run", "-c"])
        .arg(&file)
        .stdin(Stdio::null());
    let mut burdock = Burdock::of(directory, file, command).await;
    match path.round {
        Round::Get => {
            let mut client = burdock.session();
            for _ in 0..rounds {
                assert_eq!(client.get("/some/path?and=query").await.status, 200);
            }
        }
        Round::Echo => {
            let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
            for _ in 0..rounds {
                tunnel
                    .echo("what most messages of a chat come to, which is sixty-four bytes")
                    .await;
            }
        }
    }
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    let text = eventually("the count", || {
        std::fs::read_to_string(&counts).ok().filter(|text| text.contains("I   refs:"))
    })
    .await;
    let line = text.lines().find(|line| line.contains("I   refs:")).expect("the count");
    let digits: String =
        line.rsplit(':').next().expect("its end").chars().filter(char::is_ascii_digit).collect();
    digits.parse().expect("a number")
}

async fn per_round(path: &Counted) -> u64 {
    let (few, many) = tokio::join!(executed(path, ROUNDS), executed(path, 3 * ROUNDS));
    many.saturating_sub(few) / (2 * ROUNDS)
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_has_become_dearer() {
    let (compiler, mut known) = (compiler(), recorded());
    let mut found = BTreeMap::new();
    for path in &PATHS {
        found.insert(path.name.to_owned(), per_round(path).await);
    }
    println!("instructions a round, by {compiler}: {found:?}");
    if std::env::var_os("BURDOCK_RECORD").is_some() {
        known.insert(compiler, found);
        return write(&known);
    }
    let (counts, more) = match known.get(&compiler) {
        Some(counts) => (counts, MORE),
        None => (known.values().last().expect("a record"), MORE_BY_ANOTHER_COMPILER),
    };
    for (path, found) in &found {
        let known = counts[path];
        assert!(
            *found <= known + known * more / 100,
            "{path}: {found} instructions, {known} recorded; if that is right, record it"
        );
        assert!(
            *found >= known / 2,
            "{path}: {found} instructions, {known} recorded: were they run?"
        );
    }
}

fn write(counts: &Counts) {
    let mut text =
        "# Instructions a round by compiler and path; tests/instructions.rs says what they are.\n"
            .to_owned();
    for (compiler, paths) in counts {
        for (path, count) in paths {
            text.push_str(&format!("{compiler} {path} {count}\n"));
        }
    }
    std::fs::write(record(), text).expect("write the record");
}
