//! Examples for those who come from another balancer: Burdock's half of each loads and says what the original says,
//! and the original is what its own program accepts, where that is here.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use burdock::config;
use burdock::config::types::{Config, Version};
use serde_json::Value;

use super::{can_run, deployed, documents, fields, read};
use crate::support::burdock::scratch;
use crate::support::tls::Authority;

const EXAMPLES: [(&str, &str); 6] = [
    ("haproxy", "cfg"),
    ("nginx", "conf"),
    ("nginx-sticky", "conf"),
    ("ingress-nginx", "yaml"),
    ("traefik", "yaml"),
    ("aws-alb", "yaml"),
];

fn original(name: &str) -> PathBuf {
    let extension = EXAMPLES.iter().find(|(known, _)| *known == name).expect("an example").1;
    deployed("migration").join(name).with_extension(extension)
}

/// Burdock's half of an example.
fn ours(name: &str) -> Config {
    let folder = scratch();
    let copied = folder.join("burdock.yaml");
    std::fs::copy(deployed("migration").join(format!("{name}.burdock.yaml")), &copied)
        .expect("copy");
    let secret = folder.join("chat-tls");
    std::fs::create_dir(&secret).expect("a folder");
    Authority::new("a CA").issue(&["chat.example.com"]).save(&secret, "tls");
    std::fs::rename(secret.join("tls.pem"), secret.join("tls.crt")).expect("rename");
    let loaded = config::load(&copied).unwrap_or_else(|errors| panic!("{name}: {errors}"));
    assert!(loaded.warnings.is_empty(), "{name}: {:?}", loaded.warnings);
    loaded.config
}

fn version<'a>(config: &'a Config, service: &str, version: usize) -> &'a Version {
    let service = config.services.iter().find(|found| found.name == service);
    &service.expect("a service").versions[version]
}

fn addresses(version: &Version) -> Vec<String> {
    version.instances.iter().map(|instance| instance.address.to_string()).collect()
}

#[test]
fn every_file_belongs_to_an_example_and_every_example_is_in_the_guide() {
    let guide = read(&deployed("migration/README.md"));
    let mut files = BTreeSet::from(["README.md".to_owned()]);
    for (name, extension) in EXAMPLES {
        for file in [format!("{name}.{extension}"), format!("{name}.burdock.yaml")] {
            assert!(guide.contains(&format!("({file})")), "{file} is not in the guide");
            files.insert(file);
        }
        assert!(!ours(name).services.is_empty());
    }
    let there = std::fs::read_dir(deployed("migration")).expect("a folder");
    let there =
        there.map(|entry| entry.expect("an entry").file_name().to_string_lossy().into_owned());
    assert_eq!(there.collect::<BTreeSet<_>>(), files);
}

/// The values of a directive in a text: whatever follows it on its line.
fn values<'a>(text: &'a str, directive: &str) -> Vec<&'a str> {
    let lines = text.lines().map(str::trim).filter_map(|line| line.strip_prefix(directive));
    lines
        .filter(|rest| rest.starts_with(' '))
        .map(|rest| rest.trim().trim_end_matches(';'))
        .collect()
}

fn time(text: &str) -> Duration {
    let (number, unit) =
        text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let number: u64 = number.parse().unwrap_or_else(|_| panic!("a time: {text}"));
    Duration::from_secs(match unit {
        "h" => number * 3600,
        "m" => number * 60,
        _ => number,
    })
}

#[test]
fn haproxy_means_the_same() {
    let text = read(&original("haproxy"));
    let config = ours("haproxy");
    let chat = version(&config, "chat", 0);
    let of = |directive: &str| time(values(&text, &format!("timeout {directive}"))[0]);
    assert_eq!(config.client_timeouts.header_read, of("http-request"));
    assert_eq!(config.client_timeouts.keep_alive, of("http-keep-alive"));
    assert_eq!(chat.timeouts.connect, of("connect"));
    assert_eq!((chat.timeouts.first_byte, chat.timeouts.idle), (of("server"), of("client")));
    assert_eq!(chat.websocket.idle_timeout, Some(of("tunnel")));
    assert_eq!(chat.queue.timeout, of("queue"));
    let servers: BTreeSet<_> = values(&text, "server")
        .iter()
        .map(|rest| rest.split(' ').nth(1).unwrap().to_owned())
        .collect();
    let ours: BTreeSet<_> =
        ["chat", "api"].iter().flat_map(|name| addresses(version(&config, name, 0))).collect();
    assert_eq!(servers, ours);
    if can_run("haproxy", "-v") {
        let checked = Command::new("haproxy").args(["-c", "-f"]).arg(original("haproxy")).output();
        let checked = checked.expect("haproxy");
        assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
    }
}

