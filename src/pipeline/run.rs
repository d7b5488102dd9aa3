//! One run: from connecting to the first thing that ends it.
//!
//! Four tasks, each a story of its own: *receive* decodes ahead, *gate* decides what may
//! be applied, *apply* changes Redis, *feedback* tells Postgres. They end in that order
//! when the run is asked to stop, each when the one before it has said all it had. When
//! one fails, the others are ended where they stand: whatever was under way was not
//! acknowledged, and comes again.

use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::sync::{Notify, Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;
use tracing::{error, info, warn};

use super::account::Account;
use super::apply::Applier;
use super::assemble::{Assembler, Bounds};
use super::batch::Batch;
use super::by_hand::ByHand;
use super::carried::{Carried, Known};
use super::chain::Chain;
use super::context::Context;
use super::end::End;
use super::feedback::Feedback;
use super::gate::Gate;
use super::hand::Hand;
use super::lookups::Lookups;
use super::receive::Receiver;
use super::rewrites::Rewrites;
use super::settle::{Footing, settle};
use super::stream::{Stream, stream};
use super::suspects::Suspects;
use super::untold::{Streamed, Subjects};
use super::waiting::Waiting;
use super::watchdog::watch_loops;
use crate::lsn::Lsn;
use crate::postgres::gate::Gate as Snapshots;
use crate::shadow::watch::Watcher;
use crate::status::Phase;
use crate::status::reason::GapReason;
use crate::warm::filling::Filling;

/// What a busy machine may add to a wait of the pipeline.
pub const PATIENCE: Duration = Duration::from_secs(3);

/// How many transactions may wait between two tasks.
const QUEUE: usize = 8192;

/// How long a shutdown waits for fills that have begun: a lease that is left behind keeps
/// readers waiting.
const LAST_FILLS: Duration = Duration::from_secs(2);

/// Runs until something ends it. `carried`: what the run before has left.
pub async fn run(context: &Context, carried: &mut Carried, stop: &CancellationToken) -> End {
    let starting = async {
        context.status.enter(Phase::Connecting);
        let mut hand = Hand::open(context).await?;
        let stream = stream(context, &mut hand, carried.forced).await?;
        Ok::<_, End>((hand, stream))
    };
    let (hand, stream) = tokio::select! {
        started = starting => match started {
            Ok(started) => started,
            Err(end) => return end,
        },
        () = stop.cancelled() => return End::Stopped,
    };
    match follow(context, hand, stream, carried, stop).await {
        Ok(()) => End::Stopped,
        Err(end) => end,
    }
}

async fn follow(
    context: &Context,
    mut hand: Hand,
    mut stream: Stream,
    carried: &mut Carried,
    stop: &CancellationToken,
) -> Result<(), End> {
    let mut tasks = Tasks::default();
    let asked = Arc::new(Notify::new());
    let goodbye = CancellationToken::new();
    let (applied, reported) = watch::channel(Lsn::ZERO);
    // The feedback first: a purge may take longer than the server's patience.
    let (reader, writer) =
        stream.halves.take().ok_or_else(|| End::Broken("the stream was taken twice".to_owned()))?;
    let patience = stream.wal_sender_timeout.map_or(Duration::MAX, |timeout| timeout / 4);
    tasks.spawn(
        "feedback",
        Feedback {
            writer,
            applied: reported,
            asked: Arc::clone(&asked),
            interval: context.config.postgres.status_interval.get().min(patience),
            status: Arc::clone(&context.status),
            points: context.points.clone(),
            stop: stop.clone(),
            goodbye: goodbye.clone(),
        }
        .run(),
    );
    let footing = tokio::select! {
        footing = footing(context, &mut hand, &stream, carried.known.as_ref()) => footing?,
        end = tasks.first_to_end() => return Err(end),
        () = stop.cancelled() => return Ok(()),
    };
    let known = Known::new(&stream.found.identity, &footing.suspects);
    *carried = Carried { forced: None, known: Some(known) };
    // Everything that changes from here on is told there first.
    let _held = context.holds().then(|| context.held.open());
    let Footing { watermark, frontier, suspects } = footing;
    context.status.begin_run(watermark, suspects.len());
    context.status.heard_of_server(stream.found.wal_insert);
    applied.send_replace(watermark);

    let config = &context.config.pipeline;
    let (to_gate, arrivals) = mpsc::channel(QUEUE);
    let (to_redis, batches) = mpsc::channel(1);
    let room_total = u32::try_from(config.max_keys_ahead).unwrap_or(u32::MAX);
    tasks.spawn(
        "receive",
        Receiver {
            reader,
            assembler: Assembler::new(
                Arc::clone(&context.rules.mapping),
                stream.dialect,
                Bounds {
                    transaction: config.max_keys_per_transaction,
                    in_progress: config.max_keys_ahead.max(config.max_keys_per_transaction),
                },
                stream.unbelieved(),
            )
            .told_of(stream.tables.clone()),
            arrivals: to_gate,
            room: Arc::new(Semaphore::new(config.max_keys_ahead)),
            room_total,
            status: Arc::clone(&context.status),
            stream_timeout: context.config.postgres.stream_timeout.get(),
            asked,
            stop: stop.clone(),
            goodbye,
        }
        .run(),
    );
    let postgres = &context.config.postgres;
    tasks.spawn(
        "gate",
        Gate {
            arrivals,
            batches: to_redis,
            waiting: Waiting::new(watermark),
            snapshots: Snapshots::open(stream.client).await?,
            lookups: Lookups::new(config.max_keys_per_transaction),
            mapping: Arc::clone(&context.rules.mapping),
            suspects,
            suspects_changed: false,
            server_end: stream.found.wal_insert,
            rewrites: Rewrites::new(stream.files),
            tables: stream.tables,
            subjects: Arc::new(Subjects {
                publication: postgres.publication.clone(),
                slot: postgres.slot.clone(),
                relations: stream.relations,
                roots: stream.partitioned.iter().map(|(root, _)| *root).collect(),
            }),
            streamed: Streamed {
                publication: Some(stream.found.identity.publication.clone()),
                partitioned: stream.partitioned,
            },
            application: context.connect.application_name().to_owned(),
            max_parked_keys: config.max_keys_ahead,
            in_vain: 0,
            without: context.without,
            points: context.points.clone(),
            status: Arc::clone(&context.status),
        }
        .run(),
    );
    let taken = Taken { batches, watermark, frontier, applied };
    let _beating = AbortOnDropHandle::new(tokio::spawn(context.heartbeat().run()));
    let tolerance = context.longest_wait() + PATIENCE;
    tasks.spawn("watchdog", watch_loops(Arc::clone(&context.status), tolerance, stop.clone()));
    let _beside = match hand {
        Hand::Keeping(chain) => Some(keep(context, *chain, taken, stop, &mut tasks)?),
        Hand::Watching(glance, shadow) => {
            tasks.spawn("judge", until(stop.clone(), context.judge(&shadow).await?.run()));
            let (mapping, status) =
                (Arc::clone(&context.rules.mapping), Arc::clone(&context.status));
            let Taken { batches, applied, .. } = taken;
            let watcher = Watcher::new(batches, *glance, shadow, mapping, applied, status);
            tasks.spawn("watch", watcher.run());
            None
        }
    };
    context.status.enter(Phase::Streaming);
    info!(slot = postgres.slot, %watermark, "streaming");
    tasks.until_all_end(context, stop).await
}

/// Where the pipeline takes up.
async fn footing(
    context: &Context,
    hand: &mut Hand,
    stream: &Stream,
    known: Option<&Known>,
) -> Result<Footing, End> {
    match hand {
        Hand::Keeping(chain) => settle(context, chain, stream, known).await,
        Hand::Watching(_, shadow) => {
            // The first start is none.
            let hole = stream
                .gap
                .filter(|reason| *reason != GapReason::NoState || context.status.has_streamed());
            if let Some(reason) = hole {
                warn!(
                    reason = reason.as_str(),
                    "changes may have gone by unseen; nothing was dropped (shadow mode)"
                );
                shadow.hole(reason.as_str());
            }
            Ok(Footing {
                watermark: stream.found.confirmed_flush,
                frontier: Lsn::ZERO,
                suspects: Suspects::default(),
            })
        }
    }
}

/// What the last stage begins with.
struct Taken {
    batches: mpsc::Receiver<Batch>,
    watermark: Lsn,
    frontier: Lsn,
    applied: watch::Sender<Lsn>,
}

/// The stage that changes Redis, and what fills, compares and looks after things beside it.
fn keep(
    context: &Context,
    chain: Chain,
    taken: Taken,
    stop: &CancellationToken,
    tasks: &mut Tasks,
) -> Result<[AbortOnDropHandle<()>; 3], End> {
    let Taken { batches, watermark, frontier, applied } = taken;
    tasks.spawn("warm", warm(context, stop.clone())?);
    let by_hand = AbortOnDropHandle::new(tokio::spawn(ByHand::new(context).run()));
    let auditing = AbortOnDropHandle::new(tokio::spawn(context.sampler()?.run()));
    let scheduled = AbortOnDropHandle::new(tokio::spawn(context.scheduled()?));
    tasks.spawn(
        "apply",
        Applier {
            batches,
            chain,
            mapping: Arc::clone(&context.rules.mapping),
            watermark,
            frontier,
            max_keys_per_script: context.config.pipeline.max_keys_per_script,
            applied,
            held: Arc::clone(&context.held),
            rewarmer: context.warming.rewarmer.clone(),
            warm_ups: context.warming.warm_ups.clone(),
            account: Account::new(Arc::clone(&context.rules.mapping), Arc::clone(&context.status)),
            status: Arc::clone(&context.status),
            points: context.points.clone(),
        }
        .run(),
    );
    Ok([by_hand, auditing, scheduled])
}

/// Ends it with the run.
async fn until(
    stop: CancellationToken,
    work: impl Future<Output = Result<(), End>>,
) -> Result<(), End> {
    tokio::select! {
        () = stop.cancelled() => Ok(()),
        ended = work => ended,
    }
}

/// Beside the pipeline, not of it: it ends with the run, and what it had not filled yet waits
/// for the next.
fn warm(
    context: &Context,
    stop: CancellationToken,
) -> Result<impl Future<Output = Result<(), End>> + Send + 'static, End> {
    let timeout = context.config.postgres.statement_timeout.get();
    let filling = Filling::new(context.filler()?);
    let status = Arc::clone(&context.status);
    let behind = move || status.behind_bytes();
    let connect = context.connect.clone();
    let warming = context.warming.clone().run(behind, filling.clone(), connect, timeout);
    Ok(async move {
        tokio::select! {
            () = stop.cancelled() => {
                filling.finished(LAST_FILLS).await;
                Ok(())
            }
            ended = Box::pin(warming) => ended.map_err(End::Broken),
        }
    })
}

