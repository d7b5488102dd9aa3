//! A server's process: started, frozen, killed, and never left behind.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use rustix::process::{getpid, getppid, kill_process, set_parent_process_death_signal, waitid};

use super::procfs;

/// How long a server may take to end after it was told to, when its owner goes.
pub(super) const END_BOUND: Duration = Duration::from_secs(5);
const POLL: Duration = Duration::from_millis(3);

/// A running server; ended when dropped.
///
/// Also for servers that a sandbox does not know, such as the daemon under test.
#[derive(Debug)]
pub struct Process {
    pid: Pid,
    /// What makes the server end at once, tidily.
    end: Signal,
    exit: Arc<Exit>,
}

/// How the process ended, once it has.
#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<io::Result<ExitStatus>>>,
    ended: Condvar,
}

impl Exit {
    fn status(&self) -> MutexGuard<'_, Option<io::Result<ExitStatus>>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts a server, which dies with this process.
    ///
    /// It is started and awaited by a thread of its own: the kernel sends the
    /// parent-death signal when the *thread* ends that has started the child
    /// (prctl(2), `PR_SET_PDEATHSIG`), and a runtime's threads come and go.
    ///
    /// # Errors
    /// The program cannot be started.
    pub fn start(mut command: Command, name: &'static str, end: Signal) -> io::Result<Process> {
        let parent = getpid();
        let guard = move || {
            set_parent_process_death_signal(Some(Signal::KILL))?;
            // The parent may have died before the signal was asked for.
            if getppid() == Some(parent) { Ok(()) } else { Err(io::ErrorKind::NotFound.into()) }
        };
        // A group of its own: Ctrl-C in a terminal is for us to act on.
        command.process_group(0);
        #[expect(unsafe_code, reason = "only what runs in the child itself can ask for the signal")]
        // SAFETY: between fork and exec only async-signal-safe calls are allowed. `guard` makes
        // two plain system calls; it neither allocates nor locks.
        unsafe {
            command.pre_exec(guard);
        }

        let exit = Arc::new(Exit::default());
        let (started, start) = mpsc::sync_channel(1);
        let watched = Arc::clone(&exit);
        thread::Builder::new()
            .name(format!("sandbox-{name}"))
            .spawn(move || keep(command, &watched, &started))?;
        let pid = start.recv().unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into()))?;
        Ok(Process { pid, end, exit })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid.as_raw_nonzero().get().unsigned_abs()
    }

    /// How it ended, in words; `None` while it runs.
    #[must_use]
    pub fn ended(&self) -> Option<String> {
        match &*self.exit.status() {
            None => None,
            Some(Ok(status)) => Some(status.to_string()),
            Some(Err(error)) => Some(format!("it could not be awaited: {error}")),
        }
    }

    /// Its exit code; `None` while it runs, or when a signal ended it.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.exit.status().as_ref()?.as_ref().ok()?.code()
    }

    /// Waits for the end, at most `bound`. Whether it came.
    pub async fn wait(&self, bound: Duration) -> bool {
        eventually(bound, || self.exit.status().is_some()).await
    }

    /// Sends a signal; nothing happens once it has ended.
    pub fn signal(&self, signal: Signal) {
        // While this lock is held the process cannot be reaped, so its id is its own.
        let status = self.exit.status();
        if status.is_none() {
            let _gone = kill_process(self.pid, signal);
        }
    }

    /// Freezes the process and its children: they neither answer nor end.
    pub(super) async fn pause(&self) {
        self.signal(Signal::STOP);
        // Once the parent stands still, no more children come.
        eventually(END_BOUND, || procfs::is_still(self.pid)).await;
        let children = self.signal_children(Signal::STOP);
        eventually(END_BOUND, || children.iter().all(|&pid| procfs::is_still(pid))).await;
    }

    pub(super) fn resume(&self) {
        self.signal_children(Signal::CONT);
        self.signal(Signal::CONT);
    }

    /// Kills the process and its children with no chance to tidy up, as a crash
    /// of the machine would, and waits until they are gone.
    pub(super) async fn kill(&self) -> bool {
        self.signal(Signal::STOP);
        eventually(END_BOUND, || procfs::is_still(self.pid)).await;
        let children = self.signal_children(Signal::KILL);
        self.signal(Signal::KILL);
        self.wait(END_BOUND).await
            && eventually(END_BOUND, || children.iter().all(|&pid| procfs::is_gone(pid))).await
    }

    fn signal_children(&self, signal: Signal) -> Vec<Pid> {
        let children = procfs::children(self.pid);
        for &pid in &children {
            let _gone = kill_process(pid, signal);
        }
        children
    }

    fn wait_blocking(&self, bound: Duration) -> bool {
        let running = |status: &mut Option<_>| status.is_none();
        let waited = self.exit.ended.wait_timeout_while(self.exit.status(), bound, running);
        let (status, _) = waited.unwrap_or_else(PoisonError::into_inner);
        status.is_some()
    }
}

impl Drop for Process {
    /// Blocks for some milliseconds. A server that is told to end leaves
    /// nothing in shared memory; one that does not listen is killed.
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        self.signal(self.end);
        self.resume();
        if !self.wait_blocking(END_BOUND) {
            self.signal_children(Signal::KILL);
            self.signal(Signal::KILL);
            self.wait_blocking(END_BOUND);
        }
    }
}

/// Starts the process, says so, and waits for its end.
fn keep(mut command: Command, exit: &Exit, started: &mpsc::SyncSender<io::Result<Pid>>) {
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(error) => {
            let _nobody_waits = started.send(Err(error));
            return;
        }
    };
    let pid = Pid::from_child(&child);
    let _nobody_waits = started.send(Ok(pid));
    // Wait first and reap later, under the lock that `signal` takes.
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    while matches!(waitid(WaitId::Pid(pid), options), Err(rustix::io::Errno::INTR)) {}
    let mut status = exit.status();
    *status = Some(child.wait());
    exit.ended.notify_all();
}

/// Waits until something holds, at most `bound`. Whether it does.
pub(super) async fn eventually(bound: Duration, mut holds: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if holds() {
            return true;
        }
        if start.elapsed() > bound {
            return false;
        }
        tokio::time::sleep(POLL).await;
    }
}
