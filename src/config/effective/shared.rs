//! What the balancers of a fleet may share, as text.

use super::{Text, drain, scalar, service};
use crate::config::types::Config;
use crate::config::units::format_size;

/// What a fleet may share.
pub(super) fn shared(out: &mut Text, config: &Config) {
    out.map("forwarding", |out| {
        out.key("x_forwarded", config.forwarding.x_forwarded);
        out.key("forwarded", config.forwarding.forwarded);
        out.key("request_id", config.forwarding.request_id);
        out.key(
            "via",
            config.forwarding.via.as_ref().map_or("off".into(), |via| scalar(via.name())),
        );
    });
    out.map("timeouts", |out| {
        out.duration("header_read", config.client_timeouts.header_read);
        out.duration("keep_alive", config.client_timeouts.keep_alive);
    });
    out.map("limits", |out| {
        let limits = &config.client_limits;
        out.optional("connections", limits.connections);
        out.optional("connections_per_client", limits.connections_per_client);
        out.key("ipv6_prefix", limits.ipv6_prefix);
        out.key("head", format_size(limits.head as u64));
        out.key("fields", limits.fields);
        out.key("uri", format_size(limits.uri as u64));
        out.key("retry_memory", format_size(limits.retry_memory));
    });
    drain(out, "shutdown", &config.shutdown);
    drain(out, "upgrade", &config.upgrade);
    out.map("services", |out| {
        for it in &config.services {
            out.map(&scalar(&it.name), |out| service::service(out, it));
        }
    });
}
