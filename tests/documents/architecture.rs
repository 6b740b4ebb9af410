//! The dependency direction of the source tree: a room uses rooms below its own, never one above
//! or beside it that is not listed as its own. Reads `use crate::` and `crate::` paths.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Module prefix and layer; the longest prefix that fits decides.
const LAYERS: &[(&str, u8)] = &[
    ("config::types", 0),
    ("config", 1),
    ("tls", 1),
    ("tls::session", 2),
    ("route", 2),
    ("route::reading", 0),
    ("affinity", 2),
    ("balance", 2),
    ("proxy_protocol", 2),
    ("http1", 2),
    ("doctor", 2),
    ("health", 2),
    ("proxy::retry", 2),
    ("proxy::headers", 2),
    ("proxy::error", 2),
    ("tunnel::frames", 2),
    ("outward", 2),
    ("memory", 0),
    ("turn", 0),
    ("etcd", 3),
    ("acme", 3),
    ("instance", 3),
    ("discovery", 3),
    ("fleet", 3),
    ("trace", 3),
    ("trace::context", 2),
    ("health::probe", 3),
    ("health::prober", 3),
    ("rehearsal", 3),
    ("rehearsal::guard", 5),
    ("snapshot", 4),
    ("proxy", 5),
    ("tunnel", 5),
    ("doctor::rounds", 5),
    ("listener", 5),
    ("admin", 5),
    ("run", 6),
    ("cli", 6),
    ("operate", 6),
    ("top", 6),
    ("main", 6),
    ("demo", 6),
    ("drill", 1),
    ("drill::running", 6),
];

/// Used from layer 3 upwards, and itself uses only the pure layers below that.
const OBSERVE: &str = "observe";

fn layer(module: &str) -> Option<u8> {
    let fits = |prefix: &str| module == prefix || module.starts_with(&format!("{prefix}::"));
    LAYERS.iter().filter(|(prefix, _)| fits(prefix)).max_by_key(|(p, _)| p.len()).map(|(_, l)| *l)
}

/// The first name of a module path.
fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a readable source tree") {
        let path = entry.expect("a readable entry").path();
        // What the fuzz package is built into is no source.
        if path.is_dir() && !path.ends_with("target") {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// `src/health/prober.rs` is `health::prober`, `src/health/mod.rs` is `health`.
fn module(root: &Path, file: &Path) -> String {
    let inside = file.strip_prefix(root).expect("below the root").with_extension("");
    let parts: Vec<_> = inside.iter().map(|part| part.to_string_lossy().into_owned()).collect();
    parts.join("::").trim_end_matches("::mod").to_owned()
}

/// Every `crate::` path of a file, with braces expanded two names deep; inline tests are exempt.
fn used(text: &str) -> BTreeSet<String> {
    let code = text.split("#[cfg(test)]").next().unwrap_or_default();
    let code: String = code
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect::<Vec<_>>()
        .join(" ");
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        expand("", rest, &mut found);
    }
    found
}

fn expand(prefix: &str, rest: &str, found: &mut BTreeSet<String>) {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    if let Some(group) = rest.strip_prefix('{') {
        let mut depth = 0_usize;
        let mut start = 0;
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    expand(prefix, group[start..at].trim(), found);
                    start = at + 1;
                    if c == '}' {
                        return;
                    }
                }
                _ => {}
            }
        }
        return;
    }
    let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
    if name.is_empty() {
        return;
    }
    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}::{name}") };
    match rest[name.len()..].strip_prefix("::") {
        Some(deeper) if prefix.is_empty() => expand(&path, deeper.trim_start(), found),
        _ => {
            found.insert(path);
        }
    }
}

