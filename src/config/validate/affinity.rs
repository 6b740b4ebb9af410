//! `session_affinity` and `affinity`: whether sessions stick, and what carries their token.
//!
//! Knows the rules that browsers hold cookies to; seals and reads none.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::names::{is_host, is_token};
use super::{LIMIT, LONGEST, version};
use crate::config::node::{Fields, Node};
use crate::config::tree::Data;
use crate::config::types::{Affinity, AffinityCookie, CacheControl, FirstBurst, SameSite, Secure};

/// Tokens count their age in seconds.
const LIFETIME: RangeInclusive<Duration> = Duration::from_secs(1)..=LONGEST;

/// `described` is what an app.yaml says about `session_affinity`.
pub(super) fn affinity(fields: &mut Fields<'_>, described: Option<bool>) -> Option<Affinity> {
    let is_on = switch(fields).or(described).unwrap_or(false);
    let node = fields.take("affinity");
    if let Some(node) = &node
        && !is_on
    {
        node.problem("no effect while session_affinity is off; needed: session_affinity: true");
    }
    let affinity = node.map(|node| details(&node).unwrap_or_default());
    is_on.then(|| affinity.unwrap_or_default())
}

/// `session_affinity` itself, at the version's level or under `network` as App Engine has it too.
fn switch(fields: &mut Fields<'_>) -> Option<bool> {
    let direct = fields.take("session_affinity");
    let network = fields.take("network").and_then(|node| node.fields("network"));
    let nested = network.and_then(|mut fields| {
        let node = fields.take("session_affinity");
        fields.finish();
        node
    });
    if let (Some(_), Some(nested)) = (&direct, &nested) {
        nested.problem("session_affinity is given twice; allowed: once");
    }
    // A wrong value counts as on: that `affinity` has no effect would be a second, false problem.
    direct.or(nested).map(|node| node.boolean().unwrap_or(true))
}

/// Keys that are about tokens.
const TOKEN_KEYS: [&str; 12] = [
    "cookie",
    "cross_site_cookie",
    "header",
    "query",
    "engine_io",
    "ttl",
    "idle_ttl",
    "pass_cookie",
    "strict",
    "cache_control",
    "instance_header",
    "first_burst",
];

fn details(node: &Node<'_>) -> Option<Affinity> {
    let mut fields = node.fields("affinity")?;
    let by = fields.take("by").and_then(|node| version::affinity_key(&node));
    let factor = fields.take("load_factor").filter(|node| !node.is_off());
    if by.is_none() {
        if let Some(node) = factor {
            node.problem("no effect on tokens; allowed: off, or beside a `by` other than token");
        }
        return Some(token(fields));
    }
    for key in TOKEN_KEYS {
        if let Some(node) = fields.take(key) {
            node.problem("no effect beside `by`, which needs no token; allowed: without `by`");
        }
    }
    fields.finish();
    let load_factor = factor.and_then(|node| node.excess(101, 1000));
    Some(Affinity { by, load_factor, ..Affinity::default() })
}

fn token(mut fields: Fields<'_>) -> Affinity {
    let default = Affinity::default();
    let cookie = fields.take("cookie").and_then(|node| cookie(&node)).unwrap_or_default();
    let cross_site_cookie = cross_site_cookie(&mut fields, &cookie);
    let header = fields.switched("header", header);
    let query = fields.switched("query", query);
    let engine_io = fields.boolean("engine_io", default.engine_io);
    let ttl = fields.optional("ttl", default.ttl, |node| node.duration(LIFETIME));
    let idle_ttl = fields.take("idle_ttl");
    let idle = idle_ttl.as_ref().filter(|node| node.as_text() != Some("none"));
    let idle = idle.and_then(|node| Some((node, node.duration(LIFETIME)?)));
    if let (Some(ttl), Some((node, idle))) = (ttl, &idle)
        && *idle > ttl
    {
        node.problem("longer than `ttl`; allowed: up to the value of `ttl`");
    }
    let pass_cookie = fields.boolean("pass_cookie", default.pass_cookie);
    let strict = fields.boolean("strict", default.strict);
    let cache_control = fields.take("cache_control").and_then(|node| cache_control(&node));
    let instance_header = instance_header(&mut fields, header.as_deref());
    let burst = |node: &Node<'_>| node.word(&[("client", FirstBurst::Client)]);
    let first_burst = fields.switched("first_burst", burst);
    let idle_ttl = idle.map(|(_, duration)| duration).or(default.idle_ttl);
    fields.finish();
    Affinity {
        by: None,
        load_factor: None,
        cookie,
        cross_site_cookie,
        header,
        query,
        engine_io,
        ttl,
        idle_ttl,
        pass_cookie,
        strict,
        cache_control: cache_control.unwrap_or_default(),
        instance_header,
        first_burst: first_burst.unwrap_or_default(),
    }
}

fn instance_header(fields: &mut Fields<'_>, carrier: Option<&str>) -> Option<String> {
    let name = fields.switched("instance_header", |node| Some((node.clone(), header(node)?)));
    let (node, name) = name?;
    if carrier == Some(&*name) {
        node.problem("also the carrier of tokens, `header`; allowed: another name");
    }
    Some(name)
}

fn cache_control(node: &Node<'_>) -> Option<CacheControl> {
    if node.is_off() {
        return Some(CacheControl::Off);
    }
    node.word(&[("private", CacheControl::Private), ("off", CacheControl::Off)])
}

