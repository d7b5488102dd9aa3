//! The chain of steps in Redis: done once or again, never late; and what a purge reaches.

use std::time::Duration;

use redis::AsyncCommands;
use redis::aio::MultiplexedConnection;
use unstale::config::model;
use unstale::lsn::Lsn;
use unstale::sandbox::Redis;
use unstale::store::keys::ControlKeys;
use unstale::store::purge::{Shut, purge};
use unstale::store::reader::Reader;
use unstale::store::session::{Address, Outcome, Session, Step};
use unstale::store::state::{self, Identity, Nonce, Nonces, State};

fn configuration(url: &str) -> model::Redis {
    toml(&format!("url = \"{url}\"\ntimeout = \"5s\""))
}

fn toml(text: &str) -> model::Redis {
    toml_edit::de::from_str(text).expect("a configuration")
}

async fn open(redis: &Redis) -> Session {
    let address = Address::new(&configuration(&redis.url_db(1))).expect("an address");
    Session::open(&address, ControlKeys::new("s")).await.expect("a session")
}

fn valid(nonce: &Nonce) -> State {
    State {
        valid: true,
        nonce: nonce.clone(),
        watermark: Lsn(1),
        frontier: Lsn(1),
        identity: Identity {
            system_id: "1".to_owned(),
            timeline: 1,
            incarnation: "i".to_owned(),
            publication: "p".to_owned(),
            mapping: "m".to_owned(),
        },
        prefixes: vec!["p:".to_owned()],
        closed: vec![],
        files: "{}".to_owned(),
        suspects: "[]".to_owned(),
    }
}

/// A chain that begins with the first nonce.
async fn begun(session: &mut Session, nonces: &mut Nonces) -> Nonce {
    let nonce = nonces.fresh();
    session.declare_invalid(&valid(&nonce)).await.expect("declared");
    nonce
}

async fn put(values: &mut MultiplexedConnection, keys: &[&[u8]]) {
    for key in keys {
        let _: () = values.set_ex(*key, "{}", 100).await.expect("SET");
        let lease = [b"unstale:s:lease:{", *key, b"}"].concat();
        let _: () = values.set_ex(lease, "token", 100).await.expect("SET");
    }
}

async fn all(values: &mut MultiplexedConnection) -> Vec<String> {
    let mut keys: Vec<Vec<u8>> = values.keys("*").await.expect("KEYS");
    keys.sort();
    keys.iter().map(|key| String::from_utf8_lossy(key).into_owned()).collect()
}

#[tokio::test]
async fn a_step_that_is_done_twice_does_what_it_does_once() {
    let redis = Redis::start().await.unwrap();
    let (mut session, mut values) = (open(&redis).await, redis.connection_db(1).await.unwrap());
    let mut nonces = Nonces::new().unwrap();
    let first = begun(&mut session, &mut nonces).await;
    let strange: &[u8] = b"p:*?[\x00\xff]{}\\";
    put(&mut values, &[b"p:a", strange, b"p:b"]).await;
    let _: () = values.set("p:forever", 1).await.unwrap();

    let second = nonces.fresh();
    let step = Step {
        expected: &first,
        nonce: &second,
        keys: &[b"p:a".as_slice(), strange, b"p:gone", b"p:forever"],
        refreshed: &[],
        fields: &[state::watermark(Lsn(7)), state::frontier(Lsn(9))],
        certify: Some(Lsn(7)),
    };
    let Outcome::Done(lives) = session.step(&step).await.unwrap() else { panic!("broken") };
    assert!((1..=100_000).contains(&lives[0]) && (1..=100_000).contains(&lives[1]), "{lives:?}");
    assert_eq!(lives[2..], [-2, -1], "not there; without expiry");
    let left = ["p:b", "unstale:s:fresh", "unstale:s:lease:{p:b}", "unstale:s:state"];
    assert_eq!(all(&mut values).await, left, "each key went with its lease");

    let again = open(&redis).await.step(&step).await.unwrap();
    assert_eq!(again, Outcome::Done(vec![-2; 4]), "its answer was lost: done again");
    assert_eq!(all(&mut values).await, left);
    let state = session.state().await.unwrap().unwrap();
    assert_eq!((state.watermark, state.frontier, state.nonce), (Lsn(7), Lsn(9), second));
}