/// nginx's own view of a file, which is to be written nowhere but in a folder of ours.
fn nginx_accepts(name: &str) {
    let folder = scratch();
    let prefix = format!("{}/", folder.display());
    let pid = format!("pid {prefix}pid; error_log stderr;");
    let checked = Command::new("nginx")
        .args(["-t", "-p", &prefix, "-g", &pid, "-c"])
        .arg(original(name))
        .output();
    let checked = checked.expect("nginx");
    assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
}

#[test]
fn nginx_means_the_same() {
    let text = read(&original("nginx"));
    let config = ours("nginx");
    let chat = version(&config, "chat", 0);
    assert_eq!(chat.timeouts.connect, time(values(&text, "proxy_connect_timeout")[0]));
    assert_eq!(chat.timeouts.first_byte, time(values(&text, "proxy_read_timeout")[0]));
    assert_eq!(config.client_timeouts.header_read, time(values(&text, "client_header_timeout")[0]));
    let servers: Vec<_> = values(&text, "server").into_iter().filter(|rest| *rest != "{").collect();
    let servers: Vec<_> =
        servers.iter().map(|rest| rest.split(' ').next().unwrap().to_owned()).collect();
    let ours: Vec<_> =
        ["chat", "shop"].iter().flat_map(|name| addresses(version(&config, name, 0))).collect();
    assert_eq!(servers, ours);
    assert_eq!(config.services.len(), values(&text, "server_name").len());
    if can_run("nginx", "-v") {
        nginx_accepts("nginx");
    }
}

#[test]
fn nginx_with_a_sticky_cookie_means_the_same() {
    let text = read(&original("nginx-sticky"));
    let config = ours("nginx-sticky");
    assert_eq!(addresses(version(&config, "default", 0)).len(), values(&text, "server").len() - 1);
    assert!(values(&text, "sticky")[0].starts_with("cookie srv_id "));
    if !can_run("nginx", "-v") {
        return;
    }
    let told = Command::new("nginx").arg("-v").output().expect("nginx").stderr;
    let told = String::from_utf8_lossy(&told).into_owned();
    let minor =
        told.split("nginx/1.").nth(1).and_then(|rest| rest.split('.').next()?.parse::<u32>().ok());
    match minor.is_some_and(|minor| minor >= 29) {
        true => nginx_accepts("nginx-sticky"),
        false => eprintln!("skipped: sticky is not known to {told}"),
    }
}

#[test]
fn ingress_nginx_means_the_same() {
    let ingresses = documents(&original("ingress-nginx"));
    let config = ours("ingress-nginx");
    let annotation = |ingress: &Value, name: &str| -> String {
        let key = format!("nginx.ingress.kubernetes.io/{name}");
        ingress["metadata"]["annotations"][key].as_str().expect("an annotation").to_owned()
    };
    for ingress in &ingresses {
        assert_eq!(fields::problems(ingress), [""; 0]);
        let own = ingress["metadata"]["annotations"].as_object().expect("annotations");
        assert!(own.keys().all(|key| key.starts_with("nginx.ingress.kubernetes.io/")));
    }
    let [stable, canary] = [0, 1].map(|index| version(&config, "chat", index));
    let text = read(&deployed("migration/ingress-nginx.burdock.yaml"));
    assert!(text.contains(&format!(
        "name: {}, max_age: {}s",
        annotation(&ingresses[0], "session-cookie-name"),
        annotation(&ingresses[0], "session-cookie-max-age")
    )));
    assert!(text.contains(&format!("canary: {}", annotation(&ingresses[1], "canary-weight"))));
    assert_eq!(stable.timeouts.first_byte, time(&annotation(&ingresses[0], "proxy-read-timeout")));
    assert_eq!(stable.timeouts.connect, time(&annotation(&ingresses[0], "proxy-connect-timeout")));
    for (ingress, version) in ingresses.iter().zip([stable, canary]) {
        let backend = &ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"];
        let wanted =
            format!("dns: \"{}:{}\"", backend["name"].as_str().unwrap(), backend["port"]["number"]);
        assert!(text.contains(&wanted) && version.discovery.is_some(), "{wanted}");
    }
}

