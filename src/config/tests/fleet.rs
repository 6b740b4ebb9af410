//! What a fleet shares of its configurations, and what stays in the file of each balancer.

use std::path::Path;

use super::{config, errors, parsed};
use crate::config::{effective, parse_shared};

const OWN: &str = "fleet: { etcd: { endpoints: ['http://a:1'], prefix: /f }, config: true }\n";

fn shared_errors(text: &str) -> String {
    let told = parse_shared(text, Path::new("etcd:/f/shared/config"), Path::new(""));
    told.map(|_| String::new()).unwrap_or_else(|errors| errors.to_string())
}

#[test]
fn a_balancers_own_file_has_none_of_what_is_shared() {
    let own = config(&format!("{OWN}listeners: [':80']\naccess_log: false\n"));
    assert!(own.is_shared() && own.services.is_empty());
    assert!(effective(&own).contains("the rest is the fleet's"));
    let told =
        errors(&format!("{OWN}instances: [a:1]\ntimeouts: {{ idle: 1s }}\nservices: {{}}\n"));
    for (line, key) in [(2, "instances"), (3, "timeouts"), (4, "services")] {
        let begins = format!("c.yaml:{line}: {key}: the fleet's, since `fleet.config` is true");
        assert!(told.contains(&begins), "{told}");
    }
}

#[test]
fn what_is_shared_has_nothing_that_is_a_balancers_own() {
    let told = shared_errors("instances: [a:1]\nworkers: 1\nadmin: off\nfleet: off\nnonsense: 1\n");
    for (line, key) in [(2, "workers"), (3, "admin"), (4, "fleet")] {
        let begins = format!("etcd:/f/shared/config:{line}: {key}: not a thing of the fleet");
        assert!(told.contains(&begins), "{told}");
    }
    assert!(told.contains("etcd:/f/shared/config:5: nonsense: unknown key"), "{told}");
    assert!(!shared_errors("").is_empty() && !shared_errors("a: [").is_empty());
}

#[test]
fn both_make_one_configuration() {
    let own = parsed(&format!("{OWN}listeners: [':80']\nuser: www-data\n")).unwrap();
    let text = "instances: [a:1]\nshutdown: { timeout: 7s }\ntimeouts: { keep_alive: 3s, connect: 4s }\n\
                forwarding: { via: off }\nlimits: { uri: 9KiB }\nupgrade: { timeout: 8s }\n";
    let shared = parse_shared(text, Path::new("x"), Path::new("")).unwrap();
    let whole = own.with_shared(shared).config;
    let alone = config(&format!("listeners: [':80']\nuser: www-data\n{text}"));
    let mut same = whole.clone();
    same.fleet = None;
    assert_eq!(same, alone);
}
