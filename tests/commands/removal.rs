//! `unstale invalidate` and `unstale clear` remove what is meant and nothing else, at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use crate::rows::{stderr, two_organizations};
use crate::support::World;
use redis::AsyncCommands;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use unstale::config::Override;
use unstale::manage::ground::Ground;
use unstale::manage::organization::resolve;
use unstale::manage::remove::remove;
use unstale::manage::selection::Request;
use unstale::rules::Rules;
use unstale::store::fills::{Acquired, Entry, Filled, Fills, Lease};
use unstale::store::keys::ControlKeys;
use unstale::store::remove::Act;
use unstale::store::session::Address;

async fn run(world: &World, subcommand: &str, arguments: &[&str]) -> Output {
    world.command(subcommand).args(arguments).output().await.expect("it runs")
}

async fn json(world: &World, subcommand: &str, arguments: &[&str]) -> Value {
    let output = run(world, subcommand, &[&["--json"], arguments].concat()).await;
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{stderr}"))
}

/// Two organizations, and `12` (3).
async fn world() -> World {
    let world = two_organizations().await;
    world
        .postgres
        .execute(
            "insert into organization_organization (id, name, is_active, created_at, updated_at)
             values (3, '12', true, now(), now())",
        )
        .await
        .unwrap();
    world
}

/// An entry of every cache of both organizations.
fn all_entries() -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    for org in [1, 2] {
        keys.insert(format!("v1:org:data:{org}"));
        keys.insert(format!("v1:role_info:{org}"));
        keys.insert(format!("v1:api_response:statistics:{org}"));
        keys.extend([7, 30, 90, 365].map(|days| format!("v1:deal_stats:{org}:{days}")));
        keys.insert(format!("v1:api_response:search:{org}:generation"));
        keys.insert(format!("v1:api_response:search:{org}:abc:query"));
        keys.insert(format!("v1:api_response:analytics:{org}:generation"));
        keys.insert(format!("v1:api_response:analytics:{org}:abc:30:overview"));
    }
    for (user, org) in [(11, 1), (12, 1), (21, 2)] {
        keys.insert(format!("v1:user_perms:{user}:{org}"));
        keys.insert(format!("v1:identity:{user}"));
        keys.insert(format!("v1:api_response:dashboard:{user}:{org}"));
    }
    keys
}

