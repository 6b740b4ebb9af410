//! One row for each mistake, and its look-alikes that are none.

use super::*;
use crate::config::types::AffinityCookie;

fn healthy<'a>(affinity: Option<&'a Affinity>, balance: &'a Balance) -> Symptoms<'a> {
    Symptoms {
        version: "chat/v1",
        affinity,
        balance,
        https: false,
        begun: 1000,
        kept: 9000,
        unknown_key: 2,
        sid_unknown: 0,
        busiest: 5000,
        others: 5000,
        ready: 2,
    }
}

fn codes(symptoms: &Symptoms<'_>) -> Vec<&'static str> {
    diagnose(symptoms).iter().map(|finding| finding.code).collect()
}

#[test]
fn what_works_has_no_findings() {
    let affinity = Affinity::default();
    for it in [Some(&affinity), None] {
        assert_eq!(codes(&healthy(it, &Balance::Even)), [""; 0]);
    }
}

#[test]
fn unknown_sessions_matter_while_affinity_is_off() {
    let off = Symptoms { sid_unknown: 12, ..healthy(None, &Balance::Even) };
    let found = diagnose(&off);
    assert_eq!((found[0].code, &*found[0].cure, found[0].count), {
        ("sid_unknown", "session_affinity: true", 12)
    });
    let affinity = Affinity::default();
    let on = Symptoms { sid_unknown: 12, ..healthy(Some(&affinity), &Balance::Even) };
    assert_eq!(codes(&on), [""; 0], "an instance that was restarted says the same");
}

#[test]
fn a_cookie_that_never_comes_back_has_a_cause() {
    let with = |cookie: AffinityCookie| Affinity { cookie, ..Affinity::default() };
    let plain = AffinityCookie::default;
    for (cookie, https, code, cure) in [
        (plain(), false, "cookie_lost", "header: X-Burdock-Session"),
        (
            AffinityCookie { domain: Some("a.test".into()), ..plain() },
            false,
            "cookie_lost",
            "domain: none",
        ),
        (AffinityCookie { path: "/app".into(), ..plain() }, false, "cookie_lost", "path: /"),
        (
            AffinityCookie { secure: Secure::Always, ..plain() },
            false,
            "secure_cookie_on_http",
            "secure: auto",
        ),
        (AffinityCookie { secure: Secure::Always, ..plain() }, true, "cookie_lost", "header: "),
    ] {
        let affinity = with(cookie);
        let lost = Symptoms { kept: 0, https, ..healthy(Some(&affinity), &Balance::Even) };
        let found = diagnose(&lost);
        assert_eq!((found.len(), found[0].code), (1, code));
        assert!(found[0].cure.contains(cure), "{}", found[0].cure);
    }
    let affinity = Affinity::default();
    let few = Symptoms { kept: 0, begun: 50, ..healthy(Some(&affinity), &Balance::Even) };
    assert_eq!(codes(&few), [""; 0], "fifty visitors may have come once each");
    let by = Affinity { by: Some(HashKey::Cookie("sid".into())), ..Affinity::default() };
    assert_eq!(codes(&Symptoms { kept: 0, ..healthy(Some(&by), &Balance::Even) }), [""; 0]);
}

#[test]
fn many_tokens_of_unknown_keys_are_another_replicas() {
    let affinity = Affinity::default();
    let strange = Symptoms { unknown_key: 20, ..healthy(Some(&affinity), &Balance::Even) };
    assert_eq!(codes(&strange), ["unknown_key"]);
}

#[test]
fn one_address_for_all_shows_where_it_decides() {
    let by = Affinity { by: Some(HashKey::ClientIp), ..Affinity::default() };
    let hash = Balance::Hash(HashKey::ClientIp);
    for (affinity, balance) in [(Some(&by), &Balance::Even), (None, &hash)] {
        let one = Symptoms { others: 0, ..healthy(affinity, balance) };
        assert_eq!(codes(&one), ["one_client_address"]);
        assert_eq!(codes(&Symptoms { ready: 1, ..one }), [""; 0]);
        assert_eq!(codes(&Symptoms { busiest: 9, ..one }), [""; 0]);
    }
    assert_eq!(codes(&Symptoms { others: 0, ..healthy(None, &Balance::Even) }), [""; 0]);
}

#[test]
fn a_finding_is_new_once_and_gone_when_it_is_no_longer_found() {
    let off = Symptoms { sid_unknown: 1, ..healthy(None, &Balance::Even) };
    let findings = Findings::default();
    let (first, later) = (SystemTime::UNIX_EPOCH, SystemTime::now());
    assert_eq!(findings.take(diagnose(&off), first).len(), 1);
    let more = Symptoms { sid_unknown: 5, ..off };
    assert_eq!(findings.take(diagnose(&more), later), []);
    let all = findings.all();
    assert_eq!((all.len(), all[0].0.count, all[0].1), (1, 5, first));
    findings.take(Vec::new(), later);
    assert_eq!(findings.all(), []);
}
