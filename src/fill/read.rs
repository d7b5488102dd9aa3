//! Reading: one entry, or all parts of a composed value in one round trip.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures_util::future::join_all;
use tracing::debug;

use super::filler::{
    Filler, How, LEASE, Outcome, PATIENCE, Read, ReadError, Unready, something, wrong,
};
use super::flights::{Mark, Pilot, Seat};
use super::loading::Place;
use crate::mapping::composition::{ComposeError, Composition};
use crate::mapping::model::CacheId;
use crate::store::error::StoreError;
use crate::store::fills::{Acquired, Entry};

/// The first answer of Redis, and who was aboard before it was asked.
type First = (Mark, Result<Acquired, StoreError>);

/// An entry that is to be read.
struct Wanted {
    id: CacheId,
    values: Vec<(String, String)>,
    entry: Entry,
}

/// Somebody to wait for.
enum Coming {
    Seat(Seat<Outcome>),
    Known(Outcome),
}

impl Filler {
    /// Reads an entry through the cache. The values must be written as in the stream (a
    /// number as Postgres prints it): another way of writing them is another key, which no
    /// change would reach.
    ///
    /// # Errors
    /// If the parameters are not the cache's, or the database does not give the value.
    pub async fn read(
        self: &Arc<Self>,
        cache: CacheId,
        values: &[(&str, &str)],
    ) -> Result<Read, ReadError> {
        let read = self.read_all(&[(cache, values.to_vec())]).await.pop();
        read.unwrap_or(Err(ReadError::Abandoned))
    }

    /// Reads what a cache's name stands for: the composed value, or the entry.
    ///
    /// # Errors
    /// As [`Filler::read`]; or if a part is not what its composition takes it for.
    pub async fn read_named(
        self: &Arc<Self>,
        name: &str,
        values: &[(&str, &str)],
    ) -> Result<Read, ReadError> {
        if let Some(composition) = self.mapping.composition(name) {
            return self.compose(composition, values).await;
        }
        let cache = self.mapping.cache_by_name(name);
        let (cache, _) = cache.ok_or_else(|| wrong(format!("there is no cache {name}")))?;
        self.read(cache, values).await
    }

    /// Reads a composed value: its parts in one round trip, those that are missing each
    /// filled by its own lease, all at once. There is none if one of its parts has none.
    ///
    /// It is never staler than its parts, and each of them is as fresh as if it were read
    /// alone. They need not be of one moment: a part that was filled a minute ago and one that
    /// is filled now are of two snapshots, each with everything that was applied.
    ///
    /// # Errors
    /// As [`Filler::read_named`].
    pub async fn compose(
        self: &Arc<Self>,
        composition: &Composition,
        values: &[(&str, &str)],
    ) -> Result<Read, ReadError> {
        composition.check(values)?;
        let parts = composition.parts.iter().map(|part| (part.cache, part.values(values)));
        let parts: Vec<(CacheId, Vec<(&str, &str)>)> = parts.collect();
        let mut all = Summary::of(composition);
        let mut bytes = Vec::with_capacity(parts.len());
        for read in self.read_all(&parts).await {
            let read = read?;
            all.add(&read);
            bytes.extend(read.value);
        }
        let mut read = all.read;
        if bytes.len() == composition.parts.len() {
            read.value = Some(composition.join(values, &bytes)?.into());
        }
        Ok(read)
    }

