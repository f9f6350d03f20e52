//! The range of an axis, and where it has ticks that can be read.

use std::ops::Range;

use anyhow::{Result, ensure};

use crate::text::grouped;

/// From here on, and below its inverse, numbers are written with an exponent.
const LARGE: f64 = 1e7;
/// Numbers that need more digits than this are written as the distance to a round number.
const DIGITS: f64 = 6.0;

/// The ticks of an axis.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Ticks {
    /// Where each tick stands, and its label. No two labels are equal.
    pub(super) ticks: Vec<(f64, String)>,
    /// What has to be added to the labels' numbers; empty if nothing.
    pub(super) offset: String,
}

impl Ticks {
    /// At most about `most` ticks at round numbers.
    pub(super) fn of(range: &Range<f64>, most: usize) -> Ticks {
        let step = round_step((range.end - range.start) / most.max(3) as f64);
        let largest = range.start.abs().max(range.end.abs());
        let base = if (largest / step).log10() > DIGITS {
            let coarse = coarse(step);
            (range.start.midpoint(range.end) / coarse).round() * coarse
        } else {
            0.0
        };
        let (low, high) = (range.start - base, range.end - base);
        let largest = low.abs().max(high.abs());
        let (first, last) = ((low / step - 1e-6).ceil(), (high / step + 1e-6).floor());
        let count = (last - first).max(0.0) as usize;
        let ticks = (0..=count).map(|at| {
            let value = (first + at as f64) * step;
            (base + value, label(value, step, largest))
        });
        Ticks {
            ticks: ticks.collect(),
            offset: match base {
                0.0 => String::new(),
                _ => label(base, coarse(step), base.abs()),
            },
        }
    }

    pub(super) fn labels(&self) -> Vec<&str> {
        self.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }
}

/// The next number that is 1, 2 or 5 times a power of ten.
fn round_step(at_least: f64) -> f64 {
    let power = 10f64.powf(at_least.log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|times| times * power)
        .find(|&step| step >= at_least * (1.0 - 1e-9))
        .unwrap_or(10.0 * power)
}

/// The unit of an offset: with it, labels have at most four digits.
fn coarse(step: f64) -> f64 {
    10f64.powi(exponent_of(step) + 3)
}

/// A multiple of a step, on an axis whose largest number is `largest`, without zeros that say nothing.
fn label(value: f64, step: f64, largest: f64) -> String {
    if value.abs() < 0.5 * step {
        return "0".to_owned();
    }
    let exponent = exponent_of(step);
    if largest >= LARGE || (largest < 0.01 && step < 1e-4) {
        let decimals = (exponent_of(value) - exponent).max(0) as usize;
        let text = format!("{value:.decimals$e}");
        let (mantissa, power) = text.split_once('e').unwrap_or((&text, "0"));
        return format!("{}e{power}", without_zeros(mantissa));
    }
    let decimals = (-exponent).max(0) as usize;
    let text = format!("{:.decimals$}", value.abs());
    let text = without_zeros(&text);
    let (whole, rest) = text.split_at(text.find('.').unwrap_or(text.len()));
    let sign = if value < 0.0 { "-" } else { "" };
    format!("{sign}{}{rest}", grouped(whole))
}

/// The power of ten of a number's first digit.
fn exponent_of(value: f64) -> i32 {
    // A step of 0.001 is slightly more or less than that.
    (value.abs().log10() + 1e-9).floor() as i32
}

fn without_zeros(number: &str) -> &str {
    match number.contains('.') {
        true => number.trim_end_matches('0').trim_end_matches('.'),
        false => number,
    }
}

