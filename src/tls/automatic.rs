//! Certificates that Burdock gets for itself: which one is in use now, and what became of the others
//! that were asked for.
//!
//! Handshakes read a [`Place`]; who gets certificates fills it, at any time and without a reload. A
//! place outlives configurations for as long as one of them names its [`Subject`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use rustls::sign::CertifiedKey;

use crate::config::types::Acme;
use crate::tls::challenges::Challenges;

/// What a certificate is for, and where it is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Subject {
    /// The host.
    pub domain: String,
    /// The CA's directory.
    pub directory: String,
    /// Where it is kept.
    pub state: PathBuf,
}

impl Subject {
    /// All that `acme` asks for.
    pub fn all(acme: &Acme) -> impl Iterator<Item = Self> {
        acme.domains.iter().map(|domain| Self {
            domain: domain.clone(),
            directory: acme.directory.clone(),
            state: acme.state.clone(),
        })
    }
}

/// A certificate that is in use, with its key.
#[derive(Debug, Clone)]
pub struct InUse {
    /// Both of them.
    pub key: Arc<CertifiedKey>,
    /// When it began, in seconds since the Unix epoch.
    pub not_before: u64,
    /// When it expires, likewise.
    pub not_after: u64,
}

/// Where the certificate of a subject is found.
#[derive(Debug, Default)]
pub struct Place {
    in_use: ArcSwapOption<InUse>,
    /// Orders that failed since the last one that did not.
    failures: AtomicU64,
}

impl Place {
    /// What is in use, if there is one yet.
    pub fn in_use(&self) -> Option<Arc<InUse>> {
        self.in_use.load_full()
    }

    /// Uses another one from now on.
    pub fn put(&self, certificate: InUse) {
        self.in_use.store(Some(Arc::new(certificate)));
    }

    /// Orders that failed since the last one that did not.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// What became of an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// A certificate.
    Issued,
    /// The CA said no.
    Refused,
    /// The CA could not be asked, or made no sense.
    Unreachable,
    /// What was wrong is wrong here.
    Failed,
}

impl Outcome {
    /// Every outcome, in the order of the metric's rows.
    pub const ALL: [Self; 4] = [Self::Issued, Self::Refused, Self::Unreachable, Self::Failed];

    /// The label in metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Failed => "failed",
        }
    }
}

/// All of them, and the proofs for their CAs.
#[derive(Debug, Default)]
pub struct Automatic {
    places: Mutex<HashMap<Subject, Arc<Place>>>,
    /// What CAs are shown now.
    pub challenges: Arc<Challenges>,
    orders: [AtomicU64; Outcome::ALL.len()],
}

impl Automatic {
    /// The place of `subject`, which is new if nobody asked for it before.
    pub fn place(&self, subject: &Subject) -> Arc<Place> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(places.entry(subject.clone()).or_default())
    }

    /// Forgets every place but those of `subjects`.
    pub fn retain(&self, subjects: &[Subject]) {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        places.retain(|subject, _| subjects.contains(subject));
    }

    /// Counts an order for `place`.
    pub fn ended(&self, place: &Place, outcome: Outcome) {
        self.orders[outcome as usize].fetch_add(1, Ordering::Relaxed);
        match outcome {
            Outcome::Issued => place.failures.store(0, Ordering::Relaxed),
            Outcome::Refused | Outcome::Unreachable | Outcome::Failed => {
                place.failures.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Orders with this outcome so far.
    pub fn orders(&self, outcome: Outcome) -> u64 {
        self.orders[outcome as usize].load(Ordering::Relaxed)
    }
}
