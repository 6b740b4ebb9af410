//! Under systemd: sockets that it passes, what it is told, and whom a process becomes. The service
//! manager is played by the test, by the protocols of sd_listen_fds(3) and sd_notify(3).

use std::net::{SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use crate::support::burdock::{binary, scratch};
use crate::support::{self, Backend, Burdock, Client, DEADLINE, eventually, yaml};

/// As a socket unit starts it: descriptor 3 listens at `socket`'s address.
async fn activated(text: &str, socket: &TcpListener, environment: &[(&str, &str)]) -> Burdock {
    let directory = scratch();
    let config = directory.join("burdock.yaml");
    std::fs::write(&config, text).expect("write the config");
    let mut command = Command::new("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_PID=$$ LISTEN_FDS=1 exec \"$@\"";
    command.args(["-c", script, "sh"]).arg(binary()).args(["run", "-c", "burdock.yaml"]);
    command.envs(environment.iter().copied());
    let socket = socket.try_clone().expect("a second descriptor");
    command.stdin(Stdio::from(OwnedFd::from(socket)));
    Burdock::of(directory, config, command).await
}

fn listening() -> (TcpListener, SocketAddr) {
    let socket = TcpListener::bind("127.0.0.1:0").expect("a socket");
    let address = socket.local_addr().expect("its address");
    (socket, address)
}

/// One that listens at `address`, with a single worker for each socket that may be shared.
fn at(address: SocketAddr, backend: &Backend, rest: &str) -> String {
    yaml(&[backend], rest).replace("127.0.0.1:0 }]", &format!("{address} }}]"))
}

#[tokio::test(flavor = "multi_thread")]
async fn sockets_that_systemd_passes_are_served_and_outlive_the_process() {
    let a = Backend::start("a").await;
    let (socket, address) = listening();
    let mut burdock = activated(&at(address, &a, ""), &socket, &[]).await;
    assert_eq!(burdock.address(), address);
    for _ in 0..10 {
        assert_eq!(Client::new(address).get("/").await.status, 200);
    }
    burdock.signal(libc::SIGTERM);
    assert_eq!(burdock.exit_code().await, 0);
    // The unit still holds it: who comes meanwhile waits for the next process.
    let waiting = tokio::spawn(async move { Client::new(address).get("/").await });
    let _next = activated(&at(address, &a, ""), &socket, &[]).await;
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_that_nobody_asks_for_is_told_of() {
    let a = Backend::start("a").await;
    let (socket, address) = listening();
    let mut burdock = activated(&yaml(&[&a], ""), &socket, &[]).await;
    let message = "a socket that was passed to this process is not asked for";
    let line = burdock.wait_log(message, |_| true).await;
    assert_eq!(line["address"], address.to_string());
    assert_ne!(burdock.address(), address);
}

/// A service manager that listens.
struct Manager {
    socket: UnixDatagram,
    path: String,
}

impl Manager {
    fn new() -> Self {
        let path = scratch().join("notify");
        let socket = UnixDatagram::bind(&path).expect("a notify socket");
        socket.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        Self { socket, path: path.display().to_string() }
    }

    /// Waits until it has been told `state`; gives what it was told before that.
    fn hears(&self, state: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let mut buffer = [0; 512];
            let count = self.socket.recv(&mut buffer).unwrap_or_else(|error| {
                panic!("{error}: not told {state:?}, only {before:?}");
            });
            let text = String::from_utf8_lossy(&buffer[..count]).into_owned();
            if text.lines().any(|line| line.starts_with(state)) {
                return before;
            }
            before.push(text);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_hears_of_the_start_reloads_life_and_the_end() {
    let a = Backend::start("a").await;
    let (socket, address) = listening();
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str()), ("WATCHDOG_USEC", "100000")];
    let mut burdock = activated(&at(address, &a, ""), &socket, &environment).await;
    assert!(manager.hears("READY=1").is_empty(), "nothing before it serves");
    manager.hears("WATCHDOG=1");
    manager.hears("WATCHDOG=1");
    burdock.signal(libc::SIGHUP);
    manager.hears("RELOADING=1");
    manager.hears("READY=1");
    burdock.signal(libc::SIGTERM);
    manager.hears("STOPPING=1");
    assert_eq!(burdock.exit_code().await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn systemd_is_told_which_process_has_taken_over() {
    let a = Backend::start("a").await;
    let (socket, address) = listening();
    let manager = Manager::new();
    let environment = [("NOTIFY_SOCKET", manager.path.as_str())];
    let mut burdock = activated(&at(address, &a, ""), &socket, &environment).await;
    burdock.signal(libc::SIGUSR2);
    let line = burdock.wait_log("another process has taken over", |_| true).await;
    let heir = line["process"].as_i64().expect("a process id");
    manager.hears(&format!("MAINPID={heir}"));
    assert_eq!(burdock.exit_code().await, 0);
    assert_eq!(Client::new(address).get("/").await.status, 200, "served by the heir");
    support::burdock::signal_process(heir as i32, libc::SIGTERM);
    manager.hears("STOPPING=1");
    let gone = std::path::PathBuf::from(format!("/proc/{heir}"));
    eventually("the end of the heir", || (!gone.exists()).then_some(())).await;
}

/// The effective user of a process.
fn user(pid: i32) -> String {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("a live process");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("a row of users");
    line.split_whitespace().nth(2).expect("an effective user").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn root_becomes_the_user_that_is_named_and_others_stay_who_they_are() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "user: nobody\n")).await;
    let ours = user(std::process::id() as i32);
    let theirs = user(burdock.pid());
    if ours == "0" {
        assert_ne!(theirs, "0");
        assert_eq!(burdock.log("root's rights are given up").len(), 1);
    } else {
        assert_eq!(theirs, ours);
        assert_eq!(burdock.log("not started as root; the key user changes nothing").len(), 1);
    }
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[test]
fn a_user_who_does_not_exist_is_an_error_where_it_matters() {
    if user(std::process::id() as i32) != "0" {
        return;
    }
    let directory = scratch();
    let text = format!("{}instances: [127.0.0.1:1]\nuser: nobody-at-all\n", support::HEADER);
    std::fs::write(directory.join("burdock.yaml"), text).unwrap();
    let failed = support::run_to_end(&directory, &["run"]);
    assert_eq!(failed.status.code(), Some(1));
    let said = String::from_utf8_lossy(&failed.stderr).into_owned();
    assert_eq!(said, "burdock: user: nobody-at-all is not known to this system\n");
}

#[test]
fn the_units_that_are_shipped_are_valid() {
    let directory = scratch();
    let units = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/systemd");
    let mut files = Vec::new();
    for name in ["burdock.service", "burdock.socket"] {
        let unit = std::fs::read_to_string(units.join(name)).expect("a unit");
        // Nothing is installed on the machine that runs this.
        let unit = unit.replace("=burdock run", &format!("={} run", binary().display()));
        let file = directory.join(name);
        std::fs::write(&file, unit).expect("write the unit");
        files.push(file);
    }
    let verified = Command::new("systemd-analyze").arg("verify").args(&files).output();
    let verified = verified.expect("systemd-analyze, which tests/clients/install installs");
    let said = String::from_utf8_lossy(&verified.stderr).into_owned();
    let ours: Vec<_> = said.lines().filter(|line| line.contains("burdock")).collect();
    assert!(verified.status.success() && ours.is_empty(), "{said}");
}
