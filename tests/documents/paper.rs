//! The arithmetic of `deploy/scale.md`: what a million tunnels take of several balancers. `BURDOCK_RECORD=1 cargo test
//! --test documents paper::` writes its table anew. What it goes by is held to where it was measured.

use std::path::Path;

const BEGIN: &str = "<!-- made by `BURDOCK_RECORD=1 cargo test --test documents paper::` -->\n";
const END: &str = "<!-- end -->\n";

const TUNNELS: f64 = 1e6;
const INSTANCES: f64 = 10_000.0;
/// Bytes of an idle tunnel in Burdock's memory, in the kernel's, and with TLS beside.
const OWN: f64 = 1_261.0;
const KERNEL: f64 = 8_310.0;
const TLS: f64 = 6_100.0;
/// Microseconds of CPU to open a tunnel (and to close it), and for a TLS handshake beside a request's own.
const OPEN: f64 = 130.0;
const HANDSHAKE: f64 = 291.0 - 18.5;
/// Seconds within which clients come back.
const JITTER: f64 = 5.0;

fn document(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(path).expect("a document")
}

/// With thousands set apart.
fn number(value: f64) -> String {
    let digits = format!("{value:.0}");
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

fn table() -> String {
    let mut text = "\n| balancers | tunnels each | after a loss | GB, kernel included | GB with TLS | descriptors | to each of \
        10,000 instances | of 100 | opened a second after a loss, within 5 s | cores for that, with TLS |\n\
        |---|---|---|---|---|---|---|---|---|---|\n"
        .to_owned();
    for balancers in [4.0, 10.0, 20.0, 40.0] {
        let each = TUNNELS / balancers;
        let left = TUNNELS / (balancers - 1.0);
        let gigabytes = |bytes: f64| format!("{:.1}", left * bytes / 1e9);
        let back = each / (balancers - 1.0) / JITTER;
        let cells = [
            number(balancers),
            number(each),
            number(left),
            gigabytes(OWN + KERNEL),
            gigabytes(OWN + KERNEL + TLS),
            number(2.0 * left),
            format!("{:.0}", left / INSTANCES),
            number(left / 100.0),
            number(back),
            format!("{:.2}", back * (OPEN + HANDSHAKE) / 1e6),
        ];
        text += &format!("| {} |\n", cells.join(" | "));
    }
    text + "\n"
}

#[test]
fn the_table_of_a_million_tunnels_is_up_to_date() {
    let text = document("deploy/scale.md");
    let (before, rest) = text.split_once(BEGIN).expect("where the table begins");
    let (now, after) = rest.split_once(END).expect("where it ends");
    let made = table();
    if std::env::var_os("BURDOCK_RECORD").is_some() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/scale.md");
        std::fs::write(path, format!("{before}{BEGIN}{made}{END}{after}")).expect("write");
        return;
    }
    assert!(now == made, "deploy/scale.md: BURDOCK_RECORD=1 cargo test --test documents paper::");
}

/// Burdock's figure in the README's row that begins so.
fn measured(row: &str) -> f64 {
    let readme = document("README.md");
    let line = readme.lines().find(|line| line.starts_with(&format!("| {row}"))).expect("a row");
    let cell = line.split('|').nth(2).expect("a cell").trim().replace(',', "");
    cell.parse().expect("a number")
}

#[test]
fn what_the_arithmetic_goes_by_is_what_was_measured() {
    let close = |ours: f64, row: &str| {
        let measured = measured(row);
        assert!(
            (ours / measured - 1.0).abs() < 0.2,
            "{row}: {measured}, and {ours} in the arithmetic"
        );
    };
    close(OWN, "Memory while idle: tunnels");
    close(OPEN, "Tunnels opened and closed: 64 at once");
    let request = measured("Small answers, affinity off: 64 connections");
    close(HANDSHAKE + request, "TLS 1.3: a handshake for each request");
    assert!(document("config/protocols.md").contains("takes 6.1 KB more with TLS"));
    let scale = document("deploy/scale.md");
    for value in [OWN, KERNEL, TLS] {
        assert!(scale.contains(&format!("| {}", number(value))), "{value}");
    }
    let unit = document("deploy/systemd/burdock.service");
    let limit: f64 = unit
        .split_once("LimitNOFILE=")
        .and_then(|(_, rest)| rest.lines().next()?.parse().ok())
        .expect("a limit");
    assert!(scale.contains(&format!(
        "`LimitNOFILE={limit:.0}` of the unit holds {}",
        number(limit * 15.0 / 16.0 / 2.0)
    )));
}

#[test]
fn the_kernel_settings_are_those_that_the_arithmetic_has() {
    let settings = document("deploy/sysctl/burdock.conf");
    let of = |key: &str| {
        let rows = settings.lines().filter(|line| !line.starts_with('#'));
        let mut found =
            rows.filter_map(|line| line.split_once(" = ")).filter(|(known, _)| *known == key);
        found.next().unwrap_or_else(|| panic!("no {key}")).1.to_owned()
    };
    for line in settings.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (key, _) = line.split_once(" = ").expect("KEY = VALUE");
        let path = Path::new("/proc/sys").join(key.replace('.', "/"));
        assert!(path.exists() || !Path::new("/proc/sys/net").exists(), "the kernel knows no {key}");
    }
    let range = of("net.ipv4.ip_local_port_range");
    let (first, last) = range.split_once(' ').expect("a range");
    let [first, last] = [first, last].map(|port| port.parse::<u32>().expect("a port"));
    let scale = document("deploy/scale.md");
    assert!(
        scale.contains(&format!("{} with the settings here", number(f64::from(last - first + 1))))
    );
    assert!(document("deploy/kubernetes/deployment.yaml").contains(&format!("value: \"{range}\"")));
    for file in [
        "deploy/kubernetes/burdock.yaml",
        "deploy/debian/burdock.yaml",
        "deploy/docker/config/burdock.yaml",
    ] {
        for word in document(file).split([' ', '[', ']']) {
            let port =
                word.strip_prefix("0.0.0.0:").and_then(|port| port.trim().parse::<u32>().ok());
            assert!(
                port.is_none_or(|port| port < first),
                "{file}: {word} is among the ports of connections"
            );
        }
    }
}
