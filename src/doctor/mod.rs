//! Classic mistakes, told by what they look like from outside.
//!
//! [`diagnose`] is pure: what was seen lately and a configuration in, findings out, each with the line that
//! cures it. A warning that is wrong once is not read the next time: each needs evidence that neither a
//! robot, a health checker nor a restart gives. [`evidence`] holds what requests leave, [`rounds`] looks at it
//! and tells of what is found. Read [`Symptoms`] first.

pub mod evidence;
pub mod findings;
pub mod rounds;

use crate::config::places::Places;
use crate::config::types::{Affinity, Balance, HashKey, Secure};
use crate::doctor::evidence::Voted;

/// Fewer sessions than this say nothing of cookies.
const MANY: u64 = 100;
/// Clients that came again without their token: more than there are checkers and robots about a service.
const CLIENTS: u64 = 20;
/// The same where the configuration explains it.
const FEW_CLIENTS: u64 = 3;
/// Networks that tokens of unknown keys come from: more than one forger has.
const STRANGERS: u64 = 10;
/// A session is unknown once where its instance was about to go.
const MISLED: u64 = 3;
/// Clients that one address names.
const NAMED: u32 = 8;
/// Different seconds in which it does.
const SECONDS: u64 = 4;

/// What one version looks like: its configuration, and what was seen of it lately.
#[derive(Debug, Clone, Copy)]
pub struct Symptoms<'a> {
    /// Its service.
    pub service: &'a str,
    /// The version.
    pub version: &'a str,
    /// Its affinity.
    pub affinity: Option<&'a Affinity>,
    /// How it spreads what is bound to nothing.
    pub balance: &'a Balance,
    /// Whether a client can come by https, or a proxy in front say that it has.
    pub https: bool,
    /// Whether any proxy is trusted.
    pub trusts: bool,
    /// Sessions begun.
    pub begun: u64,
    /// Requests that reached their bound instance.
    pub kept: u64,
    /// Sessions that moved.
    pub moved: u64,
    /// Clients that came again and again without the token that they were given.
    pub forgetful: u64,
    /// Tokens rejected because no key opens them.
    pub unknown_key: u64,
    /// Networks that those came from.
    pub strangers: u64,
    /// Answers that an engine.io session is unknown that another instance had opened.
    pub misled: u64,
    /// Where those come from whose address decides where they go.
    pub voted: Option<&'a Voted>,
    /// Instances that take new sessions.
    pub ready: usize,
}

/// What to write into the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cure {
    key: &'static str,
    /// Whether that is a key of the file, not of the version.
    is_of_file: bool,
    value: String,
    /// What only the operator knows and has to be so.
    condition: Option<String>,
}

impl Cure {
    fn of_version(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, is_of_file: false, value: value.into(), condition: None }
    }

    fn of_file(key: &'static str, value: impl Into<String>) -> Self {
        Self { key, is_of_file: true, value: value.into(), condition: None }
    }

    /// With the place where it is to be written.
    fn at(&self, places: &Places, symptoms: &Symptoms<'_>) -> String {
        let place = match self.is_of_file {
            true => places.of_file(self.key),
            false => places.of_version(symptoms.service, symptoms.version, self.key),
        };
        match &self.condition {
            Some(condition) => format!("if {condition}: {place}: {}", self.value),
            None => format!("{place}: {}", self.value),
        }
    }
}

/// Something that is probably wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Names it.
    pub code: &'static str,
    /// Of this service.
    pub service: String,
    /// Of this version.
    pub version: String,
    /// What is wrong, and how that can be seen.
    pub message: String,
    /// The line of the configuration that cures it: `FILE:LINE: KEY: VALUE`, or `if CONDITION: ` and that.
    pub cure: String,
    /// How often it was seen.
    pub count: u64,
}

/// What is probably wrong with a version that looks like this.
pub fn diagnose(symptoms: &Symptoms<'_>, places: &Places) -> Vec<Finding> {
    let found = [
        sid_unknown(symptoms),
        secure_cookie_on_http(symptoms),
        cookie_lost(symptoms),
        unknown_key(symptoms),
        one_client_address(symptoms),
    ];
    let (service, version) = (symptoms.service, symptoms.version);
    let finding = |(code, message, cure, count): Found| Finding {
        code,
        service: service.to_owned(),
        version: version.to_owned(),
        message: format!("{service}/{version}: {message}"),
        cure: cure.at(places, symptoms),
        count,
    };
    found.into_iter().flatten().map(finding).collect()
}

