//! Is there enough memory? Asked before a computation begins, because afterwards nobody can answer: the
//! system ends a process that takes too much without a word.

use std::fs;

use anyhow::{Result, ensure};
use tch::Kind;

/// What two numbers that layers put out cost in training, in numbers: themselves, and their share of what
/// lives only for a while (gradients, what operations need beside them). Measured on the lesson's
/// network in `float32`: 0.7 to 0.9 MB an image, where this gives 0.9.
const NUMBERS_FOR_TWO_OUTPUTS: usize = 3;

/// Would learning from `batch` images at once fit into memory? `activations` counts the numbers that
/// all layers put out for one image.
///
/// # Errors
/// When it would not; the error says what would.
pub(crate) fn check_memory(batch: usize, activations: usize, kind: Kind) -> Result<()> {
    let image = NUMBERS_FOR_TWO_OUTPUTS * activations * kind.elt_size_in_bytes() / 2;
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
    let number = |name: &str| -> Option<usize> {
        let text = fs::read_to_string(format!("/sys/fs/cgroup/{name}")).ok()?;
        text.trim().parse().ok()
    };
    Some(number("memory.max")?.saturating_sub(number("memory.current")?))
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
    #[cfg(target_os = "linux")]
    fn this_system_says_how_much_is_free() {
        assert!(free_memory().is_some_and(|free| free > 10_000_000));
    }
}
