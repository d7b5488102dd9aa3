//! The daemon: runs the pipeline again and again, serves the admin listener, and obeys
//! signals.
//!
//! A run of the pipeline ends for many reasons; here is decided what follows. What can
//! never succeed ends the daemon, but only until changes have flowed once: after that a
//! refused password is one that is being rotated, and everything is tried again for ever,
//! with growing, jittered pauses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backon::BackoffBuilder;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::admin;
use crate::api::server;
use crate::api::service::Api;
use crate::api::threads::Threads;
use crate::config::model::Config;
use crate::mapping::Mapping;
use crate::metrics::Metrics;
use crate::observed::idle;
use crate::pipeline::by_hand::ByHand;
use crate::pipeline::carried::Carried;
use crate::pipeline::context::Context;
use crate::pipeline::end::End;
use crate::pipeline::points::Points;
use crate::pipeline::run;
use crate::pipeline::without::Without;
use crate::report::reporter::Reporter;
use crate::rules::Rules;
use crate::schedule::attend::Schedule;
use crate::schedule::entry::entries;
use crate::series;
use crate::servers::{connect_options, replica_options};
use crate::shadow::Shadow;
use crate::status::reason::GapReason;
use crate::status::{Health, Phase, Status};
use crate::store::keys::ControlKeys;
use crate::store::session::Address;
use crate::systemd::Notifier;
use crate::told::Told;
use crate::warm::Warming;

/// Reads the rules anew, or says why not.
pub type Reload = Box<dyn Fn() -> Result<Rules, String> + Send + Sync>;

/// Everything that was checked before any task started.
pub struct Daemon {
    context: Context,
    /// None if there is nothing to serve.
    api: Option<Arc<Api>>,
    reload: Reload,
}

/// What a reload gives.
struct Anew {
    rules: Rules,
    warming: Warming,
    schedule: Schedule,
}

/// Why the daemon ended.
#[derive(Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Stopped,
    /// Something must be mended first: what, and how.
    Hopeless(String),
    /// Going on could lose changes.
    Broken(String),
}

impl Daemon {
    /// Checks what can be checked without a server.
    pub fn new(config: Config, rules: Rules, reload: Reload) -> Result<Self, String> {
        // Redis' client takes the process's provider.
        _ = rustls::crypto::ring::default_provider().install_default();
        let connect = connect_options(&config)?;
        let replica = replica_options(&config)?;
        let address = Address::new(&config.redis).map_err(|e| e.to_string())?;
        let metrics = Metrics::new().map_err(|e| format!("metrics: {e}"))?;
        series::name_all(&metrics, &rules.mapping);
        series::name_scheduled(&metrics, &config.schedule);
        metrics.observed.speak(&rules.mapping);
        let pipeline = &config.pipeline;
        let warming = Warming::new(&config, &rules, &metrics)?;
        let schedule = Schedule::new(entries(&config, &rules)?);
        let status = Status::new(metrics, pipeline.max_lag.get(), pipeline.remembered_drops);
        if config.shadow {
            status.looks_on();
        }
        let grace = config.shadow_grace.get();
        let shadow =
            config.shadow.then(|| Arc::new(Shadow::new(Arc::clone(&rules.mapping), grace)));
        let (config, status) = (Arc::new(config), Arc::new(status));
        let reporter = Reporter::new(Arc::clone(&config), &rules, Arc::clone(&status));
        let context = Context {
            config,
            connect,
            replica,
            address,
            rules,
            status,
            held: Arc::default(),
            loading: Arc::default(),
            warming,
            schedule,
            reporter: Arc::new(reporter),
            shadow,
            without: Without::from_environment(),
            points: Points::from_environment(),
        };
        let api = if context.serves() { Some(Arc::new(Api::new(&context)?)) } else { None };
        Ok(Daemon { context, api, reload })
    }

