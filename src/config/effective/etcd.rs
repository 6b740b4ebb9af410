//! How an etcd is reached, as text.

use super::{Text, scalar};
use crate::config::types::Etcd;

pub(super) fn etcd(out: &mut Text, etcd: &Etcd) {
    let Etcd { endpoints, tls, user } = etcd;
    out.list("endpoints", endpoints.iter().map(|it| scalar(it)));
    if let Some(tls) = tls {
        let path = |path: &std::path::Path| scalar(&path.display().to_string());
        out.key("ca", tls.ca.as_deref().map_or("system".to_owned(), path));
        if let Some(certificate) = &tls.certificate {
            out.key("cert", path(&certificate.cert));
            out.key("key", path(&certificate.key));
        }
    }
    if let Some(user) = user {
        out.key("user", scalar(&user.name));
        out.key("password_file", scalar(&user.password_file.display().to_string()));
    }
}
