//! This daemon's end of the nonce chain: steps that are done exactly in order, on
//! whatever connection there is.
//!
//! A step is tried until Redis acknowledges it: each try on a new session carries the same
//! nonce, so that a try whose answer was lost is recognised. Only a broken chain ends it.

use std::sync::Arc;
use std::time::Duration;

use backon::BackoffBuilder;
use tracing::{debug, info, warn};

use super::end::End;
use super::points::{Point, Points};
use crate::lsn::Lsn;
use crate::mapping::changes::Key;
use crate::status::reason::GapReason;
use crate::status::{Health, Status};
use crate::store::error::StoreError;
use crate::store::keys::ControlKeys;
use crate::store::purge::{Shut, purge};
use crate::store::session::{Address, Outcome, Server, Session, Step};
use crate::store::state::{Field, Nonce, Nonces, State};

/// The keys of one step.
#[derive(Debug, Clone, Copy, Default)]
pub struct Keys<'a> {
    /// Removed.
    pub removed: &'a [Key],
    /// Refreshed: the old value of each may stay for so long.
    pub refreshed: &'a [(Key, Duration)],
}

/// The chain, and the session that it is worked on.
pub struct Chain {
    address: Address,
    keys: ControlKeys,
    session: Option<Session>,
    /// Who answered last.
    server: Option<Server>,
    nonces: Nonces,
    acknowledged: Nonce,
    /// How long to wait before the next try; anew after every success.
    pauses: Pauses,
    status: Arc<Status>,
    points: Points,
}

impl Chain {
    /// Connects once. The chain is not ours until it is claimed or declared anew.
    pub async fn open(
        address: Address,
        keys: ControlKeys,
        status: Arc<Status>,
        points: Points,
    ) -> Result<Self, End> {
        let nonces = Nonces::new().map_err(|e| End::Again(format!("no random numbers: {e}")))?;
        let mut chain = Chain {
            address,
            keys,
            session: None,
            server: None,
            nonces,
            acknowledged: Nonce::found(String::new()),
            pauses: pauses(),
            status,
            points,
        };
        chain.connect().await?;
        Ok(chain)
    }

    async fn connect(&mut self) -> Result<(), StoreError> {
        match Session::open(&self.address, self.keys.clone()).await {
            Ok(session) => {
                if self
                    .server
                    .as_ref()
                    .is_some_and(|before| before.run_id != session.server().run_id)
                {
                    warn!("Redis has restarted");
                }
                self.server = Some(session.server().clone());
                self.session = Some(session);
                Ok(())
            }
            Err(error) => {
                self.lose(&error);
                Err(error)
            }
        }
    }

    /// Redis did what it was asked to. (That it lets us in says little: while it loads its
    /// data or refuses writes it does that, too.)
    fn works(&mut self) {
        self.pauses = pauses();
        if self.status.redis(Health::Up)
            && let Some(server) = &self.server
        {
            info!(version = server.version, run_id = server.run_id, "connected to Redis");
        }
    }

    /// After any error the session is not used again.
    fn lose(&mut self, error: &StoreError) {
        self.session = None;
        if self.status.redis(Health::Down(error.to_string())) {
            warn!(%error, "Redis is not available; what waits for it is kept");
        }
    }

