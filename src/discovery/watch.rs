//! Says when a file may have changed.
//!
//! The system tells of changes by name: of the file itself, and of every symbolic link on the way
//! to it, since Kubernetes and release folders swap a link far above the file. Folders are watched
//! rather than files, because editors rename a new file into place; other names in them mean
//! nothing. What the system doesn't tell (a folder above was replaced, the file is a mount, or
//! there are no watches left) is found by a look at the files now and then.

use std::collections::HashSet;
use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path, PathBuf};
use std::time::{Duration, Instant};

use notify::event::{AccessKind, AccessMode, EventKind, ModifyKind};
use notify::{Event, RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{timeout, timeout_at};

/// After an event that ends a change: more of them come in a bunch.
const SETTLE: Duration = Duration::from_millis(50);
/// After a write that wasn't followed by a close: the writer may be in the middle.
const UNFINISHED: Duration = Duration::from_secs(1);
/// From the first event on, whatever follows: a file that never rests is read all the same.
const LONGEST: Duration = Duration::from_secs(2);
/// Between two looks at the files themselves; a look is one `stat` for each.
const LOOK: Duration = Duration::from_secs(1);
/// Events that may wait; more would only say the same.
const QUEUE: usize = 64;
/// Symbolic links on the way to one file, as the kernel counts them.
const MAX_LINKS: usize = 40;

/// How sure it is that a change is complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Touch {
    /// Bytes were written.
    Writing,
    /// A file was closed, renamed, made or removed.
    Done,
}

/// Watches some files.
#[derive(Debug)]
pub struct Watcher {
    files: Vec<PathBuf>,
    /// What the files were at the last look.
    seen: Vec<Option<Looks>>,
    /// Held for its events; `None` if the system gives no watch.
    told: Option<RecommendedWatcher>,
    events: mpsc::Receiver<Touch>,
    /// A change that has not come to rest, and until when it must have.
    pending: Option<(Touch, Instant)>,
}

impl Watcher {
    /// Watches `files`.
    pub fn new(files: &[PathBuf]) -> Self {
        let (told, events) = watch(files);
        Self { files: files.to_owned(), seen: look(files), told, events, pending: None }
    }

    /// Watches `files` from now on.
    pub fn follow(&mut self, files: &[PathBuf]) {
        if self.files != files {
            self.files = files.to_owned();
            self.renew();
        }
    }

    /// Watches `files` too, until the next call of [`Watcher::follow`].
    pub fn follow_too<'a>(&mut self, files: impl Iterator<Item = &'a PathBuf>) {
        let before = self.files.len();
        for file in files {
            if !self.files.contains(file) {
                self.files.push(file.clone());
            }
        }
        if self.files.len() > before {
            self.renew();
        }
    }

    /// Finds its way to the files anew: links and folders on it may be others than before. To be
    /// called before the files are read, so that what changes after that is seen.
    pub fn renew(&mut self) {
        // All watches are made anew: one that is kept might be that of a folder which was moved
        // away, and two names of one folder share a watch that goes with either of them.
        (self.told, self.events) = watch(&self.files);
        self.seen = look(&self.files);
        self.pending = None;
    }

    /// Resolves when something changed and has come to rest. Whoever cancels it may ask again: what it
    /// has seen is kept.
    pub async fn changed(&mut self) {
        if self.pending.is_none() {
            let touch = self.touched().await;
            self.pending = Some((touch, Instant::now() + LONGEST));
        }
        while let Some((touch, latest)) = self.pending {
            let rested = (Instant::now() + rest(touch)).min(latest);
            match timeout_at(rested.into(), self.event()).await {
                Ok(next) => self.pending = Some((next, latest)),
                Err(_rested) => self.pending = None,
            }
        }
    }

    /// The first sign of a change.
    async fn touched(&mut self) -> Touch {
        loop {
            if let Ok(touch) = timeout(LOOK, self.event()).await {
                return touch;
            }
            if self.seen != look(&self.files) {
                self.renew();
                return Touch::Writing;
            }
        }
    }

    async fn event(&mut self) -> Touch {
        match self.events.recv().await {
            Some(touch) => touch,
            // Without a watch there are only looks.
            None => std::future::pending().await,
        }
    }
}

const fn rest(touch: Touch) -> Duration {
    match touch {
        Touch::Writing => UNFINISHED,
        Touch::Done => SETTLE,
    }
}

/// Asks the system to tell of `files`; the events end if it can't.
fn watch(files: &[PathBuf]) -> (Option<RecommendedWatcher>, mpsc::Receiver<Touch>) {
    let (sender, events) = mpsc::channel(QUEUE);
    let mut names = HashSet::new();
    for file in files {
        way(file, &mut names);
    }
    let folders: HashSet<_> =
        names.iter().filter_map(|name| name.parent()).map(Path::to_owned).collect();
    // A folder that is moved or removed is told of by its own name.
    names.extend(folders.iter().cloned());
    let watcher = notify::recommended_watcher(move |event: notify::Result<Event>| {
        if let Some(touch) = event.ok().and_then(|event| touch(&event, &names)) {
            // A full queue already says that something changed.
            let _ = sender.try_send(touch);
        }
    });
    let watcher = watcher.inspect_err(
        |error| tracing::warn!(%error, "watching files failed; changes are found by looking"),
    );
    let Ok(mut watcher) = watcher else { return (None, events) };
    for folder in folders.iter().filter(|folder| folder.is_dir()) {
        if let Err(error) = watcher.watch(folder, RecursiveMode::NonRecursive) {
            let folder = folder.display();
            tracing::warn!(%folder, %error, "watching failed; changes are found by looking");
        }
    }
    (Some(watcher), events)
}

