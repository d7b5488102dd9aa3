//! Ports that stay ours while nobody listens on them.
//!
//! A server that is down must find its port free when it comes back. So ports
//! come from below the range that the kernel hands out to connections
//! (`ip_local_port_range`, 32768 and up by default), and a locked file a port
//! keeps other sandboxes away from it.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use rustix::fs::FlockOperation;

use super::error::SandboxError;
use super::folder;

const RANGE: std::ops::Range<u16> = 15_000..30_000;
const ATTEMPTS: usize = 200;

/// A port on loopback that no other sandbox uses until this is dropped.
#[derive(Debug)]
pub(super) struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// Finds a port that is free now.
    pub(super) fn reserve() -> Result<Port, SandboxError> {
        let ports = folder::root()?.join("ports");
        fs::create_dir_all(&ports)
            .map_err(SandboxError::io(format!("make {}", ports.display())))?;
        for _ in 0..ATTEMPTS {
            let number = fastrand::u16(RANGE);
            let file = ports.join(number.to_string());
            let Ok(lock) = folder::lock(&file, FlockOperation::NonBlockingLockExclusive) else {
                continue;
            };
            if TcpListener::bind((Ipv4Addr::LOCALHOST, number)).is_ok() {
                return Ok(Port { number, _lock: lock });
            }
        }
        Err(SandboxError::Folder {
            path: ports,
            why: format!("no free port was found between {} and {}", RANGE.start, RANGE.end),
        })
    }

    pub(super) fn number(&self) -> u16 {
        self.number
    }

    pub(super) fn address(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.number).into()
    }
}
