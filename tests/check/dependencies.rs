//! What a query or a `via` reads and no rule covers is found: of the default configuration
//! each rule and each column, one by one.

use crate::preflight::{Ground, default, small};
use toml_edit::{DocumentMut, InlineTable};

fn rules(document: &mut DocumentMut) -> Vec<(String, &mut toml_edit::Array)> {
    let tables = document["tables"].as_array_of_tables_mut().unwrap();
    tables
        .iter_mut()
        .map(|table| {
            let name = table["name"].as_str().unwrap().to_owned();
            (name, table["invalidates"].as_array_mut().unwrap())
        })
        .collect()
}

fn rule(array: &toml_edit::Array, index: usize) -> &InlineTable {
    array.get(index).unwrap().as_inline_table().unwrap()
}

/// What product.md lets reach a cache though its query does not read it.
const MORE_THAN_IS_READ: [(&str, &str, &str); 6] = [
    ("permissions_role", "user_perms", "organization_id"),
    ("permissions_role", "identity", "organization_id"),
    ("permissions_role", "api_dashboard", "id"),
    ("permissions_role", "api_dashboard", "name"),
    ("permissions_role", "api_dashboard", "organization_id"),
    ("auth_permission", "api_dashboard", "name"),
];

#[tokio::test]
async fn each_rule_of_the_default_configuration_is_missed_when_it_is_gone() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    let mut places = Vec::new();
    for (table, (name, array)) in rules(&mut default()).into_iter().enumerate() {
        for position in 0..array.len() {
            let cache = rule(array, position)["cache"].as_str().unwrap().to_owned();
            places.push((table, position, name.clone(), cache));
        }
    }
    assert!(places.len() > 25);
    for (table, position, name, cache) in places {
        let mut document = default();
        let mut all = rules(&mut document);
        all[table].1.remove(position);
        if all[table].1.is_empty() {
            document["tables"].as_array_of_tables_mut().unwrap().remove(table);
        }
        let file = ground.variant("without", &document.to_string());
        let ended = ground.run_with(&file, &["check"]).await;
        if (name.as_str(), cache.as_str()) == ("permissions_role", "api_dashboard") {
            ended.expect(0);
            continue;
        }
        assert_eq!(ended.code, 1, "{name} -> {cache}, rule {position}: {}", ended.all());
        ended.says(&format!("PROBLEM  {cache}: "));
        ended.says(&name);
    }
}

#[tokio::test]
async fn each_column_of_the_default_configuration_is_missed_when_it_is_gone() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    let mut looked_at = 0;
    // The first column of every rule at once, then the second, and so on.
    for nth in 0..9 {
        let mut document = default();
        let mut removed = Vec::new();
        for (name, array) in rules(&mut document) {
            for position in 0..array.len() {
                let cache = rule(array, position)["cache"].as_str().unwrap().to_owned();
                let rule = array.get_mut(position).unwrap().as_inline_table_mut().unwrap();
                let Some(columns) = rule.get_mut("columns").and_then(|c| c.as_array_mut()) else {
                    continue;
                };
                if nth < columns.len() && columns.len() > 1 {
                    let column = columns.remove(nth);
                    removed.push((name.clone(), cache, column.as_str().unwrap().to_owned()));
                }
            }
        }
        let file = ground.variant("without", &document.to_string());
        let ended = ground.run_with(&file, &["check"]).await.expect(1);
        for (table, cache, column) in &removed {
            let told = ended.out.lines().any(|line| {
                line.contains(&format!("PROBLEM  {cache}: "))
                    && line.contains(&format!("of {table},"))
                    && line.contains(column)
                    || line.contains(&format!("PROBLEM  {cache}: "))
                        && line.contains(&format!("UPDATE of {column}"))
            });
            let expected = !MORE_THAN_IS_READ.contains(&(table, cache, column));
            assert_eq!(told, expected, "{table}.{column} -> {cache}\n{}", ended.all());
            looked_at += 1;
        }
    }
    assert!(looked_at > 80, "{looked_at}");
}

#[tokio::test]
async fn one_of_two_rules_that_share_a_table_leaves_the_others_rows_uncovered() {
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    // Column by column: the rule for an organization's own roles covers no global one.
    for (position, kind) in [(0, "not null"), (1, "null")] {
        let mut document = default();
        let mut all = rules(&mut document);
        let role = all.iter_mut().find(|(name, _)| name == "permissions_role").unwrap();
        let rule = role.1.get_mut(position).unwrap().as_inline_table_mut().unwrap();
        rule["columns"].as_array_mut().unwrap().remove(1);
        let file = ground.variant("without", &document.to_string());
        let ended = ground.run_with(&file, &["check"]).await.expect(1);
        ended.says(&format!("rows whose organization_id is {kind}, and no rule of permissions_role finds them for: UPDATE of name"));
    }
}

