//! Classic mistakes, told by what they look like from outside.
//!
//! [`diagnose`] is pure: counts and a configuration in, findings out, each with the line that cures it.
//! [`rounds`] takes the counts and tells of what is found. Read [`Symptoms`] first.

pub mod rounds;

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use crate::config::types::{Affinity, Balance, HashKey, Secure};

/// Fewer sessions or requests than this say nothing.
const MANY: u64 = 200;
/// A few tokens of unknown keys are what is left of keys that were rotated away.
const STRAYS: u64 = 20;

/// What one version looks like.
#[derive(Debug, Clone, Copy)]
pub struct Symptoms<'a> {
    /// `service/version`.
    pub version: &'a str,
    /// Its affinity.
    pub affinity: Option<&'a Affinity>,
    /// How it spreads what is bound to nothing.
    pub balance: &'a Balance,
    /// Whether a client can come by https, or a proxy in front say that it has.
    pub https: bool,
    /// Sessions begun.
    pub begun: u64,
    /// Requests that reached their bound instance.
    pub kept: u64,
    /// Tokens rejected because no key opens them.
    pub unknown_key: u64,
    /// Answers that say that an engine.io session is unknown.
    pub sid_unknown: u64,
    /// Answers of the busiest instance.
    pub busiest: u64,
    /// Answers of all others.
    pub others: u64,
    /// Instances that take new sessions.
    pub ready: usize,
}

/// Something that is probably wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Names it.
    pub code: &'static str,
    /// `service/version`.
    pub version: String,
    /// What is wrong, and how that can be seen.
    pub message: String,
    /// What to write into the configuration.
    pub cure: String,
    /// How often it was seen.
    pub count: u64,
}

/// What is probably wrong with a version that looks like this.
pub fn diagnose(symptoms: &Symptoms<'_>) -> Vec<Finding> {
    let found = [
        sid_unknown(symptoms),
        secure_cookie_on_http(symptoms),
        cookie_lost(symptoms),
        unknown_key(symptoms),
        one_client_address(symptoms),
    ];
    let finding = |(code, message, cure, count): Found| Finding {
        code,
        version: symptoms.version.to_owned(),
        message: format!("{}: {message}", symptoms.version),
        cure,
        count,
    };
    found.into_iter().flatten().map(finding).collect()
}

type Found = (&'static str, String, String, u64);

fn sid_unknown(it: &Symptoms<'_>) -> Option<Found> {
    let seen = it.affinity.is_none() && it.sid_unknown > 0;
    seen.then(|| {
        let message = format!(
            "instances answered {} requests of long polling with \"Session ID unknown\": the requests of \
             one engine.io session come to several instances, because session_affinity is off",
            it.sid_unknown
        );
        ("sid_unknown", message, "session_affinity: true".to_owned(), it.sid_unknown)
    })
}

/// Affinity by a token in a cookie.
fn by_cookie<'a>(it: &Symptoms<'a>) -> Option<&'a Affinity> {
    it.affinity.filter(|affinity| affinity.by.is_none())
}

fn secure_cookie_on_http(it: &Symptoms<'_>) -> Option<Found> {
    let affinity = by_cookie(it)?;
    let seen = affinity.cookie.secure == Secure::Always && !it.https && it.begun > 0;
    seen.then(|| {
        let message = "its cookie is always Secure, but clients come by plain HTTP and no trusted proxy says \
                       otherwise: browsers do not send it back"
            .to_owned();
        let name = &affinity.cookie.name;
        let cure = format!("affinity: {{ cookie: {{ name: {name}, secure: auto }} }}");
        ("secure_cookie_on_http", message, cure, it.begun)
    })
}

fn cookie_lost(it: &Symptoms<'_>) -> Option<Found> {
    let affinity = by_cookie(it)?;
    let is_explained = affinity.cookie.secure == Secure::Always && !it.https;
    let seen = it.begun >= MANY && it.kept == 0 && !is_explained;
    seen.then(|| {
        let cookie = &affinity.cookie;
        let (why, cure) = match (&cookie.domain, cookie.path.as_str()) {
            (Some(domain), _) => (
                format!("browsers drop a cookie for {domain} where pages have another domain"),
                format!("affinity: {{ cookie: {{ name: {}, domain: none }} }}", cookie.name),
            ),
            (None, path) if path != "/" => (
                format!("browsers send it to paths below {path} only"),
                format!("affinity: {{ cookie: {{ name: {}, path: / }} }}", cookie.name),
            ),
            (None, _) => (
                "clients that are no browsers seldom keep cookies; something in front may drop Set-Cookie"
                    .to_owned(),
                "affinity: { header: X-Burdock-Session }  # or engine_io: true, or by: header NAME"
                    .to_owned(),
            ),
        };
        let begun = it.begun;
        let message =
            format!("{begun} sessions were given a token and not one brought it back: {why}");
        ("cookie_lost", message, cure, begun)
    })
}

fn unknown_key(it: &Symptoms<'_>) -> Option<Found> {
    (it.unknown_key >= STRAYS).then(|| {
        let message = format!(
            "{} tokens were sealed with keys that are unknown here: replicas have different keys, or a key \
             was taken away while its tokens were in use",
            it.unknown_key
        );
        let cure = "affinity_keys: { file: affinity.keys }  # the same file on every replica".to_owned();
        ("unknown_key", message, cure, it.unknown_key)
    })
}

fn one_client_address(it: &Symptoms<'_>) -> Option<Found> {
    let by = it.affinity.and_then(|affinity| affinity.by.as_ref());
    let by_address =
        by == Some(&HashKey::ClientIp) || matches!(it.balance, Balance::Hash(HashKey::ClientIp));
    let seen = by_address && it.ready > 1 && it.busiest >= MANY && it.others == 0;
    seen.then(|| {
        let message = format!(
            "all {} requests came to one of {} instances: every client seems to have the address of a \
             proxy in front, which is not trusted to tell theirs",
            it.busiest, it.ready
        );
        let cure = "trusted_proxies: [ADDRESS_OF_THE_PROXY/32]".to_owned();
        ("one_client_address", message, cure, it.busiest)
    })
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Findings(Mutex<Vec<(Finding, SystemTime)>>);

impl Findings {
    /// All of it, with since when.
    pub fn all(&self) -> Vec<(Finding, SystemTime)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes over what a look has found at `now`; gives what was not known. A finding stays until its
    /// version is no longer as it was: a cure shows in the configuration, not in counts.
    pub fn take(&self, found: Vec<Finding>, now: SystemTime) -> Vec<Finding> {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |a: &Finding, b: &Finding| a.code == b.code && a.version == b.version;
        known.retain(|(old, _)| found.iter().any(|new| same(old, new)));
        let mut fresh = Vec::new();
        for new in found {
            match known.iter_mut().find(|(old, _)| same(old, &new)) {
                Some((old, _)) => *old = new,
                None => {
                    fresh.push(new.clone());
                    known.push((new, now));
                }
            }
        }
        fresh
    }
}

#[cfg(test)]
mod tests;
