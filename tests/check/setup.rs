//! `setup` does what `check` says is missing, disturbs nobody, and does nothing twice.

use std::time::{Duration, Instant};

use crate::preflight::{ALL_DONE, Ground, small};
use unstale::postgres::announce::{TRIGGERS, Trigger};
use unstale::sandbox::Postgres;

#[tokio::test]
async fn check_finds_what_setup_does_and_a_second_setup_does_nothing() {
    let ground = Ground::demo().await;
    let before = ground.check().await.expect(1);
    before.says("publication unstale does not exist");
    before.says("CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS unstale_ri_deals_deal ON public.deals_deal (id, ");
    before.says("ALTER TABLE public.authentication_user REPLICA IDENTITY FULL;");
    before.says("USING INDEX permissions_role_permissions_role_id_permission_id_uniq;");
    before.says("GRANT SELECT ON TABLE public.deals_deal TO unstale;");
    before.says("DELETE, drops ALL of api_analytics, api_search");

    // The daemon's role may not do it, and nothing is half-done.
    let state = ground.state().await;
    ground.run(&["setup"]).await.expect(78).says("--as-owner");
    assert_eq!(state, ground.state().await);

    ground.set_up().await.expect(0).says("done  CREATE PUBLICATION unstale");
    ground.check().await.expect(0).says(ALL_DONE);

    let state = ground.state().await;
    let again = ground.set_up().await.expect(0);
    again.says("Nothing to do: all is set up.");
    again.says_not("done  ");
    assert_eq!(state, ground.state().await);
    // What the daemon makes itself.
    assert!(ground.rows("select slot_name::text from pg_replication_slots").await.is_empty());

    // The application's own statements go on.
    ground
        .as_django(
            "insert into django_content_type (app_label, model) values ('a', 'b');
             update django_content_type set model = 'c'; delete from django_content_type",
        )
        .await;
}

#[tokio::test]
async fn the_printed_script_does_the_same_and_may_be_run_again() {
    let (printed, run) = tokio::join!(Ground::demo(), Ground::demo());
    let before = printed.state().await;
    let owner = printed.url("django");
    let script = printed.run(&["setup", "--print", "--as-owner", &owner]).await.expect(0).out;
    assert_eq!(before, printed.state().await, "printing changes nothing");
    assert_eq!(printed.run(&["setup", "--dry-run"]).await.expect(0).out, script);
    for _ in 0..2 {
        printed.psql("django", &script).await.expect(0);
    }
    run.set_up().await.expect(0);
    assert_eq!(printed.state().await, run.state().await);
    printed.check().await.expect(0);
}

#[tokio::test]
async fn what_only_a_superuser_may_do_is_said_and_the_rest_is_done() {
    let ground = Ground::demo().await;
    ground.as_superuser("alter role unstale noreplication").await;
    let ended = ground.set_up().await.expect(1);
    ended.says("left  ALTER ROLE unstale REPLICATION;");
    ended.says("done  CREATE PUBLICATION");
    ground.check().await.expect(1).says("ALTER ROLE unstale REPLICATION;");
    let superuser = ground.url("postgres");
    ground.run(&["setup", "--as-owner", &superuser]).await.expect(0);
    ground.check().await.expect(0);
}

#[tokio::test]
async fn an_owner_without_create_on_the_database_is_told_the_grant_and_nothing_is_done() {
    let ground = Ground::demo().await;
    ground
        .as_superuser(
            "alter database app owner to postgres; grant create on schema public to django",
        )
        .await;
    let state = ground.state().await;
    ground.set_up().await.expect(78).says("GRANT CREATE ON DATABASE app TO django");
    assert_eq!(state, ground.state().await);
    ground.as_superuser("grant create on database app to django").await;
    ground.set_up().await.expect(0);
}

