//! `discovery` as text.

use super::{Text, scalar};
use crate::config::types::{Discovery, Names, Source};

pub(super) fn discovery(out: &mut Text, discovery: Option<&Discovery>) {
    let Some(Discovery { source, minimum }) = discovery else {
        return out.key("discovery", "off");
    };
    out.map("discovery", |out| {
        match source {
            Source::File(path) => out.key("file", scalar(&path.display().to_string())),
            Source::Dns(dns) => {
                match &dns.names {
                    Names::Addresses { host, port } => {
                        out.key("dns", scalar(&format!("{host}:{port}")));
                    }
                    Names::Services { name } => out.key("srv", scalar(name)),
                }
                out.duration("refresh", dns.refresh);
                out.list("resolvers", dns.resolvers.iter().map(|it| scalar(&it.to_string())));
            }
            Source::Etcd(keys) => {
                out.map("etcd", |out| {
                    super::etcd::etcd(out, &keys.etcd);
                    out.key("prefix", scalar(&keys.prefix));
                });
                out.duration("refresh", keys.refresh);
            }
        }
        out.key("minimum", minimum);
    });
}
