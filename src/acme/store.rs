//! The folder of accounts and certificates: one below it for each CA. Only its owner may read it; what
//! is in a file is all of one version or all of another, whenever the power goes.
//!
//! Keys are secrets: no message repeats what is in a file.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::acme::pace;
use crate::tls::automatic::InUse;
use crate::tls::{names, server};

/// Something is wrong with the folder.
#[derive(Debug, thiserror::Error)]
pub(super) enum StoreError {
    /// The system said no.
    #[error("{action} {}: {cause}", path.display())]
    Io { action: &'static str, path: PathBuf, cause: io::Error },
    /// A file is not what it was written as.
    #[error("{}: {why}", path.display())]
    Content { path: PathBuf, why: String },
}

/// An account as it is kept.
#[derive(Serialize, Deserialize)]
pub(super) struct Account {
    /// Whom the CA was told that it may write to.
    pub(super) email: Option<String>,
    /// What the CA knows it by, and its key.
    pub(super) credentials: Value,
}

/// The files of one CA.
#[derive(Debug)]
pub(super) struct Store {
    folder: PathBuf,
}

/// Held while something is ordered; no other process does meanwhile.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Store {
    /// Those below `state` of the CA at `directory`.
    pub(super) fn of(state: &Path, directory: &str) -> Self {
        // Its host tells a reader which one it is, the digest one from another of the same host.
        let host = directory.parse::<http::Uri>().ok().and_then(|url| Some(url.host()?.to_owned()));
        let host = host.unwrap_or_default().replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let digest = Sha256::digest(directory.as_bytes());
        let digest: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
        Self { folder: state.join(format!("{host}-{digest}")) }
    }

    /// Makes the folder, and takes it if no other process has it.
    pub(super) fn lock(&self) -> Result<Option<Lock>, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|cause| self.failed("making", "", cause))?;
        let opened = private().create(true).truncate(false).open(self.folder.join("lock"));
        let file = opened.map_err(|cause| self.failed("opening", "lock", cause))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Lock { _file: file })),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(cause)) => Err(self.failed("locking", "lock", cause)),
        }
    }

    /// The certificate of `domain`, if there is one.
    pub(super) fn certificate(&self, domain: &str) -> Result<Option<InUse>, StoreError> {
        let name = format!("{domain}.pem");
        let Some(text) = self.read(&name)? else { return Ok(None) };
        let bad = |why| StoreError::Content { path: self.folder.join(&name), why };
        in_use(&text, domain).map(Some).map_err(bad)
    }

    /// Keeps a certificate with its key.
    pub(super) fn keep_certificate(&self, domain: &str, pem: &str) -> Result<(), StoreError> {
        self.replace(&format!("{domain}.pem"), pem)
    }

    /// The account, if there is one.
    pub(super) fn account(&self) -> Result<Option<Account>, StoreError> {
        let Some(text) = self.read(ACCOUNT)? else { return Ok(None) };
        // What the parser says might repeat some of it.
        let bad = |_| StoreError::Content {
            path: self.folder.join(ACCOUNT),
            why: "holds no account; remove it to make another".to_owned(),
        };
        serde_json::from_slice(&text).map(Some).map_err(bad)
    }

    /// Keeps an account.
    pub(super) fn keep_account(&self, account: &Account) -> Result<(), StoreError> {
        let text = serde_json::to_string_pretty(account)
            .map_err(|error| self.failed("writing", ACCOUNT, error.into()))?;
        self.replace(ACCOUNT, &text)
    }

    /// Puts away an account that the CA does not know any more.
    pub(super) fn forget_account(&self) -> Result<(), StoreError> {
        let (here, there) = (self.folder.join(ACCOUNT), self.folder.join("account.json.unknown"));
        std::fs::rename(here, there).map_err(|cause| self.failed("renaming", ACCOUNT, cause))
    }

    /// When there were orders, and for which host. A file that makes no sense says nothing.
    pub(super) fn orders(&self) -> Vec<(u64, String)> {
        let text = self.read(ORDERS).ok().flatten().unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let order = |line: &str| {
            let (at, domain) = line.split_once(' ')?;
            Some((at.parse().ok()?, domain.to_owned()))
        };
        text.lines().filter_map(order).collect()
    }

    /// Notes an order that is about to be made.
    pub(super) fn note_order(&self, domain: &str, now: u64) -> Result<(), StoreError> {
        let orders = self.orders();
        let line = |(at, domain): &(u64, String)| format!("{at} {domain}\n");
        let recent = pace::recent(&orders, now).map(line);
        let text: String = recent.chain([format!("{now} {domain}\n")]).collect();
        self.replace(ORDERS, &text)
    }

    fn read(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        match std::fs::read(self.folder.join(name)) {
            Ok(text) => Ok(Some(text)),
            Err(cause) if cause.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(cause) => Err(self.failed("reading", name, cause)),
        }
    }

    /// Beside the old file first, then in its place.
    fn replace(&self, name: &str, text: &str) -> Result<(), StoreError> {
        let (there, beside) = (self.folder.join(name), self.folder.join(format!(".{name}.new")));
        let written = || {
            let mut file = private().create(true).truncate(true).open(&beside)?;
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            std::fs::rename(&beside, there)?;
            File::open(&self.folder)?.sync_all()
        };
        written().map_err(|cause| self.failed("writing", name, cause))
    }

    fn failed(&self, action: &'static str, name: &str, cause: io::Error) -> StoreError {
        StoreError::Io { action, path: self.folder.join(name), cause }
    }
}