#[tokio::test]
async fn a_step_that_arrives_late_does_nothing() {
    let redis = Redis::start().await.unwrap();
    let (mut session, mut values) = (open(&redis).await, redis.connection_db(1).await.unwrap());
    let mut nonces = Nonces::new().unwrap();
    let first = begun(&mut session, &mut nonces).await;
    let (second, third) = (nonces.fresh(), nonces.fresh());
    let late = Step {
        expected: &first,
        nonce: &second,
        keys: &[b"p:a".as_slice()],
        refreshed: &[],
        fields: &[state::watermark(Lsn(99))],
        certify: Some(Lsn(99)),
    };
    assert!(matches!(session.step(&late).await.unwrap(), Outcome::Done(_)));
    let next = Step { expected: &second, nonce: &third, certify: None, ..late };
    let next = Step { fields: &[state::watermark(Lsn(100))], ..next };
    assert!(matches!(session.step(&next).await.unwrap(), Outcome::Done(_)));

    put(&mut values, &[b"p:a"]).await;
    let _: () = values.del("unstale:s:fresh").await.unwrap();
    let before = all(&mut values).await;
    assert_eq!(session.step(&late).await.unwrap(), Outcome::Broken(third.clone()));
    assert_eq!(all(&mut values).await, before, "it removed a key or wrote a certificate");
    assert_eq!(session.state().await.unwrap().unwrap().watermark, Lsn(100));

    // No state at all is no chain either.
    let _: () = values.del("unstale:s:state").await.unwrap();
    let outcome = session.step(&next).await.unwrap();
    assert_eq!(outcome, Outcome::Broken(Nonce::found(String::new())));
    assert!(session.state().await.unwrap().is_none(), "a refused step left something");
}

#[tokio::test]
async fn an_invalid_state_gets_no_certificate() {
    let redis = Redis::start().await.unwrap();
    let (mut session, mut values) = (open(&redis).await, redis.connection_db(1).await.unwrap());
    let mut nonces = Nonces::new().unwrap();
    let first = begun(&mut session, &mut nonces).await;
    let mut state = valid(&first);
    let certify = Step::<&[u8]> {
        expected: &first,
        nonce: &first,
        keys: &[],
        refreshed: &[],
        fields: &[],
        certify: Some(Lsn(1)),
    };
    session.step(&certify).await.unwrap();
    assert!(values.exists::<_, bool>("unstale:s:fresh").await.unwrap());
    // A gap takes it away in the very step that declares it.
    state.valid = false;
    session.declare_invalid(&state).await.unwrap();
    assert!(!values.exists::<_, bool>("unstale:s:fresh").await.unwrap());
    session.step(&certify).await.unwrap();
    assert!(!values.exists::<_, bool>("unstale:s:fresh").await.unwrap());
}

#[tokio::test]
async fn a_purge_takes_what_begins_with_the_prefix_and_nothing_else() {
    let redis = Redis::start().await.unwrap();
    let (session, mut values) = (open(&redis).await, redis.connection_db(1).await.unwrap());
    let managed: [&[u8]; 5] = [b"p*[1]?:", b"p*[1]?:a", b"p*[1]?:\xff\x00", b"q\\:^", b"q\\:^-"];
    let others: [&[u8]; 6] = [b"p", b"pX[1]?:a", b"p*1?:a", b"p*[1]x:a", b"q:^", b"unstale:other"];
    for shut in [Shut::Caches, Shut::State] {
        put(&mut values, &managed).await;
        put(&mut values, &others).await;
        let before = all(&mut values).await.len();
        let removed = purge(&session, &[b"p*[1]?:", b"q\\:^"], shut).await.unwrap();
        assert_eq!(removed, 5, "values, and not their leases");
        assert_eq!(all(&mut values).await.len(), before - 10, "each with its lease");
        for key in others {
            let lease = [b"unstale:s:lease:{", key, b"}"].concat();
            assert_eq!(values.exists::<_, u32>(&[key, &lease]).await.unwrap(), 2, "{key:?}");
        }
        assert_eq!(purge(&session, &[], shut).await.unwrap(), 0, "no prefix is not every key");
        assert_eq!(all(&mut values).await.len(), before - 10);
    }
}

#[tokio::test]
async fn a_purge_of_a_hundred_thousand_keys_goes_in_small_steps() {
    let redis = Redis::start().await.unwrap();
    let (session, mut values) = (open(&redis).await, redis.connection_db(1).await.unwrap());
    let fill = redis::Script::new(
        "for i = 1, 100000 do redis.call('SET', 'p:' .. i, 'x') end \
         for i = 1, 50000 do redis.call('SET', 'other:' .. i, 'x') end",
    );
    let _: () = fill.invoke_async(&mut values).await.unwrap();
    assert_eq!(purge(&session, &[b"p:"], Shut::Caches).await.unwrap(), 100_000);
    let left: u32 = redis::cmd("DBSIZE").query_async(&mut values).await.unwrap();
    assert_eq!(left, 50_000);
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut values).await.unwrap();
    let calls = |command: &str| -> u32 {
        let line = stats.lines().find_map(|l| l.strip_prefix(&format!("cmdstat_{command}:calls=")));
        line.map_or(0, |rest| rest.split(',').next().unwrap().parse().unwrap())
    };
    // A thousand keys a command take Redis a fraction of a millisecond.
    assert!(calls("scan") >= 150 && calls("unlink") >= 100, "{stats}");
    assert_eq!(calls("keys") + calls("flushdb") + calls("flushall"), 0, "{stats}");
}

