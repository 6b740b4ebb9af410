//! What is done with the drill of this process, and what ends it when its holder doesn't: its lease, its
//! longest duration, and fewer healthy instances than were promised.

#[cfg(test)]
mod tests;

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant, SystemTime};

use crate::config::overlay::{self, Key};
use crate::config::types::{Config, State as Wanted};
use crate::instance::{Instance, Roster};
use crate::observe::events::{DrillStage, Event};
use crate::rehearsal::fault::{self, Deed, Fault, Hits, settle};
use crate::rehearsal::safety::objection;
use crate::rehearsal::{End, Last, Running, State, Terms};
use crate::snapshot::{Live, drains};

/// Between two looks at whether a drill must end.
const LOOK: Duration = Duration::from_millis(50);
/// Faults at once.
const MOST_FAULTS: usize = 100;

/// Why something was not done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no such drill, or no such fault in it.
    Unknown(String),
    /// It is over.
    Over(String),
    /// It does not go with what is there.
    Conflict(String),
}

/// Begins a drill that is about to touch these versions; gives the id by which its holder speaks of it.
pub fn begin(live: &Live, terms: Terms, touched: Vec<Arc<Roster>>) -> Result<String, Refusal> {
    let mut state = live.rehearsals.lock();
    if let Some(running) = &state.running {
        let Terms { name, holder, .. } = &running.terms;
        let seconds = running.began.elapsed().as_secs();
        let told = format!("the drill {name} of {holder} has been running for {seconds} s");
        return Err(Refusal::Conflict(told));
    }
    if live.is_leaving() {
        return Err(Refusal::Conflict("this process is stopping".to_owned()));
    }
    let nothing = Hits::default();
    let mut objections = touched.iter().filter_map(|it| objection(it, terms.min_healthy, &nothing));
    if let Some(why) = objections.next() {
        return Err(Refusal::Conflict(why.replacen("would have", "has", 1)));
    }
    let id = format!("{:016x}", fastrand::u64(..));
    let (now, started) = (Instant::now(), SystemTime::now());
    let holder = terms.holder.clone();
    tell(
        live,
        &terms.name,
        DrillStage::Began {
            holder,
            min_healthy: terms.min_healthy.to_string(),
            max_seconds: terms.max_duration.as_secs(),
        },
    );
    state.running = Some(Running {
        id: id.clone(),
        terms,
        started,
        began: now,
        heard: now,
        faults: Vec::new(),
        hits: nothing,
        injected: 0,
        touched,
    });
    drop(state);
    live.rehearsals.begun.notify_one();
    Ok(id)
}

/// Its holder is still there.
pub fn hear(live: &Live, id: &str) -> Result<(), Refusal> {
    let mut state = live.rehearsals.lock();
    held(&mut state, id)?.heard = Instant::now();
    Ok(())
}

/// Injects a fault into these instances; gives its number.
pub fn inject(
    live: &Arc<Live>,
    id: &str,
    deed: Deed,
    instances: Vec<Arc<Instance>>,
) -> Result<u64, Refusal> {
    let mut state = live.rehearsals.lock();
    let running = held(&mut state, id)?;
    running.heard = Instant::now();
    if running.faults.len() >= MOST_FAULTS {
        return Err(Refusal::Conflict(format!("{MOST_FAULTS} faults are there already")));
    }
    if !matches!(deed, Deed::Disturb(_))
        && let Some(other) = instances.iter().find(|it| it.wanted() != Wanted::Active)
    {
        let (other, state) = (fault::id(other), other.wanted().word());
        return Err(Refusal::Conflict(format!("{other} is {state} without a drill")));
    }
    running.injected += 1;
    let (number, began) = (running.injected, SystemTime::now());
    let kind = deed.kind();
    let fault = Fault { number, deed, instances, began };
    let rosters = fault.instances.iter().filter_map(|instance| instance.roster());
    let mut rosters: Vec<_> = rosters.collect();
    rosters.sort_by_key(Arc::as_ptr);
    rosters.dedup_by(|a, b| Arc::ptr_eq(a, b));
    let hits = Hits::of(running.faults.iter().chain([&fault]));
    let least = running.terms.min_healthy;
    if let Some(why) = rosters.iter().find_map(|roster| objection(roster, least, &hits)) {
        running.injected -= 1;
        return Err(Refusal::Conflict(why));
    }
    for roster in rosters {
        if !running.touched.iter().any(|known| Arc::ptr_eq(known, &roster)) {
            running.touched.push(roster);
        }
    }
    let stage = DrillStage::Injected {
        kind: kind.label(),
        detail: fault.deed.detail(),
        instances: fault.names(),
    };
    tell(live, &running.terms.name, stage);
    live.rehearsals.injected[kind as usize].fetch_add(1, Ordering::Relaxed);
    let hit = fault.instances.clone();
    running.faults.push(fault);
    running.hits = hits;
    settle_all(live, &running.terms.name, &hit, &running.hits);
    Ok(number)
}

