//! Ramps: begun and ended as somebody asks, and looked at until then. Each step is put in place as a split that
//! is asked for is, and kept for the next process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use crate::admin::desk::{Done, RampWish};
use crate::admin::problem::Problem;
use crate::config::overlay::{Overlay, Plan, Ramp, Shares, Stage, WHOLE, weights};
use crate::config::types::Service;
use crate::config::units::{format_duration, format_percent};
use crate::instance::Roster;
use crate::observe::events::{Event, RampStage, Severity, Whose};
use crate::route::ramp::{Cause, Look, Next, Reason};
use crate::run::server::Server;
use crate::run::steering::millis;
use crate::snapshot::ramps::{Sides, Watched};

/// Looks at a ramp in the time of one step.
const LOOKS: u32 = 4;
/// Between two looks.
const SOONEST: Duration = Duration::from_millis(25);
const LATEST: Duration = Duration::from_secs(1);

/// What a look has found out.
struct Found {
    next: Next,
    /// Why it is held since this look.
    held: Option<Reason>,
    /// Whether it is held no longer.
    goes_on: bool,
}

impl Server {
    /// When ramps are to be looked at, while there are any.
    pub(super) fn ramps_due(&self) -> Option<Instant> {
        let active = self.layers.overlay.ramps().filter(|(_, ramp)| ramp.stage.is_active());
        let pause = active.map(|(_, ramp)| (ramp.plan.interval() / LOOKS).clamp(SOONEST, LATEST));
        pause.min().map(|pause| self.ramps_seen + pause)
    }

    /// Looks at each ramp that is under way, and does what comes of it.
    pub(super) async fn look_at_ramps(&mut self) {
        self.ramps_seen = Instant::now();
        let ramps: Vec<_> = self.active_ramps().collect();
        self.live.ramps.retain(|service| ramps.iter().any(|(known, _)| known == service));
        for (service, ramp) in ramps {
            let Found { next, held, goes_on } = self.look(&service, &ramp, self.ramps_seen);
            let at = told(ramp.share());
            if let Some(Reason { cause, text }) = held.filter(|_| !matches!(next, Next::Back(_))) {
                self.tell(&service, &ramp, RampStage::Held { at, cause: cause.label(), why: text });
            } else if goes_on {
                self.tell(&service, &ramp, RampStage::GoesOn { at });
            }
            match next {
                Next::Wait | Next::Renew => {}
                Next::Step => self.step(service, ramp).await,
                Next::Finish => self.settle(service, ramp, Stage::Done, "").await,
                Next::Back(Reason { cause, text }) => {
                    self.roll_back(service, ramp, (cause, &text)).await;
                }
            }
        }
        // Nobody waits for what the fleet hears of it.
        self.sent.clear();
    }

    /// Looks at none this time.
    pub(super) fn pass_over_ramps(&mut self) {
        self.ramps_seen = Instant::now();
    }

    fn active_ramps(&self) -> impl Iterator<Item = (String, Ramp)> {
        let active = self.layers.overlay.ramps().filter(|(_, ramp)| ramp.stage.is_active());
        active.map(|(service, ramp)| (service.to_owned(), ramp.clone()))
    }

    fn look(&self, service: &str, ramp: &Ramp, now: Instant) -> Found {
        let snapshot = self.live.snapshot();
        let is_mine = |it: &&Arc<Roster>| it.service() == service;
        // Those that it would go back to.
        let beneath = self.beneath(service).unwrap_or_default();
        let has_weight = |version: &str| beneath.get(version).is_some_and(|weight| *weight > 0);
        let serves = |is_own: bool| {
            let mine = snapshot.services().iter().map(|it| &it.roster).filter(is_mine);
            let mut side = mine.filter(|it| match it.version() == ramp.version {
                true => is_own,
                false => !is_own && has_weight(it.version()),
            });
            side.any(|it| it.is_served())
        };
        let sides = Sides::of(&snapshot, service, &ramp.version);
        let is_drilled = self.live.rehearsals.name().is_some();
        let fresh = || sides.clone();
        self.live.ramps.look((service, ramp), fresh, now, |watched| {
            let (own, others) = sides.since(&watched.base, ramp.plan.limits.quantile);
            let (is_served, has_refuge) = (serves(true), serves(false));
            let look = Look { now, own, others, is_served, has_refuge, is_drilled };
            found(watched, ramp, &look, &sides)
        })
    }

    async fn step(&mut self, service: String, ramp: Ramp) {
        let (from, step) = (ramp.share(), ramp.step + 1);
        let ramp = Ramp { step, ..ramp };
        let (from, to, version) = (told(from), told(ramp.share()), &*ramp.version);
        tracing::info!(service, version, from, to, step, steps = ramp.plan.steps(), "ramp step");
        let mut overlay = Overlay::clone(&self.layers.overlay);
        overlay.set_ramp(service, ramp);
        self.put(overlay, None).await;
    }

