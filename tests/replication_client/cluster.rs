//! A private Postgres in a temporary folder, killed on drop.

use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::NoTls;

/// Who runs the server: Postgres refuses to be root.
#[derive(Clone, Copy)]
struct Owner {
    uid: u32,
    gid: u32,
}

fn owner() -> Option<Owner> {
    let id = |what: &str, user: &[&str]| -> u32 {
        let out = Command::new("id").arg(what).args(user).output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
    };
    (id("-u", &[]) == 0)
        .then(|| Owner { uid: id("-u", &["postgres"]), gid: id("-g", &["postgres"]) })
}

fn binary(name: &str) -> PathBuf {
    let mut versions: Vec<PathBuf> =
        fs::read_dir("/usr/lib/postgresql").unwrap().map(|e| e.unwrap().path()).collect();
    versions.sort();
    versions.pop().expect("Postgres is installed").join("bin").join(name)
}

pub struct Cluster {
    folder: TempDir,
    owner: Option<Owner>,
    server: Child,
    pub port: u16,
}

/// The superuser's own way in.
const ADMIN: &str = "local all postgres trust\nlocal replication postgres trust\n";

/// What `pg_hba.conf` says behind the superuser's own line.
const TRUST: &str = "local all all trust\nhost all all 127.0.0.1/32 trust\n";

impl Cluster {
    pub async fn start(settings: &[(&str, &str)]) -> Cluster {
        Cluster::start_with_hba(TRUST, settings).await
    }