/// Undoes a fault.
pub fn undo(live: &Arc<Live>, id: &str, number: u64) -> Result<(), Refusal> {
    let mut state = live.rehearsals.lock();
    let running = held(&mut state, id)?;
    running.heard = Instant::now();
    let place = running.faults.iter().position(|fault| fault.number == number);
    let unknown = || Refusal::Unknown(format!("the drill has no fault {number} now"));
    let fault = running.faults.remove(place.ok_or_else(unknown)?);
    running.hits = Hits::of(&running.faults);
    settle_all(live, &running.terms.name, &fault.instances, &running.hits);
    undone(live, &running.terms.name, &fault, "its step is over");
    Ok(())
}

/// Ends a drill, whose holder says how it went.
pub fn end(live: &Arc<Live>, id: &str, verdict: String) -> Result<(), Refusal> {
    let mut state = live.rehearsals.lock();
    held(&mut state, id)?;
    finish(live, &mut state, End::Told(verdict));
    Ok(())
}

/// Ends the drill that runs, whoever holds it; whether there was one.
pub fn abort(live: &Arc<Live>, reason: &str) -> bool {
    let mut state = live.rehearsals.lock();
    let runs = state.running.is_some();
    finish(live, &mut state, End::Aborted(reason.to_owned()));
    runs
}

/// The operator wants something of this instance: what the drill wants of it counts no longer.
pub fn yield_to(live: &Arc<Live>, key: &Key) {
    let mut state = live.rehearsals.lock();
    let Some(running) = &mut state.running else { return };
    let is_it = |instance: &Arc<Instance>| {
        let it = instance.identity();
        (&it.service, &it.version, &it.name) == (&key.service, &key.version, &key.name)
    };
    let mut left = Vec::new();
    for fault in running.faults.iter_mut().filter(|it| !matches!(it.deed, Deed::Disturb(_))) {
        for instance in fault.instances.extract_if(.., |it| is_it(it)) {
            let kind = fault.deed.kind().label();
            let (instances, why) =
                (vec![fault::id(&instance)], "the operator wants something else");
            tell(live, &running.terms.name, DrillStage::Undone { kind, instances, why });
            left.push(instance);
        }
    }
    running.faults.retain(|fault| !fault.instances.is_empty());
    running.hits = Hits::of(&running.faults);
    settle_all(live, &running.terms.name, &left, &running.hits);
}

/// The same where a file says something else of instances than before.
pub fn heed(live: &Arc<Live>, before: &Config, after: &Config) {
    let of = |instance: &Arc<Instance>| {
        let it = instance.identity();
        let (service, version, name) = (it.service.clone(), it.version.clone(), it.name.clone());
        Key { service, version, name }
    };
    let keys: Vec<_> = live.rehearsals.look(|running, _| {
        let faults = running.map_or(&[][..], |running| &running.faults);
        faults.iter().flat_map(|fault| &fault.instances).map(of).collect()
    });
    let state = |config: &Config, key: &Key| {
        let version = overlay::version(config, key)?;
        overlay::file_instance(version, &key.name).map(|instance| instance.state)
    };
    let changed = keys.iter().filter(|key| state(before, key) != state(after, key));
    changed.for_each(|key| yield_to(live, key));
}