    /// A session, however long it takes. (A wrong password is waited for too: the caller
    /// has been connected before, so it is being rotated.)
    async fn session(&mut self) -> &mut Session {
        while self.session.is_none() {
            self.status.metrics.reconnects.with_label_values(&["redis"]).inc();
            debug!(service = "redis", "connecting anew");
            if self.connect().await.is_err() {
                self.pause().await;
            }
        }
        // The loop ends with a session in place.
        match &mut self.session {
            Some(session) => session,
            #[expect(
                clippy::unreachable,
                reason = "the loop above ends only when there is a session"
            )]
            None => unreachable!("a session"),
        }
    }

    /// The state as it is. One try.
    pub async fn state(&mut self) -> Result<Option<State>, End> {
        let answer = match &mut self.session {
            Some(session) => session.state().await,
            None => Err(StoreError::Lost("no connection".to_owned())),
        };
        match answer {
            Ok(state) => {
                self.works();
                Ok(state)
            }
            Err(error) => {
                self.lose(&error);
                Err(error.into())
            }
        }
    }

    /// Takes over a chain whose last nonce is `found`.
    ///
    /// Another nonce means no gap here: a last step of whoever had the chain before was
    /// still on its way when the state was read. The state is read and judged anew then.
    pub async fn claim(&mut self, found: Nonce) -> Result<(), End> {
        self.acknowledged = found;
        match self.step(Keys::default(), &[], None).await {
            Err(End::Gap(_)) => Err(End::StateMoved),
            claimed => claimed.map(drop),
        }
    }

    /// Declares the state invalid, whatever it was, and takes the chain (rule 8a).
    pub async fn declare_invalid(&mut self, mut state: State) -> Result<(), End> {
        state.valid = false;
        state.nonce = self.nonces.fresh();
        loop {
            let declared = self.session().await.declare_invalid(&state).await;
            match declared {
                Ok(()) => {
                    self.works();
                    self.acknowledged = state.nonce;
                    return Ok(());
                }
                Err(error) => self.lose_and_pause(&error).await,
            }
        }
    }

    /// One step, until it is acknowledged. Gives the life that remained of each key, those that
    /// are refreshed last.
    pub async fn step(
        &mut self,
        keys: Keys<'_>,
        fields: &[Field],
        certify: Option<Lsn>,
    ) -> Result<Vec<i64>, End> {
        let nonce = self.nonces.fresh();
        self.attempt(&nonce, keys, fields, certify).await
    }

    /// Looks whether the chain is as it was left, and renews the certificate.
    pub async fn renew(&mut self, certify: Option<Lsn>) -> Result<(), End> {
        let nonce = self.acknowledged.clone();
        self.attempt(&nonce, Keys::default(), &[], certify).await.map(drop)
    }

    async fn attempt(
        &mut self,
        nonce: &Nonce,
        keys: Keys<'_>,
        fields: &[Field],
        certify: Option<Lsn>,
    ) -> Result<Vec<i64>, End> {
        loop {
            self.session().await;
            if let Some(lives) = self.attempt_once(nonce, keys, fields, certify).await? {
                return Ok(lives);
            }
        }
    }

    /// One try on the session that there is. `None`: there is none any more, and the step
    /// may have happened.
    async fn attempt_once(
        &mut self,
        nonce: &Nonce,
        keys: Keys<'_>,
        fields: &[Field],
        certify: Option<Lsn>,
    ) -> Result<Option<Vec<i64>>, End> {
        let expected = self.acknowledged.clone();
        let Keys { removed: keys, refreshed } = keys;
        let step = Step { expected: &expected, nonce, keys, refreshed, fields, certify };
        self.points.reach(Point::Step).await;
        let Some(session) = &mut self.session else { return Ok(None) };
        match session.step(&step).await {
            Ok(Outcome::Done(lives)) => {
                self.works();
                self.acknowledged = nonce.clone();
                Ok(Some(lives))
            }
            Ok(Outcome::Broken(found)) => {
                warn!(%found, %expected, "the nonce in Redis is not the last one written: it lost writes, or somebody else wrote");
                Err(End::Gap(if found.as_str().is_empty() {
                    GapReason::NoState
                } else {
                    GapReason::ChainBroken
                }))
            }
            Err(error) => {
                self.lose_and_pause(&error).await;
                Ok(None)
            }
        }
    }

    /// Drops everything under `prefixes`, and does the step that says so: on the very
    /// session that the purge was finished on. A Redis that restarted between the two may
    /// have come back with a state whose nonce is right and with values that were purged:
    /// the step would open the cache over them. So after a lost session the chain is taken
    /// to where the step left it or would have, without what it opens, and the purge is done
    /// again.
    pub async fn purge_then(
        &mut self,
        prefixes: &[&[u8]],
        shut: Shut,
        fields: &[Field],
    ) -> Result<u64, End> {
        loop {
            let removed = self.purge(prefixes, shut).await?;
            self.points.reach(Point::Purged).await;
            let nonce = self.nonces.fresh();
            if self.attempt_once(&nonce, Keys::default(), fields, None).await?.is_some() {
                return Ok(removed);
            }
            self.attempt(&nonce, Keys::default(), &[], None).await?;
        }
    }

    /// Drops everything under `prefixes`. After a lost session the chain is looked at before
    /// the purge starts anew: what was purged may be back.
    pub async fn purge(&mut self, prefixes: &[&[u8]], shut: Shut) -> Result<u64, End> {
        loop {
            let purged = purge(self.session().await, prefixes, shut).await;
            match purged {
                Ok(removed) => return Ok(removed),
                Err(error) => self.lose_and_pause(&error).await,
            }
            self.renew(None).await?;
        }
    }

    async fn lose_and_pause(&mut self, error: &StoreError) {
        self.lose(error);
        self.pause().await;
    }

    async fn pause(&mut self) {
        tokio::time::sleep(self.pauses.next().unwrap_or(LONGEST_PAUSE)).await;
    }
}

pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(2);

type Pauses = backon::ExponentialBackoff;

fn pauses() -> Pauses {
    backon::ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(20))
        .with_max_delay(LONGEST_PAUSE)
        .with_jitter()
        .without_max_times()
        .build()
}