const ACCOUNT: &str = "account.json";
const ORDERS: &str = "orders";

/// Readable by its owner only, from the first byte on.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).mode(0o600);
    options
}

/// The certificate of `domain` with its key, from PEM of both.
pub(super) fn in_use(pem: &[u8], domain: &str) -> Result<InUse, String> {
    let key = PrivateKeyDer::from_pem_slice(pem).map_err(|_| "no private key in it".to_owned())?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let chain = chain.map_err(|error| error.to_string())?;
    let first = chain.first().ok_or_else(|| "no certificate in it".to_owned())?;
    let hosts = names::names(first).map_err(|error| error.to_string())?;
    if !hosts.iter().any(|host| host == domain) {
        return Err(format!("the certificate is for {}, not for {domain}", hosts.join(", ")));
    }
    let (not_before, not_after) = (names::not_before(first), names::not_after(first));
    let key = server::matched(chain, &key).map_err(|error| error.to_string())?;
    Ok(InUse { key: Arc::new(key), not_before, not_after })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = format!("burdock-acme-{name}-{}", std::process::id());
            Self(std::env::temp_dir().join(folder))
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            drop(std::fs::remove_dir_all(&self.0));
        }
    }

    fn pem(domain: &str) -> String {
        let made = rcgen::generate_simple_self_signed([domain.to_owned()]).unwrap();
        format!("{}{}", made.signing_key.serialize_pem(), made.cert.pem())
    }

    #[test]
    fn what_is_kept_is_found_and_its_owners_alone() {
        let scratch = Scratch::new("kept");
        let store = Store::of(&scratch.0, "https://ca.test/dir");
        assert!(
            store.certificate("a.test").unwrap().is_none() && store.account().unwrap().is_none()
        );
        let lock = store.lock().unwrap().expect("nobody has it");
        assert!(store.lock().unwrap().is_none(), "only one has it");
        drop(lock);
        assert!(store.lock().unwrap().is_some());
        store.keep_certificate("a.test", &pem("a.test")).unwrap();
        store.keep_account(&Account { email: None, credentials: Value::Null }).unwrap();
        store.note_order("a.test", 10_000).unwrap();
        store.note_order("b.test", 10_001).unwrap();
        let found = store.certificate("a.test").unwrap().unwrap();
        assert!(found.not_before < found.not_after);
        assert_eq!(store.orders(), [(10_000, "a.test".to_owned()), (10_001, "b.test".to_owned())]);
        store.note_order("b.test", 13_600).unwrap();
        assert_eq!(store.orders().len(), 2);
        for entry in std::fs::read_dir(&store.folder).unwrap() {
            let mode = entry.unwrap().metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        for folder in [&scratch.0, &store.folder] {
            assert_eq!(folder.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        }
        let other = Store::of(&scratch.0, "https://ca.test/other");
        assert!(other.certificate("a.test").unwrap().is_none());
    }

    #[test]
    fn what_is_of_no_use_is_told_without_its_content() {
        let scratch = Scratch::new("useless");
        let store = Store::of(&scratch.0, "https://ca.test/dir");
        drop(store.lock().unwrap());
        let (a, b) = (pem("a.test"), pem("b.test"));
        let key_of_b = &b[..b.find("-----BEGIN CERTIFICATE").unwrap()];
        let cert_of_a = &a[a.find("-----BEGIN CERTIFICATE").unwrap()..];
        for (text, why) in [
            (String::new(), "no private key in it"),
            (key_of_b.to_owned(), "no certificate in it"),
            (b.clone(), "is for b.test, not for a.test"),
            (format!("{key_of_b}{cert_of_a}"), "a.test.pem: "),
        ] {
            store.keep_certificate("a.test", &text).unwrap();
            let error = store.certificate("a.test").unwrap_err().to_string();
            assert!(error.contains(why), "{error}");
            assert!(!error.contains("BEGIN") && !error.contains(&key_of_b[40..60]), "{error}");
        }
        store.replace(ACCOUNT, "{secret").unwrap();
        let error = store.account().map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("holds no account") && !error.contains("secret"), "{error}");
    }
}