/// The tasks of a run, by name. Dropping it ends them.
#[derive(Default)]
struct Tasks(FuturesUnordered<Task>);

struct Task {
    name: &'static str,
    handle: AbortOnDropHandle<Result<(), End>>,
}

impl Future for Task {
    type Output = (&'static str, Result<(), End>);

    fn poll(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Self::Output> {
        let name = self.name;
        std::pin::Pin::new(&mut self.handle).poll(cx).map(|joined| {
            let result = joined.unwrap_or_else(|failed| {
                Err(End::Broken(format!("the task {name} ended by itself: {failed}")))
            });
            (name, result)
        })
    }
}

impl Tasks {
    fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), End>> + Send + 'static,
    ) {
        self.0.push(Task { name, handle: AbortOnDropHandle::new(tokio::spawn(task)) });
    }

    /// Why the first task ended that did.
    async fn first_to_end(&mut self) -> End {
        match self.0.next().await {
            Some((_, Err(end))) => end,
            Some((name, Ok(()))) => End::Broken(format!("the task {name} ended early")),
            None => End::Broken("there is no task".to_owned()),
        }
    }

    /// Of the reasons that are known by now: a gap before all others, since only it drops
    /// what must not stay.
    fn gravest(&mut self, first: End) -> End {
        let mut gravest = first;
        while let Some(Some((_, ended))) = self.0.next().now_or_never() {
            match ended {
                Err(end @ End::Gap(_)) => gravest = end,
                _ => continue,
            }
        }
        gravest
    }

    /// Waits for all to end by themselves, once asked to stop within a bound.
    async fn until_all_end(
        mut self,
        context: &Context,
        stop: &CancellationToken,
    ) -> Result<(), End> {
        let within = context.config.pipeline.drain_timeout.get();
        let deadline = async {
            stop.cancelled().await;
            context.status.enter(Phase::Draining);
            tokio::time::sleep(within).await;
        };
        tokio::pin!(deadline);
        loop {
            tokio::select! {
                biased;
                ended = self.0.next() => match ended {
                    Some((_, Ok(()))) => {}
                    Some((_, Err(_))) if stop.is_cancelled() => {}
                    Some((_, Err(end))) => return Err(self.gravest(end)),
                    None => return Ok(()),
                },
                () = &mut deadline => {
                    let hung: Vec<_> = self.0.iter().map(|task| task.name).collect();
                    error!(
                        hung = hung.join(", "),
                        "not finished within {within:?} (pipeline.drain_timeout): ended where they stood; nothing is lost, it is streamed again at the next start"
                    );
                    return Ok(());
                }
            }
        }
    }
}
