//! The image and the demo in `deploy/docker`, without an engine: what the Dockerfile copies is enough to build from,
//! what it starts starts, and the demo's parts do together what its first lines say.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use burdock::config;
use serde_json::Value;

use super::{deployed, documents, read};
use crate::support::burdock::{binary, run_in, scratch};
use crate::support::{Burdock, HEADER, run_to_end, within};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Dockerfile's instructions, one stage after the other.
fn stages() -> Vec<Vec<(String, String)>> {
    let text = read(&deployed("docker/Dockerfile")).replace("\\\n", " ");
    let mut stages: Vec<Vec<(String, String)>> = Vec::new();
    for line in text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with('#')) {
        let (word, rest) = line.split_once(' ').expect("an instruction");
        if word == "FROM" {
            stages.push(Vec::new());
        }
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        stages.last_mut().expect("FROM first").push((word.to_owned(), rest));
    }
    stages
}

fn all<'a>(stage: &'a [(String, String)], word: &str) -> Vec<&'a str> {
    stage.iter().filter(|(w, _)| w == word).map(|(_, rest)| &**rest).collect()
}

/// The words of an instruction in its JSON form.
fn words(stage: &[(String, String)], word: &str) -> Vec<String> {
    let text = all(stage, word)[0].trim_start_matches(|c| c != '[');
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{word} {text}: {error}"))
}

/// Whether `.dockerignore` keeps this path out of what is sent to the builder; its last word on it counts.
fn ignored(path: &str) -> bool {
    let text = read(&root().join(".dockerignore"));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let fits = |pattern: &str| match pattern.strip_prefix("**/") {
        Some(name) => path.split('/').any(|part| part == name),
        None => pattern == "*" || path == pattern || path.starts_with(&format!("{pattern}/")),
    };
    lines.fold(false, |before, line| match line.strip_prefix('!') {
        Some(pattern) => before && !fits(pattern),
        None => before || fits(line),
    })
}

/// Copies what the builder would get.
fn copy(from: &Path, to: &Path) {
    let relative = from.strip_prefix(root()).expect("below the root").display().to_string();
    if ignored(&relative) {
        return;
    }
    if from.is_dir() {
        std::fs::create_dir_all(to).expect("a folder");
        for entry in std::fs::read_dir(from).expect("a folder") {
            let name = entry.expect("an entry").file_name();
            copy(&from.join(&name), &to.join(&name));
        }
    } else {
        std::fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
        std::fs::copy(from, to).expect("copy");
    }
}

#[test]
fn what_is_copied_is_what_the_build_needs() {
    let build = &stages()[0];
    let folder = scratch();
    for sources in all(build, "COPY") {
        let sources: Vec<_> = sources.split(' ').collect();
        let (to, from) = sources.split_last().expect("a target");
        for from in from {
            assert!(root().join(from).exists(), "COPY {from}");
            let to = if *to == "./" { folder.join(from) } else { folder.join(to) };
            copy(&root().join(from), &to);
        }
    }
    // Every target of Cargo.toml must be there, or cargo refuses the whole. One that it does not name
    // is missed only after that, and before anything is compiled.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--offline", "--locked", "--bin", "none-of-this-name"]);
    let said = cargo.current_dir(&folder).output().expect("cargo").stderr;
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(said.contains("no bin target named `none-of-this-name`"), "{said}");
    for file in
        ["src/admin/dashboard/index.html", "src/admin/openapi.json", "src/drill/report/page.css"]
    {
        assert!(folder.join(file).exists(), "{file} is built in");
    }
    assert!(!folder.join("benches/results").exists(), "what is not needed stays");
    let manifest = read(&root().join("Cargo.toml"));
    let least =
        manifest.lines().find_map(|line| line.strip_prefix("rust-version = ")).expect("a version");
    assert!(all(build, "FROM")[0].starts_with(&format!("rust:{}-", least.trim_matches('"'))));
    let built = all(build, "RUN").into_iter().filter(|run| run.contains(" deploy/build && "));
    assert_eq!(built.count(), 1);
    let script = read(&folder.join("deploy/build"));
    let (_, tools) = script.split_once("apt-get install ").expect("advice");
    for tool in tools.split(['"', '\n']).next().unwrap_or_default().split(' ') {
        assert!(all(build, "RUN")[0].contains(&format!(" {tool} ")), "{tool}");
    }
}

