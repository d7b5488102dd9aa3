//! An application that does at random whatever an application could do.

use fastrand::Rng;

use crate::universe::{ORGANIZATIONS, USERS};

/// Writes transactions as SQL. The same seed writes the same ones.
pub(crate) struct Writer {
    rng: Rng,
    /// Only these tables' columns are updated; empty: all.
    about: Vec<String>,
    /// Nothing checks that what is referred to is there (`db_constraint=False`).
    loose: bool,
    /// For what must never be the same twice.
    counter: u64,
}

/// The columns of a table, and what they may be set to.
const COLUMNS: [(&str, &[&str]); 10] = [
    (
        "organization_organization",
        &["name", "is_active", "created_at", "description", "sales_goal", "updated_at"],
    ),
    (
        "authentication_user",
        &[
            "organization_id",
            "role_id",
            "is_active",
            "is_superuser",
            "id",
            "last_login",
            "password",
            "first_name",
            "last_name",
            "email",
            "phone",
            "is_staff",
        ],
    ),
    ("permissions_role", &["name", "organization_id"]),
    ("permissions_role_permissions", &["role_id", "permission_id", "id"]),
    ("auth_permission", &["name", "codename", "content_type_id"]),
    ("django_content_type", &["app_label", "model"]),
    (
        "deals_deal",
        &[
            "organization_id",
            "client_id",
            "deal_id",
            "deal_name",
            "deal_value",
            "verification_status",
            "payment_status",
            "payment_method",
            "source_type",
            "deal_date",
            "created_at",
            "currency",
            "project_id",
            "due_date",
            "deal_remarks",
            "updated_at",
        ],
    ),
    ("clients_client", &["client_name", "organization_id", "email", "remarks"]),
    ("deals_payment", &["received_amount", "status"]),
    ("project_project", &["name", "organization_id"]),
];

impl Writer {
    pub(crate) fn new(seed: u64, about: &[&str], loose: bool) -> Writer {
        let about = about.iter().map(|table| (*table).to_owned()).collect();
        Writer { rng: Rng::with_seed(seed), about, loose, counter: 0 }
    }

    pub(crate) fn chance(&mut self, one_in: u32) -> bool {
        self.rng.u32(0..one_in) == 0
    }

    /// What stands between BEGIN and COMMIT.
    pub(crate) fn body(&mut self) -> String {
        let changes = if self.rng.bool() { 1 } else { self.rng.u32(2..=6) };
        let mut body = String::new();
        for _ in 0..changes {
            let change = self.change();
            body += &match self.rng.u32(0..10) {
                0 => format!("savepoint s; {change} rollback to s; "),
                1 => format!("savepoint s; {change} release s; "),
                _ => change,
            };
        }
        body
    }

    /// One change. What is refused in a block (a name that is taken) is as if it had not been
    /// tried; outside of one it costs the transaction.
    fn change(&mut self) -> String {
        let (declared, statements) =
            match self.rng.u32(0..if self.about.is_empty() { 20 } else { 10 }) {
                0..8 => (String::new(), self.update()),
                8..10 => (String::new(), self.insert()),
                10..12 => (String::new(), self.insert()),
                12..14 => (String::new(), self.bulk_update()),
                14 | 15 => (String::new(), self.move_something()),
                _ => self.delete_with_children(),
            };
        if declared.is_empty() && self.rng.bool() {
            return statements;
        }
        format!(
            "do $$ declare {declared} begin {statements} exception when integrity_constraint_violation then null; end $$; "
        )
    }

