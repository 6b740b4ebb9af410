//! What is said, and that saying it leaves no trace.

use std::path::Path;

use super::*;
use crate::affinity::token::{Claim, Keyring};
use crate::balance::Draw;
use crate::config;
use crate::health::Health;
use crate::snapshot::Live;

const YAML: &str = "session_affinity: true
affinity: { idle_ttl: 30m }
instances:
  - { name: a, address: 127.0.0.1:1 }
  - { name: b, address: 127.0.0.1:2 }
  - { name: c, address: 127.0.0.1:3, state: draining }
";

fn live(yaml: &str) -> Live {
    let config = config::parse(yaml, Path::new("c.yaml")).unwrap().config;
    let keyring = Keyring::new(&[[2; 32], [1; 32]]).unwrap();
    Live::new(Arc::new(config), Arc::new(keyring), 1).0
}

fn ask(live: &Live, url: &str, cookie: Option<&str>, fields: &[&str]) -> Explanation {
    let fields: Vec<_> = fields.iter().map(|line| (*line).to_owned()).collect();
    let client = IpAddr::from([192, 0, 2, 7]);
    let question = Question::new(url, "GET", cookie, client, &fields).unwrap();
    explain(&live.snapshot(), question)
}

fn token(live: &Live, instance: &str, age: u64) -> String {
    let issued = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() - age;
    let claim = Claim {
        service: "default",
        version: "default",
        instance,
        issued,
        renewed: issued,
        mark: 0,
    };
    live.snapshot().keyring.seal(&claim, [7; 24])
}

fn instance(live: &Live, name: &str) -> Arc<Instance> {
    let snapshot = live.snapshot();
    let members = snapshot.services()[0].roster.members();
    Arc::clone(members.all().iter().find(|it| it.identity().name == name).unwrap())
}

