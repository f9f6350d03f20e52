//! Two pictures: how many times better ours is, and the race as curves.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use diffusion::figure::{Figure, Series, curve};

use crate::race::{Curve, GOAL};
use crate::report::Outcome;

const WIDTH: f64 = 840.0;
const HEAD: f64 = 78.0;
const ROW: f64 = 26.0;
/// Where the axis begins; left of it stand the names.
const LEFT: f64 = 370.0;
/// Where it ends; right of it stand the numbers.
const RIGHT: f64 = 770.0;
const INK: &str = "#333333";
const GREY: &str = "#e4e4e4";
const BLUE: &str = "#0072b2";
const VERMILLION: &str = "#d55e00";

/// A dot for each peer of each measurement, on an axis that doubles; a bar marks the target. None
/// where there is no ratio.
pub fn ratios(outcomes: &[Outcome]) -> Option<String> {
    let dots: Vec<(&Outcome, &str, f64)> = outcomes
        .iter()
        .flat_map(|outcome| {
            let finite = outcome
                .ratio
                .iter()
                .filter(|(_, ratio)| ratio.is_finite() && **ratio > 0.0);
            finite.map(move |(peer, ratio)| (outcome, *peer, *ratio))
        })
        .collect();
    let lowest = dots
        .iter()
        .map(|dot| dot.2)
        .fold(0.5, f64::min)
        .log2()
        .floor();
    let highest = dots
        .iter()
        .map(|dot| dot.2)
        .fold(4.0, f64::max)
        .log2()
        .ceil();
    if dots.is_empty() {
        return None;
    }
    let x = |ratio: f64| LEFT + (ratio.log2() - lowest) / (highest - lowest) * (RIGHT - LEFT);
    let bottom = HEAD + ROW * dots.len() as f64;
    let height = bottom + 56.0;
    let alt: Vec<String> = dots
        .iter()
        .map(|(outcome, peer, ratio)| format!("{} beside {peer}: {ratio:.2}", outcome.name))
        .collect();
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"DejaVu Sans, sans-serif\" font-size=\"13\" fill=\"{INK}\" role=\"img\">\n\
         <title>How many times better ours is. {}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        escape(&alt.join("; "))
    );
    text(
        &mut svg,
        (16.0, 28.0),
        "start",
        "font-size=\"18\"",
        "How many times better ours is",
    );
    text(
        &mut svg,
        (16.0, 50.0),
        "start",
        "",
        "to the right of 1 ours is better; the bar is the target",
    );
    for power in lowest as i32..=highest as i32 {
        let ratio = 2f64.powi(power);
        let (colour, width) = if power == 0 { (INK, 1.5) } else { (GREY, 1.0) };
        stroke(
            &mut svg,
            (x(ratio), HEAD - 8.0),
            (x(ratio), bottom),
            colour,
            width,
        );
        text(
            &mut svg,
            (x(ratio), bottom + 20.0),
            "middle",
            "",
            &ratio.to_string(),
        );
    }
    text(
        &mut svg,
        (x(1.0), bottom + 42.0),
        "middle",
        "",
        "as good as the peer",
    );
    let mut last = "";
    for (at, (outcome, peer, ratio)) in dots.iter().enumerate() {
        let y = HEAD + ROW * (at as f64 + 0.5);
        if outcome.name != last {
            last = outcome.name;
            text(
                &mut svg,
                (16.0, y + 4.5),
                "start",
                "font-weight=\"bold\"",
                last,
            );
            if at > 0 {
                stroke(
                    &mut svg,
                    (16.0, y - ROW / 2.0),
                    (WIDTH - 16.0, y - ROW / 2.0),
                    GREY,
                    1.0,
                );
            }
        }
        text(&mut svg, (LEFT - 14.0, y + 4.5), "end", "", peer);
        stroke(&mut svg, (x(1.0), y), (x(*ratio), y), BLUE, 2.0);
        if let Some(target) = outcome.target[*peer].as_f64() {
            stroke(
                &mut svg,
                (x(target), y - 9.0),
                (x(target), y + 9.0),
                VERMILLION,
                3.0,
            );
        }
        let _ = writeln!(
            svg,
            "<circle cx=\"{:.1}\" cy=\"{y:.1}\" r=\"5\" fill=\"{BLUE}\"/>",
            x(*ratio)
        );
        text(
            &mut svg,
            (WIDTH - 16.0, y + 4.5),
            "end",
            "",
            &format!("{ratio:.2}"),
        );
    }
    svg.push_str("</svg>\n");
    Some(svg)
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, more: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" {more}>{words}</text>"
    );
}

fn stroke(svg: &mut String, from: (f64, f64), to: (f64, f64), colour: &str, width: f64) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{colour}\" stroke-width=\"{width}\"/>"
    );
}

fn escape(words: &str) -> String {
    words.replace('&', "&amp;").replace('<', "&lt;")
}

