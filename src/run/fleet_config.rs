//! The part of a configuration that is the fleet's: what is served of it, and what the command line
//! does with it.
//!
//! A text that makes no sense replaces nothing. The last one that did is kept beside the state file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::config::types::Fleet;
use crate::config::{self, ConfigErrors, Loaded, diff};
use crate::fleet::text::{self, Place, TextError};
use crate::run::server::{Cause, Server};
use crate::run::{StartError, state_file, steering};

/// A start waits so long for a text that was never heard here; and so long where one is kept.
const WAIT: [Duration; 2] = [Duration::from_secs(10), Duration::from_secs(1)];

/// A text of the fleet.
pub(super) type Text = Arc<str>;

/// The configuration of a process that begins, with the fleet's part: the newest, or the last good one.
pub(super) async fn begin(
    loaded: Loaded,
    file: &Path,
) -> Result<(Loaded, Option<Text>), StartError> {
    let Some(fleet) = loaded.config.fleet.clone().filter(|fleet| fleet.config) else {
        return Ok((loaded, None));
    };
    let path = state_file::path_of_config(loaded.config.admin.as_ref(), Some(file));
    let kept: Option<Text> = path.and_then(|it| state_file::load_fleet(&it)).map(Into::into);
    let deadline = tokio::time::Instant::now() + WAIT[usize::from(kept.is_some())];
    let newest = Place::of(&fleet).wait(deadline).await.map(Text::from);
    let completed = match &newest {
        Ok(newest) => complete(loaded.clone(), &fleet, newest, file),
        Err(_) => Err(ConfigErrors::whole_file(&text::origin(&fleet), String::new())),
    };
    match (completed, newest, kept) {
        (Ok(completed), Ok(newest), _) => Ok((completed, Some(newest))),
        (Err(errors), Ok(_), None) => Err(errors.into()),
        (_, Err(error), None) => Err(StartError::FleetConfig(error)),
        (errors, newest, Some(kept)) => {
            match newest {
                Ok(_) => {
                    let error = errors.err().map(|errors| errors.to_string());
                    tracing::error!(
                        error,
                        "the fleet's configuration is refused: the last good one counts"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "the fleet's configuration is not heard: the last good one counts");
                }
            }
            Ok((complete(loaded, &fleet, &kept, file)?, Some(kept)))
        }
    }
}

/// This file with the fleet's text.
fn complete(
    loaded: Loaded,
    fleet: &Fleet,
    text: &str,
    file: &Path,
) -> Result<Loaded, ConfigErrors> {
    Ok(loaded.with_shared(parse(fleet, text, file)?))
}

fn parse(fleet: &Fleet, text: &str, file: &Path) -> Result<Loaded, ConfigErrors> {
    let folder = file.parent().unwrap_or(Path::new(""));
    config::parse_shared(text, &text::origin(fleet), folder)
}

impl Server {
    /// What a reload is to take: this file with the fleet's part, if there is one. The newest text; the last
    /// good one, where the newest is none and something else asked for the reload.
    pub(super) async fn complete(
        &self,
        loaded: Loaded,
        file: &Path,
        cause: Cause,
    ) -> Result<(Loaded, Option<Text>), ConfigErrors> {
        let Some(fleet) = loaded.config.fleet.clone().filter(|fleet| fleet.config) else {
            return Ok((loaded, None));
        };
        let newest = match self.fleet.config().or_else(|| self.shared_text.clone()) {
            Some(text) => text,
            // It was not a thing of the fleet until now.
            None => {
                let deadline = tokio::time::Instant::now() + WAIT[1];
                let told = Place::of(&fleet).wait(deadline).await;
                told.map(Text::from).map_err(|error| {
                    ConfigErrors::whole_file(&text::origin(&fleet), error.to_string())
                })?
            }
        };
        let errors = match complete(loaded.clone(), &fleet, &newest, file) {
            Ok(completed) => {
                self.fleet.board().note_config(None);
                return Ok((completed, Some(newest)));
            }
            Err(errors) => errors,
        };
        let told = errors.problems().iter().map(ToString::to_string).collect::<Vec<_>>();
        self.fleet.board().note_config(Some(told.join("; ")));
        match self.shared_text.clone().filter(|good| *good != newest && cause != Cause::Fleet) {
            Some(good) => Ok((complete(loaded, &fleet, &good, file)?, Some(good))),
            None => Err(errors),
        }
    }

    /// Whether the fleet's text is another one than what is served by.
    pub(super) fn is_text_new(&self) -> bool {
        self.fleet.config().is_some_and(|text| self.shared_text.as_ref() != Some(&text))
    }

    /// This text is served by.
    pub(super) async fn keep_text(&mut self, text: Option<Text>) {
        if self.shared_text == text {
            return;
        }
        self.shared_text.clone_from(&text);
        let path = state_file::path_of_config(self.config.admin.as_ref(), self.file.as_deref());
        let (Some(path), Some(text)) = (path, text) else { return };
        let file = path.clone();
        let store = move || state_file::store_fleet(&file, &(text.to_string(), false));
        if let Err(error) = steering::on_disk(store).await {
            let file = path.display();
            tracing::warn!(%file, %error, "a restart without the fleet will not know its configuration");
        }
    }
}

/// Why the fleet's text was not shown or changed.
#[derive(Debug, thiserror::Error)]
pub enum FleetConfigError {
    /// A configuration is none.
    #[error(transparent)]
    Config(#[from] ConfigErrors),
    /// It names no fleet.
    #[error("{} names no `fleet`", .0.display())]
    None(PathBuf),
    /// The file can't be read.
    #[error("reading {}: {cause}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// The etcd, or what is there.
    #[error("the fleet's configuration: {0}")]
    Text(#[from] TextError),
}

/// The text that a fleet shares.
pub async fn show_fleet_config(config: &Path) -> Result<String, FleetConfigError> {
    Ok(Place::of(&*fleet(config)?).look().await?.1)
}

/// What this file would change of it, in lines.
pub async fn diff_fleet_config(config: &Path, new: &Path) -> Result<Vec<String>, FleetConfigError> {
    let fleet = fleet(config)?;
    let after = checked(config, new)?.1.config;
    let (_, before) = Place::of(&fleet).look().await?;
    let before = parse(&fleet, &before, config)?.config;
    Ok(diff(&before, &after).iter().map(ToString::to_string).collect())
}

/// Puts this file in its place. Gives its warnings.
pub async fn push_fleet_config(config: &Path, new: &Path) -> Result<Vec<String>, FleetConfigError> {
    let fleet = fleet(config)?;
    let (text, loaded) = checked(config, new)?;
    let mut place = Place::of(&fleet);
    let revision = match place.look().await {
        Ok((revision, _)) => revision,
        Err(TextError::None) => 0,
        Err(error) => return Err(error.into()),
    };
    place.put(revision, &text).await?;
    Ok(loaded.warnings)
}

fn fleet(config: &Path) -> Result<Arc<Fleet>, FleetConfigError> {
    let fleet = config::load(config)?.config.fleet;
    fleet.ok_or_else(|| FleetConfigError::None(config.to_owned()))
}

/// As a balancer with this configuration would read it.
fn checked(config: &Path, new: &Path) -> Result<(String, Loaded), FleetConfigError> {
    let wrong = |cause| FleetConfigError::File { path: new.to_owned(), cause };
    let text = std::fs::read_to_string(new).map_err(wrong)?;
    let folder = config.parent().unwrap_or(Path::new(""));
    let loaded = config::parse_shared(&text, new, folder)?;
    Ok((text, loaded))
}
