//! What `deploy/build` does between its two builds, with the binary under test: it is put to work at all that the script
//! names, ends by itself, and nothing fails meanwhile. The builds themselves take half an hour.

use std::path::Path;
use std::process::Command;

use serde_json::Value;

use super::{deployed, read};
use crate::support::burdock::{binary, scratch};

/// The words by which the script starts the load.
fn load() -> Vec<String> {
    let script = read(&deployed("build")).replace("\\\n", " ");
    let line =
        script.lines().find(|line| line.contains("python3 benches/compare ")).expect("a load");
    line.split_whitespace()
        .skip_while(|word| *word != "python3")
        .skip(1)
        .map(str::to_owned)
        .collect()
}

/// What follows an option.
fn after<'a>(words: &'a [String], option: &str) -> &'a str {
    let at = words.iter().position(|word| word == option).expect(option);
    &words[at + 1]
}

#[test]
fn the_program_is_put_to_work_at_all_that_is_named() {
    let words = load();
    let out = scratch().join("seen.json");
    let mut python = Command::new("python3");
    for word in &words {
        python.arg(if *word == after(&words, "--out") { out.as_os_str() } else { word.as_ref() });
    }
    let ends = Path::new(env!("CARGO_BIN_EXE_burdock")).with_file_name("examples").join("ends");
    // It is built beside the tests, but where only some of them are.
    if !ends.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--quiet", "--locked", "--example", "ends"]);
        let built = cargo.current_dir(env!("CARGO_MANIFEST_DIR")).output().expect("cargo");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    }
    let ran = python
        .args(["--seconds", "1"])
        .env("BURDOCK_BIN", binary())
        .env("ENDS_BIN", ends)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("python3");
    let said = String::from_utf8_lossy(&ran.stdout) + String::from_utf8_lossy(&ran.stderr);
    assert!(ran.status.success(), "{said}");
    assert!(!said.contains("did not end"), "nothing would be written down: {said}");
    let seen: Value = serde_json::from_str(&read(&out)).expect("what was seen");
    for letter in after(&words, "--only").split(',') {
        let points = seen["scenarios"][letter]["points"].as_object().expect(letter);
        assert!(!points.is_empty());
        for (point, samples) in points {
            let cost = samples["burdock"][0]["cpu_us"].as_f64();
            assert!(cost.is_some_and(|cost| cost > 0.0), "({letter}) {point}: {said}");
        }
    }
}

#[test]
fn it_can_be_read() {
    let read = Command::new("bash").arg("-n").arg(deployed("build")).output().expect("bash");
    assert!(read.status.success(), "{}", String::from_utf8_lossy(&read.stderr));
}
