//! What containers mean, by tables and by what a real engine has said.

use serde_json::{Value, json};

use super::*;

/// Two lists, and a line for each event of a container that is stopped: as dockerd 20.10.24 sent them.
const RECORDED: &str = include_str!("recorded.jsonl");

/// A container with a port of its own, with this changed.
fn container(change: &Value) -> Value {
    let mut container = json!({
        "Id": "1", "Names": ["/web-1"], "State": "running", "Ports": [],
        "Labels": { "burdock.port": "80" }, "HostConfig": { "NetworkMode": "default" },
        "NetworkSettings": { "Networks": { "bridge": { "IPAddress": "172.17.0.2" } } },
    });
    for (key, value) in change.as_object().unwrap() {
        container[key] = value.clone();
    }
    container
}

fn told(change: &Value, network: Option<&str>) -> Result<Vec<Member>, String> {
    let all = listed(json!([container(change)]).to_string().as_bytes()).unwrap();
    members(&all, &[], &mut Stopping::default(), network)
}

#[test]
fn a_container_is_where_its_network_and_its_port_are() {
    let networks = |all: Value| json!({ "NetworkSettings": { "Networks": all } });
    let exposed = |ports: Value| json!({ "Labels": {}, "Ports": ports });
    let one = json!({ "a": { "IPAddress": "10.0.0.1", "GlobalIPv6Address": "fd00::1" } });
    let two = json!({ "a": { "IPAddress": "10.0.0.1" }, "b": { "IPAddress": "10.0.1.1" } });
    let six = json!({ "a": { "IPAddress": "", "GlobalIPv6Address": "fd00::1" } });
    let tcp = |port: u16| json!({ "PrivatePort": port, "Type": "tcp" });
    let published = json!([
        { "IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" },
        { "IP": "::", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp" },
        { "PrivatePort": 443, "Type": "udp" },
    ]);
    let hosts = json!({ "HostConfig": { "NetworkMode": "host" } });
    for (change, network, expected) in [
        (json!({}), None, Ok("172.17.0.2:80")),
        (networks(one.clone()), None, Ok("10.0.0.1:80")),
        (networks(six), Some("a"), Ok("[fd00::1]:80")),
        (networks(two.clone()), Some("b"), Ok("10.0.1.1:80")),
        (networks(two), None, Err("in several networks; needed: `network`, such as a or b")),
        (networks(one), Some("b"), Err("not in the network b")),
        (networks(json!({})), None, Err("not in the network any")),
        (networks(json!(null)), None, Err("not in the network any")),
        (networks(json!({ "a": null })), None, Err("it has no address")),
        (hosts.clone(), None, Ok("127.0.0.1:80")),
        (hosts, Some("bridge"), Ok("172.17.0.2:80")),
        (exposed(published), None, Ok("172.17.0.2:80")),
        (exposed(json!([tcp(80), tcp(81)])), None, Err("it exposes 2 TCP ports; needed: label")),
        (exposed(json!(null)), None, Err("it exposes 0 TCP ports")),
        (json!({ "Labels": { "burdock.port": "http" } }), None, Err("is \"http\"; allowed: 1 to")),
        (json!({ "Labels": { "burdock.port": "0" } }), None, Err("is \"0\"")),
    ] {
        match (told(&change, network), expected) {
            (Ok(members), Ok(address)) => assert_eq!(members[0].address, address),
            (Err(problem), Err(told)) => {
                assert!(problem.starts_with("container web-1: "), "{problem}");
                assert!(problem.contains(told), "{problem}");
            }
            (found, expected) => panic!("{change}: {found:?}, not {expected:?}"),
        }
    }
}

#[test]
fn a_container_has_its_own_name_and_the_weight_of_its_label() {
    let name = |names: Value| told(&json!({ "Names": names }), None).unwrap().remove(0).name;
    assert_eq!(name(json!(["/proxy/web", "/chat-web-1"])), "chat-web-1");
    assert_eq!(name(json!(null)), "172.17.0.2:80");
    assert_eq!(name(json!([format!("/{}", "a".repeat(64))])), "172.17.0.2:80");
    let labels =
        |weight: &str| json!({ "Labels": { "burdock.port": "80", "burdock.weight": weight } });
    assert_eq!(told(&labels("7"), None).unwrap()[0].weight, 7);
    for bad in ["1001", "-1", "x"] {
        let problem = told(&labels(bad), None).unwrap_err();
        assert!(problem.contains("weight"), "{problem}");
    }
}

#[test]
fn states_become_two_axes() {
    let all = |state: &str| {
        let text = json!([container(&json!({ "State": state }))]).to_string();
        listed(text.as_bytes()).unwrap()
    };
    let state = |state: &str, unwell: &[Container], stopping: &mut Stopping| {
        let members = members(&all(state), unwell, stopping, None).unwrap();
        members.first().map(|it| (it.draining, it.unready))
    };
    let mut stopping = Stopping::default();
    assert_eq!(state("running", &[], &mut stopping), Some((false, false)));
    assert_eq!(state("running", &all("running"), &mut stopping), Some((false, true)));
    assert_eq!(state("paused", &[], &mut stopping), Some((false, true)));
    for gone in ["restarting", "created", "exited", "dead", "removing"] {
        assert_eq!(state(gone, &[], &mut stopping), None, "{gone}");
    }
    let event = |action: &str, signal: &str| {
        let attributes = json!({ "signal": signal });
        let actor = json!({ "ID": "1", "Attributes": attributes });
        json!({ "Action": action, "Actor": actor }).to_string().into_bytes()
    };
    stopping.note(&event("kill", "1")).unwrap();
    assert_eq!(state("running", &[], &mut stopping), Some((false, false)), "it reads its files");
    stopping.note(&event("kill", "15")).unwrap();
    assert_eq!(state("running", &[], &mut stopping), Some((true, false)));
    stopping.note(&event("start", "")).unwrap();
    assert_eq!(state("running", &[], &mut stopping), Some((false, false)), "another run");
    stopping.note(&event("kill", "3")).unwrap();
    members(&[], &[], &mut stopping, None).unwrap();
    assert_eq!(state("running", &[], &mut stopping), Some((false, false)), "it was gone");
    for bad in ["", "{}", "{\"Action\":\"die\"}", "[]"] {
        assert!(stopping.note(bad.as_bytes()).is_err(), "{bad}");
    }
    assert!(listed(b"{}").is_err());
}

#[test]
fn what_a_real_engine_says_is_understood() {
    let mut lines = RECORDED.lines().map(str::as_bytes);
    let mut list = || listed(lines.next().unwrap()).unwrap();
    let (running, unwell) = (list(), list());
    let mut stopping = Stopping::default();
    let mut states = || {
        let mut members = members(&running, &unwell, &mut stopping, None).unwrap();
        members.sort();
        let short = |it: Member| (it.name, it.address, it.draining, it.unready);
        let states = members.into_iter().map(short).collect::<Vec<_>>();
        if let Some(line) = lines.next() {
            stopping.note(line).unwrap();
        }
        states
    };
    let row = |name: &str, last: u8, draining, unready| {
        (name.to_owned(), format!("172.31.250.{last}:8080"), draining, unready)
    };
    // Told to read its files anew, then to stop; what happens to the other one changes nothing.
    let before = [row("w1", 2, false, false), row("w2", 3, false, true)];
    assert_eq!(states(), before);
    assert_eq!(states(), before);
    let stopping = [row("w1", 2, true, false), row("w2", 3, false, true)];
    assert_eq!(states(), stopping);
    assert_eq!(states(), stopping);
    // It has ended, and an older list has it still.
    assert_eq!(states(), stopping);
}