    /// Ends a ramp where it is: what it has come to are the shares from now on.
    async fn settle(&mut self, service: String, mut ramp: Ramp, stage: Stage, why: &str) {
        let at = told(ramp.share());
        let told = match stage {
            Stage::Cancelled => RampStage::Cancelled { at },
            _ => RampStage::Done { at },
        };
        self.tell(&service, &ramp, told);
        let (mut overlay, now) = (Overlay::clone(&self.layers.overlay), millis(SystemTime::now()));
        if let Some(beneath) = self.beneath(&service) {
            let reached = weights(&beneath, &ramp.version, ramp.share());
            let filed = self.filed(&service).and_then(|it| it.split.as_ref());
            let is_filed =
                |it: &BTreeMap<_, _>| filed.is_some_and(|split| split.allocations == *it);
            let reached = reached.filter(|reached| !is_filed(reached));
            let shares = reached.map(|allocations| Shares { allocations, since: now });
            self.share_split(
                &service,
                (overlay.shares(&service).cloned(), &shares),
                SystemTime::now(),
            );
            overlay.set_shares(service.clone(), shares);
        }
        ramp.turn(stage, why, now);
        overlay.set_ramp(service, ramp);
        self.put(overlay, None).await;
    }

    /// Goes back to the shares before a ramp, also of one that is over.
    async fn roll_back(&mut self, service: String, mut ramp: Ramp, (cause, why): (Cause, &str)) {
        let (at, by_itself) = (told(ramp.share()), cause != Cause::Operator);
        let (label, text) = (cause.label(), why.to_owned());
        self.tell(
            &service,
            &ramp,
            RampStage::RolledBack { at, cause: label, why: text, by_itself },
        );
        if let Some(roster) = self.live.snapshot().roster(&service, &ramp.version) {
            roster.tally.ramp_rolled_back(cause);
        }
        let mut overlay = Overlay::clone(&self.layers.overlay);
        if !ramp.stage.is_active() {
            // What was there before may have no place any more.
            let before = overlay.shares(&service).cloned();
            self.share_split(&service, (before, &ramp.shares), SystemTime::now());
            overlay.set_shares(service.clone(), ramp.shares.clone());
            overlay.prune(&self.layers.named());
        }
        ramp.turn(Stage::RolledBack, why, millis(SystemTime::now()));
        overlay.set_ramp(service, ramp);
        self.put(overlay, None).await;
    }

    /// Does what is asked of a ramp.
    pub(super) async fn ramp(&mut self, service: String, wish: RampWish) -> Result<Done, Problem> {
        if let RampWish::Begin { version, plan } = wish {
            let ramp = self.ready_ramp(&service, version, *plan)?;
            self.begin(service, ramp).await;
            return Ok(Done::Ramp);
        }
        let none = || Problem::unknown(format!("{service} has no ramp"));
        let mut ramp = self.layers.overlay.ramp(&service).cloned().ok_or_else(none)?;
        let over = || {
            let stage = ramp.stage.word().replace('_', " ");
            Problem::conflict(format!("the ramp of {} is {stage}: begin another one", ramp.version))
        };
        let is_back = ramp.stage == Stage::RolledBack;
        if is_back || (!ramp.stage.is_active() && wish != RampWish::RollBack) {
            return Err(over());
        }
        match wish {
            RampWish::RollBack => {
                self.roll_back(service, ramp, (Cause::Operator, "somebody asked for it")).await;
            }
            RampWish::Cancel => {
                self.settle(service, ramp, Stage::Cancelled, "somebody asked for it").await;
            }
            RampWish::Pause | RampWish::Resume | RampWish::Begin { .. } => {
                let is_pause = wish == RampWish::Pause;
                let stage = if is_pause { Stage::Paused } else { Stage::Running };
                if ramp.stage != stage {
                    let at = told(ramp.share());
                    let told =
                        if is_pause { RampStage::Paused { at } } else { RampStage::GoesOn { at } };
                    self.tell(&service, &ramp, told);
                    ramp.turn(stage, "", millis(SystemTime::now()));
                    let mut overlay = Overlay::clone(&self.layers.overlay);
                    overlay.set_ramp(service, ramp);
                    self.put(overlay, None).await;
                }
            }
        }
        Ok(Done::Ramp)
    }

    /// A ramp that can begin, or why it can't.
    fn ready_ramp(&self, name: &str, version: String, plan: Plan) -> Result<Ramp, Problem> {
        let service = self.filed(name);
        let service = service.ok_or_else(|| Problem::unknown(format!("no service {name}")))?;
        let filed = service.split.as_ref();
        let filed =
            filed.ok_or_else(|| Problem::unknown(format!("{name} has no traffic_split")))?;
        known(service, &version)?;
        if let Some(other) = self.layers.overlay.ramp(name).filter(|it| it.stage.is_active()) {
            return Err(under_way(name, other));
        }
        let shares = self.layers.overlay.shares(name).cloned();
        let before = shares.as_ref().map_or(&filed.allocations, |it| &it.allocations).clone();
        let share = share_of(&before, &version);
        let plan = Plan { from: if plan.from == 0 { share.max(FIRST) } else { plan.from }, ..plan };
        if plan.from < share {
            let has = told(share);
            let detail = format!("from: {version} has {has} already; allowed: {has} or more");
            return Err(Problem::wrong(detail));
        }
        if plan.to <= plan.from {
            let detail = format!("to: allowed: more than {}, to 100%", told(plan.from));
            return Err(Problem::wrong(detail));
        }
        if !plan.is_sane() || weights(&before, &version, plan.from).is_none() {
            return Err(Problem::wrong(format!("no other version than {version} has a weight")));
        }
        let snapshot = self.live.snapshot();
        if !snapshot.roster(name, &version).is_some_and(|roster| roster.is_served()) {
            let detail = format!("no instance of {name}/{version} can serve: nothing to ramp up");
            return Err(Problem::conflict(detail));
        }
        let (since, why) = (millis(SystemTime::now()), String::new());
        let stage = Stage::Running;
        Ok(Ramp { version, plan, step: 0, stage, why, before, shares, since, changed: since })
    }

