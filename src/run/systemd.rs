//! What systemd is told: that the service is ready, reloads, stops, lives, or has another process.
//! Under anything else nobody listens, and nothing is sent.

use std::time::Duration;

use sd_notify::NotifyState;

/// The service serves.
pub(super) fn ready() {
    tell(&[NotifyState::Ready, NotifyState::Status("serving")]);
}

/// It takes over a configuration; followed by [`ready`], whatever comes of that.
pub(super) fn reloading() {
    if let Ok(now) = NotifyState::monotonic_usec_now() {
        tell(&[NotifyState::Reloading, now]);
    }
}

/// It finishes what it has.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// Another process has taken over; this one drains beside it.
pub(super) fn handed_over(process: u32) {
    tell(&[NotifyState::MainPid(process)]);
}

/// Its workers answered; to be said again within [`watchdog`].
pub(super) fn alive() {
    tell(&[NotifyState::Watchdog]);
}

/// How often [`alive`] is expected, if it is: half of what the unit allows.
pub(super) fn watchdog() -> Option<Duration> {
    sd_notify::watchdog_enabled().map(|limit| limit / 2).filter(|half| !half.is_zero())
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "telling systemd failed");
    }
}
