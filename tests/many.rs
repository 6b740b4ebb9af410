//! Many instances: a reload of ten thousand under load, and probes that are spread and bounded.
//! `cargo test --test many -- --nocapture` prints the figures; `BURDOCK_BIN` measures another build.

mod support;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use support::steady::failures;
use support::{Backend, Burdock, HEADER, Steady, eventually};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

const MANY: usize = 10_000;
const RELOADS: usize = 10;
const SESSIONS: usize = 50;
const RATE: usize = 300;

/// A few that serve, and many that are there: weight 0 keeps new sessions from them.
fn crowd(serving: &[Backend], n: usize) -> String {
    let mut text = format!("{HEADER}session_affinity: true\ninstances:\n");
    for backend in serving {
        let weight = 1 + n % 2;
        let (name, address) = (&backend.name, backend.address);
        text.push_str(&format!("  - {{ name: {name}, address: {address}, weight: {weight} }}\n"));
    }
    for place in n..MANY + n {
        let (third, port) = (place / 1000, 1 + place % 1000);
        text.push_str(&format!("  - {{ address: 127.1.{third}.1:{port}, weight: 0 }}\n"));
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn reloads_of_ten_thousand_instances_stall_no_request() {
    let serving = Backend::several(&["a", "b", "c"]).await;
    let burdock = Burdock::start(&crowd(&serving, 0)).await;
    let load = Steady::start(burdock.address(), SESSIONS, RATE).await;
    load.passes(RATE).await;
    let mut publish = Vec::new();
    for n in 1..=RELOADS {
        let line = burdock.reload(&crowd(&serving, n)).await;
        assert_eq!(line["message"], "reloaded");
        publish.push(line["publish_ms"].as_f64().expect("a time"));
    }
    load.passes(RATE).await;
    let answers = load.stop().await;
    assert_eq!(failures(&answers), Vec::<String>::new());
    let wait = answers.iter().map(|it| it.done.saturating_duration_since(it.due)).max();
    publish.sort_by(f64::total_cmp);
    println!(
        "| {MANY} instances, {RELOADS} reloads | published in {:.1} to {:.1} ms | {} requests | \
         longest wait {} ms |",
        publish[0],
        publish[RELOADS - 1],
        answers.len(),
        wait.unwrap_or_default().as_millis(),
    );
    // The best of them: what else the machine does is not what is promised.
    assert!(publish[0] < 50.0, "{publish:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_more_than_512_probes_are_under_way_at_once() {
    let (open, most, all) = (Arc::default(), Arc::default(), Arc::default());
    let mut text = format!(
        "{HEADER}readiness_check: {{ path: /, check_interval: 10ms, timeout: 1s, \
         initial_state: ready }}\ninstances:\n"
    );
    for _ in 0..700 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        text.push_str(&format!("  - {}\n", listener.local_addr().unwrap()));
        let counts: [Arc<AtomicUsize>; 3] = [&open, &most, &all].map(Arc::clone);
        tokio::spawn(hang(listener, counts));
    }
    let _burdock = Burdock::start(&text).await;
    // Every one has had its first probe when those that waited have had theirs.
    eventually("1400 probes", || (all.load(Ordering::Acquire) >= 1400).then_some(())).await;
    let most = most.load(Ordering::Acquire);
    // This side sees some end a little later than the next begin.
    assert!((400..600).contains(&most), "{most} at once");
}

/// Accepts and never answers.
async fn hang(listener: TcpListener, [open, most, all]: [Arc<AtomicUsize>; 3]) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { continue };
        all.fetch_add(1, Ordering::AcqRel);
        let now = open.fetch_add(1, Ordering::AcqRel) + 1;
        most.fetch_max(now, Ordering::AcqRel);
        let open = Arc::clone(&open);
        tokio::spawn(async move {
            let mut bytes = [0; 1024];
            let patience = Duration::from_secs(10);
            let end = async { while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {} };
            drop(tokio::time::timeout(patience, end).await);
            open.fetch_sub(1, Ordering::AcqRel);
        });
    }
}