/// Stores an entry of every cache beside what is not ours.
async fn fill(world: &World) {
    let keys = all_entries();
    world.put(&keys.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let mut values = world.values().await;
    for key in foreign() {
        let _: () = values.set(key, "not ours").await.unwrap();
    }
}

/// What others keep in this Redis, some of it under names that look like ours.
fn foreign() -> [&'static str; 6] {
    [
        "session:1",
        "prs_cache:1:session:1",
        "prs_cache:1:v1:org:data:1:theirs",
        "prs_cache:2:v1:org:data:1",
        "unstale:other:state",
        "unstale:other:lease:{prs_cache:1:v1:org:data:1}",
    ]
}

async fn assert_foreign_untouched(world: &World) {
    let mut values = world.values().await;
    for key in foreign() {
        let value: Option<String> = values.get(key).await.unwrap();
        assert_eq!(value.as_deref(), Some("not ours"), "{key}");
    }
}

/// Of our keys those that are left.
async fn left(world: &World) -> BTreeSet<String> {
    world.keys().await.intersection(&all_entries()).cloned().collect()
}

/// Which keys should go.
type Gone<'a> = &'a dyn Fn(&str) -> bool;

fn without(gone: impl Fn(&str) -> bool) -> BTreeSet<String> {
    all_entries().into_iter().filter(|key| !gone(key)).collect()
}

/// Takes the lease of an entry as a filler does.
async fn lease(world: &World, cache: &str, key: &str) -> Lease {
    let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
    let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
    let fills =
        Fills::new(Address::new(&loaded.config.redis).unwrap(), ControlKeys::new("unstale"));
    let entry = Entry {
        key: format!("prs_cache:1:{key}").into_bytes(),
        cache: cache.to_owned(),
        scope: None,
    };
    match fills.acquire(&entry, Duration::from_secs(60)).await.unwrap() {
        Acquired::Lease(lease) => lease,
        other => panic!("no lease but {other:?}"),
    }
}

async fn state(world: &World) -> BTreeMap<String, String> {
    world.values().await.hgetall("unstale:unstale:state").await.unwrap()
}

#[tokio::test]
async fn an_organization_goes_by_name_or_id_and_the_others_stay() {
    let world = world().await;
    for given in ["one", "1"] {
        fill(&world).await;
        let told = json(&world, "invalidate", &["--organization", given]).await;
        let ones = |key: &str| {
            let parts: Vec<&str> = key.split(':').collect();
            match parts[1] {
                "identity" => ["11", "12"].contains(&parts[2]),
                "user_perms" => parts[3] == "1",
                "org" => parts[3] == "1",
                "api_response" if parts[2] == "dashboard" => parts[4] == "1",
                // Of a scope only the generation: nobody asks for the others any more.
                "api_response" if parts.len() > 5 => false,
                "api_response" => parts[3] == "1",
                _ => parts[2] == "1",
            }
        };
        assert_eq!(left(&world).await, without(ones), "{given}: {told}");
        assert_foreign_untouched(&world).await;
        let expected = json!({"given": given, "ids": ["1"], "known": true});
        assert_eq!(told["organization"], expected);
        assert_eq!(told["total"], json!({"entries": 13, "scopes": 2, "leases": 0}), "{told}");
        assert_eq!(told["caches"]["deal_stats"]["entries"], 4);
        assert_eq!(told["caches"]["identity"]["entries"], 2, "whose keys do not name it");
        assert_eq!((&told["dry_run"], &told["left_out"]), (&json!(false), &json!({})));
    }
}

#[tokio::test]
async fn an_id_is_never_taken_for_the_name_of_another() {
    let world = world().await;
    fill(&world).await;
    let told = json(&world, "invalidate", &["--organization", "12"]).await;
    assert_eq!(told["organization"]["ids"], json!(["3"]), "no organization has this id");
    world
        .postgres
        .execute("update organization_organization set name = '2' where id = 1")
        .await
        .unwrap();
    let told = json(&world, "invalidate", &["--organization", "2"]).await;
    assert_eq!(told["organization"]["ids"], json!(["2"]));
    let keys = left(&world).await;
    for (key, stays) in [
        ("v1:org:data:1", true),
        ("v1:identity:11", true),
        ("v1:org:data:2", false),
        ("v1:user_perms:21:2", false),
    ] {
        assert_eq!(keys.contains(key), stays, "{key} of {keys:?}");
    }
    // Nor is one warmed for another.
    json(&world, "clear", &["--force"]).await;
    let _daemon = world.daemon().await;
    json(&world, "warm", &["--organization", "2"]).await;
    let keys = world.keys().await;
    assert!(keys.contains("v1:org:data:2") && !keys.contains("v1:org:data:1"), "{keys:?}");
}

#[tokio::test]
async fn one_that_was_deleted_goes_by_its_id_and_a_wrong_name_is_told() {
    let world = world().await;
    fill(&world).await;
    world
        .postgres
        .execute("delete from authentication_user; delete from organization_organization")
        .await
        .unwrap();
    let told = json(&world, "invalidate", &["--organization", "2"]).await;
    assert_eq!(told["organization"]["known"], false);
    assert_eq!(told["caches"]["org_data"]["entries"], 1);
    let output = run(&world, "invalidate", &["--organization", "' or true --"]).await;
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("exact name or its id"), "{}", stderr(&output));
}

