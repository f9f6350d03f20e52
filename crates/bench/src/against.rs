//! How ours compare with another commit ([`crate::other`]): median ratios with intervals.

use serde::Serialize;

use crate::measurements::Better;
use crate::stats::{FEWEST, median, median_interval, range, ratios};
use crate::text::number;

/// What the interval is; stands in the report and below the table.
pub const INTERVAL: &str = "The ratio is the median over the rounds of the ratio within a round; above 1 ours is better. The 95 % interval of \
that median is distribution-free: its ends are order statistics of the ratios, the k-th lowest and the k-th highest, with k from \
the binomial distribution of how many independent rounds lie below their median. It needs at least 6 ratios.";

/// How ours compare with the other commit in one measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Against {
    /// The full name of the commit.
    pub commit: String,
    /// The median of its rounds.
    pub value: f64,
    /// Its lowest and highest round.
    pub range: [f64; 2],
    /// Its rounds.
    pub rounds: Vec<f64>,
    /// How many rounds have a ratio.
    pub pairs: usize,
    /// How many times better ours is: the median over the rounds of the ratio within a round.
    pub ratio: Option<f64>,
    /// The distribution-free 95 % interval of that median; null with fewer than 6 ratios.
    pub interval: Option<[f64; 2]>,
}

impl Against {
    /// Compares; None if the other commit has no value.
    pub fn new(commit: &str, ours: &[f64], rounds: Vec<f64>, better: Better) -> Option<Against> {
        let (value, range) = median(&rounds).zip(range(&rounds))?;
        // A ratio needs two positive values: a change in percent can be negative, and then "times better" means nothing.
        let positive = ours.iter().copied().zip(rounds.iter().copied());
        let positive = positive.filter(|(ours, theirs)| *ours > 0.0 && *theirs > 0.0);
        let (ours, theirs): (Vec<f64>, Vec<f64>) = positive.unzip();
        let mut ratios = ratios(&ours, &theirs, better);
        // Two trainings that both never arrive have no ratio.
        ratios.retain(|ratio| !ratio.is_nan());
        Some(Against {
            commit: commit.to_owned(),
            value,
            range,
            ratio: median(&ratios),
            interval: median_interval(&ratios),
            pairs: ratios.len(),
            rounds,
        })
    }

    /// The commit as it is printed.
    pub fn short(&self) -> &str {
        short(&self.commit)
    }

    /// Ratio and interval in words.
    pub fn words(&self) -> String {
        let ratio = self.ratio.map_or("no ratio".to_owned(), |ratio| {
            format!("median ratio {ratio:.3}")
        });
        let (pairs, rounds) = (self.pairs, self.rounds.len());
        match self.interval {
            Some([low, high]) => {
                format!("{ratio}, 95 % interval {low:.3} - {high:.3}, {pairs} rounds")
            }
            None => {
                format!(
                    "{ratio}, no interval: {pairs} of {rounds} rounds have a ratio, expected at least {FEWEST}"
                )
            }
        }
    }

    /// Whether the interval excludes "as good as".
    fn verdict(&self) -> &'static str {
        match self.interval {
            Some([low, _]) if low > 1.0 => "better",
            Some([_, high]) if high < 1.0 => "WORSE",
            Some(_) => "no difference shown",
            None => "",
        }
    }
}

/// A commit's name in short.
pub fn short(commit: &str) -> &str {
    commit.get(..8).unwrap_or(commit)
}

