//! `unstale tail`

use std::io::Write;

use clap::Args;
use rustix::event::{PollFd, PollFlags, poll};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, oneshot};

use super::output::{error, warn_on_stderr};
use super::{Common, Exit, runtime};
use crate::lsn::Lsn;
use crate::mapping::name::TableName;
use crate::servers::connect_options;
use crate::tail::follow::{Ended, Follow, FollowError, Format, Selection};

/// Print changes and the keys that they reach, live
///
/// Reads the publication through a temporary slot of its own: works without the daemon,
/// takes nothing away from it, and leaves nothing behind. Prints every transaction that
/// commits after "following from LSN …" (on standard error), whole and in commit order; a
/// lost connection ends it, so that there is never a hole. SIGINT, SIGTERM and a reader
/// that goes away end it with exit code 0.
#[derive(Debug, Args)]
pub(super) struct TailCommand {
    /// One JSON object a line: kind "change" for a row, "commit" behind a transaction's last
    #[arg(long)]
    json: bool,
    /// Only this table, written as in SQL (may be given several times)
    #[arg(long = "table", value_name = "TABLE")]
    tables: Vec<TableName>,
    /// End after so many changes, in the middle of a transaction if need be
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    max: Option<u64>,
    /// End with the last transaction that committed before this position
    /// (such as `SELECT pg_current_wal_flush_lsn()` tells)
    #[arg(long, value_name = "LSN")]
    until_lsn: Option<Lsn>,
}

impl TailCommand {
    pub(super) fn execute(&self, common: &Common) -> Exit {
        match self.try_execute(common) {
            Ok(exit) | Err(exit) => exit,
        }
    }

    fn try_execute(&self, common: &Common) -> Result<Exit, Exit> {
        let loaded = common.load()?;
        let mapping = common.rules(&loaded)?.mapping;
        let config = loaded.config;
        let connect = connect_options(&config).map_err(|reason| {
            error(&reason);
            Exit::Configuration
        })?;
        let follow = Follow {
            connect: connect.with_application_name("unstale tail"),
            publication: config.postgres.publication,
            statement_timeout: config.postgres.statement_timeout.get(),
            mapping,
            max_keys: config.pipeline.max_keys_per_transaction,
            selection: Selection {
                tables: self.tables.clone(),
                format: if self.json { Format::Json } else { Format::Text },
                max_changes: self.max,
                until: self.until_lsn,
            },
        };
        let runtime = runtime()?;
        let exit = runtime.block_on(until_told(follow));
        // What still blocks (a look-up of a host name) must not hold the exit up.
        runtime.shutdown_background();
        Ok(exit)
    }
}

async fn until_told(follow: Follow) -> Exit {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        error("cannot listen for signals");
        return Exit::Failed;
    };
    let output = match Output::start() {
        Ok(output) => output,
        Err(reason) => {
            error(&format!("cannot start a thread for the output: {reason}"));
            return Exit::Failed;
        }
    };
    let Output { lines, printed, mut reader_gone } = output;
    let ended = tokio::select! {
        ended = Box::pin(follow.run(lines, warn_on_stderr)) => ended,
        _ = interrupt.recv() => Ok(Ended::Done),
        _ = terminate.recv() => Ok(Ended::Done),
        Ok(()) = &mut reader_gone => Ok(Ended::ReaderGone),
    };
    // The sender is gone: the printer ends when all is out, or when nobody takes it.
    if ended.as_ref().is_ok_and(|ended| *ended == Ended::ReaderGone) {
        return Exit::Done;
    }
    let printed = tokio::select! {
        printed = printed => printed.is_ok(),
        _ = interrupt.recv() => true,
        _ = terminate.recv() => true,
        Ok(()) = reader_gone => true,
    };
    match ended {
        Ok(_) if printed => Exit::Done,
        Ok(_) => {
            error("the output could not be written: see above");
            Exit::Failed
        }
        Err(reason) => {
            error(&reason.to_string());
            match reason {
                FollowError::Postgres(reason) => Exit::from(&reason),
                FollowError::Stream(_) => Exit::Failed,
                FollowError::NotSetUp(_) => Exit::Configuration,
                FollowError::NoSuchTable(_) => Exit::Usage,
            }
        }
    }
}

/// Standard output on a thread of its own: whoever reads it may be slow, and the
/// connection has to be kept alive meanwhile.
struct Output {
    /// Bounded: a slow reader slows the stream down, and nothing piles up.
    lines: mpsc::Sender<Vec<u8>>,
    /// Everything was written; dropped without a word if it could not be.
    printed: oneshot::Receiver<()>,
    /// Nobody reads any more.
    reader_gone: oneshot::Receiver<()>,
}

impl Output {
    fn start() -> std::io::Result<Self> {
        let (lines, receiver) = mpsc::channel(4);
        let (tell_printed, printed) = oneshot::channel();
        let (tell_gone, reader_gone) = oneshot::channel();
        std::thread::Builder::new().name("printer".to_owned()).spawn(move || {
            if print(receiver) {
                // The other end may be gone already.
                _ = tell_printed.send(());
            }
        })?;
        std::thread::Builder::new().name("reader-watch".to_owned()).spawn(move || {
            if wait_until_nobody_reads() {
                _ = tell_gone.send(());
            }
        })?;
        Ok(Output { lines, printed, reader_gone })
    }
}

/// Writes until there is no more to come; `false` if it cannot be written.
fn print(mut lines: mpsc::Receiver<Vec<u8>>) -> bool {
    // Past the standard library's own buffer: a piece is written at once.
    let mut out = std::io::stdout().lock();
    while let Some(piece) = lines.blocking_recv() {
        if let Err(reason) = out.write_all(&piece).and_then(|()| out.flush()) {
            if reason.kind() == std::io::ErrorKind::BrokenPipe {
                return true;
            }
            error(&format!("cannot write to standard output: {reason}"));
            return false;
        }
    }
    true
}

/// Waits for the other end of standard output to be closed, which a write would only find
/// out with the next change: until then the slot would hold back WAL for nobody. A file
/// has no other end: then this waits for ever.
fn wait_until_nobody_reads() -> bool {
    let out = std::io::stdout();
    loop {
        let mut watched = [PollFd::new(&out, PollFlags::empty())];
        match poll(&mut watched, None) {
            Ok(0) => {}
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
            Ok(_) => {
                let gone = PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL;
                return watched.iter().any(|fd| fd.revents().intersects(gone));
            }
        }
    }
}
