//! What Redis has counted: commands, bytes and its own CPU time.

use std::ops::Sub;

use redis::aio::MultiplexedConnection;

/// Since its start, or between two looks.
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    /// Commands, those that scripts call among them; without those by which benchmarks look on
    /// and fill.
    pub commands: f64,
    /// Bytes that it was sent.
    pub bytes: f64,
    /// Seconds.
    pub cpu: f64,
}

/// Nothing that is measured sends these.
const OF_BENCHMARKS: [&str; 4] = ["mset", "hget", "info", "exists"];

impl Traffic {
    pub async fn read(redis: &mut MultiplexedConnection) -> Traffic {
        let info: String =
            redis::cmd("INFO").arg("everything").query_async(redis).await.expect("Redis answers");
        let mut traffic = Traffic::default();
        for (name, value) in info.lines().filter_map(|line| line.split_once(':')) {
            let number = || value.parse::<f64>().expect("a number");
            match name {
                "total_net_input_bytes" => traffic.bytes = number(),
                "used_cpu_user" | "used_cpu_sys" => traffic.cpu += number(),
                _ => {
                    let command = name.strip_prefix("cmdstat_");
                    if command.is_some_and(|command| !OF_BENCHMARKS.contains(&command)) {
                        let calls = value.split(',').find_map(|field| field.strip_prefix("calls="));
                        let calls = calls.and_then(|calls| calls.parse::<f64>().ok());
                        traffic.commands += calls.expect("calls");
                    }
                }
            }
        }
        traffic
    }
}

impl Sub for Traffic {
    type Output = Traffic;

    fn sub(self, before: Traffic) -> Traffic {
        Traffic {
            commands: self.commands - before.commands,
            bytes: self.bytes - before.bytes,
            cpu: self.cpu - before.cpu,
        }
    }
}
