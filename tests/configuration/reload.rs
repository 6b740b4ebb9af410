//! Hot reload: every way a file changes is noticed, a bad file changes nothing, and a good one
//! touches nothing that it doesn't name.

use std::collections::BTreeMap;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::time::Instant;

use crate::support::burdock::scratch;
use crate::support::load::errors;
use crate::support::ws::WebSocket;
use crate::support::{
    self, Backend, Burdock, Client, FAST_READINESS, Load, eventually, raw, within, yaml,
};

/// Which instances the next `n` new sessions land on.
async fn landing(burdock: &Burdock, n: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut client = burdock.client();
    for _ in 0..n {
        *counts.entry(client.get("/").await.instance().to_owned()).or_default() += 1;
    }
    counts
}

fn counted(pairs: &[(&str, usize)]) -> BTreeMap<String, usize> {
    pairs.iter().map(|(name, n)| ((*name).to_owned(), *n)).collect()
}

/// Polls until the instances in use are exactly `names`.
async fn uses(burdock: &Burdock, names: &[&str]) {
    let begin = Instant::now();
    loop {
        let seen: Vec<_> = landing(burdock, 2 * names.len()).await.into_keys().collect();
        if seen == names {
            return;
        }
        assert!(begin.elapsed() < support::DEADLINE, "uses {seen:?}, not {names:?}");
        support::pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_editors_rename_is_noticed() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    assert_eq!(landing(&burdock, 4).await, counted(&[("a", 4)]));
    let line = burdock.reload(&yaml(&[&a, &b], "")).await;
    assert_eq!(line["message"], "reloaded", "{line}");
    assert_eq!(landing(&burdock, 4).await, counted(&[("a", 2), ("b", 2)]));
    assert!(line["changes"].to_string().contains('b'), "it says what changed: {line}");
    let metrics = burdock.metrics().await;
    assert_eq!(
        metrics.sum("burdock_config_generation", &[]).to_string(),
        line["generation"].to_string()
    );
    assert_eq!(metrics.sum("burdock_config_last_reload_success", &[]), 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_in_place_is_noticed_and_pieces_of_it_do_no_harm() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let load = Load::start(burdock.address(), 10, 200, "/");
    load.settles().await;
    let text = yaml(&[&a, &b], "session_affinity: true\n");
    for _ in 0..5 {
        let mut file = std::fs::File::create(&burdock.config).unwrap();
        for piece in text.as_bytes().chunks(20) {
            file.write_all(piece).unwrap();
            file.sync_data().unwrap();
        }
    }
    uses(&burdock, &["a", "b"]).await;
    assert_eq!(errors(&load.stop().await), Vec::<String>::new());
    assert_eq!(burdock.reloads().last().unwrap()["message"], "reloaded");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_symlink_swap_as_kubernetes_does_it_is_noticed_again_and_again() {
    use std::os::unix::fs::symlink;
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let folder = scratch();
    let version = |n: usize| {
        let inner = folder.join(format!("..v{n}"));
        std::fs::create_dir(&inner).unwrap();
        std::fs::write(inner.join("burdock.yaml"), yaml(&[&backends[n]], "")).unwrap();
        symlink(format!("..v{n}"), folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    };
    version(0);
    let config = folder.join("burdock.yaml");
    symlink("..data/burdock.yaml", &config).unwrap();
    let path = config.display().to_string();
    let burdock = Burdock::spawn(folder.clone(), config, &["run", "-c", &path]).await;
    uses(&burdock, &["a"]).await;
    for (n, name) in [(1, "b"), (2, "c"), (3, "d")] {
        version(n);
        std::fs::remove_dir_all(folder.join(format!("..v{}", n - 1))).unwrap();
        uses(&burdock, &[name]).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_written_beside_the_configuration_holds_no_reload_up() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let mut log = std::fs::File::create(burdock.directory.join("access.log")).unwrap();
    let writer = tokio::spawn(async move {
        loop {
            log.write_all(b"a line\n").unwrap();
            support::pause().await;
        }
    });
    assert_eq!(burdock.reload(&yaml(&[&a, &b], "")).await["message"], "reloaded");
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_never_rests_is_read_all_the_same() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let text = yaml(&[&a, &b], "");
    std::fs::write(&burdock.config, &text).unwrap();
    let mut file = std::fs::File::options().append(true).open(&burdock.config).unwrap();
    let writer = tokio::spawn(async move {
        loop {
            file.write_all(b"# more\n").unwrap();
            support::pause().await;
        }
    });
    uses(&burdock, &["a", "b"]).await;
    writer.abort();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replaced_folder_is_followed_to_the_new_one() {
    let backends = Backend::several(&["a", "b", "c", "d", "e"]).await;
    let root = scratch();
    let folder = root.join("conf");
    let write = |folder: &Path, backend: &Backend| {
        std::fs::create_dir_all(folder).unwrap();
        std::fs::write(folder.join("burdock.yaml"), yaml(&[backend], "")).unwrap();
    };
    write(&folder, &backends[0]);
    let config = folder.join("burdock.yaml");
    let path = config.display().to_string();
    let burdock = Burdock::spawn(root.clone(), config.clone(), &["run", "-c", &path]).await;
    uses(&burdock, &["a"]).await;
    std::fs::remove_dir_all(&folder).unwrap();
    write(&folder, &backends[1]);
    uses(&burdock, &["b"]).await;
    std::fs::write(&config, yaml(&[&backends[2]], "")).unwrap();
    uses(&burdock, &["c"]).await;
    write(&root.join("new"), &backends[3]);
    std::fs::rename(&folder, root.join("old")).unwrap();
    std::fs::rename(root.join("new"), &folder).unwrap();
    uses(&burdock, &["d"]).await;
    std::fs::write(&config, yaml(&[&backends[4]], "")).unwrap();
    uses(&burdock, &["e"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_folder_that_comes_back_later_is_found() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let root = scratch();
    // Replaced two folders above the file, where no watch is.
    let config = root.join("conf/burdock/burdock.yaml");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, yaml(&[&a], "")).unwrap();
    let path = config.display().to_string();
    let burdock = Burdock::spawn(root.clone(), config.clone(), &["run", "-c", &path]).await;
    std::fs::rename(root.join("conf"), root.join("old")).unwrap();
    eventually("the missing file is told", || burdock.reloads().pop()).await;
    assert_eq!(burdock.client().get("/").await.instance(), "a");
    std::fs::create_dir_all(config.parent().unwrap()).unwrap();
    std::fs::write(&config, yaml(&[&b], "")).unwrap();
    uses(&burdock, &["b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relative_path_that_becomes_a_link_is_followed() {
    use std::os::unix::fs::symlink;
    let backends = Backend::several(&["a", "b", "c", "d"]).await;
    let folder = scratch();
    let config = folder.join("burdock.yaml");
    std::fs::write(&config, yaml(&[&backends[0]], "")).unwrap();
    let burdock =
        Burdock::spawn(folder.clone(), config.clone(), &["run", "-c", "burdock.yaml"]).await;
    uses(&burdock, &["a"]).await;
    let elsewhere = folder.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for (name, backend) in [("one.yaml", &backends[1]), ("two.yaml", &backends[3])] {
        std::fs::write(elsewhere.join(name), yaml(&[backend], "")).unwrap();
    }
    let swap = |target: &str| {
        symlink(target, folder.join("link")).unwrap();
        std::fs::rename(folder.join("link"), &config).unwrap();
    };
    swap("elsewhere/one.yaml");
    uses(&burdock, &["b"]).await;
    std::fs::write(elsewhere.join("one.yaml"), yaml(&[&backends[2]], "")).unwrap();
    uses(&burdock, &["c"]).await;
    swap("elsewhere/two.yaml");
    uses(&burdock, &["d"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_app_yaml_that_was_named_anew_is_read_when_it_is_corrected() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let folder = burdock.directory.join("app");
    std::fs::create_dir(&folder).unwrap();
    let app = folder.join("app.yaml");
    std::fs::write(&app, "session_affinity: maybe\n").unwrap();
    let line = burdock.reload(&yaml(&[&a], "app_yaml: app/app.yaml\n")).await;
    assert_eq!(line["message"], "reload rejected", "{line}");
    std::fs::write(&app, "session_affinity: true\n").unwrap();
    assert_eq!(burdock.reload_after(1).await["message"], "reloaded");
    assert!(burdock.client().get("/").await.cookie("BURDOCK").is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn sighup_reads_the_file_again() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    burdock.signal(libc::SIGHUP);
    assert_eq!(burdock.reload_after(0).await["message"], "reloaded");
    burdock.signal(libc::SIGHUP);
    assert_eq!(burdock.reload_after(1).await["message"], "reloaded");
    assert_eq!(burdock.client().get("/").await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_file_changes_nothing_and_all_its_problems_are_told_with_lines() {
    let a = Backend::start("a").await;
    let good = yaml(&[&a], FAST_READINESS);
    let burdock = Burdock::start(&good).await;
    burdock.wait_health("a", "ready").await;
    let generation = burdock.metrics().await.sum("burdock_config_generation", &[]);
    let bad = format!("{good}sesion_affinity: true\ntimeouts: {{ connect: never }}\nworkerz: 3\n");
    let at = |key: &str| bad.lines().position(|line| line.starts_with(key)).unwrap() + 1;
    let line = burdock.reload(&bad).await;
    assert_eq!(line["message"], "reload rejected");
    let error = line["error"].as_str().unwrap();
    for (key, hint) in
        [("sesion", "session_affinity"), ("timeouts", "connect"), ("workerz", "workers")]
    {
        let place = format!("burdock.yaml:{}: ", at(key));
        assert!(error.contains(&place) && error.contains(hint), "{place} {hint} in {error}");
    }
    let metrics = burdock.metrics().await;
    assert_eq!(metrics.sum("burdock_config_last_reload_success", &[]), 0.0);
    assert_eq!(metrics.sum("burdock_config_generation", &[]), generation);
    assert_eq!(burdock.client().get("/").await.status, 200);
    for nonsense in ["", "{", "instances: 7\n", "\u{0}"] {
        assert_eq!(burdock.reload(nonsense).await["message"], "reload rejected", "{nonsense:?}");
    }
    assert_eq!(burdock.client().get("/").await.status, 200);
    // The file that is running anyway changes nothing, and still ends the alarm.
    std::fs::write(&burdock.config, &good).unwrap();
    burdock.wait_metric("burdock_config_last_reload_success", &[], |v| v == 1.0).await;
    assert_eq!(burdock.metrics().await.sum("burdock_config_generation", &[]), generation);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_file_changes_nothing_and_its_return_is_noticed() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    std::fs::remove_file(&burdock.config).unwrap();
    burdock.signal(libc::SIGHUP);
    let lost = || burdock.reloads().pop().filter(|line| line["message"] == "reload rejected");
    eventually("a rejected reload", lost).await;
    assert_eq!(burdock.client().get("/").await.instance(), "a");
    std::fs::write(&burdock.config, yaml(&[&a, &b], "")).unwrap();
    uses(&burdock, &["a", "b"]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn fifty_reloads_under_load_lose_no_request_and_no_tunnel() {
    let backends = Backend::several(&["a", "b", "c"]).await;
    let all: Vec<_> = backends.iter().collect();
    let on = "session_affinity: true\n";
    let burdock = Burdock::start(&yaml(&all, on)).await;
    let mut tunnels = Vec::new();
    for _ in 0..30 {
        let mut tunnel = WebSocket::open(burdock.address(), "/ws", "").await;
        tunnel.echo("before").await;
        tunnels.push(tunnel);
    }
    let load = Load::start(burdock.address(), 40, 200, "/");
    load.settles().await;
    let before = load.so_far();
    for n in 0..50 {
        let rest = match n % 4 {
            0 => format!("{on}timeouts: {{ first_byte: {}s }}\n", n + 5),
            1 => format!("{on}{FAST_READINESS}"),
            2 => format!("{on}balance: least_requests\n"),
            _ => format!("{on}affinity: {{ ttl: {}h }}\n", n + 1),
        };
        let line = burdock.reload(&yaml(&all, &rest)).await;
        assert_eq!(line["message"], "reloaded", "{line}");
        load.passes(4).await;
    }
    let seen = load.stop().await;
    assert_eq!(errors(&seen), Vec::<String>::new());
    for (before, after) in before.iter().zip(&seen) {
        assert_eq!((after.reconnects, after.last()), (0, before.last()));
    }
    for tunnel in &mut tunnels {
        tunnel.echo("after").await;
    }
    assert_eq!(burdock.metrics().await.sum("burdock_instance_tunnels", &[]), 30.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_affinity_key_is_made_by_the_reload_that_first_needs_one() {
    use std::os::unix::fs::PermissionsExt;
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let key = burdock.directory.join("burdock.affinity.key");
    assert!(!key.exists(), "nobody needs one");
    burdock.reload(&yaml(&[&a], "balance: random\n")).await;
    assert!(!key.exists(), "nor now");
    let taken = format!("listeners: [{}]\n", a.address);
    let taken = yaml(&[&a], "session_affinity: true\n")
        .replace("listeners: [{ address: 127.0.0.1:0 }]\n", &taken);
    assert_eq!(burdock.reload(&taken).await["message"], "reload rejected");
    assert!(!key.exists(), "a rejected reload leaves nothing behind");
    let on = yaml(&[&a], "session_affinity: true\n");
    assert_eq!(burdock.reload(&on).await["message"], "reloaded");
    assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let mut session = burdock.session();
    session.get("/").await;
    burdock.reload(&yaml(&[&a], "")).await;
    burdock.reload(&on).await;
    assert!(session.get("/").await.cookie("BURDOCK").is_none(), "the key and the session stay");
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_change_live_and_exactly() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let weighted = |x: u32, y: u32| {
        format!(
            "{}instances:\n  - {{ name: a, address: {}, weight: {x} }}\n  \
             - {{ name: b, address: {}, weight: {y} }}\n",
            support::HEADER,
            a.address,
            b.address
        )
    };
    let burdock = Burdock::start(&weighted(1, 1)).await;
    assert_eq!(landing(&burdock, 40).await, counted(&[("a", 20), ("b", 20)]));
    burdock.reload(&weighted(3, 1)).await;
    assert_eq!(landing(&burdock, 40).await, counted(&[("a", 30), ("b", 10)]));
    burdock.reload(&weighted(1, 0)).await;
    assert_eq!(landing(&burdock, 10).await, counted(&[("a", 10)]));
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_in_flight_keep_their_instance_when_it_is_removed() {
    let (a, b) = (Backend::start("a").await, Backend::start("b").await);
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let request = "GET /half HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    let mut conn = raw::open(burdock.address(), request).await;
    within("the head", conn.head()).await.unwrap().unwrap();
    assert_eq!(burdock.reload(&yaml(&[&b], "")).await["message"], "reloaded");
    assert_eq!(landing(&burdock, 3).await, counted(&[("b", 3)]));
    a.open_gate(1);
    assert_eq!(within("the rest", conn.read_to_end()).await.len(), 2000);
}

#[tokio::test(flavor = "multi_thread")]
async fn listeners_come_and_go_live() {
    let a = Backend::start("a").await;
    let one = yaml(&[&a], "");
    // Another loopback address, so that port 0 doesn't name the same listener twice.
    let two = one.replace(
        "listeners: [{ address: 127.0.0.1:0 }]",
        "listeners: [{ address: 127.0.0.1:0 }, { address: 127.0.0.2:0 }]",
    );
    let mut burdock = Burdock::start(&one).await;
    let mut first = burdock.client();
    first.get("/").await;
    assert_eq!(burdock.reload(&two).await["message"], "reloaded");
    let new = |line: &serde_json::Value| line["address"].to_string().contains("127.0.0.2:");
    let line = burdock.wait_log("listening", new).await;
    let second = line["address"].as_str().unwrap().parse().unwrap();
    let mut conn =
        raw::open(second, "GET /gate HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    a.request(2).await;
    assert_eq!(burdock.reload(&one).await["message"], "reloaded");
    eventually("the removed listener refuses", || {
        TcpStream::connect(second).is_err().then_some(())
    })
    .await;
    a.open_gate(1);
    let answer = within("what was in flight", conn.read_to_end()).await;
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    first.get("/").await;
    assert_eq!(first.reconnects, 0, "the kept listener's connections are untouched");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_taken_address_rejects_the_reload() {
    let a = Backend::start("a").await;
    let burdock = Burdock::start(&yaml(&[&a], "")).await;
    let taken = yaml(&[&a], "").replacen("127.0.0.1:0", &a.address.to_string(), 1);
    let line = burdock.reload(&taken).await;
    assert_eq!(line["message"], "reload rejected", "{line}");
    assert_eq!(burdock.client().get("/").await.status, 200);
}

/// Reloads from `first` to wider and narrower addresses of its port, under calls to that port.
async fn widen_and_narrow(first: &str) {
    let a = Backend::start("a").await;
    let listening = |at: &str| yaml(&[&a], "").replacen("127.0.0.1:0", at, 1);
    let burdock = Burdock::start(&listening(first)).await;
    let port = burdock.address().port();
    let caller = || async move {
        loop {
            // A connection for each call: kept ones would notice nothing.
            let mut client = Client::new(([127, 0, 0, 1], port).into());
            assert_eq!(client.get("/").await.status, 200);
        }
    };
    let callers: Vec<_> = (0..4).map(|_| tokio::spawn(caller())).collect();
    let (narrow, wide) = (format!("127.0.0.1:{port}"), format!("0.0.0.0:{port}"));
    for at in [&narrow, &wide, &narrow, &wide] {
        let line = burdock.reload(&listening(at)).await;
        assert_eq!(line["message"], "reloaded", "{line}");
    }
    for caller in callers {
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled(), "every call from {first} is answered");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_widens_and_narrows_refuses_nobody() {
    widen_and_narrow("127.0.0.1:0").await;
    widen_and_narrow("0.0.0.0:0").await;
}
