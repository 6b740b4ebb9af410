//! Gives up root's rights once every socket is bound.
//!
//! The C library changes all threads of the process, so it does not matter how many there are.

use std::path::PathBuf;

use nix::errno::Errno;
use nix::unistd::{Gid, Group, Uid, User, initgroups, setgid, setuid};

use crate::config::{ConfigErrors, Loaded, types};

/// Why root's rights were not given up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// The user or the group.
    #[error("user: {0} is not known to this system")]
    Unknown(String),
    /// The system.
    #[error("becoming the user {name}: {errno}")]
    Refused {
        /// Who.
        name: String,
        /// Why.
        errno: Errno,
    },
}

/// Becomes `user`, if there is one to become and a right to. `files` are those that must be readable
/// afterwards: a reload reads them again.
pub(super) fn give_up(user: Option<&types::User>, files: &[PathBuf]) -> Result<(), PrivilegeError> {
    match (user, Uid::effective().is_root()) {
        (None, true) => tracing::warn!("running as root; the key user names who to become"),
        (None, false) => {}
        (Some(types::User { name, .. }), false) => {
            tracing::info!(user = name, "not started as root; the key user changes nothing");
        }
        (Some(user), true) => {
            become_user(user)?;
            tracing::info!(user = user.name, "root's rights are given up");
            for file in files.iter().filter(|file| std::fs::File::open(file).is_err()) {
                let file = file.display();
                tracing::warn!(%file, user = user.name, "this user cannot read a file again");
            }
        }
    }
    Ok(())
}

/// Whether the system knows who this configuration names, for those who only check it: whoever starts
/// it as root is told at once.
pub fn look_up(loaded: &Loaded) -> Result<(), ConfigErrors> {
    let Some(user) = &loaded.config.user else { return Ok(()) };
    let what = match known(user) {
        Ok(_) => return Ok(()),
        Err(PrivilegeError::Unknown(name)) => format!("{name} is not known to this system"),
        Err(error) => error.to_string(),
    };
    let allowed = "a user and a group of this system, none";
    Err(loaded.places.problem("user", format!("{what}; allowed: {allowed}")))
}

fn known(user: &types::User) -> Result<(User, Gid), PrivilegeError> {
    let name = &user.name;
    let refused = |errno| PrivilegeError::Refused { name: name.clone(), errno };
    let unknown = |name: &String| PrivilegeError::Unknown(name.clone());
    let known = User::from_name(name).map_err(refused)?.ok_or_else(|| unknown(name))?;
    let group = match &user.group {
        None => known.gid,
        Some(group) => Group::from_name(group).map_err(refused)?.ok_or_else(|| unknown(group))?.gid,
    };
    Ok((known, group))
}

fn become_user(user: &types::User) -> Result<(), PrivilegeError> {
    let name = &user.name;
    let refused = |errno| PrivilegeError::Refused { name: name.clone(), errno };
    let unknown = |name: &String| PrivilegeError::Unknown(name.clone());
    let (known, group) = known(user)?;
    let text = std::ffi::CString::new(name.as_str()).map_err(|_nul| unknown(name))?;
    initgroups(&text, group).and_then(|()| setgid(group)).map_err(refused)?;
    setuid(known.uid).map_err(refused)?;
    // The way back is closed, or nothing was given up.
    match setuid(Uid::from_raw(0)) {
        Err(_closed) => Ok(()),
        Ok(()) if known.uid.is_root() => Ok(()),
        Ok(()) => Err(refused(Errno::EPERM)),
    }
}