#[tokio::test]
async fn a_user_a_group_a_cache_and_days_narrow_it() {
    let world = world().await;
    let cases: [(&[&str], Gone<'_>); 6] = [
        (&["--user-id", "11"], &|key| key.contains(":11")),
        (&["--user-id", "11", "--cache-type", "identity"], &|key| key == "v1:identity:11"),
        (&["--cache-type", "user"], &|key| {
            ["identity", "user_perms", "dashboard"].iter().any(|cache| key.contains(cache))
        }),
        (&["--cache-type", "api"], &|key| key.contains("api_response")),
        (&["--cache-type", "deal_stats", "--days", "30"], &|key| {
            key.starts_with("v1:deal_stats") && key.ends_with(":30")
        }),
        (&["--cache-type", "all", "--organization", "two", "--days", "30"], &|key| {
            key == "v1:deal_stats:2:30" || key == "v1:api_response:analytics:2:abc:30:overview"
        }),
    ];
    for (arguments, gone) in cases {
        fill(&world).await;
        let told = json(&world, "invalidate", arguments).await;
        assert_eq!(left(&world).await, without(gone), "{arguments:?}: {told}");
        assert_foreign_untouched(&world).await;
    }
    let told = json(&world, "invalidate", &["--user-id", "11"]).await;
    assert!(told["left_out"]["org_data"].as_str().unwrap().contains("no user"), "{told}");
}

#[tokio::test]
async fn a_dry_run_says_what_would_go_and_removes_nothing() {
    let world = world().await;
    fill(&world).await;
    for arguments in [&["--organization", "one"][..], &["--cache-type", "all"]] {
        let dry = json(&world, "invalidate", &[arguments, &["--dry-run"]].concat()).await;
        assert_eq!(left(&world).await, all_entries());
        assert_eq!(dry["dry_run"], true);
        let done = json(&world, "invalidate", arguments).await;
        assert_eq!(dry["caches"], done["caches"]);
        fill(&world).await;
    }
}

#[tokio::test]
async fn what_is_being_computed_is_not_stored_afterwards() {
    let world = world().await;
    let _daemon = world.daemon().await;
    let cases: [&[&str]; 4] = [
        // The key is written down, listed by the population, and found by its lease.
        &["--organization", "one", "--cache-type", "org_data"],
        &["--organization", "one", "--cache-type", "identity"],
        &["--cache-type", "all"],
        &["--user-id", "11"],
    ];
    for arguments in cases {
        let org = lease(&world, "org_data", "v1:org:data:1").await;
        let identity = lease(&world, "identity", "v1:identity:11").await;
        let perms = lease(&world, "user_perms", "v1:user_perms:11:1").await;
        let mut meant = Vec::new();
        let mut others = Vec::new();
        let whose = |name: &str| match arguments {
            [.., "all"] => true,
            [.., "11"] => name != "org",
            [.., "org_data"] => name == "org",
            _ => name == "identity",
        };
        for (name, lease) in [("org", org), ("identity", identity), ("perms", perms)] {
            if whose(name) { meant.push(lease) } else { others.push(lease) }
        }
        let dry = json(&world, "invalidate", &[arguments, &["--dry-run"]].concat()).await;
        let told = json(&world, "invalidate", arguments).await;
        assert_eq!(told["total"]["leases"], meant.len(), "{arguments:?}: {told}");
        assert_eq!(dry["total"], told["total"]);
        for lease in meant {
            let filled = lease.fill(b"{}", Duration::from_secs(9)).await.unwrap();
            assert_eq!(filled, Filled::Voided, "{arguments:?}");
        }
        for lease in others {
            let filled = lease.fill(b"{}", Duration::from_secs(9)).await.unwrap();
            assert_eq!(filled, Filled::Stored, "{arguments:?}");
        }
        json(&world, "clear", &["--force"]).await;
    }
}

#[tokio::test]
async fn the_daemon_goes_on_as_if_nothing_had_happened() {
    let world = world().await;
    let daemon = world.daemon().await;
    fill(&world).await;
    json(&world, "clear", &["--force"]).await;
    assert!(left(&world).await.is_empty());
    // What is cached after it is dropped by the next change.
    world.put(&["v1:org:data:1"]).await;
    world.rename(1).await;
    world.until_gone("v1:org:data:1").await;
    assert_eq!(daemon.gaps().await.values().sum::<u32>(), 1, "the first start, and no other");
    assert!(daemon.stop().await.success());
}

#[tokio::test]
async fn clear_removes_all_that_is_ours_and_not_the_state() {
    let world = world().await;
    world.daemon().await.stop().await;
    let before = state(&world).await;
    assert!(!before.is_empty());
    fill(&world).await;
    let told = json(&world, "clear", &["--force"]).await;
    assert!(left(&world).await.is_empty(), "{:?}", left(&world).await);
    assert_eq!(told["total"]["entries"], all_entries().len() - 4, "{told}");
    assert_eq!(told["total"]["scopes"], 4);
    assert_foreign_untouched(&world).await;
    assert_eq!(state(&world).await, before);
    let told = json(&world, "clear", &["--force", "--cache-type", "strategic"]).await;
    assert_eq!(told["total"], json!({"entries": 0, "scopes": 0, "leases": 0}));
}

#[tokio::test]
async fn clear_refuses_where_nobody_can_be_asked() {
    let world = world().await;
    fill(&world).await;
    let output = run(&world, "clear", &[]).await;
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("--force"), "{}", stderr(&output));
    assert_eq!(left(&world).await, all_entries());
    let told = json(&world, "clear", &["--dry-run"]).await;
    assert_eq!(told["dry_run"], true);
    assert_eq!(left(&world).await, all_entries());
}

