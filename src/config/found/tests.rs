//! What is found counts once, too little changes nothing, and it comes back from its text.

use std::path::Path;

use super::*;
use crate::config;

fn config(text: &str) -> Config {
    config::parse(text, Path::new("c.yaml")).unwrap().config
}

fn whose() -> Whose {
    Whose::of("default", "default")
}

fn members(addresses: &[&str]) -> Vec<Member> {
    addresses.iter().map(|it| Member::new(None, (*it).to_owned(), 1, false).unwrap()).collect()
}

fn served(found: &Found, config: &Config) -> Vec<String> {
    let config = found.apply(config);
    config.services[0].versions[0].instances.iter().map(|it| it.name.clone()).collect()
}

#[test]
fn what_is_found_stands_beside_what_the_file_names() {
    let config = config("instances: [a:1]\ndiscovery: { file: x }\n");
    let mut found = Found::default();
    assert_eq!(found.learn(&whose(), members(&["c:1", "a:1", "b:1"]), 1), Ok(true));
    assert_eq!(served(&found, &config), ["a:1", "b:1", "c:1"], "once each");
    assert_eq!(found.learn(&whose(), members(&["b:1", "c:1", "a:1"]), 1), Ok(false), "the same");
    let draining = Member { draining: true, ..members(&["d:1"]).remove(0) };
    assert_eq!(found.learn(&whose(), vec![draining], 1), Ok(true));
    let instances = &found.apply(&config).services[0].versions[0].instances;
    assert_eq!((instances.len(), instances[1].state), (2, State::Draining));
    let unready = Member { unready: true, ..members(&["d:1"]).remove(0) };
    assert_eq!(found.learn(&whose(), vec![unready], 1), Ok(true));
    let instances = &found.apply(&config).services[0].versions[0].instances;
    assert_eq!((instances[1].state, instances[1].unready), (State::Active, true));
}

#[test]
fn a_source_that_names_too_few_changes_nothing() {
    let config = config("discovery: { file: x }\n");
    let mut found = Found::default();
    found.learn(&whose(), members(&["a:1", "b:1"]), 1).unwrap();
    let unbelieved = found.learn(&whose(), Vec::new(), 1).unwrap_err();
    assert_eq!(unbelieved, Unbelieved::TooFew { told: 0, minimum: 1 });
    assert_eq!(
        found.learn(&whose(), members(&["a:1"]), 2).map_err(|it| it.to_string()).unwrap_err(),
        "1 instances, and discovery.minimum is 2: those that are known stay"
    );
    assert_eq!(served(&found, &config), ["a:1", "b:1"]);
    assert_eq!(found.learn(&whose(), Vec::new(), 0), Ok(true), "where that is allowed");
    assert!(served(&found, &config).is_empty());
    let many = (0..=MOST).map(|at| format!("h{at}:1")).collect::<Vec<_>>();
    let many = members(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(found.learn(&whose(), many, 0), Err(Unbelieved::TooMany(MOST + 1)));
}

#[test]
fn two_of_one_name_or_at_one_address_are_one() {
    let row = |name: &str, address: &str| {
        Member::new(Some(name.to_owned()), address.to_owned(), 1, false).unwrap()
    };
    let told = vec![row("b", "x:1"), row("a", "x:1"), row("c", "y:1"), row("c", "z:1")];
    let mut found = Found::default();
    found.learn(&whose(), told, 1).unwrap();
    assert_eq!(found.of(&whose()).unwrap(), [row("a", "x:1"), row("c", "y:1")]);
}

#[test]
fn who_serves_already_serves_until_a_new_source_is_heard() {
    let before = config("instances: [a:1, { name: b, address: 'b:1', weight: 2 }]\n");
    let after = config("discovery: { file: x }\n");
    let mut found = Found::default();
    found.seed(&whose(), &before.services[0].versions[0].instances);
    assert_eq!(
        found.apply(&after).services[0].versions[0].instances,
        before.services[0].versions[0].instances
    );
    found.learn(&whose(), members(&["c:1"]), 1).unwrap();
    found.seed(&whose(), &before.services[0].versions[0].instances);
    assert_eq!(served(&found, &after), ["c:1"], "it has been heard");
    found.prune(&before);
    assert!(found.is_empty(), "nobody asks for it");
}

#[test]
fn it_comes_back_from_its_text_and_damage_is_told_of() {
    let mut found = Found::default();
    let draining = Member { draining: true, ..members(&["d:1"]).remove(0) };
    let unready = Member { unready: true, ..members(&["a:1"]).remove(0) };
    found.learn(&whose(), vec![draining, unready], 1).unwrap();
    assert_eq!(Found::from_text(&found.to_text()).unwrap(), found);
    assert!(matches!(Found::from_text("{"), Err(FoundError::Damaged(_))));
    assert!(matches!(Found::from_text("{\"format\": 2}"), Err(FoundError::Format(2))));
    let strange = r#"{"format":1,"found":[{"service":"s","version":"v","instances":[
        {"name":"a b","address":"a:1","weight":1},{"name":"a","address":"a:1","weight":1}]}]}"#;
    let found = Found::from_text(strange).unwrap();
    assert_eq!(found.of(&Whose::of("s", "v")).unwrap().len(), 1);
}
