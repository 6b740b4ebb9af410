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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::etcd::Pair;

    fn told(key: &str, value: &str) -> Result<(String, String, u32, bool), String> {
        let member = member(key.as_bytes(), value.as_bytes())?;
        Ok((member.name, member.address, member.weight, member.draining))
    }

    #[test]
    fn all_shapes_mean_instances_whose_names_stay() {
        let row = |name: &str, address: &str, weight, draining| {
            Ok((name.to_owned(), address.to_owned(), weight, draining))
        };
        assert_eq!(told("web-1", " a:1\n"), row("web-1", "a:1", 1, false));
        assert_eq!(told("web-1", "\"a:1\""), row("web-1", "a:1", 1, false));
        assert_eq!(told("/web-1", "[::1]:1"), row("web-1", "[::1]:1", 1, false));
        assert_eq!(told("dc1/web-1", "a:1"), row("a:1", "a:1", 1, false), "no name has a slash");
        assert_eq!(told("", "a:1"), row("a:1", "a:1", 1, false), "the prefix itself");
        let json = r#"{"address": "a:1", "name": "one", "weight": 3, "draining": true}"#;
        assert_eq!(told("web-1", json), row("one", "a:1", 3, true));
        // As gRPC's clients in Go put it.
        let named = r#"{"Op":0,"Addr":"a:1","Metadata":{"any":[1]}}"#;
        assert_eq!(told("a:1", named), row("a:1", "a:1", 1, false));
        assert_eq!(
            told("web-1", r#"{"Addr":"a:1","Metadata":null}"#),
            row("web-1", "a:1", 1, false)
        );
    }

    #[test]
    fn what_makes_no_sense_is_told_of_in_few_words() {
        for (value, problem) in [
            ("", "\"\" is no address"),
            ("a", "\"a\" is no address"),
            ("{", "JSON that means nothing; needed: an address, { address, name"),
            ("[\"a:1\"]", "JSON that means nothing"),
            (r#"{"adress": "a:1"}"#, "JSON that means nothing"),
            (r#"{"address": "a:1", "weight": 1001}"#, "the weight 1001 is too large"),
            (r#"{"address": "a:1", "weight": -1}"#, "JSON that means nothing"),
            (r#"{"address": "a:1", "name": "x y"}"#, "\"x y\" is no name"),
            (r#"{"Addr": "a"}"#, "\"a\" is no address"),
            (&"x".repeat(100_000), "\"xxxx"),
            (&format!("{}{}", "[".repeat(100_000), "]".repeat(100_000)), "JSON that means nothing"),
        ] {
            let told = told("web-1", value).unwrap_err();
            assert!(told.contains(problem) && told.len() < 320, "{told}");
        }
        assert!(member(b"a", b"\xff").unwrap_err().contains("no text"));
        // A key that is no text has no name in it.
        assert_eq!(member(b"\xff", b"a:1").unwrap().name, "a:1");
    }

    fn pair(key: &str, value: &str) -> Pair {
        Pair { key: key.into(), value: value.into(), revision: 1, lease: 0 }
    }

    #[test]
    fn a_bad_value_leaves_out_its_key_and_is_told_of_once() {
        let mut known = Known { prefix: b"/a/".to_vec(), keys: BTreeMap::new() };
        let names = |known: &Known| -> Vec<String> {
            known.members().unwrap().into_iter().map(|it| it.name).collect()
        };
        let all = || Change::All(vec![pair("/a/1", "a:1"), pair("/a/2", "?"), pair("/a/3", "c:3")]);
        let problems = known.learn(all());
        assert_eq!((names(&known), known.ignored()), (vec!["1".to_owned(), "3".to_owned()], 1));
        assert_eq!(problems.len(), 1);
        assert_eq!(problems[0].0, "/a/2");
        assert_eq!(known.learn(all()), [], "it is the same problem");
        let put = |key, value| Change::Some(vec![Event::Put(pair(key, value))]);
        assert_eq!(known.learn(put("/a/2", "?")), []);
        assert_eq!(known.learn(put("/a/2", "!")).len(), 1, "another problem");
        assert_eq!(known.learn(put("/a/2", "b:2")), []);
        assert_eq!((names(&known).len(), known.ignored()), (3, 0));
        assert_eq!(known.learn(put("/a/2", "?")).len(), 1, "it was well in between");
        known.learn(Change::Some(vec![
            Event::Delete(b"/a/1".to_vec()),
            Event::Delete(b"x".to_vec()),
        ]));
        assert_eq!((names(&known), known.ignored()), (vec!["3".to_owned()], 1));
        known.learn(Change::All(Vec::new()));
        assert_eq!((names(&known), known.ignored()), (Vec::new(), 0));
        known.learn(put(&format!("/a/{}", "x".repeat(LONGEST_KEY)), "a:1"));
        assert!(known.keys.is_empty());
    }

    #[test]
    fn more_than_there_is_room_for_is_not_kept() {
        let mut known = Known { prefix: b"/a/".to_vec(), keys: BTreeMap::new() };
        let events = (0..MOST + 10).map(|n| Event::Put(pair(&format!("/a/{n}"), "a:1"))).collect();
        known.learn(Change::Some(events));
        assert_eq!(known.keys.len(), MOST + 1);
        assert!(known.members().unwrap_err().contains("more than 10000 keys under \"/a/\""));
    }
}