#[test]
fn the_image_runs_one_program_as_nobody() {
    let image = &stages()[1];
    assert_eq!(all(image, "FROM"), ["scratch"]);
    let user: Vec<u32> =
        all(image, "USER")[0].split(':').map(|id| id.parse().expect("a number")).collect();
    assert!(user.iter().all(|id| *id > 0), "{user:?}");
    assert_eq!(words(image, "ENTRYPOINT"), ["burdock"]);
    assert_eq!(words(image, "CMD")[..2], ["run", "-c"]);
    assert_eq!(all(image, "STOPSIGNAL"), ["SIGTERM"]);
    let copied = all(image, "COPY");
    assert!(copied.iter().any(|copy| copy.ends_with(" /usr/local/bin/burdock")));
    assert!(copied.iter().any(|copy| {
        copy.ends_with(&format!("--chown={} /made/var/lib /var/lib/burdock", all(image, "USER")[0]))
    }));
}

/// What the image has in it, made by the Dockerfile's own words.
fn image() -> PathBuf {
    let folder = scratch();
    let build = &stages()[0];
    let runs = all(build, "RUN");
    let made = runs.iter().find(|run| run.contains("/made")).expect("what is copied");
    let here = made
        .replace("/made", &folder.display().to_string())
        .replace("/usr/local/bin/burdock", &binary().display().to_string());
    let said = Command::new("sh").args(["-ec", &here]).output().expect("a shell");
    assert!(said.status.success(), "{here}: {}", String::from_utf8_lossy(&said.stderr));
    std::fs::create_dir_all(folder.join("usr/local/bin")).expect("a folder");
    std::fs::copy(binary(), folder.join("usr/local/bin/burdock")).expect("copy");
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_in_the_image_is_enough_to_serve() {
    let image = image();
    assert!(image.join("etc/ssl/certs/ca-certificates.crt").exists());
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root may change its root");
        return;
    }
    let app = App::start("app-a");
    let text = format!("{HEADER}instances: [\"localhost:{}\"]\nuser: none\n", app.address.port());
    std::fs::write(image.join("etc/burdock/burdock.yaml"), text).expect("write");
    // An engine brings these, and the C library looks for names in them.
    std::fs::write(image.join("etc/hosts"), "127.0.0.1 localhost\n").expect("write");
    std::fs::write(image.join("etc/resolv.conf"), "nameserver 127.0.0.1\n").expect("write");
    let mut command = Command::new("chroot");
    command.arg("--userspec=65532:65532").arg(&image).arg("/usr/local/bin/burdock");
    command
        .args(["run", "-c", "/etc/burdock/burdock.yaml"])
        .env("PATH", std::env::var("PATH").unwrap_or_default());
    let burdock = Burdock::of(image.clone(), image.join("etc/burdock/burdock.yaml"), command).await;
    assert_eq!(burdock.client().get("/").await.text(), "app-a: visit 1\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_health_check_tells_who_serves_from_who_does_not() {
    let image = &stages()[1];
    let check = words(image, "HEALTHCHECK");
    let check: Vec<_> = check[1..].iter().map(String::as_str).collect();
    let burdock = Burdock::start(&format!("{HEADER}instances: [127.0.0.1:1]\n")).await;
    let admin = format!("http://{}", burdock.admin());
    let asked = |admin: &str| run_in(&scratch(), &check, &[("BURDOCK_ADMIN", admin)]).status.code();
    assert_eq!(asked(&admin), Some(0));
    drop(burdock);
    assert_eq!(asked(&admin), Some(1));
}

/// One instance of the demo.
struct App {
    child: Child,
    address: SocketAddr,
}

impl App {
    fn start(name: &str) -> Self {
        let mut child = Command::new("python3")
            .arg("-u")
            .arg(deployed("docker/app.py"))
            .args(["--port", "0", "--name", name])
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3");
        let mut line = String::new();
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe"));
        lines.read_line(&mut line).expect("a line");
        let port = line.trim().strip_prefix("listening on ").and_then(|port| port.parse().ok());
        let address = SocketAddr::from(([127, 0, 0, 1], port.expect("a port")));
        Self { child, address }
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn compose() -> Value {
    documents(&deployed("docker/compose.yaml")).remove(0)
}

#[test]
fn the_demo_fits_together() {
    let compose = compose();
    let services = compose["services"].as_object().expect("services");
    let burdock = &services["burdock"];
    let folder = deployed("docker");
    let context = folder.join(burdock["build"]["context"].as_str().expect("a folder"));
    assert_eq!(context.canonicalize().unwrap(), root().canonicalize().unwrap());
    assert!(context.join(burdock["build"]["dockerfile"].as_str().expect("a file")).exists());
    let mut mounts = BTreeMap::new();
    for service in services.values() {
        for volume in service["volumes"].as_array().into_iter().flatten().filter_map(Value::as_str)
        {
            let (from, to) = volume.split_once(':').expect("FROM:TO");
            let is_named =
                compose["volumes"].as_object().is_some_and(|named| named.contains_key(from));
            assert!(is_named || folder.join(from).exists(), "{volume}");
            mounts.insert(to.trim_end_matches(":ro").to_owned(), from.to_owned());
        }
        assert_eq!(service["read_only"], true);
        assert_eq!(service["cap_drop"][0], "ALL");
    }
    let config = folder.join(&mounts["/etc/burdock"]).join("burdock.yaml");
    let config = config::load(&config).unwrap_or_else(|errors| panic!("{errors}")).config;
    let instances: Vec<_> =
        config.services[0].versions[0].instances.iter().map(|i| i.address.to_string()).collect();
    let apps: Vec<_> = services.iter().filter(|(name, _)| *name != "burdock").collect();
    let reached: Vec<_> =
        apps.iter().map(|(_, app)| format!("{}:8000", app["hostname"].as_str().unwrap())).collect();
    assert_eq!(instances, reached);
    for (name, app) in apps {
        assert_eq!(app["hostname"], **name, "the name that the network knows it by");
        assert_eq!(app["command"][4], "8000");
    }
    let grace =
        burdock["stop_grace_period"].as_str().and_then(|time| time.strip_suffix('s')?.parse().ok());
    assert!(grace.is_some_and(|grace: u64| grace >= config.shutdown.timeout.as_secs() + 5));
    let published: Vec<_> =
        burdock["ports"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!(published, [format!("8080:{}", config.listeners[0].address.port())]);
    let state = config.admin.map(|admin| format!("{:?}", admin.state_file));
    assert!(state.is_some_and(|file| file.contains("/var/lib/burdock/")));
    assert!(mounts.contains_key("/var/lib/burdock"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_keeps_clients_at_their_instance() {
    let mut apps: BTreeMap<_, _> =
        ["a", "b", "c"].map(|name| (name, App::start(&format!("app-{name}")))).into();
    let folder = scratch();
    let mut text = read(&deployed("docker/config/burdock.yaml"))
        .replace("0.0.0.0:8080", "127.0.0.1:0")
        .replace("127.0.0.1:9900", "127.0.0.1:0")
        .replace("/var/lib/burdock", &folder.display().to_string());
    for (name, app) in &apps {
        text = text.replace(&format!("app-{name}:8000"), &app.address.to_string());
    }
    let config: PathBuf = folder.join("burdock.yaml");
    std::fs::write(&config, text).expect("write");
    let command = words(&stages()[1], "CMD");
    assert_eq!(command[2], "/etc/burdock/burdock.yaml");
    let path = config.display().to_string();
    let burdock = Burdock::spawn(folder, config, &[&command[0], &command[1], &path]).await;
    for name in apps.keys() {
        burdock.wait_health(name, "ready").await;
    }
    let mut session = burdock.session();
    let first = session.get("/").await.text();
    let (home, visit) = first.trim().split_once(": visit ").expect("NAME: visit NUMBER");
    assert_eq!(visit, "1");
    for visit in 2..5 {
        assert_eq!(session.get("/").await.text(), format!("{home}: visit {visit}\n"));
    }
    let mut strangers = std::collections::BTreeSet::new();
    for _ in 0..3 {
        strangers.insert(burdock.client().get("/").await.text());
    }
    assert_eq!(strangers.len(), 3, "{strangers:?}");
    drop(apps.remove(home.trim_start_matches("app-")));
    let moved = within("an answer from another", session.get("/")).await;
    assert_eq!(moved.status, 200);
    assert!(
        !moved.text().starts_with(home) && moved.text().ends_with("visit 1\n"),
        "{}",
        moved.text()
    );
}

#[test]
fn the_configuration_of_the_demo_passes_the_check() {
    let file = deployed("docker/config/burdock.yaml").display().to_string();
    let output = run_to_end(root(), &["check", &file]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
}
