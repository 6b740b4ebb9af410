//! One row for each mistake, and its look-alikes that are none.

use super::*;
use crate::config::types::AffinityCookie;

fn healthy<'a>(affinity: Option<&'a Affinity>, balance: &'a Balance) -> Symptoms<'a> {
    Symptoms {
        service: "chat",
        version: "v1",
        affinity,
        balance,
        https: false,
        trusts: false,
        begun: 1000,
        kept: 9000,
        moved: 100,
        forgetful: 50,
        unknown_key: 40,
        strangers: 9,
        misled: 0,
        voted: None,
        ready: 2,
    }
}

fn found(symptoms: &Symptoms<'_>) -> Vec<Finding> {
    diagnose(symptoms, &Places::default())
}

fn codes(symptoms: &Symptoms<'_>) -> Vec<&'static str> {
    found(symptoms).iter().map(|finding| finding.code).collect()
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
    let off = Symptoms { misled: 12, ..healthy(None, &Balance::Even) };
    let told = found(&off);
    assert_eq!((told[0].code, &*told[0].cure, told[0].count), {
        ("sid_unknown", "session_affinity: true", 12)
    });
    assert!(told[0].message.starts_with("chat/v1: instances answered 12 requests"));
    assert_eq!(codes(&Symptoms { misled: 2, ..off }), [""; 0], "its instance was about to go");
    let affinity = Affinity::default();
    let on = Symptoms { misled: 12, ..healthy(Some(&affinity), &Balance::Even) };
    assert_eq!(codes(&on), [""; 0]);
}

#[test]
fn a_cookie_that_never_comes_back_has_a_cause() {
    let with = |cookie: AffinityCookie| Affinity { cookie, ..Affinity::default() };
    let plain = AffinityCookie::default;
    let secure = || AffinityCookie { secure: Secure::Always, ..plain() };
    for (cookie, https, code, cure) in [
        (plain(), false, "cookie_lost", "affinity.header: X-Burdock-Session  #"),
        (
            AffinityCookie { domain: Some("a.test".into()), ..plain() },
            false,
            "cookie_lost",
            "affinity.cookie: { name: BURDOCK, domain: none }",
        ),
        (
            AffinityCookie { path: "/app".into(), ..plain() },
            false,
            "cookie_lost",
            "affinity.cookie: { name: BURDOCK, path: / }",
        ),
        (
            secure(),
            false,
            "secure_cookie_on_http",
            "affinity.cookie: { name: BURDOCK, secure: auto }",
        ),
        (secure(), true, "cookie_lost", "affinity.header: "),
    ] {
        let affinity = with(cookie);
        let lost = Symptoms { kept: 0, https, ..healthy(Some(&affinity), &Balance::Even) };
        let told = found(&lost);
        assert_eq!(told.iter().map(|it| it.code).collect::<Vec<_>>(), [code]);
        assert!(told[0].cure.starts_with(cure), "{}", told[0].cure);
    }
}

#[test]
fn visitors_checkers_and_robots_lose_no_cookie() {
    let affinity = Affinity::default();
    let lost = Symptoms { kept: 0, unknown_key: 0, ..healthy(Some(&affinity), &Balance::Even) };
    for (why, it) in [
        ("everybody came once", Symptoms { forgetful: 0, ..lost }),
        ("a few checkers came again", Symptoms { forgetful: 19, ..lost }),
        ("most clients bring theirs", Symptoms { kept: 10, ..lost }),
        ("it was quiet", Symptoms { begun: 99, ..lost }),
    ] {
        assert_eq!(codes(&it), [""; 0], "{why}");
    }
    let by = Affinity { by: Some(HashKey::Cookie("sid".into())), ..Affinity::default() };
    let lost = Symptoms { unknown_key: 0, kept: 0, ..healthy(Some(&by), &Balance::Even) };
    assert_eq!(codes(&lost), [""; 0], "there is no token");
}

#[test]
fn a_secure_cookie_that_comes_back_came_by_a_proxy_that_is_not_told_of() {
    let cookie = AffinityCookie { secure: Secure::Always, ..AffinityCookie::default() };
    let affinity = Affinity { cookie, ..Affinity::default() };
    assert_eq!(codes(&healthy(Some(&affinity), &Balance::Even)), [""; 0]);
    let checked = Symptoms { kept: 0, forgetful: 2, ..healthy(Some(&affinity), &Balance::Even) };
    assert_eq!(codes(&checked), [""; 0], "only checkers came");
}

#[test]
fn many_tokens_of_unknown_keys_are_another_replicas() {
    let affinity = Affinity::default();
    let strange =
        Symptoms { unknown_key: 600, strangers: 10, ..healthy(Some(&affinity), &Balance::Even) };
    let told = found(&strange);
    assert_eq!(told[0].code, "unknown_key");
    assert!(told[0].cure.starts_with("affinity_keys: { file: "), "{}", told[0].cure);
    for (why, it) in [
        ("a few forge them", Symptoms { strangers: 9, ..strange }),
        ("a key was rotated away long ago", Symptoms { unknown_key: 450, ..strange }),
    ] {
        assert_eq!(codes(&it), [""; 0], "{why}");
    }
}

#[test]
fn one_address_for_all_shows_where_it_decides() {
    let by = Affinity { by: Some(HashKey::ClientIp), ..Affinity::default() };
    let hash = Balance::Hash(HashKey::ClientIp);
    let voted = |is_clear, named, seconds| {
        let address = "10.0.0.7".to_owned();
        Voted { address, all: 200, is_clear, named, seconds }
    };
    let clear = voted(true, 8, 4);
    for (affinity, balance) in [(Some(&by), &Balance::Even), (None, &hash)] {
        let one = Symptoms { voted: Some(&clear), ..healthy(affinity, balance) };
        let told = found(&one);
        assert_eq!(told[0].code, "one_client_address");
        let condition = "if 10.0.0.7 is a proxy of yours: ";
        assert_eq!(told[0].cure, format!("{condition}trusted_proxies: [10.0.0.7/32]"));
        let more = found(&Symptoms { trusts: true, ..one });
        assert_eq!(more[0].cure, format!("{condition}trusted_proxies: [..., 10.0.0.7/32]"));
        assert_eq!(codes(&Symptoms { ready: 1, ..one }), [""; 0]);
        for (why, other) in [
            ("one robot", voted(true, 1, 60)),
            ("clients", voted(false, 60, 60)),
            ("all at once", voted(true, 60, 3)),
        ] {
            assert_eq!(codes(&Symptoms { voted: Some(&other), ..one }), [""; 0], "{why}");
        }
    }
    let even = Symptoms { voted: Some(&clear), ..healthy(None, &Balance::Even) };
    assert_eq!(codes(&even), [""; 0], "addresses decide nothing");
}