#[tokio::test]
async fn a_role_that_does_not_exist_is_in_the_script_of_a_superuser() {
    let ground = Ground::demo().await;
    ground.as_superuser("drop role unstale").await;
    ground.check().await.expect(78).says("CREATE ROLE \"unstale\" LOGIN REPLICATION");
    let superuser = ground.url("postgres");
    let script = ground.run(&["setup", "--print", "--as-owner", &superuser]).await.expect(0).out;
    ground.psql("postgres", &script).await.expect(0);
    ground.check().await.expect(0);
}

const TABLES: &str = r#"
create schema "Sales Dept";
create table "Sales Dept"."Order Items" (
  id bigint primary key, "shopId" int not null, label varchar(40) not null, note text not null, maybe int);
"#;

fn orders(columns: &str) -> String {
    small(
        "[caches.shop]\nkey = \"shop:{id}\"\nquery = '''select to_json(count(*)) from \"Sales Dept\".\"Order Items\" where \"shopId\" = $id'''",
        &format!(
            "[[tables]]\nname = '\"Sales Dept\".\"Order Items\"'\ninvalidates = [{{ cache = \"shop\", id = '\"shopId\"', columns = ['\"shopId\"', {columns}] }}]"
        ),
    )
}

async fn identity(ground: &Ground) -> String {
    let state = ground.state().await.join("\n");
    let line = state.lines().find(|line| line.starts_with("\"Sales Dept\".\"Order Items\" "));
    line.unwrap_or(&state).rsplit(' ').next().unwrap().to_owned()
}

