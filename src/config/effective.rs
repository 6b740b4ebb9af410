//! The configuration that is in effect, as a file that says all of it.
//!
//! Every key with its value, defaults included; secrets as their number only. The text loads again
//! to an equal [`Config`], unless keys of affinity tokens stand in the configuration itself.

mod acme;
mod discovery;
mod etcd;
mod fleet;
mod logs;
mod route;
mod service;
mod shared;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;

use super::types::{
    Acceptance, Action, Admin, Affinity, AffinityKeys, Balance, CacheControl, Check, CheckTls,
    Close, Config, Drain, Exit, FirstBurst, HashKey, InitialState, Instance, InstanceTls, Limits,
    Listener, OnRestart, ProxyVersion, RebalanceMode, Retry, SameSite, Secure, StateFile, Tickets,
    Timeouts, Tls, TlsVersion, User, Version, Websocket, Workers,
};
use super::units::{format_duration, format_percent, format_size};

/// The effective configuration as YAML.
pub fn effective(config: &Config) -> String {
    let mut out = Text::default();
    match config.workers {
        Workers::Auto => out.key("workers", "auto"),
        Workers::Count(count) => out.key("workers", count),
    }
    out.line("listeners:");
    for it in &config.listeners {
        out.line("  -");
        out.depth += 2;
        listener(&mut out, it);
        out.depth -= 2;
    }
    out.list("trusted_proxies", config.trusted_proxies.iter().map(|n| scalar(&n.to_string())));
    admin(&mut out, config.admin.as_ref());
    fleet::fleet(&mut out, config.fleet.as_deref());
    affinity_keys(&mut out, &config.affinity_keys);
    logs::access_log(&mut out, config.access_log.as_ref());
    logs::tracing(&mut out, config.tracing.as_deref());
    match &config.user {
        None => out.key("user", "none"),
        Some(User { name, group: None }) => out.key("user", scalar(name)),
        Some(User { name, group: Some(group) }) => {
            out.key("user", scalar(&format!("{name}:{group}")))
        }
    }
    match config.services.is_empty() {
        true => out.comment("the rest is the fleet's"),
        false => shared::shared(&mut out, config),
    }
    out.text
}

fn admin(out: &mut Text, admin: Option<&Admin>) {
    match admin {
        None => out.key("admin", "off"),
        Some(admin) => {
            let address = scalar(&admin.address.to_string());
            if admin.explicit {
                out.map("admin", |out| {
                    out.key("address", address);
                    let token = admin.token.as_ref();
                    out.key(
                        "token_file",
                        token.map_or("none".into(), |it| scalar(&it.file.display().to_string())),
                    );
                    out.key(
                        "state_file",
                        match &admin.state_file {
                            StateFile::Beside => "default".into(),
                            StateFile::At(file) => scalar(&file.display().to_string()),
                            StateFile::Off => "off".into(),
                        },
                    );
                });
            } else {
                // Written as a key it would no longer be a default, which may fail without harm.
                out.comment(&format!("admin: {{ address: {address} }}   by default"));
            }
        }
    }
}

fn listener(out: &mut Text, listener: &Listener) {
    out.key("address", scalar(&listener.address.to_string()));
    out.key("http2", listener.http2);
    let proxy_protocol = match listener.proxy_protocol {
        Acceptance::Off => "off",
        Acceptance::Accept => "accept",
        Acceptance::Require => "require",
    };
    out.key("proxy_protocol", proxy_protocol);
    out.map("access", |out| {
        out.key("allow", networks(&listener.access.allow));
        out.key("deny", networks(&listener.access.deny));
    });
    match listener.https_redirect {
        None => out.key("https_redirect", "off"),
        Some(redirect) => out.map("https_redirect", |out| {
            out.key("status", redirect.status);
            out.key("port", redirect.port);
        }),
    }
    match &listener.tls {
        None => out.key("tls", "off"),
        Some(it) => out.map("tls", |out| tls(out, it)),
    }
}

