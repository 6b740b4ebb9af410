//! Several versions of a service: shares are as the weights say, a change of weights moves as few clients as
//! need be, sessions keep their version, and what is asked for at run time outlives the process.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::support::h2::{H2, finish, get};
use crate::support::{self, Api, Backend, Burdock, Client, Request, eventually, run_to_end};

/// A service `app` with an instance for each version, and what its versions have in common.
fn config(versions: &[(&Backend, u32)], split: &str, common: &str) -> String {
    let weights: Vec<_> =
        versions.iter().map(|(it, weight)| format!("{}: {weight}", it.name)).collect();
    let mut text = format!(
        "{}trusted_proxies: [127.0.0.1]\nservices:\n  app:\n    traffic_split: {{ {split}allocations: {{ {} }} }}\n    versions:\n",
        support::HEADER,
        weights.join(", ")
    );
    for (backend, _) in versions {
        let (name, address) = (&backend.name, backend.address);
        text += &format!(
            "      {name}:\n        instances: [{{ name: {name}, address: {address} }}]\n{common}"
        );
    }
    text
}

const STICKY: &str = "        session_affinity: true\n";

/// The version that answers each client, which is its instance here.
async fn versions(clients: &mut [Client]) -> Vec<String> {
    let mut found = Vec::with_capacity(clients.len());
    for client in clients {
        found.push(client.get("/").await.instance().to_owned());
    }
    found
}

fn count(found: &[String], version: &str) -> usize {
    found.iter().filter(|name| *name == version).count()
}

fn moved(before: &[String], after: &[String]) -> usize {
    before.iter().zip(after).filter(|(before, after)| before != after).count()
}

