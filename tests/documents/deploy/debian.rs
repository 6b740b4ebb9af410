//! The Debian package, without its tools: what goes into it is there, its scripts can be read, and what it installs fits
//! the unit. `deploy/debian/build` makes the package itself.

use std::path::Path;
use std::process::Command;

use burdock::config;

use super::{deployed, read};
use crate::support::burdock::scratch;
use crate::support::run_to_end;

/// The rows of `assets` in Cargo.toml: from where, to where.
fn assets() -> Vec<(String, String)> {
    let manifest = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml"));
    let (_, package) = manifest.split_once("\n[package.metadata.deb]\n").expect("a package");
    let (_, rows) = package.split_once("\nassets = [\n").expect("assets");
    let rows = rows.lines().take_while(|row| *row != "]");
    let quoted =
        rows.map(|row| row.split('"').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>());
    let assets: Vec<_> = quoted.map(|row| (row[0].clone(), row[1].clone())).collect();
    assert!(assets.len() > 8, "{assets:?}");
    assets
}

#[test]
fn every_asset_is_there_or_is_made() {
    let build = read(&deployed("debian/build"));
    let made =
        build.lines().find_map(|line| line.strip_prefix("readonly made=")).expect("a folder");
    for (from, to) in assets() {
        match from.strip_prefix(&format!("{made}/")) {
            Some(name) => {
                let stem = name.split(['*', '.', '/']).next().unwrap_or(name);
                assert!(
                    build.contains(&format!("$made/{stem}")) || build.contains("$made\"/man"),
                    "{from}"
                );
            }
            None => {
                let folder = from.rsplit_once('/').expect("a folder").0;
                let path = Path::new(env!("CARGO_MANIFEST_DIR"));
                assert!(
                    path.join(folder).is_dir() && (from.contains('*') || path.join(&from).exists()),
                    "{from}"
                );
            }
        }
        assert!(to.starts_with("usr/") || to.starts_with("etc/"), "{to}");
    }
}

#[test]
fn its_scripts_can_be_read() {
    for (shell, script) in
        [("bash", "build"), ("sh", "postinst"), ("sh", "prerm"), ("sh", "postrm")]
    {
        let path = deployed("debian").join(script);
        let read = Command::new(shell).arg("-n").arg(&path).output().expect("a shell");
        assert!(read.status.success(), "{script}: {}", String::from_utf8_lossy(&read.stderr));
        assert!(script == "build" || super::read(&path).contains("\n#DEBHELPER#\n"), "{script}");
    }
}

#[test]
fn its_configuration_loads_where_the_unit_looks_for_it() {
    let folder = scratch();
    let key = run_to_end(&folder, &["keys", "new"]).stdout;
    std::fs::write(folder.join("affinity.keys"), key).expect("write a key");
    let text = read(&deployed("debian/burdock.yaml"));
    let here = text.replace("/var/log/burdock", &folder.display().to_string());
    std::fs::write(folder.join("burdock.yaml"), here).expect("write");
    let loaded =
        config::load(&folder.join("burdock.yaml")).unwrap_or_else(|errors| panic!("{errors}"));
    assert!(loaded.warnings.is_empty(), "{:?}", loaded.warnings);
    let unit = read(&deployed("systemd/burdock.service"));
    assert!(unit.contains("\nExecStart=burdock run -c /etc/burdock/burdock.yaml "), "{unit}");
    assert!(
        assets().iter().any(|(from, to)| from.ends_with("/burdock") && to == "usr/bin/burdock")
    );
    // Written by the process, and so in a folder that the unit makes.
    for (folder, key) in [("/var/lib", "StateDirectory"), ("/var/log", "LogsDirectory")] {
        assert!(unit.contains(&format!("\n{key}=burdock\n")));
        assert!(text.contains(&format!(" {folder}/burdock/")));
    }
    let grace: u64 = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .and_then(|seconds| seconds.parse().ok())
        .expect("a time");
    assert!(grace >= loaded.config.shutdown.timeout.as_secs() + 5);
}

#[test]
fn its_changelog_begins_with_this_version() {
    let first = read(&deployed("debian/changelog"));
    assert!(first.starts_with(&format!("burdock ({}-1) ", env!("CARGO_PKG_VERSION"))), "{first}");
}

#[test]
fn who_the_unit_runs_as_is_made() {
    let users = read(&deployed("debian/burdock.sysusers"));
    let unit = read(&deployed("systemd/burdock.service"));
    let user = unit.lines().find_map(|line| line.strip_prefix("User=")).expect("a user");
    assert!(users.lines().any(|line| line.starts_with(&format!("u {user} "))));
    let installed =
        assets().into_iter().find(|(from, _)| from.ends_with(".sysusers")).expect("a row").1;
    let name = installed.rsplit('/').next().expect("a name").to_owned();
    assert!(read(&deployed("debian/postinst")).contains(&format!("systemd-sysusers {name}\n")));
}
