//! Telling systemd how it goes: sd_notify(3), by hand, since it is one datagram a message.
//!
//! * `READY=1` once the process runs and its admin listener answers, not once changes flow.
//!   Whether Postgres can be reached is no part of a start: a unit that waited for it would
//!   fail at `TimeoutStartSec`, and starting it again would not bring Postgres back.
//!   `/readyz` and `unstale_ready` tell whether the cache can be trusted; `STATUS=` tells
//!   it to whoever asks `systemctl status`.
//! * `WATCHDOG=1` while the runtime turns and, once changes flow, while the gate and the loop
//!   that changes Redis go round ([`Status::stuck`]). Both have a clock of a second, and
//!   each wait in them has a bound, so one that stands still has met a fault of this
//!   program, and a restart is the remedy. It is a harmless one: the next run begins where
//!   Postgres was told that everything is applied.
//!   A service that is down, a standby that hangs, a slot that another daemon holds, a
//!   purge of millions of keys: there the daemon waits for others and goes on
//!   saying that it lives, since a restart would only begin the same wait anew.
//! * `STOPPING=1` when it was asked to stop or cannot go on. It goes on saying that it lives
//!   while it drains, which has a bound of its own.
//!
//! A message that cannot be sent is no reason to end: then systemd ends us, if it must.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram as StdDatagram};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixDatagram;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use crate::status::readiness::Readiness;
use crate::status::{Loop, Phase, Status};

/// How often the status is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// How long systemd may take to read a message.
const PATIENCE: Duration = Duration::from_secs(1);

/// Nobody reads a longer line.
const LONGEST_STATUS: usize = 400;

/// What systemd asked for by the environment.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    /// `WatchdogSec=`, if it is for this process.
    watchdog: Option<Duration>,
}

impl Notifier {
    /// `None` where nobody wants to be told. Within a runtime only.
    #[must_use]
    pub fn from_environment() -> Option<Notifier> {
        let var = |name: &str| std::env::var(name).ok();
        let address = std::env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let watchdog = watchdog(
            var("WATCHDOG_USEC").as_deref(),
            var("WATCHDOG_PID").as_deref(),
            std::process::id(),
        );
        match connect(address.as_encoded_bytes()) {
            Ok(socket) => Some(Notifier { socket, watchdog }),
            Err(error) => {
                warn!(address = %address.to_string_lossy(), %error, "cannot tell systemd how it goes (NOTIFY_SOCKET)");
                None
            }
        }
    }

    async fn tell(&self, message: &str) {
        match tokio::time::timeout(PATIENCE, self.socket.send(message.as_bytes())).await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => debug!(%error, "systemd could not be told"),
            Err(_) => debug!("systemd does not read what it is told"),
        }
    }

    /// Tells until `ended`. `patience`: how long one wait of the pipeline may take at most.
    pub async fn run(
        self,
        status: Arc<Status>,
        patience: Duration,
        stop: CancellationToken,
        ended: CancellationToken,
    ) {
        let tolerance = self.watchdog.map(|within| (within / 2).max(patience));
        if let (Some(within), Some(tolerance)) = (self.watchdog, tolerance) {
            info!(?within, ?tolerance, "systemd watches over this process");
        }
        // Four times as often as must be.
        let pace = self.watchdog.map_or(LOOK, |within| (within / 4).min(LOOK));
        let mut look = tokio::time::interval(pace.max(Duration::from_millis(10)));
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = line(&status.readiness());
        self.tell(&format!("READY=1\nSTATUS={told}")).await;
        let mut stopping = false;
        let mut hung: Option<Loop> = None;
        loop {
            tokio::select! {
                biased;
                () = ended.cancelled() => break,
                () = stop.cancelled(), if !stopping => {
                    stopping = true;
                    self.tell("STOPPING=1\nSTATUS=shutting down").await;
                    continue;
                }
                _ = look.tick() => {}
            }
            if let Some(tolerance) = tolerance {
                let stuck = status.stuck(tolerance);
                match stuck {
                    None => self.tell("WATCHDOG=1").await,
                    Some(of) if hung != stuck => {
                        error!(
                            task = of.as_str(),
                            ?tolerance,
                            "a task of the pipeline stands still: systemd is no longer told that all is well, and will start this daemon anew; please report this log"
                        );
                    }
                    Some(_) => {}
                }
                hung = stuck;
            }
            let now = line(&status.readiness());
            if now != told && !stopping {
                self.tell(&format!("STATUS={now}")).await;
                told = now;
            }
        }
        if !stopping {
            self.tell("STOPPING=1").await;
        }
    }
}

/// The time within which systemd wants to hear from this process.
fn watchdog(micros: Option<&str>, pid: Option<&str>, own: u32) -> Option<Duration> {
    if pid.is_some_and(|pid| pid.parse() != Ok(own)) {
        return None;
    }
    let micros: u64 = micros?.parse().ok()?;
    (micros > 0).then(|| Duration::from_micros(micros))
}