#[test]
fn a_new_session_goes_to_whose_turn_it_is_and_the_others_are_told_of() {
    let live = live(YAML);
    let said = ask(&live, "http://any.test:8080/x", None, &[]);
    assert_eq!(said.service.as_deref(), Some("default"));
    assert_eq!(said.why_service, "it takes any host, path / covers it");
    assert_eq!(said.token.unwrap().verdict, "absent");
    assert_eq!((said.choice.as_deref(), &*said.outcome), (Some("a"), "new"));
    assert_eq!(said.why, "it brings no token; a has the turn (balance: even)");
    let candidates: Vec<_> = said.candidates.iter().map(|it| (it.r#in, &*it.reason)).collect();
    let draining = "draining; serves its sessions until its deadline";
    assert_eq!(candidates, [(true, "ready"), (true, "ready"), (false, draining)]);
}

#[test]
fn a_bound_session_goes_to_its_instance_by_a_token_or_a_whole_cookie() {
    let live = live(YAML);
    let token = token(&live, "c", 60);
    for cookie in [token.clone(), format!("x=1; BURDOCK={token}")] {
        let said = ask(&live, "http://a.test/", Some(&cookie), &[]);
        assert_eq!((said.choice.as_deref(), &*said.outcome), (Some("c"), "kept"));
        assert_eq!(said.why, "bound to c by its token, and c serves it");
        let told = said.token.unwrap();
        assert_eq!((told.verdict, told.carrier, told.reason), ("bound", Some("cookie"), None));
        assert_eq!((told.key.as_deref(), told.instance.as_deref()), (Some("1 of 2"), Some("c")));
        assert!(told.age_seconds.is_some_and(|age| (60..70).contains(&age)), "{told:?}");
    }
}

#[test]
fn a_token_that_is_not_honoured_says_why() {
    let live = live(YAML);
    for (cookie, reason, has_key) in [
        (token(&live, "a", 3600), "idle_expired", true),
        (token(&live, "a", 60).replace('A', "B"), "", false),
        ("nothing-of-ours".to_owned(), "malformed", false),
    ] {
        let said = ask(&live, "http://a.test/", Some(&cookie), &[]);
        assert_eq!((&*said.outcome, said.choice.as_deref()), ("rejected", Some("a")), "{said:?}");
        let told = said.token.unwrap();
        assert_eq!(told.verdict, "rejected");
        if !reason.is_empty() {
            assert_eq!((told.reason, told.key.is_some()), (Some(reason), has_key));
        }
    }
}

#[test]
fn a_session_moves_when_its_instance_cannot_serve_it_unless_it_is_strict() {
    for (strict, outcome, choice) in
        [(false, "rehomed", Some("a")), (true, "session_unavailable", None)]
    {
        let yaml = YAML.replace("30m", &format!("30m, strict: {strict}"));
        let live = live(&yaml);
        let token = token(&live, "b", 60);
        instance(&live, "b").set_health(Health::Unready, "a test");
        let said = ask(&live, "http://a.test/", Some(&token), &[]);
        assert_eq!((&*said.outcome, said.choice.as_deref()), (outcome, choice));
        assert!(said.why.starts_with("bound to b, which can't serve it (unready); "), "{said:?}");
        assert_eq!(said.candidates[1].reason, "unready: it answered a readiness probe with no");
    }
}

#[test]
fn who_is_kept_out_or_sent_elsewhere_is_told_so() {
    let yaml = "listeners: [{ address: 127.0.0.1:8080, https_redirect: true }]
services:
  chat: { hosts: [chat.test, '*.chat.test'], paths: [/app], access: { deny: [192.0.2.0/24] },
          instances: [127.0.0.1:1] }
  open: { hosts: [open.test], instances: [127.0.0.1:2] }
";
    let live = live(yaml);
    let redirected = ask(&live, "http://open.test:8080/", None, &[]);
    assert_eq!((&*redirected.outcome, redirected.choice), ("redirected", None));
    assert_eq!(redirected.listener.as_deref(), Some("127.0.0.1:8080"));
    let denied = ask(&live, "https://www.chat.test/app/x", None, &[]);
    assert_eq!((&*denied.outcome, denied.service.as_deref()), ("denied", Some("chat")));
    assert_eq!(denied.why_service, "host www.chat.test fits its *.chat.test, path /app covers it");
    let lost = ask(&live, "https://chat.test/other", None, &[]);
    assert_eq!((&*lost.outcome, lost.service), ("no_service", None));
    let off = ask(&live, "https://open.test/", None, &[]);
    assert_eq!(off.token, None);
    assert_eq!(off.why, "session_affinity is off; 127.0.0.1:2 has the turn (balance: even)");
}

#[test]
fn a_full_version_lets_it_wait_and_a_dead_one_answers_with_503() {
    let live = live("instances: [{ name: a, address: 127.0.0.1:1, max_tunnels: 1 }]");
    let a = instance(&live, "a");
    let _place = crate::instance::InFlight::begin(&a, 0, Kind::Tunnel).unwrap();
    let upgrade = ["connection: upgrade", "upgrade: websocket", "sec-websocket-key: x"];
    let said = ask(&live, "http://a.test/", None, &upgrade);
    assert_eq!((&*said.outcome, &*said.candidates[0].reason), ("queued", "full: max_tunnels is 1"));
    assert_eq!(ask(&live, "http://a.test/", None, &[]).choice.as_deref(), Some("a"));
    a.set_health(Health::Dead, "a test");
    let said = ask(&live, "http://a.test/", None, &[]);
    assert_eq!((&*said.outcome, said.choice), ("no_instance", None));
}

#[test]
fn to_ask_leaves_no_trace() {
    for balance in ["even", "random", "least_requests"] {
        let yaml = format!("{YAML}balance: {balance}\n").replace("30m", "30m, engine_io: true");
        let live = live(&yaml);
        let snapshot = live.snapshot();
        let roster = &snapshot.services()[0].roster;
        // Counters, turns, memories: all that it is made of.
        let state = || format!("{roster:?}");
        let before = state();
        let moved = token(&live, "b", 60);
        instance(&live, "b").set_health(Health::Unready, "a test");
        let unready = state();
        assert_ne!(before, unready, "a trace would be seen");
        for _ in 0..7 {
            ask(&live, "http://a.test/", None, &[]);
            ask(&live, "http://a.test/", Some(&moved), &[]);
            ask(&live, "http://a.test/?EIO=4&transport=polling&sid=x", Some("junk"), &[]);
        }
        assert_eq!(state(), unready);
        if balance == "even" {
            instance(&live, "b").set_health(Health::Ready, "a test");
            let draw = Draw { key: None, random: 0 };
            let next = roster.choose(draw, Kind::Request, &[]).unwrap();
            assert_eq!(next.identity().name, "a", "it is still the first one's turn");
        }
    }
}

#[test]
fn what_is_said_is_what_happens() {
    let live = live(YAML);
    let snapshot = live.snapshot();
    let roster = &snapshot.services()[0].roster;
    for turn in 0..20_u64 {
        let said = ask(&live, "http://a.test/", None, &[]);
        let draw = Draw { key: None, random: turn };
        let went = roster.choose(draw, Kind::Request, &[]).unwrap();
        assert_eq!(said.choice.as_ref(), Some(&went.identity().name));
    }
}

#[test]
fn questions_without_a_meaning_are_refused() {
    let client = IpAddr::from([127, 0, 0, 1]);
    let ask = |url: &str, method: &str, cookie: Option<&str>, field: &str| {
        let fields = [field.to_owned()];
        Question::new(url, method, cookie, client, &fields).err().map(|error| error.to_string())
    };
    let url = "http://a.test/";
    for (asked, problem) in [
        (ask("a.test/x", "GET", None, "a:b"), "url: "),
        (ask("ftp://a.test/x", "GET", None, "a:b"), "url: "),
        (ask("http://", "GET", None, "a:b"), "url: "),
        (ask(url, "G T", None, "a:b"), "method: "),
        (ask(url, "GET", None, "nothing"), "header: "),
        (ask(url, "GET", Some("a=\n"), "a:b"), "cookie: "),
    ] {
        assert!(asked.as_ref().is_some_and(|it| it.starts_with(problem)), "{asked:?}");
    }
}
