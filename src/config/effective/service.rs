//! A service and its `traffic_split`.

use super::{Text, networks, route, scalar, version};
use crate::config::types::{Mirror, Service, ShardBy, Split};
use crate::config::units::{format_percent, format_share, format_size};

pub(super) fn service(out: &mut Text, service: &Service) {
    out.list("hosts", service.hosts.iter().map(|host| scalar(host)));
    out.list("paths", service.paths.iter().map(|path| scalar(path)));
    out.map("access", |out| {
        out.key("allow", networks(&service.access.allow));
        out.key("deny", networks(&service.access.deny));
    });
    route::routes(out, &service.routes);
    match &service.split {
        None => out.key("traffic_split", "off"),
        Some(it) => split(out, it),
    }
    match &service.mirror {
        None => out.key("mirror", "off"),
        Some(it) => mirror(out, it),
    }
    out.map("versions", |out| {
        for it in &service.versions {
            out.map(&scalar(&it.name), |out| version(out, it));
        }
    });
}

fn mirror(out: &mut Text, mirror: &Mirror) {
    out.map("mirror", |out| {
        out.key("to", scalar(&mirror.to));
        out.key("share", format_percent(mirror.share));
        out.key("methods", mirror.methods.word());
        out.key("max_body", format_size(mirror.max_body));
        out.key("max_in_flight", mirror.max_in_flight);
    });
}

fn split(out: &mut Text, split: &Split) {
    out.map("traffic_split", |out| {
        out.key("shard_by", split.shard_by.word());
        if split.shard_by == ShardBy::Cookie {
            out.key("cookie", scalar(&split.cookie));
        }
        out.key("sessions_at_zero", split.at_zero.word());
        out.map("allocations", |out| {
            for (version, weight) in &split.allocations {
                out.key(&scalar(version), format_share(*weight));
            }
        });
    });
}
