//! The layer over the file: what it changes, what it forgets, how it is written.

use std::path::Path;

use super::*;

fn config(text: &str) -> Config {
    crate::config::parse(text, Path::new("burdock.yaml")).unwrap().config
}

fn of(name: &str) -> Key {
    key("default", "default", name)
}

fn added(address: &str) -> Override {
    let added = Some(Added { address: address.to_owned(), weight: 3 });
    Override { added, since: 7, ..Override::default() }
}

fn state(state: State) -> Override {
    Override { state: Some(state), since: 7, ..Override::default() }
}

#[test]
fn it_is_put_over_and_the_file_stays_as_it_is() {
    let file = config("instances: [{name: a, address: 'a:1'}, {name: b, address: 'b:1'}]");
    let mut overlay = Overlay::default();
    assert_eq!(overlay.apply(&file), file);
    overlay.set(of("a"), state(State::Draining));
    overlay.set(of("c"), Override { weight: Some(5), ..added("c:1") });
    let served = overlay.apply(&file);
    let rows: Vec<_> = served.services[0].versions[0].instances.iter().collect();
    let told: Vec<_> = rows.iter().map(|it| (&*it.name, it.state, it.weight)).collect();
    let expected = [("a", State::Draining, 1), ("b", State::Active, 1), ("c", State::Active, 5)];
    assert_eq!(told, expected);
    assert_eq!(file.services[0].versions[0].instances.len(), 2);
}

#[test]
fn it_comes_back_from_its_text() {
    let mut overlay = Overlay::default();
    overlay.set(of("a"), Override { deadline: Some(12), ..state(State::Draining) });
    overlay.set(of("c"), Override { weight: Some(0), ..added("[::1]:1") });
    assert_eq!(Overlay::from_text(&overlay.to_text()).unwrap(), overlay);
    assert_eq!(Overlay::of_rows(overlay.rows()), overlay);
}

#[test]
fn damaged_text_is_told_of() {
    let whole = {
        let mut overlay = Overlay::default();
        overlay.set(of("a"), state(State::Disabled));
        overlay.to_text()
    };
    for length in 0..whole.trim_end().len() {
        assert!(Overlay::from_text(&whole[..length]).is_err(), "{length}");
    }
    let other = whole.replace("\"format\": 1", "\"format\": 2");
    let error = Overlay::from_text(&other).unwrap_err().to_string();
    assert_eq!(error, "it has format 2, and this version of Burdock reads format 1");
    let other = whole.replace("disabled", "asleep");
    assert!(Overlay::from_text(&other).unwrap_err().to_string().contains("asleep is no state"));
}

#[test]
fn what_the_file_leaves_no_place_for_is_forgotten() {
    let file = config(
        "instances: [{name: a, address: 'a:1'}, {name: d, address: 'd:1'}, {name: e, address: 'e:1'}]",
    );
    let mut overlay = Overlay::default();
    overlay.set(of("a"), state(State::Disabled));
    overlay.set(of("gone"), state(State::Disabled));
    overlay.set(key("other", "default", "x"), added("x:1"));
    overlay.set(of("c"), added("c:1"));
    overlay.set(of("d"), added("d:1"));
    overlay.set(of("e"), Override { weight: Some(2), ..added("elsewhere:1") });
    overlay.set(of("twin"), added("a:1"));
    let told = overlay.prune(&file).join("\n");
    for part in ["gone: ", "other/default/x: ", "default/d: ", "default/e: ", "twin: "] {
        assert!(told.contains(part), "{part} in {told}");
    }
    let left: Vec<_> = overlay.rows().map(|row| row.key.name).collect();
    assert_eq!(left, ["a", "c", "e"]);
    assert!(overlay.prune(&file).is_empty(), "and told of once");
}

#[test]
fn what_is_wanted_of_instances_that_are_found_outlasts_their_absence_but_not_without_end() {
    let searched = config("instances: [a:1]\ndiscovery: { file: x }");
    let mut overlay = Overlay::default();
    for at in 0..1002 {
        overlay.set(of(&format!("gone-{at}")), Override { since: at, ..state(State::Disabled) });
    }
    let told = overlay.prune(&searched);
    assert_eq!(told.len(), 2);
    assert!(told[0].starts_with("default/default/gone-0: its source has not named it"), "{told:?}");
    assert!(overlay.of(&of("gone-1")).is_none() && overlay.of(&of("gone-2")).is_some());
    assert!(overlay.differences(&searched).is_empty(), "nobody is there to differ");
    assert_eq!(overlay.prune(&config("instances: [a:1]")).len(), 1000);
}

