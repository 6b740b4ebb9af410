//! Instances in a file: a list of them as in a configuration, or of target groups as Prometheus has
//! them in `file_sd_configs`; YAML or JSON.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::Reporter;
use super::watch::Watcher;
use crate::config::found::Member;

/// Ten thousand instances have a megabyte.
const LONGEST: u64 = 4 * 1024 * 1024;
/// The label that has the weight of a group's targets.
const WEIGHT: &str = "burdock_weight";

/// What stands in the file.
#[derive(Deserialize)]
#[serde(untagged)]
enum Item {
    Address(String),
    Instance(Instance),
    Group(Group),
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

/// Of labels only the weight means something here.
#[derive(Deserialize)]
struct Group {
    targets: Vec<String>,
    #[serde(default)]
    labels: std::collections::BTreeMap<String, String>,
}

/// Reports what is in the file, at once and whenever it changes.
pub(super) async fn follow(path: PathBuf, reporter: Reporter) {
    let mut watcher = Watcher::new(std::slice::from_ref(&path));
    loop {
        reporter.tell(read(&path).await).await;
        watcher.changed().await;
        // Before it is read, so that what changes after that is seen.
        watcher.renew();
    }
}

async fn read(path: &Path) -> Result<Vec<Member>, String> {
    let file = path.to_owned();
    // To make sense of a long file takes longer than anybody else should wait here.
    let read = tokio::task::spawn_blocking(move || {
        let text = text(&file).map_err(|error| format!("reading {}: {error}", file.display()))?;
        members(&text).map_err(|problem| format!("{}: {problem}", file.display()))
    });
    read.await.unwrap_or_else(|error| Err(format!("reading {}: {error}", path.display())))
}

fn text(path: &Path) -> std::io::Result<String> {
    use std::io::Read as _;
    let mut text = String::new();
    std::fs::File::open(path)?.take(LONGEST + 1).read_to_string(&mut text)?;
    match text.len() as u64 > LONGEST {
        // The beginning of a list is a list.
        true => Err(std::io::Error::other(format!("it is longer than {LONGEST} bytes"))),
        false => Ok(text),
    }
}

fn members(text: &str) -> Result<Vec<Member>, String> {
    let form =
        "a list of addresses, of { address, name, weight, draining }, or of { targets, labels }";
    let items: Vec<Item> = match text.trim() {
        "" => Vec::new(),
        text => serde_yaml::from_str(text).map_err(|error| format!("{error}; needed: {form}"))?,
    };
    let mut members = Vec::new();
    for item in items {
        let told = match item {
            Item::Address(address) => vec![Member::new(None, address, 1, false)],
            Item::Instance(Instance { address, name, weight, draining }) => {
                vec![Member::new(name, address, weight.unwrap_or(1), draining)]
            }
            Item::Group(Group { targets, labels }) => {
                let weight = match labels.get(WEIGHT) {
                    None => 1,
                    Some(text) => text
                        .parse()
                        .map_err(|_| format!("label {WEIGHT} is {text:?}; allowed: 0 to 1000"))?,
                };
                targets.into_iter().map(|it| Member::new(None, it, weight, false)).collect()
            }
        };
        for member in told {
            members.push(member.map_err(|error| error.to_string())?);
        }
    }
    Ok(members)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<(String, String, u32)> {
        let members = members(text).unwrap();
        members.into_iter().map(|it| (it.name, it.address, it.weight)).collect()
    }

    #[test]
    fn all_shapes_mean_instances() {
        let row = |name: &str, address: &str, weight| (name.to_owned(), address.to_owned(), weight);
        assert_eq!(names("[a:1, 'b:2']"), [row("a:1", "a:1", 1), row("b:2", "b:2", 1)]);
        let maps = "- { address: a:1, name: one, weight: 3 }\n- { address: '[::1]:2' }\n";
        assert_eq!(names(maps), [row("one", "a:1", 3), row("[::1]:2", "[::1]:2", 1)]);
        let groups =
            r#"[{"targets": ["a:1", "b:1"], "labels": {"job": "x", "burdock_weight": "2"}}]"#;
        assert_eq!(names(groups), [row("a:1", "a:1", 2), row("b:1", "b:1", 2)]);
        assert!(names("").is_empty() && names("[]").is_empty());
        assert!(members("[{ address: a:1, draining: true }]").unwrap()[0].draining);
    }

    #[test]
    fn what_makes_no_sense_is_told_of_and_nothing_is_taken() {
        for (text, told) in [
            ("[a]", "\"a\" is no address"),
            ("[a:1, { address: b:2, name: 'x y' }]", "\"x y\" is no name"),
            ("[{ address: a:1, weight: 1001 }]", "1001 is too large"),
            ("{ a: b }", "needed: a list of addresses"),
            ("[{ address: a:1, wait: 1 }]", "needed: a list of addresses"),
            ("[{ targets: [a:1], labels: { burdock_weight: x } }]", "burdock_weight is \"x\""),
            ("[", "needed: a list of addresses"),
        ] {
            let problem = members(text).unwrap_err();
            assert!(problem.contains(told), "{text}: {problem}");
        }
    }
}
