//! An attempt that a half-open breaker has let through on trial.

use std::sync::Arc;

use crate::health::breaker::Permit;
use crate::instance::Instance;

/// Holds one of a half-open breaker's permits for the length of an attempt. The attempt's outcome
/// uses it up; an attempt that ends without one gives it back, since its client may leave at any
/// moment.
#[derive(Debug)]
pub struct Trial {
    instance: Arc<Instance>,
    permit: Option<Permit>,
}

impl Trial {
    /// Begins an attempt at `instance`; `None` if its breaker asks for no trial, or has no permit
    /// left.
    pub fn begin(instance: &Arc<Instance>) -> Option<Self> {
        let permit = instance.permit()?;
        Some(Self { instance: Arc::clone(instance), permit: Some(permit) })
    }

    /// The attempt has an outcome.
    pub(super) fn end(mut self) -> Option<Permit> {
        self.permit.take()
    }
}

impl Drop for Trial {
    fn drop(&mut self) {
        if let Some(permit) = self.permit.take() {
            self.instance.give_back(permit);
        }
    }
}
