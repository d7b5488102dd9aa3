//! Writes that Django's signals miss: each is a way in which real caches go stale.

use bytes::Bytes;
use futures_util::SinkExt as _;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

/// One kind of write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    SuperuserToggled,
    DealPriced,
    DealsVerified,
    DealsDeleted,
    DealsCopied,
    PermissionToggled,
    UserMoved,
    RoleRenamed,
    ClientRenamed,
    OrganizationToggled,
    PermissionRenamed,
    GrantsReloaded,
    LoggedIn,
    DealsRemarked,
    RolledBack,
}

/// Told one by one, so that each shows what it reaches.
pub(super) const STORIES: [Change; 13] = [
    Change::DealsVerified,
    Change::UserMoved,
    Change::DealsDeleted,
    Change::LoggedIn,
    Change::DealsCopied,
    Change::PermissionToggled,
    Change::RoleRenamed,
    Change::DealsRemarked,
    Change::ClientRenamed,
    Change::OrganizationToggled,
    Change::RolledBack,
    Change::GrantsReloaded,
    Change::PermissionRenamed,
];

/// What goes on all the time, with how often. (Those that reach everybody are left to the
/// stories: they would leave nothing for the others to reach.)
pub(super) const MIX: [(Change, u32); 12] = [
    (Change::SuperuserToggled, 30),
    (Change::DealPriced, 25),
    (Change::LoggedIn, 10),
    (Change::DealsVerified, 6),
    (Change::PermissionToggled, 6),
    (Change::UserMoved, 6),
    (Change::DealsRemarked, 4),
    (Change::DealsCopied, 4),
    (Change::DealsDeleted, 4),
    (Change::ClientRenamed, 4),
    (Change::RolledBack, 3),
    (Change::RoleRenamed, 2),
];

/// Who and what there is to write to.
#[derive(Debug)]
pub(super) struct Population {
    organizations: Vec<i64>,
    users: Vec<i64>,
    roles: Vec<i64>,
    permissions: Vec<i32>,
    /// With their organizations.
    clients: Vec<(i64, i64)>,
}

impl Population {
    pub(super) async fn read(client: &Client) -> Result<Population, tokio_postgres::Error> {
        let ids = async |table: &str| -> Result<Vec<i64>, tokio_postgres::Error> {
            let sql = format!("select id::bigint from {table} order by id");
            let rows = client.query(&sql, &[]).await?;
            rows.iter().map(|row| row.try_get(0)).collect()
        };
        let permissions = client.query("select id from auth_permission", &[]).await?;
        let clients = client.query("select id, organization_id from clients_client", &[]).await?;
        Ok(Population {
            organizations: ids("organization_organization").await?,
            users: ids("authentication_user").await?,
            roles: ids("permissions_role").await?,
            permissions: permissions.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?,
            clients: clients
                .iter()
                .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
                .collect::<Result<_, tokio_postgres::Error>>()?,
        })
    }

    /// Any user, but some more than others.
    pub(super) fn user(&self) -> i64 {
        any_but_rather(&self.users, HOT_USERS)
    }

    fn organization(&self) -> i64 {
        any_but_rather(&self.organizations, HOT_ORGANIZATIONS)
    }
}

/// The first so many ids, to which half of all writes go and half of all reads: where both meet
/// is where caches go stale.
pub(super) const HOT_ORGANIZATIONS: usize = 3;
/// As [`HOT_ORGANIZATIONS`].
pub(super) const HOT_USERS: usize = 20;

fn any_but_rather(all: &[i64], hot: usize) -> i64 {
    any(all.get(..hot).filter(|_| fastrand::bool()).unwrap_or(all))
}

fn any<T: Copy + Default>(all: &[T]) -> T {
    fastrand::choice(all).copied().unwrap_or_default()
}

/// Whether the statement lost against a concurrent one: that is life, and not an error.
pub(super) fn lost_a_race(error: &tokio_postgres::Error) -> bool {
    matches!(
        error.code(),
        Some(&SqlState::T_R_DEADLOCK_DETECTED | &SqlState::T_R_SERIALIZATION_FAILURE)
    )
}

