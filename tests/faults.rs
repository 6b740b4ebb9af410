//! One instance of five, a process of its own, fails under 500 requests a second with affinity on:
//! clients see nothing, its sessions move once, no other session moves, and nothing is left open.
//! `cargo test --test faults -- --nocapture` prints the figures.

mod support;

use std::sync::Once;
use std::time::{Duration, Instant};

use support::process::{ENTRY, Process, serve};
use support::steady::{Answered, failures, homes, stays};
use support::{Burdock, Steady, eventually};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
/// The one that fails.
const VICTIM: usize = 2;
const SESSIONS: usize = 100;
const RATE: usize = 500;
/// Descriptors that may come and go by themselves: a probe, a scrape.
const SLACK: usize = 3;

const READINESS: &str = "readiness_check: { path: /readyz, check_interval: 250ms, timeout: 250ms, failure_threshold: 2 }\n";
const LIVENESS: &str = "liveness_check: { path: /healthz, check_interval: 250ms, timeout: 250ms, failure_threshold: 2, initial_delay: 0s }\n";
/// Two probes that go unanswered, the wait for the first, and room for a loaded machine. Far below
/// `first_byte`, a minute.
const NOTICED: Duration = Duration::from_secs(3);

const TABLE: &str =
    "| case | requests | errors | sessions on it | moved | needlessly | settled | longest wait |";

/// The figures are taken one case at a time.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

#[tokio::test(flavor = "multi_thread")]
#[ignore = "the other tests start it, as a process"]
async fn an_instance_in_a_process_of_its_own() {
    assert_eq!(ENTRY, "an_instance_in_a_process_of_its_own");
    serve().await;
}

struct World {
    instances: Vec<Process>,
    burdock: Burdock,
    rest: String,
}

impl World {
    async fn start(rest: &str) -> Self {
        let instances = Process::several(&NAMES).await;
        let burdock = Burdock::start(&config(&instances.iter().collect::<Vec<_>>(), rest)).await;
        for name in NAMES {
            burdock.wait_health(name, "ready").await;
        }
        Self { instances, burdock, rest: rest.to_owned() }
    }

    fn victim(&mut self) -> &mut Process {
        &mut self.instances[VICTIM]
    }

    /// Reloads with the instances that `kept` says yes to.
    async fn reload(&self, kept: impl Fn(&str) -> bool) {
        let kept: Vec<_> = self.instances.iter().filter(|process| kept(&process.name)).collect();
        let line = self.burdock.reload(&config(&kept, &self.rest)).await;
        assert_eq!(line["message"], "reloaded", "{line}");
    }

    /// After the load: nothing in flight, and once the instances are gone, so that no kept
    /// connection stands, as many descriptors as before.
    async fn leaves_nothing_open(mut self, before: usize) -> usize {
        for gauge in ["burdock_instance_requests_in_flight", "burdock_instance_tunnels"] {
            self.burdock.wait_metric(gauge, &[], |value| value == 0.0).await;
        }
        self.instances.iter_mut().for_each(Process::kill);
        let burdock = &self.burdock;
        let mut least = usize::MAX;
        eventually("descriptors are closed", || {
            least = least.min(burdock.descriptors());
            (least <= before + SLACK).then_some(least)
        })
        .await
    }
}

fn config(instances: &[&Process], rest: &str) -> String {
    let mut text = "listeners: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n\
                    workers: 2\naccess_log: false\nsession_affinity: true\ninstances:\n"
        .to_owned();
    for process in instances {
        text.push_str(&format!("  - {{ name: {}, address: {} }}\n", process.name, process.address));
    }
    text + rest
}

/// What a stretch of the load came to.
struct Figures {
    requests: usize,
    errors: Vec<String>,
    reconnects: usize,
    /// From the beginning to the last session's first answer from another instance.
    settled: Duration,
    /// The longest that a client waited for one answer since the beginning.
    longest: Duration,
}

