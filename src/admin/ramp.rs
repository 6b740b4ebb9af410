//! `/api/v1/services/SERVICE/ramp`: how the share of a version grows, to let it, and to end that.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::admin::desk::{Desk, Order, RampWish};
use crate::admin::instances;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::shapes::instant;
use crate::config;
use crate::config::overlay::{
    Limits, MIN_REQUESTS, OVER, Plan, QUANTILE, Ramp, SLOWEST, Slow, Stage, TIMES, WHOLE,
};
use crate::config::types::SHARE_UNIT;
use crate::config::units::format_duration;
use crate::route::ramp::{Cause, Seen};
use crate::snapshot::Snapshot;
use crate::snapshot::ramps::Sides;

/// What `POST` must bring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    version: String,
    from: Option<String>,
    to: String,
    over: String,
    hold_on_errors: Option<String>,
    roll_back_on_errors: Option<String>,
    hold_on_latency: Option<String>,
    roll_back_on_latency: Option<String>,
    latency_quantile: Option<String>,
    min_requests: Option<Number>,
}

/// What `PATCH` must bring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    stage: String,
}

/// A ramp; shares are from 0 to 1.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    service: String,
    version: String,
    stage: &'static str,
    reason: Option<String>,
    share: f64,
    from: f64,
    to: f64,
    over: String,
    step: u32,
    steps: u32,
    interval_seconds: f64,
    /// Until it is done, if nothing holds it.
    left_seconds: Option<f64>,
    hold_on_errors: Option<f64>,
    roll_back_on_errors: Option<f64>,
    hold_on_latency: Option<String>,
    roll_back_on_latency: Option<String>,
    latency_quantile: f64,
    min_requests: u64,
    before: BTreeMap<String, f64>,
    began: String,
    since: String,
    /// Since the last step, while it is under way.
    seen: Option<Both>,
}

#[derive(Debug, Serialize)]
struct Both {
    version: Told,
    others: Told,
}

#[derive(Debug, Serialize)]
struct Told {
    requests: u64,
    errors: u64,
    latency_seconds: Option<f64>,
}

impl From<Seen> for Told {
    fn from(seen: Seen) -> Self {
        Self {
            requests: seen.requests,
            errors: seen.faults,
            latency_seconds: seen.latency.map(|latency| latency.as_secs_f64()),
        }
    }
}

pub(super) async fn answer(desk: &Desk, name: &str, question: &Question) -> Result<Reply, Problem> {
    let snapshot = desk.live.snapshot();
    let service = snapshot.config.services.iter().find(|service| service.name == name);
    let unknown =
        || Problem::unknown(format!("no service {}", name.chars().take(200).collect::<String>()));
    if service.ok_or_else(unknown)?.split.is_none() {
        return Err(Problem::unknown(format!("{name} has no traffic_split")));
    }
    let (wish, status) = match question.method {
        Method::POST => {
            let wanted: Wanted = instances::body(question)?;
            let plan = Box::new(plan(&wanted)?);
            (RampWish::Begin { version: wanted.version, plan }, StatusCode::CREATED)
        }
        Method::PATCH => (wish(&instances::body::<Patch>(question)?.stage)?, StatusCode::OK),
        _ => return Ok(reply::json(StatusCode::OK, &shown(desk, name)?)),
    };
    desk.ask(Order::Ramp { service: name.to_owned(), wish }).await?;
    Ok(reply::json(status, &shown(desk, name)?))
}

fn wish(stage: &str) -> Result<RampWish, Problem> {
    match stage {
        "running" => Ok(RampWish::Resume),
        "paused" => Ok(RampWish::Pause),
        "cancelled" => Ok(RampWish::Cancel),
        "rolled_back" => Ok(RampWish::RollBack),
        _ => Err(Problem::wrong("stage: allowed: running, paused, cancelled, rolled_back")),
    }
}

