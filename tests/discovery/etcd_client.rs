//! Burdock's way to ask an etcd, against a real one: keys, leases, compare-and-set, users, TLS, and
//! watches that lose nothing when members die, stand still, forget, or are swallowed by the network.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use burdock::config::types::{Etcd as Settings, EtcdUser};
use burdock::etcd::{Change, Client, EtcdError, Event, Follower, Swapped};

use crate::support::burdock::scratch;
use crate::support::etcd::{Etcd, Relay};
use crate::support::{self, DEADLINE, pause, within};

/// A watch is made anew after so long.
const QUIET: Duration = Duration::from_millis(300);
const PREFIX: &[u8] = b"/a/";

fn settings(endpoints: &[String]) -> Settings {
    Settings { endpoints: endpoints.to_vec(), tls: None, user: None }
}

fn client(endpoints: &[String]) -> Client {
    Client::new(&settings(endpoints)).patient_for(Duration::from_secs(1))
}

/// What is known of a prefix by what was told.
struct Seen {
    follower: Follower,
    keys: BTreeMap<String, String>,
}

impl Seen {
    fn by(client: Client) -> Self {
        let follower = Follower::new(client, PREFIX.to_vec(), 10_000, QUIET);
        Self { follower, keys: BTreeMap::new() }
    }

    async fn next(&mut self) -> Result<(), EtcdError> {
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("text");
        let events = match self.follower.next().await? {
            Change::Nothing => return Ok(()),
            Change::Some(events) => events,
            Change::All(pairs) => {
                self.keys.clear();
                pairs.into_iter().map(Event::Put).collect()
            }
        };
        for event in events {
            match event {
                Event::Put(pair) => self.keys.insert(text(pair.key), text(pair.value)),
                Event::Delete(key) => self.keys.remove(&text(key)),
            };
        }
        Ok(())
    }

    /// Until this is known. Errors on the way are fine: they are asked again.
    async fn knows(&mut self, what: &str, keys: &[(&str, &str)]) {
        let wanted: BTreeMap<_, _> =
            keys.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        within(what, async {
            while self.keys != wanted {
                // What etcd's clients see of a member that is gone comes at once, and again.
                if self.next().await.is_err() {
                    support::pause().await;
                }
            }
        })
        .await;
    }