/// What an event says, if it is about one of `names`, or if nobody knows what it is about.
fn touch(event: &Event, names: &HashSet<PathBuf>) -> Option<Touch> {
    if event.need_rescan() || event.paths.is_empty() {
        return Some(Touch::Done);
    }
    if !event.paths.iter().any(|path| names.contains(path)) {
        return None;
    }
    match event.kind {
        EventKind::Access(AccessKind::Close(AccessMode::Write))
        | EventKind::Create(_)
        | EventKind::Remove(_)
        | EventKind::Modify(ModifyKind::Name(_)) => Some(Touch::Done),
        EventKind::Modify(ModifyKind::Data(_) | ModifyKind::Any) => Some(Touch::Writing),
        EventKind::Access(_) | EventKind::Modify(_) | EventKind::Any | EventKind::Other => None,
    }
}

/// Adds every name that decides what `file` is: the links on the way, wherever they lead, and the
/// file at its end. No folder in these names is a link, so that each has one spelling.
fn way(file: &Path, names: &mut HashSet<PathBuf>) {
    let Ok(file) = std::path::absolute(file) else { return };
    let mut real = PathBuf::from("/");
    let mut ahead = Vec::new();
    push_parts(&file, &mut ahead);
    let mut links = 0;
    while let Some(part) = ahead.pop() {
        if part == ".." {
            real.pop();
            continue;
        }
        real.push(part);
        let Ok(target) = real.read_link() else { continue };
        links += 1;
        if links > MAX_LINKS {
            break;
        }
        names.insert(real.clone());
        real.pop();
        if target.is_absolute() {
            real = PathBuf::from("/");
        }
        push_parts(&target, &mut ahead);
    }
    names.insert(real);
}

/// Puts the parts of `path` on top of those that are still ahead, its first one topmost.
fn push_parts(path: &Path, ahead: &mut Vec<OsString>) {
    for part in path.components().rev() {
        match part {
            Component::Normal(_) | Component::ParentDir => ahead.push(part.as_os_str().to_owned()),
            Component::RootDir | Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

/// What tells one state of a file from another without reading it: device, inode, length, and when
/// its content and its metadata changed.
type Looks = (u64, u64, u64, [i64; 4]);

fn look(files: &[PathBuf]) -> Vec<Option<Looks>> {
    let looks = |file: &PathBuf| {
        let of = std::fs::metadata(file).ok()?;
        let times = [of.mtime(), of.mtime_nsec(), of.ctime(), of.ctime_nsec()];
        Some((of.dev(), of.ino(), of.len(), times))
    };
    files.iter().map(looks).collect()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_way_to_a_file_names_every_link_and_the_file() {
        let folder = std::env::temp_dir().join(format!("burdock-way-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("releases/1")).unwrap();
        let folder = folder.canonicalize().unwrap();
        symlink("releases/1", folder.join("current")).unwrap();
        symlink("../../shared.yaml", folder.join("releases/1/burdock.yaml")).unwrap();
        symlink("loop", folder.join("loop")).unwrap();
        let mut names = HashSet::new();
        way(&folder.join("./releases/../current/burdock.yaml"), &mut names);
        let expected = ["current", "releases/1/burdock.yaml", "shared.yaml"];
        assert_eq!(names, expected.map(|name| folder.join(name)).into());
        names.clear();
        way(&folder.join("loop"), &mut names);
        assert_eq!(names, [folder.join("loop")].into());
        std::fs::remove_dir_all(folder).unwrap();
    }

    /// Whoever waits for several things drops this one when another comes first.
    #[tokio::test]
    async fn a_change_outlives_whoever_stops_waiting_for_it() {
        let folder = std::env::temp_dir().join(format!("burdock-wait-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("burdock.yaml");
        std::fs::write(&file, "1").unwrap();
        let mut watcher = Watcher::new(std::slice::from_ref(&file));
        std::fs::write(&file, "2").unwrap();
        let begun = Instant::now();
        while watcher.pending.is_none() {
            assert!(begun.elapsed() < Duration::from_secs(10), "the change is seen");
            drop(timeout(Duration::from_millis(5), watcher.changed()).await);
        }
        let told = timeout(Duration::from_secs(10), watcher.changed()).await;
        assert!(told.is_ok() && watcher.pending.is_none());
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn other_files_of_the_folder_mean_nothing_and_lost_events_mean_anything() {
        let names: HashSet<_> = [PathBuf::from("/conf/burdock.yaml")].into();
        let closed = EventKind::Access(AccessKind::Close(AccessMode::Write));
        let event = |path: &str| Event::new(closed).add_path(path.into());
        assert_eq!(touch(&event("/conf/burdock.yaml"), &names), Some(Touch::Done));
        assert_eq!(touch(&event("/conf/access.log"), &names), None);
        assert_eq!(touch(&event("/conf/burdock.yaml.swp"), &names), None);
        let lost = Event::new(EventKind::Other).set_flag(notify::event::Flag::Rescan);
        assert_eq!(touch(&lost, &names), Some(Touch::Done));
    }
}
