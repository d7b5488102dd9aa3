//! One load of a key at a time in this process, whoever loads it.
//!
//! A lease sees to it that one load of a key at a time can be *stored*. A change voids it, and
//! its holder loads on: whoever misses the value that the change removed gets the next lease, and
//! would load beside him. In a storm of changes that is every load, and each makes the others
//! slower. Readers of one key share a flight, whose loads follow each other
//! ([`flights`](super::flights)); but what fills after changes, by a schedule or an order is not of
//! it. So who may come to load takes the key's *place* here first, and asks for the lease then:
//!
//! * *A reader* waits for the place, as long as he waits for a lease, and then goes on
//!   without it. What was stored meanwhile he finds when he asks for the lease.
//! * *Who warms* does not wait: somebody fills the key already. It is to him as if the lease
//!   were held.
//!
//! It is a matter of cost alone. The lease comes after the wait and the snapshot after the
//! lease (rule 4), so what may be stored, and whom a value may be given to, is as without it. Other
//! processes know nothing of it: of two daemons and a filler in another language each may still
//! have a voided load under way.
//!
//! A place that is left goes to the reader who has waited the longest, not to whoever comes first:
//! what warms would begin again at once, and readers would wait for load after load. Nobody waits
//! for one place while he has another, so no two wait for each other. A place is left when it is
//! dropped, with whatever task had it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use foldhash::fast::RandomState;
use tokio::sync::OwnedMutexGuard;

/// The keys that are being loaded, or may come to be.
#[derive(Default)]
pub struct Loading {
    keys: Mutex<HashMap<Vec<u8>, Arc<Key>, RandomState>>,
}

/// Hands itself on in the order in which it was asked for.
type Key = tokio::sync::Mutex<()>;

/// The one who may load a key, or who waits to be.
#[must_use]
pub(super) struct Place {
    loading: Arc<Loading>,
    name: Vec<u8>,
    key: Arc<Key>,
    taken: Option<OwnedMutexGuard<()>>,
}

impl Loading {
    /// The place, if nobody has it or waits for it.
    pub(super) fn try_take(self: &Arc<Self>, name: &[u8]) -> Option<Place> {
        let mut place = self.ask(name);
        place.taken = Some(Arc::clone(&place.key).try_lock_owned().ok()?);
        Some(place)
    }

    /// The place, once nobody else has it; `None`: not within that time.
    pub(super) async fn take(self: &Arc<Self>, name: &[u8], patience: Duration) -> Option<Place> {
        let mut place = self.ask(name);
        let taken = Arc::clone(&place.key).lock_owned();
        place.taken = Some(tokio::time::timeout(patience, taken).await.ok()?);
        Some(place)
    }

    fn ask(self: &Arc<Self>, name: &[u8]) -> Place {
        let mut keys = self.keys.lock().unwrap_or_else(PoisonError::into_inner);
        let key = Arc::clone(keys.entry(name.to_vec()).or_default());
        Place { loading: Arc::clone(self), name: name.to_vec(), key, taken: None }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut keys = self.loading.keys.lock().unwrap_or_else(PoisonError::into_inner);
        self.taken = None;
        // Under the lock nobody else comes to know of it: ours, and that of the map.
        if Arc::strong_count(&self.key) == 2 {
            keys.remove(&self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_key_has_one_place_and_it_goes_to_who_has_waited_the_longest() {
        let loading = Arc::new(Loading::default());
        let first = loading.try_take(b"k").unwrap();
        assert!(loading.try_take(b"k").is_none());
        assert!(loading.try_take(b"other").is_some());
        let mut waiting = Box::pin(loading.take(b"k", LONG));
        let mut behind = Box::pin(loading.take(b"k", LONG));
        assert!(waiting.as_mut().now_or_never().is_none());
        assert!(behind.as_mut().now_or_never().is_none());
        drop(first);
        assert!(loading.try_take(b"k").is_none(), "it is theirs");
        let second = waiting.as_mut().now_or_never().flatten().expect("it was left");
        assert!(behind.as_mut().now_or_never().is_none());
        drop(second);
        assert!(behind.now_or_never().flatten().is_some());
        assert!(loading.keys.lock().unwrap().is_empty());
    }

    #[tokio::test]
    async fn who_has_waited_long_enough_goes_on_without() {
        let loading = Arc::new(Loading::default());
        let first = loading.try_take(b"k").unwrap();
        assert!(loading.take(b"k", Duration::from_millis(1)).await.is_none());
        let given_up = loading.take(b"k", LONG);
        drop(given_up);
        drop(first);
        assert!(loading.keys.lock().unwrap().is_empty(), "nothing is kept of them");
        assert!(loading.try_take(b"k").is_some());
    }
}
