//! The names of the control keys. A Redis may serve several databases: each daemon's
//! keys carry its slot's name.

/// The control keys of one slot.
#[derive(Debug, Clone)]
pub struct ControlKeys {
    /// The hash that holds the whole [`State`](super::state::State).
    pub state: String,
    /// The certificate: holds the watermark, expires unless renewed (rule 11).
    pub fresh: String,
    /// What was removed by hand, for the daemon to know.
    pub notices: String,
    /// What stands before a cache key, in braces, to make the key of its lease. The
    /// braces put both into the same slot of a cluster.
    pub lease_prefix: String,
    /// What stands before a task's name to make the key of its record.
    schedule_prefix: String,
    /// The list of reports that are kept, the newest first.
    pub reports: String,
}

impl ControlKeys {
    /// The keys for the slot of that name.
    #[must_use]
    pub fn new(slot: &str) -> Self {
        ControlKeys {
            state: format!("unstale:{slot}:state"),
            fresh: format!("unstale:{slot}:fresh"),
            notices: format!("unstale:{slot}:notices"),
            lease_prefix: format!("unstale:{slot}:lease:"),
            schedule_prefix: format!("unstale:{slot}:schedule:"),
            reports: format!("unstale:{slot}:reports"),
        }
    }

    /// The key of a key's lease.
    #[must_use]
    pub fn lease_of(&self, key: &[u8]) -> Vec<u8> {
        let mut lease = self.leases_of(key);
        lease.push(b'}');
        lease
    }

    /// The key of a scheduled task's record.
    #[must_use]
    pub fn schedule_of(&self, name: &str) -> String {
        format!("{}{name}", self.schedule_prefix)
    }

    /// The literal prefix of the leases of all keys that begin with `prefix`.
    #[must_use]
    pub fn leases_of(&self, prefix: &[u8]) -> Vec<u8> {
        let mut key = self.lease_prefix.clone().into_bytes();
        key.push(b'{');
        key.extend_from_slice(prefix);
        key
    }

    /// The key that a lease is of; `None`: that is no lease's key.
    #[must_use]
    pub fn key_of<'l>(&self, lease: &'l [u8]) -> Option<&'l [u8]> {
        lease.strip_prefix(self.lease_prefix.as_bytes())?.strip_prefix(b"{")?.strip_suffix(b"}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_tells_its_key() {
        let keys = ControlKeys::new("s");
        assert_eq!(keys.key_of(&keys.lease_of(b"p:1:{x}")), Some(&b"p:1:{x}"[..]));
        assert_eq!(keys.key_of(b"unstale:s:state"), None);
        assert_eq!(keys.key_of(b"unstale:other:lease:{p}"), None);
    }
}
