//! Picking some of many at random, without knowing how many there are.

/// At most so many, each with the same chance (reservoir sampling, algorithm R).
///
/// RANDOMKEY would not do: others' keys live in the same Redis, and it prefers some to others.
#[derive(Debug)]
pub struct Reservoir {
    size: usize,
    seen: u64,
    kept: Vec<Vec<u8>>,
}

impl Reservoir {
    /// Keeps at most `size`.
    #[must_use]
    pub fn new(size: usize) -> Self {
        Reservoir { size, seen: 0, kept: Vec::new() }
    }

    /// Offers one.
    pub fn offer(&mut self, key: Vec<u8>) {
        self.seen += 1;
        if self.kept.len() < self.size {
            self.kept.push(key);
            return;
        }
        let at = usize::try_from(fastrand::u64(0..self.seen)).unwrap_or(usize::MAX);
        if let Some(place) = self.kept.get_mut(at) {
            *place = key;
        }
    }

    /// How many were offered.
    #[must_use]
    pub fn seen(&self) -> u64 {
        self.seen
    }

    /// Those that were kept, each once (SCAN may show a key twice).
    #[must_use]
    pub fn into_keys(mut self) -> Vec<Vec<u8>> {
        self.kept.sort_unstable();
        self.kept.dedup();
        fastrand::shuffle(&mut self.kept);
        self.kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_has_the_same_chance_as_the_first() {
        let mut hits = [0_u32; 10];
        for _ in 0..2000 {
            let mut reservoir = Reservoir::new(3);
            for key in 0..10_u8 {
                reservoir.offer(vec![key]);
            }
            let keys = reservoir.into_keys();
            assert_eq!(keys.len(), 3);
            for key in keys {
                hits[usize::from(key[0])] += 1;
            }
        }
        assert!(hits.iter().all(|n| (450..750).contains(n)), "{hits:?}");
    }

    #[test]
    fn fewer_than_asked_for_are_all() {
        let mut reservoir = Reservoir::new(5);
        reservoir.offer(b"a".to_vec());
        reservoir.offer(b"a".to_vec());
        assert_eq!((reservoir.seen(), reservoir.into_keys()), (2, vec![b"a".to_vec()]));
    }
}
