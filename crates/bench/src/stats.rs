//! What many rounds come to: a median, a range, and for the peers their best mode.

use crate::measurements::Better;

/// How far below its best round a peer's round may lie to count: 20%.
const MODE: f64 = 0.2;

/// The middle value; the mean of the two middle ones where their number is even. None of none.
pub fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let upper = *sorted.get(sorted.len() / 2)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some((sorted[sorted.len() / 2 - 1] + upper) / 2.0)
}

/// The median of the rounds that are within 20% of the best one.
///
/// Keras in `float32` switches between two speeds within one process, for no visible reason. Peers
/// are judged by the better one, so that a ratio never rests on their bad luck.
pub fn best_mode(values: &[f64], better: Better) -> Option<f64> {
    let best = match better {
        Better::Higher => values.iter().copied().reduce(f64::max),
        Better::Lower => values.iter().copied().reduce(f64::min),
    }?;
    let near = |value: &&f64| **value == best || (**value - best).abs() <= MODE * best.abs();
    median(&values.iter().filter(near).copied().collect::<Vec<f64>>())
}

/// The least and the greatest value.
pub fn range(values: &[f64]) -> Option<[f64; 2]> {
    let least = values.iter().copied().reduce(f64::min)?;
    Some([least, values.iter().copied().reduce(f64::max)?])
}

/// How many times better ours is than a peer's: a rate is better when it is higher, a time when it is lower.
pub fn ratio(ours: f64, peer: f64, better: Better) -> f64 {
    match better {
        Better::Higher => ours / peer,
        Better::Lower => peer / ours,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), Some(2.5));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn a_run_that_never_arrived_counts_as_the_longest() {
        assert_eq!(median(&[60.0, f64::INFINITY, 70.0]), Some(70.0));
        assert_eq!(
            median(&[f64::INFINITY, f64::INFINITY, 70.0]),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn of_two_speeds_the_better_one_counts() {
        let two_speeds = [600.0, 1090.0, 610.0, 1080.0, 1100.0, 605.0];
        assert_eq!(best_mode(&two_speeds, Better::Higher), Some(1090.0));
        assert_eq!(
            best_mode(&[0.9, 0.5, 0.52, 1.1, 0.51], Better::Lower),
            Some(0.51)
        );
        assert_eq!(best_mode(&[], Better::Lower), None);
    }

    #[test]
    fn the_best_round_always_counts() {
        assert_eq!(best_mode(&[0.0, 0.0], Better::Lower), Some(0.0));
        assert_eq!(
            best_mode(&[f64::INFINITY], Better::Lower),
            Some(f64::INFINITY)
        );
    }

    #[test]
    fn a_ratio_above_one_always_says_that_ours_is_better() {
        assert_eq!(ratio(2000.0, 1000.0, Better::Higher), 2.0);
        assert_eq!(ratio(30.0, 90.0, Better::Lower), 3.0);
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some([1.0, 3.0]));
    }
}