    /// Reads several entries. What this process does not fetch already is asked for in one
    /// round trip.
    async fn read_all(self: &Arc<Self>, entries: &[(CacheId, Vec<(&str, &str)>)]) -> Vec<Outcome> {
        let mut all = Vec::with_capacity(entries.len());
        for (id, values) in entries {
            all.push(match self.wanted(*id, values).await {
                Ok(Ok(wanted)) => Ok(wanted),
                // Without a key there is nothing to share.
                Ok(Err(how)) => Err(self.load_only(*id, values, how).await),
                Err(error) => Err(Err(error)),
            });
        }
        // No wait between coming aboard and taking off: a reader who goes away strands nobody.
        let mut coming = Vec::with_capacity(all.len());
        let mut flown = Vec::new();
        for wanted in all {
            coming.push(match wanted {
                Err(outcome) => Coming::Known(outcome),
                Ok(wanted) => {
                    let (seat, pilot) = self.flights.board(&wanted.entry.key);
                    flown.extend(pilot.map(|pilot| (pilot, wanted)));
                    Coming::Seat(seat)
                }
            });
        }
        if !flown.is_empty() {
            tokio::spawn(Arc::clone(self).fly_all(flown));
        }
        let mut outcomes = Vec::with_capacity(coming.len());
        for (coming, (id, _)) in coming.into_iter().zip(entries) {
            outcomes.push(match coming {
                Coming::Known(outcome) => outcome,
                Coming::Seat(seat) => {
                    let shared = !seat.is_first();
                    let outcome = seat.outcome().await.unwrap_or(Err(ReadError::Abandoned));
                    if shared {
                        self.count(*id, "shared");
                    }
                    outcome
                }
            });
        }
        outcomes
    }

    /// The entry's key; or why there is none now.
    async fn wanted(
        &self,
        id: CacheId,
        values: &[(&str, &str)],
    ) -> Result<Result<Wanted, How>, ReadError> {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        match self.entry(cache, values).await {
            Ok(Some(entry)) => {
                let owned = |(name, value): &(&str, &str)| (name.to_string(), value.to_string());
                Ok(Ok(Wanted { id, values: values.iter().map(owned).collect(), entry }))
            }
            Ok(None) => Ok(Err(How::Unleased)),
            Err(Unready::Parameters(reason)) => Err(wrong(reason)),
            Err(Unready::Store(error)) => {
                debug!(cache = %cache.name, %error, "not cached");
                Ok(Err(How::Unstored))
            }
        }
    }

    async fn load_only(&self, id: CacheId, values: &[(&str, &str)], how: How) -> Outcome {
        let cache = self.mapping.cache(id).ok_or_else(|| wrong("there is no such cache"))?;
        let value = self.load(cache, values, None).await?;
        self.count(id, how.as_str());
        Ok(Read::unstored(something(value), how))
    }

    async fn fly_all(self: Arc<Self>, flown: Vec<(Pilot<Outcome>, Wanted)>) {
        let (mut free, mut taken) = (Vec::new(), Vec::new());
        for (pilot, wanted) in flown {
            match self.loading.try_take(&wanted.entry.key) {
                Some(place) => free.push((pilot, wanted, place)),
                None => taken.push((pilot, wanted)),
            }
        }
        let taken = taken.into_iter().map(|(pilot, wanted)| self.fly_later(pilot, wanted));
        tokio::join!(self.fly_together(free), join_all(taken));
    }

    async fn fly_together(&self, flown: Vec<(Pilot<Outcome>, Wanted, Place)>) {
        if flown.is_empty() {
            return;
        }
        let start = Instant::now();
        // All are marked before anything is sent.
        let marks: Vec<Mark> = flown.iter().map(|(pilot, ..)| pilot.mark()).collect();
        let entries: Vec<&Entry> = flown.iter().map(|(_, wanted, _)| &wanted.entry).collect();
        let answers = self.fills.acquire_all(&entries, LEASE).await;
        let flights = flown.into_iter().zip(marks.into_iter().zip(answers));
        let fly = |((pilot, wanted, place), first)| {
            self.fly(pilot, wanted, Some(place), start, Some(first))
        };
        join_all(flights.map(fly)).await;
    }

    /// Flies once nobody else in this process loads the key, or after a while all the same.
    async fn fly_later(&self, pilot: Pilot<Outcome>, wanted: Wanted) {
        let start = Instant::now();
        self.metrics.leases_waiting.inc();
        let place = self.loading.take(&wanted.entry.key, PATIENCE).await;
        self.metrics.leases_waiting.dec();
        self.fly(pilot, wanted, place, start, None).await;
    }