    /// Runs until it is told to stop or cannot go on.
    pub async fn run(self) -> Ended {
        let stop = CancellationToken::new();
        // First of all: whoever finds it listening may send signals, and the one that asks for a
        // reload would end a process that does not expect it.
        let Some(signals) = Signals::expected() else {
            return Ended::Broken("cannot listen for signals".to_owned());
        };
        let mapping = Arc::new(arc_swap::ArcSwap::from(Arc::clone(&self.context.rules.mapping)));
        if self.context.shadow.is_some() {
            warn!(
                "shadow mode: this daemon looks on and writes nothing to Redis; `unstale report --shadow` tells what it sees"
            );
        }
        let listener = match admin::bind(self.context.config.admin.listen).await {
            Ok(listener) => listener,
            Err(reason) => return Ended::Hopeless(reason),
        };
        let serving = tokio::spawn(admin::serve(
            listener,
            self.context.config.admin.clone(),
            admin::State::new(&self.context, Arc::clone(&mapping)),
        ));
        let watching = tokio::spawn(idle::watch(
            Arc::clone(&self.context.status.metrics.observed),
            self.context.address.clone(),
            ControlKeys::new(&self.context.config.postgres.slot),
        ));
        let settings = &self.context.config.api;
        let threads = match Threads::start(self.api.as_ref().map_or(0, |_| settings.threads)) {
            Ok(threads) => Arc::new(threads),
            Err(error) => {
                return Ended::Hopeless(format!(
                    "cannot start {} threads (api.threads): {error}; let it start fewer, or raise the system's limit",
                    settings.threads
                ));
            }
        };
        let api = match &self.api {
            None => None,
            Some(api) => match server::bind(settings.listen).await {
                Ok(listener) => {
                    let (api, threads) = (Arc::clone(api), Arc::clone(&threads));
                    Some(tokio::spawn(server::serve(listener, api, threads, stop.clone())))
                }
                Err(reason) => return Ended::Hopeless(reason),
            },
        };
        // Copies outlive the runs.
        let copies = self.context.rules.endpoints.iter().any(|e| e.stale_if_error.is_some());
        let by_hand = (copies && self.api.is_some())
            .then(|| tokio::spawn(ByHand::of_copies(&self.context).run()));
        let over = CancellationToken::new();
        let telling = Notifier::from_environment().map(|notifier| {
            let patience = self.context.longest_wait() + run::PATIENCE;
            let status = Arc::clone(&self.context.status);
            tokio::spawn(notifier.run(status, patience, stop.clone(), over.clone()))
        });
        let within = self.context.config.pipeline.drain_timeout.get();
        let service = self.api.clone();
        let ended = self.supervise(&stop, &mapping, signals).await;
        stop.cancel();
        let jobs = async {
            if let Some(service) = &service {
                service.wind_up(within).await;
            }
        };
        let answering = async {
            match api {
                Some(api) => tokio::time::timeout(within, api).await.is_ok(),
                None => true,
            }
        };
        let (answered, ()) = tokio::join!(answering, jobs);
        if !answered {
            warn!(
                "requests to the read API were not answered within {within:?} (pipeline.drain_timeout)"
            );
        }
        if let Some(by_hand) = by_hand {
            by_hand.abort();
        }
        over.cancel();
        if let Some(telling) = telling
            && let Err(reason) = telling.await
        {
            error!(%reason, "the task that tells systemd has ended by itself");
        }
        watching.abort();
        // Until the very end, so that a drain can be watched.
        serving.abort();
        ended
    }