fn cross_site_cookie(fields: &mut Fields<'_>, cookie: &AffinityCookie) -> bool {
    let Some(node) = fields.take("cross_site_cookie") else { return false };
    let is_on = node.boolean().unwrap_or(false);
    if is_on && cookie.secure == Secure::Never {
        node.problem("refused by browsers without Secure; needed: cookie.secure auto or always");
    }
    is_on
}

/// Fields that mean something else, here or to HTTP.
const OTHER_FIELDS: [&str; 14] = [
    "authorization",
    "connection",
    "content-length",
    "content-type",
    "cookie",
    "expect",
    "host",
    "set-cookie",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "via",
    "x-request-id",
];

/// The lower-case name of a field that Burdock may take out of messages.
fn header(node: &Node<'_>) -> Option<String> {
    node.parsed("a field of its own such as X-Burdock-Session, or off", |text| {
        let name = text.to_ascii_lowercase();
        let is_free = is_token(&name) && !OTHER_FIELDS.contains(&&*name);
        is_free.then_some(name)
    })
}

/// A parameter's name that no client encodes (RFC 3986 section 2.3).
fn query(node: &Node<'_>) -> Option<String> {
    node.parsed("letters, digits and . _ ~ -, or off", |text| {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._~-".contains(&byte);
        (!text.is_empty() && text.bytes().all(plain)).then(|| text.to_owned())
    })
}

fn cookie(node: &Node<'_>) -> Option<AffinityCookie> {
    let default = AffinityCookie::default();
    if node.as_text().is_some() {
        let cookie = AffinityCookie { name: cookie_name(node)?, ..default };
        report_conflicts(&cookie, node);
        return Some(cookie);
    }
    if !matches!(node.tree.data, Data::Map(_)) {
        return node.wrong("the name of the cookie, or a map of its attributes");
    }
    let mut fields = node.fields("cookie")?;
    let secure = [("auto", Secure::Auto), ("always", Secure::Always), ("never", Secure::Never)];
    let same_site =
        [("strict", SameSite::Strict), ("lax", SameSite::Lax), ("none", SameSite::None)];
    let cookie = AffinityCookie {
        name: fields.take("name").and_then(|node| cookie_name(&node)).unwrap_or(default.name),
        domain: fields.optional("domain", default.domain, domain),
        path: fields.take("path").and_then(|node| path(&node)).unwrap_or(default.path),
        secure: fields.take("secure").and_then(|node| node.word(&secure)).unwrap_or(default.secure),
        http_only: fields.boolean("http_only", default.http_only),
        same_site: fields
            .take("same_site")
            .and_then(|node| node.word(&same_site))
            .unwrap_or(default.same_site),
        partitioned: fields.boolean("partitioned", default.partitioned),
        max_age: fields.optional("max_age", default.max_age, max_age),
    };
    fields.finish();
    report_conflicts(&cookie, node);
    Some(cookie)
}

pub(super) fn cookie_name(node: &Node<'_>) -> Option<String> {
    node.parsed("letters, digits and !#$%&'*+-.^_`|~", |text| {
        is_token(text).then(|| text.to_owned())
    })
}

fn domain(node: &Node<'_>) -> Option<String> {
    node.parsed("a domain such as example.com, none", |text| {
        // A leading dot is allowed and without meaning (RFC 6265bis section 5.7).
        let name = text.strip_prefix('.').unwrap_or(text);
        is_host(name).then(|| name.to_ascii_lowercase())
    })
}

fn path(node: &Node<'_>) -> Option<String> {
    node.parsed(
        "a path that starts with /, without spaces, semicolons or control characters",
        |t| {
            let is_valid =
                t.starts_with('/') && t.bytes().all(|b| b.is_ascii_graphic() && b != b';');
            is_valid.then(|| t.to_owned())
        },
    )
}

fn max_age(node: &Node<'_>) -> Option<Duration> {
    let max_age = node.duration(LIMIT)?;
    if max_age.subsec_nanos() > 0 {
        node.problem("`Max-Age` counts whole seconds; allowed: a multiple of 1s");
    }
    Some(max_age)
}

/// Combinations that browsers refuse to store (RFC 6265bis sections 4.1.3 and 5.7).
fn report_conflicts(cookie: &AffinityCookie, node: &Node<'_>) {
    let never = cookie.secure == Secure::Never;
    let is_host = starts_with_ignoring_case(&cookie.name, "__Host-");
    let is_secure = starts_with_ignoring_case(&cookie.name, "__Secure-");
    if never && (is_host || is_secure) {
        let name = &cookie.name;
        node.problem(format_args!(
            "{name} is refused without Secure; allowed: secure auto, always"
        ));
    }
    if is_host && (cookie.path != "/" || cookie.domain.is_some()) {
        node.problem("a __Host- cookie is refused else; needed: path / and no domain");
    }
    if never && cookie.same_site == SameSite::None {
        node.problem("same_site none is refused without Secure; allowed: secure auto, always");
    }
    if never && cookie.partitioned {
        node.problem("partitioned is refused without Secure; allowed: secure auto, always");
    }
}

/// Browsers compare the prefixes so (RFC 6265bis section 5.7).
fn starts_with_ignoring_case(text: &str, prefix: &str) -> bool {
    text.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
