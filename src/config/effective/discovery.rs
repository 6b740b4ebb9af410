//! `discovery` as text.

use super::{Text, scalar};
use crate::config::types::{Discovery, Docker, Kubernetes, Names, SlicePort, Source};

pub(super) fn discovery(out: &mut Text, discovery: Option<&Discovery>) {
    let Some(Discovery { source, minimum }) = discovery else {
        return out.key("discovery", "off");
    };
    out.map("discovery", |out| {
        match source {
            Source::File(path) => out.key("file", scalar(&path.display().to_string())),
            Source::Kubernetes(of) => out.map("kubernetes", |out| kubernetes(out, of)),
            Source::Docker(of) => out.map("docker", |out| docker(out, of)),
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

fn docker(out: &mut Text, of: &Docker) {
    out.key("service", scalar(&of.service));
    out.key("version", or_none(of.version.clone()));
    out.key("network", or_none(of.network.clone()));
    out.key("socket", scalar(&of.socket.display().to_string()));
}

fn or_none(text: Option<String>) -> String {
    text.map_or_else(|| "none".to_owned(), |it| scalar(&it))
}

fn kubernetes(out: &mut Text, of: &Kubernetes) {
    let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|it| it.display().to_string());
    out.key("service", scalar(&of.service));
    out.key("namespace", or_none(of.namespace.clone()));
    match &of.port {
        Some(SlicePort::Number(number)) => out.key("port", number),
        Some(SlicePort::Name(name)) => out.key("port", scalar(name)),
        None => out.key("port", "none"),
    }
    out.key("api", or_none(of.api.clone()));
    out.key("token_file", or_none(path(&of.token_file)));
    out.key("ca", or_none(path(&of.ca)));
}
