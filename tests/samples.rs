//! What is shipped as an example works: every sample file passes the check, and the README names
//! only files and commands that exist.

mod support;

use std::path::{Path, PathBuf};

use support::run_to_end;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn samples() -> Vec<PathBuf> {
    let folder = std::fs::read_dir(root().join("config")).expect("a config folder");
    let paths = folder.map(|entry| entry.expect("a readable entry").path());
    let mut files: Vec<_> =
        paths.filter(|path| path.extension().is_some_and(|e| e == "yaml")).collect();
    files.sort();
    files
}

#[test]
fn every_sample_passes_the_check() {
    let files = samples();
    for name in ["minimal.yaml", "reference.yaml"] {
        assert!(files.iter().any(|file| file.ends_with(name)), "config/{name} is promised");
    }
    for file in files {
        let output = run_to_end(root(), &["check", &file.display().to_string()]);
        let told = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(0), "{}: {told}", file.display());
    }
}

/// Lines of the README's code blocks that call the binary, without what precedes and follows it.
fn commands(readme: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for block in readme.split("```").skip(1).step_by(2) {
        for line in block.lines() {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            let Some(at) = words.iter().position(|w| w == "burdock" || w.ends_with("/burdock"))
            else {
                continue;
            };
            if words.iter().take(at).all(|word| word == "$" || word == "--" || word == "cargo") {
                let end = words.iter().position(|w| ["#", "&", "|", "&&"].contains(&w.as_str()));
                commands.push(words[at + 1..end.unwrap_or(words.len())].to_vec());
            }
        }
    }
    commands
}

#[test]
fn the_readme_names_commands_and_options_that_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let commands = commands(&readme);
    for wanted in ["demo", "run"] {
        let found = commands.iter().any(|c| c.first().is_some_and(|word| word == wanted));
        assert!(found, "the README shows `burdock {wanted}`: {commands:?}");
    }
    for command in commands {
        let Some(name) = command.first().filter(|word| !word.starts_with('-')) else { continue };
        let help = run_to_end(root(), &[name, "--help"]);
        let text = String::from_utf8_lossy(&help.stdout).into_owned();
        assert_eq!(help.status.code(), Some(0), "`burdock {name}` is not a command");
        for option in command.iter().filter(|word| word.starts_with("--")) {
            let option = option.split('=').next().unwrap_or(option);
            assert!(text.contains(option), "`burdock {name}` knows no {option}");
        }
    }
}

#[test]
fn the_readme_names_files_that_exist() {
    let readme = std::fs::read_to_string(root().join("README.md")).expect("a README");
    let words = readme.split(|c: char| c.is_whitespace() || "()`'\"<>".contains(c));
    for word in words.filter(|word| word.starts_with("config/") || word.starts_with("deploy/")) {
        let path = word.trim_end_matches(['.', ',', ':', ';']);
        assert!(root().join(path).exists(), "{path} is named and absent");
    }
}
