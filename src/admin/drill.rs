//! `/api/v1/drill`: the drill on this balancer, its faults, and the sign of life of whoever holds it.
//! What may be and when it must end is for [`crate::rehearsal`] to say.

use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::header::{HeaderName, HeaderValue};
use http::{Method, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::admin::desk::Desk;
use crate::admin::instances::{body, find, key, known_version};
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::shapes::instant;
use crate::config;
use crate::health::Health;
use crate::instance::Roster;
use crate::instance::disturbance::{Disturbance, Effect, Mark};
use crate::rehearsal::fault::{Deed, Fault};
use crate::rehearsal::guard::{self, Refusal};
use crate::rehearsal::{End, Last, Least, Running, Terms};

const LONGEST: Duration = Duration::from_secs(3600);
const DURATIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;
const LEASES: RangeInclusive<Duration> = Duration::from_millis(500)..=Duration::from_secs(60);
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);
const DRAINS: RangeInclusive<Duration> = Duration::ZERO..=LONGEST;
/// Of a name or a verdict, in characters.
const LONGEST_WORDS: usize = 100;
/// Instances that one fault may hit.
const MOST_INSTANCES: usize = 1000;
const ALL: u32 = 10_000;

/// What begins a drill.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    #[serde(default = "nobody")]
    holder: String,
    #[serde(default = "one")]
    min_healthy: Value,
    max_duration: String,
    #[serde(default = "five_seconds")]
    lease: String,
    /// Versions that are guarded from the beginning, and not only when a fault touches them.
    #[serde(default)]
    versions: Vec<String>,
}

fn nobody() -> String {
    "somebody".to_owned()
}

fn one() -> Value {
    1.into()
}

fn five_seconds() -> String {
    "5s".to_owned()
}

/// What injects a fault.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    kind: String,
    instances: Vec<String>,
    r#as: Option<String>,
    deadline: Option<String>,
    by: Option<String>,
    status: Option<u16>,
    share: Option<String>,
    header: Option<String>,
    value: Option<String>,
}

/// `/drill`
pub(super) fn current(desk: &Desk, question: &Question) -> Result<Reply, Problem> {
    match question.method {
        Method::POST => {
            let new: New = body(question)?;
            let touched = touched(desk, &new.versions)?;
            let id = guard::begin(&desk.live, terms(&new)?, touched).map_err(refused)?;
            let mut told = shown(desk);
            told["id"] = id.into();
            Ok(reply::json(StatusCode::CREATED, &told))
        }
        Method::DELETE => match guard::abort(&desk.live, "somebody ended it by the admin API") {
            true => Ok(reply::json(StatusCode::OK, &shown(desk))),
            false => Err(Problem::unknown("no drill runs here")),
        },
        _ => Ok(reply::json(StatusCode::OK, &shown(desk))),
    }
}

/// `DELETE /drill/ID`
pub(super) fn end(desk: &Desk, id: &str, question: &Question) -> Result<Reply, Problem> {
    let verdict = question.query.one("verdict")?.unwrap_or("no verdict");
    guard::end(&desk.live, id, words("verdict", verdict)?).map_err(refused)?;
    Ok(reply::json(StatusCode::OK, &shown(desk)))
}

/// `POST /drill/ID/heartbeat`
pub(super) fn hear(desk: &Desk, id: &str) -> Result<Reply, Problem> {
    guard::hear(&desk.live, id).map_err(refused)?;
    Ok(reply::json(StatusCode::OK, &shown(desk)))
}

/// `POST /drill/ID/faults`
pub(super) fn inject(desk: &Desk, id: &str, question: &Question) -> Result<Reply, Problem> {
    let asked: Asked = body(question)?;
    if asked.instances.is_empty() || asked.instances.len() > MOST_INSTANCES {
        let allowed = format!("instances: allowed: 1 to {MOST_INSTANCES} ids");
        return Err(Problem::wrong(allowed));
    }
    let mut instances = Vec::with_capacity(asked.instances.len());
    for name in &asked.instances {
        let mut parts = name.splitn(3, '/');
        let (Some(service), Some(version), Some(name)) = (parts.next(), parts.next(), parts.next())
        else {
            return Err(Problem::wrong("instances: allowed: SERVICE/VERSION/NAME each"));
        };
        let instance = find(desk, &key(service, version, name))?;
        if !instances.iter().any(|known| Arc::ptr_eq(known, &instance)) {
            instances.push(instance);
        }
    }
    let number = guard::inject(&desk.live, id, deed(&asked)?, instances).map_err(refused)?;
    Ok(reply::json(StatusCode::CREATED, &json!({ "number": number })))
}

