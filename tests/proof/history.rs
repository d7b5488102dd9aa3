//! What really happened: every version of every row, and the end of the commit that made it.
//! Told by `test_decoding` on a slot of its own, so by other code than the daemon's.

use std::collections::HashMap;

use tokio_postgres::Client;
use unstale::lsn::Lsn;

/// The version of each row that a value was computed from.
pub type Versions = HashMap<String, u64>;

/// Every version that was ever committed.
pub struct History {
    client: Client,
    ends: HashMap<(String, u64), Lsn>,
}

impl History {
    /// Begins now.
    pub async fn begin(client: Client) -> History {
        let slot = "select pg_create_logical_replication_slot('oracle', 'test_decoding')";
        client.batch_execute(slot).await.expect("the oracle's slot");
        History { client, ends: HashMap::new() }
    }

    /// Learns of everything that has been committed until now.
    pub async fn follow(&mut self) {
        let sql = "select lsn::text, data from pg_logical_slot_get_changes('oracle', pg_current_wal_flush_lsn(), null)";
        let rows = self.client.query(sql, &[]).await.expect("the oracle's slot answers");
        let mut open = Vec::new();
        for row in rows {
            let data: &str = row.get(1);
            if data.starts_with("COMMIT") {
                let end: Lsn = row.get::<_, &str>(0).parse().expect("an LSN");
                self.ends.extend(open.drain(..).map(|version| (version, end)));
            } else if data.contains(": INSERT:") || data.contains(": UPDATE:") {
                let new = data.rsplit("new-tuple:").next().unwrap_or(data);
                let field = |name: &str| {
                    let at = new.find(name)? + name.len();
                    new.get(at..)?.split(' ').next().map(str::to_owned)
                };
                let id = field(" id[integer]:").expect("an id");
                let version = field(" version[bigint]:").expect("a version");
                open.push((id, version.parse().expect("a number")));
            }
        }
    }

    /// A version that `value` lacks although it was committed before `position`.
    pub fn lacks(&self, value: &Versions, position: Lsn) -> Option<(String, u64, Lsn)> {
        value.iter().find_map(|(id, version)| {
            let next = (id.clone(), version + 1);
            let end = *self.ends.get(&next)?;
            (end <= position).then_some((next.0, next.1, end))
        })
    }

    /// How many versions there were.
    pub fn len(&self) -> usize {
        self.ends.len()
    }
}