fn plan(wanted: &Wanted) -> Result<Plan, Problem> {
    let default = Limits::default();
    let errors = |name, text: &Option<String>, default| match text.as_deref() {
        None => Ok(default),
        Some("off") => Ok(None),
        Some(text) => share(name, text).map(Some),
    };
    let latency = |name, text: &Option<String>| match text.as_deref() {
        None | Some("off") => Ok(None),
        Some(text) => slow(name, text).map(Some),
    };
    let (hold, back) = (&wanted.hold_on_errors, &wanted.roll_back_on_errors);
    let limits = Limits {
        hold_errors: errors("hold_on_errors", hold, default.hold_errors)?,
        back_errors: errors("roll_back_on_errors", back, default.back_errors)?,
        hold_latency: latency("hold_on_latency", &wanted.hold_on_latency)?,
        back_latency: latency("roll_back_on_latency", &wanted.roll_back_on_latency)?,
        quantile: quantile(wanted.latency_quantile.as_deref(), default.quantile)?,
        min_requests: requests(wanted.min_requests.as_ref(), default.min_requests)?,
    };
    // What holds must come first: beyond the other limit there is nothing to hold.
    let (hold, back) = (limits.hold_errors, limits.back_errors);
    if hold.zip(back).is_some_and(|(hold, back)| hold > back) {
        return Err(Problem::wrong("hold_on_errors: allowed: no more than roll_back_on_errors"));
    }
    // Nothing is what the version has, which is not known here.
    let from = wanted.from.as_deref().map_or(Ok(0), |text| share("from", text))?;
    Ok(Plan { from, to: share("to", &wanted.to)?, over: over(&wanted.over)?, limits })
}

/// In basis points.
fn share(name: &str, text: &str) -> Result<u32, Problem> {
    let wrong =
        || Problem::wrong(format!("{name}: allowed: a percentage from 0.01% to 100%, such as 5%"));
    config::percent(text).filter(|points| (1..=WHOLE).contains(points)).ok_or_else(wrong)
}

fn over(text: &str) -> Result<u64, Problem> {
    let wrong = || Problem::wrong("over: allowed: a duration from 1s to 7d, such as 30m");
    let over = config::duration(text).filter(|over| (OVER.0..=OVER.1).contains(over));
    over.and_then(|over| u64::try_from(over.as_millis()).ok()).ok_or_else(wrong)
}

/// `1.5x` or `800ms`.
fn slow(name: &str, text: &str) -> Result<Slow, Problem> {
    let times = text.strip_suffix('x').and_then(|number| {
        // As a percentage is read, to two decimals.
        let hundredths = config::hundredths(number)?;
        (TIMES.0..=TIMES.1).contains(&hundredths).then_some(Slow::Times(hundredths))
    });
    let time = || {
        let limit = config::duration(text)
            .filter(|it| (Duration::from_millis(1)..=SLOWEST).contains(it))?;
        u64::try_from(limit.as_millis()).ok().map(Slow::Millis)
    };
    let wrong = || {
        Problem::wrong(format!(
            "{name}: allowed: how many times the other versions' latency, from 1.01x to 100x, such as 1.5x; or a \
             duration from 1ms to 1m; or off"
        ))
    };
    times.or_else(time).ok_or_else(wrong)
}

fn quantile(text: Option<&str>, default: u32) -> Result<u32, Problem> {
    let wrong = || Problem::wrong("latency_quantile: allowed: a percentage from 50% to 99.9%");
    let Some(text) = text else { return Ok(default) };
    let points = config::percent(text);
    points.filter(|points| (QUANTILE.0..=QUANTILE.1).contains(points)).ok_or_else(wrong)
}

fn requests(number: Option<&Number>, default: u64) -> Result<u64, Problem> {
    let (least, most) = MIN_REQUESTS;
    let wrong = || Problem::wrong(format!("min_requests: allowed: {least} to {most}"));
    let Some(number) = number else { return Ok(default) };
    // A whole number in JSON may be written `2.0`.
    let whole = number.as_u64().or_else(|| {
        let float = number.as_f64().filter(|it| it.fract() == 0.0 && *it >= 0.0)?;
        (float <= most as f64).then_some(float as u64)
    });
    whole.filter(|number| (least..=most).contains(number)).ok_or_else(wrong)
}

fn shown(desk: &Desk, name: &str) -> Result<Shown, Problem> {
    let snapshot = desk.live.snapshot();
    let none = || Problem::unknown(format!("{name} has no ramp"));
    of(desk, &snapshot, name).ok_or_else(none)
}

