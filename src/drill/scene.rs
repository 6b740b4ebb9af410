//! Where a drill is played: among embedded instances, or on a running balancer.

use std::time::Duration;

use super::diary::Diary;
use super::plan::{Act, EXEC, Id};

/// Why a drill could not be carried out.
#[derive(Debug, thiserror::Error)]
pub(super) enum SceneError {
    #[error(transparent)]
    Balancer(#[from] super::balancer::BalancerError),
    #[error("starting the instance {0}: {1}")]
    Instance(super::plan::Id, #[source] std::io::Error),
    #[error("making a folder for the balancer: {0}")]
    Folder(#[source] std::io::Error),
    #[error("`exec` runs commands of the scenario; --allow-exec lets it")]
    Exec,
    #[error("running {0:?}: {1}")]
    Command(String, String),
    /// A running balancer says no, or nothing.
    #[error("{0}")]
    Admin(String),
}

/// What happens there.
pub(super) trait Scene {
    fn diary(&self) -> &Diary;

    /// When something is due that the plan does not name.
    fn due(&self) -> Option<Duration>;

    /// Does what is due by now of that.
    async fn attend(&mut self) -> Result<(), SceneError>;

    /// Does one thing of the plan.
    async fn act(&mut self, act: &Act) -> Result<(), SceneError>;

    /// Resolves when it is over whatever the plan says, with the reason.
    async fn lost(&mut self) -> String;

    /// Ends every fault, whatever the plan says.
    async fn undo(&mut self, commands: &[Vec<String>]);
}

/// Runs a command of the scenario.
async fn execute(words: &[String], is_allowed: bool) -> Result<(), SceneError> {
    if !is_allowed {
        return Err(SceneError::Exec);
    }
    let failed = |what: String| SceneError::Command(words.join(" "), what);
    let Some((program, arguments)) = words.split_first() else { return Ok(()) };
    let mut command = tokio::process::Command::new(program);
    command.args(arguments).stdin(std::process::Stdio::null()).kill_on_drop(true);
    let status = command.status().await.map_err(|error| failed(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failed(status.to_string())) }
}

/// The same as an act of the plan, which begins or ends what is wrong with `who`.
pub(super) async fn exec(
    diary: &mut Diary,
    at: Duration,
    run: &[String],
    (who, begins): (&[Id], bool),
    is_allowed: bool,
) -> Result<(), SceneError> {
    if begins {
        who.iter().for_each(|id| diary.impair(Some(id), EXEC));
    }
    execute(run, is_allowed).await?;
    if !begins {
        who.iter().for_each(|id| diary.over(Some(id), EXEC));
    }
    diary.tell(at, run.join(" "));
    Ok(())
}

/// Runs those that undo, each whatever became of the others.
pub(super) async fn put_back(commands: &[Vec<String>], is_allowed: bool) {
    for words in commands {
        if let Err(error) = execute(words, is_allowed).await {
            eprintln!("burdock: undoing: {error}");
        }
    }
}
