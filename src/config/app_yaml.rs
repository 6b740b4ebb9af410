//! App Engine's app.yaml as the description of a version.
//!
//! Takes what means something here, lists the rest as ignored, and points at its own lines. Knows
//! nothing of Burdock's own keys.

use super::errors::Problem;
use super::node::{Node, Sink};
use super::read;
use super::tree::{self, Data};
use super::types::Check;
use super::validate::checks::{self, Kind};

/// What an app.yaml says about a version; empty where there is none.
#[derive(Default)]
pub(super) struct AppYaml {
    pub(super) session_affinity: Option<bool>,
    pub(super) readiness_check: Option<Check>,
    pub(super) liveness_check: Option<Check>,
}

/// Reads the app.yaml that the value of `app_yaml` names.
pub(super) fn beside(node: &Node<'_>) -> Option<AppYaml> {
    let path = node.sink.resolve(node.text("the path of an app.yaml")?);
    node.sink.watch(&path);
    let text = match read::text(&path) {
        Ok(text) => text,
        Err(error) => {
            let path = path.display();
            node.problem(format_args!("cannot read {path}: {error}; needed: an app.yaml"));
            return None;
        }
    };
    match tree::read(&text) {
        Ok(tree) => described(&Node::root(&tree, &path, node.sink)),
        Err(error) => {
            node.sink.problems.borrow_mut().push(Problem {
                file: path.clone(),
                line: error.line,
                path: String::new(),
                message: error.message,
            });
            None
        }
    }
}

fn described(root: &Node<'_>) -> Option<AppYaml> {
    let mut fields = root.fields("app.yaml")?;
    let direct = fields.take("session_affinity").and_then(|node| boolean(&node));
    let network = fields.take("network").filter(is_given);
    let nested = network.and_then(|node| node.fields("network")).and_then(|mut fields| {
        let node = fields.take("session_affinity");
        let rest = fields.take_rest().into_iter().map(|key| format!("network.{key}"));
        root.sink.ignored.borrow_mut().extend(rest);
        boolean(&node?)
    });
    let mut check = |key, kind: &Kind| {
        let node = fields.take(key).filter(is_given)?;
        checks::app_engine_check(&node, kind)
    };
    let readiness_check = check("readiness_check", &checks::READINESS);
    let liveness_check = check("liveness_check", &checks::LIVENESS);
    ignore(root.sink, fields.take_rest());
    Some(AppYaml {
        session_affinity: direct.or(nested),
        // App Engine checks readiness whether it is told to or not.
        readiness_check: Some(readiness_check.unwrap_or_else(Check::readiness)),
        liveness_check,
    })
}

/// A key without a value is as good as absent to App Engine.
fn is_given(node: &Node<'_>) -> bool {
    node.tree.data != Data::Null
}

/// App Engine reads YAML 1.1, where these words are truth values.
fn boolean(node: &Node<'_>) -> Option<bool> {
    match node.as_text().map(str::to_ascii_lowercase).as_deref() {
        Some("yes" | "on" | "true" | "y") => Some(true),
        Some("no" | "off" | "false" | "n") => Some(false),
        _ => node.boolean(),
    }
}

fn ignore(sink: &Sink, keys: Vec<&str>) {
    sink.ignored.borrow_mut().extend(keys.into_iter().map(str::to_owned));
}