impl Figures {
    /// Of what was not yet answered at `from`, up to what was due at `to`.
    fn of(answers: &[Answered], from: Instant, to: Option<Instant>) -> Self {
        let within = |a: &&Answered| a.done >= from && to.is_none_or(|to| a.due < to);
        let part: Vec<_> = answers.iter().filter(within).cloned().collect();
        let before: Vec<_> = answers.iter().filter(|a| a.done < from).cloned().collect();
        let (mut at, mut settled) = (homes(&before), Duration::ZERO);
        let mut by_done = part.clone();
        by_done.sort_by_key(|answered| answered.done);
        for answered in &by_done {
            let Ok(instance) = &answered.result else { continue };
            let home = at.entry(answered.session).or_default();
            if home != instance {
                home.clone_from(instance);
                settled = settled.max(answered.done - from);
            }
        }
        Self {
            requests: part.len(),
            errors: failures(&part),
            reconnects: part.iter().map(|answered| answered.reconnects).sum(),
            settled,
            longest: part.iter().map(|a| a.done - a.due.max(from)).max().unwrap_or_default(),
        }
    }

    fn clean(&self) {
        assert_eq!(self.errors, Vec::<String>::new());
        assert_eq!(self.reconnects, 0, "a client's connection is not cut");
    }

    fn print(&self, case: &str, affected: usize, moved: usize, needless: usize) {
        println!(
            "| {case} | {} | {} | {affected} | {moved} | {needless} | {} ms | {} ms |",
            self.requests,
            self.errors.len(),
            self.settled.as_millis(),
            self.longest.as_millis(),
        );
    }
}

