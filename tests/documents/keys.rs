//! The tables of keys in `config/README.md` are those of `config/reference.yaml`, which a test of the crate holds to the
//! code. `BURDOCK_RECORD=1 cargo test --test documents keys::` writes them anew.

use std::path::{Path, PathBuf};

use burdock::config;
use burdock::config::Change;

/// The tables stand between these two lines.
const BEGIN: &str =
    "<!-- made from reference.yaml by `BURDOCK_RECORD=1 cargo test --test documents keys::` -->\n";
const END: &str = "<!-- end -->\n";

/// Comments behind a row begin in this comment_before or behind it.
const FAR: usize = 30;

/// What does not hold from the next request, connection, check or second on. The longest prefix counts.
const RELOAD: [(&str, &str); 14] = [
    ("", "at once"),
    ("workers", "upgrade or restart"),
    ("user", "restart"),
    ("listeners[]", "new connections"),
    ("listeners[].address", "bound and closed; tunnels stay"),
    ("listeners[].tls", "new handshakes"),
    ("limits.connections_per_client", "counts those that begin from then on"),
    ("admin.address", "bound anew"),
    ("shutdown", "at the stop"),
    ("upgrade", "at the upgrade"),
    ("affinity_keys", "at once; tokens of keys that are gone are rejected"),
    ("version.tls", "new connections; old ones get no further request"),
    ("version.protocol", "new connections"),
    ("version.proxy_protocol", "new connections"),
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// One key, as `reference.yaml` shows it.
#[derive(Debug, Clone, PartialEq)]
struct Row {
    path: Vec<String>,
    default: String,
    meaning: String,
}

/// The rows of `reference.yaml` in their order. Other forms of a row, which are comments, bring their own keys.
fn rows(text: &str) -> Vec<Row> {
    let mut rows: Vec<Row> = Vec::new();
    // Indentation and name of every map that the line is in.
    let mut within: Vec<(usize, String)> = Vec::new();
    // Whether the row before has a comment, which the next line may go on with.
    let mut has_comment = false;
    for line in text.lines() {
        let goes_on = continuation(line).filter(|_| has_comment);
        if let (Some(more), Some(row)) = (goes_on, rows.last_mut()) {
            row.meaning += " ";
            row.meaning += more;
            continue;
        }
        let Some((indentation, is_item, key, rest)) = row(line) else {
            has_comment = false;
            continue;
        };
        let (default, comment) = match rest.find("# ") {
            Some(at) => (rest[..at].trim(), rest[at + 1..].trim()),
            None => (rest.trim(), ""),
        };
        has_comment = rest.contains("# ");
        within.retain(|(outer, _)| *outer < indentation);
        if is_item
            && let Some((_, list)) = within.last_mut().filter(|(_, name)| !name.ends_with("[]"))
        {
            *list += "[]";
        }
        let mut path: Vec<_> = within.iter().map(|(_, name)| name.clone()).collect();
        path.push(key.to_owned());
        within.push((indentation, key.to_owned()));
        if rows.iter().any(|known| known.path == path) {
            // Another form, whose comment is no row's.
            has_comment = false;
        } else {
            rows.push(Row { path, default: default.to_owned(), meaning: comment.to_owned() });
        }
    }
    rows
}

/// What a comment goes on with on a line of its own, far to the right.
fn continuation(line: &str) -> Option<&str> {
    let text = line.find(|c: char| c != ' ' && c != '#')?;
    let at = line[..text].rfind('#').filter(|at| *at >= FAR)?;
    Some(line[at + 1..].trim())
}

/// Indentation, whether it begins an item of a list, key, and what follows the colon.
fn row(line: &str) -> Option<(usize, bool, &str, &str)> {
    let text = line.trim_start();
    let text = text.strip_prefix("# ").map_or(text, str::trim_start);
    let hidden = usize::from(line.trim_start().starts_with("# ")) * 2;
    let (is_item, text) = text.strip_prefix("- ").map_or((false, text), |text| (true, text));
    let (key, rest) = text.split_once(':')?;
    let is_key = !key.is_empty()
        && key.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let is_value = rest.is_empty() || rest.starts_with(' ');
    (is_key && is_value).then_some((line.len() - text.len() - hidden, is_item, key, rest))
}

/// How paths are written: names that are the user's stand in capitals, and a version has a short name.
fn shown(path: &[String]) -> String {
    let path = path.join(".");
    let path = path.replace("services.default.versions.default", "version");
    let path = path.replace("services.default", "service");
    match path.strip_suffix(".v1") {
        Some(map) => format!("{map}.VERSION"),
        None => path,
    }
}

/// What a value is, by its default and what is allowed.
fn kind(row: &Row, has_keys: Option<&str>) -> &'static str {
    let default = row.default.as_str();
    let has = |unit: &str| {
        let digits = |text: &str| text.starts_with(|c: char| c.is_ascii_digit());
        let value = |word: &str| {
            word.strip_suffix(unit).is_some_and(|number| number.parse::<f64>().is_ok())
        };
        let words = row.meaning.split([' ', ',', ';']).filter(|word| digits(word));
        value(default) || (["none", "off", "auto"].contains(&default) && words.clone().any(value))
    };
    match default {
        "" if has_keys == Some("list") => "list",
        "" => "map",
        _ if has_keys.is_some() => "word or map",
        "true" | "false" => "yes or no",
        _ if has("KiB") || has("MiB") => "size",
        _ if has("%") => "percentage",
        _ if ["ms", "s", "m", "h", "d"].iter().any(|unit| has(unit)) => "duration",
        _ if default.starts_with('[') => "list",
        _ if default.starts_with('{') => "map",
        _ if has("") => "number",
        _ => "text",
    }
}

