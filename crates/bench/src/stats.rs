//! What many rounds come to: a median, a range, and ratios within rounds.

use crate::measurements::Better;

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

/// The value that 95 of 100 do not exceed, from 20 values on: the nearest rank (Hyndman & Fan 1996, definition 1).
pub fn percentile_95(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (95 * sorted.len()).div_ceil(100);
    sorted
        .get(rank.checked_sub(1)?)
        .copied()
        .filter(|_| sorted.len() >= 20)
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

/// [`ratio`] of each round that both have. Whatever slows a machine down for a while slows both.
pub fn ratios(ours: &[f64], peer: &[f64], better: Better) -> Vec<f64> {
    let rounds = ours.iter().zip(peer);
    rounds
        .map(|(ours, peer)| ratio(*ours, *peer, better))
        .collect()
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
    fn one_of_twenty_may_be_worse_than_the_95th_percentile() {
        let mut values: Vec<f64> = (1..=20).rev().map(f64::from).collect();
        assert_eq!(percentile_95(&values), Some(19.0));
        values.pop();
        assert_eq!(percentile_95(&values), None);
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
    fn ratios_are_those_within_a_round() {
        // The machine halves its speed after the first round; the ratio stays.
        let ratios = ratios(&[2000.0, 1000.0, 1100.0], &[1000.0, 500.0], Better::Higher);
        assert_eq!(ratios, [2.0, 2.0]);
        assert!(super::ratios(&[1.0], &[], Better::Lower).is_empty());
    }

    #[test]
    fn a_ratio_above_one_always_says_that_ours_is_better() {
        assert_eq!(ratio(2000.0, 1000.0, Better::Higher), 2.0);
        assert_eq!(ratio(30.0, 90.0, Better::Lower), 3.0);
        assert_eq!(range(&[2.0, 1.0, 3.0]), Some([1.0, 3.0]));
    }
}