/// A path, or behind `@` a name in the abstract name space (sd_notify(3)).
fn connect(address: &[u8]) -> std::io::Result<UnixDatagram> {
    let address = match address.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => {
            use std::os::unix::ffi::OsStrExt as _;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(address))?
        }
    };
    let socket = StdDatagram::unbound()?;
    socket.connect_addr(&address)?;
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// What `systemctl status` shows. Positions move all the time and are left to `/readyz`.
fn line(readiness: &Readiness) -> String {
    let text = match (&readiness.phase, readiness.problems.as_slice()) {
        (Phase::Streaming, []) => "streaming: the cache is kept fresh".to_owned(),
        (_, []) => "starting".to_owned(),
        (_, problems) => format!("not ready: {}", problems.join("; ")),
    };
    // One line: a newline would begin another message.
    let mut text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    if let Some((end, _)) = text.char_indices().nth(LONGEST_STATUS) {
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lsn::Lsn;
    use crate::metrics::Metrics;
    use crate::status::Health;

    fn streaming() -> Arc<Status> {
        let status = Status::new(Metrics::new().unwrap(), Duration::from_secs(30), 10);
        status.postgres(Health::Up);
        status.redis(Health::Up);
        status.begin_run(Lsn(1), 0);
        status.enter(Phase::Streaming);
        Arc::new(status)
    }

    fn pair() -> (Notifier, UnixDatagram) {
        let (socket, systemd) = UnixDatagram::pair().unwrap();
        (Notifier { socket, watchdog: Some(Duration::from_millis(40)) }, systemd)
    }

    async fn message(systemd: &UnixDatagram) -> String {
        let mut buffer = [0; 2000];
        let length = systemd.recv(&mut buffer).await.unwrap();
        String::from_utf8_lossy(&buffer[..length]).into_owned()
    }

    /// Lets both loops go round until systemd hears of it.
    async fn until_ping(systemd: &UnixDatagram, status: &Status) {
        let pinged = async {
            loop {
                status.beat(Loop::Gate);
                status.beat(Loop::Apply);
                let heard = tokio::time::timeout(Duration::from_millis(50), message(systemd));
                if heard.await.is_ok_and(|message| message == "WATCHDOG=1") {
                    return;
                }
            }
        };
        tokio::time::timeout(Duration::from_secs(30), pinged).await.unwrap();
    }

    /// Reads until nothing has come for many times as long as pings are apart.
    async fn silence(systemd: &UnixDatagram) {
        let quiet = Duration::from_millis(500);
        while tokio::time::timeout(quiet, message(systemd)).await.is_ok() {}
    }

    #[tokio::test]
    async fn a_loop_that_stands_still_ends_the_pings_and_one_that_goes_on_brings_them_back() {
        let (notifier, systemd) = pair();
        let status = streaming();
        let token = CancellationToken::new();
        let tolerance = Duration::from_millis(300);
        let running = tokio::spawn(notifier.run(
            Arc::clone(&status),
            tolerance,
            token.clone(),
            token.clone(),
        ));
        assert_eq!(message(&systemd).await, "READY=1\nSTATUS=streaming: the cache is kept fresh");
        until_ping(&systemd, &status).await;
        // Neither loop beats. One that does is not enough.
        silence(&systemd).await;
        status.beat(Loop::Apply);
        silence(&systemd).await;
        assert_eq!(status.stuck(tolerance), Some(Loop::Gate));
        until_ping(&systemd, &status).await;
        // What waits for others says that it lives, however long.
        status.enter(Phase::CreatingSlot);
        tokio::time::sleep(2 * tolerance).await;
        assert_eq!(status.stuck(tolerance), None);
        token.cancel();
        running.await.unwrap();
        let mut last = String::new();
        while let Ok(text) =
            tokio::time::timeout(Duration::from_millis(100), message(&systemd)).await
        {
            last = text;
            if last.starts_with("STOPPING=1") {
                break;
            }
        }
        assert!(last.starts_with("STOPPING=1"), "{last}");
    }

    #[test]
    fn the_watchdog_is_for_the_process_that_systemd_named() {
        let second = Some(Duration::from_secs(1));
        assert_eq!(watchdog(Some("1000000"), Some("7"), 7), second);
        assert_eq!(watchdog(Some("1000000"), None, 7), second);
        assert_eq!(watchdog(Some("1000000"), Some("8"), 7), None);
        assert_eq!(watchdog(Some("0"), None, 7), None);
        assert_eq!(watchdog(Some("soon"), None, 7), None);
        assert_eq!(watchdog(None, None, 7), None);
    }

    #[test]
    fn a_status_is_one_line() {
        let status = streaming();
        status.redis(Health::Down(format!("refused\nREADY=1 {}", "é".repeat(1000))));
        let line = line(&status.readiness());
        assert!(line.starts_with("not ready: redis: refused READY=1 éé"), "{line}");
        assert!(!line.contains('\n') && line.chars().count() == LONGEST_STATUS + 1, "{line}");
    }
}
