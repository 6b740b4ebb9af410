//! `fleet` as text.

use super::{Text, scalar};
use crate::config::types::Fleet;

pub(super) fn fleet(out: &mut Text, fleet: Option<&Fleet>) {
    let Some(Fleet { keys, name, keyring, config }) = fleet else { return out.key("fleet", "off") };
    out.map("fleet", |out| {
        out.map("etcd", |out| {
            super::etcd::etcd(out, &keys.etcd);
            out.key("prefix", scalar(&keys.prefix));
        });
        out.key("name", scalar(name.as_deref().unwrap_or(Fleet::AUTO)));
        out.key("keyring", keyring);
        out.key("config", config);
    });
}
