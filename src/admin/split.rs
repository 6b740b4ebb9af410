//! `/api/v1/services/SERVICE/split`: how requests are shared among the versions of a service, and to share
//! them otherwise.

use std::collections::BTreeMap;

use http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Number;

use crate::admin::desk::{Desk, Order};
use crate::admin::instances;
use crate::admin::problem::Problem;
use crate::admin::reply::{self, Reply};
use crate::admin::router::Question;
use crate::admin::shapes::TrafficSplit;
use crate::config::types::SHARE_UNIT;

/// What `PUT` must bring.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Wanted {
    allocations: BTreeMap<String, Number>,
}

#[derive(Serialize)]
struct Shown {
    service: String,
    #[serde(flatten)]
    split: TrafficSplit,
    /// `file` or `api`.
    source: &'static str,
    /// From 0 to 1.
    shares: BTreeMap<String, f64>,
    /// What is to be known of what was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    warning: Option<String>,
}

pub(super) async fn answer(
    desk: &Desk,
    service: &str,
    question: &Question,
) -> Result<Reply, Problem> {
    shown(desk, service)?;
    let allocations = match question.method {
        Method::PUT => {
            let Wanted { allocations } = instances::body(question)?;
            let weight = |(name, weight): (String, Number)| Ok((name, parts(&weight)?));
            Some(allocations.into_iter().map(weight).collect::<Result<_, Problem>>()?)
        }
        Method::DELETE => None,
        _ => return Ok(reply::json(StatusCode::OK, &shown(desk, service)?)),
    };
    let done = desk.ask(Order::Split { service: service.to_owned(), allocations }).await?;
    let told = Shown { warning: done.warning(), ..shown(desk, service)? };
    Ok(reply::json(StatusCode::OK, &told))
}

/// In ten-thousandths.
fn parts(weight: &Number) -> Result<u32, Problem> {
    let unit = f64::from(SHARE_UNIT);
    let parts = weight.as_f64().map(|weight| weight * unit);
    let fits = |parts: &f64| (0.0..=unit * unit).contains(parts);
    // Decimals have no exact value in binary.
    let parts = parts.filter(fits).filter(|parts| (parts - parts.round()).abs() < 1e-4);
    let wrong =
        || Problem::wrong("allocations: allowed: numbers from 0 to 10000, 4 decimals at most");
    parts.map(|parts| parts.round() as u32).ok_or_else(wrong)
}

fn shown(desk: &Desk, name: &str) -> Result<Shown, Problem> {
    let snapshot = desk.live.snapshot();
    let service = snapshot.config.services.iter().find(|service| service.name == name);
    let unknown = || {
        let name: String = name.chars().take(200).collect();
        Problem::unknown(format!("no service {name}"))
    };
    let service = service.ok_or_else(unknown)?;
    let split = service.split.as_ref();
    let split = split.ok_or_else(|| Problem::unknown(format!("{name} has no traffic_split")))?;
    let share = |version: &crate::config::types::Version| {
        (version.name.clone(), service.share(&version.name))
    };
    Ok(Shown {
        service: name.to_owned(),
        split: TrafficSplit::of(split),
        source: if snapshot.overlay.shares(name).is_some() { "api" } else { "file" },
        shares: service.versions.iter().map(share).collect(),
        warning: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_decimal() {
        for (text, expected) in
            [("0.9", 9000), ("90", 900_000), ("0", 0), ("0.0001", 1), ("10000", 100_000_000)]
        {
            assert_eq!(parts(&text.parse().unwrap()).unwrap(), expected, "{text}");
        }
        for text in ["-1", "0.00001", "10001", "1e300"] {
            assert!(parts(&text.parse().unwrap()).is_err(), "{text}");
        }
    }
}
