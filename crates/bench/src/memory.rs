//! How much memory a process takes, as Linux tells it below `/proc`.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// One megabyte in the kilobytes that `/proc` counts in.
const KILOBYTES: f64 = 1024.0;
/// How often this process's memory is looked at where its peak cannot be reset.
const LOOK: Duration = Duration::from_millis(2);

/// Does some work, and says by how many megabytes this process grew at most while it was at it.
///
/// # Errors
/// Where there is no `/proc`.
pub fn peak<T>(work: impl FnOnce() -> T) -> Result<(T, f64)> {
    ensure!(
        cfg!(target_os = "linux"),
        "memory is measured by /proc, which only Linux has"
    );
    let own = "/proc/self/status";
    // Writing 5 sets the peak back to what is taken now (man 5 proc, clear_refs).
    let reset = fs::write("/proc/self/clear_refs", "5").is_ok();
    let before = field(own, "VmRSS:")?;
    let (result, highest) = if reset {
        (work(), field(own, "VmHWM:")?)
    } else {
        let at_work = AtomicBool::new(true);
        thread::scope(|scope| {
            let watch = scope.spawn(|| {
                let mut highest: f64 = 0.0;
                while at_work.load(Ordering::Relaxed) {
                    highest = highest.max(field(own, "VmRSS:").unwrap_or(0.0));
                    thread::sleep(LOOK);
                }
                highest
            });
            // Also when the work panics, else the watch would go on for ever.
            let result = {
                let _done = Done(&at_work);
                work()
            };
            (result, watch.join().unwrap_or(0.0))
        })
    };
    Ok((result, (highest - before).max(0.0)))
}

/// Says that the work is done, however it ended.
struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(false, Ordering::Relaxed);
    }
}

/// What a process takes for itself and its share of what it has in common with others, in megabytes.
///
/// # Errors
/// When there is no such process, or no `/proc`.
pub fn share(process: u32) -> Result<f64> {
    field(&format!("/proc/{process}/smaps_rollup"), "Pss:")
}

/// A line like `VmRSS:   12345 kB` of a file, in megabytes.
fn field(path: &str, name: &str) -> Result<f64> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let number = line.and_then(|rest| rest.split_whitespace().next()?.parse::<f64>().ok());
    Ok(number.with_context(|| format!("{path}: expected a line `{name} … kB`"))? / KILOBYTES)
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    #[test]
    fn memory_that_was_given_back_counts_at_its_peak() {
        let (sum, megabytes) = peak(|| {
            let large = vec![1u8; 64 << 20];
            large.iter().map(|&byte| u64::from(byte)).sum::<u64>()
        })
        .unwrap();
        assert_eq!(sum, 64 << 20);
        assert!((55.0..400.0).contains(&megabytes), "{megabytes}");
    }

    #[test]
    fn a_process_has_a_share_of_the_memory() {
        assert!(share(std::process::id()).unwrap() > 0.1);
        assert!(share(u32::MAX).is_err());
    }
}