#[test]
fn differences_show_what_the_file_says() {
    let file = config("instances: [{name: a, address: 'a:1', state: draining}, 'b:1']");
    let mut overlay = Overlay::default();
    overlay.set(of("a"), Override { weight: Some(4), ..state(State::Draining) });
    overlay.set(of("b:1"), state(State::Disabled));
    overlay.set(of("c"), added("c:1"));
    let told: Vec<_> = overlay
        .differences(&file)
        .into_iter()
        .map(|it| (it.id, it.what, it.file.unwrap_or_default(), it.now))
        .collect();
    let row = |name: &str, what, file: &str, now: &str| {
        (format!("default/default/{name}"), what, file.to_owned(), now.to_owned())
    };
    let expected = [
        row("a", "weight", "1", "4"),
        row("b:1", "state", "active", "disabled"),
        row("c", "added", "", "c:1"),
    ];
    assert_eq!(told, expected);
}

#[test]
fn what_no_api_would_take_is_not_taken_from_a_file_either() {
    for wrong in [
        Override { weight: Some(MAX_WEIGHT + 1), since: 7, ..Override::default() },
        Override { since: END_OF_TIME, ..state(State::Draining) },
        Override { deadline: Some(END_OF_TIME), ..state(State::Draining) },
    ] {
        let mut overlay = Overlay::default();
        overlay.set(of("a"), wrong);
        overlay.set(of("b"), state(State::Disabled));
        let back = Overlay::from_text(&overlay.to_text()).unwrap();
        assert_eq!(back.rows().map(|row| row.key).collect::<Vec<_>>(), [of("b")]);
    }
}

/// Else the next drain, maybe weeks later, would be over at once.
#[test]
fn a_deadline_goes_with_its_drain() {
    let drained = config(
        "instances: [{name: a, address: 'a:1', state: draining}, {name: b, address: 'b:1'}]",
    );
    let active = config("instances: [{name: a, address: 'a:1'}, {name: b, address: 'b:1'}]");
    let mut overlay = Overlay::default();
    overlay.set(of("a"), Override { deadline: Some(12), since: 7, ..Override::default() });
    overlay.set(of("b"), Override { deadline: Some(12), ..state(State::Draining) });
    overlay.prune(&drained);
    assert_eq!(overlay.of(&of("a")).unwrap().deadline, Some(12));
    overlay.prune(&active);
    assert_eq!(overlay.of(&of("a")), None);
    assert_eq!(overlay.of(&of("b")).unwrap().deadline, Some(12), "it drains still");
}

const SPLIT: &str = "services: {a: {traffic_split: {allocations: {v1: 9, v2: 1}}, \
                     versions: {v1: {instances: [x:1]}, v2: {instances: [x:2]}}}}";

fn shares(weights: &[(&str, u32)]) -> Shares {
    let allocations = weights.iter().map(|(name, weight)| ((*name).to_owned(), *weight));
    Shares { allocations: allocations.collect(), since: 7 }
}

#[test]
fn shares_are_put_over_told_and_kept() {
    let file = config(SPLIT);
    let mut overlay = Overlay::default();
    overlay.set_shares("a".into(), Some(shares(&[("v1", 5000), ("v2", 15_000)])));
    let served = overlay.apply(&file);
    assert_eq!((served.services[0].share("v1"), file.services[0].share("v1")), (0.25, 0.9));
    assert_eq!(Overlay::from_text(&overlay.to_text()).unwrap(), overlay);
    let found = overlay.differences(&file);
    let [difference] = &found[..] else { panic!("{found:?}") };
    assert_eq!((&*difference.id, difference.what), ("a", "traffic_split"));
    assert_eq!(
        (difference.file.as_deref(), &*difference.now),
        (Some("v1=9 v2=1"), "v1=0.5 v2=1.5")
    );
    assert!(overlay.prune(&file).is_empty());
    let one = config("services: {a: {versions: {v1: {instances: [x:1]}}}}");
    assert_eq!(overlay.prune(&one), ["the traffic split of a: the file has none any more"]);
    assert!(overlay.is_empty());
}

#[test]
fn shares_that_nobody_can_have_asked_for_are_not_read() {
    for weights in [&[("v1", 0)][..], &[("v1", u32::MAX)], &[]] {
        let mut overlay = Overlay::default();
        overlay.set_shares("a".into(), Some(shares(weights)));
        assert!(Overlay::from_text(&overlay.to_text()).unwrap().is_empty(), "{weights:?}");
    }
    let mut overlay = Overlay::default();
    overlay.set_shares("a".into(), Some(shares(&[("v1", 1), ("v2", 0), ("v3", 1)])));
    let told = overlay.prune(&config(SPLIT));
    assert_eq!(told, ["the traffic split of a: the file has no version v3 any more"]);
    let left = overlay.shares("a").unwrap();
    assert_eq!(left.allocations, shares(&[("v1", 1), ("v2", 0)]).allocations, "v2 stays off");
    overlay.set_shares("a".into(), Some(shares(&[("v1", 0), ("v3", 1)])));
    assert_eq!(overlay.prune(&config(SPLIT)).len(), 2);
    assert!(overlay.is_empty());
}