/// `DELETE /drill/ID/faults/NUMBER`
pub(super) fn undo(desk: &Desk, id: &str, number: &str) -> Result<Reply, Problem> {
    let number = number.parse().map_err(|_| Problem::unknown("a fault has a number"))?;
    guard::undo(&desk.live, id, number).map_err(refused)?;
    Ok(reply::json(StatusCode::OK, &shown(desk)))
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::Unknown(why) => Problem::unknown(why),
        Refusal::Over(why) => Problem::new(StatusCode::GONE, why),
        Refusal::Conflict(why) => Problem::conflict(why),
    }
}

fn touched(desk: &Desk, versions: &[String]) -> Result<Vec<Arc<Roster>>, Problem> {
    let snapshot = desk.live.snapshot();
    let of = |version: &String| {
        let (service, version) = version
            .split_once('/')
            .ok_or_else(|| Problem::wrong("versions: allowed: SERVICE/VERSION each"))?;
        known_version(desk, service, version)?;
        Ok(snapshot.roster(service, version).map(Arc::clone))
    };
    versions.iter().filter_map(|version| of(version).transpose()).collect()
}

fn terms(new: &New) -> Result<Terms, Problem> {
    let wrong = || Problem::wrong("min_healthy: allowed: a whole number, or a share such as 50%");
    let min_healthy = match &new.min_healthy {
        Value::String(text) => Least::Share(config::percent(text).ok_or_else(wrong)?),
        number => {
            let count = number.as_u64().and_then(|count| u32::try_from(count).ok());
            Least::Count(count.ok_or_else(wrong)?)
        }
    };
    Ok(Terms {
        name: words("name", &new.name)?,
        holder: words("holder", &new.holder)?,
        min_healthy,
        max_duration: duration("max_duration", &new.max_duration, DURATIONS)?,
        lease: duration("lease", &new.lease, LEASES)?,
    })
}

/// What goes into logs, metrics and pages.
fn words(field: &str, text: &str) -> Result<String, Problem> {
    let is_fine = !text.trim().is_empty()
        && text.chars().count() <= LONGEST_WORDS
        && !text.chars().any(char::is_control);
    let allowed = || format!("{field}: allowed: 1 to {LONGEST_WORDS} characters in one line");
    is_fine.then(|| text.to_owned()).ok_or_else(|| Problem::wrong(allowed()))
}

fn duration(field: &str, text: &str, range: RangeInclusive<Duration>) -> Result<Duration, Problem> {
    let told = |duration: &Duration| humantime::format_duration(*duration).to_string();
    let allowed = || {
        let (from, to) = (told(range.start()), told(range.end()));
        Problem::wrong(format!("{field}: allowed: a duration from {from} to {to}"))
    };
    config::duration(text).filter(|it| range.contains(it)).ok_or_else(allowed)
}