    /// Flies until everybody who came aboard has his outcome.
    async fn fly(
        &self,
        mut pilot: Pilot<Outcome>,
        wanted: Wanted,
        mut place: Option<Place>,
        mut start: Instant,
        mut first: Option<First>,
    ) {
        loop {
            let (mark, outcome) = self.once(&pilot, &wanted, start, first.take()).await;
            if let Ok(read) = &outcome {
                self.count(wanted.id, read.how.as_str());
            }
            match pilot.land(mark, outcome) {
                Some(again) => pilot = again,
                None => return,
            }
            start = Instant::now();
            place = place.or_else(|| self.loading.try_take(&wanted.entry.key));
        }
    }

    async fn once(
        &self,
        pilot: &Pilot<Outcome>,
        wanted: &Wanted,
        start: Instant,
        mut first: Option<First>,
    ) -> (Mark, Outcome) {
        let values: Vec<(&str, &str)> =
            wanted.values.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let mut pause = Duration::from_millis(2);
        let how = loop {
            let (mark, acquired) = match first.take() {
                Some(first) => first,
                None => (pilot.mark(), self.fills.acquire(&wanted.entry, LEASE).await),
            };
            match acquired {
                Ok(Acquired::Hit { value, remaining }) => {
                    return (mark, Ok(Read::hit(value, remaining)));
                }
                Ok(Acquired::Lease(lease)) => {
                    if let Some(gone) = pilot.deserted() {
                        self.give_back(lease).await;
                        return (gone, Err(ReadError::Abandoned));
                    }
                    let mut fill = None;
                    let mut filling = || fill = Some(pilot.mark());
                    let outcome = self.compute(wanted.id, &values, lease, None, &mut filling).await;
                    // Only what is stored has a life.
                    let stored = outcome.as_ref().is_ok_and(|read| read.remaining.is_some());
                    return (fill.filter(|_| stored).unwrap_or(mark), outcome);
                }
                Ok(Acquired::Wait { at_most }) if start.elapsed() < PATIENCE => {
                    if let Some(gone) = pilot.deserted() {
                        return (gone, Err(ReadError::Abandoned));
                    }
                    self.metrics.leases_waiting.inc();
                    tokio::time::sleep(pause.min(at_most)).await;
                    self.metrics.leases_waiting.dec();
                    pause = (pause * 2).min(Duration::from_millis(50));
                }
                Ok(Acquired::Wait { .. } | Acquired::Closed) => break How::Unleased,
                Err(error) => {
                    debug!(cache = %wanted.entry.cache, %error, "not cached");
                    break How::Unstored;
                }
            }
        };
        let mark = pilot.mark();
        let Some(cache) = self.mapping.cache(wanted.id) else {
            return (mark, Err(wrong("there is no such cache")));
        };
        let loaded = self.load(cache, &values, None).await.map_err(ReadError::from);
        (mark, loaded.map(|value| Read::unstored(something(value), how)))
    }
}

/// What is known of a composed value by its parts.
struct Summary {
    read: Read,
    /// Whether each part so far has said when it was stored.
    dated: bool,
}

impl Summary {
    fn of(composition: &Composition) -> Summary {
        let remaining = Some(composition.ttl);
        Summary {
            read: Read { value: None, how: How::Hit, remaining, stored_at: None },
            dated: true,
        }
    }

    fn add(&mut self, part: &Read) {
        self.read.how = self.read.how.max(part.how);
        // A part that is not stored has no life; one without end bounds nothing.
        self.read.remaining = match (self.read.remaining, part.remaining) {
            (Some(all), Some(part)) => Some(all.min(part)),
            (all, None) if part.how == How::Hit => all,
            _ => None,
        };
        self.dated &= part.stored_at.is_some();
        let latest: Option<SystemTime> = self.read.stored_at.max(part.stored_at);
        self.read.stored_at = latest.filter(|_| self.dated);
    }
}

impl From<ComposeError> for ReadError {
    fn from(error: ComposeError) -> Self {
        match error {
            ComposeError::Parameter(reason) => ReadError::Parameters(reason),
            part @ ComposeError::Part { .. } => ReadError::Compose(part),
        }
    }
}
