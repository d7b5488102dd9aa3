//! Private servers: the ground that the demo, the tests and the benches stand on.
//!
//! A [`Postgres`] and a [`Redis`] start in folders of their own, on ports of
//! their own, on loopback only, as many side by side as one likes. They are
//! real servers, and what happens to real servers can be done to them: restart,
//! crash, freeze, a standby, an old dump that comes back, a network that fails
//! ([`Proxy`]).
//!
//! Nothing outlives its owner. A value that is dropped, also by a panic, ends
//! its server and removes its folder. A process that is killed takes its
//! servers with it (the kernel sees to that), and its folders go when the next
//! sandbox starts.
//!
//! ```no_run
//! # async fn example() -> Result<(), unstale::sandbox::SandboxError> {
//! use unstale::sandbox::{Postgres, Redis};
//!
//! let postgres = Postgres::builder().setting("wal_sender_timeout", "2s").start().await?;
//! let redis = Redis::builder().setting("maxmemory", "1mb").start().await?;
//! postgres.execute("create table t (id int primary key)").await?;
//! println!("{} {}", postgres.url(), redis.url());
//! # Ok(()) }
//! ```
//!
//! Deliberately absent: containers, any network but loopback, any system but
//! Linux (what guards against leftovers is read from `/proc`).

mod account;
mod error;
mod folder;
mod leftovers;
mod log;
mod ports;
mod postgres;
mod process;
mod procfs;
mod proxy;
mod redis;
mod tls;

pub use error::SandboxError;
pub use postgres::{Postgres, PostgresBuilder, Shutdown, StandbyBuilder};
pub use process::Process;
pub use procfs::{peak_rss_bytes, rss_bytes};
pub use proxy::Proxy;
pub use redis::{Redis, RedisBuilder};
pub use tls::ServerTls;