/// The room's argument, with many at it: what is there after a removal was computed after its
/// beginning.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_is_there_afterwards_was_computed_afterwards() {
    const ENTRIES: u32 = 40;
    let world = world().await;
    let _daemon = world.daemon().await;
    let overrides: Vec<Override> = world.settings.iter().map(|s| s.parse().unwrap()).collect();
    let loaded = unstale::config::load(Some(&world.config), &overrides).unwrap();
    let rules = Rules::compile(&loaded).unwrap();
    let ground = Ground::new(&loaded.config, &rules, "test").unwrap();
    let birth = Instant::now();
    let now = move || u64::try_from(birth.elapsed().as_nanos()).unwrap();
    let mut fillers = tokio::task::JoinSet::new();
    for _ in 0..12 {
        let fills = Fills::new(ground.address.clone(), ground.keys.clone());
        fillers.spawn(async move {
            loop {
                let id = fastrand::u32(..ENTRIES);
                let entry = Entry {
                    key: format!("prs_cache:1:v1:identity:{id}").into_bytes(),
                    cache: "identity".to_owned(),
                    scope: None,
                };
                let life = Duration::from_secs(60);
                if let Acquired::Lease(lease) = fills.acquire(&entry, life).await.unwrap() {
                    // Not before the lease: a value that claims to be older is older.
                    let value = now().to_string();
                    tokio::time::sleep(Duration::from_micros(fastrand::u64(..5000))).await;
                    lease.fill(value.as_bytes(), life).await.unwrap();
                }
            }
        });
    }
    let request = Request { cache_type: "identity".to_owned(), ..Request::default() };
    let wanted = ground.mapping().select("identity").unwrap();
    let (_, selection) = resolve(&ground, &request, &wanted).await.unwrap();
    let mut values = world.values().await;
    let keys: Vec<String> =
        (0..ENTRIES).map(|id| format!("prs_cache:1:v1:identity:{id}")).collect();
    let (mut removed, mut voided, mut seen) = (0, 0, 0);
    for _ in 0..300 {
        let begun = now();
        let removal = remove(&ground, &request, &selection, Act::Remove, &()).await.unwrap();
        let found: Vec<Option<u64>> = values.mget(&keys).await.unwrap();
        for stored in found.into_iter().flatten() {
            assert!(stored >= begun, "computed {} ns before the removal began", begun - stored);
            seen += 1;
        }
        removed += removal.total().entries;
        voided += removal.total().leases;
    }
    assert!(removed > 0 && voided > 0 && seen > 0, "{removed} {voided} {seen}");
}

/// Runs it at a terminal and types a line.
async fn at_a_terminal(world: &World, subcommand: &str, typed: &str) -> (i32, String) {
    let command = world.command(subcommand);
    let command = command.as_std();
    let quote = |text: &std::ffi::OsStr| {
        format!("'{}'", text.to_str().expect("UTF-8").replace('\'', r"'\''"))
    };
    let words: Vec<String> =
        std::iter::once(command.get_program()).chain(command.get_args()).map(quote).collect();
    let mut child = Command::new("script")
        .args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("script (util-linux) runs");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(format!("{typed}\n").as_bytes()).await.unwrap();
    let output = child.wait_with_output().await.unwrap();
    drop(stdin);
    (output.status.code().unwrap(), String::from_utf8_lossy(&output.stdout).into_owned())
}

