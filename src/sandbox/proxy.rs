//! A TCP proxy on loopback, for networks that fail by script.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::error::SandboxError;
use super::ports::Port;

const CHUNK: usize = 16 * 1024;
/// Between attempts to listen again, should the kernel still hold the port.
const LISTEN_AGAIN: Duration = Duration::from_millis(10);

/// What the proxy does at the moment.
#[derive(Debug, Clone, Copy)]
struct Mode {
    refuse: bool,
    /// Bytes wait here, in both directions.
    pause: bool,
    /// Requests go through, answers are thrown away.
    lose_answers: bool,
    delay: Duration,
}

const CLEAR: Mode =
    Mode { refuse: false, pause: false, lose_answers: false, delay: Duration::ZERO };

/// A proxy before a server. Forwards, until told otherwise; when dropped, it
/// ends and every connection through it.
#[derive(Debug)]
pub struct Proxy {
    port: Port,
    target: watch::Sender<SocketAddr>,
    mode: watch::Sender<Mode>,
    listening: watch::Receiver<bool>,
    /// Ends the connections that are open now.
    cut: Arc<Mutex<CancellationToken>>,
    end: CancellationToken,
}

impl Proxy {
    /// Listens on a port of its own and forwards to `target`.
    ///
    /// # Errors
    /// There is no free port.
    pub async fn start(target: SocketAddr) -> Result<Proxy, SandboxError> {
        let port = Port::reserve()?;
        let listener = TcpListener::bind(port.address())
            .await
            .map_err(SandboxError::io(format!("listen on {}", port.address())))?;
        let (mode, modes) = watch::channel(CLEAR);
        let (says_listening, listening) = watch::channel(true);
        let end = CancellationToken::new();
        let cut = Arc::new(Mutex::new(end.child_token()));
        let (target, targets) = watch::channel(target);
        let accept = Accept {
            address: port.address(),
            targets,
            modes,
            says_listening,
            cut: Arc::clone(&cut),
        };
        let ended = end.clone();
        tokio::spawn(async move { ended.run_until_cancelled(accept.run(listener)).await });
        Ok(Proxy { port, target, mode, listening, cut, end })
    }

    /// Leads connections from here on to another server, as a virtual address does after a
    /// failover. Those that are open stay where they are.
    pub fn redirect(&self, target: SocketAddr) {
        self.target.send_replace(target);
    }

    /// The port to connect to, on 127.0.0.1.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Host and port to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.port.address()
    }

    /// Drops all connections, both sides see a reset. New ones are let in.
    pub fn cut(&self) {
        let fresh = self.end.child_token();
        let old = {
            let mut cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *cut, fresh)
        };
        old.cancel();
    }

    /// Holds back every byte; connections stay open and new ones are let in.
    pub fn pause(&self) {
        self.mode.send_modify(|mode| mode.pause = true);
    }

    /// Lets requests through and throws their answers away: what was asked for
    /// happens, and the one who asked never learns. Follow it by [`Proxy::cut`].
    pub fn lose_answers(&self) {
        self.mode.send_modify(|mode| mode.lose_answers = true);
    }

    /// Makes every chunk of bytes take this much longer, each way.
    pub fn delay(&self, delay: Duration) {
        self.mode.send_modify(|mode| mode.delay = delay);
    }

    /// Refuses new connections; those that are open stay (see [`Proxy::cut`]).
    pub async fn refuse(&self) {
        self.mode.send_modify(|mode| mode.refuse = true);
        self.until_listening(false).await;
    }

    /// Forwards again as at first. What was held back goes on its way.
    pub async fn resume(&self) {
        self.mode.send_replace(CLEAR);
        self.until_listening(true).await;
    }

    async fn until_listening(&self, expected: bool) {
        let mut listening = self.listening.clone();
        // It fails only when the task has ended with its runtime: then nobody listens anyway.
        let _ended = listening.wait_for(|&listening| listening == expected).await;
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

/// The task that lets connections in.
struct Accept {
    address: SocketAddr,
    targets: watch::Receiver<SocketAddr>,
    modes: watch::Receiver<Mode>,
    says_listening: watch::Sender<bool>,
    cut: Arc<Mutex<CancellationToken>>,
}

impl Accept {
    async fn run(self, first: TcpListener) {
        let mut modes = self.modes.clone();
        let mut listener = Some(first);
        loop {
            if modes.borrow_and_update().refuse {
                listener = None;
            } else if listener.is_none() {
                match TcpListener::bind(self.address).await {
                    Ok(again) => listener = Some(again),
                    Err(_) => {
                        tokio::time::sleep(LISTEN_AGAIN).await;
                        continue;
                    }
                }
            }
            self.says_listening.send_replace(listener.is_some());
            let accepted = async {
                match &listener {
                    Some(listener) => listener.accept().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = modes.changed() => if changed.is_err() { return },
                // An error concerns that one connection, which is gone (accept(2)).
                accepted = accepted => if let Ok((client, _)) = accepted {
                    let cut = self.cut.lock().unwrap_or_else(PoisonError::into_inner).clone();
                    let target = *self.targets.borrow();
                    tokio::spawn(connection(client, target, self.modes.clone(), cut));
                },
            }
        }
    }
}

async fn connection(
    mut client: TcpStream,
    target: SocketAddr,
    modes: watch::Receiver<Mode>,
    cut: CancellationToken,
) {
    let Ok(mut server) = TcpStream::connect(target).await else {
        let _closed = client.set_zero_linger();
        return;
    };
    // The servers' own clients set this too; without it the proxy would add latency.
    let _slower = client.set_nodelay(true).and_then(|()| server.set_nodelay(true));
    let reset = {
        let (from_client, to_client) = client.split();
        let (from_server, to_server) = server.split();
        let both = async {
            tokio::try_join!(
                pump(from_client, to_server, modes.clone(), false),
                pump(from_server, to_client, modes, true),
            )
        };
        tokio::select! {
            // What was held back when it was cut must not go through, whatever comes after.
            biased;
            () = cut.cancelled() => true,
            // An error on one side must not look like an orderly end on the other.
            ended = both => ended.is_err(),
        }
    };
    if reset {
        let _closed = client.set_zero_linger();
        let _closed = server.set_zero_linger();
    }
}

/// Forwards one direction until its end, which it passes on.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut modes: watch::Receiver<Mode>,
    answers: bool,
) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = from.read(&mut buffer).await?;
        let flowing = modes.wait_for(|mode| !mode.pause).await.map(|mode| *mode);
        let mode = flowing.map_err(|_| io::ErrorKind::ConnectionAborted)?;
        if read == 0 {
            return to.shutdown().await;
        }
        if answers && mode.lose_answers {
            continue;
        }
        if !mode.delay.is_zero() {
            tokio::time::sleep(mode.delay).await;
        }
        to.write_all(buffer.get(..read).unwrap_or_default()).await?;
    }
}