impl Change {
    /// Makes the change, in one transaction. What was done, in words.
    pub(super) async fn make(
        self,
        client: &mut Client,
        all: &Population,
    ) -> Result<String, tokio_postgres::Error> {
        let organization = all.organization();
        let number = fastrand::u32(1000..1_000_000);
        Ok(match self {
            Change::SuperuserToggled => toggle_superuser(client, all.user()).await?,
            Change::DealPriced => {
                client
                    .execute(
                        "update deals_deal set deal_value = deal_value + 1 \
                          where id = (select id from deals_deal where organization_id = $1 limit 1)",
                        &[&organization],
                    )
                    .await?;
                "UPDATE deals_deal: one deal's value".to_owned()
            }
            Change::DealsVerified => {
                let three = [organization, any(&all.organizations), any(&all.organizations)];
                let rows = client
                    .execute(
                        "update deals_deal set updated_at = now(), verification_status = \
                                case verification_status when 'pending' then 'verified' else 'pending' end \
                          where id in (select id from deals_deal where organization_id = any($1) \
                                        order by created_at desc limit 150)",
                        &[&three.as_slice()],
                    )
                    .await?;
                format!("QuerySet.update(): verification_status of {rows} deals of 3 organizations")
            }
            Change::DealsDeleted => delete_deals(client.transaction().await?, organization).await?,
            Change::DealsCopied => copy_deals(client, all).await?,
            Change::PermissionToggled => {
                toggle_permission(client.transaction().await?, all).await?
            }
            Change::UserMoved => {
                let user = all.user();
                client
                    .execute(
                        "update authentication_user set organization_id = $1 where id = $2",
                        &[&organization, &user],
                    )
                    .await?;
                format!("raw UPDATE: user {user} moves to organization {organization}")
            }
            Change::RoleRenamed => {
                let role = any(&all.roles);
                client
                    .execute(
                        "update permissions_role set name = split_part(name, ' #', 1) || ' #' || $1::text where id = $2",
                        &[&number.to_string(), &role],
                    )
                    .await?;
                format!("UPDATE permissions_role: role {role} has another name")
            }
            Change::ClientRenamed => {
                let (id, _) = any(&all.clients);
                client
                    .execute(
                        "update clients_client set client_name = split_part(client_name, ' #', 1) || ' #' || $1::text where id = $2",
                        &[&number.to_string(), &id],
                    )
                    .await?;
                format!("UPDATE clients_client: client {id} has another name")
            }
            Change::OrganizationToggled => {
                client
                    .execute(
                        "update organization_organization set is_active = not is_active where id = $1",
                        &[&organization],
                    )
                    .await?;
                format!("UPDATE organization_organization: {organization} (de)activated")
            }
            Change::PermissionRenamed => {
                let permission = any(&all.permissions);
                client
                    .execute(
                        "update auth_permission set name = split_part(name, ' #', 1) || ' #' || $1::text where id = $2",
                        &[&number.to_string(), &permission],
                    )
                    .await?;
                format!("migration: permission {permission} has another name")
            }
            Change::GrantsReloaded => reload_grants(client.transaction().await?).await?,
            Change::LoggedIn => {
                let user = all.user();
                client
                    .execute(
                        "update authentication_user set last_login = now() where id = $1",
                        &[&user],
                    )
                    .await?;
                format!("user {user} logs in")
            }
            Change::DealsRemarked => {
                let rows = client
                    .execute(
                        "update deals_deal set deal_remarks = 'Called again.', updated_at = now() \
                          where id in (select id from deals_deal where organization_id = $1 limit 40)",
                        &[&organization],
                    )
                    .await?;
                format!("UPDATE deals_deal: remarks of {rows} deals, which no cache shows")
            }
            Change::RolledBack => {
                let transaction = client.transaction().await?;
                let rows = transaction
                    .execute(
                        "update deals_deal set deal_value = 0 where organization_id = $1",
                        &[&organization],
                    )
                    .await?;
                transaction.rollback().await?;
                format!("ROLLBACK after an UPDATE of {rows} deals")
            }
        })
    }
}

