//! Files to text or bytes, of a size that a configuration may have.
//!
//! The only place that reads files. Knows nothing of what is in them, but that the system keeps
//! certificates in some.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;

/// A configuration of ten thousand instances has a megabyte.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a file gave no text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("more than {MAX_FILE} bytes")]
    TooLarge,
    #[error("not a regular file")]
    Special,
    #[error("not UTF-8")]
    NotText(#[from] std::string::FromUtf8Error),
}

/// Of a file that is named on the command line, which may be a pipe.
pub(super) fn named(path: &Path) -> Result<String, ReadError> {
    Ok(String::from_utf8(all(File::open(path)?)?)?)
}

/// Of a file that another one names.
pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    Ok(String::from_utf8(bytes(path)?)?)
}

/// The same, whatever is in it.
pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    // A pipe or a device may never end, or wait for somebody, and whoever may have a configuration
    // checked can name it.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    match file.metadata()?.is_file() {
        true => all(file),
        false => Err(ReadError::Special),
    }
}

fn all(file: File) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    file.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}

/// Certificates of authorities.
pub(super) type Roots = Arc<[CertificateDer<'static>]>;

/// The authorities that the system trusts: of `SSL_CERT_FILE` and `SSL_CERT_DIR` where those are set,
/// else wherever this kind of system keeps them. An error if there is none.
pub(super) fn system_roots() -> Result<Roots, String> {
    let found = rustls_native_certs::load_native_certs();
    if found.certs.is_empty() {
        let first = found.errors.first();
        return Err(first.map_or_else(|| "none found".to_owned(), ToString::to_string));
    }
    Ok(found.certs.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whoever_starts_burdock_may_name_a_device() {
        let null = Path::new("/dev/null");
        assert_eq!(named(null).unwrap(), "");
        assert_eq!(text(null).unwrap_err().to_string(), "not a regular file");
    }
}
