//! The grants that docs/PERMISSIONS.md prints are all that is needed: whoever runs them as
//! they stand has nothing to hear from `check`, but that a superuser could make event triggers.

use crate::preflight::{ALL_DONE, Ground};

/// The first SQL of the page that begins so.
fn sql(who: &str) -> &'static str {
    let page = include_str!("../../docs/PERMISSIONS.md");
    let start = format!("```sql\n-- as {who}\n");
    let (_, rest) = page.split_once(&start).unwrap_or_else(|| panic!("no SQL as {who}"));
    rest.split_once("```").unwrap().0
}

#[tokio::test]
async fn the_pages_grants_are_all_that_check_asks_for() {
    let ground = Ground::demo().await;
    ground.as_superuser("drop role unstale; revoke all on database app from public").await;
    ground.check().await.expect(78).says("CREATE ROLE \"unstale\" LOGIN REPLICATION");
    ground.psql("postgres", sql("a superuser")).await.expect(0).says_not("ERROR");
    ground.check().await.expect(1).says("GRANT SELECT ON TABLE public.deals_deal TO unstale;");
    ground.psql("django", sql("the tables' owner")).await.expect(0).says_not("ERROR");
    ground.check().await.expect(0).says(ALL_DONE);
}

/// What RDS has in place of the attribute. Whether it also gives the right, only RDS can say.
#[tokio::test]
async fn where_a_role_stands_for_replication_check_asks_for_that_role() {
    let ground = Ground::demo().await;
    ground.as_superuser("create role rds_replication; alter role unstale noreplication").await;
    let ended = ground.check().await.expect(1);
    ended.says("GRANT rds_replication TO unstale");
    ended.says_not("ALTER ROLE unstale REPLICATION");
    let grants = sql("the master user (a member of rds_superuser)");
    ground.as_superuser("revoke all on database app from public; drop role unstale").await;
    ground.psql("postgres", grants).await.expect(0).says_not("ERROR");
    ground.check().await.expect(1).says("role unstale may replicate from app");
}
