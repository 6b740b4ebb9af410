//! `/api/v1/instances`: one instance, how to steer it, to add one and to remove it again.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{Method, StatusCode};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Number, Value};

use crate::admin::desk::{Desk, Done, Order, Wish};
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::shapes;
use crate::config;
use crate::config::overlay::{Key, MAX_WEIGHT};
use crate::config::types::State;
use crate::health::Membership;
use crate::instance::Instance;

/// A drain may take this long.
const LONGEST_DRAIN: Duration = Duration::from_secs(7 * 24 * 3600);
/// Names that are told to whoever asked for another.
const NAMES_TOLD: usize = 10;

/// What `PATCH` may bring. An unknown field is a mistake that would pass for a change.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default, deserialize_with = "given")]
    state: Option<Option<String>>,
    #[serde(default)]
    deadline: Option<String>,
    #[serde(default, deserialize_with = "given")]
    weight: Option<Option<Number>>,
}

/// What `POST` must bring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    name: String,
    address: String,
    #[serde(default = "one_share")]
    weight: Number,
}

fn one_share() -> Number {
    1.into()
}

/// A field that is there, be it null.
fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Some)
}

/// `POST /instances/SERVICE/VERSION`
pub(super) async fn add(
    desk: &Desk,
    (service, version): (&str, &str),
    question: &Question,
) -> Result<Reply, Problem> {
    known_version(desk, service, version)?;
    let New { name, address, weight } = body(question)?;
    // `.` and `..` in a path mean something else, however they are written.
    if !config::is_name(&name) || name.starts_with('.') {
        let allowed = "1 to 63 letters, digits and . _ - : [ ], not beginning with .";
        return Err(Problem::wrong(format!("name: allowed: {allowed}")));
    }
    if !config::is_address(&address) {
        return Err(Problem::wrong("address: allowed: IP:PORT, [IPv6]:PORT or HOST:PORT"));
    }
    let weight = checked(&weight)?;
    let key = key(service, version, &name);
    let done = desk.ask(Order::Add { key: key.clone(), address, weight }).await?;
    let warning = done.warning();
    let status = match done {
        Done::Steered { is_new: true, .. } => StatusCode::CREATED,
        _ => StatusCode::OK,
    };
    shown(desk, &key, status, warning)
}

/// `/instances/SERVICE/VERSION/NAME`
pub(super) async fn one(
    desk: &Desk,
    (service, version, name): (&str, &str, &str),
    question: &Question,
) -> Result<Reply, Problem> {
    let key = key(service, version, name);
    find(desk, &key)?;
    match question.method {
        Method::PATCH => {
            let wish = wish(body(question)?)?;
            let done = desk.ask(Order::Steer { key: key.clone(), wish }).await?;
            shown(desk, &key, StatusCode::OK, done.warning())
        }
        Method::DELETE => {
            let deadline = question.query.one("deadline")?.map(drain).transpose()?;
            // Held while it goes, so that there is something to show of one that is gone at once.
            let instance = find(desk, &key)?;
            let done = desk.ask(Order::Remove { key, deadline }).await?;
            Ok(show(&instance, StatusCode::ACCEPTED, done.warning()))
        }
        _ => shown(desk, &key, StatusCode::OK, None),
    }
}

fn wish(patch: Patch) -> Result<Wish, Problem> {
    let state = |word: String| {
        let known = State::WORDS.iter().find(|(known, _)| *known == word);
        let wrong = || Problem::wrong("state: allowed: active, draining, disabled, null");
        known.map(|(_, state)| *state).ok_or_else(wrong)
    };
    let state = patch.state.map(|word| word.map(state).transpose()).transpose()?;
    let weight = patch.weight.map(|weight| weight.as_ref().map(checked).transpose()).transpose()?;
    let deadline = patch.deadline.as_deref().map(drain).transpose()?;
    if deadline.is_some() && state.is_some_and(|state| state != Some(State::Draining)) {
        return Err(Problem::wrong("deadline: allowed beside the state draining only"));
    }
    Ok(Wish { state, deadline, weight })
}