    async fn supervise(
        mut self,
        stop: &CancellationToken,
        shown: &arc_swap::ArcSwap<Mapping>,
        signals: Signals,
    ) -> Ended {
        let Signals { mut terminate, mut interrupt, mut hangup } = signals;
        let mut carried = Carried::default();
        let mut pauses = Pauses::new();
        let mut last_gap: Option<Instant> = None;
        let mut told = Told::default();
        loop {
            let started = Instant::now();
            let run_stop = stop.child_token();
            let mut reloaded: Option<Anew> = None;
            let end = {
                let running = run::run(&self.context, &mut carried, &run_stop);
                tokio::pin!(running);
                loop {
                    tokio::select! {
                        end = &mut running => break end,
                        _ = terminate.recv(), if !stop.is_cancelled() => shut_down(stop, "SIGTERM"),
                        _ = interrupt.recv(), if !stop.is_cancelled() => shut_down(stop, "SIGINT"),
                        _ = hangup.recv(), if !stop.is_cancelled() => {
                            if let Some(new) = self.read_anew() {
                                // The run ends and the next one finds another fingerprint: a gap.
                                // (Or the same, if only the endpoints are others.)
                                reloaded = Some(new);
                                run_stop.cancel();
                            }
                        }
                    }
                }
            };
            if let Some(Anew { rules, warming, schedule }) = reloaded {
                series::name_all(&self.context.status.metrics, &rules.mapping);
                self.context.status.metrics.observed.speak(&rules.mapping);
                self.context.reporter.serve(&rules);
                shown.store(Arc::clone(&rules.mapping));
                self.context.rules = rules;
                self.serve_anew().await;
                // What waited names caches by the numbers of the old mapping.
                self.context.warming.rewarmer.clear();
                self.context.warming = warming;
                self.context.schedule = schedule;
                // What is remembered names rules by the numbers of the old mapping.
                self.context.status.with_drops(crate::status::drops::Drops::forget);
            }
            if stop.is_cancelled() {
                info!("stopped");
                return Ended::Stopped;
            }
            if started.elapsed() > Duration::from_secs(60) {
                pauses = Pauses::new();
            }
            let pause = match self.judge(end, &mut carried.forced, &mut told) {
                Next::Now => continue,
                // One after the other is no accident: two daemons of two databases that
                // take each other's state for their own, say. Each costs a purge. But until then
                // what is known to be wrong is still there: the pause stays short.
                Next::Purge => match last_gap.replace(Instant::now()) {
                    Some(before) if before.elapsed() < Duration::from_secs(10) => {
                        pauses.next().min(Duration::from_secs(1))
                    }
                    _ => continue,
                },
                Next::Later => pauses.next(),
                Next::Soon => Duration::from_secs(1),
                Next::End(ended) => return ended,
            };
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = terminate.recv() => shut_down(stop, "SIGTERM"),
                _ = interrupt.recv() => shut_down(stop, "SIGINT"),
            }
        }
    }

    fn judge(&self, end: End, forced: &mut Option<GapReason>, told: &mut Told) -> Next {
        let status = &self.context.status;
        // What is tried again and again is told when it changes.
        let mut news = |what: &str| told.news(status.runs(), what, Instant::now());
        let give_up = !status.has_streamed();
        match end {
            End::Stopped => Next::Now,
            End::Gap(reason) => {
                *forced = Some(reason);
                status.enter(Phase::Connecting);
                Next::Purge
            }
            End::SlotBusy(pid) => {
                let slot = &self.context.config.postgres.slot;
                if news(&format!("slot {pid:?}")).is_some() {
                    warn!(slot, pid, "the slot is active for another session: waiting for it");
                }
                status.enter(Phase::WaitingForSlot { pid });
                Next::Soon
            }
            End::Again(reason) => {
                if let Some(untold) = news(&reason) {
                    warn!(%reason, untold, "the run has ended; trying again");
                }
                self.lost(&reason);
                Next::Later
            }
            End::RedisAgain(reason) => {
                if let Some(untold) = news(&reason) {
                    warn!(%reason, untold, "the run has ended; trying again");
                }
                status.enter(Phase::Connecting);
                Next::Later
            }
            End::StateMoved => {
                info!("the state in Redis has moved on while it was read; reading it again");
                status.enter(Phase::Connecting);
                Next::Soon
            }
            End::Hopeless(reason) | End::Blocked(reason) if give_up => {
                Next::End(Ended::Hopeless(reason))
            }
            End::Hopeless(reason) => {
                if news(&reason).is_some() {
                    error!(%reason, "the run has ended; trying again, in case this is being mended");
                }
                self.lost(&reason);
                Next::Later
            }
            End::Blocked(reason) => {
                if news(&reason).is_some() {
                    error!(%reason, "nothing is cached until this is mended; trying again");
                }
                status.enter(Phase::Blocked { reason });
                Next::Soon
            }
            End::Broken(reason) => Next::End(Ended::Broken(reason)),
        }
    }

    fn lost(&self, reason: &str) {
        let status = &self.context.status;
        status.metrics.reconnects.with_label_values(&["postgres"]).inc();
        debug!(service = "postgres", "connecting anew");
        status.postgres(Health::Down(reason.to_owned()));
        status.enter(Phase::Connecting);
    }

    /// The API serves by the new rules before a run applies them; and that run waits for those
    /// who are still served by the old ones, and might store what their queries gave.
    async fn serve_anew(&self) {
        let Some(api) = &self.api else {
            if self.context.serves() {
                warn!(
                    "there are endpoints now, and nothing listens: restart the daemon to serve them"
                );
            }
            return;
        };
        match api.serve(&self.context) {
            Ok(former) => former.gone(self.context.config.api.request_timeout.get()).await,
            Err(reason) => error!(%reason, "the read API serves nothing until this is mended"),
        }
    }

    /// A reload: the new rules, if they can be used and differ, and what is warmed by them.
    fn read_anew(&self) -> Option<Anew> {
        let (config, status) = (&self.context.config, &self.context.status);
        let read = (self.reload)().and_then(|rules| {
            let warming = Warming::new(config, &rules, &status.metrics)?;
            let schedule = Schedule::new(entries(config, &rules)?);
            Ok(Anew { rules, warming, schedule })
        });
        match read {
            Ok(anew) => {
                let rules = &anew.rules;
                status.reload(None);
                let same_rules = rules.fingerprint() == self.context.rules.fingerprint();
                if same_rules && rules.endpoints == self.context.rules.endpoints {
                    info!("reloaded: the rules are the same");
                    return None;
                }
                if same_rules {
                    info!("reloaded: the endpoints have changed");
                } else {
                    info!("reloaded: the rules have changed, everything managed will be dropped");
                }
                Some(anew)
            }
            Err(reason) => {
                error!(%reason, "the configuration cannot be used; the old rules stay");
                status.reload(Some(format!(
                    "the configuration on disk cannot be used, the old rules stay (correct it and send SIGHUP): {reason}"
                )));
                None
            }
        }
    }
}

/// What it obeys.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Those that come from here on wait until they are looked at.
    fn expected() -> Option<Self> {
        Some(Signals {
            terminate: signal(SignalKind::terminate()).ok()?,
            interrupt: signal(SignalKind::interrupt()).ok()?,
            hangup: signal(SignalKind::hangup()).ok()?,
        })
    }
}

enum Next {
    Now,
    Purge,
    Soon,
    Later,
    End(Ended),
}

fn shut_down(stop: &CancellationToken, why: &str) {
    info!(signal = why, "shutting down: finishing what is under way");
    stop.cancel();
}

/// Pauses between attempts: growing, jittered, without end.
struct Pauses(backon::ExponentialBackoff);

impl Pauses {
    const LONGEST: Duration = Duration::from_secs(10);

    fn new() -> Self {
        Pauses(
            backon::ExponentialBuilder::new()
                .with_min_delay(Duration::from_millis(100))
                .with_max_delay(Self::LONGEST)
                .with_jitter()
                .without_max_times()
                .build(),
        )
    }

    fn next(&mut self) -> Duration {
        self.0.next().unwrap_or(Self::LONGEST)
    }
}
