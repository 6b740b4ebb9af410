//! What a version says of requests that are tried again.

use std::ops::RangeInclusive;

use super::{LIMIT, checks};
use crate::config::node::{Fields, Node};
use crate::config::types::{Condition, Retry};

/// A body is kept in memory for as long as its request may be tried again.
const MAX_BODY: u64 = 16 * 1024 * 1024;

/// Only an answer that tells of an error is given up for another.
const STATUSES: RangeInclusive<u16> = 400..=599;

/// Reads `retry`.
pub(super) fn retry(fields: &mut Fields<'_>) -> Retry {
    let default = Retry::default();
    let Some(node) = fields.take("retry") else { return default };
    if node.is_off() {
        return Retry { attempts: 1, ..default };
    }
    let Some(mut fields) = node.fields("retry") else { return default };
    let limit = |node: &Node<'_>| node.duration(LIMIT);
    let attempts = fields.integer("attempts", 1..=10, default.attempts);
    let max_body = fields.take("max_body").and_then(|node| node.size(MAX_BODY));
    let max_body = max_body.and_then(|bytes| usize::try_from(bytes).ok());
    let budget = fields.take("budget").and_then(|node| node.percent(100));
    let retry = Retry {
        attempts,
        max_body: max_body.unwrap_or(default.max_body),
        budget: budget.unwrap_or(default.budget),
        budget_floor: fields.integer("budget_floor", 0..=1_000_000, default.budget_floor),
        on: fields.take("on").and_then(|node| conditions(&node)).unwrap_or(default.on),
        statuses: fields
            .take("statuses")
            .and_then(|node| checks::statuses(&node, STATUSES, "503 or 502-504"))
            .unwrap_or(default.statuses),
        per_try_timeout: fields.optional("per_try_timeout", default.per_try_timeout, limit),
        hedge_after: fields.optional("hedge_after", default.hedge_after, limit),
    };
    fields.finish();
    retry
}

fn conditions(node: &Node<'_>) -> Option<Vec<Condition>> {
    let words = Condition::ALL.map(|condition| (condition.label(), condition));
    let allowed = words.map(|(word, _)| word).join(", ");
    let mut conditions = Vec::with_capacity(words.len());
    for item in node.list(format_args!("conditions: {allowed}"))? {
        match item.word(&words) {
            Some(condition) if conditions.contains(&condition) => {
                item.problem("given twice; allowed: once");
            }
            Some(condition) => conditions.push(condition),
            None => {}
        }
    }
    Some(conditions)
}
