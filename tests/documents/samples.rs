//! What is shipped as an example works: every sample file passes the check, and the documents name
//! only files, links and commands that exist.

use std::path::{Path, PathBuf};

use burdock::admin::metrics;
use burdock::affinity::Rejection;
use burdock::proxy::error::Reason;

use crate::support::run_to_end;

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

/// Every document of the project, by its path.
fn documents() -> Vec<(PathBuf, String)> {
    let mut folders = vec![root().to_owned()];
    let mut documents = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("a readable entry").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let made = ["target", "node_modules", "artifacts"].contains(&name.as_str());
            if path.is_dir() && !made && !name.starts_with('.') {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "md") {
                let text = std::fs::read_to_string(&path).expect("a document");
                documents.push((path, text));
            }
        }
    }
    documents.sort();
    assert!(documents.len() >= 10, "{documents:?}");
    documents
}

/// What calls the binary in a document's code, in blocks and between words, without what precedes and follows it.
fn commands(document: &str) -> Vec<Vec<String>> {
    let mut commands = Vec::new();
    for block in document.split("```").skip(1).step_by(2) {
        for line in block.lines() {
            let words: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            let by_cargo = words.starts_with(&["$", "cargo", "run"].map(str::to_owned));
            let binary = |word: &String| match by_cargo {
                true => word == "--",
                false => word == "burdock" || word.ends_with("/burdock"),
            };
            let Some(at) = words.iter().position(binary) else { continue };
            if by_cargo || words.iter().take(at).all(|word| word == "$") {
                let end = words.iter().position(|w| ["#", "&", "|", "&&"].contains(&w.as_str()));
                commands.push(words[at + 1..end.unwrap_or(words.len())].to_vec());
            }
        }
    }
    let inline = document.split('`').filter_map(|span| span.strip_prefix("burdock "));
    let words = |span: &str| span.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    commands.extend(inline.filter(|span| !span.contains('\n')).map(words));
    commands
}

#[test]
fn the_documents_name_commands_and_options_that_exist() {
    let commands: Vec<_> = documents().iter().flat_map(|(_, text)| commands(text)).collect();
    for wanted in ["demo", "run", "check", "drain", "explain", "drill", "upgrade"] {
        let found = commands.iter().any(|c| c.first().is_some_and(|word| word == wanted));
        assert!(found, "the documents show `burdock {wanted}`: {commands:?}");
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
fn the_documents_name_files_that_exist() {
    let folders = ["config/", "deploy/", "benches/", "tests/", "src/"];
    for (document, text) in documents() {
        let beside = document.parent().expect("a folder");
        let words = text.split(|c: char| c.is_whitespace() || "()`'\"<>|".contains(c));
        for word in words.filter(|word| folders.iter().any(|folder| word.starts_with(folder))) {
            let path = word.trim_end_matches(['.', ',', ':', ';']);
            let exists = [root(), beside].iter().any(|from| from.join(path).exists());
            let many = path.contains(['*', '{']);
            assert!(exists || many, "{}: {path} is named and absent", document.display());
        }
    }
}

/// What a page makes of a heading: the part of a link behind the `#`.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
    kept.map(|c| if c == ' ' { '-' } else { c }).collect()
}

#[test]
fn links_of_the_documents_lead_somewhere() {
    let mut followed = 0;
    for (document, text) in documents() {
        for link in text.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0)) {
            if link.contains("://") {
                continue;
            }
            let (path, part) = link.split_once('#').unwrap_or((link, ""));
            let target = match path {
                "" => document.clone(),
                path => document.parent().expect("a folder").join(path),
            };
            assert!(target.exists(), "{}: {link} is no file", document.display());
            if !part.is_empty() {
                let text = std::fs::read_to_string(&target).expect("a document");
                let mut headings = text.lines().filter(|line| line.starts_with('#'));
                let found = headings.any(|line| anchor(line.trim_start_matches('#')) == part);
                assert!(found, "{}: {link} is no heading", document.display());
            }
            followed += 1;
        }
    }
    assert!(followed >= 5, "{followed} links");
}

fn document(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).expect("a document")
}

/// The rows of the document's table whose header starts with these cells, without their backquotes.
fn table(path: &str, header: &[&str]) -> Vec<Vec<String>> {
    let cells = |line: &str| -> Vec<String> {
        let line = line.trim().trim_matches('|');
        line.split('|').map(|cell| cell.trim().replace('`', "")).collect()
    };
    let text = document(path);
    let mut lines = text.lines().skip_while(|line| {
        let cells = cells(line);
        !line.starts_with('|') || !cells.iter().zip(header).all(|(cell, wanted)| cell == wanted)
    });
    lines.next().unwrap_or_else(|| panic!("{path}: no table {header:?}"));
    lines.skip(1).take_while(|line| line.starts_with('|')).map(cells).collect()
}

