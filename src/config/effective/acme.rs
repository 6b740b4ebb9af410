//! `acme` of a listener's `tls`, with all that it says but the keys.

use std::path::Path;

use super::{Text, scalar};
use crate::config::types::Acme;
use crate::config::units::format_duration;

pub(super) fn acme(out: &mut Text, acme: &Acme) {
    let path = |path: &Path| scalar(&path.display().to_string());
    out.list("domains", acme.domains.iter().map(|domain| scalar(domain)));
    out.switched("email", acme.email.as_deref().map(scalar));
    out.key("directory", scalar(&acme.directory));
    out.key("challenge", acme.challenge.word());
    out.key("ca", acme.ca.file.as_deref().map_or("system".to_owned(), path));
    out.key("state", path(&acme.state));
    out.key("renew_before", acme.renew_before.map_or("auto".to_owned(), format_duration));
    match &acme.external_account {
        None => out.key("external_account", "off"),
        Some(account) => out.map("external_account", |out| {
            out.key("key_id", scalar(&account.key_id));
            out.key("key_file", path(&account.key_file));
        }),
    }
    out.key("agree_to_terms", true);
}