fn tls(out: &mut Text, tls: &Tls) {
    let path = |path: &Path| scalar(&path.display().to_string());
    match &tls.acme {
        None => out.key("acme", "off"),
        Some(it) => out.map("acme", |out| acme::acme(out, it)),
    }
    match &tls.certificates[..] {
        [] => out.key("certificates", "[]"),
        [..] => out.line("certificates:"),
    }
    for it in &tls.certificates {
        let ocsp = it.ocsp.as_deref().map_or("none".to_owned(), path);
        let [cert, key] = [&it.cert, &it.key].map(|file| path(file));
        out.line(&format!("  - {{ cert: {cert}, key: {key}, ocsp: {ocsp} }}"));
    }
    let word = TlsVersion::WORDS.iter().find(|(_, version)| *version == tls.min_version);
    out.optional("min_version", word.map(|(word, _)| scalar(word)));
    match &tls.tickets {
        Tickets::Auto => out.key("tickets", "auto"),
        Tickets::Off => out.key("tickets", "off"),
        Tickets::Shared { file, keys } => {
            out.comment(&format!("{} in this file", counted(keys.len())));
            out.map("tickets", |out| out.key("file", path(file)));
        }
    }
    match &tls.client_certificates {
        None => out.key("client_certificates", "off"),
        Some(asked) => out.map("client_certificates", |out| {
            out.key("ca", path(&asked.ca));
            out.key("mode", if asked.required { "required" } else { "optional" });
            let [certificate, fingerprint] =
                [&asked.certificate_header, &asked.fingerprint_header].map(Option::as_deref);
            out.switched("certificate_header", certificate.map(scalar));
            out.switched("fingerprint_header", fingerprint.map(scalar));
        }),
    }
    out.duration("handshake_timeout", tls.handshake_timeout);
    match tls.hsts {
        None => out.key("hsts", "off"),
        Some(hsts) => out.map("hsts", |out| {
            out.duration("max_age", hsts.max_age);
            out.key("include_subdomains", hsts.include_subdomains);
            out.key("preload", hsts.preload);
        }),
    }
}

fn networks(networks: &[IpNet]) -> String {
    let texts: Vec<_> = networks.iter().map(|network| scalar(&network.to_string())).collect();
    format!("[{}]", texts.join(", "))
}

fn limits(out: &mut Text, limits: &Limits) {
    out.optional("max_body", limits.max_body.map(format_size));
    out.optional("min_upload", limits.min_upload.map(format_size));
    out.optional("min_download", limits.min_download.map(format_size));
}

fn counted(keys: usize) -> String {
    format!("{keys} {}", if keys == 1 { "key" } else { "keys" })
}

fn affinity_keys(out: &mut Text, keys: &AffinityKeys) {
    let count = counted(keys.inline.len());
    match &keys.file {
        Some(file) => {
            out.comment(&format!("{count} in this file"));
            out.map("affinity_keys", |out| out.key("file", scalar(&file.display().to_string())));
        }
        None => {
            if !keys.inline.is_empty() {
                out.comment(&format!("masked: {count} in the configuration itself"));
            }
            out.key("affinity_keys", "none");
        }
    }
}

