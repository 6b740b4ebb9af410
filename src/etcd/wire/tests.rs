//! Answers as real etcds give them, and as nobody should.

use proptest::prelude::*;

use super::*;

/// What etcd 3.4 says of a watch, line by line.
const CREATED: &str = r#"{"result":{"header":{"cluster_id":"324952591200643719","member_id":"3319814642761637952","revision":"7","raft_term":"2"},"created":true}}"#;
const CHANGED: &str = r#"{"result":{"header":{"revision":"9"},"events":[{"kv":{"key":"L2EvMg==","create_revision":"3","mod_revision":"8","version":"1","value":"aGky","lease":"2324035701472941069"}},{"type":"DELETE","kv":{"key":"L2EvMw==","mod_revision":"9"}}]}}"#;
const COMPACTED: &str = r#"{"result":{"header":{"cluster_id":"1","raft_term":"2"},"canceled":true,"compact_revision":"6"}}"#;
const DENIED: &str = r#"{"result":{"header":{"revision":"8"},"watch_id":"-1","created":true,"canceled":true,"cancel_reason":"rpc error: code = PermissionDenied desc = etcdserver: permission denied"}}"#;
const CLOSING: &str = r#"{"error":{"grpc_code":14,"http_code":503,"message":"transport is closing","http_status":"Service Unavailable"}}"#;

#[test]
fn a_watch_is_told_of_as_etcd_does_it() {
    let Message::Created(header) = watched(CREATED.as_bytes()).unwrap() else { panic!() };
    assert_eq!((header.cluster_id, header.revision), (324_952_591_200_643_719, 7));
    let Message::Changed(batch) = watched(CHANGED.as_bytes()).unwrap() else { panic!() };
    let pair = Pair {
        key: b"/a/2".to_vec(),
        value: b"hi2".to_vec(),
        revision: 8,
        lease: 2_324_035_701_472_941_069,
    };
    let events = vec![Event::Put(pair), Event::Delete(b"/a/3".to_vec())];
    assert_eq!(batch, Batch { revision: 9, events });
    // A word of progress: all is told until there.
    let told = watched(br#"{"result":{"header":{"revision":"12"}}}"#).unwrap();
    let Message::Changed(batch) = told else { panic!() };
    assert_eq!(batch, Batch { revision: 12, events: Vec::new() });
    assert!(matches!(watched(COMPACTED.as_bytes()).unwrap(), Message::Compacted(6)));
    let ended = |line: &str| match watched(line.as_bytes()).unwrap() {
        Message::Ended(refusal) => refusal,
        other => panic!("{other:?}"),
    };
    let denied = ended(DENIED);
    assert!(!denied.wants_token() && !denied.is_of_the_member(), "{denied}");
    assert!(ended(&DENIED.replace("PermissionDenied", "Unauthenticated")).wants_token());
    assert!(ended(CLOSING).is_of_the_member());
    // As gateways since 3.6 have it.
    let newer = r#"{"error":{"code":14,"message":"etcdserver: no leader","details":[]}}"#;
    assert!(ended(newer).is_of_the_member());
}

#[test]
fn refusals_are_told_apart_whoever_forms_them() {
    let of = |status, text: &str| refusal(status, text.as_bytes());
    let older = r#"{"error":"etcdserver: requested lease not found","message":"etcdserver: requested lease not found","code":5}"#;
    let newer = r#"{"code":5,"message":"etcdserver: requested lease not found","details":[]}"#;
    for text in [older, newer] {
        let refusal = of(404, text);
        assert!(refusal.is_without_lease() && !refusal.is_of_the_member(), "{refusal:?}");
        assert_eq!(refusal.to_string(), "etcdserver: requested lease not found");
    }
    let said = |code: i64, message: &str| {
        of(400, &json!({ "code": code, "message": message }).to_string())
    };
    assert!(said(16, "etcdserver: invalid auth token").wants_token());
    assert!(said(3, "etcdserver: user name is empty").wants_token());
    assert!(said(3, "etcdserver: revision of auth store is old").wants_token());
    assert!(!said(3, "authentication failed, invalid user ID or password").wants_token());
    assert!(said(9, "etcdserver: authentication is not enabled").is_without_users());
    assert!(said(11, "etcdserver: mvcc: required revision has been compacted").is_compacted());
    assert!(!said(11, "etcdserver: mvcc: required revision is a future revision").is_compacted());
    assert!(said(14, "etcdserver: no leader").is_of_the_member());
    assert!(said(8, "grpc: received message larger than max (5 vs. 4)").is_too_long());
    // Somebody else is there, or a gateway that is switched off.
    let other = of(404, "Not Found\n");
    assert!(other.is_of_the_member());
    assert_eq!(other.to_string(), "Not Found");
    assert_eq!(of(503, "").to_string(), "status 503");
    let long = said(2, &format!("a\nb{}", "x".repeat(10_000)));
    assert!(long.message.starts_with("a bx") && long.message.len() == TOLD);
}

#[test]
fn a_prefix_ends_before_the_first_key_that_has_another() {
    assert_eq!(end_of(b"/a/"), b"/a0");
    assert_eq!(end_of(b"a\xff"), b"b");
    assert_eq!(end_of(b"\xff\xff"), b"\0");
}

/// JSON that is close to an answer.
fn like_an_answer() -> impl Strategy<Value = Value> {
    let keys = "result|header|revision|events|kv|kvs|key|value|mod_revision|type|error|canceled|\
                created|compact_revision|cluster_id|lease|count|more|code|message|grpc_code";
    let keys: Vec<String> = keys.split('|').map(str::to_owned).collect();
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(|it| Value::from(it.to_string())),
        any::<f64>().prop_map(Value::from),
        "[A-Za-z0-9+/=]{0,8}|DELETE|PUT|.{0,5}".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 6, move |inner| {
        let map = proptest::collection::vec(
            (proptest::sample::select(keys.clone()), inner.clone()),
            0..6,
        )
        .prop_map(|entries| Value::Object(entries.into_iter().collect()));
        prop_oneof![proptest::collection::vec(inner, 0..4).prop_map(Value::from), map]
    })
}

