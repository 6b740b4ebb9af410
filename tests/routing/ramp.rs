//! A version's share grows while the version does well, stays where it is when it does not, and goes back when it
//! does badly: moves of sessions are counted, and whatever happens meanwhile has a clear end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::support::{
    self, Api, Backend, Burdock, Client, DEADLINE, Fault, eventually, pause, run_to_end,
};

const STICKY: &str = "        session_affinity: true\n";
const CHECKED: &str = "        readiness_check: { path: /readyz, check_interval: 50ms, timeout: 200ms, \
     failure_threshold: 2, success_threshold: 2 }\n";

/// A service `app` with an instance for each version, and what its versions have in common.
fn config(versions: &[(&Backend, u32)], split: &str, common: &str) -> String {
    let weights: Vec<_> =
        versions.iter().map(|(it, weight)| format!("{}: {weight}", it.name)).collect();
    let mut text = format!(
        "{}services:\n  app:\n    traffic_split: {{ {split}allocations: {{ {} }} }}\n    versions:\n",
        support::HEADER,
        weights.join(", ")
    );
    for (backend, _) in versions {
        let (name, address) = (&backend.name, backend.address);
        text += &format!(
            "      {name}:\n        instances: [{{ name: {name}, address: {address} }}]\n{common}"
        );
    }
    text
}

async fn two() -> (Backend, Backend) {
    (Backend::start("v1").await, Backend::start("v2").await)
}

/// Clients that nobody has seen before, one after the other, until it is dropped.
struct Newcomers {
    stop: Arc<AtomicBool>,
    came: Arc<AtomicUsize>,
    tasks: JoinSet<()>,
}

impl Newcomers {
    fn start(burdock: &Burdock) -> Self {
        Self::asking(burdock, "/")
    }

    fn asking(burdock: &Burdock, path: &str) -> Self {
        let (stop, came) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut tasks = JoinSet::new();
        for _ in 0..4 {
            let (stop, came) = (Arc::clone(&stop), Arc::clone(&came));
            let (address, path) = (burdock.address(), path.to_owned());
            tasks.spawn(async move {
                let mut client = Client::new(address);
                let mut ticks = tokio::time::interval(Duration::from_millis(4));
                while !stop.load(Ordering::Acquire) {
                    ticks.tick().await;
                    let request = support::Request::get(&path);
                    // A restart may cut it off.
                    let _ = client.try_send(&request).await;
                    came.fetch_add(1, Ordering::AcqRel);
                }
            });
        }
        Self { stop, came, tasks }
    }

    /// Waits for so many more.
    async fn pass(&self, count: usize) {
        let goal = self.came.load(Ordering::Acquire) + count;
        let came = || (self.came.load(Ordering::Acquire) >= goal).then_some(());
        eventually("more newcomers", came).await;
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        while self.tasks.join_next().await.is_some() {}
    }
}

/// A process that nobody here has started, ended when dropped.
struct Heir(i32);

impl Heir {
    fn of(burdock: &Burdock) -> Self {
        let named =
            std::fs::read_to_string(burdock.directory.join("burdock.pid")).expect("a pid file");
        Self(named.trim().parse().expect("a number"))
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        support::burdock::signal_process(self.0, libc::SIGKILL);
    }
}

async fn begin(api: &mut Api, plan: Value) -> Value {
    let mut whole = json!({ "version": "v2", "from": "10%", "to": "60%", "over": "2s",
        "min_requests": 10 });
    for (key, value) in plan.as_object().expect("a map") {
        whole[key] = value.clone();
    }
    let (status, told) = api.post("services/app/ramp", whole).await;
    assert_eq!(status, 201, "{told}");
    told
}

async fn change(api: &mut Api, stage: &str) -> (u16, Value) {
    api.patch("services/app/ramp", json!({ "stage": stage })).await
}