/// What is wrong with `module` using `target`, if anything.
fn objection(module: &str, target: &str) -> Option<String> {
    if module == "lib" || room(module) == room(target) && layer(module) >= layer(target) {
        return None;
    }
    if room(target) == OBSERVE {
        let fine = room(module) == OBSERVE || layer(module) >= Some(3);
        return (!fine).then(|| format!("{module} is pure and uses {target}"));
    }
    if room(module) == OBSERVE {
        let fine = matches!(layer(target), Some(0 | 2));
        return (!fine).then(|| format!("{module} may know pure rooms only, not {target}"));
    }
    let (Some(own), Some(other)) = (layer(module), layer(target)) else {
        return Some(format!("{module} or {target} has no layer"));
    };
    (other > own).then(|| format!("{module} (layer {own}) uses {target} (layer {other})"))
}

#[test]
fn no_room_uses_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut objections = Vec::new();
    for file in &files {
        let module = module(&root, file);
        let text = std::fs::read_to_string(file).expect("a readable source file");
        objections.extend(used(&text).iter().filter_map(|target| objection(&module, target)));
    }
    assert!(files.len() > 2 && objections.is_empty(), "{objections:#?}");
}

#[test]
fn rooms_of_one_layer_use_each_other_in_one_direction() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let mut edges = BTreeSet::new();
    for file in &files {
        let from = module(&root, file);
        let text = std::fs::read_to_string(file).expect("a readable source file");
        for to in used(&text) {
            if from != "lib" && room(&from) != room(&to) && layer(&from) == layer(&to) {
                edges.insert((room(&from).to_owned(), room(&to).to_owned()));
            }
        }
    }
    let both: Vec<_> =
        edges.iter().filter(|(a, b)| a < b && edges.contains(&(b.clone(), a.clone()))).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn every_file_opens_with_what_it_owns_and_stays_short() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut files = Vec::new();
    for folder in ["src", "tests"] {
        sources(&root.join(folder), &mut files);
    }
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a readable source file");
        assert!(text.starts_with("//!"), "{} says nothing of itself", file.display());
        let lines = text.lines().count();
        assert!(lines <= 600, "{} has {lines} lines", file.display());
    }
}

/// Cargo builds a file beside `main.rs` only if that names it: one that was forgotten would never be run.
#[test]
fn every_file_of_the_tests_is_named_by_the_one_above_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut files = Vec::new();
    sources(&root, &mut files);
    let own_package = root.join("fuzz");
    files.retain(|file| file.parent() != Some(&root) && !file.starts_with(&own_package));
    let mut named = 0;
    for file in files {
        let folder = file.parent().expect("a folder");
        let name = file.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if ["main", "mod"].contains(&&*name) {
            continue;
        }
        let line = format!("mod {name};");
        let names = |above: PathBuf| {
            let text = std::fs::read_to_string(above).unwrap_or_default();
            text.lines().any(|it| it.trim_start_matches("pub ") == line)
        };
        let above = [folder.join("main.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
        assert!(above.into_iter().any(names), "{} is in no binary", file.display());
        named += 1;
    }
    assert!(named >= 60, "{named} files");
}

#[test]
fn the_scanner_sees_what_it_must() {
    let text = "//! x\nuse crate::{proxy::{retry, headers::Hop}, run};\nuse crate::config::types::A;\n\
                fn f() { crate::tunnel::pump() }\n// crate::demo\n#[cfg(test)] use crate::main::x;";
    let seen: Vec<_> = used(text).into_iter().collect();
    assert_eq!(seen, ["config::types", "proxy::headers", "proxy::retry", "run", "tunnel::pump"]);
    assert!(objection("balance", "proxy::retry").is_none());
    assert!(objection("balance", "proxy::forward").is_some());
    assert!(objection("health", "health::prober").is_some());
    assert!(objection("route", "observe::log").is_some());
    assert!(objection("observe::log", "config").is_some());
    assert!(objection("health::prober", "health").is_none());
    assert!(objection("proxy", "snapshot").is_none());
}

#[test]
fn the_map_names_every_room() {
    let map = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs"));
    let map = map.expect("the map");
    let rooms = map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    for room in rooms {
        let named = format!("[`{room}`]");
        assert!(map.contains(&named), "{room} is not on the map at the beginning of src/lib.rs");
    }
}
