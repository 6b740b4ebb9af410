//! How an etcd is reached; what is done there is for others to say.

use std::path::PathBuf;
use std::time::Duration;

use super::InstanceTls;

/// The members of an etcd, and what is proved to whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Etcd {
    /// URLs of members; one is asked, and the next one when it fails. 1 to 16.
    pub endpoints: Vec<String>,
    /// Who vouches for members, and the certificate that is shown to them; where one of `endpoints` is
    /// `https` only.
    pub tls: Option<InstanceTls>,
    /// Who asks, where etcd wants to know.
    pub user: Option<EtcdUser>,
}

/// A user of an etcd.
#[derive(Clone, PartialEq, Eq)]
pub struct EtcdUser {
    /// Its name.
    pub name: String,
    /// Its password.
    pub password: String,
    /// Where that stands.
    pub password_file: PathBuf,
}

impl std::fmt::Debug for EtcdUser {
    /// The password is a secret.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("EtcdUser")
            .field("name", &self.name)
            .field("password_file", &self.password_file)
            .finish_non_exhaustive()
    }
}

/// Instances in an etcd: one for each key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EtcdKeys {
    /// Which etcd.
    pub etcd: Etcd,
    /// What all keys begin with.
    pub prefix: String,
    /// A watch that says nothing for so long is made anew, in case nobody is there. 1s to 1h.
    pub refresh: Duration,
}

impl EtcdKeys {
    /// The default of `refresh`.
    pub const REFRESH: Duration = Duration::from_secs(10);
}
