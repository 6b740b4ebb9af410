//! Balancers that share an etcd, or lose it: what each of them wants, and what is written in the end.

use super::*;
use crate::config::types::State;

const PREFIX: &[u8] = b"/f/";

/// An etcd as far as a book sees it.
#[derive(Default)]
struct Store {
    cluster: u64,
    revision: i64,
    keys: BTreeMap<Vec<u8>, Pair>,
}

impl Store {
    fn new() -> Self {
        Self { cluster: 7, revision: 10, keys: BTreeMap::new() }
    }

    fn put(&mut self, key: &str, value: &[u8]) {
        self.revision += 1;
        let key = [PREFIX, key.as_bytes()].concat();
        let pair =
            Pair { key: key.clone(), value: value.to_vec(), revision: self.revision, lease: 0 };
        self.keys.insert(key, pair);
    }

    fn stand(&self) -> Stand {
        Stand { cluster: self.cluster, revision: self.revision }
    }

    fn tell(&self, book: &mut Book) {
        book.learn(Change::All(self.keys.values().cloned().collect()), PREFIX, self.stand());
    }

    /// Lets a book write all that it has to, as the real one would be written.
    fn take(&mut self, book: &mut Book) {
        for _ in 0..10 {
            for due in book.due() {
                let key = [PREFIX, due.subject.to_key().as_bytes()].concat();
                let there = self.keys.get(&key);
                if there.map_or(0, |it| it.revision) == due.revision {
                    self.put(&due.subject.to_key(), &due.row.to_text());
                    book.written(&due, self.revision);
                } else {
                    book.found(&due, there, PREFIX);
                }
            }
        }
        assert_eq!(book.due(), []);
    }
}

fn key(name: &str) -> Key {
    Key { service: "s".into(), version: "v".into(), name: name.into() }
}

fn subject_of(name: &str) -> Subject {
    Subject::Instance(key(name))
}

fn want(book: &mut Book, name: &str, change: impl FnOnce(&mut Override), now: u64) {
    let before = book.overlay().of(&key(name)).cloned().unwrap_or_default();
    let mut after = before.clone();
    change(&mut after);
    assert!(book.want(&key(name), (&before, &after), ("a", now)));
}

fn drain(book: &mut Book, name: &str, now: u64) {
    want(book, name, |it| it.state = Some(State::Draining), now);
}

fn enable(book: &mut Book, name: &str, now: u64) {
    want(book, name, |it| it.state = None, now);
}

fn state(book: &Book, name: &str) -> Option<State> {
    book.overlay().of(&key(name)).and_then(|it| it.state)
}

#[test]
fn two_operators_at_once_lose_nothing() {
    let (mut store, mut a, mut b) = (Store::new(), Book::default(), Book::default());
    drain(&mut a, "x", 5);
    want(&mut b, "x", |it| it.weight = Some(3), 5);
    store.take(&mut a);
    store.take(&mut b);
    store.tell(&mut a);
    assert_eq!(a.overlay().of(&key("x")), b.overlay().of(&key("x")));
    let both = a.overlay().of(&key("x")).cloned().unwrap();
    assert_eq!((both.state, both.weight), (Some(State::Draining), Some(3)));
    assert_eq!((a.pending(), b.pending()), (0, 0));
}

#[test]
fn an_order_during_an_outage_is_written_when_it_is_over_and_the_newest_counts() {
    let (mut store, mut a, mut b) = (Store::new(), Book::default(), Book::default());
    for book in [&mut a, &mut b] {
        store.tell(book);
    }
    drain(&mut a, "x", 5);
    drain(&mut a, "y", 5);
    enable(&mut a, "y", 6);
    drain(&mut b, "y", 4);
    assert_eq!((a.pending(), state(&a, "y"), state(&b, "y")), (2, None, Some(State::Draining)));
    store.take(&mut b);
    store.take(&mut a);
    store.tell(&mut b);
    store.tell(&mut a);
    for book in [&a, &b] {
        assert_eq!((state(book, "x"), state(book, "y")), (Some(State::Draining), None));
        assert_eq!((book.len(), book.pending()), (1, 0), "what is taken back says nothing");
    }
}

#[test]
fn what_is_taken_away_in_the_etcd_is_taken_back_but_for_what_is_not_there_yet() {
    let (mut store, mut a) = (Store::new(), Book::default());
    drain(&mut a, "x", 5);
    store.take(&mut a);
    want(&mut a, "x", |it| it.weight = Some(2), 6);
    let there = store.keys.keys().next().unwrap().clone();
    store.keys.clear();
    a.learn(Change::Some(vec![Event::Delete(there)]), PREFIX, store.stand());
    let left = a.overlay().of(&key("x")).cloned().unwrap();
    assert_eq!((left.state, left.weight), (None, Some(2)));
    store.take(&mut a);
    store.keys.clear();
    store.tell(&mut a);
    assert!(a.overlay().is_empty());
}

