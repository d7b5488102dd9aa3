//! Where and with what a benchmark ran: a number without it means nothing.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use unstale::sandbox::Postgres;

/// The machine, the versions, the date and the command.
pub fn describe(postgres: &Postgres) -> Value {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo")
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, model)| model.trim().to_owned());
    json!({
        "date": output("date".as_ref(), &["-u", "+%Y-%m-%dT%H:%M:%SZ"]),
        "cores": std::thread::available_parallelism().map_or(0, usize::from),
        "cpu": cpu.unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "unstale": env!("CARGO_PKG_VERSION"),
        "postgres": output(&postgres.program("postgres"), &["--version"]),
        "redis": output("redis-server".as_ref(), &["--version"]),
        "command": command(),
    })
}

fn output(program: &Path, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |error| format!("unknown ({error})"),
        |output| String::from_utf8_lossy(&output.stdout).trim().to_owned(),
    )
}

/// The sizes that were set, which benchmarks, and the command that takes them.
fn command() -> String {
    let sizes = std::env::vars().filter(|(name, _)| name == "BENCH" || name.starts_with("BENCH_"));
    let mut words: Vec<String> = sizes.map(|(name, value)| format!("{name}={value}")).collect();
    words.sort();
    words.push("make bench".to_owned());
    words.join(" ")
}

/// User and system time of a process since its start, in seconds: by its clock, which has
/// nanoseconds, and what its threads took that have ended. (`/proc/PID/stat` has hundredths of a
/// second.)
pub fn cpu_seconds(pid: u32) -> f64 {
    let pid = i32::try_from(pid).expect("a pid");
    let (mut clock, mut time) = (0, libc::timespec { tv_sec: 0, tv_nsec: 0 });
    // SAFETY: both write to what they are given, which lives here, and nowhere else.
    #[allow(unsafe_code, reason = "rustix reads the clocks of other processes by no pid")]
    let read = unsafe {
        libc::clock_getcpuclockid(pid, &mut clock) == 0
            && libc::clock_gettime(clock, &mut time) == 0
    };
    assert!(read, "process {pid} runs");
    time.tv_sec as f64 + time.tv_nsec as f64 / 1e9
}

/// How often the threads of a process have gone to sleep of themselves, and so were woken.
pub fn wakeups(pid: u32) -> u64 {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("it runs");
    let of_task = |task: std::io::Result<std::fs::DirEntry>| {
        // A thread that has ended meanwhile counts no more.
        let status = std::fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        field(&status, "voluntary_ctxt_switches:")
    };
    tasks.filter_map(of_task).sum()
}

/// The memory that a process holds of files, in bytes: its program, mostly. The kernel may drop it.
pub fn rss_of_files(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("it runs");
    field(&status, "RssFile:").expect("Linux tells it") * 1024
}

fn field(status: &str, name: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix(name))?;
    value.split_whitespace().next()?.parse().ok()
}