/// Breaks the victim under load (`breaks` says when it did), waits until its sessions have left, mends it, looks on, and holds
/// every request to the promise.
async fn fault(
    case: &str,
    rest: &str,
    limit: Duration,
    breaks: impl AsyncFn(&mut World) -> Instant,
    mends: impl AsyncFn(&mut World),
) {
    let _turn = TURN.lock().await;
    let mut world = World::start(rest).await;
    let descriptors = world.burdock.descriptors();
    let load = Steady::start(world.burdock.address(), SESSIONS, RATE).await;
    load.passes(RATE).await;
    let before = load.so_far();
    let failed = breaks(&mut world).await;
    load.leaves(NAMES[VICTIM]).await;
    load.passes(RATE / 2).await;
    let mended = Instant::now();
    mends(&mut world).await;
    world.burdock.wait_health(NAMES[VICTIM], "ready").await;
    load.passes(RATE).await;
    let mut landed = Vec::new();
    for _ in NAMES {
        landed.push(world.burdock.client().get("/").await.instance().to_owned());
    }
    let answers = load.stop().await;
    let left = world.leaves_nothing_open(descriptors).await;

    let homes = homes(&before);
    let affected = homes.values().filter(|home| *home == NAMES[VICTIM]).count();
    let stays = stays(&answers);
    let (ours, others): (Vec<_>, Vec<_>) =
        stays.iter().partition(|(session, _)| homes[session] == NAMES[VICTIM]);
    let moved = ours.iter().filter(|(_, stays)| stays.len() > 1).count();
    let twice: Vec<_> = ours.iter().filter(|(_, stays)| stays.len() != 2).collect();
    let needless: Vec<_> = others.iter().filter(|(_, stays)| stays.len() > 1).collect();
    static HEAD: Once = Once::new();
    HEAD.call_once(|| println!("{TABLE}"));
    let during = Figures::of(&answers, failed, Some(mended));
    during.print(case, affected, moved, needless.len());
    let after = Figures::of(&answers, mended, None);
    after.print(&format!("{case}: back"), 0, 0, 0);
    println!("  descriptors before {descriptors}, after {left}");

    during.clean();
    after.clean();
    assert_eq!(affected, SESSIONS / NAMES.len(), "even: {homes:?}");
    assert!(twice.is_empty(), "each moves once: {twice:?}");
    assert!(needless.is_empty(), "sessions that need not have moved: {needless:?}");
    assert!(during.settled < limit && during.longest < limit, "within {limit:?}");
    landed.sort();
    assert_eq!(landed, NAMES, "newcomers are spread over all again");
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9() {
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.victim().kill();
        now
    };
    let mends = async |world: &mut World| world.victim().restart().await;
    fault("kill -9", READINESS, NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kill_9_with_requests_inside() {
    let breaks = async |world: &mut World| {
        world.victim().told("hold").await;
        let inside = [("instance", NAMES[VICTIM])];
        let enough = |inside| inside >= (SESSIONS / NAMES.len()) as f64;
        world.burdock.wait_metric("burdock_instance_requests_in_flight", &inside, enough).await;
        let now = Instant::now();
        world.victim().kill();
        now
    };
    let mends = async |world: &mut World| world.victim().restart().await;
    fault("kill -9, 20 requests inside", READINESS, NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sigstop() {
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.victim().signal(libc::SIGSTOP);
        now
    };
    let mends = async |world: &mut World| world.victim().signal(libc::SIGCONT);
    fault("SIGSTOP", READINESS, NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refused_port() {
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.victim().told("refuse").await;
        now
    };
    let mends = async |world: &mut World| world.victim().told("listen").await;
    fault("refused port", READINESS, NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn readiness_503() {
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.victim().told("unready").await;
        now
    };
    let mends = async |world: &mut World| world.victim().told("ready").await;
    fault("readiness 503", READINESS, NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn liveness_failing() {
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.victim().told("dead").await;
        now
    };
    let mends = async |world: &mut World| world.victim().told("alive").await;
    fault("liveness failing", &format!("{READINESS}{LIVENESS}"), NOTICED, breaks, mends).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn removed_by_reload() {
    // Bound sessions may stay until the deadline, and that is when they must have left.
    let rest = format!("{READINESS}drain: {{ timeout: 1s, spread: 0s }}\n");
    let breaks = async |world: &mut World| {
        let now = Instant::now();
        world.reload(|name| name != NAMES[VICTIM]).await;
        now
    };
    let mends = async |world: &mut World| world.reload(|_| true).await;
    fault("removed by reload", &rest, Duration::from_secs(1) + NOTICED, breaks, mends).await;
}

/// Sessions that left an instance which had not been killed since they came; kills went in the
/// order of the names, and each was waited for.
fn needless_in_turn(answers: &[Answered]) -> Vec<(usize, Vec<String>)> {
    let place = |name: &String| NAMES.iter().position(|known| known == name);
    let in_turn = |stays: &[String]| {
        let left: Vec<_> = stays[..stays.len() - 1].iter().map(place).collect();
        left.is_sorted_by(|a, b| a < b)
    };
    stays(answers).into_iter().filter(|(_, stays)| !in_turn(stays)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_instance_killed_and_restarted_in_turn() {
    let _turn = TURN.lock().await;
    let mut world = World::start(READINESS).await;
    let descriptors = world.burdock.descriptors();
    let load = Steady::start(world.burdock.address(), SESSIONS, RATE).await;
    load.passes(RATE / 2).await;
    let begun = Instant::now();
    for victim in &mut world.instances {
        victim.kill();
        load.leaves(&victim.name).await;
        victim.restart().await;
        // One probe before the kill was noticed must not be taken for one after the restart.
        load.passes(RATE / 2).await;
        world.burdock.wait_health(&victim.name, "ready").await;
    }
    let answers = load.stop().await;
    world.leaves_nothing_open(descriptors).await;
    let moves: usize = stays(&answers).values().map(|stays| stays.len() - 1).sum();
    let needless = needless_in_turn(&answers);
    let figures = Figures::of(&answers, begun, None);
    figures.print("all in turn, kill -9 and restart", SESSIONS, moves, needless.len());
    figures.clean();
    assert!(needless.is_empty(), "sessions that need not have moved: {needless:?}");
}

/// Kills the first `killed` instances within a moment.
async fn killed_at_once(killed: usize, rest: &str) {
    let _turn = TURN.lock().await;
    let mut world = World::start(&format!("{READINESS}{rest}")).await;
    let descriptors = world.burdock.descriptors();
    let load = Steady::start(world.burdock.address(), SESSIONS, RATE).await;
    load.passes(RATE / 2).await;
    let at = Instant::now();
    world.instances[..killed].iter_mut().for_each(Process::kill);
    for name in &NAMES[..killed] {
        load.leaves(name).await;
    }
    load.passes(RATE / 2).await;
    let answers = load.stop().await;
    world.leaves_nothing_open(descriptors).await;
    let stays = stays(&answers);
    let affected = |stays: &&Vec<String>| NAMES[..killed].contains(&stays[0].as_str());
    let (ours, others): (Vec<_>, Vec<_>) = stays.values().partition(affected);
    let needless = others.iter().filter(|stays| stays.len() > 1).count();
    let figures = Figures::of(&answers, at, None);
    figures.print(&format!("kill -9 of {killed} at once"), ours.len(), ours.len(), needless);
    figures.clean();
    assert_eq!(needless, 0, "sessions that need not have moved");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_killed_at_once() {
    killed_at_once(2, "").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn four_killed_at_once_with_as_many_attempts() {
    killed_at_once(4, "retry: { attempts: 5 }\n").await;
}