/// Looks after drills, for as long as the process lives. Sleeps while there is none.
pub async fn watch(live: Arc<Live>) {
    loop {
        live.rehearsals.begun.notified().await;
        while live.rehearsals.name().is_some() {
            look(&live, Instant::now());
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Ends the drill if it is time.
pub(super) fn look(live: &Arc<Live>, now: Instant) {
    let mut state = live.rehearsals.lock();
    let Some(running) = &state.running else { return };
    if let Some(reason) = must_end(running, now) {
        finish(live, &mut state, End::Aborted(reason));
    }
}

fn must_end(running: &Running, now: Instant) -> Option<String> {
    let Terms { max_duration, lease, min_healthy, .. } = &running.terms;
    if now.duration_since(running.began) >= *max_duration {
        let most = humantime::format_duration(*max_duration);
        return Some(format!("it has lasted for {most}, its max_duration"));
    }
    if now.duration_since(running.heard) >= *lease {
        let lease = humantime::format_duration(*lease);
        return Some(format!("nothing was heard of its holder for {lease}, its lease"));
    }
    let object = |roster: &Arc<Roster>| objection(roster, *min_healthy, &running.hits);
    let mut objections = running.touched.iter().filter_map(object);
    objections.next().map(|why| why.replacen("would have", "has", 1))
}

fn held<'a>(state: &'a mut State, id: &str) -> Result<&'a mut Running, Refusal> {
    let of_last = || match &state.last {
        Some(last) if last.id == id => Refusal::Over(match &last.end {
            End::Told(_) => format!("the drill {} is over", last.name),
            End::Aborted(reason) => format!("the drill {} was ended: {reason}", last.name),
        }),
        Some(_) | None => Refusal::Unknown("no drill of this id runs here".to_owned()),
    };
    if state.running.as_ref().is_none_or(|running| running.id != id) {
        return Err(of_last());
    }
    state.running.as_mut().ok_or_else(|| Refusal::Unknown(String::new()))
}

fn finish(live: &Arc<Live>, state: &mut State, end: End) {
    let Some(running) = state.running.take() else { return };
    let why = match &end {
        End::Told(_) => "the drill is over",
        End::Aborted(_) => "the drill was ended",
    };
    let Running { id, terms: Terms { name, .. }, started, injected, faults, .. } = running;
    let mut seen = HashSet::new();
    let hit = faults.iter().flat_map(|fault| &fault.instances);
    let hit: Vec<_> = hit.filter(|it| seen.insert(Arc::as_ptr(it))).cloned().collect();
    settle_all(live, &name, &hit, &Hits::default());
    faults.iter().rev().for_each(|fault| undone(live, &name, fault, why));
    tell(
        live,
        &name,
        match &end {
            End::Told(verdict) => DrillStage::Ended { verdict: verdict.clone(), faults: injected },
            End::Aborted(reason) => {
                DrillStage::Aborted { reason: reason.clone(), faults: injected }
            }
        },
    );
    let ended = SystemTime::now();
    state.last = Some(Last { id, name, started, ended, injected, end });
}

/// A fault is there no more.
fn undone(live: &Live, name: &str, fault: &Fault, why: &'static str) {
    let (kind, instances) = (fault.deed.kind().label(), fault.names());
    tell(live, name, DrillStage::Undone { kind, instances, why });
}

fn settle_all(live: &Arc<Live>, name: &str, instances: &[Arc<Instance>], hits: &Hits) {
    let why = format!("the drill {name}");
    for instance in instances {
        if let Some(drain) = settle(instance, hits.on(instance), &why) {
            drains::finish(live, instance, drain);
        }
    }
    live.nudge();
}

/// Notes what a drill does, in the log and in the journal.
fn tell(live: &Live, name: &str, stage: DrillStage) {
    let event = Event::Drill(name.to_owned(), stage);
    let text = event.text();
    match &event {
        Event::Drill(_, DrillStage::Aborted { .. }) => tracing::warn!(drill = name, "{text}"),
        _ => tracing::info!(drill = name, "{text}"),
    }
    live.journal.note(event);
}
