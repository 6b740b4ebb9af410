//! Where what was changed at run time, what was found, and what the fleet wants outlive the process: small
//! files beside the configuration.
//!
//! It is replaced whole, so that a crash leaves the old one or the new one. A file that cannot be
//! read is told of and left alone until there is something to write.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use crate::config::found::Found;
use crate::config::overlay::Overlay;
use crate::config::types::{Admin, StateFile};

/// Ten thousand overrides have two megabytes.
const LONGEST: u64 = 16 * 1024 * 1024;

/// Where the file is, if there is to be one. `config` is the file of the configuration.
pub(super) fn path(admin: Option<&Admin>, config: Option<&Path>) -> Option<PathBuf> {
    match &admin?.state_file {
        StateFile::Off => None,
        StateFile::At(path) => Some(path.clone()),
        StateFile::Beside => {
            let config = config?;
            let mut name = config.file_name()?.to_owned();
            name.push(".state");
            Some(config.with_file_name(name))
        }
    }
}

/// Where what was found is kept, beside that file.
pub(super) fn path_of_found(admin: Option<&Admin>, config: Option<&Path>) -> Option<PathBuf> {
    Some(beside(&path(admin, config)?.with_extension(""), ".found"))
}

/// Where what the fleet wants is kept, beside that file.
pub(super) fn path_of_fleet(admin: Option<&Admin>, config: Option<&Path>) -> Option<PathBuf> {
    Some(beside(&path(admin, config)?.with_extension(""), ".fleet"))
}

/// Where the fleet's affinity keys are kept, beside that file: a file of keys like any other.
pub(super) fn path_of_keyring(admin: Option<&Admin>, config: Option<&Path>) -> Option<PathBuf> {
    Some(beside(&path(admin, config)?.with_extension(""), ".keyring"))
}

/// Where the fleet's part of the configuration is kept, beside that file.
pub(super) fn path_of_config(admin: Option<&Admin>, config: Option<&Path>) -> Option<PathBuf> {
    Some(beside(&path(admin, config)?.with_extension(""), ".shared"))
}

/// What the process before heard of the fleet; nothing if there was none, and nothing, with a warning, if it
/// cannot be read.
pub(super) fn load_fleet(path: &Path) -> Option<String> {
    match read(path) {
        Ok(text) => Some(text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => None,
        Err(error) => {
            let file = path.display();
            tracing::warn!(%file, %error, "reading what was heard of the fleet failed");
            None
        }
    }
}

/// Writes that anew. Blocks.
pub(super) fn store_fleet(path: &Path, (text, says_nothing): &(String, bool)) -> io::Result<()> {
    replace(path, text, *says_nothing)
}

/// What was found by the process before; nothing, with a warning, if it cannot be read. Whatever it is,
/// the sources say it anew.
pub(super) fn load_found(path: &Path) -> Found {
    let shown = path.display();
    let read = match read(path) {
        Ok(text) => Found::from_text(&text).map_err(|error| error.to_string()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Found::default(),
        Err(error) => Err(error.to_string()),
    };
    read.unwrap_or_else(|error| {
        tracing::warn!(file = %shown, error, "reading which instances were found before failed");
        Found::default()
    })
}

/// Writes that anew. Blocks.
pub(super) fn store_found(path: &Path, found: &Found) -> io::Result<()> {
    replace(path, &found.to_text(), found.is_empty())
}

/// What it holds; nothing, with a warning, if it cannot be read.
pub(super) fn load(path: &Path) -> Overlay {
    let shown = path.display();
    let text = match read(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Overlay::default(),
        Err(error) => {
            tracing::warn!(file = %shown, %error, "reading what was changed at run time failed: the file of the configuration counts alone");
            return Overlay::default();
        }
    };
    Overlay::from_text(&text).unwrap_or_else(|error| {
        let kept = set_aside(path);
        tracing::warn!(file = %shown, %error, kept, "this is not what was changed at run time: the file of the configuration counts alone");
        Overlay::default()
    })
}

/// Writes it anew. Blocks.
pub(super) fn store(path: &Path, overlay: &Overlay) -> io::Result<()> {
    replace(path, &overlay.to_text(), overlay.is_empty())
}

/// Writes a file whole; one that would say nothing is not begun.
fn replace(path: &Path, text: &str, says_nothing: bool) -> io::Result<()> {
    if says_nothing && !path.exists() {
        return Ok(());
    }
    let new = beside(path, ".new");
    let written = write(&new, text).and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // A half-written file has no use; what is there still counts.
        let _ = std::fs::remove_file(&new);
        return written;
    }
    // The name is as lasting as what it names.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all())
}

/// Somebody may want to mend it, and the next change would overwrite it.
fn set_aside(path: &Path) -> String {
    let aside = beside(path, ".damaged");
    match std::fs::rename(path, &aside) {
        Ok(()) => aside.display().to_string(),
        Err(error) => format!("not kept: {error}"),
    }
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LONGEST).read_to_string(&mut text)?;
    Ok(text)
}

/// Readable by its owner only, from the first byte on.
fn write(path: &Path, text: &str) -> io::Result<()> {
    // One that a crash left may be anybody's link.
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}
