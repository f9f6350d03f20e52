//! Checks before a training that there is enough memory, because the system ends a process that takes too much without
//! any message.

use std::fs;

use anyhow::{Result, ensure};
use tch::Kind;

/// How many numbers a training keeps for each number of a layer's output: the output itself, and a share of what is only
/// needed for a while (gradients, scratch memory of the operations). Measured on the lesson's network in `float32`: 0.7 to
/// 0.9 MB for each image; this constant gives 0.9.
const NUMBERS_PER_ACTIVATION: f64 = 1.5;

/// Checks that a training step on `batch` images at once fits into memory. `activations` is how many numbers all layers
/// together put out for one image, and `kind` is the kind of these numbers. Where the system does not say how much memory
/// is free, there is no error.
///
/// # Errors
/// A batch that does not fit. The error names the largest batch that would.
pub fn check_memory(batch: usize, activations: usize, kind: Kind) -> Result<()> {
    let numbers = NUMBERS_PER_ACTIVATION * activations as f64;
    let image = (numbers * kind.elt_size_in_bytes() as f64).ceil().max(1.0) as usize;
    match free_memory() {
        Some(free) => fits(batch, image, free),
        None => Ok(()),
    }
}

fn fits(batch: usize, image: usize, free: usize) -> Result<()> {
    let gigabytes = |bytes: usize| bytes as f64 / 1e9;
    ensure!(
        batch.saturating_mul(image) <= free,
        "a batch of {batch} images needs about {:.1} GB of memory, and {:.1} GB are free; expected at most {} images",
        gigabytes(batch.saturating_mul(image)),
        gigabytes(free),
        free / image,
    );
    Ok(())
}

/// How many bytes this process may still take, where the system says so: the available memory of the machine, or the
/// rest of the container's limit if that is less.
fn free_memory() -> Option<usize> {
    let meminfo = fs::read_to_string("/proc/meminfo").ok()?;
    let line = meminfo
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let available = line.split_whitespace().next()?.parse::<usize>().ok()? * 1024;
    Some(container_rest().map_or(available, |rest| rest.min(available)))
}

fn container_rest() -> Option<usize> {
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok();
    let limit = read("memory.max")?.trim().parse().ok()?;
    let used = read("memory.current")?.trim().parse().ok()?;
    Some(rest(limit, used, &read("memory.stat").unwrap_or_default()))
}

/// The rest of a limit. Cached files count as used, but the system drops them when memory is needed.
fn rest(limit: usize, used: usize, stat: &str) -> usize {
    let reclaimable: usize = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| ["active_file", "inactive_file", "slab_reclaimable"].contains(name))
        .filter_map(|(_, bytes)| bytes.trim().parse::<usize>().ok())
        .sum();
    limit.saturating_sub(used.saturating_sub(reclaimable))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_larger_than_memory_is_named_with_what_would_fit() {
        let error = fits(50_000, 1_000_000, 20_000_000_000).unwrap_err();
        assert_eq!(
            error.to_string(),
            "a batch of 50000 images needs about 50.0 GB of memory, and 20.0 GB are free; expected at most 20000 images"
        );
        assert!(fits(20_000, 1_000_000, 20_000_000_000).is_ok());
    }

    #[test]
    fn cached_files_of_a_container_count_as_free() {
        let stat = "anon 300\nfile 600\nactive_file 200\ninactive_file 350\nslab_reclaimable 20\n";
        assert_eq!(rest(1_000, 950, stat), 620);
        assert_eq!(rest(1_000, 950, ""), 50);
        assert_eq!(rest(1_000, 1_100, ""), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn linux_says_how_much_memory_is_free() {
        assert!(free_memory().is_some_and(|free| free > 10_000_000));
    }
}