type Found = (&'static str, String, Cure, u64);

fn sid_unknown(it: &Symptoms<'_>) -> Option<Found> {
    let seen = it.affinity.is_none() && it.misled >= MISLED;
    seen.then(|| {
        let message = format!(
            "instances answered {} requests of long polling with \"Session ID unknown\" for sessions that \
             other instances had opened: session_affinity is off, so that the requests of one engine.io \
             session come to several instances",
            it.misled
        );
        ("sid_unknown", message, Cure::of_version("session_affinity", "true"), it.misled)
    })
}

/// Affinity by a token in a cookie.
fn by_cookie<'a>(it: &Symptoms<'a>) -> Option<&'a Affinity> {
    it.affinity.filter(|affinity| affinity.by.is_none())
}

/// Whether the configuration says that browsers keep the cookie to themselves.
fn is_secure_on_http(it: &Symptoms<'_>, affinity: &Affinity) -> bool {
    affinity.cookie.secure == Secure::Always && !it.https
}

fn secure_cookie_on_http(it: &Symptoms<'_>) -> Option<Found> {
    let affinity = by_cookie(it)?;
    let seen = is_secure_on_http(it, affinity) && it.kept == 0 && it.forgetful >= FEW_CLIENTS;
    seen.then(|| {
        let message = format!(
            "its cookie is always Secure, but clients come by plain HTTP and no trusted proxy says otherwise: \
             browsers do not send it back, and {} clients came again without it",
            it.forgetful
        );
        let value = format!("{{ name: {}, secure: auto }}", affinity.cookie.name);
        let cure = Cure::of_version("affinity.cookie", value);
        ("secure_cookie_on_http", message, cure, it.begun)
    })
}

fn cookie_lost(it: &Symptoms<'_>) -> Option<Found> {
    let affinity = by_cookie(it)?;
    let is_rare = it.kept.saturating_mul(100) < it.begun;
    let is_explained = is_secure_on_http(it, affinity);
    let seen = it.begun >= MANY && is_rare && it.forgetful >= CLIENTS && !is_explained;
    seen.then(|| {
        let cookie = &affinity.cookie;
        let (why, cure) = match (&cookie.domain, cookie.path.as_str()) {
            (Some(domain), _) => (
                format!("browsers drop a cookie for {domain} where pages have another domain"),
                Cure::of_version("affinity.cookie", format!("{{ name: {}, domain: none }}", cookie.name)),
            ),
            (None, path) if path != "/" => (
                format!("browsers send it to paths below {path} only"),
                Cure::of_version("affinity.cookie", format!("{{ name: {}, path: / }}", cookie.name)),
            ),
            (None, _) => (
                "clients that are no browsers seldom keep cookies; something in front may drop Set-Cookie"
                    .to_owned(),
                Cure::of_version(
                    "affinity.header",
                    "X-Burdock-Session  # or affinity.engine_io: true, or affinity.by: header NAME",
                ),
            ),
        };
        let (forgetful, begun) = (it.forgetful, it.begun);
        let message = format!(
            "{forgetful} clients came again and again without the cookie that they were given, and of {begun} \
             sessions hardly any brought it back: {why}"
        );
        ("cookie_lost", message, cure, begun)
    })
}

fn unknown_key(it: &Symptoms<'_>) -> Option<Found> {
    // A few are what is left of keys that were rotated away, or forged.
    let tokens = it.kept + it.moved + it.unknown_key;
    let seen = it.strangers >= STRANGERS && it.unknown_key.saturating_mul(20) >= tokens;
    seen.then(|| {
        let message = format!(
            "{} of {tokens} tokens, from {} addresses, were sealed with keys that are unknown here: replicas have \
             different keys, or a key was taken away while its tokens were in use",
            it.unknown_key, it.strangers
        );
        let cure = Cure::of_file("affinity_keys", "{ file: affinity.keys }  # the same on every replica");
        ("unknown_key", message, cure, it.unknown_key)
    })
}

fn one_client_address(it: &Symptoms<'_>) -> Option<Found> {
    let by = it.affinity.and_then(|affinity| affinity.by.as_ref());
    let by_address =
        by == Some(&HashKey::ClientIp) || matches!(it.balance, Balance::Hash(HashKey::ClientIp));
    let voted = it
        .voted
        .filter(|voted| voted.is_clear && voted.named >= NAMED && voted.seconds >= SECONDS)?;
    (by_address && it.ready > 1).then(|| {
        let Voted { address, all, named, .. } = voted;
        let message = format!(
            "nearly all of {all} requests came from {address}, which named {named} clients and more in \
             X-Forwarded-For or Forwarded, and go to one of {} instances, since the client's address decides: \
             {address} may be a proxy that is not trusted to tell who its clients are, or a client that \
             pretends to be one",
            it.ready
        );
        let prefix = if address.contains(':') { 128 } else { 32 };
        let more = if it.trusts { "..., " } else { "" };
        let cure = Cure {
            condition: Some(format!("{address} is a proxy of yours")),
            ..Cure::of_file("trusted_proxies", format!("[{more}{address}/{prefix}]"))
        };
        ("one_client_address", message, cure, *all)
    })
}

#[cfg(test)]
mod tests;
