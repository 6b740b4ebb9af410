//! Instances in an etcd: one for each key under a prefix, for as long as the key is there. Whoever
//! puts it there with a lease takes an instance away by dying.
//!
//! A value is an address; or JSON, like an instance in a file; or JSON as etcd's own naming for gRPC
//! has it (`Addr`). A key whose value makes no sense is left out, since others wrote the others.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::{Backoff, Reporter};
use crate::config::found::{MOST, Member, Whose};
use crate::config::is_name;
use crate::config::types::EtcdKeys;
use crate::etcd::{Change, Client, Event, Follower};

/// The longest key that is looked at.
const LONGEST_KEY: usize = 4096;
/// Keys that are complained of one by one after one change.
const COMPLAINTS: usize = 10;
const FORM: &str = "an address, { address, name, weight, draining }, or { Addr }";

/// Reports what stands there, at once and whenever it changes.
pub(super) async fn follow(source: EtcdKeys, reporter: Reporter) {
    let prefix = source.prefix.into_bytes();
    let client = Client::new(&source.etcd);
    let mut follower = Follower::new(client, prefix.clone(), MOST, source.refresh);
    let mut known = Known { prefix, keys: BTreeMap::new() };
    let mut backoff = Backoff::default();
    loop {
        let told = match follower.next().await {
            Ok(change) => {
                // A watch that has been of use, and not only begun.
                if !matches!(change, Change::All(_)) {
                    backoff.succeeded();
                }
                complain(&reporter.whose, &known.learn(change));
                known.members()
            }
            Err(error) => Err(error.to_string()),
        };
        match told {
            Ok(members) => reporter.tell_without(members, known.ignored()).await,
            Err(problem) => {
                let wait = backoff.failed().min(source.refresh);
                reporter.tell(Err(problem)).await;
                tokio::time::sleep(wait).await;
                follower.begin();
            }
        }
    }
}

fn complain(whose: &Whose, problems: &[(String, String)]) {
    let Whose { service, version } = whose;
    for (key, problem) in problems.iter().take(COMPLAINTS) {
        tracing::warn!(service, version, key, problem, "discovery: a key is left out");
    }
    let more = problems.len().saturating_sub(COMPLAINTS);
    if more > 0 {
        tracing::warn!(service, version, more, "discovery: more keys are left out");
    }
}

/// What each key says: an instance, or what is wrong with it.
struct Known {
    prefix: Vec<u8>,
    keys: BTreeMap<Vec<u8>, Result<Member, String>>,
}

impl Known {
    /// Takes what has changed. Gives the keys with which something is wrong that wasn't before.
    fn learn(&mut self, change: Change) -> Vec<(String, String)> {
        let (mut before, events) = match change {
            Change::Nothing => return Vec::new(),
            Change::All(pairs) => {
                let events = pairs.into_iter().map(Event::Put).collect();
                (std::mem::take(&mut self.keys), events)
            }
            Change::Some(events) => (BTreeMap::new(), events),
        };
        let mut problems = Vec::new();
        for event in events {
            let pair = match event {
                Event::Put(pair) => pair,
                Event::Delete(key) => {
                    self.keys.remove(&key);
                    continue;
                }
            };
            // It is neither shown nor kept: nobody means it.
            if pair.key.len() > LONGEST_KEY {
                continue;
            }
            let rest = pair.key.strip_prefix(&self.prefix[..]).unwrap_or_default();
            let told = member(rest, &pair.value);
            let old = before.remove(&pair.key).or_else(|| self.keys.remove(&pair.key));
            if let Err(problem) = &told
                && old.as_ref() != Some(&told)
            {
                let key = String::from_utf8_lossy(&pair.key).into_owned();
                problems.push((key, problem.clone()));
            }
            self.keys.insert(pair.key, told);
            if self.keys.len() > MOST {
                break;
            }
        }
        problems
    }

    fn members(&self) -> Result<Vec<Member>, String> {
        if self.keys.len() > MOST {
            let prefix = String::from_utf8_lossy(&self.prefix);
            return Err(format!("more than {MOST} keys under {prefix:?}"));
        }
        Ok(self.keys.values().flatten().cloned().collect())
    }

    /// How many keys are left out.
    fn ignored(&self) -> usize {
        self.keys.values().filter(|it| it.is_err()).count()
    }
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Value {
    Address(String),
    Instance(Instance),
    Named(Named),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Instance {
    address: String,
    name: Option<String>,
    weight: Option<u32>,
    #[serde(default)]
    draining: bool,
}

/// As `go.etcd.io/etcd/client/v3/naming` puts it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Named {
    #[serde(rename = "Addr")]
    address: String,
    #[serde(rename = "Op")]
    _op: Option<IgnoredAny>,
    #[serde(rename = "Metadata")]
    _metadata: Option<IgnoredAny>,
}

/// The instance that a key names. Its name stays the same when its address changes: that of the value,
/// or what the key has after the prefix.
fn member(rest: &[u8], value: &[u8]) -> Result<Member, String> {
    let text = std::str::from_utf8(value).map_err(|_| format!("no text; needed: {FORM}"))?.trim();
    let value = match text.starts_with(['{', '"', '[']) {
        // An address too, of IPv6.
        true if crate::config::is_address(text) => Value::Address(text.to_owned()),
        true => serde_json::from_str(text)
            .map_err(|_| format!("JSON that means nothing; needed: {FORM}"))?,
        false => Value::Address(text.to_owned()),
    };
    let (address, name, weight, draining) = match value {
        Value::Address(address) | Value::Named(Named { address, .. }) => {
            (address, None, None, false)
        }
        Value::Instance(it) => (it.address, it.name, it.weight, it.draining),
    };
    let rest = std::str::from_utf8(rest).map(|rest| rest.trim_start_matches('/'));
    let by_key = || rest.ok().filter(|rest| is_name(rest)).map(str::to_owned);
    let member = Member::new(name.or_else(by_key), address, weight.unwrap_or(1), draining);
    member.map_err(|error| short(&error.to_string()))
}

/// Whoever wrote a value may have written a book.
fn short(text: &str) -> String {
    let mut told: String = text.chars().take(300).collect();
    if told.len() < text.len() {
        told.push_str("..");
    }
    told
}