    /// Until it fails.
    async fn fails(&mut self, what: &str) -> String {
        within(what, async {
            loop {
                if let Err(error) = self.next().await {
                    return error.to_string();
                }
            }
        })
        .await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_put_listed_compared_and_taken_away() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let mut client = client(&[etcd.url()]);
    let revision = client.put(b"/a/1", b"one", 0).await.unwrap();
    assert_eq!(etcd.ctl(&["get", "/a/1", "--print-value-only"]), "one\n");
    assert_eq!(client.look(b"/a/1").await.unwrap().unwrap().revision, revision);
    assert_eq!(client.look(b"/a/2").await.unwrap(), None);

    // Whoever knows what is there may change it, and nobody else.
    let swapped = client.swap(b"/a/1", revision, b"uno", 0).await.unwrap();
    let Swapped::Done(later) = swapped else { panic!("{swapped:?}") };
    let found = client.swap(b"/a/1", revision, b"eins", 0).await.unwrap();
    let Swapped::Found(Some(pair)) = found else { panic!("{found:?}") };
    assert_eq!((&pair.value[..], pair.revision), (&b"uno"[..], later));
    assert!(matches!(client.swap(b"/a/2", 0, b"", 0).await.unwrap(), Swapped::Done(_)));
    assert!(matches!(client.swap(b"/a/2", 0, b"", 0).await.unwrap(), Swapped::Found(Some(_))));
    assert_eq!(client.swap(b"/a/3", 7, b"", 0).await.unwrap(), Swapped::Found(None));
    client.delete(b"/a/1").await.unwrap();
    client.delete(b"/a/1").await.unwrap();
    assert_eq!(client.look(b"/a/1").await.unwrap(), None);

    // More than one answer has, and other keys on both sides of them.
    let many: BTreeMap<_, _> = (0..2345).map(|n| (format!("/a/{n:05}"), format!("v{n}"))).collect();
    etcd.fill(&many).await;
    for other in ["/a", "/a0", "/a.", "/b/1"] {
        etcd.put(other, "other");
    }
    etcd.delete("/a/2");
    let listing = client.list(PREFIX, 10_000).await.unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let listed: BTreeMap<_, _> =
        listing.pairs.iter().map(|pair| (text(&pair.key), text(&pair.value))).collect();
    assert_eq!(listed, many);
    let told = client.list(PREFIX, 2344).await.unwrap_err();
    assert!(told.to_string().contains("more than 2344 keys"), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn long_values_come_fewer_at_a_time() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let mut client = client(&[etcd.url()]).patient_for(Duration::from_secs(10));
    let long = vec![b'x'; 1_000_000];
    for n in 0..30 {
        client.put(format!("/a/{n:02}").as_bytes(), &long, 0).await.unwrap();
    }
    let listing = client.list(PREFIX, 100).await.unwrap();
    assert_eq!(listing.pairs.len(), 30);
    assert!(listing.pairs.iter().all(|pair| pair.value == long));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_keeps_its_keys_for_as_long_as_it_is_kept_alive() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let mut client = client(&[etcd.url()]);
    let (lease, ttl) = client.grant(Duration::from_secs(2)).await.unwrap();
    assert!(ttl >= Duration::from_secs(2), "{ttl:?}");
    client.put(b"/a/kept", b"", lease).await.unwrap();
    let (lost, _) = client.grant(Duration::from_secs(1)).await.unwrap();
    client.put(b"/a/lost", b"", lost).await.unwrap();
    within("the other lease runs out", async {
        while client.look(b"/a/lost").await.unwrap().is_some() {
            assert_eq!(client.keep_alive(lease).await.unwrap(), Some(ttl));
            support::pause().await;
        }
    })
    .await;
    assert_eq!(client.keep_alive(lost).await.unwrap(), None);
    let told = client.put(b"/a/lost", b"", lost).await.unwrap_err();
    assert!(told.is_without_lease(), "{told}");
    assert_eq!(client.look(b"/a/kept").await.unwrap().unwrap().lease, lease);
    client.revoke(lease).await.unwrap();
    client.revoke(lease).await.unwrap();
    assert_eq!(client.look(b"/a/kept").await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_knows_what_is_there_whatever_happens_to_etcd() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    let mut seen = Seen::by(client(&[etcd.url()]));
    etcd.put("/a/1", "one");
    seen.knows("the first look", &[("/a/1", "one")]).await;
    etcd.put("/a/2", "two");
    etcd.put("/a0", "another's");
    etcd.delete("/a/1");
    seen.knows("what is said", &[("/a/2", "two")]).await;
    let lease = etcd.lease(1);
    etcd.ctl(&["put", "/a/3", "three", "--lease", &lease]);
    seen.knows("one with a lease", &[("/a/2", "two"), ("/a/3", "three")]).await;
    seen.knows("the lease runs out", &[("/a/2", "two")]).await;

    // It stands still, as one that was swapped out does, or one behind a cable that was pulled.
    etcd.stop();
    let told = seen.fails("nothing is said").await;
    assert!(told.contains("no answer within"), "{told}");
    etcd.go_on();
    etcd.put("/a/2", "zwei");
    seen.knows("it goes on", &[("/a/2", "zwei")]).await;

    etcd.kill();
    let told = seen.fails("nobody is there").await;
    assert!(told.contains("connecting to"), "{told}");
    etcd.again().await;
    etcd.put("/a/4", "four");
    etcd.compact();
    seen.knows("it is back, with its data", &[("/a/2", "zwei"), ("/a/4", "four")]).await;

    // It counts from one again, so that what was heard last is still to come.
    etcd.kill();
    etcd.anew().await;
    etcd.put("/a/5", "five");
    seen.knows("it is back, without them", &[("/a/5", "five")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_follower_that_was_away_while_etcd_forgot_looks_again() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let mut seen = Seen::by(client(&[etcd.url()]));
    etcd.put("/a/1", "one");
    seen.knows("the first look", &[("/a/1", "one")]).await;
    // Changes of others, which are forgotten with where the watch has come to: it is quiet, and made
    // anew from there.
    for n in 0..3 {
        etcd.put("/b/1", &n.to_string());
    }
    etcd.compact();
    let mut looked = false;
    within("it looks again", async {
        while !looked {
            looked = matches!(seen.follower.next().await.unwrap(), Change::All(_));
        }
    })
    .await;
    etcd.put("/a/2", "two");
    seen.keys = BTreeMap::from([("/a/1".to_owned(), "one".to_owned())]);
    seen.knows("it goes on", &[("/a/1", "one"), ("/a/2", "two")]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_is_told_of_in_bunches() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let mut seen = Seen::by(client(&[etcd.url()]));
    seen.next().await.unwrap();
    let many: BTreeMap<_, _> = (0..3000).map(|n| (format!("/a/{n}"), n.to_string())).collect();
    let begun = Instant::now();
    let mut told = 0;
    let hears = async {
        while seen.keys.len() < many.len() {
            seen.next().await.unwrap();
            told += 1;
        }
    };
    within("all of it", async { tokio::join!(etcd.fill(&many), hears) }).await;
    assert_eq!(seen.keys, many);
    // Four times a second, beside the first and the last.
    let most = begun.elapsed().as_millis() / 250 + 2;
    assert!(told <= most, "{told} bunches, and {most} at most");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_swallows_everything_loses_no_change() {
    let folder = scratch();
    let etcd = Etcd::start(&folder).await;
    let relay = Relay::to(etcd.address).await;
    let mut seen = Seen::by(client(&[format!("http://{}", relay.address)]));
    etcd.put("/a/1", "one");
    seen.knows("the first look", &[("/a/1", "one")]).await;
    relay.swallow();
    etcd.put("/a/2", "two");
    etcd.delete("/a/1");
    seen.knows("what was said meanwhile", &[("/a/2", "two")]).await;
}

/// Without a leader, while one is elected, nothing is written.
async fn put_at_last(client: &mut Client, key: &[u8], value: &[u8]) {
    let deadline = Instant::now() + DEADLINE;
    while let Err(error) = client.put(key, value, 0).await {
        assert!(Instant::now() < deadline, "never written: {error}");
        pause().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn members_that_are_dead_or_without_a_leader_are_left_for_others() {
    let folder = scratch();
    let mut members = Etcd::three(&folder).await;
    let urls: Vec<_> = members.iter().map(Etcd::url).collect();
    let mut client = client(&urls);
    client.put(b"/a/1", b"one", 0).await.unwrap();
    let mut seen = Seen::by(self::client(&urls));
    seen.knows("the first look", &[("/a/1", "one")]).await;

    members[0].kill();
    put_at_last(&mut client, b"/a/2", b"two").await;
    seen.knows("two are enough", &[("/a/1", "one"), ("/a/2", "two")]).await;
    members[1].kill();
    let told = seen.fails("one is not").await;
    let only = self::client(&urls[2..]).list(PREFIX, 10).await.unwrap_err();
    assert!(!only.to_string().contains("connecting"), "it is there, and knows nothing: {only}");
    members[1].again().await;
    put_at_last(&mut client, b"/a/3", b"three").await;
    let all = [("/a/1", "one"), ("/a/2", "two"), ("/a/3", "three")];
    seen.knows(&format!("two again, after {told}"), &all).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_user_is_known_by_a_token_that_is_renewed() {
    let folder = scratch();
    let mut etcd = Etcd::start(&folder).await;
    for command in [
        "user add root:pw",
        "role add root",
        "user grant-role root root",
        "user add bur:dock",
        "role add r",
        "role grant-permission r --prefix=true readwrite /a/",
        "user grant-role bur r",
    ] {
        etcd.ctl(&command.split(' ').collect::<Vec<_>>());
    }
    let as_user = |password: &str| Settings {
        user: Some(EtcdUser {
            name: "bur".to_owned(),
            password: password.to_owned(),
            password_file: PathBuf::new(),
        }),
        ..settings(&[etcd.url()])
    };
    let patience = Duration::from_secs(1);
    let mut client = Client::new(&as_user("dock")).patient_for(patience);
    let mut stranger = Client::new(&as_user("wrong")).patient_for(patience);
    // Nobody has to be known yet.
    client.put(b"/a/1", b"one", 0).await.unwrap();
    let follows = Client::new(&as_user("dock")).patient_for(patience);
    let mut nobody = self::client(&[etcd.url()]);
    let mut seen = Seen::by(follows);
    seen.knows("the first look", &[("/a/1", "one")]).await;

    etcd.ctl(&["auth", "enable"]);
    etcd.by(Some("root:pw"));
    client.put(b"/a/2", b"two", 0).await.unwrap();
    seen.knows("it says who it is", &[("/a/1", "one"), ("/a/2", "two")]).await;
    let told = client.put(b"/b/2", b"", 0).await.unwrap_err().to_string();
    assert!(told.contains("permission denied"), "{told}");
    let told = stranger.list(PREFIX, 10).await.unwrap_err().to_string();
    assert!(told.contains("authentication failed"), "{told}");
    let told = nobody.list(PREFIX, 10).await.unwrap_err().to_string();
    assert!(told.contains("user name is empty"), "{told}");
    // Tokens are in the memory of members.
    etcd.kill();
    etcd.again().await;
    client.put(b"/a/3", b"three", 0).await.unwrap();
    let all = [("/a/1", "one"), ("/a/2", "two"), ("/a/3", "three")];
    seen.knows("another token", &all).await;
}