/// All comparisons as lines for a terminal: name, ours, theirs, ratio, interval, rounds with a ratio.
pub fn table(all: &[(&str, f64, &Against)]) -> Vec<String> {
    let Some((_, _, first)) = all.first() else {
        return Vec::new();
    };
    let head = [
        "measurement",
        "ours",
        first.short(),
        "ratio",
        "95 % interval",
        "rounds",
    ];
    let head = head.map(str::to_owned).into_iter().chain([String::new()]);
    let rows = all.iter().map(|(name, ours, against)| {
        vec![
            (*name).to_owned(),
            number(*ours),
            number(against.value),
            against
                .ratio
                .map_or("-".to_owned(), |it| format!("{it:.3}")),
            against.interval.map_or("-".to_owned(), |[low, high]| {
                format!("{low:.3} - {high:.3}")
            }),
            against.pairs.to_string(),
            against.verdict().to_owned(),
        ]
    });
    let lines: Vec<Vec<String>> = [head.collect()].into_iter().chain(rows).collect();
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max();
    let text = |line: &Vec<String>| {
        let cells = line.iter().enumerate().map(|(column, cell)| {
            let width = width(column).unwrap_or(0);
            match column {
                0 | 6 => format!("  {cell:<width$}"),
                _ => format!("  {cell:>width$}"),
            }
        });
        cells.collect::<String>().trim_end().to_owned()
    };
    lines.iter().map(text).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    fn compare(ours: &[f64], theirs: &[f64]) -> Against {
        Against::new("0123456789ab", ours, theirs.to_vec(), Better::Lower).unwrap()
    }

    #[test]
    fn a_comparison_has_an_interval_from_six_rounds_on() {
        let ours = [1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
        let found = compare(&ours, &[1.1, 1.2, 1.3, 1.4, 1.5, 1.6]);
        assert_eq!((found.value, found.range), (1.35, [1.1, 1.6]));
        assert_eq!(found.ratio, Some(1.35));
        assert_eq!(found.interval, Some([1.1, 1.6]));
        assert_eq!(found.verdict(), "better");
        assert!(
            found
                .words()
                .contains("1.350, 95 % interval 1.100 - 1.600, 6 rounds")
        );
        let found = compare(&ours[..5], &[1.1, 1.2, 1.3, 1.4, 1.5]);
        assert_eq!((found.ratio, found.interval), (Some(1.3), None));
        let words = found.words();
        assert!(
            words.ends_with("5 of 5 rounds have a ratio, expected at least 6"),
            "{words}"
        );
        assert!(Against::new("0", &ours, Vec::new(), Better::Lower).is_none());
    }

    #[test]
    fn trainings_that_never_arrive_have_no_ratio() {
        let found = compare(&[f64::INFINITY; 6], &[f64::INFINITY; 6]);
        assert_eq!((found.ratio, found.interval), (None, None));
        assert_eq!((found.pairs, found.rounds.len()), (0, 6));
    }

    #[test]
    fn only_two_positive_values_have_a_ratio() {
        let ours = [-1.0, 0.0, 2.0, 2.0, 1.0, 1.0, -1.0];
        let found = compare(&ours, &[1.0, 1.0, 0.0, -1.0, 2.0, 4.0, -2.0]);
        assert_eq!((found.ratio, found.pairs), (Some(3.0), 2));
        assert_eq!((found.value, found.rounds.len()), (1.0, 7));
        assert!(found.words().contains("2 of 7 rounds have a ratio"));
        assert_eq!(compare(&[-0.1], &[0.1]).ratio, None);
    }

    #[test]
    fn the_table_says_where_the_interval_lies() {
        let same = compare(&[1.0; 6], &[0.9, 1.1, 0.9, 1.1, 0.9, 1.1]);
        let worse = compare(&[1.0; 6], &[0.5; 6]);
        let few = compare(&[1.0], &[0.5]);
        let lines = table(&[
            ("mnist_load", 1.0, &same),
            ("explorer", 1.0, &worse),
            ("few", 1.0, &few),
        ]);
        let expected = [
            "  measurement   ours  01234567  ratio  95 % interval  rounds",
            "  mnist_load   1.000     1.000  1.000  0.900 - 1.100       6  no difference shown",
            "  explorer     1.000     0.500  0.500  0.500 - 0.500       6  WORSE",
            "  few          1.000     0.500  0.500              -       1",
        ];
        assert_eq!(lines, expected);
        assert!(table(&[]).is_empty());
    }
}