async fn until(api: &mut Api, what: &str, mut wanted: impl FnMut(&Value) -> bool) -> Value {
    let deadline = Instant::now() + DEADLINE;
    loop {
        let (status, told) = api.get("services/app/ramp").await;
        assert_eq!(status, 200, "{told}");
        if wanted(&told) {
            return told;
        }
        assert!(Instant::now() < deadline, "never {what}: {told}");
        pause().await;
    }
}

async fn stage(api: &mut Api, wanted: &str) -> Value {
    until(api, wanted, |it| it["stage"] == wanted).await
}

async fn shares(api: &mut Api) -> Value {
    api.get("services/app/split").await.1["shares"].clone()
}

async fn versions(clients: &mut [Client]) -> Vec<String> {
    let mut found = Vec::with_capacity(clients.len());
    for client in clients {
        found.push(client.get("/").await.instance().to_owned());
    }
    found
}

fn count(found: &[String], version: &str) -> usize {
    found.iter().filter(|name| *name == version).count()
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

async fn rehomed(burdock: &Burdock) -> usize {
    let split = [("reason", "traffic_split")];
    burdock.metrics().await.sum("burdock_rehomes_total", &split) as usize
}

/// Texts of the events of ramps.
async fn events(api: &mut Api) -> Vec<String> {
    let (_, all) = api.get("events?format=json").await;
    let events = all["events"].as_array().unwrap_or_else(|| panic!("{all}"));
    let ramps = events.iter().filter(|event| event["kind"] == "ramp");
    ramps.map(|event| event["text"].as_str().expect("text").to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_does_well_grows_to_its_share_and_moves_no_session() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", STICKY)).await;
    let mut api = Api::of(&burdock);
    assert_eq!(api.get("services/app/ramp").await.0, 404);
    let mut clients: Vec<_> = (0..100).map(|_| burdock.session()).collect();
    let first = versions(&mut clients).await;
    assert_eq!(count(&first, "v1"), 100);
    let begun = begin(&mut api, json!({})).await;
    assert_eq!(
        (&begun["share"], &begun["steps"], &begun["step"]),
        (&json!(0.1), &json!(10), &json!(0))
    );
    let newcomers = Newcomers::start(&burdock);
    let mut seen = vec![0.1];
    let ended = until(&mut api, "done", |it| {
        let share = it["share"].as_f64().unwrap();
        if share > *seen.last().unwrap() {
            seen.push(share);
        }
        it["stage"] == "done"
    })
    .await;
    assert!(seen.len() >= 8 && seen.last() == Some(&0.6), "step by step: {seen:?}");
    assert_eq!(
        (&ended["share"], &ended["before"]),
        (&json!(0.6), &json!({ "v1": 1.0, "v2": 0.0 }))
    );
    newcomers.stop().await;
    // Who had a session has it still; new ones go by the new shares.
    assert_eq!(moved(&first, &versions(&mut clients).await), 0);
    assert_eq!(rehomed(&burdock).await, 0);
    let mut more: Vec<_> = (0..100).map(|_| burdock.session()).collect();
    let at_new = count(&versions(&mut more).await, "v2");
    assert!((40..=80).contains(&at_new), "{at_new} of 100 at 60 %");
    assert_eq!(shares(&mut api).await, json!({ "v1": 0.4, "v2": 0.6 }));
    let told = events(&mut api).await;
    let texts = ["the ramp of app/v2 begins: 10% to 60% in 2s", "the ramp of app/v2 is done: 60%"];
    assert_eq!(told, texts);
    let metrics = burdock.metrics().await;
    let of = |stage| metrics.sum("burdock_ramp_stage", &[("version", "v2"), ("stage", stage)]);
    assert_eq!((of("done"), of("running")), (1.0, 0.0));
    assert_eq!(metrics.sum("burdock_ramp_share", &[("version", "v2")]), 0.6);
    // Later somebody sees that it was a mistake.
    let before = versions(&mut clients).await;
    let (status, told) = change(&mut api, "rolled_back").await;
    assert_eq!((status, &told["stage"], &told["share"]), (200, &json!("rolled_back"), &json!(0.0)));
    assert_eq!(moved(&before, &versions(&mut clients).await), 0, "of those that were at v1");
    assert_eq!(count(&versions(&mut more).await, "v1"), 100);
    assert_eq!(rehomed(&burdock).await, at_new);
    assert_eq!(api.get("services/app/split").await.1["source"], "file");
    assert_eq!(change(&mut api, "rolled_back").await.0, 409);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_with_errors_goes_back_once_and_takes_only_its_own_sessions_along() {
    let (v1, v2) = two().await;
    let mut burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", STICKY)).await;
    let mut api = Api::of(&burdock);
    begin(&mut api, json!({ "from": "30%", "to": "90%", "over": "20s" })).await;
    let newcomers = Newcomers::start(&burdock);
    let mut clients: Vec<_> = (0..100).map(|_| burdock.session()).collect();
    let first = versions(&mut clients).await;
    let at_new = count(&first, "v2");
    assert!((10..=60).contains(&at_new), "{at_new} of 100 at 30 % and more");
    v2.misbehaves(Fault::Status(500));
    let told = stage(&mut api, "rolled_back").await;
    v2.misbehaves(Fault::None);
    let reason = told["reason"].as_str().unwrap();
    assert!(reason.ends_with("5% more is the limit"), "{reason}");
    assert_eq!(shares(&mut api).await, json!({ "v1": 1.0, "v2": 0.0 }));
    let back = versions(&mut clients).await;
    assert_eq!((count(&back, "v1"), moved(&first, &back)), (100, at_new));
    assert_eq!(moved(&back, &versions(&mut clients).await), 0);
    newcomers.pass(100).await;
    newcomers.stop().await;
    assert_eq!(rehomed(&burdock).await, at_new, "each moved once");
    // Told of once, everywhere.
    let mut told = events(&mut api).await;
    assert!(told.pop().unwrap().starts_with("the ramp of app/v2 is rolled back from "), "{told:?}");
    assert!(!told.iter().any(|text| text.contains("rolled back")), "{told:?}");
    let is_it = |line: &Value| line["what"].to_string().contains("rolled back");
    let line = burdock.wait_log("ramp", is_it).await;
    assert_eq!((&line["level"], &line["service"]), (&json!("WARN"), &json!("app")));
    assert_eq!(burdock.log("ramp").into_iter().filter(is_it).count(), 1);
    let metrics = burdock.metrics().await;
    let by = |cause| metrics.sum("burdock_ramp_roll_backs_total", &[("cause", cause)]);
    assert_eq!((by("errors"), by("latency"), by("operator")), (1.0, 0.0, 0.0));
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_that_a_version_had_before_stay_when_its_ramp_goes_back() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 7), (&v2, 3)], "", STICKY)).await;
    let mut api = Api::of(&burdock);
    let mut old: Vec<_> = (0..60).map(|_| burdock.session()).collect();
    let first = versions(&mut old).await;
    // Tokens know seconds.
    let second =
        || std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    let begun = second();
    eventually("another second", || (second() > begun).then_some(())).await;
    begin(&mut api, json!({ "from": "80%", "to": "90%", "over": "1h" })).await;
    let mut young: Vec<_> = (0..60).map(|_| burdock.session()).collect();
    let came = versions(&mut young).await;
    let at_new = count(&came, "v2");
    assert!(at_new >= 30, "{at_new} of 60 at 80 %");
    assert_eq!(change(&mut api, "rolled_back").await.0, 200);
    assert_eq!(shares(&mut api).await, json!({ "v1": 0.7, "v2": 0.3 }));
    assert_eq!(
        moved(&first, &versions(&mut old).await),
        0,
        "those from before are where they were"
    );
    let left = versions(&mut young).await;
    assert!(came.iter().zip(&left).all(|(came, left)| came == left || came == "v2"));
    // Those whom the shares lead to it without a ramp stay, and nobody moves twice.
    let at_new = count(&left, "v2");
    assert!((5..=35).contains(&at_new), "{at_new} of 60 at 30 %");
    assert_eq!(moved(&left, &versions(&mut young).await), 0);
    // With a split of somebody's own nothing is taken back any more.
    let even = json!({ "allocations": { "v1": 1, "v2": 1 } });
    assert_eq!(api.put("services/app/split", even).await.0, 200);
    assert_eq!(api.get("services/app/ramp").await.0, 404);
    assert_eq!(moved(&first, &versions(&mut old).await), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_without_sessions_come_one_by_one_and_go_back_the_same() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    let mut clients: Vec<_> = (0..200).map(|_| burdock.session()).collect();
    let mut before = versions(&mut clients).await;
    begin(&mut api, json!({ "from": "5%", "to": "50%", "over": "1s" })).await;
    let mut moves = 0;
    loop {
        let now = versions(&mut clients).await;
        let back = before.iter().zip(&now).filter(|(before, now)| *before == "v2" && *now == "v1");
        assert_eq!(back.count(), 0, "nobody is sent back while it grows");
        moves += moved(&before, &now);
        before = now;
        if api.get("services/app/ramp").await.1["stage"] == "done" {
            break;
        }
    }
    let now = versions(&mut clients).await;
    moves += moved(&before, &now);
    let at_new = count(&now, "v2");
    assert_eq!(moves, at_new, "each that is there has moved once, and nobody else");
    assert!((70..=130).contains(&at_new), "{at_new} of 200 at 50 %");
    change(&mut api, "rolled_back").await;
    let back = versions(&mut clients).await;
    assert_eq!((count(&back, "v1"), moved(&now, &back)), (200, at_new));
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_answers_hold_it_or_take_it_back() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    let newcomers = Newcomers::start(&burdock);
    v2.misbehaves(Fault::Late(Duration::from_millis(40)));
    let plan = json!({ "hold_on_latency": "30ms", "roll_back_on_latency": "1s" });
    begin(&mut api, plan).await;
    let told = until(&mut api, "held by it", |it| {
        it["stage"] == "held" && it["reason"].to_string().contains("its answers take")
    })
    .await;
    assert_eq!(told["step"], 0, "{told}");
    change(&mut api, "cancelled").await;
    assert_eq!(shares(&mut api).await["v2"], 0.1, "what it had come to");
    // Compared with the other version, in the same time.
    begin(&mut api, json!({ "roll_back_on_latency": "3x" })).await;
    let told = stage(&mut api, "rolled_back").await;
    assert!(told["reason"].to_string().contains(", 3 times "), "{told}");
    assert_eq!(shares(&mut api).await["v2"], 0.1, "as before that ramp");
    v1.misbehaves(Fault::Late(Duration::from_millis(40)));
    begin(&mut api, json!({ "roll_back_on_latency": "20x" })).await;
    stage(&mut api, "done").await;
    newcomers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_fault_of_the_version_takes_nothing_back() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    let newcomers = Newcomers::start(&burdock);
    // Half of all that comes is refused for what it is.
    let others = Newcomers::asking(&burdock, "/status/404");
    begin(&mut api, json!({ "hold_on_errors": "1%", "roll_back_on_errors": "1%" })).await;
    stage(&mut api, "done").await;
    // What all versions suffer from is none either.
    [&v1, &v2].iter().for_each(|it| it.misbehaves(Fault::Status(500)));
    assert_eq!(change(&mut api, "rolled_back").await.0, 200);
    newcomers.pass(50).await;
    begin(&mut api, json!({})).await;
    stage(&mut api, "done").await;
    drop((newcomers, others));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_enough_requests_nothing_grows_and_nothing_goes_back() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    begin(&mut api, json!({ "over": "1s", "min_requests": 200 })).await;
    v2.misbehaves(Fault::Status(500));
    let told = stage(&mut api, "held").await;
    assert_eq!(told["reason"], "0 of 200 requests seen");
    let newcomers = Newcomers::start(&burdock);
    until(&mut api, "seen", |it| it["seen"]["version"]["requests"].as_u64() >= Some(5)).await;
    newcomers.stop().await;
    let told = api.get("services/app/ramp").await.1;
    let errors = told["seen"]["version"]["errors"].as_u64().unwrap();
    if errors < 200 {
        assert_eq!((&told["stage"], &told["step"]), (&json!("held"), &json!(0)), "{told}");
    }
    let newcomers = Newcomers::start(&burdock);
    stage(&mut api, "rolled_back").await;
    newcomers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_cannot_serve_is_not_grown() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", CHECKED)).await;
    let mut api = Api::of(&burdock);
    v2.ready(false);
    burdock.wait_health("v2", "unready").await;
    let plan = json!({ "version": "v2", "to": "50%", "over": "2s" });
    let (status, told) = api.post("services/app/ramp", plan).await;
    assert_eq!(
        (status, &told["detail"]),
        (409, &json!("no instance of app/v2 can serve: nothing to ramp up"))
    );
    v2.ready(true);
    burdock.wait_health("v2", "ready").await;
    begin(&mut api, json!({ "over": "3s" })).await;
    v2.ready(false);
    let told = stage(&mut api, "rolled_back").await;
    assert_eq!(told["reason"], "no instance of it can serve");
    // Nobody is better off where nobody can serve.
    v2.ready(true);
    burdock.wait_health("v2", "ready").await;
    begin(&mut api, json!({ "over": "2s" })).await;
    v1.ready(false);
    burdock.wait_health("v1", "unready").await;
    v2.ready(false);
    until(&mut api, "held", |it| it["reason"].to_string().contains("no other version can serve"))
        .await;
    v1.ready(true);
    stage(&mut api, "rolled_back").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_hands_do_not_steer_one_service() {
    let (v1, v2) = two().await;
    let v3 = Backend::start("v3").await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0), (&v3, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    begin(&mut api, json!({ "over": "1h" })).await;
    let other = json!({ "version": "v3", "to": "50%", "over": "2s" });
    let (status, told) = api.post("services/app/ramp", other).await;
    let advice = "a ramp of v2 is under way, at 10%; first `burdock ramp app --cancel`";
    assert_eq!((status, told["detail"].to_string().contains(advice)), (409, true), "{told}");
    let by_hand = json!({ "allocations": { "v1": 1, "v2": 1 } });
    let (status, told) = api.put("services/app/split", by_hand.clone()).await;
    assert_eq!((status, told["detail"].to_string().contains(advice)), (409, true), "{told}");
    assert_eq!(api.delete("services/app/split").await.0, 409);
    let (status, told) = change(&mut api, "paused").await;
    assert_eq!((status, &told["stage"]), (200, &json!("paused")));
    assert_eq!(api.put("services/app/split", by_hand.clone()).await.0, 409);
    assert_eq!(change(&mut api, "running").await.1["stage"], "running");
    assert_eq!(change(&mut api, "cancelled").await.1["stage"], "cancelled");
    assert_eq!(shares(&mut api).await, json!({ "v1": 0.9, "v2": 0.1, "v3": 0.0 }));
    assert_eq!(change(&mut api, "paused").await.0, 409);
    assert_eq!(api.put("services/app/split", by_hand).await.0, 200);
    for (plan, wanted) in [
        (json!({ "version": "v4" }), "no version v4; there are v1, v2, v3"),
        (json!({ "from": "20%" }), "from: v2 has 50% already; allowed: 50% or more"),
        (json!({ "from": "70%", "to": "60%" }), "to: allowed: more than 70%, to 100%"),
        (json!({ "over": "10ms" }), "over: allowed: a duration from 1s to 7d"),
        (json!({ "roll_back_on_latency": "0.5x" }), "roll_back_on_latency: allowed"),
        (json!({ "hold_on_errors": "9%" }), "hold_on_errors: allowed: no more than"),
    ] {
        let mut whole = json!({ "version": "v2", "to": "60%", "over": "2s" });
        for (key, value) in plan.as_object().unwrap() {
            whole[key] = value.clone();
        }
        let (status, told) = api.post("services/app/ramp", whole).await;
        assert_eq!((status, told["detail"].to_string().contains(wanted)), (422, true), "{told}");
    }
    assert_eq!(api.post("services/nobody/ramp", json!({})).await.0, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn it_outlives_a_reload_a_restart_and_an_upgrade() {
    let (v1, v2) = two().await;
    let text = config(&[(&v1, 1), (&v2, 0)], "", STICKY);
    let mut burdock = Burdock::start(&text).await;
    let mut api = Api::of(&burdock);
    let newcomers = Newcomers::start(&burdock);
    begin(&mut api, json!({ "from": "10%", "to": "60%", "over": "4s" })).await;
    until(&mut api, "on its way", |it| it["step"].as_u64() >= Some(2)).await;
    change(&mut api, "paused").await;
    let was = api.get("services/app/ramp").await.1;
    // A reload that has nothing to do with it.
    burdock.reload(&format!("{text}timeouts: {{ keep_alive: 30s }}\n")).await;
    let same = |now: &Value| {
        ["step", "share", "stage", "before", "began"].map(|key| now[key] == was[key]) == [true; 5]
    };
    assert!(same(&api.get("services/app/ramp").await.1));
    newcomers.stop().await;
    // A restart.
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    let (directory, file) = (burdock.directory.clone(), burdock.config.clone());
    let arguments = ["run", "-c", "burdock.yaml", "--pid-file", "burdock.pid"];
    let mut burdock = Burdock::spawn(directory, file, &arguments).await;
    let mut api = Api::of(&burdock);
    assert!(same(&api.get("services/app/ramp").await.1));
    assert_eq!(shares(&mut api).await["v2"], was["share"]);
    // Another process.
    let newcomers = Newcomers::start(&burdock);
    burdock.signal(libc::SIGUSR2);
    assert_eq!(burdock.exit_code().await, 0, "{}", burdock.output());
    let heir = Heir::of(&burdock);
    let mut api = Api::of(&burdock);
    assert!(same(&api.get("services/app/ramp").await.1));
    assert_eq!(change(&mut api, "running").await.0, 200);
    let ended = stage(&mut api, "done").await;
    assert_eq!((&ended["share"], &ended["steps"]), (&json!(0.6), &json!(10)));
    newcomers.stop().await;
    drop(heir);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_that_leaves_no_place_for_it_ends_it_with_a_word() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", STICKY)).await;
    let mut api = Api::of(&burdock);
    begin(&mut api, json!({ "over": "1h" })).await;
    let renamed = Backend::start("v2-hotfix").await;
    burdock.reload(&config(&[(&v1, 1), (&renamed, 0)], "", STICKY)).await;
    assert_eq!(api.get("services/app/ramp").await.0, 404);
    let last = events(&mut api).await.pop().unwrap();
    assert_eq!(last, "the ramp of app/v2 is over: the configuration leaves no place for it");
    assert!(burdock.output().contains("the ramp of app/v2: the file has no version v2 any more"));
    assert_eq!(shares(&mut api).await, json!({ "v1": 1.0, "v2-hotfix": 0.0 }));
    let mut session = burdock.session();
    assert_eq!(session.get("/").await.instance(), "v1");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drill_holds_it_and_what_it_breaks_is_not_held_against_it() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let mut api = Api::of(&burdock);
    let newcomers = Newcomers::start(&burdock);
    begin(&mut api, json!({ "from": "50%", "to": "90%", "over": "1s" })).await;
    let terms = json!({ "name": "x", "max_duration": "60s", "lease": "60s", "min_healthy": 0 });
    let (status, told) = api.post("drill", terms).await;
    assert_eq!(status, 201, "{told}");
    let id = told["id"].as_str().unwrap().to_owned();
    let fault = json!({ "kind": "abort", "status": 503, "instances": ["app/v2/v2"] });
    let (status, told) = api.post(&format!("drill/{id}/faults"), fault).await;
    assert_eq!(status, 201, "{told}");
    let held = until(&mut api, "held", |it| it["reason"] == "a drill runs").await;
    newcomers.pass(300).await;
    let now = api.get("services/app/ramp").await.1;
    assert_eq!((&now["stage"], &now["step"]), (&json!("held"), &held["step"]), "{now}");
    assert_eq!(api.delete(&format!("drill/{id}")).await.0, 200);
    stage(&mut api, "done").await;
    newcomers.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_begins_shows_and_ends_it() {
    let (v1, v2) = two().await;
    let burdock = Burdock::start(&config(&[(&v1, 1), (&v2, 0)], "", "")).await;
    let admin = format!("http://{}", burdock.admin());
    let run = |words: &[&str]| {
        let arguments = [&["ramp", "app"], words, &["--admin", &admin]].concat();
        let output = run_to_end(&burdock.directory, &arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let (code, text) = run(&[]);
    assert!(code == Some(1) && text.contains("app has no ramp"), "{text}");
    let (code, text) = run(&["v2", "--to", "50%", "--over", "10m", "--roll-back-on-latency", "2x"]);
    assert_eq!(code, Some(0), "{text}");
    assert_eq!(
        text,
        "app/v2: running, 1%\n  1% to 50% over 10m: step 0 of 10, 11 min left at least\n  \
         held on 2% more errors; rolled back on 5% more errors or latency 2x; judged by 100 requests or more\n  \
         seen since the last step: 0 requests, 0% errors; other versions: 0 requests, 0% errors\n"
    );
    assert!(run(&[]).1.contains("seen since the last step: 0 requests"), "{}", run(&[]).1);
    assert!(run(&["--pause"]).1.starts_with("app/v2: paused, 1%\n"));
    assert!(run(&["--resume"]).1.starts_with("app/v2: running, 1%\n"));
    let status = run_to_end(&burdock.directory, &["status", "--admin", &admin]);
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains("ramp of app/v2: running, 1%"), "{status}");
    assert!(status.contains("app: traffic_split v1=99 v2=1 (file: v1=1 v2=0)"), "{status}");
    let text = run(&["--roll-back"]).1;
    assert!(text.starts_with("app/v2: rolled back, 0%: somebody asked for it\n"), "{text}");
    for words in [
        &["v2"][..],
        &["v2", "--to", "50%"],
        &["--to", "50%", "--over", "1m"],
        &["--pause", "--resume"],
        &["v2", "--to", "50%", "--over", "1m", "--pause"],
    ] {
        assert_eq!(run(words).0, Some(2), "{words:?}");
    }
    let newcomers = Newcomers::start(&burdock);
    let words =
        ["v2", "--to", "50%", "--over", "1s", "--from", "20%", "--min-requests", "5", "--wait"];
    let (code, text) = tokio::task::block_in_place(|| run(&words));
    assert!(code == Some(0) && text.contains("app/v2: done, 50%"), "{text}");
    v2.misbehaves(Fault::Status(500));
    let words = ["v2", "--to", "90%", "--over", "1s", "--min-requests", "5", "--wait"];
    let (code, text) = tokio::task::block_in_place(|| run(&words));
    assert!(code == Some(1) && text.contains("app/v2: rolled back, 50%: "), "{text}");
    newcomers.stop().await;
}
