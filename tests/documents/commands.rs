//! Every command that a document shows is run: against a Burdock with the services that they speak of, in a folder with
//! the files that they name, at addresses of this test. What can't be run here is exempt, each pattern for a reason.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::burdock::{binary, scratch, signal_process};
use crate::support::{Backend, Burdock, HEADER, eventually};

/// What is not run: how such a command begins, and why not.
const EXEMPT: [(&str, &str); 21] = [
    ("docker ", "needs an engine; tests/documents/deploy does what can be done without"),
    ("kubectl ", "needs a cluster; tests/documents/deploy checks the manifests"),
    (
        "systemctl ",
        "needs systemd as the first process; tests/operations/systemd.rs checks the units",
    ),
    ("apt-get ", "changes the machine"),
    ("install ", "changes the machine"),
    (
        "deploy/debian/build",
        "builds a release, and needs cargo-deb; tests/documents/deploy checks what goes into it",
    ),
    ("deploy/build", "builds three times; tests/documents/deploy does what it does between"),
    ("cargo build", "is what made the binary under test"),
    ("cargo install", "builds for minutes"),
    ("cargo run", "the demo's own tests are in src/demo"),
    ("cargo test", "would run in itself"),
    ("cargo fuzz", "needs another program; tests/fuzz.rs replays its corpora"),
    ("tests/run", "is what runs this"),
    ("python3 tests/clients", "tests/tunnels/conformance.rs runs it"),
    ("node tests/clients", "tests/socketio.rs, tests/tunnels and tests/chromium run them"),
    (
        "burdock drill",
        "takes half a minute; tests/operations/drill.rs and live_drill.rs play every one",
    ),
    ("burdock top", "wants a terminal; src/top/tests.rs draws it"),
    (
        "burdock ramp",
        "takes half an hour, and splits are refused meanwhile; tests/routing/ramp.rs plays it",
    ),
    ("burdock fleet", "needs an etcd; tests/fleet/config.rs and keys.rs run it"),
    ("burdock status --fleet", "needs an etcd; tests/fleet/orders.rs runs it"),
    ("etcdctl ", "needs an etcd; tests/discovery/etcd.rs makes users like that"),
];

