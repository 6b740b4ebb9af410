//! `mirror`: which requests another version gets a copy of.

use crate::config::node::Node;
use crate::config::types::{Mirror, Mirrored, Version};

/// The mirror of a service with these versions.
pub(super) fn mirror(node: &Node<'_>, versions: &[Version]) -> Option<Mirror> {
    if node.is_off() {
        return None;
    }
    let mut fields = node.fields("mirror")?;
    let to = match fields.take("to") {
        Some(node) => to(&node, versions),
        None => {
            fields.missing("to", "the version that gets copies, such as v2");
            None
        }
    };
    let share = fields.take("share").and_then(|node| node.percent(100));
    let methods = fields.take("methods").and_then(|node| node.word(&Mirrored::WORDS));
    let max_body = fields.take("max_body").and_then(|node| node.size(Mirror::LONGEST_BODY));
    let max_in_flight = fields.integer("max_in_flight", 1..=10_000, Mirror::MAX_IN_FLIGHT);
    fields.finish();
    Some(Mirror {
        to: to?,
        share: share.unwrap_or(Mirror::SHARE),
        methods: methods.unwrap_or_default(),
        max_body: max_body.unwrap_or(Mirror::MAX_BODY),
        max_in_flight,
    })
}

fn to(node: &Node<'_>, versions: &[Version]) -> Option<String> {
    let name = node.text("the name of a version")?;
    let is_known = versions.iter().any(|version| version.name == name);
    if is_known && versions.len() > 1 {
        return Some(name.to_owned());
    }
    let known: Vec<_> = versions.iter().map(|version| &*version.name).collect();
    match is_known {
        true => node.problem("is the only version of the service; needed: another beside it"),
        false => node.problem(format_args!(
            "{name:?} is no version of the service; allowed: {}",
            known.join(", ")
        )),
    }
    None
}