fn version(out: &mut Text, version: &Version) {
    out.key("session_affinity", version.affinity.is_some());
    if let Some(it) = &version.affinity {
        out.map("affinity", |out| affinity(out, it));
    }
    balance(out, &version.balance);
    instances(out, &version.instances);
    discovery::discovery(out, version.discovery.as_ref());
    match &version.tls {
        None => out.key("tls", "off"),
        Some(tls) => instance_tls(out, tls),
    }
    out.key("protocol", version.protocol.word());
    check(out, "readiness_check", version.readiness_check.as_ref());
    check(out, "liveness_check", version.liveness_check.as_ref());
    let proxy_protocol = version.proxy_protocol.map(|version| match version {
        ProxyVersion::V1 => "v1",
        ProxyVersion::V2 => "v2",
    });
    out.switched("proxy_protocol", proxy_protocol);
    match &version.breaker {
        None => out.key("breaker", "off"),
        Some(breaker) => out.map("breaker", |out| {
            out.key("failures", breaker.failures);
            out.optional("error_share", breaker.error_share.map(format_percent));
            out.duration("window", breaker.window);
            out.key("min_requests", breaker.min_requests);
            out.duration("open", breaker.open);
            out.duration("max_open", breaker.max_open);
            out.key("trials", breaker.trials);
            out.key("max_ejected", format_percent(breaker.max_ejected));
        }),
    }
    out.key("panic_threshold", format_percent(version.panic_threshold));
    out.optional("slow_start", version.slow_start.map(format_duration));
    out.map("retry", |out| retry(out, &version.retry));
    out.map("queue", |out| {
        out.key("max", version.queue.max);
        out.duration("timeout", version.queue.timeout);
    });
    match &version.concurrency {
        None => out.key("concurrency", "off"),
        Some(concurrency) => out.map("concurrency", |out| {
            out.key("initial", concurrency.initial);
            out.key("min", concurrency.min);
            out.key("max", concurrency.max);
            out.key("tolerance", format_percent(concurrency.tolerance));
        }),
    }
    out.list("upgrades", version.upgrades.iter().map(|name| scalar(name)));
    out.map("websocket", |out| websocket(out, &version.websocket));
    out.map("rebalance", |out| {
        let mode = match version.rebalance.mode {
            RebalanceMode::Never => "never",
            RebalanceMode::Bounded => "bounded",
        };
        out.key("mode", mode);
        out.key("max_per_minute", version.rebalance.max_per_minute);
        out.key("tolerance", format_percent(version.rebalance.tolerance));
    });
    drain(out, "drain", &version.drain);
    match &version.rate_limit {
        None => out.key("rate_limit", "off"),
        Some(limit) => out.map("rate_limit", |out| {
            out.key("by", scalar(&hash_key(&limit.by)));
            out.key("requests", limit.requests);
            out.duration("per", limit.per);
            out.key("burst", limit.burst);
        }),
    }
    timeouts(out, &version.timeouts);
    out.map("limits", |out| limits(out, &version.limits));
}

fn websocket(out: &mut Text, websocket: &Websocket) {
    out.optional("max_lifetime", websocket.max_lifetime.map(format_duration));
    out.key("lifetime_jitter", format_percent(websocket.lifetime_jitter));
    out.optional("idle_timeout", websocket.idle_timeout.map(format_duration));
    out.optional("ping_interval", websocket.ping_interval.map(format_duration));
    out.duration("close_grace", websocket.close_grace);
    out.optional("max_new_per_second", websocket.max_new_per_second);
    out.map("closes", |out| {
        let closes = &websocket.closes;
        close(out, "lifetime", &closes.lifetime);
        close(out, "idle", &closes.idle);
        close(out, "ping_timeout", &closes.ping_timeout);
        out.map("removed", |out| leave(out, &closes.removed));
        out.map("draining", |out| leave(out, &closes.draining));
        for (key, exit, when) in [
            ("disabled", &closes.disabled, closes.disabled_window),
            ("unready", &closes.unready, closes.unready_window),
            ("dead", &closes.dead, closes.dead_window),
        ] {
            out.map(key, |out| {
                leave(out, exit);
                window(out, when);
            });
        }
        close(out, "rebalanced", &closes.rebalanced);
        close(out, "shutdown", &closes.shutdown);
        close(out, "instance", &closes.instance);
    });
}

fn leave(out: &mut Text, exit: &Exit) {
    let action = match exit.action {
        Action::Keep => "keep",
        Action::Close => "close",
    };
    out.key("action", action);
    words(out, &exit.close);
}

fn close(out: &mut Text, key: &str, close: &Close) {
    out.map(key, |out| words(out, close));
}

fn words(out: &mut Text, close: &Close) {
    out.key("code", close.code);
    out.key("reason", scalar(&close.reason));
}