    fn one_of<'a>(&mut self, choices: &[&'a str]) -> &'a str {
        choices[self.rng.usize(0..choices.len())]
    }

    /// The id of some row, as an expression.
    fn id_of(&mut self, table: &str) -> String {
        if self.loose && self.chance(6) {
            return self.rng.u32(1..30).to_string(); // there or not
        }
        format!("(select id from {table} order by md5(id::text || '{}') limit 1)", self.rng.u32(..))
    }

    fn id_or_null(&mut self, table: &str) -> String {
        if self.chance(5) { "null".to_owned() } else { self.id_of(table) }
    }

    fn boolean(&mut self) -> String {
        self.rng.bool().to_string()
    }

    fn text(&mut self, choices: &[&str]) -> String {
        format!("'{}'", self.one_of(choices))
    }

    fn timestamp(&mut self) -> String {
        // Around where the last days begin, and what no day holds.
        let ago = self.one_of(&[
            "1 hour",
            "5 days",
            "6 days 23 hours",
            "7 days 1 hour",
            "29 days",
            "31 days",
            "89 days",
            "91 days",
            "364 days",
            "366 days",
            "900 days",
            "-1 day",
        ]);
        format!("now() - interval '{ago}'")
    }

    fn value(&mut self, table: &str, column: &str) -> String {
        self.counter += 1;
        match (table, column) {
            (_, "is_active" | "is_superuser" | "is_staff") => self.boolean(),
            (_, "created_at" | "updated_at" | "last_login") => self.timestamp(),
            (_, "deal_date" | "due_date") => format!("({})::date", self.timestamp()),
            ("authentication_user" | "permissions_role", "organization_id") => {
                self.id_or_null("organization_organization")
            }
            (_, "organization_id") => self.id_of("organization_organization"),
            ("authentication_user", "role_id") => self.id_or_null("permissions_role"),
            (_, "role_id") => self.id_of("permissions_role"),
            (_, "permission_id") => self.id_of("auth_permission"),
            (_, "content_type_id") => self.id_of("django_content_type"),
            (_, "client_id") => self.id_of("clients_client"),
            (_, "project_id") => self.id_or_null("project_project"),
            ("authentication_user", "id") => self.rng.u64(1..=USERS).to_string(),
            ("permissions_role_permissions", "id") => format!("{}", 1_000_000 + self.counter),
            ("organization_organization", "name") => format!("'Org {}'", self.rng.u32(0..20)),
            ("permissions_role", "name") => {
                self.text(&["Organization Admin", "Salesperson", "Owner", "東京 \"x\"", "Support"])
            }
            ("auth_permission", "codename") => self.text(&[
                "add_deal",
                "view_deal",
                "verify_deal",
                "change_role",
                "nothing",
                "else",
            ]),
            ("auth_permission", "name") => self.text(&["Can do", "Can do more"]),
            ("django_content_type", "app_label") => self.text(&["deals", "crm", "x"]),
            ("django_content_type", "model") => self.text(&["deal", "lead", "y"]),
            ("deals_deal", "deal_id") => format!("'DLID{}'", self.rng.u32(0..1000)),
            ("deals_deal", "deal_name") => {
                self.text(&["Website #1", "Annual licence", "50% X:Y off", "été"])
            }
            (_, "deal_value" | "received_amount" | "sales_goal") => {
                self.text(&["0", "100.00", "100.00", "99999.99", "0.01"])
            }
            (_, "verification_status" | "status") => {
                self.text(&["verified", "pending", "rejected"])
            }
            (_, "payment_status") => {
                self.text(&["initial payment", "partial_payment", "full_payment"])
            }
            (_, "payment_method") => self.text(&["wallet", "bank", "cheque", "cash"]),
            (_, "source_type") => {
                self.text(&["linkedin", "instagram", "google", "referral", "others"])
            }
            (_, "currency") => self.text(&["USD", "EUR"]),
            (_, "client_name") => self.text(&["Acme", "Zenith 50% x:y", "Borealis", "#1"]),
            _ => format!("'x{}'", self.counter),
        }
    }

    fn update(&mut self) -> String {
        let about: Vec<_> = COLUMNS
            .iter()
            .filter(|(table, _)| self.about.is_empty() || self.about.iter().any(|t| t == table))
            .collect();
        // A column as likely as another, whichever table it is of.
        let all: Vec<(&str, &str)> = about
            .iter()
            .flat_map(|(table, columns)| columns.iter().map(|c| (*table, *c)))
            .collect();
        let (table, column) = all[self.rng.usize(0..all.len())];
        let value = self.value(table, column);
        let id = match table {
            "deals_deal" | "deals_payment" => format!(
                "(select id from {table} order by md5(id::text || '{}') limit 1)",
                self.rng.u32(..)
            ),
            _ => self.id_of(table),
        };
        let which = match self.rng.u32(0..12) {
            0 | 1 => format!(
                "id in (select id from {table} order by md5(id::text || '{}') limit 3)",
                self.rng.u32(..)
            ),
            _ => format!("id = {id}"),
        };
        format!("update {table} set {column} = {value} where {which}; ")
    }

    fn bulk_update(&mut self) -> String {
        let org = self.id_of("organization_organization");
        match self.rng.u32(0..6) {
            0 => format!("update deals_deal set verification_status = {} where organization_id = {org}; ", self.text(&["verified", "rejected"])),
            1 => format!("update deals_deal set deal_value = round(deal_value * 1.01, 2) where organization_id = {org}; "),
            2 => format!("update authentication_user set is_active = {} where organization_id = {org}; ", self.boolean()),
            3 => format!("update authentication_user set last_login = now() where organization_id = {org}; "),
            4 => "update clients_client set client_name = client_name || '!' where length(client_name) < 40; ".to_owned(),
            _ => format!("update deals_deal d set client_id = c.id from clients_client c where c.organization_id = d.organization_id and d.organization_id = {org}; "),
        }
    }

    fn move_something(&mut self) -> String {
        let org = self.id_of("organization_organization");
        if self.rng.bool() {
            let (user, role) =
                (self.id_of("authentication_user"), self.id_or_null("permissions_role"));
            let active = self.boolean();
            format!(
                "update authentication_user set organization_id = {org}, role_id = {role}, is_active = {active} where id = {user}; "
            )
        } else {
            let client = self.id_of("clients_client");
            format!(
                "update deals_deal set organization_id = {org}, client_id = {client} where id = (select id from deals_deal order by md5(id::text || '{}') limit 1); ",
                self.rng.u32(..)
            )
        }
    }

    fn insert(&mut self) -> String {
        self.counter += 1;
        let n = self.counter;
        let table = match self.about.as_slice() {
            [] => COLUMNS[self.rng.usize(0..8)].0.to_owned(),
            about => about[self.rng.usize(0..about.len())].clone(),
        };
        let mut row = |columns: &[&str]| {
            columns.iter().map(|c| self.value(&table, c)).collect::<Vec<_>>().join(", ")
        };
        let insert = match table.as_str() {
            "organization_organization" => {
                let row = row(&["name", "is_active", "created_at", "updated_at"]);
                format!(
                    "(id, name, is_active, created_at, updated_at) values ({}, {row})",
                    self.rng.u64(1..=ORGANIZATIONS)
                )
            }
            "authentication_user" => {
                let row = row(&["organization_id", "role_id", "is_active", "is_superuser"]);
                let id = self.rng.u64(1..=USERS);
                format!(
                    "(id, password, email, first_name, last_name, date_joined, organization_id, role_id, is_active, is_superuser) values ({id}, '', 'new{n}@x', '', '', now(), {row})"
                )
            }
            "permissions_role" => {
                let row = row(&["name", "organization_id"]);
                format!("(id, name, organization_id) values ({}, {row})", self.rng.u32(1..=28))
            }
            "permissions_role_permissions" => {
                format!("(role_id, permission_id) values ({})", row(&["role_id", "permission_id"]))
            }
            "auth_permission" => {
                let row = row(&["name", "content_type_id", "codename"]);
                format!(
                    "(id, name, content_type_id, codename) values ({}, {row})",
                    self.rng.u32(1..=44)
                )
            }
            "django_content_type" => {
                let row = row(&["app_label", "model"]);
                format!("(id, app_label, model) values ({}, {row})", self.rng.u32(1..=11))
            }
            "deals_deal" => {
                const COLUMNS: [&str; 12] = [
                    "deal_id",
                    "organization_id",
                    "client_id",
                    "project_id",
                    "deal_name",
                    "deal_value",
                    "verification_status",
                    "payment_status",
                    "payment_method",
                    "source_type",
                    "deal_date",
                    "created_at",
                ];
                format!(
                    "(id, updated_at, {}) values (md5('{n}')::uuid, now(), {})",
                    COLUMNS.join(", "),
                    row(&COLUMNS)
                )
            }
            _ => {
                // Where nothing checks references, a client may come after its deals: that no
                // rule looks for it is agreed (product: a new client reaches nothing).
                let id = if self.loose { 1000 + n } else { self.rng.u64(1..=24) };
                let (name, org) = (
                    self.value("clients_client", "client_name"),
                    self.id_of("organization_organization"),
                );
                return format!(
                    "insert into clients_client (id, client_name, organization_id, created_at, updated_at) values ({id}, {name}, {org}, now(), now()) on conflict do nothing; "
                );
            }
        };
        format!("insert into {table} {insert} on conflict do nothing; ")
    }

    /// As Django's collector does, but in any order; the foreign keys are checked at commit.
    fn delete_with_children(&mut self) -> (String, String) {
        let deals_of = |condition: &str| {
            format!("deals uuid[] := array(select id from deals_deal where {condition});")
        };
        let of_deals = [
            "delete from deals_payment where deal_id = any (deals);",
            "delete from deals_deal where id = any (deals);",
        ];
        let of_roles = [
            "delete from permissions_role_permissions where role_id = any (roles);",
            "delete from permissions_role where id = any (roles);",
            "update authentication_user set role_id = null where role_id = any (roles);",
        ];
        let of_permissions = [
            "delete from permissions_role_permissions where permission_id = any (permissions);",
            "delete from auth_permission where id = any (permissions);",
        ];
        let (declared, mut statements): (String, Vec<&str>) = match self.rng.u32(0..16) {
            0..3 => {
                let user = self.id_of("authentication_user");
                (format!("it bigint := {user};"), vec!["delete from authentication_user where id = it;"])
            }
            3..7 => (
                deals_of(&format!("md5(id::text || '{}') < '1'", self.rng.u32(..))),
                of_deals.to_vec(),
            ),
            7 | 8 => (
                format!("it bigint := {}; {}", self.id_of("clients_client"), deals_of("client_id = it")),
                [&of_deals[..], &["update project_project set client_id = null where client_id = it;", "delete from clients_client where id = it;"]].concat(),
            ),
            9..11 => (
                format!("roles bigint[] := array[{}];", self.id_of("permissions_role")),
                of_roles.to_vec(),
            ),
            11 | 12 => (
                format!("permissions int[] := array[{}];", self.id_of("auth_permission")),
                of_permissions.to_vec(),
            ),
            13 => (
                format!("it int := {}; permissions int[] := array(select id from auth_permission where content_type_id = it);", self.id_of("django_content_type")),
                [&of_permissions[..], &["delete from django_content_type where id = it;"]].concat(),
            ),
            14 => (
                format!("it bigint := {};", self.id_of("permissions_role_permissions")),
                vec!["delete from permissions_role_permissions where id = it;"],
            ),
            _ => (
                format!(
                    "it bigint := {}; clients bigint[] := array(select id from clients_client where organization_id = it);
                     roles bigint[] := array(select id from permissions_role where organization_id = it);
                     projects bigint[] := array(select id from project_project where organization_id = it or client_id = any (clients)); {}",
                    self.id_of("organization_organization"),
                    deals_of("organization_id = it or client_id = any (clients)"),
                ),
                [
                    &of_deals[..],
                    &of_roles[..],
                    &[
                        "update deals_deal set project_id = null where project_id = any (projects);",
                        "delete from project_project where id = any (projects);",
                        "delete from clients_client where id = any (clients);",
                        "delete from authentication_user where organization_id = it;",
                        "delete from organization_organization where id = it;",
                    ],
                ]
                .concat(),
            ),
        };
        self.rng.shuffle(&mut statements);
        (declared, statements.join(" "))
    }
}
