//! `burdock ramp`: lets the share of a version grow, shows how that goes, and ends it.

use std::process::ExitCode;
use std::time::Duration;

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, ClientError, escaped};
use super::shapes::{Ramp, RampSide};
use super::{client_of, print};
use crate::cli::{Access, RampArguments};
use crate::operate::table::safe;
use crate::operate::words::{self, percent};

/// Between two looks.
const LOOK: Duration = Duration::from_millis(500);
/// It was rolled back, or somebody has ended it.
const FAILED: u8 = 1;

/// Begins a ramp or does to it what is asked, and shows it; with `wait` until it is over.
pub(super) async fn run(asked: &RampArguments) -> Result<ExitCode, ClientError> {
    let access = &asked.access;
    let client = client_of(access)?;
    let at = format!("/api/v1/services/{}/ramp", escaped(&asked.service));
    let answer = match (&asked.version, asked.change.word()) {
        (Some(_), _) => client.send(Method::POST, &at, &body(asked)).await?,
        (None, Some(stage)) => client.send(Method::PATCH, &at, &json!({ "stage": stage })).await?,
        (None, None) => client.get(&at).await?,
    };
    if asked.wait {
        return watch(access, &client, &at, answer).await;
    }
    print(access, &answer, |value| Ok(told(&client.read(value)?)))
}

fn body(asked: &RampArguments) -> Value {
    let limits = &asked.limits;
    let fields = [
        ("version", &asked.version),
        ("from", &limits.from),
        ("to", &limits.to),
        ("over", &limits.over),
        ("hold_on_errors", &limits.hold_on_errors),
        ("roll_back_on_errors", &limits.roll_back_on_errors),
        ("hold_on_latency", &limits.hold_on_latency),
        ("roll_back_on_latency", &limits.roll_back_on_latency),
        ("latency_quantile", &limits.latency_quantile),
    ];
    let given = fields.into_iter().filter_map(|(name, value)| Some((name, json!(value.as_ref()?))));
    let mut body: serde_json::Map<_, _> =
        given.map(|(name, value)| (name.to_owned(), value)).collect();
    if let Some(number) = limits.min_requests {
        body.insert("min_requests".to_owned(), json!(number));
    }
    Value::Object(body)
}

/// Tells of each change until it is over.
async fn watch(
    access: &Access,
    client: &Client,
    at: &str,
    mut answer: Value,
) -> Result<ExitCode, ClientError> {
    let mut before = String::new();
    loop {
        let ramp: Ramp = client.read(answer.clone())?;
        let line = words::ramp(&ramp);
        if line != before && !access.json {
            eprintln!("{line}");
        }
        before = line;
        if !matches!(ramp.stage.as_str(), "running" | "held" | "paused") {
            print(access, &answer, |_| Ok(told(&ramp)))?;
            let is_done = ramp.stage == "done";
            return Ok(if is_done { ExitCode::SUCCESS } else { ExitCode::from(FAILED) });
        }
        tokio::time::sleep(LOOK).await;
        answer = client.get(at).await?;
    }
}

fn told(ramp: &Ramp) -> String {
    let mut lines = vec![words::ramp(ramp)];
    let (from, to) = (percent(ramp.from), percent(ramp.to));
    let (step, steps) = (ramp.step, ramp.steps);
    let left = ramp.left_seconds.map(|left| format!(", {} left at least", words::seconds(left)));
    let left = left.unwrap_or_default();
    lines.push(format!("  {from} to {to} over {}: step {step} of {steps}{left}", safe(&ramp.over)));
    let on = |share: Option<f64>, slow: &Option<String>| {
        let errors = share.map(|share| format!("{} more errors", percent(share)));
        let latency = slow.as_ref().map(|slow| format!("latency {}", safe(slow)));
        let on: Vec<_> = errors.into_iter().chain(latency).collect();
        if on.is_empty() { "nothing".to_owned() } else { on.join(" or ") }
    };
    let hold = on(ramp.hold_on_errors, &ramp.hold_on_latency);
    let back = on(ramp.roll_back_on_errors, &ramp.roll_back_on_latency);
    let needed = ramp.min_requests;
    lines.push(format!(
        "  held on {hold}; rolled back on {back}; judged by {needed} requests or more"
    ));
    if let Some(seen) = &ramp.seen {
        let side = |side: &RampSide| {
            let errors = side.errors as f64 / side.requests.max(1) as f64;
            let latency = side.latency_seconds.map(|it| {
                format!(", p{} {}", trimmed(ramp.latency_quantile * 100.0), words::latency(it))
            });
            let requests = words::plural(side.requests, "request");
            format!("{requests}, {} errors{}", percent(errors), latency.unwrap_or_default())
        };
        let (own, others) = (side(&seen.version), side(&seen.others));
        lines.push(format!("  seen since the last step: {own}; other versions: {others}"));
    }
    lines.push(String::new());
    lines.join("\n")
}

/// As it is written, without the noise of binary fractions.
fn trimmed(number: f64) -> f64 {
    (number * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::shapes::RampSides;

    #[test]
    fn a_ramp_is_told_in_a_few_lines() {
        let side = |requests, errors| RampSide { requests, errors, latency_seconds: Some(0.0123) };
        let mut ramp = Ramp {
            service: "chat".into(),
            version: "v2".into(),
            stage: "held".into(),
            reason: Some("12 of 100 requests seen".into()),
            share: 0.0263,
            from: 0.01,
            to: 0.5,
            over: "30m".into(),
            step: 1,
            steps: 30,
            left_seconds: Some(1800.0),
            hold_on_errors: Some(0.02),
            roll_back_on_errors: Some(0.05),
            hold_on_latency: None,
            roll_back_on_latency: Some("2x".into()),
            latency_quantile: 0.95,
            min_requests: 100,
            seen: Some(RampSides { version: side(12, 0), others: side(1000, 5) }),
        };
        assert_eq!(
            told(&ramp),
            "chat/v2: held, 2.63%: 12 of 100 requests seen\n  \
             1% to 50% over 30m: step 1 of 30, 30 min left at least\n  \
             held on 2% more errors; rolled back on 5% more errors or latency 2x; judged by 100 requests or more\n  \
             seen since the last step: 12 requests, 0% errors, p95 12 ms; other versions: 1000 requests, 0.5% errors, \
             p95 12 ms\n"
        );
        (ramp.stage, ramp.seen, ramp.left_seconds) = ("rolled_back".into(), None, None);
        assert!(told(&ramp).starts_with("chat/v2: rolled back, 2.63%: 12 of"), "{}", told(&ramp));
    }
}