fn affinity(out: &mut Text, affinity: &Affinity) {
    if let Some(by) = &affinity.by {
        out.key("by", scalar(&hash_key(by)));
        out.switched("load_factor", affinity.load_factor.map(format_percent));
        return;
    }
    out.key("by", "token");
    let cookie = &affinity.cookie;
    out.map("cookie", |out| {
        out.key("name", scalar(&cookie.name));
        out.optional("domain", cookie.domain.as_deref().map(scalar));
        out.key("path", scalar(&cookie.path));
        out.key(
            "secure",
            match cookie.secure {
                Secure::Auto => "auto",
                Secure::Always => "always",
                Secure::Never => "never",
            },
        );
        out.key("http_only", cookie.http_only);
        out.key(
            "same_site",
            match cookie.same_site {
                SameSite::Strict => "strict",
                SameSite::Lax => "lax",
                SameSite::None => "none",
            },
        );
        out.key("partitioned", cookie.partitioned);
        out.optional("max_age", cookie.max_age.map(format_duration));
    });
    out.key("cross_site_cookie", affinity.cross_site_cookie);
    out.switched("header", affinity.header.as_deref().map(scalar));
    out.switched("query", affinity.query.as_deref().map(scalar));
    out.key("engine_io", affinity.engine_io);
    out.optional("ttl", affinity.ttl.map(format_duration));
    out.optional("idle_ttl", affinity.idle_ttl.map(format_duration));
    out.key("pass_cookie", affinity.pass_cookie);
    out.key("strict", affinity.strict);
    let cache_control = match affinity.cache_control {
        CacheControl::Private => "private",
        CacheControl::Off => "off",
    };
    out.key("cache_control", cache_control);
    out.switched("instance_header", affinity.instance_header.as_deref().map(scalar));
    let first_burst = match affinity.first_burst {
        FirstBurst::Off => "off",
        FirstBurst::Client => "client",
    };
    out.key("first_burst", first_burst);
}

fn balance(out: &mut Text, balance: &Balance) {
    let key = match balance {
        Balance::Even => return out.key("balance", "even"),
        Balance::LeastRequests => return out.key("balance", "least_requests"),
        Balance::LeastSessions => return out.key("balance", "least_sessions"),
        Balance::Random => return out.key("balance", "random"),
        Balance::Hash(key) => key,
    };
    out.key("balance", "hash");
    out.key("hash_by", scalar(&hash_key(key)));
}

fn hash_key(key: &HashKey) -> String {
    match key {
        HashKey::ClientIp => "client_ip".to_owned(),
        HashKey::Path => "path".to_owned(),
        HashKey::Uri => "uri".to_owned(),
        HashKey::Header(name) => format!("header {name}"),
        HashKey::Cookie(name) => format!("cookie {name}"),
        HashKey::Query(name) => format!("query {name}"),
    }
}

fn instances(out: &mut Text, instances: &[Instance]) {
    if instances.is_empty() {
        return out.line("instances: []");
    }
    out.line("instances:");
    for instance in instances {
        let [name, address] = [&instance.name, &instance.address].map(|text| scalar(text));
        let limit = |limit: Option<u32>| limit.map_or("none".to_owned(), |it| it.to_string());
        let rest = format!(
            "weight: {}, state: {}, max_requests: {}, max_tunnels: {}",
            instance.weight,
            instance.state.word(),
            limit(instance.max_requests),
            limit(instance.max_tunnels),
        );
        if instance.name == instance.address {
            out.line(&format!("  - {{ address: {address}, {rest} }}"));
        } else {
            out.line(&format!("  - {{ name: {name}, address: {address}, {rest} }}"));
        }
    }
}

fn instance_tls(out: &mut Text, tls: &InstanceTls) {
    let path = |path: &PathBuf| scalar(&path.display().to_string());
    let certificate = tls.certificate.as_ref();
    out.map("tls", |out| {
        out.optional("ca", tls.ca.as_ref().map(path));
        out.optional("server_name", tls.server_name.as_ref().map(|name| scalar(&name.to_str())));
        out.key("verify", tls.verify);
        out.optional("cert", certificate.map(|certificate| path(&certificate.cert)));
        out.optional("key", certificate.map(|certificate| path(&certificate.key)));
    });
}

