//! Whatever a configuration file holds: reading it ends soon and never panics, each problem says
//! where it is, and what is accepted comes back equal from its effective form.
//!
//! Input: the text of the file.

use std::path::Path;
use std::time::{Duration, Instant};

use burdock::config::types::{AffinityKeys, Config};
use burdock::config::{ConfigErrors, diff, effective, parse};

/// Nothing is beside it, so that paths in it lead nowhere.
const FILE: &str = "/nonexistent/burdock.yaml";
/// Far above what a file of this size takes on a busy machine; far below what a bomb would take.
const LIMIT: Duration = Duration::from_secs(10);

/// Panics where a file is misread, or takes too long.
pub(crate) fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let begun = Instant::now();
    match parse(text, Path::new(FILE)) {
        Ok(loaded) => comes_back(loaded.config),
        Err(errors) => says_where(text, &errors),
    }
    let took = begun.elapsed();
    assert!(took < LIMIT, "{} bytes took {took:?}", data.len());
}

fn comes_back(mut config: Config) {
    // Keys are secrets, and not shown.
    config.affinity_keys = AffinityKeys { inline: Vec::new(), ..config.affinity_keys };
    let text = effective(&config);
    match parse(&text, Path::new(FILE)) {
        Ok(again) => {
            assert_eq!(again.config, config, "\n{text}");
            assert!(diff(&config, &again.config).is_empty());
        }
        Err(errors) => panic!("{errors}\n{text}"),
    }
}

fn says_where(text: &str, errors: &ConfigErrors) {
    let problems = errors.problems();
    assert!(!problems.is_empty());
    // A CR alone ends a line of YAML too, as do the three of Unicode.
    let ends = text.chars().filter(|c| "\r\n\u{85}\u{2028}\u{2029}".contains(*c));
    let last = ends.count() + 1;
    for problem in problems {
        let told = problem.to_string();
        assert!(!told.contains(|c: char| c.is_control()), "on one line: {told:?}");
        if problem.file != Path::new(FILE) {
            continue;
        }
        // What is missing at the end is missing on the line behind it.
        assert!(problem.line <= last + 1, "{told}");
        // Of a file without a single value, or that is no YAML to a known place, all is wrong.
        assert!(problem.line > 0 || (problem.path.is_empty() && problems.len() == 1), "{told}");
        assert!(!problem.message.is_empty());
    }
}