/// The range of some numbers, widened on both sides by a share of itself, and never empty.
///
/// # Errors
/// When a number is beyond 1e300, where distances can be infinite in floating point.
pub(super) fn span(values: impl Iterator<Item = f64>, margin: f64) -> Result<Range<f64>> {
    let (low, high) = values
        .filter(|value| value.is_finite())
        .fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
            (low.min(value), high.max(value))
        });
    if low > high {
        return Ok(0.0..1.0);
    }
    ensure!(
        low.abs().max(high.abs()) < 1e300,
        "numbers from {low:e} to {high:e} do not fit on one axis; expected less than 1e300"
    );
    let largest = low.abs().max(high.abs());
    if largest < 1e-290 {
        return Ok(-1.0..1.0);
    }
    // Numbers that are equal but for rounding are one number.
    if high - low <= 1e-12 * largest {
        return Ok(low - 0.5 * largest..low + 0.5 * largest);
    }
    let width = high - low;
    Ok(low - margin * width..high + margin * width)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(low: f64, high: f64) -> Vec<String> {
        let ticks = Ticks::of(&(low..high), 6);
        ticks.ticks.into_iter().map(|(_, label)| label).collect()
    }

    #[test]
    fn ticks_can_be_read_at_any_magnitude() {
        assert_eq!(labels(0.0, 1.0), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
        assert_eq!(labels(-1.0, 1.0), ["-1", "-0.5", "0", "0.5", "1"]);
        assert_eq!(
            labels(0.0, 1e-8),
            ["0", "2e-9", "4e-9", "6e-9", "8e-9", "1e-8"]
        );
        assert_eq!(
            labels(1e-8, 2e-8),
            ["1e-8", "1.2e-8", "1.4e-8", "1.6e-8", "1.8e-8", "2e-8"]
        );
        assert_eq!(labels(0.0, 2e12), ["0", "5e11", "1e12", "1.5e12", "2e12"]);
        assert_eq!(labels(0.0, 60_000.0)[1], "10,000");
        assert_eq!(labels(-12_000.0, 0.0)[0], "-12,000");
        assert_eq!(
            labels(0.0, 0.001),
            ["0", "0.0002", "0.0004", "0.0006", "0.0008", "0.001"]
        );
        assert_eq!(
            labels(17.0, 23.0),
            ["17", "18", "19", "20", "21", "22", "23"]
        );
    }

    #[test]
    fn numbers_that_differ_little_are_written_as_a_distance() {
        let ticks = Ticks::of(&(1e12..1e12 + 5.0), 6);
        assert_eq!(ticks.labels(), ["0", "1", "2", "3", "4", "5"]);
        assert_eq!(ticks.offset, "1e12");
        assert_eq!(ticks.ticks[5].0, 1e12 + 5.0);
        let ticks = Ticks::of(&(0.123_456_700..0.123_456_701), 6);
        assert_eq!(ticks.offset, "0.1234567");
        assert_eq!(ticks.labels()[1], "2e-10");
    }

    #[test]
    fn labels_are_few_short_and_never_equal() {
        for exponent in -280..280 {
            let power = 10f64.powi(exponent);
            for (low, high) in [
                (0.0, 1.0),
                (-3.0, 1.0),
                (1.0, 1.001),
                (0.3, 9.7),
                (-1.0, -0.99),
                (1.0, 1.0 + 1e-9),
            ] {
                let range = span([low * power, high * power].into_iter(), 0.05).unwrap();
                let ticks = Ticks::of(&range, 6);
                let labels = ticks.labels();
                assert!((1..=8).contains(&labels.len()), "{range:?}: {labels:?}");
                for (at, label) in labels.iter().enumerate() {
                    assert!(!labels[..at].contains(label), "{range:?}: {labels:?}");
                    assert!(label.len() <= 13, "{range:?}: {labels:?}");
                }
            }
        }
    }

    #[test]
    fn one_number_has_a_range_of_its_own_magnitude() {
        for value in [0.0, 2.0, -7.0, 1e-8, 2e12, 1e-300] {
            let range = span([value; 3].into_iter(), 0.05).unwrap();
            assert!(range.start < value && value < range.end, "{range:?}");
            let ticks = Ticks::of(&range, 6);
            assert!((2..=8).contains(&ticks.ticks.len()), "{value}: {ticks:?}");
        }
        assert!(span([-1e308, 1e308].into_iter(), 0.0).is_err());
    }
}