/// All that may be made of an answer; it ends, whatever it is.
fn read(text: &[u8]) {
    let _ = watched(text);
    let _ = refusal(400, text).to_string();
    let _ = answer::<Ranged>(text).and_then(Ranged::pairs);
    let _ = answer::<Compared>(text).and_then(Compared::found);
    let _ = answer::<Done>(text);
    let _ = answer::<Authenticated>(text);
    let _ = answer::<Streamed<Granted>>(text).map(|it| it.refusal());
}

proptest! {
    #[test]
    fn nothing_that_comes_makes_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        read(&text);
    }

    #[test]
    fn nothing_that_is_close_to_an_answer_does(told in like_an_answer()) {
        read(told.to_string().as_bytes());
    }

    #[test]
    fn nor_does_an_answer_with_a_byte_changed(
        which in 0_usize..5,
        at in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut text = [CREATED, CHANGED, COMPACTED, DENIED, CLOSING][which].as_bytes().to_vec();
        read(&text[..cut.index(text.len())]);
        let place = at.index(text.len());
        text[place] = byte;
        read(&text);
    }

    #[test]
    fn what_is_put_comes_back(
        key in proptest::collection::vec(any::<u8>(), 1..20),
        value in proptest::collection::vec(any::<u8>(), 0..20),
        revision in 1_i64..,
        lease in any::<i64>(),
    ) {
        let mut kv = put(&key, &value, lease);
        kv["mod_revision"] = revision.to_string().into();
        let told = json!({ "header": { "revision": 1 }, "kvs": [kv], "count": "1" }).to_string();
        let pairs = answer::<Ranged>(told.as_bytes()).unwrap().pairs().unwrap();
        prop_assert_eq!(pairs, vec![Pair { key, value, revision, lease }]);
    }
}
