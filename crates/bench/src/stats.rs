//! Statistics over rounds: median, range, interval, and ratios within rounds.

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

/// The fewest values whose median has a 95 % interval.
pub const FEWEST: usize = 6;

/// The distribution-free 95 % interval of the median of what these values were drawn from: the k-th lowest and the k-th
/// highest value, with the greatest k for which the median lies between them with a probability of at least 95 %. Of n independent
/// values the number below the median is binomial, so that probability is 1 - 2 P(Bin(n, 1/2) < k) (David & Nagaraja, Order
/// Statistics, 2003, section 7.1). None of fewer than [`FEWEST`].
pub fn median_interval(values: &[f64]) -> Option<[f64; 2]> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = rank_of_interval(sorted.len())?;
    Some([sorted[rank - 1], sorted[sorted.len() - rank]])
}

/// The k of [`median_interval`], of at most 1000 values (with many more the first term is too small for a number).
fn rank_of_interval(count: usize) -> Option<usize> {
    let mut term = 0.5f64.powi(i32::try_from(count).ok()?); // P(Bin = 0)
    let (mut below, mut rank) = (0.0, 0);
    loop {
        below += term;
        if 2.0 * below > 0.05 {
            return (rank > 0).then_some(rank);
        }
        term *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
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
    fn the_ranks_of_the_interval_are_those_of_the_binomial_distribution() {
        // The sums of binomial coefficients: 2 * 1/64, 2 * (1 + 15 + 105 + 455)/32768, 2 * 21700/1048576 are at most 0.05.
        for (count, rank) in [
            (6, 1),
            (8, 1),
            (9, 2),
            (15, 4),
            (20, 6),
            (100, 40),
            (1000, 469),
        ] {
            assert_eq!(rank_of_interval(count), Some(rank), "{count}");
        }
        for count in 0..FEWEST {
            assert_eq!(rank_of_interval(count), None, "{count}");
        }
    }

    #[test]
    fn the_interval_is_made_of_order_statistics() {
        let values: Vec<f64> = (1..=15).rev().map(f64::from).collect();
        assert_eq!(median_interval(&values), Some([4.0, 12.0]));
        assert_eq!(median_interval(&values[..6]), Some([10.0, 15.0]));
        assert_eq!(median_interval(&values[..5]), None);
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