#[test]
fn every_metric_is_listed() {
    let listed = table("deploy/README.md", &["metric", "type", "meaning"]);
    let exposed: Vec<Vec<_>> = metrics::NAMES
        .iter()
        .map(|(name, kind, help)| [name, kind, help].map(|t| (*t).to_owned()).to_vec())
        .collect();
    assert_eq!(listed, exposed);
}

#[test]
fn every_reason_is_listed_with_its_status() {
    let listed = table("deploy/README.md", &["reason", "status"]);
    let listed: Vec<_> = listed.iter().map(|row| (row[0].as_str(), row[1].clone())).collect();
    let known = Reason::ALL.map(|reason| {
        let (label, status) = reason.outward();
        (label, status.map_or("-".to_owned(), |status| status.as_u16().to_string()))
    });
    assert_eq!(listed, known);
}

#[test]
fn every_rejection_is_listed() {
    let listed = table("config/sessions.md", &["reason", "the token"]);
    let listed: Vec<_> = listed.iter().map(|row| row[0].as_str()).collect();
    assert_eq!(listed, Rejection::ALL.map(Rejection::label));
}

#[test]
fn every_top_level_key_is_listed() {
    let reference = document("config/reference.yaml");
    let keys: Vec<_> = reference
        .lines()
        .filter(|line| line.starts_with(|c: char| c.is_ascii_lowercase()))
        .filter_map(|line| Some(line.split_once(':')?.0.to_owned()))
        .collect();
    let listed = table("config/README.md", &["key", "what it sets"]);
    let listed: Vec<_> = listed.into_iter().map(|row| row[0].clone()).collect();
    assert_eq!(listed, keys);
}

#[test]
fn every_file_of_the_tests_is_listed_with_its_promise() {
    let listed: Vec<_> = table("tests/README.md", &["file", "promise", "against"])
        .into_iter()
        .map(|row| row[0].clone())
        .collect();
    let tests = root().join("tests");
    for row in listed.iter().filter(|row| !row.starts_with("src/")) {
        assert!(tests.join(row).exists(), "tests/README.md: there is no {row}");
    }
    let mut files = Vec::new();
    for entry in std::fs::read_dir(&tests).expect("a folder") {
        let path = entry.expect("a readable entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        match std::fs::read_to_string(path.join("main.rs")) {
            Ok(_) if listed.contains(&format!("{name}/")) => {}
            Ok(main) => files.extend(modules(&main).map(|file| format!("{name}/{file}"))),
            Err(_) => files.extend(name.strip_suffix(".rs").map(str::to_owned)),
        }
    }
    assert!(files.len() >= 60, "{files:?}");
    for file in files {
        let found = [".rs", "/"].iter().any(|end| listed.contains(&format!("{file}{end}")));
        assert!(found, "tests/README.md does not list {file}");
    }
}

/// What a `main.rs` names of its own folder.
fn modules(main: &str) -> impl Iterator<Item = &str> {
    let own = main.lines().zip(std::iter::once("").chain(main.lines()));
    let own = own.filter(|(_, before)| !before.starts_with("#[path"));
    own.filter_map(|(line, _)| line.strip_prefix("mod ")?.strip_suffix(';'))
}

#[test]
fn every_defence_names_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("SECURITY.md")).expect("SECURITY.md");
    let mut named = 0;
    for row in text.lines().filter(|line| line.starts_with('|') && line.contains(".rs` `")) {
        let mut source = String::new();
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for word in last.split('`').skip(1).step_by(2) {
            if word.ends_with(".rs") {
                let folder = if word.starts_with("src/") { "" } else { "tests" };
                let path = root().join(folder).join(word);
                source = std::fs::read_to_string(&path).unwrap_or_else(|_| panic!("no {word}"));
            } else {
                assert!(source.contains(&format!("fn {word}()")), "{word} is no test of that file");
                named += 1;
            }
        }
    }
    assert!(named >= 20, "{named} tests");
}

#[test]
fn tables_and_plots_of_the_comparison_are_what_its_newest_results_say() {
    let mut check = std::process::Command::new("python3");
    let output = check.args(["benches/compare", "--check"]).current_dir(root()).output();
    let output = output.expect("python3");
    let told = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
}
