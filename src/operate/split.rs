//! `burdock split`: how the requests of a service are shared among its versions.

use std::collections::BTreeMap;
use std::process::ExitCode;

use http::Method;
use serde_json::{Number, json};

use super::client::{Client, ClientError, escaped};
use super::shapes::Split;
use super::{client_of, print};
use crate::cli::Access;
use crate::operate::table::safe;

/// Shares the requests otherwise, if it is told how, and shows how they are.
pub(super) async fn run(
    access: &Access,
    service: &str,
    weights: &[String],
) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let at = format!("/api/v1/services/{}/split", escaped(service));
    let answer = match weights {
        [] => client.get(&at).await?,
        [word] if word == "file" => client.send(Method::DELETE, &at, &json!({})).await?,
        several => {
            let allocations = allocations(several).map_err(ClientError::Refused)?;
            client.send(Method::PUT, &at, &json!({ "allocations": allocations })).await?
        }
    };
    super::steer::warn(&answer);
    print(access, &answer, |value| Ok(told(&read(&client, value)?)))
}

fn read(client: &Client, value: serde_json::Value) -> Result<Split, ClientError> {
    client.read(value)
}

fn allocations(texts: &[String]) -> Result<BTreeMap<String, Number>, String> {
    let mut weights = BTreeMap::new();
    for text in texts {
        let wrong = || format!("{text:?} is no VERSION=WEIGHT, such as v1=90");
        let (version, weight) = text.split_once('=').ok_or_else(wrong)?;
        let weight = weight.parse().map_err(|_| wrong())?;
        if weights.insert(version.to_owned(), weight).is_some() {
            return Err(format!("{version} is given twice"));
        }
    }
    Ok(weights)
}

fn told(split: &Split) -> String {
    let percent = |share: f64| (share * 1e4).round() / 100.0;
    let rows = split.shares.iter();
    let rows = rows.map(|(version, share)| format!("{} {}%", safe(version), percent(*share)));
    let source = if split.source == "api" { ", not as the file says" } else { "" };
    let rows: Vec<_> = rows.collect();
    format!("{}: {} by {}{source}\n", safe(&split.service), rows.join(", "), safe(&split.shard_by))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_read_by_version() {
        let read = |texts: &[&str]| {
            let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
            allocations(&texts).map(|weights| json!(weights).to_string())
        };
        assert_eq!(read(&["v1=99.5", "v2=0.5"]).unwrap(), "{\"v1\":99.5,\"v2\":0.5}");
        assert_eq!(read(&["v1=1", "v1=2"]).unwrap_err(), "v1 is given twice");
        for text in ["v1", "v1=", "v1=x", "=", "v1=1%"] {
            assert!(read(&[text]).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_told_in_per_cent() {
        let split = Split {
            service: "chat".into(),
            shard_by: "cookie".into(),
            source: "api".into(),
            shares: [("v1".to_owned(), 0.99), ("v2".to_owned(), 0.01)].into(),
        };
        assert_eq!(told(&split), "chat: v1 99%, v2 1% by cookie, not as the file says\n");
    }
}