    pub async fn start_with_hba(hba: &str, settings: &[(&str, &str)]) -> Cluster {
        let owner = owner();
        let folder = temporary_folder(owner);
        let data = folder.path().join("data");
        let out = command("initdb", owner)
            .args(["--username=postgres", "--auth=trust", "--no-sync", "--locale=C", "-E", "UTF8"])
            .args(["--no-instructions", "-D"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        fs::write(data.join("pg_hba.conf"), format!("{ADMIN}{hba}")).unwrap();
        let port = free_port();
        let mut conf = format!(
            "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{}'\n\
             wal_level = logical\nfsync = off\nshared_buffers = '16MB'\nmax_connections = 30\n",
            folder.path().display()
        );
        for (name, value) in settings {
            conf.push_str(&format!("{name} = '{value}'\n"));
        }
        fs::write(data.join("postgresql.auto.conf"), conf).unwrap();
        let server = launch(folder.path(), owner);
        let cluster = Cluster { folder, owner, server, port };
        cluster.ready().await;
        cluster
    }

    /// A standby of this server.
    pub async fn standby(&self) -> Cluster {
        let folder = temporary_folder(self.owner);
        let data = folder.path().join("data");
        let out = command("pg_basebackup", self.owner)
            .args(["--username=postgres", "--write-recovery-conf", "--checkpoint=fast"])
            .args(["--no-sync", "--host"])
            .arg(self.folder())
            .args(["--port", &self.port.to_string(), "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let port = free_port();
        let conf = data.join("postgresql.auto.conf");
        let mut text = fs::read_to_string(&conf).unwrap();
        text.push_str(&format!(
            "port = {port}\nunix_socket_directories = '{}'\n",
            folder.path().display()
        ));
        fs::write(conf, text).unwrap();
        let server = launch(folder.path(), self.owner);
        let standby = Cluster { folder, owner: self.owner, server, port };
        standby.ready().await;
        standby
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Puts a file where the server can read it, for it alone.
    pub fn install(&self, from: &Path, name: &str) -> PathBuf {
        let to = self.folder().join(name);
        install(from, &to, self.owner);
        to
    }

    async fn ready(&self) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while let Err(error) = self.try_admin("postgres").await {
            assert!(Instant::now() < deadline, "{error}\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.folder().join("log")).unwrap_or_default()
    }

    async fn try_admin(
        &self,
        database: &str,
    ) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
        let (client, connection) = tokio_postgres::Config::new()
            .host_path(self.folder())
            .port(self.port)
            .user("postgres")
            .dbname(database)
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    /// A superuser's connection.
    pub async fn admin(&self) -> tokio_postgres::Client {
        self.try_admin("postgres").await.unwrap()
    }

    /// Runs SQL as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.admin().await.batch_execute(sql).await.unwrap();
    }

    /// A single value, as text.
    pub async fn value(&self, sql: &str) -> Option<String> {
        let messages = self.admin().await.simple_query(sql).await.unwrap();
        messages.iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => Some(row.get(0).map(str::to_owned)),
            _ => None,
        })?
    }

    /// Waits until `sql` answers `expected`.
    pub async fn wait_for(&self, sql: &str, expected: Option<&str>) {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let found = self.value(sql).await;
            if found.as_deref() == expected {
                return;
            }
            assert!(Instant::now() < deadline, "{sql}: {found:?}, expected {expected:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// `postgres://LOGIN@127.0.0.1:PORT/postgres`
    pub fn url(&self, login: &str) -> String {
        format!("postgres://{login}@127.0.0.1:{}/postgres", self.port)
    }

    /// Over the unix socket.
    pub fn socket_url(&self, user: &str) -> String {
        format!(
            "postgres:///postgres?host={}&port={}&user={user}",
            self.folder().display(),
            self.port
        )
    }

    fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.server.id()).unwrap();
        // SAFETY: a plain system call on a child that has not been waited for.
        #[allow(unsafe_code, reason = "std has no kill by signal")]
        unsafe {
            libc::kill(pid, signal);
        }
    }

    /// As by `pg_ctl restart -m fast`.
    pub async fn restart(&mut self) {
        self.signal(libc::SIGINT);
        self.server.wait().unwrap();
        self.server = launch(self.folder.path(), self.owner);
        self.ready().await;
    }

    /// As by `pg_ctl stop -m fast`.
    pub async fn stop_fast(&mut self) {
        self.signal(libc::SIGINT);
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.server.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// kill -9 of a child: the postmaster restarts them all and recovers.
    pub async fn crash_child(&mut self) {
        let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer'";
        let before = self.value(pid).await;
        let child: i32 = before.as_deref().unwrap().parse().unwrap();
        // SAFETY: a plain system call on a child of the server that this test started.
        #[allow(unsafe_code, reason = "std has no kill by process id")]
        unsafe {
            libc::kill(child, libc::SIGKILL);
        }
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Ok(client) = self.try_admin("postgres").await
                && let Ok(rows) = client.query(pid, &[]).await
                && rows.iter().any(|row| row.get::<_, i32>(0) != child)
            {
                return;
            }
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// kill -9 of the postmaster; its children notice and end.
    pub fn kill(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    /// After [`Cluster::kill`].
    pub async fn launch_again(&mut self) {
        // The old children must be gone, or the new postmaster refuses to start.
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            self.server = launch(self.folder.path(), self.owner);
            loop {
                if self.try_admin("postgres").await.is_ok() {
                    return;
                }
                if self.server.try_wait().unwrap().is_some() {
                    break;
                }
                assert!(Instant::now() < deadline, "{}", self.log());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            assert!(Instant::now() < deadline, "{}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn temporary_folder(owner: Option<Owner>) -> TempDir {
    // Short, for a socket's path may have 107 bytes.
    let folder = tempfile::Builder::new().prefix("unstale-pg-").tempdir_in("/tmp").unwrap();
    if let Some(owner) = owner {
        std::os::unix::fs::chown(folder.path(), Some(owner.uid), Some(owner.gid)).unwrap();
    }
    folder
}

fn install(from: &Path, to: &Path, owner: Option<Owner>) {
    use std::os::unix::fs::PermissionsExt as _;
    fs::copy(from, to).unwrap();
    fs::set_permissions(to, fs::Permissions::from_mode(0o600)).unwrap();
    if let Some(owner) = owner {
        std::os::unix::fs::chown(to, Some(owner.uid), Some(owner.gid)).unwrap();
    }
}

fn command(name: &str, owner: Option<Owner>) -> Command {
    let mut command = Command::new(binary(name));
    if let Some(owner) = owner {
        command.uid(owner.uid).gid(owner.gid);
    }
    command.current_dir("/").stdin(Stdio::null());
    command
}

fn launch(folder: &Path, owner: Option<Owner>) -> Child {
    let log = fs::OpenOptions::new().create(true).append(true).open(folder.join("log")).unwrap();
    command("postgres", owner)
        .arg("-D")
        .arg(folder.join("data"))
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap()
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if matches!(self.server.try_wait(), Ok(None)) {
            self.signal(libc::SIGQUIT);
            self.server.wait().ok();
        }
        if std::thread::panicking() {
            eprintln!("server log:\n{}", self.log());
        }
    }
}
