//! Where access lines go, and which of them: one place for the whole process, which a reload changes.

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use super::{Form, is_pretty};
use crate::config::types::{AccessLog, Destination, LineFormat};
use crate::observe::output::{LogFile, OpenError, Output};
use crate::observe::sink::{self, Sink};

/// What is in force; nothing before a server starts, and where there is to be no access log.
static LOG: ArcSwapOption<Log> = ArcSwapOption::const_empty();

/// An access log that is in force, or may come into it.
#[derive(Debug)]
pub(super) struct Log {
    pub(super) form: Form,
    /// In basis points.
    sample: u32,
    outlet: Outlet,
}

#[derive(Debug, Clone)]
enum Outlet {
    /// The log of the process.
    Shared,
    Own(Arc<Own>),
}

/// An output that nothing else is written to.
#[derive(Debug)]
struct Own {
    to: Destination,
    sink: Arc<Sink>,
}

impl Drop for Own {
    fn drop(&mut self) {
        self.sink.close();
    }
}

/// An access log whose file is open already.
#[derive(Debug)]
#[must_use]
pub struct Prepared(Option<Arc<Log>>);

/// Does what can fail: opens a file, unless it is the one that is open.
pub fn prepare(config: Option<&AccessLog>) -> Result<Prepared, OpenError> {
    let Some(config) = config else { return Ok(Prepared(None)) };
    let form = match (config.format, &config.to) {
        (LineFormat::Json, _) | (LineFormat::Auto, Destination::File(_)) => Form::Json,
        (LineFormat::Auto, _) if is_pretty() => Form::Pretty,
        (LineFormat::Auto, _) => Form::Json,
        (LineFormat::Common, _) => Form::Common,
        (LineFormat::Combined, _) => Form::Combined,
    };
    let outlet = outlet(&config.to)?;
    Ok(Prepared(Some(Arc::new(Log { form, sample: config.sample, outlet }))))
}

fn outlet(to: &Destination) -> Result<Outlet, OpenError> {
    if let Some(log) = &*LOG.load()
        && let Outlet::Own(own) = &log.outlet
        && own.to == *to
    {
        return Ok(Outlet::Own(Arc::clone(own)));
    }
    let output = match to {
        Destination::Stdout => return Ok(Outlet::Shared),
        Destination::Stderr => Output::Stderr,
        Destination::File(path) => Output::File(LogFile::open(path)?),
    };
    let sink = Sink::start(output, &sink::ACCESS);
    Ok(Outlet::Own(Arc::new(Own { to: to.clone(), sink })))
}

/// Puts an access log in force. What the one before was given is written to its end.
pub fn follow(prepared: Prepared) {
    LOG.store(prepared.0);
}

/// Opens the file anew, if there is one: somebody has moved it away.
pub fn reopen() {
    match LOG.load().as_ref().and_then(|log| log.own()) {
        Some(own) => own.sink.reopen(),
        None => tracing::info!("there is no access log to open anew"),
    }
}

/// Waits until everything before is written, at most a second.
pub fn flush() {
    if let Some(own) = LOG.load().as_ref().and_then(|log| log.own()) {
        own.sink.flush();
    }
}

/// Gives `make` the access log, if there is one.
pub(super) fn with(make: impl FnOnce(&Log)) {
    if let Some(log) = &*LOG.load() {
        make(log);
    }
}

impl Log {
    fn own(&self) -> Option<&Arc<Own>> {
        match &self.outlet {
            Outlet::Own(own) => Some(own),
            Outlet::Shared => None,
        }
    }

    pub(super) fn sink(&self) -> &Sink {
        match &self.outlet {
            Outlet::Own(own) => &own.sink,
            Outlet::Shared => sink::sink(),
        }
    }

    /// Of how many requests this is one, as a share in basis points: all of them where it `must` be
    /// told of. Nothing for one that is left out.
    pub(super) fn share(&self, must: bool) -> Option<u32> {
        let share = if must { AccessLog::ALL } else { self.sample };
        let is_in = share == AccessLog::ALL || fastrand::u32(..AccessLog::ALL) < share;
        is_in.then_some(share)
    }
}
