//! What changes something: states, weights, tunnels, the configuration.

use std::process::ExitCode;

use http::Method;
use serde_json::{Value, json};

use super::client::{Client, ClientError, path};
use super::shapes::{Instance, Reloaded, Status};
use super::{client_of, paper, print, words};
use crate::cli::{Access, Weight};
use crate::operate::table::{Tone, safe};

/// As many names stand in a message about one that is not known.
const NAMED: usize = 12;

/// Sets what is wanted of an instance.
pub(super) async fn state(
    access: &Access,
    asked: &str,
    state: &str,
) -> Result<ExitCode, ClientError> {
    change(access, asked, &json!({ "state": state })).await
}

/// Sets an instance's weight.
pub(super) async fn weight(
    access: &Access,
    asked: &str,
    weight: Weight,
) -> Result<ExitCode, ClientError> {
    let weight = match weight {
        Weight::File => Value::Null,
        Weight::Number(number) => number.into(),
    };
    change(access, asked, &json!({ "weight": weight })).await
}

async fn change(access: &Access, asked: &str, body: &Value) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let id = instance(&client, asked).await?;
    let answer = client.send(Method::PATCH, &path("instances", &id), body).await?;
    warn(&answer);
    print(access, &answer, |value| {
        let instance: Instance = client.read(value)?;
        let (state, tone) = words::standing(&instance);
        let state = paper().paint(&state, tone);
        Ok(format!("{}: {state}, weight {}\n", safe(&instance.id), words::weight(&instance)))
    })
}

/// Says what is to be known of what was asked.
pub(super) fn warn(answer: &Value) {
    if let Some(warning) = answer["warning"].as_str() {
        eprintln!("warning: {}", safe(warning));
    }
}

/// Moves tunnels of a version to where there are too few.
pub(super) async fn rebalance(access: &Access, asked: &str) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let ids = status(&client, "?instances=false").await?;
    let ids: Vec<_> = ids
        .services
        .iter()
        .flat_map(|it| it.versions.iter().map(|version| format!("{}/{}", it.name, version.name)))
        .collect();
    let id = only("version", &ids, asked)?;
    let at = format!("{}/rebalance", path("versions", &id));
    let answer = client.send(Method::POST, &at, &json!({})).await?;
    print(access, &answer, |value| {
        let tunnels = value["tunnels"].as_u64().unwrap_or_default();
        Ok(format!("{}: {} to be moved\n", safe(&id), words::plural(tunnels, "tunnel")))
    })
}

/// Reads the configuration again.
pub(super) async fn reload(access: &Access) -> Result<ExitCode, ClientError> {
    let client = client_of(access)?;
    let answer = client.send(Method::POST, "/api/v1/reload", &json!({})).await?;
    print(access, &answer, |value| {
        let done: Reloaded = client.read(value)?;
        let mut text = format!("generation {}", done.generation);
        if done.changes.is_empty() {
            text.push_str(": nothing has changed");
        }
        text.push('\n');
        for change in &done.changes {
            text.push_str(&format!("  {}\n", safe(change)));
        }
        for warning in &done.warnings {
            let head = paper().paint("warning:", Tone::Warn);
            text.push_str(&format!("{head} {}\n", safe(warning)));
        }
        Ok(text)
    })
}

async fn status(client: &Client, query: &str) -> Result<Status, ClientError> {
    client.read(client.get(&format!("/api/v1/status{query}")).await?)
}

/// The id of the instance that `asked` means.
pub(super) async fn instance(client: &Client, asked: &str) -> Result<String, ClientError> {
    let status = status(client, "").await?;
    let versions = status.services.iter().flat_map(|service| &service.versions);
    let instances = versions.flat_map(|version| &version.instances);
    let ids: Vec<_> = instances.map(|instance| instance.id.clone()).collect();
    only("instance", &ids, asked)
}

/// The only one that `asked` may mean.
fn only(what: &str, ids: &[String], asked: &str) -> Result<String, ClientError> {
    let found = words::matching(ids.iter().map(String::as_str), asked);
    let listed = |ids: &[&str]| {
        let more = ids.len().saturating_sub(NAMED);
        let mut names: Vec<_> = ids.iter().take(NAMED).map(|id| safe(id)).collect();
        names.extend((more > 0).then(|| format!("and {more} more")));
        names.join(", ")
    };
    match found.as_slice() {
        [one] => Ok((*one).to_owned()),
        [] if ids.is_empty() => Err(ClientError::Refused(format!("there is no {what} at all"))),
        [] => {
            let all: Vec<_> = ids.iter().map(String::as_str).collect();
            Err(ClientError::Refused(format!("no {what} {asked:?}; there are {}", listed(&all))))
        }
        several => Err(ClientError::Refused(format!(
            "{asked:?} may be {}; give as much of it as makes it one {what}",
            listed(several)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_is_none_or_several_is_answered_with_what_there_is() {
        let ids = ["chat/v1/a", "chat/v2/a", "chat/v1/b"].map(str::to_owned);
        assert_eq!(only("instance", &ids, "b").unwrap(), "chat/v1/b");
        let message = |asked| only("instance", &ids, asked).unwrap_err().to_string();
        assert_eq!(message("x"), "no instance \"x\"; there are chat/v1/a, chat/v2/a, chat/v1/b");
        assert_eq!(
            message("a"),
            "\"a\" may be chat/v1/a, chat/v2/a; give as much of it as makes it one instance"
        );
        let many: Vec<_> = (0..30).map(|n| format!("s/v/{n}")).collect();
        let message = only("instance", &many, "x").unwrap_err().to_string();
        assert!(message.ends_with("s/v/11, and 18 more"), "{message}");
    }
}