#[tokio::test]
async fn what_the_planner_cannot_tell_is_said() {
    let ground = Ground::empty(unstale::sandbox::Postgres::builder()).await;
    ground.as_django("create table item (id int primary key, shop int, name text)").await;
    let toml = |table: &str| {
        small(
            &format!(
                "[caches.shop]\nkey = \"shop:{{id}}\"\nquery = \"select to_json(name) from {table} where shop = $id\""
            ),
            "[[tables]]\nname = \"item\"\ninvalidates = [{ cache = \"shop\", id = \"shop\" }]",
        )
    };
    let unknown = "whether its query reads rows whose shop is null cannot be told";
    // No grant yet: the table cannot be copied.
    ground.configure(&toml("item"));
    ground.check().await.says(unknown);
    ground.set_up().await.expect(0);
    ground.check().await.expect(0).says_not(unknown);
    ground.configure(&toml("public.item"));
    ground.check().await.expect(0).says(unknown);
}

const TABLES: &str = "
create table team (id int primary key, name text not null, note text);
create table member (id int primary key, team_id int not null, name varchar(20) not null,
  login varchar(20) not null, shout varchar(30) generated always as (upper(name)) stored);
create view named as select m.team_id, m.name, t.note from member m join team t on t.id = m.team_id;
create function hidden(int) returns bigint language sql stable as 'select count(*) from member where team_id = $1';
create function seen(int) returns bigint language sql stable begin atomic select count(*) from member m where m.team_id = $1 and m.login <> ''; end;
create materialized view counts as select team_id, count(*) as n from member group by 1;
create unlogged table presence (team_id int);
";

fn team(query: &str, rules: &str) -> String {
    small(
        &format!("[caches.team]\nkey = \"team:{{id}}\"\nquery = '''\n{query}'''"),
        &format!("[[tables]]\nname = \"team\"\ninvalidates = [{rules}]"),
    )
}

const ALL: &str = "{ cache = \"team\", id = \"id\" }";

#[tokio::test]
async fn whole_rows_views_functions_and_generated_columns_are_seen_through() {
    let ground = Ground::empty(unstale::sandbox::Postgres::builder()).await;
    ground.as_django(TABLES).await;
    ground.as_django("grant select on all tables in schema public to unstale").await;
    let cases = [
        // A row as a whole, beside a single column of it.
        (
            "select row_to_json(t) from team t where t.id = $id",
            "{ cache = \"team\", id = \"id\", columns = [\"id\"] }",
            "reads name, note of team",
        ),
        (
            "select row_to_json(n) from named n where n.team_id = $id",
            ALL,
            "reads member (name, team_id), which has no rule",
        ),
        (
            "select to_json(seen(t.id)) from team t where t.id = $id",
            ALL,
            "reads member (login, team_id), which has no rule",
        ),
        (
            "select to_json(hidden(t.id)) from team t where t.id = $id",
            ALL,
            "what hidden(integer) reads cannot be seen",
        ),
        (
            "select to_json(m.shout) from member m where m.id = $id",
            ALL,
            "reads member (id, name), which has no rule",
        ),
        (
            "select to_json(count(*)) from member, team where $id > 0",
            ALL,
            "reads member, which has no rule",
        ),
        (
            "select to_json(n) from counts where team_id = $id",
            ALL,
            "reads counts, a materialized view",
        ),
        (
            "select to_json(count(*)) from presence where team_id = $id",
            ALL,
            "reads presence, an unlogged table",
        ),
        (
            "select to_json(name) from team where id = $id",
            "{ cache = \"team\", id = \"id\", on = [\"update\"] }",
            "INSERT is in `on` of no rule",
        ),
    ];
    for (query, rules, expected) in cases {
        ground.configure(&team(query, rules));
        let ended = ground.check().await;
        ended.says(expected);
    }
    ground.configure(&team("select row_to_json(t) from team t where t.id = $id", ALL));
    let ended = ground.check().await;
    ended.says("team: every change of what it reads reaches it (1 table)");
}

#[tokio::test]
async fn a_table_that_a_via_reads_needs_a_rule_of_its_own() {
    let ground = Ground::empty(unstale::sandbox::Postgres::builder()).await;
    ground.as_django(TABLES).await;
    let via = "{ cache = \"team\", via = \"select m.team_id as id from member m join changed on changed.id = m.team_id\" }";
    ground.configure(&team("select to_json(name) from team where id = $id", via));
    let ended = ground.check().await.expect(1);
    ended.says("the via of rule 1 of team reads member (team_id), which has no rule to team");
    ended.says("whoever is detached by a change of member");
}