/// Words that a line of an indented block begins with if it is a command.
const PROGRAMS: [&str; 5] = ["cargo", "node", "python3", "mkdir", "target/debug/burdock"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Every document, but those that tests and packages bring along.
fn documents() -> Vec<PathBuf> {
    let mut folders = vec![root().to_owned()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if path.is_dir()
                && !name.starts_with('.')
                && !["target", "node_modules"].contains(&&*name)
            {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    documents
}

/// Without the variables that are set in front.
fn bare(command: &str) -> &str {
    match command.split_once(' ') {
        Some((first, rest)) if first.contains('=') => bare(rest),
        _ => command,
    }
}

/// The commands of a document: behind `$ ` in its blocks, or indented with the name of a program in front.
fn commands(text: &str) -> Vec<String> {
    let mut commands: Vec<String> = Vec::new();
    let mut goes_on = false;
    for line in text.lines() {
        let begins = line.strip_prefix("$ ").or_else(|| {
            let line = line.strip_prefix("    ").filter(|line| !line.starts_with(' '))?;
            PROGRAMS.contains(&bare(line).split(' ').next().unwrap_or_default()).then_some(line)
        });
        let part = match (begins, commands.last_mut()) {
            (Some(command), _) => {
                commands.push(command.to_owned());
                command
            }
            (None, Some(command)) if goes_on => {
                command.truncate(command.len() - 1);
                command.push_str(line.trim());
                line
            }
            _ => "",
        };
        goes_on = part.ends_with('\\');
    }
    commands
}

/// Where commands are run: files, a Burdock, and what its addresses are.
struct Stage {
    folder: PathBuf,
    burdock: Burdock,
    backends: Vec<Backend>,
}

impl Stage {
    async fn new() -> Self {
        let backends = Backend::several(&["a", "b", "c"]).await;
        let folder = scratch();
        furnish(&folder, &backends);
        let config = folder.join("burdock.yaml");
        let pid_file = folder.join("run/pid");
        let [path, pid] = [&config, &pid_file].map(|path| path.display().to_string());
        let arguments = ["run", "-c", &path, "--pid-file", &pid];
        let burdock = Burdock::spawn(folder.clone(), config, &arguments).await;
        burdock.wait_health("a", "ready").await;
        Self { folder, burdock, backends }
    }

    /// The command with places and addresses of this test.
    fn here(&self, command: &str) -> String {
        let folder = self.folder.display();
        let mut command = command.to_owned();
        for (there, here) in [
            ("http://127.0.0.1:9900", format!("http://{}", self.burdock.admin())),
            ("localhost:8080", self.burdock.address().to_string()),
            ("/run/burdock/", format!("{folder}/run/")),
            ("/etc/burdock/", format!("{folder}/")),
            ("/etc/bash_completion.d", folder.to_string()),
            ("/usr/local/share/man/man1", format!("{folder}/man")),
            ("target/debug/burdock", "burdock".to_owned()),
            ("127.0.0.1:8081", "127.0.0.1:0".to_owned()),
            ("127.0.0.1:9901", "127.0.0.1:0".to_owned()),
            // Nobody waits for that here; and what would go on for ever is asked for once.
            ("--deadline 90s", "--deadline 1s".to_owned()),
            ("events -f", "events".to_owned()),
        ] {
            command = command.replace(there, &here);
        }
        command
    }

    /// Runs what ends by itself.
    fn run(&self, command: &str) {
        let programs = binary().parent().expect("a folder").display().to_string();
        let path = format!("{programs}:{}", std::env::var("PATH").unwrap_or_default());
        let admin = format!("http://{}", self.burdock.admin());
        let mut shell = Command::new("sh");
        shell.args(["-ec", &self.here(command)]).current_dir(&self.folder);
        let output = shell.env("PATH", path).env("BURDOCK_ADMIN", admin).output().expect("a shell");
        let told = [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy);
        assert!(
            output.status.success(),
            "{command}: {:?}\n{}{}",
            output.status.code(),
            told[0],
            told[1]
        );
        if command.starts_with("curl ") && command.contains("/api/v1/") {
            serde_json::from_slice::<serde_json::Value>(&output.stdout)
                .unwrap_or_else(|e| panic!("{command}: {e}"));
        }
    }

    /// Starts what serves, and stops it.
    async fn serve(&self, command: &str) {
        // By itself: two processes must not share a state file.
        let folder = scratch();
        furnish(&folder, &self.backends);
        let command = self
            .here(command)
            .replace(&*self.folder.display().to_string(), &folder.display().to_string());
        let command = command.replace("config/minimal.yaml", "burdock.yaml");
        let words: Vec<_> = command.split_whitespace().skip(1).collect();
        let config = folder.join("burdock.yaml");
        let serving = match words.contains(&"--app-yaml") {
            // Its addresses are not in a file.
            true => [&words[..], &["--listen", "127.0.0.1:0", "--admin", "127.0.0.1:0"]].concat(),
            false => words,
        };
        let mut burdock = Burdock::spawn(folder, config, &serving).await;
        burdock.signal(libc::SIGTERM);
        assert_eq!(burdock.exit_code().await, 0, "{command}");
    }
}

impl Drop for Stage {
    /// Whoever has taken over is no child of this test, and must end with it all the same.
    fn drop(&mut self) {
        let pid = std::fs::read_to_string(self.folder.join("run/pid")).ok();
        let pid = pid.and_then(|pid| pid.trim().parse::<i32>().ok());
        if let Some(heir) = pid.filter(|pid| *pid != self.burdock.pid()) {
            signal_process(heir, libc::SIGTERM);
        }
    }
}

/// The files that documents name.
fn furnish(folder: &Path, backends: &[Backend]) {
    let list: Vec<_> = backends
        .iter()
        .map(|b| format!("{{ name: {}, address: \"{}\" }}", b.name, b.address))
        .collect();
    let text = format!(
        "{HEADER}services:\n  chat:\n    traffic_split: {{ allocations: {{ v1: 1, v2: 0 }} }}\n    versions:\n      \
         v1: {{ session_affinity: true, instances: [{}, {}], readiness_check: {{ check_interval: 50ms }} }}\n      \
         v2: {{ session_affinity: true, instances: [{}], readiness_check: {{ check_interval: 50ms }} }}\n",
        list[0], list[1], list[2]
    );
    for file in ["burdock.yaml", "other.yaml"] {
        std::fs::write(folder.join(file), &text).expect("write");
    }
    std::fs::write(
        folder.join("app.yaml"),
        "runtime: custom\nenv: flex\nnetwork: { session_affinity: true }\n",
    )
    .expect("write");
    std::fs::create_dir_all(folder.join("run")).expect("a folder");
    let deploy = folder.join("deploy/production");
    std::fs::create_dir_all(&deploy).expect("a folder");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_that_a_document_shows_works() {
    let stage = Stage::new().await;
    let mut commands: Vec<_> = documents()
        .into_iter()
        .flat_map(|path| self::commands(&std::fs::read_to_string(path).expect("a document")))
        .collect();
    // What comes behind it would find another process.
    commands.sort_by_key(|command| command.starts_with("burdock upgrade"));
    let (mut run, mut exempt) = (0, vec![0; EXEMPT.len()]);
    for command in &commands {
        if let Some(pattern) = EXEMPT.iter().position(|(begin, _)| bare(command).starts_with(begin))
        {
            exempt[pattern] += 1;
            continue;
        }
        let binary = command
            .split(' ')
            .next()
            .is_some_and(|word| word.rsplit('/').next() == Some("burdock"));
        match binary && command.split(' ').nth(1) == Some("run") {
            true => stage.serve(command).await,
            false => stage.run(command),
        }
        run += 1;
    }
    for ((pattern, reason), count) in EXEMPT.iter().zip(&exempt) {
        assert!(*count > 0, "{pattern:?} ({reason}) is in no document any more");
    }
    assert!(run >= 30, "{run} of {}", commands.len());
    let pid = std::fs::read_to_string(stage.folder.join("run/pid")).expect("the heir's pid");
    let pid: i32 = pid.trim().parse().expect("a number");
    assert_ne!(pid, stage.burdock.pid(), "the documents show an upgrade");
    drop(stage);
    let gone = PathBuf::from(format!("/proc/{pid}"));
    eventually("the end of the heir", || (!gone.exists()).then_some(())).await;
}

#[test]
fn commands_are_found_as_documents_write_them() {
    let text = "a\n```console\n$ one --two \\\n    three\nan answer\n$ four\n```\n\n    A=1 cargo test\n    Source of it\n";
    assert_eq!(commands(text), ["one --two three", "four", "A=1 cargo test"]);
}