#[test]
fn an_etcd_that_begins_anew_takes_nothing_back() {
    let (mut store, mut a) = (Store::new(), Book::default());
    drain(&mut a, "x", 5);
    store.tell(&mut a);
    store.take(&mut a);
    let mut anew = Store { cluster: 8, ..Store::new() };
    anew.tell(&mut a);
    assert_eq!((state(&a, "x"), a.pending()), (Some(State::Draining), 1));
    anew.take(&mut a);
    assert_eq!(anew.keys.len(), 1);
    // One that was restored from a copy is behind.
    let mut restored = Store { revision: anew.revision - 1, cluster: 8, ..Store::default() };
    restored.tell(&mut a);
    assert_eq!(state(&a, "x"), Some(State::Draining));
    restored.take(&mut a);
    assert_eq!(restored.keys.len(), 1);
}

#[test]
fn a_restart_loses_neither_what_is_wanted_nor_what_is_not_written() {
    let (mut store, mut a) = (Store::new(), Book::default());
    drain(&mut a, "x", 5);
    store.tell(&mut a);
    store.take(&mut a);
    drain(&mut a, "y", 6);
    a.share(
        "s",
        (None, Some(&Shares { allocations: [("v".into(), 1)].into(), since: 7 })),
        ("a", 7),
    );
    let mut again = Book::of_text(&a.to_text()).unwrap();
    assert_eq!(again.overlay(), a.overlay());
    assert_eq!((again.pending(), again.stand), (2, a.stand));
    // Meanwhile somebody has taken the one back for good.
    store.keys.clear();
    store.tell(&mut again);
    assert_eq!((state(&again, "x"), state(&again, "y")), (None, Some(State::Draining)));
    store.take(&mut again);
    assert_eq!(store.keys.len(), 2);
    for text in ["", "{}", "{\"format\":9,\"stand\":{\"cluster\":1,\"revision\":1},\"rows\":[]}"] {
        assert!(Book::of_text(text).is_err());
    }
}

#[test]
fn what_makes_no_sense_is_left_out_and_healed_and_what_is_newer_is_left_alone() {
    let (mut store, mut a) = (Store::new(), Book::default());
    store.put("instances/s/v/x", b"{\"format\":1,\"weight\":\"heavy\"}");
    store.put("instances/s/v/y", b"{\"format\":2,\"mood\":\"blue\"}");
    store.put("instances/nobody", b"{}");
    store.tell(&mut a);
    assert_eq!((a.strange().len(), a.len()), (3, 0));
    drain(&mut a, "x", 5);
    drain(&mut a, "y", 5);
    store.take(&mut a);
    store.tell(&mut a);
    assert_eq!((a.strange().len(), a.pending()), (2, 1));
    assert!(a.is_pending(&subject_of("y")) && !a.is_pending(&subject_of("x")));
    assert_eq!(state(&a, "y"), Some(State::Draining), "it counts here");
    let mut b = Book::default();
    store.tell(&mut b);
    assert_eq!((state(&b, "x"), state(&b, "y")), (Some(State::Draining), None));
}

#[test]
fn too_many_keys_are_no_more_than_told_of() {
    let (mut store, mut a) = (Store::new(), Book::default());
    let text = b"{\"format\":1,\"weight\":{\"value\":1,\"since\":1}}";
    (0..MOST + 200).for_each(|n| store.put(&format!("instances/s/v/{n}"), text));
    let all: Vec<_> = store.keys.values().cloned().map(Event::Put).collect();
    a.learn(Change::Some(all), PREFIX, store.stand());
    assert_eq!((a.len(), a.strange().len()), (MOST, STRANGE));
    let (nothing, wanted) =
        (Override::default(), Override { weight: Some(2), ..Override::default() });
    assert!(!a.want(&key("one-more"), (&nothing, &wanted), ("a", 1)), "there is no room");
}

#[test]
fn what_a_balancer_alone_was_asked_for_is_its_word_in_the_fleet() {
    let mut overlay = Overlay::default();
    let wanted = Override { state: Some(State::Disabled), since: 5, ..Override::default() };
    overlay.set(key("x"), wanted);
    let mut a = Book::of_overlay(&overlay, "a");
    assert_eq!((a.overlay(), a.pending()), (overlay, 1));
    let mut store = Store::new();
    store.take(&mut a);
    assert_eq!(store.keys.len(), 1);
}