#[tokio::test]
async fn what_postgres_refuses_points_to_file_line_and_column() {
    let ground = Ground::empty(unstale::sandbox::Postgres::builder()).await;
    ground.as_django(TABLES).await;
    // In a file.
    let text = "-- é\nselect to_json(t.nam) from team t where t.id = $id\n";
    std::fs::write(ground.folder.path().join("config/team.sql"), text).unwrap();
    let toml = small(
        "[caches.team]\nkey = \"team:{id}\"\nquery = { file = \"team.sql\" }",
        &format!("[[tables]]\nname = \"team\"\ninvalidates = [{ALL}]"),
    );
    ground.configure(&toml);
    let ended = ground.check().await.expect(1);
    ended.says("query of team: column t.nam does not exist");
    ended.says("at config/team.sql:2:16");
    // In the configuration: behind a parameter, whose number is shorter than its name.
    for (query, place) in [
        ("select to_json(name)\n  from team where id = $id and nam = 1", "unstale.toml:10:32"),
        ("select to_json(name)\n from team where id = $id,", "unstale.toml:10:26"),
        ("select to_json(name) from team where id = $id or id = $other", "unstale.toml:9:55"),
        ("select to_json(name) from team where id = $1", "unstale.toml:9:43"),
        ("select id, name from team where id = $id", "returns 2 columns"),
        ("select id from team where id = $id", "of type int4"),
        ("select to_json(name) from team", "never uses $id"),
    ] {
        ground.configure(&team(query, ALL));
        ground.check().await.says(place);
    }
    // In a via: what it lacks, and what it misspells.
    for (via, expected) in [
        (
            "select m.team_id from member m join changed on changed.id = m.team_id",
            "it returns id, named so",
        ),
        (
            "select m.tem_id as id from member m join changed on changed.id = m.team_id",
            "unstale.toml:12:48",
        ),
        (
            "select m.team_id as id from member m join changed on changed.nope = m.team_id",
            "carries no column nope",
        ),
    ] {
        let rule = format!("{{ cache = \"team\", via = \"{via}\" }}");
        ground.configure(&team("select to_json(name) from team where id = $id", &rule));
        let ended = ground.check().await.expect(1);
        ended.says(expected);
    }
}

#[tokio::test]
async fn a_population_that_cannot_be_asked_is_found_and_what_it_reads_must_be_granted() {
    let ground = Ground::empty(unstale::sandbox::Postgres::builder()).await;
    ground.as_django(TABLES).await;
    ground.as_django("grant select on team to unstale").await;
    let with = |population: &str| {
        small(
            &format!(
                "[caches.team]\nkey = \"team:{{id}}\"\nquery = \"select to_json(name) from team where id = $id\"\npopulation = '''\n{population}'''"
            ),
            &format!("[[tables]]\nname = \"team\"\ninvalidates = [{ALL}]"),
        )
    };
    for (population, message, place) in [
        (
            "select t.id\n from team t where t.nam = $organization",
            "column t.nam does not exist",
            "unstale.toml:11:20",
        ),
        ("select t.name from team t", "\"id\" does not exist", "it returns id, named so"),
        ("select id from team where id = $id", "names $id", "$organization, $users and $user"),
    ] {
        ground.configure(&with(population));
        let ended = ground.check().await.expect(1);
        ended.says("population of team");
        ended.says(message);
        ended.says(place);
    }
    // No rule need cover it, but the role must be allowed to read it.
    ground.configure(&with("select distinct m.team_id as id from member m limit $users"));
    let ended = ground.check().await.expect(1);
    ended.says("member");
    ended.says("GRANT SELECT");
    ended.says("team: every change of what it reads reaches it (1 table)");
}

#[tokio::test]
async fn an_insert_that_reaches_nothing_is_warned_of_where_it_is_remembered_that_there_is_nothing()
{
    let ground = Ground::demo().await;
    ground.set_up().await.expect(0);
    let note = "deal_stats: INSERT of clients_client reaches nothing, ";
    let mut document = default();
    ground
        .run_with(&ground.variant("as it is", &document.to_string()), &["check"])
        .await
        .says(&format!("{note}which is right"));
    document["caches"]["deal_stats"]["negative_ttl"] = toml_edit::value("1m");
    let file = ground.variant("negative", &document.to_string());
    ground.run_with(&file, &["check"]).await.says(&format!("warning  {note}and negative_ttl"));
}
