//! Completions and manual pages, made from the command line's own description.

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use anyhow::Context;
use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::Cli;

/// Prints what makes `shell` complete the command line.
pub fn completions(shell: Shell) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "burdock", &mut text);
    written(&text)
}

/// Prints the manual page, or writes the pages of all commands into a folder.
pub fn man(into: Option<&Path>) -> anyhow::Result<ExitCode> {
    let Some(folder) = into else {
        let mut page = Vec::new();
        clap_mangen::Man::new(Cli::command()).render(&mut page).context("rendering the page")?;
        return Ok(written(&page));
    };
    std::fs::create_dir_all(folder).with_context(|| format!("making {}", folder.display()))?;
    clap_mangen::generate_to(Cli::command(), folder)
        .with_context(|| format!("writing manual pages into {}", folder.display()))?;
    Ok(ExitCode::SUCCESS)
}

fn written(bytes: &[u8]) -> ExitCode {
    let mut out = std::io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        // Who closes a pipe has seen enough.
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