/// The change that the stopwatch is held to: it reaches the keys of one user.
pub(super) async fn toggle_superuser(
    client: &Client,
    user: i64,
) -> Result<String, tokio_postgres::Error> {
    client
        .execute(
            "update authentication_user set is_superuser = not is_superuser where id = $1",
            &[&user],
        )
        .await?;
    Ok(format!("UPDATE authentication_user: is_superuser of user {user}"))
}

/// The application deletes the children itself, as Django does.
async fn delete_deals(
    transaction: Transaction<'_>,
    organization: i64,
) -> Result<String, tokio_postgres::Error> {
    // Chosen once: by the second DELETE, another writer may have deleted what came first.
    let some = "select id::text from deals_deal where organization_id = $1 \
                order by id limit 60 for update skip locked";
    let rows = transaction.query(some, &[&organization]).await?;
    let ids = rows.iter().map(|row| row.try_get(0)).collect::<Result<Vec<String>, _>>()?;
    let payments = transaction
        .execute("delete from deals_payment where deal_id = any($1::text[]::uuid[])", &[&ids])
        .await?;
    let deals = transaction
        .execute("delete from deals_deal where id = any($1::text[]::uuid[])", &[&ids])
        .await?;
    transaction.commit().await?;
    Ok(format!("raw DELETE: {deals} deals of organization {organization}, {payments} payments"))
}

async fn copy_deals(client: &Client, all: &Population) -> Result<String, tokio_postgres::Error> {
    const ROWS: usize = 60;
    let (client_id, organization) = any(&all.clients);
    let sink = client
        .copy_in(
            "copy deals_deal (id, deal_id, organization_id, client_id, deal_name, deal_value, \
             verification_status, payment_status, payment_method, source_type, deal_date, created_at, \
             updated_at) from stdin",
        )
        .await?;
    tokio::pin!(sink);
    for _ in 0..ROWS {
        let (id, value) = (any_uuid(), fastrand::u32(100..5_000_000));
        let row = format!(
            "{id}\tCOPY{id}\t{organization}\t{client_id}\tWebsite relaunch\t{}.{:02}\tpending\t\
             initial payment\tbank\tgoogle\ttoday\tnow\tnow\n",
            value / 100,
            value % 100
        );
        sink.send(Bytes::from(row)).await?;
    }
    let rows = sink.finish().await?;
    Ok(format!("COPY deals_deal: {rows} new deals of organization {organization}"))
}

/// `role.permissions.add(…)` or `.remove(…)`: an M2M change.
async fn toggle_permission(
    transaction: Transaction<'_>,
    all: &Population,
) -> Result<String, tokio_postgres::Error> {
    let (role, permission) = (any(&all.roles), any(&all.permissions));
    let taken = transaction
        .execute(
            "delete from permissions_role_permissions where role_id = $1 and permission_id = $2",
            &[&role, &permission],
        )
        .await?;
    if taken == 0 {
        transaction
            .execute(
                "insert into permissions_role_permissions (role_id, permission_id) values ($1, $2) on conflict do nothing",
                &[&role, &permission],
            )
            .await?;
    }
    transaction.commit().await?;
    let verb = if taken == 0 { "gets" } else { "loses" };
    Ok(format!("M2M: role {role} {verb} permission {permission}"))
}

/// What a nightly synchronization does.
async fn reload_grants(transaction: Transaction<'_>) -> Result<String, tokio_postgres::Error> {
    transaction
        .batch_execute(
            "create temporary table grants on commit drop as \
             select role_id, permission_id from permissions_role_permissions; \
             truncate permissions_role_permissions; \
             insert into permissions_role_permissions (role_id, permission_id) select * from grants",
        )
        .await?;
    transaction.commit().await?;
    Ok("TRUNCATE permissions_role_permissions, and loaded again".to_owned())
}

fn any_uuid() -> String {
    format!("{:032x}", fastrand::u128(..))
}
