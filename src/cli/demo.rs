//! `unstale demo`

use std::io::IsTerminal as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{Exit, output, runtime};
use crate::demo::{self, DemoError, Options, Screen};

/// See it at work: private servers, live load, and a comparison of every cached value
///
/// Starts a Postgres and a Redis of its own and the daemon between them. Readers read through
/// the caches all the time and fill what they miss, while others write to the database in ways
/// that an application's own invalidation misses; again and again, all that is cached is
/// compared with the database. Touches nothing else:
/// neither --config nor UNSTALE_… settings count. Needs Postgres' and Redis' programs.
#[derive(Debug, Args)]
pub(super) struct Demo {
    /// How long; 0: until Ctrl-C
    #[arg(long, value_name = "N", env = "DEMO_SECONDS", default_value_t = 60)]
    seconds: u64,
    /// A configuration whose caches and tables take the place of the default ones
    #[arg(long, value_name = "FILE", hide = true)]
    rules: Option<PathBuf>,
}

impl Demo {
    pub(super) fn execute(self) -> Exit {
        let screen = Screen::new(std::io::stdout().is_terminal(), output::line);
        let options = Options {
            duration: (self.seconds > 0).then(|| Duration::from_secs(self.seconds)),
            rules: self.rules,
        };
        let runtime = match runtime() {
            Ok(runtime) => runtime,
            Err(exit) => return exit,
        };
        match runtime.block_on(Self::until_interrupted_twice(&options, &screen)) {
            Some(Ok(outcome)) => {
                output::line(&outcome.to_string());
                if outcome.failure().is_none() { Exit::Done } else { Exit::Failed }
            }
            Some(Err(error)) => {
                output::line(&format!("demo FAILED: {error}"));
                Exit::Failed
            }
            None => {
                output::line("demo FAILED: interrupted before the comparison was done");
                Exit::Failed
            }
        }
    }

    /// The first signal asks for the last comparison, the second for the end.
    async fn until_interrupted_twice(
        options: &Options,
        screen: &Screen,
    ) -> Option<Result<demo::Outcome, DemoError>> {
        let stop = CancellationToken::new();
        let (Ok(mut interrupt), Ok(mut terminate)) =
            (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            output::error("cannot listen for signals");
            return None;
        };
        let running = Box::pin(demo::run(options, screen, &stop));
        tokio::pin!(running);
        loop {
            let again = stop.is_cancelled();
            tokio::select! {
                ended = &mut running => return Some(ended),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if again {
                return None;
            }
            stop.cancel();
        }
    }
}
