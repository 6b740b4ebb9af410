//! What the command line puts over a configuration.

use std::net::SocketAddr;
use std::path::Path;

use super::types::{Admin, Listener};
use super::{ConfigErrors, Loaded};

/// What `--listen` and `--admin` say.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Overrides {
    /// Instead of the configured listeners, if any are given.
    pub listen: Vec<SocketAddr>,
    /// Instead of the configured admin address.
    pub admin: Option<SocketAddr>,
}

impl Overrides {
    /// Puts them over what was read from `file`.
    pub fn apply(&self, loaded: &mut Loaded, file: &Path) -> Result<(), ConfigErrors> {
        loaded.overrides = self.clone();
        let config = &mut loaded.config;
        if !self.listen.is_empty() {
            if config.listeners.iter().any(is_special) {
                let warning = "--listen replaces the listeners of the file, with their tls, access, \
                               proxy_protocol and https_redirect";
                loaded.warnings.push(warning.to_owned());
            }
            config.listeners = self.listen.iter().copied().map(Listener::at).collect();
        }
        let Some(address) = self.admin else { return Ok(()) };
        let admin = config.admin.take().unwrap_or_else(|| Admin::at(address, true));
        if !address.ip().is_loopback() && admin.token.is_none() {
            let problem = format!(
                "--admin {address} can be reached from elsewhere and the file has no \
                 `admin.token_file`; allowed: a loopback address such as 127.0.0.1:9900"
            );
            return Err(ConfigErrors::whole_file(file, problem));
        }
        config.admin = Some(Admin { address, explicit: true, ..admin });
        Ok(())
    }
}

/// Whether a listener is more than an address.
fn is_special(listener: &Listener) -> bool {
    *listener != Listener { http2: listener.http2, ..Listener::at(listener.address) }
}
