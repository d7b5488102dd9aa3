//! The ground of the tests of `check` and `setup`: a database that Django owns, a role that
//! may replicate and nothing else, a Redis, and the real binary.
#![allow(missing_docs, unreachable_pub, reason = "shared by test binaries only")]
#![allow(dead_code, reason = "each test binary uses its part")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "all of this is test code")]

use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::Command;
use toml_edit::DocumentMut;
use unstale::sandbox::{Postgres, PostgresBuilder, Redis};

/// What `check` says of a server that `setup` was run on: a superuser may do more.
pub const ALL_DONE: &str = "\nno problems, 1 warning.\n";

pub struct Ground {
    pub postgres: Postgres,
    pub redis: Redis,
    pub folder: tempfile::TempDir,
}

/// How a command ended.
#[derive(Debug)]
pub struct Ended {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Ended {
    /// All that it printed, for messages.
    pub fn all(&self) -> String {
        format!("exit {}\n{}\n{}", self.code, self.out, self.err)
    }

    #[track_caller]
    pub fn expect(self, code: i32) -> Ended {
        assert_eq!(self.code, code, "{}", self.all());
        self
    }

    #[track_caller]
    pub fn says(&self, text: &str) {
        assert!(
            self.out.contains(text) || self.err.contains(text),
            "no {text:?} in\n{}",
            self.all()
        );
    }

    #[track_caller]
    pub fn says_not(&self, text: &str) {
        assert!(
            !self.out.contains(text) && !self.err.contains(text),
            "{text:?} in\n{}",
            self.all()
        );
    }
}

impl Ground {
    /// With the demo's schema, owned by `django`.
    pub async fn demo() -> Ground {
        let ground = Ground::empty(Postgres::builder()).await;
        ground.as_django(include_str!("../../sql/demo/schema.sql")).await;
        ground
    }

    /// With nothing but the roles and the database.
    pub async fn empty(postgres: PostgresBuilder) -> Ground {
        let postgres = postgres.start().await.unwrap();
        let redis = Redis::start().await.unwrap();
        for sql in [
            "create role django login",
            "create role unstale login replication",
            "create database app owner django",
        ] {
            postgres.execute(sql).await.unwrap();
        }
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("config")).unwrap();
        let sql = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        std::os::unix::fs::symlink(sql, folder.path().join("sql")).unwrap();
        let ground = Ground { postgres, redis, folder };
        ground.configure(DEFAULT);
        ground
    }

    pub async fn as_django(&self, sql: &str) {
        let client = self.postgres.client_for("django", "app").await.unwrap();
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    pub async fn as_superuser(&self, sql: &str) {
        let client = self.postgres.client_for("postgres", "app").await.unwrap();
        client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    }

    /// The first column of a query, as text.
    pub async fn rows(&self, sql: &str) -> Vec<String> {
        let client = self.postgres.client_for("postgres", "app").await.unwrap();
        let rows = client.query(sql, &[]).await.unwrap_or_else(|error| panic!("{sql}: {error:?}"));
        rows.iter().map(|row| row.get(0)).collect()
    }

    pub fn url(&self, user: &str) -> String {
        self.postgres.url_for(user, "app")
    }

    /// Writes the configuration file.
    pub fn configure(&self, toml: &str) -> PathBuf {
        let file = self.folder.path().join("config/unstale.toml");
        std::fs::write(&file, toml).unwrap();
        file
    }

    /// A configuration of its own, beside the others.
    pub fn variant(&self, name: &str, toml: &str) -> PathBuf {
        let file = self.folder.path().join(format!("config/{name}.toml"));
        std::fs::write(&file, toml).unwrap();
        file
    }

    pub async fn run(&self, arguments: &[&str]) -> Ended {
        self.run_with(Path::new("config/unstale.toml"), arguments).await
    }

    pub async fn run_with(&self, config: &Path, arguments: &[&str]) -> Ended {
        let output = Command::new(env!("CARGO_BIN_EXE_unstale"))
            .current_dir(self.folder.path())
            .arg("--config")
            .arg(config)
            .args(arguments)
            .env("UNSTALE_POSTGRES__URL", self.url("unstale"))
            .env("UNSTALE_REDIS__URL", self.redis.url())
            .env_remove("PGPASSWORD")
            .env_remove("PGPASSFILE")
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    pub async fn check(&self) -> Ended {
        self.run(&["check"]).await
    }

    pub async fn set_up(&self) -> Ended {
        let owner = self.url("django");
        self.run(&["setup", "--as-owner", &owner]).await
    }

    /// Runs a script by psql, as a DBA would.
    pub async fn psql(&self, user: &str, script: &str) -> Ended {
        let file = self.folder.path().join("setup.sql");
        std::fs::write(&file, script).unwrap();
        let output = Command::new(self.postgres.program("psql"))
            .args(["-X", "-q", "-d"])
            .arg(self.url(user))
            .arg("-f")
            .arg(&file)
            .stdin(Stdio::null())
            .output()
            .await
            .unwrap();
        Ended {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Everything that setup changes, in words.
    pub async fn state(&self) -> Vec<String> {
        self.rows(
            "select format('%s %s', oid::regclass, relreplident) from pg_class where relkind in ('r', 'p') and oid >= 16384
             union all select format('index %s', pg_get_indexdef(indexrelid) || indisreplident) from pg_index where indexrelid >= 16384
             union all select format('published %s.%s', schemaname, tablename) from pg_publication_tables
             union all select format('publication %s %s %s', pubname, pg_get_userbyid(pubowner), pubviaroot) from pg_publication
             union all select format('grants %s %s', oid::regclass, relacl) from pg_class where relkind in ('r', 'p') and oid >= 16384
             order by 1",
        )
        .await
    }
}

/// The default configuration.
pub const DEFAULT: &str = include_str!("../../config/unstale.toml");

/// The default configuration, to be changed.
pub fn default() -> DocumentMut {
    DEFAULT.parse().unwrap()
}

/// A configuration of one cache over one table.
pub fn small(cache: &str, tables: &str) -> String {
    format!(
        "[postgres]\nurl = \"postgres://unstale@h/app\"\n[redis]\nurl = \"redis://h\"\nkey_prefix = \"p:\"\n\
         {cache}\n{tables}\n"
    )
}
