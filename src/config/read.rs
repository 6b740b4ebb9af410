//! Files to text or bytes, of a size that a configuration may have.
//!
//! The only place that reads files. Knows nothing of what is in them.

use std::io::Read;
use std::path::Path;

/// A configuration of ten thousand instances has a megabyte.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Why a file gave no text.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReadError {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("more than {MAX_FILE} bytes")]
    TooLarge,
    #[error("not UTF-8")]
    NotText(#[from] std::string::FromUtf8Error),
}

pub(super) fn text(path: &Path) -> Result<String, ReadError> {
    Ok(String::from_utf8(bytes(path)?)?)
}

pub(super) fn bytes(path: &Path) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_FILE {
        return Err(ReadError::TooLarge);
    }
    Ok(bytes)
}