#[tokio::test]
async fn the_cheapest_identity_that_carries_what_is_needed_is_chosen_whatever_the_names() {
    let ground = Ground::empty(Postgres::builder()).await;
    ground.as_django(TABLES).await;
    // NOT NULL and bounded: an index of its own.
    ground.configure(&orders("'label'"));
    ground.set_up().await.expect(0).says(
        r#"CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS "unstale_ri_Order Items" ON "Sales Dept"."Order Items" (id, "shopId", label);"#,
    );
    ground.check().await.expect(0).says(ALL_DONE);
    // Less is needed: the index still carries it.
    ground.configure(&orders("'id'"));
    ground.set_up().await.expect(0).says("Nothing to do");
    // Something that may be null: FULL, and the index goes, but not before.
    ground.configure(&orders("'maybe'"));
    let ended = ground.set_up().await.expect(0);
    ended.says(r#"done  DROP INDEX CONCURRENTLY IF EXISTS "Sales Dept"."unstale_ri_Order Items";"#);
    assert_eq!(identity(&ground).await, "f");
    ground.check().await.expect(0).says(ALL_DONE);
    // A text without bounds could be too long for an index: the application's INSERT would fail.
    ground.as_django(r#"alter table "Sales Dept"."Order Items" replica identity default"#).await;
    ground.configure(&orders("'note'"));
    ground.set_up().await.expect(0);
    assert_eq!(identity(&ground).await, "f");
    // An index that is there already.
    ground
        .as_django(
            r#"alter table "Sales Dept"."Order Items" replica identity default;
               create unique index mine on "Sales Dept"."Order Items" (label, "shopId")"#,
        )
        .await;
    ground.configure(&orders("'label'"));
    ground.set_up().await.expect(0).says("USING INDEX mine;");
    assert_eq!(identity(&ground).await, "i");
    // More is needed than our own index holds: another is made before the old one goes.
    ground.as_django(r#"drop index "Sales Dept".mine; alter table "Sales Dept"."Order Items" replica identity default"#).await;
    ground.set_up().await.expect(0);
    ground
        .as_django(r#"alter table "Sales Dept"."Order Items" add more int not null default 1"#)
        .await;
    ground.configure(&orders("'label', 'more'"));
    ground.check().await.expect(0).says("changes carry no old value of more");
    ground
        .set_up()
        .await
        .expect(0)
        .says(r#"DROP INDEX CONCURRENTLY IF EXISTS "Sales Dept"."unstale_ri_Order Items""#);
    ground.check().await.expect(0).says(ALL_DONE);
}

#[tokio::test]
async fn an_identity_index_that_was_dropped_is_a_problem_since_the_application_fails() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    ground.as_django("drop index unstale_ri_clients_client").await;
    let ended = ground.check().await.expect(1);
    ended.says("UPDATE AND DELETE ON clients_client FAIL");
    ended.says("the index that was the replica identity of clients_client has been dropped");
    ground.set_up().await.expect(0);
    ground.check().await.expect(0).says(ALL_DONE);
}

#[tokio::test]
async fn a_publication_that_leaves_something_out_is_mended() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    ground
        .as_django(
            "alter publication unstale set (publish = 'insert, update');
             alter publication unstale drop table clients_client, deals_deal;
             alter publication unstale add table clients_client (id, client_name)",
        )
        .await;
    let ended = ground.check().await.expect(1);
    ended.says("rules need the changes of deals_deal");
    ended.says("without a column list");
    ended.says("every operation");
    ground.set_up().await.expect(0);
    ground.check().await.expect(0).says(ALL_DONE);
    ground
        .as_django(
            "alter publication unstale drop table clients_client;
             alter publication unstale add table clients_client where (id > 5)",
        )
        .await;
    ground.check().await.expect(0).says("only rows of clients_client with (id > 5) are published");
}

#[tokio::test]
async fn partitions_get_the_identity_of_their_table() {
    let ground = Ground::empty(Postgres::builder()).await;
    ground
        .as_django(
            "create table sale (id int, day date, shop int not null, primary key (id, day)) partition by range (day);
             create table sale_1 partition of sale for values from ('2020-01-01') to ('2021-01-01');
             create table sale_2 partition of sale for values from ('2021-01-01') to ('2022-01-01')",
        )
        .await;
    ground.configure(&small(
        "[caches.shop]\nkey = \"shop:{id}\"\nquery = \"select to_json(count(*)) from sale_1 where shop = $id\"",
        "[[tables]]\nname = \"sale\"\ninvalidates = [{ cache = \"shop\", id = \"shop\" }]",
    ));
    ground.check().await.expect(1).says("drops ALL of shop");
    ground.set_up().await.expect(0);
    // The query reads a partition; the rule of its table covers it.
    let ended = ground.check().await.expect(0);
    ended.says("shop: every change of what it reads reaches it (1 table)");
    ended.says("give each new partition REPLICA IDENTITY FULL");
    ground.as_django("create table sale_3 partition of sale for values from ('2022-01-01') to ('2023-01-01')").await;
    ground
        .check()
        .await
        .says("1 of the partitions of sale have another replica identity than it (sale_3)");
    ground.set_up().await.expect(0).says("done  ALTER TABLE public.sale_3 REPLICA IDENTITY FULL;");
    ground.check().await.expect(0).says_not("another replica identity");
    // Under its own name a partition never changes.
    ground.configure(&small(
        "[caches.shop]\nkey = \"shop:{id}\"",
        "[[tables]]\nname = \"sale_1\"\ninvalidates = [{ cache = \"shop\", id = \"shop\" }]",
    ));
    ground.check().await.expect(1).says("sale_1 is a partition of sale");
}

#[tokio::test]
async fn a_table_in_use_is_tried_again_and_readers_never_stand_in_line() {
    let ground = Ground::demo().await;
    let mut holder = ground.postgres.client_for("django", "app").await.unwrap();
    let held = holder.transaction().await.unwrap();
    held.batch_execute(
        "select * from authentication_user; lock authentication_user in row exclusive mode",
    )
    .await
    .unwrap();

    let owner = ground.url("django");
    let arguments = ["setup", "--as-owner", &owner, "--patience", "60s"];
    let setup = ground.run(&arguments);
    tokio::pin!(setup);
    let reader = ground.postgres.client_for("django", "app").await.unwrap();
    let mut slowest = Duration::ZERO;
    let waiting = "select count(*)::text from pg_locks where relation = 'authentication_user'::regclass and mode = 'AccessExclusiveLock' and not granted";
    let mut seen_waiting = false;
    let started = Instant::now();
    let mut released = None;
    let ended = {
        let mut held = Some(held);
        loop {
            tokio::select! {
                ended = &mut setup => break ended,
                read = async {
                    let before = Instant::now();
                    reader.batch_execute("select count(*) from authentication_user").await.unwrap();
                    before.elapsed()
                } => slowest = slowest.max(read),
            }
            seen_waiting = seen_waiting || ground.rows(waiting).await != ["0"];
            if seen_waiting
                && started.elapsed() > Duration::from_secs(3)
                && let Some(held) = held.take()
            {
                held.commit().await.unwrap();
                released = Some(Instant::now());
            }
            assert!(started.elapsed() < Duration::from_secs(50), "setup never ended");
        }
    };
    assert!(released.is_some(), "setup waited for nobody: {}", ended.all());
    let ended = ended.expect(0);
    ended.says("is in use (PID ");
    // It stood in line, for a tenth of a second at a time; a busy machine may add to it.
    assert!(slowest < Duration::from_secs(1), "a reader waited for {slowest:?}");
    ground.check().await.expect(0);
}

#[tokio::test]
async fn a_table_that_is_never_free_ends_the_setup_before_anything_is_published() {
    let ground = Ground::demo().await;
    let mut holder = ground.postgres.client_for("django", "app").await.unwrap();
    let held = holder.transaction().await.unwrap();
    held.batch_execute("lock authentication_user in row exclusive mode").await.unwrap();
    let owner = ground.url("django");
    let ended = ground.run(&["setup", "--as-owner", &owner, "--patience", "1s"]).await.expect(1);
    ended.says("was never free for 1s: PID ");
    assert!(ground.rows("select pubname::text from pg_publication").await.is_empty());
    held.rollback().await.unwrap();
    ground.set_up().await.expect(0);
    ground.check().await.expect(0);
}

/// From Postgres 18 on the server refuses UPDATE and DELETE where a whole row that is the
/// identity has columns which are not published.
#[tokio::test]
async fn a_table_with_generated_columns_can_still_be_changed_by_the_application() {
    let ground = Ground::empty(Postgres::builder()).await;
    let version = ground.rows("show server_version_num").await;
    let virtual_too = version.first().is_some_and(|version| version.as_str() >= "18");
    ground
        .as_django(
            "create table stored (id int primary key, org int, n int,
                                  double int generated always as (n * 2) stored);
             create table parted (id int primary key, org int, n int,
                                  double int generated always as (n * 2) stored) partition by range (id);
             create table part partition of parted for values from (1) to (100);",
        )
        .await;
    if virtual_too {
        ground
            .as_django("create table computed (id int primary key, org int, n int, double int generated always as (n * 2))")
            .await;
    }
    let names = ["stored", "parted", "computed"];
    let names = &names[..if virtual_too { 3 } else { 2 }];
    let rules: String = names
        .iter()
        .map(|name| {
            format!(
                "[[tables]]\nname = \"{name}\"\ninvalidates = [{{ cache = \"c\", k = \"org\" }}]\n"
            )
        })
        .collect();
    ground.configure(&small("[caches.c]\nkey = \"c:{k}\"", &rules));
    let changed = || {
        let statements = names.iter().map(|name| {
            format!(
                "insert into {name} values (1, 1, 1); update {name} set n = 2; delete from {name};"
            )
        });
        statements.collect::<String>()
    };
    // A publication that somebody else made, and one that `setup` makes.
    for made in ["create publication unstale for table stored", ""] {
        ground.as_django(&format!("drop publication if exists unstale; {made}")).await;
        ground.set_up().await.expect(0);
        ground.as_django(&changed()).await;
        let checked = ground.check().await.expect(0);
        checked.says_not("FAIL");
        checked.says("stored: all old values (FULL)");
        if virtual_too {
            checked.says("computed: changes carry no old value of org");
        }
        ground.set_up().await.expect(0).says("Nothing to do");
    }
    if virtual_too {
        ground.as_django("alter publication unstale set (publish_generated_columns = none)").await;
        let ended = ground.check().await.expect(1);
        ended.says("UPDATE AND DELETE ON stored FAIL");
        ended.says("ALTER PUBLICATION unstale SET (publish_generated_columns = stored)");
        // Whoever may not do that sets no identity either: the application goes on.
        for table in ["stored", "parted", "part"] {
            ground.as_django(&format!("alter table {table} replica identity default")).await;
        }
        let other = "create role other; grant create on database app to other; alter publication unstale owner to other";
        ground.as_superuser(other).await;
        ground.set_up().await.expect(78).says("Nothing was changed");
        ground.as_django(&changed()).await;
        ground.as_superuser("alter publication unstale owner to django").await;
        ground.set_up().await.expect(0);
        ground.as_django(&changed()).await;
    }
}

#[tokio::test]
async fn the_event_trigger_is_made_when_asked_for_and_by_a_superuser_only() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0).says_not("EVENT TRIGGER");
    let checked = ground.check().await.expect(0);
    checked.says("no stream tells of a table that is rewritten");
    checked.says("unstale setup --event-trigger");
    let with = async |user: &str| {
        let url = ground.url(user);
        ground.run(&["setup", "--event-trigger", "--as-owner", &url]).await
    };
    with("django").await.expect(1).says("it takes a superuser");
    let url = ground.url("postgres");
    let script = ground.run(&["setup", "--event-trigger", "--print", "--as-owner", &url]).await;
    let script = script.expect(0).out;
    for _ in 0..2 {
        ground.psql("postgres", &script).await.expect(0);
    }
    let checked = ground.check().await.expect(0);
    checked.says("event triggers tell of rewritten tables");
    checked.says("All is well: no problems, no warnings.");
    with("postgres").await.expect(0).says("Nothing to do");
    // It fires for whoever owns the table, and never stands in his way: he need not be allowed to
    // write messages, nor see the functions.
    let revoke = "revoke execute on function pg_logical_emit_message(boolean, text, text) from public;
        grant execute on function pg_logical_emit_message(boolean, text, text) to unstale;
        revoke execute on function unstale_table_rewrite(), unstale_publication_change() from public";
    ground.as_superuser(revoke).await;
    let part = "create table part (id int primary key) partition by range (id);
        create table part_1 partition of part for values from (0) to (10); drop table part";
    for sql in [
        "alter table deals_deal alter deal_name type varchar(999) using deal_name || ''",
        "alter publication unstale set (publish_via_partition_root = true)",
        part,
        "create temporary table mine (n int); alter table mine add column m int; drop table mine",
    ] {
        ground.as_django(sql).await;
    }
    let spoil = |trigger: &Trigger| {
        let name = trigger.name;
        [
            format!("alter event trigger {name} disable"),
            // It would not fire where session_replication_role is replica.
            format!("alter event trigger {name} enable"),
            format!("drop event trigger {name}"),
        ]
    };
    let others = "create or replace function unstale_publication_change() returns event_trigger
        language plpgsql security definer as 'begin end'";
    let invoker = "alter function unstale_table_rewrite() security invoker";
    let tags = "drop event trigger unstale_publication; create event trigger unstale_publication
        on ddl_command_end when tag in ('ALTER PUBLICATION') execute function unstale_publication_change()";
    let spoiled = TRIGGERS.iter().flat_map(spoil);
    for sql in spoiled.chain([others, invoker, tags].map(str::to_owned)) {
        ground.as_superuser(&sql).await;
        ground.check().await.expect(0).says("no stream tells of a table that is rewritten");
        with("postgres").await.expect(0).says("done  BEGIN;");
        ground.check().await.expect(0).says("event triggers tell of rewritten tables");
    }
    // Who had a function of that name before is not the owner of ours.
    ground.as_superuser("alter function unstale_table_rewrite() owner to django; alter event trigger unstale_table_rewrite disable").await;
    with("postgres").await.expect(0).says("done  BEGIN;");
    let owner =
        "select proowner::regrole::text from pg_proc where proname = 'unstale_table_rewrite'";
    ground.psql("postgres", owner).await.expect(0).says("postgres");
}
