//! What the numbers were measured on.

use std::fs;

use serde::Serialize;

/// The machine, as far as it tells.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// How many CPUs this process may use.
    pub cpus: usize,
    /// Their name.
    pub cpu: String,
    /// Gigabytes of memory.
    pub memory_gb: f64,
    /// The system and its version.
    pub os: String,
}

impl Machine {
    /// This machine.
    pub fn here() -> Machine {
        let kilobytes: f64 = value("/proc/meminfo", "MemTotal", ':')
            .and_then(|text| text.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0);
        let unknown = || "unknown".to_owned();
        Machine {
            cpus: std::thread::available_parallelism().map_or(1, usize::from),
            cpu: value("/proc/cpuinfo", "model name", ':').unwrap_or_else(unknown),
            memory_gb: (kilobytes / 1024.0 / 1024.0 * 10.0).round() / 10.0,
            os: value("/etc/os-release", "PRETTY_NAME", '=').map_or_else(
                || std::env::consts::OS.to_owned(),
                |name| name.replace('"', ""),
            ),
        }
    }

    /// In one line.
    pub fn line(&self) -> String {
        format!(
            "{} CPUs ({}), {} GB, {}",
            self.cpus, self.cpu, self.memory_gb, self.os
        )
    }
}

/// The first value of this name in a file of names and values.
fn value(path: &str, name: &str, between: char) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let mut pairs = text.lines().filter_map(|line| line.split_once(between));
    let (_, value) = pairs.find(|(key, _)| key.trim() == name)?;
    Some(value.trim().to_owned())
}