#[tokio::test]
async fn clear_asks_at_a_terminal_and_takes_only_the_word() {
    let world = world().await;
    fill(&world).await;
    for typed in ["", "yes", "clear"] {
        let (code, shown) = at_a_terminal(&world, "clear", typed).await;
        assert_eq!(code, 1, "{shown}");
        assert!(shown.contains("Type CLEAR"), "{shown}");
        assert!(shown.contains("nothing was removed"), "{shown}");
        assert_eq!(left(&world).await, all_entries());
    }
    let (code, shown) = at_a_terminal(&world, "clear", "CLEAR").await;
    assert_eq!(code, 0, "{shown}");
    assert!(left(&world).await.is_empty());
    assert_foreign_untouched(&world).await;
}

#[tokio::test]
async fn invalidate_wants_to_know_what() {
    let world = world().await;
    fill(&world).await;
    for arguments in [&[][..], &["--days", "30"], &["--cache-type", "nothing"], &["--days", "x"]] {
        let output = run(&world, "invalidate", arguments).await;
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {}", stderr(&output));
        assert!(stderr(&output).contains("--"), "{}", stderr(&output));
    }
    assert_eq!(left(&world).await, all_entries());
}

#[tokio::test]
async fn a_service_that_is_not_there_is_told() {
    let mut world = world().await;
    fill(&world).await;
    world.set("postgres.url=postgres://x@127.0.0.1:1/x");
    let output = run(&world, "invalidate", &["--organization", "one"]).await;
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
    assert_eq!(left(&world).await, all_entries());
    // Who names no organization needs no database.
    json(&world, "invalidate", &["--cache-type", "org_data"]).await;
    assert_eq!(left(&world).await, without(|key| key.starts_with("v1:org:data")));
    world.set("redis.url=redis://127.0.0.1:1/1");
    let output = run(&world, "clear", &["--force"]).await;
    assert_eq!(output.status.code(), Some(69), "{}", stderr(&output));
}

#[tokio::test]
async fn others_name_their_parameters_as_they_like() {
    let mut world = world().await;
    let toml = r#"
        [postgres]
        url = "postgres://h/d"
        [redis]
        url = "redis://h"
        key_prefix = "prs_cache:1:"
        [caches]
        organization_parameter = "shop"
        user_parameter = "clerk"
        [caches.till]
        key = "till:{shop}:{clerk}"
        query = "select '{}'::json where $shop::text <> $clerk::text"
        population = """
            select organization_id as shop, id as clerk from authentication_user
             where $organization::text is null or organization_id::text = $organization::text"""
        [caches.badge]
        key = "badge:{clerk}"
        population = """
            select id as clerk from authentication_user
             where organization_id::text = $organization::text"""
        [[tables]]
        name = "authentication_user"
        invalidates = [
          { cache = "till", shop = "organization_id", clerk = "id" },
          { cache = "badge", clerk = "id" },
        ]
    "#;
    world.configure(toml);
    let all = ["till:1:11", "till:1:12", "till:2:21", "badge:11", "badge:21"];
    let left = async || world.keys().await.into_iter().collect::<Vec<_>>();
    world.put(&all).await;
    json(&world, "invalidate", &["--organization", "1"]).await;
    assert_eq!(left().await, ["badge:21", "till:2:21"]);
    world.put(&all).await;
    json(&world, "invalidate", &["--user-id", "11", "--cache-type", "user"]).await;
    assert_eq!(left().await, ["badge:21", "till:1:12", "till:2:21"]);
}

#[tokio::test]
async fn many_entries_go_in_small_steps() {
    let world = world().await;
    let script = "for i = 1, 20000 do redis.call('SET', 'prs_cache:1:v1:identity:' .. i, '{}') end";
    let _: () =
        redis::cmd("EVAL").arg(script).arg(0).query_async(&mut world.values().await).await.unwrap();
    let _: () =
        redis::cmd("CONFIG").arg("RESETSTAT").query_async(&mut world.values().await).await.unwrap();
    let told = json(&world, "clear", &["--force"]).await;
    assert_eq!(told["total"]["entries"], 20_000);
    let stats: String = redis::cmd("INFO")
        .arg("commandstats")
        .query_async(&mut world.values().await)
        .await
        .unwrap();
    for never in ["cmdstat_keys:", "cmdstat_flushdb:", "cmdstat_flushall:"] {
        assert!(!stats.contains(never), "{stats}");
    }
    let scripts = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    let scripts: u32 = scripts.and_then(|rest| rest.split(',').next()).unwrap().parse().unwrap();
    assert!(scripts >= 80, "at most 250 keys a script: {scripts}");
}