#[test]
fn traefik_means_the_same() {
    let dynamic = documents(&original("traefik")).remove(0);
    let http = &dynamic["http"];
    let config = ours("traefik");
    let known = |kind: &str, name: &Value| {
        assert!(http[kind][name.as_str().expect("a name")].is_object(), "{kind} {name}")
    };
    for router in http["routers"].as_object().expect("routers").values() {
        known("services", &router["service"]);
        router["middlewares"]
            .as_array()
            .into_iter()
            .flatten()
            .for_each(|name| known("middlewares", name));
    }
    let weights = http["services"]["chat"]["weighted"]["services"].as_array().expect("services");
    weights.iter().for_each(|service| known("services", &service["name"]));
    let mut servers = Vec::new();
    for name in ["chat-v1", "chat-v2", "assets"] {
        let balancer = &http["services"][name]["loadBalancer"];
        for server in balancer["servers"].as_array().expect("servers") {
            servers.push(server["url"].as_str().unwrap().trim_start_matches("http://").to_owned());
        }
    }
    let [v1, v2] = [0, 1].map(|index| version(&config, "chat", index));
    let ours: Vec<_> =
        [v1, v2, version(&config, "assets", 0)].into_iter().flat_map(addresses).collect();
    assert_eq!(servers, ours);
    assert_eq!(v1.timeouts.connect, v2.timeouts.connect);
    let dial = &http["serversTransports"]["quick"]["forwardingTimeouts"]["dialTimeout"];
    assert_eq!(v1.timeouts.connect, time(dial.as_str().expect("a time")));
}

#[test]
fn an_aws_balancer_means_the_same() {
    let template = documents(&original("aws-alb")).remove(0);
    let resources = template["Resources"].as_object().expect("resources");
    let config = ours("aws-alb");
    let attribute = |resource: &str, list: &str, key: &str| -> u64 {
        let list = resources[resource]["Properties"][list].as_array().expect("attributes");
        let found = list.iter().find(|row| row["Key"] == key).unwrap_or_else(|| panic!("no {key}"));
        found["Value"].as_str().and_then(|value| value.parse().ok()).expect("a number")
    };
    let chat = version(&config, "chat", 0);
    let target = |key: &str| attribute("Chat", "TargetGroupAttributes", key);
    assert_eq!(chat.drain.timeout.as_secs(), target("deregistration_delay.timeout_seconds"));
    assert_eq!(chat.slow_start.expect("a time").as_secs(), target("slow_start.duration_seconds"));
    let idle = attribute("Balancer", "LoadBalancerAttributes", "idle_timeout.timeout_seconds");
    assert_eq!(chat.websocket.idle_timeout.map(|time| time.as_secs()), Some(idle));
    assert_eq!(chat.timeouts.idle.as_secs(), idle);
    let refs = serde_json::to_string(&template).expect("JSON");
    for part in refs.split("{\"Ref\":\"").skip(1) {
        let name = part.split('"').next().unwrap_or_default();
        assert!(resources.contains_key(name), "Ref {name}");
    }
}

/// The guide's tables name keys of Burdock's in their last column.
#[test]
fn the_guide_names_keys_that_exist() {
    let guide = read(&deployed("migration/README.md"));
    let reference = read(&Path::new(env!("CARGO_MANIFEST_DIR")).join("config/reference.yaml"));
    let keys: BTreeSet<_> = reference
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '#', '-']).split_once(':'))
        .map(|(key, _)| key)
        .collect();
    let mut named = 0;
    for row in guide.lines().filter(|line| line.starts_with('|')) {
        let last = row.trim_end_matches('|').rsplit('|').next().unwrap_or_default();
        for word in last.split('`').skip(1).step_by(2) {
            let path = word.split([':', ' ']).next().unwrap_or(word);
            let is_key = path.chars().all(|c| c.is_ascii_lowercase() || c == '_' || c == '.');
            if is_key && !path.is_empty() && !word.starts_with("burdock") {
                let last = path.rsplit('.').next().unwrap_or(path);
                assert!(path.split('.').all(|key| keys.contains(key)), "{word}: {last} is no key");
                named += 1;
            }
        }
    }
    assert!(named > 50, "{named}");
}
