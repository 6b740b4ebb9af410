//! `affinity_keys`: from a file or from the configuration itself. Files of keys for tickets are alike.
//!
//! Keys are secrets: no message repeats one.

use std::collections::HashSet;
use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use crate::config::errors::Problem;
use crate::config::node::Node;
use crate::config::read;
use crate::config::tree::Data;
use crate::config::types::AffinityKeys;

const KEY: &str = "32 bytes in base64, as `burdock keys new` prints them";

pub(super) fn affinity_keys(node: &Node<'_>) -> AffinityKeys {
    match &node.tree.data {
        Data::List(_) => AffinityKeys { file: None, inline: inline(node) },
        Data::Map(_) => from_map(node).unwrap_or_default(),
        _ if node.is_off() => AffinityKeys::default(),
        // Not `wrong`: it would print what may be a key.
        _ => {
            node.problem("not in a form for keys; allowed: { file: PATH }, a list of keys, none");
            AffinityKeys::default()
        }
    }
}

fn from_map(node: &Node<'_>) -> Option<AffinityKeys> {
    let mut fields = node.fields("affinity_keys")?;
    let file = fields.take("file");
    let keys = fields.take("keys");
    if file.is_some() && keys.is_some() {
        node.problem("both `file` and `keys` are given; allowed: one of them");
    }
    if file.is_none() && keys.is_none() {
        fields.missing("file", "the path of a key file, or `keys`, a list of keys");
    }
    fields.finish();
    match (file, keys) {
        (Some(file), _) => from_file(&file),
        (None, keys) => keys.map(|keys| AffinityKeys { file: None, inline: inline(&keys) }),
    }
}

fn inline(node: &Node<'_>) -> Vec<[u8; 32]> {
    let (mut keys, mut seen) = (Vec::new(), HashSet::new());
    if !matches!(node.tree.data, Data::List(_)) {
        // Not `list`: its message would print what may be a key.
        node.problem("not a list; allowed: a list of base64 keys");
        return keys;
    }
    let items = node.list("base64 keys").unwrap_or_default();
    if items.is_empty() {
        node.problem("no key; needed: at least one, or `affinity_keys: none`");
    }
    for item in items {
        match item.as_text().and_then(decode) {
            None => item.problem(format_args!("not a key; allowed: {KEY}")),
            Some(key) if seen.insert(key) => keys.push(key),
            Some(_) => item.problem("a key is given twice; allowed: once"),
        }
    }
    keys
}

fn from_file(node: &Node<'_>) -> Option<AffinityKeys> {
    let (file, inline) = key_file(node)?;
    Some(AffinityKeys { file: Some(file), inline })
}

/// The keys in a file that may be replaced while it is in use, newest first.
pub(super) fn key_file(node: &Node<'_>) -> Option<(PathBuf, Vec<[u8; 32]>)> {
    let path = node.sink.resolve(node.text("the path of a key file")?);
    node.sink.watch(&path);
    let text = match read::text(&path) {
        Ok(text) => text,
        Err(error) => {
            node.problem(format_args!(
                "cannot read {}: {error}; needed: a file with one key per line, each {KEY}",
                path.display()
            ));
            return None;
        }
    };
    let (keys, problems) = lines(&text);
    node.sink.problems.borrow_mut().extend(problems.into_iter().map(|(line, message)| Problem {
        file: path.clone(),
        line,
        path: String::new(),
        message,
    }));
    Some((absolute(path), keys))
}

/// The keys in such a text, newest first; and each problem with its line.
pub(in crate::config) fn lines(text: &str) -> (Vec<[u8; 32]>, Vec<(usize, String)>) {
    let (mut keys, mut seen, mut problems) = (Vec::new(), HashSet::new(), Vec::new());
    let mut problem = |line: usize, message: &str| problems.push((line, message.to_owned()));
    for (index, line) in text.lines().enumerate() {
        let content = line.split('#').next().unwrap_or_default().trim();
        match decode(content) {
            _ if content.is_empty() => {}
            None => problem(index + 1, &format!("not a key; allowed: {KEY}, one per line")),
            Some(key) if seen.insert(key) => keys.push(key),
            Some(_) => problem(index + 1, "a key is given twice; allowed: once"),
        }
    }
    if keys.is_empty() {
        problem(0, &format!("no key; needed: at least one, each {KEY}"));
    }
    (keys, problems)
}

/// The same file from whatever folder the effective configuration is loaded again.
pub(super) fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

/// Standard or URL-safe alphabet, with or without padding.
fn decode(text: &str) -> Option<[u8; 32]> {
    let text = text.trim_end_matches('=');
    let bytes = STANDARD_NO_PAD.decode(text).or_else(|_| URL_SAFE_NO_PAD.decode(text)).ok()?;
    bytes.try_into().ok()
}