#[tokio::test]
async fn a_session_that_gets_no_answer_says_that_it_may_have_happened() {
    let redis = Redis::start().await.unwrap();
    let proxy = unstale::sandbox::Proxy::start(redis.address()).await.unwrap();
    let config = toml(&format!("url = \"{}\"\ntimeout = \"200ms\"", redis.url_through(&proxy, 1)));
    let address = Address::new(&config).unwrap();
    let mut session = Session::open(&address, ControlKeys::new("s")).await.unwrap();
    let mut nonces = Nonces::new().unwrap();
    let (first, second) = (begun(&mut session, &mut nonces).await, nonces.fresh());
    // The first one teaches Redis the script.
    let warm = Step::<&[u8]> {
        expected: &first,
        nonce: &first,
        keys: &[],
        refreshed: &[],
        fields: &[],
        certify: None,
    };
    session.step(&warm).await.unwrap();
    proxy.lose_answers();
    let step = Step::<&[u8]> {
        expected: &first,
        nonce: &second,
        keys: &[],
        refreshed: &[],
        fields: &[state::watermark(Lsn(5))],
        certify: None,
    };
    let lost = session.step(&step).await.unwrap_err();
    assert!(matches!(lost, unstale::store::error::StoreError::Lost(_)), "{lost}");
    assert!(lost.to_string().contains("redis.url"), "{lost}");
    let mut other = open(&redis).await;
    assert_eq!(other.state().await.unwrap().unwrap().watermark, Lsn(5), "it had happened");
    proxy.refuse().await;
    let asked = std::time::Instant::now();
    let refused = Session::open(&address, ControlKeys::new("s")).await.err().unwrap();
    assert!(!refused.is_hopeless(), "{refused}");
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test]
async fn readers_who_ask_together_share_commands_and_have_each_his_own_values() {
    const READERS: usize = 100;
    let redis = Redis::start().await.unwrap();
    let mut connection = redis.connection_db(1).await.unwrap();
    let _: () = connection.set("unstale:s:fresh", "0/2A").await.unwrap();
    for number in 0..READERS {
        let _: () = connection.set(format!("v:{number}"), format!("of {number}")).await.unwrap();
    }
    let address = Address::new(&configuration(&redis.url_db(1))).unwrap();
    let reader = Reader::new(&address, &ControlKeys::new("s"), 2);
    let _: () = redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut connection).await.unwrap();
    // Some ask for several keys, some of which are not there; every seventh goes away at once.
    let read = async |number: usize| {
        let keys: Vec<Vec<u8>> = ["v", "none", "v"][..=number % 3]
            .iter()
            .map(|kind| format!("{kind}:{number}").into_bytes())
            .collect();
        let patience = Duration::from_secs(if number.is_multiple_of(7) { 0 } else { 30 });
        let Ok(found) = tokio::time::timeout(patience, reader.get(keys.clone())).await else {
            return assert!(number.is_multiple_of(7), "it was not answered");
        };
        let found = found.unwrap();
        assert_eq!(found.keys, keys);
        assert_eq!(found.certificate, Some(Lsn(42)));
        let text = |value: Option<Vec<u8>>| value.map(|bytes| String::from_utf8(bytes).unwrap());
        let values: Vec<Option<String>> = found.values.into_iter().map(text).collect();
        let expected = keys.iter().map(|key| key.starts_with(b"v").then(|| format!("of {number}")));
        assert_eq!(values, expected.collect::<Vec<_>>());
    };
    futures_util::future::join_all((0..READERS).map(read)).await;
    let stats: String =
        redis::cmd("INFO").arg("commandstats").query_async(&mut connection).await.unwrap();
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_mget:calls="));
    let calls: usize = calls.and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
    assert!(calls <= READERS / 4, "{calls} commands for {READERS} readers");

    // Without a certificate nothing is to be believed; without Redis nobody waits.
    let _: () = connection.del("unstale:s:fresh").await.unwrap();
    assert_eq!(reader.get(vec![b"v:1".to_vec()]).await.unwrap().certificate, None);
    redis.stop().await.unwrap();
    let all = futures_util::future::join_all(
        (0..READERS).map(async |_| reader.get(vec![b"v:1".to_vec()]).await),
    );
    assert!(all.await.iter().all(Result::is_err));
}