fn check(out: &mut Text, key: &str, check: Option<&Check>) {
    let Some(check) = check else { return out.key(key, "off") };
    let is_readiness = key == "readiness_check";
    out.map(key, |out| {
        out.optional("path", check.path.as_deref().map(scalar));
        out.optional("grpc", check.grpc.as_deref().map(scalar));
        out.optional("port", check.port);
        match &check.tls {
            CheckTls::Auto => out.key("tls", "auto"),
            CheckTls::Off => out.key("tls", "off"),
            CheckTls::On(tls) => instance_tls(out, tls),
        }
        out.optional("host", check.host.as_deref().map(scalar));
        out.duration("timeout", check.timeout);
        out.duration("check_interval", check.interval);
        out.key("failure_threshold", check.failure_threshold);
        out.key("success_threshold", check.success_threshold);
        if is_readiness {
            out.duration("app_start_timeout", check.app_start_timeout);
            out.key(
                "initial_state",
                match check.initial_state {
                    InitialState::Unknown => "unknown",
                    InitialState::Ready => "ready",
                },
            );
            out.key("agent", check.agent);
            out.optional("incarnation_header", check.incarnation_header.as_deref().map(scalar));
            let on_restart = match check.on_restart {
                OnRestart::Keep => "keep",
                OnRestart::Rehome => "re-home",
            };
            out.key("on_restart", on_restart);
        } else {
            out.duration("initial_delay", check.initial_delay);
        }
        out.list("expected_statuses", check.expected_statuses.iter().map(statuses));
    });
}

fn retry(out: &mut Text, retry: &Retry) {
    out.key("attempts", retry.attempts);
    out.key("max_body", format_size(retry.max_body as u64));
    out.key("budget", format_percent(retry.budget));
    out.key("budget_floor", retry.budget_floor);
    out.list("on", retry.on.iter().map(|condition| condition.label().to_owned()));
    out.list("statuses", retry.statuses.iter().map(statuses));
    out.optional("per_try_timeout", retry.per_try_timeout.map(format_duration));
    out.optional("hedge_after", retry.hedge_after.map(format_duration));
}

fn statuses((first, last): &(u16, u16)) -> String {
    if first == last { first.to_string() } else { format!("{first}-{last}") }
}

fn drain(out: &mut Text, key: &str, drain: &Drain) {
    out.map(key, |out| window(out, *drain));
}

fn window(out: &mut Text, window: Drain) {
    out.duration("timeout", window.timeout);
    out.duration("spread", window.spread);
}

fn timeouts(out: &mut Text, timeouts: &Timeouts) {
    out.map("timeouts", |out| {
        out.duration("connect", timeouts.connect);
        out.duration("first_byte", timeouts.first_byte);
        out.duration("idle", timeouts.idle);
    });
}

/// YAML under construction.
#[derive(Default)]
struct Text {
    text: String,
    depth: usize,
}

impl Text {
    fn line(&mut self, content: &str) {
        self.text.push_str(&"  ".repeat(self.depth));
        self.text.push_str(content);
        self.text.push('\n');
    }

    fn comment(&mut self, content: &str) {
        self.line(&format!("# {content}"));
    }

    fn key(&mut self, key: &str, value: impl Display) {
        self.line(&format!("{key}: {value}"));
    }

    fn optional(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.key(key, value),
            None => self.key(key, "none"),
        }
    }

    fn switched(&mut self, key: &str, value: Option<impl Display>) {
        match value {
            Some(value) => self.key(key, value),
            None => self.key(key, "off"),
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.key(key, format_duration(value));
    }

    fn list(&mut self, key: &str, items: impl Iterator<Item = String>) {
        let items: Vec<String> = items.collect();
        self.key(key, format_args!("[{}]", items.join(", ")));
    }

    fn map(&mut self, key: &str, content: impl FnOnce(&mut Self)) {
        self.line(&format!("{key}:"));
        self.depth += 1;
        content(self);
        self.depth -= 1;
    }
}

/// Text as a YAML scalar: plain where YAML reads the plain form back as this very text.
fn scalar(text: &str) -> String {
    // A dash or a colon in front means something to YAML in some places and nothing in others.
    let is_tame = !text.starts_with(['-', ':'])
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-:/".contains(&byte));
    let is_same = || {
        serde_yaml::from_str::<Vec<serde_yaml::Value>>(&format!("[{text}]"))
            .is_ok_and(|items| items == [serde_yaml::Value::from(text)])
    };
    if is_tame && is_same() {
        return text.to_owned();
    }
    // A JSON string is a double-quoted YAML scalar.
    serde_json::Value::from(text).to_string()
}
