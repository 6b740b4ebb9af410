//! Where the API server is, and in whose name it is asked: that of the pod's service account, unless
//! somebody says otherwise.
//!
//! Files are read again for every question: a token is replaced every hour or so, authorities now and
//! then. No message repeats a token.

use std::io::Read as _;
use std::path::Path;

use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::types::{InstanceTls, Kubernetes};
use crate::outward::Target;

/// Where a pod finds what its service account may use.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// A token has a kilobyte or two, all authorities of a system two hundred.
const LONGEST: u64 = 1024 * 1024;

/// Whom to ask, and how.
#[derive(Debug)]
pub(super) struct Access {
    pub(super) target: Target,
    /// Of the slices of the namespace.
    pub(super) path: String,
    /// What is shown.
    pub(super) token: Option<HeaderValue>,
}

impl Access {
    /// As things are now.
    pub(super) async fn of(of: &Kubernetes) -> Result<Self, String> {
        let of = of.clone();
        let look = move || look(&of, Path::new(ACCOUNT), |name| std::env::var(name).ok());
        let looked = tokio::task::spawn_blocking(look).await;
        looked.unwrap_or_else(|error| Err(format!("looking for the API server: {error}")))
    }
}

fn look(
    of: &Kubernetes,
    account: &Path,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Access, String> {
    let is_inside = of.api.is_none();
    let url = match &of.api {
        Some(url) => url.clone(),
        None => inside(variable)?,
    };
    let own = |name: &str| is_inside.then(|| account.join(name));
    let namespace = match &of.namespace {
        Some(namespace) => namespace.clone(),
        None => text(&account.join("namespace")).map_err(|error| {
            format!("{error}; needed: `namespace`, unless Burdock runs in a pod")
        })?,
    };
    if !namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-') {
        return Err(format!("{namespace:?} is no namespace"));
    }
    let token = match of.token_file.clone().or_else(|| own("token")) {
        Some(file) => Some(token(&file)?),
        None => None,
    };
    let tls = match url.starts_with("https:") {
        true => Some(verified(of.ca.clone().or_else(|| own("ca.crt")).as_deref())?),
        false => None,
    };
    let target = Target::new(&url, tls.as_ref()).map_err(|error| error.to_string())?;
    let before = url.splitn(4, '/').nth(3).map(|path| format!("/{path}")).unwrap_or_default();
    let path = format!("{before}/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices");
    Ok(Access { target, path, token })
}

/// What every container of a cluster is told.
fn inside(variable: impl Fn(&str) -> Option<String>) -> Result<String, String> {
    let names = ["KUBERNETES_SERVICE_HOST", "KUBERNETES_SERVICE_PORT"];
    match names.map(|name| variable(name).filter(|value| !value.is_empty())) {
        [Some(host), Some(port)] if host.contains(':') => Ok(format!("https://[{host}]:{port}")),
        [Some(host), Some(port)] => Ok(format!("https://{host}:{port}")),
        _ => {
            Err("KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT are not set; needed: `api`, \
                  unless Burdock runs in a pod"
                .to_owned())
        }
    }
}

fn token(file: &Path) -> Result<HeaderValue, String> {
    let text = text(file)?;
    let value = HeaderValue::try_from(format!("Bearer {text}")).ok().filter(|_| !text.is_empty());
    let mut value = value.ok_or_else(|| format!("{} has no token in it", file.display()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// TLS that believes whom these authorities vouch for, or those of the system.
fn verified(ca: Option<&Path>) -> Result<InstanceTls, String> {
    let roots: Vec<_> = match ca {
        Some(file) => {
            let text = text(file)?;
            let found: Result<Vec<_>, _> =
                CertificateDer::pem_slice_iter(text.as_bytes()).collect();
            found.map_err(|error| format!("{}: {error}", file.display()))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    if roots.is_empty() {
        let place = ca.map_or_else(|| "the system".to_owned(), |file| file.display().to_string());
        return Err(format!("{place} has no certificates of authorities"));
    }
    let ca = ca.map(Path::to_owned);
    Ok(InstanceTls { ca, roots: roots.into(), server_name: None, verify: true, certificate: None })
}

/// The text of a file, without the white space around it.
fn text(file: &Path) -> Result<String, String> {
    let mut text = String::new();
    let read = std::fs::File::open(file)
        .and_then(|file| file.take(LONGEST).read_to_string(&mut text))
        .map_err(|error| format!("reading {}: {error}", file.display()));
    read.map(|_length| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "ca.crt";

    fn of(api: Option<&str>) -> Kubernetes {
        let (service, api) = ("web".to_owned(), api.map(str::to_owned));
        Kubernetes { service, namespace: None, port: None, api, token_file: None, ca: None }
    }

    /// A folder as a pod has it.
    fn account() -> std::path::PathBuf {
        let folder = std::env::temp_dir().join(format!("burdock-account-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let key = rcgen::generate_simple_self_signed(["a.test".to_owned()]).unwrap();
        std::fs::write(folder.join(CA), key.cert.pem()).unwrap();
        std::fs::write(folder.join("token"), "abc.def\n").unwrap();
        std::fs::write(folder.join("namespace"), "chat").unwrap();
        folder
    }

    #[test]
    fn a_pod_needs_to_be_told_nothing_and_a_token_goes_nowhere_else() {
        let folder = account();
        let inside = |name: &str| match name {
            "KUBERNETES_SERVICE_HOST" => Some("fd00::1".to_owned()),
            _ => Some("443".to_owned()),
        };
        let found = look(&of(None), &folder, inside).unwrap();
        assert_eq!(found.target.place(), "[fd00::1]:443");
        assert_eq!(found.path, "/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices");
        let token = found.token.unwrap();
        assert_eq!((token.to_str().unwrap(), token.is_sensitive()), ("Bearer abc.def", true));

        std::fs::write(folder.join("token"), "ghi").unwrap();
        let found = look(&of(None), &folder, inside).unwrap();
        assert_eq!(found.token.unwrap(), "Bearer ghi", "it is read again");

        let found = look(&of(Some("http://127.0.0.1:8001/k8s/c")), &folder, |_| None).unwrap();
        assert_eq!((found.target.place().as_str(), found.token), ("127.0.0.1:8001", None));
        assert_eq!(found.path, "/k8s/c/apis/discovery.k8s.io/v1/namespaces/chat/endpointslices");

        let outside = look(&of(None), &folder, |_| None).unwrap_err();
        assert!(outside.contains("needed: `api`"), "{outside}");
        for (file, content, told) in [
            (CA, "", "no certificates of authorities"),
            ("token", "\n", "no token in it"),
            ("namespace", "../x", "\"../x\" is no namespace"),
        ] {
            std::fs::write(folder.join(file), content).unwrap();
            let problem = look(&of(None), &folder, inside).unwrap_err();
            assert!(problem.contains(told), "{file}: {problem}");
        }
        std::fs::remove_file(folder.join("namespace")).unwrap();
        let problem = look(&of(Some("http://a")), &folder, |_| None).unwrap_err();
        assert!(problem.contains("needed: `namespace`"), "{problem}");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
