//! Says when a configuration file may have changed.
//!
//! Folders are watched, not files: an editor renames a new file into place, and Kubernetes swaps a
//! symlink beside it. A file that is still being written to is waited for.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;

/// After an event that ends a change: more of them come in a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// After a write that wasn't followed by a close: the writer may be in the middle.
const UNFINISHED: Duration = Duration::from_secs(1);
/// Events that may wait; more would only say the same.
const QUEUE: usize = 64;

/// How sure it is that a change is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Bytes were written.
    Writing,
    /// A file was closed, renamed, made or removed.
    Done,
}

/// Watches the folders of some files.
#[derive(Debug)]
pub(super) struct Watcher {
    /// `None` if the system gives no watch; SIGHUP still works.
    watcher: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Touch>,
    folders: HashSet<PathBuf>,
}

impl Watcher {
    /// Watches the folders of `files`.
    pub(super) fn new(files: &[PathBuf]) -> Self {
        let (sender, events) = mpsc::channel(QUEUE);
        let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if let Some(touch) = event.ok().and_then(|event| touch(event.kind)) {
                // A full queue already says that something changed.
                let _ = sender.try_send(touch);
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "watching files failed; SIGHUP reloads"))
            .ok();
        let mut watcher = Self { watcher, events, folders: HashSet::new() };
        watcher.follow(files);
        watcher
    }

    /// Watches the folders of `files` from now on: where each stands, and where its link leads.
    pub(super) fn follow(&mut self, files: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut folders = HashSet::new();
        for file in files {
            folders.extend(folder(file));
            folders.extend(file.canonicalize().ok().as_deref().and_then(folder));
        }
        for gone in self.folders.difference(&folders) {
            // The folder itself may be gone.
            let _ = watcher.unwatch(gone);
        }
        for new in folders.difference(&self.folders) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                tracing::warn!(folder = %new.display(), %error, "watching failed; SIGHUP reloads");
            }
        }
        self.folders = folders;
    }

    /// Resolves when something changed and has come to rest. Cancel safe: what was seen before is
    /// at worst followed by another event.
    pub(super) async fn changed(&mut self) {
        let Some(mut last) = self.events.recv().await else {
            return std::future::pending().await;
        };
        let mut deadline = Instant::now() + rest(last);
        loop {
            let next = tokio::time::timeout_at(deadline.into(), self.events.recv()).await;
            let Ok(Some(touch)) = next else { return };
            if touch == Touch::Done || last == Touch::Writing {
                deadline = Instant::now() + rest(touch);
            }
            last = touch;
        }
    }
}

const fn rest(touch: Touch) -> Duration {
    match touch {
        Touch::Writing => UNFINISHED,
        Touch::Done => SETTLE,
    }
}

fn touch(kind: EventKind) -> Option<Touch> {
    match kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => Some(Touch::Done),
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Some(Touch::Writing),
        EventKind::Access(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => None,
    }
}

fn folder(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    Some(if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder.to_owned() })
}
