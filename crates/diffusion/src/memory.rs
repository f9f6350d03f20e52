//! Is there enough memory? Asked before a computation begins, because afterwards nobody can answer: the
//! system ends a process that takes too much without a word.

use std::fs;

use anyhow::{Result, ensure};
use tch::Kind;

/// What a number that a layer puts out costs in training, in numbers: itself, and its share of what
/// lives only for a while (gradients, what operations need beside them). Measured on the lesson's
/// network in `float32`: 0.7 to 0.9 MB an image, where this gives 0.9.
const NUMBERS_AN_OUTPUT: f64 = 1.5;

/// Would learning from `batch` images at once fit into memory? `activations` counts the numbers that
/// all layers put out for one image.
///
/// # Errors
/// When it would not; the error says what would.
pub(crate) fn check_memory(batch: usize, activations: usize, kind: Kind) -> Result<()> {
    let numbers = NUMBERS_AN_OUTPUT * activations as f64;
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

/// How many bytes this process may still take, where the system says so: what is available on the machine,
/// or what is left of the container's share if that is less.
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

/// What is left of a limit. Files that the system keeps at hand count as used, but give way.
fn rest(limit: usize, used: usize, stat: &str) -> usize {
    let gives_way: usize = stat
        .lines()
        .filter_map(|line| line.split_once(' '))
        .filter(|(name, _)| ["active_file", "inactive_file", "slab_reclaimable"].contains(name))
        .filter_map(|(_, bytes)| bytes.trim().parse::<usize>().ok())
        .sum();
    limit.saturating_sub(used.saturating_sub(gives_way))
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
    fn files_that_a_container_keeps_at_hand_count_as_free() {
        let stat = "anon 300\nfile 600\nactive_file 200\ninactive_file 350\nslab_reclaimable 20\n";
        assert_eq!(rest(1_000, 950, stat), 620);
        assert_eq!(rest(1_000, 950, ""), 50);
        assert_eq!(rest(1_000, 1_100, ""), 0);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn this_system_says_how_much_is_free() {
        assert!(free_memory().is_some_and(|free| free > 10_000_000));
    }
}