fn reload(path: &str) -> &'static str {
    let fits = |prefix: &&(&str, &str)| {
        prefix.0.is_empty()
            || path
                .strip_prefix(prefix.0)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
    };
    RELOAD.iter().filter(fits).max_by_key(|(prefix, _)| prefix.len()).expect("the empty one fits").1
}

/// One table for each map.
fn tables(rows: &[Row]) -> String {
    let mut maps: Vec<(String, Vec<&Row>)> = Vec::new();
    for row in rows {
        let (key, map) = row.path.split_last().expect("a key");
        let map = shown(map);
        if ["default", "v2"].contains(&key.as_str()) && map.ends_with(['s', 'e']) {
            continue;
        }
        match maps.iter_mut().find(|(known, _)| *known == map) {
            Some((_, rows)) => rows.push(row),
            None => maps.push((map, vec![row])),
        }
    }
    let mut text = String::new();
    for (map, own) in maps {
        let title = if map.is_empty() { "Top level".to_owned() } else { format!("`{map}`") };
        text += &format!(
            "### {title}\n\n| key | type | default | meaning and range | a reload |\n|---|---|---|---|---|\n"
        );
        for row in own {
            let path = shown(&row.path);
            let within = rows.iter().find_map(|other| {
                let other = shown(&other.path);
                let rest = other.strip_prefix(&path)?;
                rest.starts_with(['.', '[']).then_some(if rest.starts_with('[') {
                    "list"
                } else {
                    "map"
                })
            });
            let kind = kind(row, within);
            let name = path.rsplit('.').next().unwrap_or(&path);
            let default = match row.default.as_str() {
                "" => "-".to_owned(),
                default => format!("`{default}`"),
            };
            let meaning = row.meaning.replace('|', "\\|");
            text += &format!("| `{name}` | {kind} | {default} | {meaning} | {} |\n", reload(&path));
        }
        text.push('\n');
    }
    text
}

fn document() -> (PathBuf, String) {
    let path = root().join("config/README.md");
    let text = std::fs::read_to_string(&path).expect("a document");
    (path, text)
}

fn reference() -> Vec<Row> {
    rows(&std::fs::read_to_string(root().join("config/reference.yaml")).expect("a reference"))
}

#[test]
fn the_tables_of_keys_are_up_to_date() {
    let (path, text) = document();
    let (before, rest) = text.split_once(BEGIN).expect("where the tables begin");
    let (tables_now, after) = rest.split_once(END).expect("where they end");
    let made = format!("\n{}", tables(&reference()));
    if std::env::var_os("BURDOCK_RECORD").is_some() {
        std::fs::write(&path, format!("{before}{BEGIN}{made}{END}{after}")).expect("write");
        return;
    }
    assert!(
        tables_now == made,
        "config/README.md: run BURDOCK_RECORD=1 cargo test --test documents keys::"
    );
}

#[test]
fn every_key_of_the_reference_is_found_with_what_stands_behind_it() {
    let rows = reference();
    let of = |path: &str| {
        let row = rows.iter().find(|row| shown(&row.path) == path);
        row.unwrap_or_else(|| panic!("no {path}"))
    };
    assert_eq!(of("workers").default, "auto");
    assert_eq!(
        of("listeners[].tls.certificates[].key").meaning,
        "PEM without a passphrase: PKCS #8, SEC 1 or PKCS #1; no default"
    );
    assert_eq!(of("version.affinity.cookie.name").default, "BURDOCK");
    assert_eq!(of("version.concurrency.min").default, "4");
    assert_eq!(of("affinity_keys.file").default, "affinity.keys");
    assert!(
        of("version.retry.on").meaning.ends_with("also timeout (first_byte) and invalid_response")
    );
    assert!(of("service.traffic_split.allocations.VERSION").meaning.contains("has none"));
    assert_eq!(kind(of("version.breaker.error_share"), None), "percentage");
    assert_eq!(kind(of("version.affinity.ttl"), None), "duration");
    assert_eq!(kind(of("limits.head"), None), "size");
    assert_eq!(kind(of("version.queue.max"), None), "number");
    assert_eq!(kind(of("listeners[].tls"), Some("map")), "word or map");
    assert!(rows.len() > 200, "{}", rows.len());
}

#[test]
fn what_needs_a_restart_is_what_the_code_says_does() {
    let parsed = |text: &str| {
        let text = format!("instances: [127.0.0.1:1]\n{text}");
        config::parse(&text, Path::new("c.yaml")).expect("a configuration").config
    };
    let before = parsed("");
    for (text, key) in [("workers: 3", "workers"), ("user: nobody", "user")] {
        let changes = config::diff(&before, &parsed(text));
        assert!(
            matches!(changes[..], [Change::NeedsRestart { key: told }] if told == key),
            "{changes:?}"
        );
        assert!(reload(key).contains("restart"));
    }
    let others = "listeners: ['127.0.0.1:0']\nadmin: off\nuser: none\nworkers: auto\ntrusted_proxies: [10.0.0.0/8]\n\
                  timeouts: { idle: 1s }\nlimits: { uri: 1KiB }\nshutdown: { timeout: 1m }\nsession_affinity: true\n";
    let changes = config::diff(&before, &parsed(others));
    assert!(
        changes.len() > 5
            && !changes.iter().any(|change| matches!(change, Change::NeedsRestart { .. }))
    );
    for row in reference() {
        let path = shown(&row.path);
        let restarts = reload(&path).contains("restart");
        assert_eq!(restarts, ["workers", "user"].contains(&&*path), "{path}");
    }
}