/// Of each contender the training that arrived as the middle one of its seeds.
fn middle(curves: &[Curve]) -> Vec<&Curve> {
    let mut names: Vec<&str> = Vec::new();
    for curve in curves {
        if !names.contains(&curve.contender.as_str()) {
            names.push(&curve.contender);
        }
    }
    let middle_of = |name: &str| {
        let mut of_it: Vec<&Curve> = curves.iter().filter(|it| it.contender == name).collect();
        of_it.sort_by(|a, b| a.arrival(GOAL).total_cmp(&b.arrival(GOAL)));
        of_it[of_it.len() / 2]
    };
    names.into_iter().map(middle_of).collect()
}

/// The scores over the seconds since the process was started, a line for each contender, and the goal.
pub fn race(curves: &[Curve]) -> Figure {
    let curves = middle(curves);
    let longest = curves
        .iter()
        .flat_map(|curve| &curve.points)
        .fold(0.0, |longest: f64, (seconds, _)| longest.max(*seconds));
    let lines = curves.iter().map(|curve| {
        let name = format!("{}, seed {}", curve.contender, curve.seed);
        Series::new(&name, curve.points.iter().copied()).with_points()
    });
    let goal = Series::new(&format!("{GOAL} dB"), [(0.0, GOAL), (longest, GOAL)]);
    let title = "The way to 19 dB on the test images, each contender with its median seed";
    let axes = ("seconds since the process was started", "PSNR, dB");
    curve(title, axes, &lines.chain([goal]).collect::<Vec<Series>>())
}

/// Draws what there is to draw into this folder, and says which files those are.
///
/// # Errors
/// When a picture cannot be drawn or written.
pub fn save(outcomes: &[Outcome], folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    if let Some(svg) = ratios(outcomes) {
        let path = folder.join("ratios.svg");
        fs::write(&path, svg).with_context(|| format!("cannot write {}", path.display()))?;
        files.push(path);
    }
    for outcome in outcomes.iter().filter(|outcome| !outcome.curves.is_empty()) {
        let path = folder.join(format!("{}.svg", outcome.name));
        race(&outcome.curves).save(&path)?;
        files.push(path);
    }
    Ok(files
        .iter()
        .map(|path| path.display().to_string())
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurements::MEASUREMENTS;
    use crate::rounds::Rounds;

    #[test]
    fn every_ratio_and_target_is_drawn_within_the_picture() {
        let found = MEASUREMENTS
            .iter()
            .find(|m| m.name == "cnn_train_mixed")
            .unwrap();
        let rounds = |value: f64| Rounds {
            values: vec![value],
            ..Default::default()
        };
        let peers = [1000.0, 1500.0, 500.0, 20_000.0];
        let all = found
            .peers
            .iter()
            .zip(peers)
            .map(|((peer, _), value)| (*peer, rounds(value)));
        let all = [(found.ours, rounds(2000.0))]
            .into_iter()
            .chain(all)
            .collect();
        let svg = ratios(&[Outcome::new(found, all)]).unwrap();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches(VERMILLION).count(), 2);
        assert!(svg.contains(">cnn_train_mixed<") && svg.contains(">0.10<"));
        for x in svg.split("cx=\"").skip(1) {
            let x: f64 = x.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn without_peers_there_are_no_ratios_to_draw() {
        assert!(ratios(&[]).is_none());
    }

    #[test]
    fn a_race_is_a_curve() {
        let folder = tempfile::tempdir().unwrap();
        let curves = [Curve {
            contender: "keras-float32".to_owned(),
            seed: 2,
            points: vec![(20.0, 12.0), (40.0, 19.5)],
        }];
        race(&curves).save(folder.path().join("race.svg")).unwrap();
        let svg = fs::read_to_string(folder.path().join("race.svg")).unwrap();
        assert!(svg.contains("keras-float32, seed 2") && svg.contains("19 dB"));
    }

    #[test]
    fn of_each_contender_the_middle_training_is_drawn() {
        let run = |contender: &str, seed, points: &[(f64, f64)]| Curve {
            contender: contender.to_owned(),
            seed,
            points: points.to_vec(),
        };
        let curves = [
            run("ours", 1, &[(30.0, 19.0)]),
            run("ours", 2, &[(10.0, 19.0)]),
            run("ours", 3, &[(20.0, 19.0)]),
            run("keras-float32", 1, &[(300.0, 18.0)]),
            run("keras-float32", 2, &[(90.0, 19.1)]),
            run("keras-float32", 3, &[(310.0, 18.5)]),
        ];
        let drawn = middle(&curves);
        assert_eq!(
            (drawn[0].seed, drawn[1].contender.as_str()),
            (3, "keras-float32")
        );
        assert_eq!(drawn[1].arrival(GOAL), f64::INFINITY);
    }
}