fn deed(asked: &Asked) -> Result<Deed, Problem> {
    let needed = |field: &str| Problem::wrong(format!("{field}: needed with {}", asked.kind));
    let only = |fields: &[(&str, bool)]| {
        let stray = fields.iter().find(|(_, is_there)| *is_there);
        stray.map_or(Ok(()), |(field, _)| {
            Err(Problem::wrong(format!("{field}: not allowed with {}", asked.kind)))
        })
    };
    let r#as = ("as", asked.r#as.is_some());
    let (deadline, by) = (("deadline", asked.deadline.is_some()), ("by", asked.by.is_some()));
    let status = ("status", asked.status.is_some());
    let of_requests = [
        ("share", asked.share.is_some()),
        ("header", asked.header.is_some()),
        ("value", asked.value.is_some()),
    ];
    match &*asked.kind {
        "eject" => {
            only(&[&[deadline, by, status][..], &of_requests].concat())?;
            match asked.r#as.as_deref() {
                None | Some("unready") => Ok(Deed::Eject(Health::Unready)),
                Some("dead") => Ok(Deed::Eject(Health::Dead)),
                Some(_) => Err(Problem::wrong("as: allowed: unready, dead")),
            }
        }
        "drain" => {
            only(&[&[r#as, by, status][..], &of_requests].concat())?;
            let deadline = asked.deadline.as_deref();
            let deadline = deadline.map(|text| duration("deadline", text, DRAINS)).transpose()?;
            Ok(Deed::Drain(deadline))
        }
        "disable" => {
            only(&[&[r#as, deadline, by, status][..], &of_requests].concat())?;
            Ok(Deed::Disable)
        }
        "delay" => {
            only(&[r#as, deadline, status])?;
            let by = asked.by.as_deref().ok_or_else(|| needed("by"))?;
            disturb(asked, Effect::Delay(duration("by", by, DELAYS)?))
        }
        "abort" => {
            only(&[r#as, deadline, by])?;
            let status = asked.status.ok_or_else(|| needed("status"))?;
            let status = StatusCode::from_u16(status).ok().filter(|it| it.as_u16() >= 400);
            let wrong = || Problem::wrong("status: allowed: 400 to 599");
            let status = status.filter(|it| it.as_u16() < 600).ok_or_else(wrong)?;
            disturb(asked, Effect::Abort(status))
        }
        _ => Err(Problem::wrong("kind: allowed: eject, drain, disable, delay, abort")),
    }
}

fn disturb(asked: &Asked, effect: Effect) -> Result<Deed, Problem> {
    let share = match asked.share.as_deref() {
        None => ALL,
        Some(text) => config::percent(text)
            .ok_or_else(|| Problem::wrong("share: allowed: a share from 0% to 100%"))?,
    };
    let name = asked.header.as_deref().map(|name| {
        let wrong = |_| Problem::wrong("header: allowed: the name of a field");
        HeaderName::try_from(name).map_err(wrong)
    });
    let value = asked.value.as_deref().map(|value| {
        let wrong = |_| Problem::wrong("value: allowed: what a field may hold");
        HeaderValue::try_from(value).map_err(wrong)
    });
    let mark = match (name.transpose()?, value.transpose()?) {
        (None, None) => None,
        (None, Some(_)) => return Err(Problem::wrong("value: allowed beside header only")),
        (Some(name), value) => Some(Mark { name, value }),
    };
    Ok(Deed::Disturb(Arc::new(Disturbance::new(effect, share, mark))))
}

/// The drill that runs and the last one, as far as there are any.
fn shown(desk: &Desk) -> Value {
    desk.live.rehearsals.look(|running, last| {
        json!({ "running": running.map(self::running), "last": last.map(self::last) })
    })
}

/// The drill that runs.
pub(super) fn running(it: &Running) -> Value {
    let Terms { name, holder, min_healthy, max_duration, lease } = &it.terms;
    let elapsed = Instant::now().saturating_duration_since(it.began);
    json!({
        "id": it.id,
        "name": name,
        "holder": holder,
        "started": instant(it.started),
        "elapsed_seconds": elapsed.as_secs_f64(),
        "min_healthy": min_healthy.to_string(),
        "max_duration_seconds": max_duration.as_secs_f64(),
        "lease_seconds": lease.as_secs_f64(),
        "faults_total": it.injected,
        "faults": it.faults.iter().map(fault).collect::<Vec<_>>(),
    })
}

fn fault(it: &Fault) -> Value {
    let struck = match &it.deed {
        Deed::Disturb(disturbance) => Some(disturbance.struck()),
        Deed::Eject(_) | Deed::Drain(_) | Deed::Disable => None,
    };
    json!({
        "number": it.number,
        "kind": it.deed.kind().label(),
        "detail": it.deed.detail(),
        "instances": it.names(),
        "since": instant(it.began),
        "requests_struck": struck,
    })
}

fn last(it: &Last) -> Value {
    let (ended_by, told) = match &it.end {
        End::Told(verdict) => ("holder", verdict),
        End::Aborted(reason) => ("balancer", reason),
    };
    json!({
        "id": it.id,
        "name": it.name,
        "started": instant(it.started),
        "ended": instant(it.ended),
        "faults_total": it.injected,
        "ended_by": ended_by,
        "verdict": told,
    })
}
