//! How values are distributed.

use std::ops::Range;

use anyhow::{Result, ensure};
use tch::{Kind, Tensor};

use super::chart::{Chart, Line, Names};
use super::{looks, ticks};
use crate::output::Output;
use crate::picture::Picture;

const BINS: i64 = 25;

/// How the values of tensors are distributed: `histogram("title", "x axis", &[("clean", &images)])`.
///
/// Heights are shares of all values of a tensor, in percent, in 25 bins of equal width. The axis goes from
/// the smallest to the largest value of all tensors; for pixels, that is values in `[0, 1]` that cover at
/// least half of it, from 0 to 1. One tensor is drawn as a filled shape, several as outlines.
pub fn histogram(title: &str, axis: &str, tensors: &[(&str, &Tensor)]) -> Output {
    let names: Vec<&str> = tensors.iter().map(|(name, _)| *name).collect();
    let alt = format!(
        "Histogram, {title}: share of values over {axis}, for {}",
        names.join(" and ")
    );
    Output::picture(draw(title, axis, tensors, &names), alt)
}

fn draw(title: &str, axis: &str, tensors: &[(&str, &Tensor)], names: &[&str]) -> Result<Picture> {
    let mut ends = Vec::new();
    for (name, tensor) in tensors {
        ensure!(
            tensor.numel() > 0,
            "the tensor {name:?} is empty; expected at least one value"
        );
        ensure!(
            bool::try_from(tensor.isfinite().all())?,
            "the tensor {name:?} holds numbers that are not finite"
        );
        for end in [tensor.min(), tensor.max()] {
            ends.push(end.to_kind(Kind::Double).double_value(&[]));
        }
    }
    ensure!(
        !ends.is_empty(),
        "there is nothing to draw; expected at least one tensor"
    );
    let x = range(&ends)?;
    let mut lines = Vec::new();
    for ((name, tensor), look) in tensors.iter().zip(looks::of(names)?) {
        lines.push(Line {
            name: (*name).to_owned(),
            points: outline(&shares(tensor, &x)?, &x),
            look,
            marked: false,
            filled: tensors.len() == 1,
        });
    }
    let heights = lines.iter().flat_map(|line| &line.points);
    let top = heights.map(|point| point.1).fold(0.0, f64::max);
    Chart {
        title,
        axes: (axis, "share of values, %"),
        x,
        y: 0.0..top * 1.05,
        lines,
        names: Names::Legend,
    }
    .svg()
}

/// The range of the axis, from the smallest and the largest value of each tensor.
fn range(ends: &[f64]) -> Result<Range<f64>> {
    let low = ends.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ends.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if low >= 0.0 && high <= 1.0 && high - low >= 0.5 {
        return Ok(0.0..1.0);
    }
    ticks::span(ends.iter().copied(), 0.0)
}

/// The share of a tensor's values in each bin, in percent. The last bin includes its right end.
fn shares(tensor: &Tensor, x: &Range<f64>) -> Result<Vec<f64>> {
    let values = tensor.detach().to_kind(Kind::Double).flatten(0, -1);
    let bins = ((values - x.start) / (x.end - x.start) * BINS)
        .floor()
        .clamp(0, BINS - 1)
        .to_kind(Kind::Int64);
    let counts = bins.bincount::<Tensor>(None, BINS).to_kind(Kind::Double);
    let counts = Vec::<f64>::try_from(counts)?;
    let total: f64 = counts.iter().sum();
    Ok(counts
        .into_iter()
        .map(|count| 100.0 * count / total)
        .collect())
}

/// The outline of bars of these heights.
fn outline(shares: &[f64], x: &Range<f64>) -> Vec<(f64, f64)> {
    let edge = |at: usize| x.start + (x.end - x.start) * at as f64 / shares.len() as f64;
    let mut points = vec![(x.start, 0.0)];
    for (at, &share) in shares.iter().enumerate() {
        points.extend([(edge(at), share), (edge(at + 1), share)]);
    }
    points.push((x.end, 0.0));
    points
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn distribution(tensor: &Tensor) -> (Range<f64>, Vec<f64>) {
        let x = range(&[
            tensor.min().double_value(&[]),
            tensor.max().double_value(&[]),
        ])
        .unwrap();
        let shares = shares(tensor, &x).unwrap();
        assert!((shares.iter().sum::<f64>() - 100.0).abs() < 1e-9);
        (x, shares)
    }

    #[test]
    fn a_histogram_of_normal_noise_is_a_bell() {
        tch::manual_seed(1);
        let noise = Tensor::randn([10_000], (Kind::Float, Device::Cpu));
        let (x, shares) = distribution(&noise);
        assert!(x.start < -3.0 && x.end > 3.0, "{x:?}");
        // No bar holds much more than the density at 0, 0.4, times the width of a bar.
        let most = shares.iter().copied().fold(0.0, f64::max);
        let expected = 100.0 * 0.4 * (x.end - x.start) / BINS as f64;
        assert!(most < 1.2 * expected, "{most} {expected}");
    }

    #[test]
    fn pixels_are_shown_from_0_to_1() {
        let pixels = Tensor::from_slice(&[0.0f32, 0.1, 0.5, 0.93]);
        let (x, shares) = distribution(&pixels);
        assert_eq!(x, 0.0..1.0);
        assert_eq!(
            (shares[0], shares[2], shares[12], shares[23]),
            (25.0, 25.0, 25.0, 25.0)
        );
        // Small numbers are not pixels.
        assert_eq!(distribution(&(pixels * 0.1)).0.start, 0.0);
        let (x, _) = distribution(&(Tensor::from_slice(&[0.001f32, 0.002])));
        assert!(x.end < 0.01, "{x:?}");
    }

    #[test]
    fn one_value_is_one_bar() {
        for value in [0.0, 3.0, -1e-8] {
            let (_, shares) = distribution(&Tensor::from_slice(&[value, value]));
            assert_eq!(shares[12], 100.0, "{value}");
        }
    }
}