    async fn begin(&mut self, service: String, ramp: Ramp) {
        let over = format_duration(Duration::from_millis(ramp.plan.over));
        let (from, to) = (told(ramp.plan.from), told(ramp.plan.to));
        self.tell(&service, &ramp, RampStage::Began { from, to, over });
        let mut overlay = Overlay::clone(&self.layers.overlay);
        overlay.set_ramp(service, ramp);
        self.put(overlay, None).await;
        // Its first window begins now.
        self.look_at_ramps().await;
    }

    /// A ramp goes through what the file says of other things; what it has seen is of another time.
    pub(super) fn reconsider_ramps(&self, before: &Overlay) {
        self.live.ramps.retain(|_| false);
        let active = before.ramps().filter(|(_, ramp)| ramp.stage.is_active());
        for (service, ramp) in active.filter(|(name, _)| self.layers.overlay.ramp(name).is_none()) {
            let why = "the configuration leaves no place for it".to_owned();
            self.tell(service, ramp, RampStage::Forgotten { why });
        }
    }

    fn tell(&self, service: &str, ramp: &Ramp, stage: RampStage) {
        let whose =
            Whose { service: service.to_owned(), version: ramp.version.clone(), instance: None };
        let event = Event::Ramp(whose, stage);
        let (version, text) = (&*ramp.version, event.text());
        match event.severity() {
            Severity::Info => {
                tracing::info!(service, version, what = text, "ramp");
            }
            _ => tracing::warn!(service, version, what = text, "ramp"),
        }
        self.live.journal.note(event);
    }

    /// The weights that a ramp of the service lies over.
    fn beneath(&self, name: &str) -> Option<BTreeMap<String, u32>> {
        let shares = self.layers.overlay.shares(name).map(|shares| &shares.allocations);
        let filed = || Some(&self.filed(name)?.split.as_ref()?.allocations);
        shares.or_else(filed).cloned()
    }

    fn filed(&self, name: &str) -> Option<&Service> {
        self.layers.filed.services.iter().find(|service| service.name == name)
    }
}

/// Looks at a ramp, and begins another window where one is over.
fn found(watched: &mut Watched, ramp: &Ramp, look: &Look, sides: &Sides) -> Found {
    let news = |watched: &Watched| watched.watch.held().filter(|it| it.cause.is_news()).cloned();
    let before = news(watched);
    let is_paused = ramp.stage == Stage::Paused;
    let next = watched.watch.look(&ramp.plan, (ramp.step, is_paused), look);
    if matches!(next, Next::Renew | Next::Step) {
        watched.watch.renew(look.now);
        watched.base = sides.clone();
    }
    let goes_on = before.is_some() && watched.watch.held().is_none();
    let is_new = |after: &Reason| before.as_ref().is_none_or(|before| before.cause != after.cause);
    Found { next, held: news(watched).filter(is_new), goes_on }
}

/// What a version begins with that has nothing yet, in basis points.
const FIRST: u32 = 100;

/// Its share, in basis points, rounded up.
fn share_of(weights: &BTreeMap<String, u32>, version: &str) -> u32 {
    let all: u64 = weights.values().copied().map(u64::from).sum();
    let own = u64::from(weights.get(version).copied().unwrap_or_default());
    let points = (own * u64::from(WHOLE)).div_ceil(all.max(1));
    u32::try_from(points).unwrap_or(WHOLE)
}

fn told(points: u32) -> String {
    format_percent(points)
}

/// Whether the service has this version.
pub(super) fn known(service: &Service, version: &str) -> Result<(), Problem> {
    if service.version(version).is_some() {
        return Ok(());
    }
    let known: Vec<_> = service.versions.iter().map(|version| &*version.name).collect();
    let (unknown, known) = (version.chars().take(200).collect::<String>(), known.join(", "));
    Err(Problem::wrong(format!("no version {unknown}; there are {known}")))
}

/// Whoever wants other shares has to end it first.
pub(super) fn under_way(service: &str, ramp: &Ramp) -> Problem {
    let (version, share) = (&ramp.version, told(ramp.share()));
    Problem::conflict(format!(
        "a ramp of {version} is under way, at {share}; first `burdock ramp {service} --cancel`, which keeps the \
         shares, or `--roll-back`, which takes them back"
    ))
}