/// A whole number in JSON may be written `2.0`.
fn checked(weight: &Number) -> Result<u32, Problem> {
    let in_range = |weight: &u32| *weight <= MAX_WEIGHT;
    let whole = weight.as_u64().and_then(|it| u32::try_from(it).ok());
    let found = whole.or_else(|| {
        let float = weight.as_f64().filter(|it| it.fract() == 0.0)?;
        (0..=MAX_WEIGHT).find(|known| f64::from(*known) == float)
    });
    let wrong = || Problem::wrong(format!("weight: allowed: 0 to {MAX_WEIGHT}"));
    found.filter(in_range).ok_or_else(wrong)
}

fn drain(text: &str) -> Result<Duration, Problem> {
    let wrong = || Problem::wrong("deadline: allowed: a duration from 0s to 7d, such as 30s");
    config::duration(text).filter(|it| *it <= LONGEST_DRAIN).ok_or_else(wrong)
}

pub(super) fn body<T: DeserializeOwned>(question: &Question) -> Result<T, Problem> {
    // Twice, so that text that is no JSON and JSON that is no such thing are told apart.
    let value: Value = serde_json::from_slice(&question.body).map_err(|error| {
        Problem::new(StatusCode::BAD_REQUEST, format!("the body is no JSON: {error}"))
    })?;
    if !value.is_object() {
        return Err(Problem::wrong("the body is no JSON object"));
    }
    serde_json::from_value(value).map_err(|error| Problem::wrong(error.to_string()))
}

/// Who an instance is.
pub(super) fn key(service: &str, version: &str, name: &str) -> Key {
    Key { service: service.to_owned(), version: version.to_owned(), name: name.to_owned() }
}

/// An instance, and what is to be known of what was asked.
#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    instance: shapes::Instance,
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

fn shown(
    desk: &Desk,
    key: &Key,
    status: StatusCode,
    warning: Option<String>,
) -> Result<Reply, Problem> {
    let instance = find(desk, key)?;
    Ok(show(&instance, status, warning))
}

fn show(instance: &Instance, status: StatusCode, warning: Option<String>) -> Reply {
    let instance = shapes::Instance::of(instance, Instant::now());
    reply::json(status, &Shown { instance, warning })
}

/// The instance of this name: of several the one that has its sessions.
pub(super) fn find(desk: &Desk, key: &Key) -> Result<Arc<Instance>, Problem> {
    known_version(desk, &key.service, &key.version)?;
    let snapshot = desk.live.snapshot();
    let roster = snapshot.roster(&key.service, &key.version);
    let members = roster.map(|roster| roster.members());
    let all = members.as_ref().map_or(&[][..], |members| members.all());
    let mut named = all.iter().filter(|instance| instance.identity().name == key.name);
    named.find(|instance| instance.membership() != Membership::Gone).cloned().ok_or_else(|| {
        let mut names: Vec<_> =
            all.iter().take(NAMES_TOLD).map(|it| it.identity().name.as_str()).collect();
        if all.len() > NAMES_TOLD {
            names.push("others");
        }
        Problem::unknown(format!("no instance {}; there are {}", told(key), names.join(", ")))
    })
}

pub(super) fn known_version(desk: &Desk, service: &str, version: &str) -> Result<(), Problem> {
    let snapshot = desk.live.snapshot();
    if snapshot.roster(service, version).is_some() {
        return Ok(());
    }
    let of =
        |it: &crate::snapshot::Service| format!("{}/{}", it.roster.service(), it.roster.version());
    let known: Vec<_> = snapshot.services().iter().take(NAMES_TOLD).map(of).collect();
    let asked = told(&key(service, version, ""));
    let asked = asked.trim_end_matches('/');
    Err(Problem::unknown(format!("no version {asked}; there are {}", known.join(", "))))
}

/// What was asked for, no longer than a line.
fn told(key: &Key) -> String {
    key.to_string().chars().take(200).collect()
}