/// The ramp of a service.
pub(super) fn of(desk: &Desk, snapshot: &Snapshot, name: &str) -> Option<Shown> {
    let ramp = snapshot.overlay.ramp(name)?;
    let Ramp { version, plan, before, .. } = ramp;
    let limits = &plan.limits;
    let (mut seen, mut held) = (None, None);
    if ramp.stage.is_active() {
        let sides = || Sides::of(snapshot, name, version);
        let looked = desk.live.ramps.peek(name, ramp, |watched| {
            let (own, others) = sides().since(&watched.base, limits.quantile);
            let held = watched.watch.held().map(|reason| (reason.cause, reason.text.clone()));
            (Both { version: own.into(), others: others.into() }, held)
        });
        (seen, held) = looked.map_or((None, None), |(seen, held)| (Some(seen), held));
    }
    let service = snapshot.config.services.iter().find(|service| service.name == name)?;
    let steps = plan.steps();
    let left = plan.interval() * (steps + 1).saturating_sub(ramp.step);
    let at = |millis| instant(UNIX_EPOCH + Duration::from_millis(millis));
    let unit = f64::from(SHARE_UNIT);
    Some(Shown {
        service: name.to_owned(),
        version: version.clone(),
        stage: stage(ramp.stage, held.as_ref().map(|(cause, _)| *cause)),
        reason: held
            .map(|(_, text)| text)
            .or_else(|| Some(ramp.why.clone()))
            .filter(|it| !it.is_empty()),
        share: service.share(version),
        from: parts(plan.from),
        to: parts(plan.to),
        over: format_duration(Duration::from_millis(plan.over)),
        step: ramp.step,
        steps,
        interval_seconds: plan.interval().as_secs_f64(),
        left_seconds: ramp.stage.is_active().then_some(left.as_secs_f64()),
        hold_on_errors: limits.hold_errors.map(parts),
        roll_back_on_errors: limits.back_errors.map(parts),
        hold_on_latency: limits.hold_latency.map(told),
        roll_back_on_latency: limits.back_latency.map(told),
        latency_quantile: parts(limits.quantile),
        min_requests: limits.min_requests,
        before: before
            .iter()
            .map(|(name, weight)| (name.clone(), f64::from(*weight) / unit))
            .collect(),
        began: at(ramp.since),
        since: at(ramp.changed),
        seen,
    })
}

/// The words for how a ramp stands, in the order of the metric's rows.
pub(super) const STAGES: [&str; 6] =
    ["running", "held", "paused", "done", "cancelled", "rolled_back"];

/// How it stands, in a word.
pub(super) fn stage(stage: Stage, held: Option<Cause>) -> &'static str {
    match (stage, held) {
        (Stage::Running, Some(_)) => "held",
        (stage, _) => stage.word(),
    }
}

fn parts(points: u32) -> f64 {
    f64::from(points) / f64::from(WHOLE)
}

fn told(limit: Slow) -> String {
    match limit {
        Slow::Times(hundredths) => format!("{}x", f64::from(hundredths) / 100.0),
        Slow::Millis(millis) => format_duration(Duration::from_millis(millis)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_a_multiple_or_a_time() {
        for (text, expected) in [
            ("1.5x", Some(Slow::Times(150))),
            ("100x", Some(Slow::Times(10_000))),
            ("1x", None),
            ("101x", None),
            ("1.555x", None),
            ("x", None),
            ("-2x", None),
            ("800ms", Some(Slow::Millis(800))),
            ("1.5s", Some(Slow::Millis(1500))),
            ("2m", None),
            ("0s", None),
            ("5", None),
        ] {
            assert_eq!(slow("a", text).ok(), expected, "{text}");
            if let Some(limit) = expected {
                assert_eq!(slow("a", &told(limit)).ok(), Some(limit), "{text}");
            }
        }
    }

    #[test]
    fn what_is_not_said_has_a_default() {
        let read = |text: &str| plan(&serde_json::from_str(text).unwrap());
        let plain = read(r#"{ "version": "v2", "to": "50%", "over": "30m" }"#).unwrap();
        let expected = Plan { from: 0, to: 5000, over: 1_800_000, limits: Limits::default() };
        assert_eq!(plain, expected);
        let off = r#"{ "version": "v2", "to": "50%", "over": "30m", "hold_on_errors": "off",
            "roll_back_on_errors": "off", "roll_back_on_latency": "2x", "min_requests": 5.0 }"#;
        let limits = read(off).unwrap().limits;
        assert_eq!((limits.hold_errors, limits.back_errors, limits.min_requests), (None, None, 5));
        assert_eq!(limits.back_latency, Some(Slow::Times(200)));
        for wrong in [
            r#""to": "101%", "over": "30m""#,
            r#""to": "0%", "over": "30m""#,
            r#""to": "50", "over": "30m""#,
            r#""to": "50%", "over": "8d""#,
            r#""to": "50%", "over": "30""#,
            r#""to": "50%", "over": "30m", "min_requests": 0"#,
            r#""to": "50%", "over": "30m", "min_requests": 1.5"#,
            r#""to": "50%", "over": "30m", "latency_quantile": "40%""#,
            r#""to": "50%", "over": "30m", "hold_on_errors": "6%""#,
        ] {
            assert!(read(&format!(r#"{{ "version": "v2", {wrong} }}"#)).is_err(), "{wrong}");
        }
    }
}