async fn share(api: &mut Api, weights: serde_json::Value) {
    let (status, told) = api.put("services/app/split", json!({ "allocations": weights })).await;
    assert_eq!((status, &told["source"]), (200, &json!("api")), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_move_only_when_their_version_gets_nothing_any_more() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let yaml = config(&[(&v1, 9), (&v2, 1)], "", STICKY);
    let mut burdock = Burdock::start(&yaml).await;
    let mut api = Api::of(&burdock);
    let mut clients: Vec<_> = (0..150).map(|_| burdock.session()).collect();
    let first = versions(&mut clients).await;
    let canary = count(&first, "v2");
    assert!((2..=35).contains(&canary), "{canary} of 150 at 10 %");
    // More for the new version: new clients go there, and nobody moves.
    share(&mut api, json!({ "v1": 1, "v2": 3 })).await;
    assert_eq!(moved(&first, &versions(&mut clients).await), 0);
    let mut more: Vec<_> = (0..60).map(|_| burdock.session()).collect();
    let at_new = count(&versions(&mut more).await, "v2");
    assert!((30..=58).contains(&at_new), "{at_new} of 60 at 75 %");
    // Promoted: who was on the old version moves, once, and nobody else.
    share(&mut api, json!({ "v2": 1 })).await;
    let promoted = versions(&mut clients).await;
    assert_eq!((count(&promoted, "v2"), moved(&first, &promoted)), (150, 150 - canary));
    assert_eq!(moved(&promoted, &versions(&mut clients).await), 0);
    let split = [("reason", "traffic_split")];
    let rehomed = burdock.metrics().await.sum("burdock_rehomes_total", &split);
    assert_eq!(rehomed as usize, 150 - canary);
    // What was asked for outlives the process, and is taken back with as little to do.
    burdock.signal(libc::SIGTERM);
    burdock.exit_code().await;
    let (directory, file) = (burdock.directory.clone(), burdock.config.clone());
    let burdock = Burdock::spawn(directory, file, &["run", "-c", "burdock.yaml"]).await;
    let mut api = Api::of(&burdock);
    clients
        .iter_mut()
        .for_each(|client| (client.address = burdock.address(), client.disconnect()).1);
    assert_eq!(moved(&promoted, &versions(&mut clients).await), 0);
    let status = api.status().await;
    let difference = &status["differences"][0];
    assert_eq!(
        (&difference["id"], &difference["what"], &difference["file"], &difference["now"]),
        (&json!("app"), &json!("traffic_split"), &json!("v1=9 v2=1"), &json!("v2=1"))
    );
    assert_eq!(status["services"][0]["versions"][1]["share"], 1.0);
    let (_, told) = api.delete("services/app/split").await;
    assert_eq!(
        (&told["source"], &told["shares"]),
        (&json!("file"), &json!({ "v1": 0.9, "v2": 0.1 }))
    );
    assert_eq!(moved(&promoted, &versions(&mut clients).await), 0, "v2 has weight");
    // Rolled back: all go, since a version that gets nothing keeps nobody ...
    share(&mut api, json!({ "v1": 1, "v2": 0 })).await;
    assert_eq!(count(&versions(&mut clients).await, "v1"), 150);
    // ... unless that is what the file asks for.
    let keep = config(&[(&v1, 9), (&v2, 1)], "sessions_at_zero: keep, ", STICKY);
    burdock.reload(&keep).await;
    share(&mut api, json!({ "v1": 0, "v2": 1 })).await;
    assert_eq!(count(&versions(&mut clients).await, "v1"), 150, "until their tokens end");
    assert_eq!(burdock.session().get("/last").await.instance(), "v2");
    let line = burdock.access("/last", 1).await.swap_remove(0);
    assert_eq!((&line["version"], &line["split"]), (&json!("v2"), &json!("drawn")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_number_in_a_cookie_keeps_clients_without_sessions_at_their_version() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let burdock = Burdock::start(&config(&[(&v1, 8), (&v2, 2)], "", "")).await;
    let mut api = Api::of(&burdock);
    let mut clients: Vec<_> = (0..200).map(|_| burdock.session()).collect();
    let answer = clients[0].get("/a").await;
    let line = answer.set_cookie("BURDOCK_SPLIT").expect("a number");
    assert!(line.ends_with("; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"), "{line}");
    assert!(answer.cookie("BURDOCK_SPLIT").unwrap().parse::<u32>().unwrap() < 1_000_000);
    assert_eq!(answer.field("cache-control"), Some("private"));
    assert_eq!(clients[0].get("/a").await.set_cookie("BURDOCK_SPLIT"), None, "once");
    let lines = burdock.access("/a", 2).await;
    assert_eq!((&lines[0]["split"], &lines[1]["split"]), (&json!("drawn"), &json!("cookie")));
    let first = versions(&mut clients).await;
    let at_new = count(&first, "v2");
    assert!((15..=70).contains(&at_new), "{at_new} of 200 at 20 %");
    assert_eq!(moved(&first, &versions(&mut clients).await), 0);
    share(&mut api, json!({ "v1": 6, "v2": 4 })).await;
    let raised = versions(&mut clients).await;
    let (gone, back) =
        (moved(&first, &raised), |(a, b): (&String, &String)| a == "v2" && b == "v1");
    assert!((15..=70).contains(&gone), "{gone} of 200 moved for 20 % more");
    assert!(!first.iter().zip(&raised).any(back), "nobody is sent back");
    share(&mut api, json!({ "v1": 80, "v2": 20 })).await;
    assert_eq!(moved(&first, &versions(&mut clients).await), 0, "lowered, the same ones go back");
    // What is no number is as none.
    for cookie in
        ["BURDOCK_SPLIT=", "BURDOCK_SPLIT=-1", "BURDOCK_SPLIT=1234567", "BURDOCK_SPLIT=%31"]
    {
        let request = Request::get("/").with("Cookie", cookie);
        let answer = burdock.client().send(&request).await;
        assert!(answer.set_cookie("BURDOCK_SPLIT").is_some(), "{cookie}");
    }
    let metrics = burdock.metrics().await;
    let of = |by: &str| metrics.sum("burdock_split_requests_total", &[("by", by)]);
    assert_eq!((of("drawn"), of("cookie"), of("token")), (204.0, 602.0, 0.0));
    assert_eq!(metrics.sum("burdock_split_share", &[("version", "v2")]), 0.2);
}

#[tokio::test(flavor = "multi_thread")]
async fn addresses_and_chance_decide_where_they_are_told_to() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let of = |split: &str| config(&[(&v1, 1), (&v2, 1)], split, "");
    let burdock = Burdock::start(&of("shard_by: ip, ")).await;
    let mut client = burdock.session();
    let mut found = BTreeMap::new();
    for round in 0..2 {
        for n in 0..40 {
            let address = format!("198.51.100.{n}");
            let request = Request::get("/").with("X-Forwarded-For", &address);
            let version = client.send(&request).await.instance().to_owned();
            let known = found.entry(address).or_insert_with(|| version.clone());
            assert_eq!(*known, version, "round {round}");
        }
    }
    let at_new = found.values().filter(|version| *version == "v2").count();
    assert!((8..=32).contains(&at_new), "{at_new} of 40 addresses at 50 %");
    assert!(client.jar.as_ref().is_some_and(BTreeMap::is_empty), "an address needs no cookie");
    burdock.reload(&of("shard_by: random, ")).await;
    let mut seen = Vec::new();
    for _ in 0..60 {
        seen.push(client.get("/").await.instance().to_owned());
    }
    assert!((12..=48).contains(&count(&seen, "v2")), "{seen:?}");
}

/// Where six streams of one connection land that are in flight at once.
async fn streams(burdock: &Burdock, h2: &mut H2, apps: [&Backend; 2]) -> Vec<String> {
    let before = apps.map(Backend::request_count);
    let begun: Vec<_> = (0..6).map(|_| h2.begin(get("/gate"), false).0).collect();
    let came = || {
        let counts = apps.map(Backend::request_count);
        [counts[0] - before[0], counts[1] - before[1]]
    };
    eventually("all of them", || (came().iter().sum::<usize>() == 6).then_some(())).await;
    apps.iter().zip(came()).for_each(|(backend, came)| backend.open_gate(came));
    let mut names = Vec::new();
    for answer in begun {
        let answer = finish(answer).await.expect("an answer");
        assert_eq!(answer.status, 200, "{}", burdock.address());
        names.push(answer.instance().to_owned());
    }
    names
}

/// Streams that are in flight at once have no token and no number yet, and their client must not be in two
/// versions, whatever else is in flight.
#[tokio::test(flavor = "multi_thread")]
async fn the_first_streams_of_a_client_go_to_one_version() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let other = Backend::start("other").await;
    let beside = format!(
        "  other:\n    hosts: [other.test]\n    session_affinity: true\n    instances: [{}]\n",
        other.address
    );
    for (common, is_beside) in [(STICKY, false), (STICKY, true), ("", false)] {
        let yaml = config(&[(&v1, 1), (&v2, 1)], "", common) + &beside;
        let burdock = Burdock::start(&yaml.replace("trusted_proxies: [127.0.0.1]\n", "")).await;
        let mut seen = Vec::new();
        for _ in 0..10 {
            let mut h2 = H2::connect(burdock.address()).await;
            let all = other.request_count();
            let first = is_beside.then(|| {
                let request = http::Request::get("http://other.test/gate").body(()).unwrap();
                h2.begin(request, false).0
            });
            if first.is_some() {
                eventually("it", || (other.request_count() > all).then_some(())).await;
            }
            let mut names = streams(&burdock, &mut h2, [&v1, &v2]).await;
            assert!(names.iter().all(|name| *name == names[0]), "{common} {is_beside}: {names:?}");
            seen.push(names.swap_remove(0));
            if let Some(first) = first {
                other.open_gate(1);
                assert_eq!(finish(first).await.expect("an answer").instance(), "other");
            }
        }
        let (one, two) = (count(&seen, "v1"), count(&seen, "v2"));
        assert!(one < 10 && two < 10, "not one version for all: {seen:?}");
    }
}

/// What a client brings at once leads to one version, though its own has no weight any more.
#[tokio::test(flavor = "multi_thread")]
async fn requests_of_one_session_do_not_part() {
    let (v1, v2, v3) =
        (Backend::start("v1").await, Backend::start("v2").await, Backend::start("v3").await);
    let yaml = config(&[(&v1, 1), (&v2, 0), (&v3, 0)], "", STICKY);
    let burdock = Burdock::start(&yaml).await;
    let mut api = Api::of(&burdock);
    let mut clients: Vec<_> = (0..20).map(|_| burdock.session()).collect();
    assert_eq!(count(&versions(&mut clients).await, "v1"), 20);
    // As a client has it that keeps nothing but its token.
    let token = |client: &Client| {
        let line = client.cookie_line().expect("cookies");
        let mut pairs = line.split("; ").map(str::to_owned);
        pairs.find(|pair| pair.starts_with("BURDOCK=")).expect("a token")
    };
    let tokens: Vec<_> = clients.iter().map(token).collect();
    share(&mut api, json!({ "v1": 0, "v2": 1, "v3": 1 })).await;
    let mut landed = Vec::new();
    for round in 0..2 {
        for (place, token) in tokens.iter().enumerate() {
            for _ in 0..6 {
                let request = Request::get("/").with("Cookie", token);
                let name = burdock.client().send(&request).await.instance().to_owned();
                if landed.len() == place {
                    landed.push(name.clone());
                }
                assert_eq!(landed[place], name, "{round}: {token}");
            }
        }
        // Gone altogether, the version leads to the same ones.
        if round == 0 {
            burdock.reload(&config(&[(&v2, 1), (&v3, 1)], "", STICKY)).await;
        }
    }
    assert!(count(&landed, "v2") > 2 && count(&landed, "v3") > 2, "{landed:?}");
}

/// A token that only a version without a weight would look for leads nowhere, and gets to no instance.
#[tokio::test(flavor = "multi_thread")]
async fn versions_may_have_cookies_of_their_own() {
    let (v1, v2, v3) =
        (Backend::start("v1").await, Backend::start("v2").await, Backend::start("v3").await);
    let yaml = config(&[(&v1, 1), (&v2, 0), (&v3, 0)], "", STICKY);
    let own = format!("{STICKY}        affinity: {{ cookie: OLD }}\n");
    let burdock = Burdock::start(&yaml.replacen(STICKY, &own, 1)).await;
    let mut api = Api::of(&burdock);
    let mut clients: Vec<_> = (0..10).map(|_| burdock.session()).collect();
    assert_eq!(count(&versions(&mut clients).await, "v1"), 10);
    // Tokens tell when they were renewed in seconds.
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let now = second();
    eventually("another second", || (second() > now).then_some(())).await;
    share(&mut api, json!({ "v1": 0, "v2": 1, "v3": 1 })).await;
    let promoted = versions(&mut clients).await;
    assert_eq!(count(&promoted, "v1"), 0);
    for _ in 0..5 {
        assert_eq!(moved(&promoted, &versions(&mut clients).await), 0);
    }
    // The newer token counts, not the first that is found.
    share(&mut api, json!({ "v1": 1, "v2": 9, "v3": 9 })).await;
    assert_eq!(moved(&promoted, &versions(&mut clients).await), 0);
    for app in [&v2, &v3] {
        let head = app.last_request().head;
        let cookies: Vec<_> = head.all("cookie");
        assert!(cookies.iter().all(|line| !line.contains("OLD=")), "{cookies:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_and_explain_tell_of_versions() {
    let (v1, v2) = (Backend::start("v1").await, Backend::start("v2").await);
    let burdock = Burdock::start(&config(&[(&v1, 99), (&v2, 1)], "", STICKY)).await;
    let admin = format!("http://{}", burdock.admin());
    let run = |words: &[&str]| {
        let arguments = [words, &["--admin", &admin]].concat();
        let output = run_to_end(&burdock.directory, &arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    };
    let told = |text: &str| (Some(0), format!("app: {text}\n"));
    assert_eq!(run(&["split", "app"]), told("v1 99%, v2 1% by cookie"));
    assert_eq!(
        run(&["split", "app", "v1=0", "v2=2.5"]),
        told("v1 0%, v2 100% by cookie, not as the file says")
    );
    let (_, status) = run(&["status"]);
    assert!(status.contains("app/v2  session affinity, 100% of new requests"), "{status}");
    assert!(status.contains("app: traffic_split v1=0 v2=2.5 (file: v1=99 v2=1)"), "{status}");
    let mut session = burdock.session();
    assert_eq!(session.get("/").await.instance(), "v2");
    let cookie = session.cookie_line().unwrap();
    let why = |cookie: &str| run(&["explain", "--url", "http://a/", "--cookie", cookie]).1;
    let text = why(&cookie);
    assert!(text.contains("v2: its token names v2 (traffic_split: v1 0%, v2 100%)"), "{text}");
    assert_eq!(run(&["split", "app", "file"]), told("v1 99%, v2 1% by cookie"));
    assert_eq!(run(&["split", "app", "v1=1"]).0, Some(0));
    let text = why(&cookie);
    assert!(text.contains("v1: the number in its cookie leads to v1 (traffic_split"), "{text}");
    assert!(text.contains("traffic_split"), "{text}");
    for (words, wrong) in [
        (&["split", "app", "v3=1"][..], "no version v3; there are v1, v2"),
        (&["split", "app", "v1=0"], "no version has a weight"),
        (&["split", "app", "v1"], "\"v1\" is no VERSION=WEIGHT"),
        (&["split", "nobody"], "no service nobody"),
    ] {
        let (code, text) = run(words);
        assert!(code == Some(1) && text.contains(wrong), "{words:?}: {text}");
    }
    let mut api = Api::of(&burdock);
    let (_, events) = api.get("events?format=json").await;
    let texts = events.to_string();
    assert!(texts.contains("traffic split of app: v1=99 v2=1 -> v1=0 v2=2.5"), "{texts}");
    let again = eventually("a reload", || Some(burdock.reloads().len())).await;
    assert_eq!(again, 0, "nothing of it was a reload");
}
