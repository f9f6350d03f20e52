//! Two pictures: how many times better ours is, and the race as curves.

use std::path::Path;

use anyhow::{Result, anyhow};
use diffusion::prelude::{Series, curve};
use figures::Output;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::race::{Curve, GOAL};
use crate::report::Outcome;

const WIDTH: f64 = 840.0;
const HEAD: f64 = 78.0;
const ROW: f64 = 26.0;
/// Where the axis begins; left of it stand the names.
const LEFT: f64 = 370.0;
/// Where it ends; right of it stand the numbers.
const RIGHT: f64 = 770.0;
/// Size of text.
const SIZE: i32 = 13;
const INK: RGBColor = RGBColor(51, 51, 51);
const GREY: RGBColor = RGBColor(228, 228, 228);
const BLUE: RGBColor = RGBColor(0, 114, 178);
const VERMILLION: RGBColor = RGBColor(213, 94, 0);

/// A dot for each peer of each measurement, on an axis that doubles; a bar marks the target. None
/// where there is no ratio.
///
/// # Errors
/// When it cannot be drawn.
pub fn ratios(outcomes: &[Outcome]) -> Result<Option<String>> {
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
        return Ok(None);
    }
    let x = |ratio: f64| LEFT + (ratio.log2() - lowest) / (highest - lowest) * (RIGHT - LEFT);
    let bottom = HEAD + ROW * dots.len() as f64;
    let height = bottom + 56.0;
    let alt: Vec<String> = dots
        .iter()
        .map(|(outcome, peer, ratio)| format!("{} beside {peer}: {ratio:.2}", outcome.name))
        .collect();
    let mut svg = String::new();
    {
        let sheet = SVGBackend::with_string(&mut svg, (WIDTH as u32, height as u32));
        let sheet = Sheet(sheet.into_drawing_area());
        sheet.0.fill(&WHITE).map_err(failed)?;
        let title = "How many times better ours is";
        sheet.text((16.0, 22.0), HPos::Left, 18, title)?;
        let below = "to the right of 1 ours is better; the bar is the target";
        sheet.text((16.0, 46.0), HPos::Left, SIZE, below)?;
        for power in lowest as i32..=highest as i32 {
            let ratio = 2f64.powi(power);
            let (colour, width) = if power == 0 { (INK, 2) } else { (GREY, 1) };
            sheet.line((x(ratio), HEAD - 8.0), (x(ratio), bottom), colour, width)?;
            let at = (x(ratio), bottom + 16.0);
            sheet.text(at, HPos::Center, SIZE, &ratio.to_string())?;
        }
        let at = (x(1.0), bottom + 38.0);
        sheet.text(at, HPos::Center, SIZE, "as good as the peer")?;
        let mut last = "";
        for (at, (outcome, peer, ratio)) in dots.iter().enumerate() {
            let y = HEAD + ROW * (at as f64 + 0.5);
            if outcome.name != last {
                last = outcome.name;
                sheet.text((16.0, y), HPos::Left, SIZE, last)?;
                let above = y - ROW / 2.0;
                sheet.line((16.0, above), (WIDTH - 16.0, above), GREY, 1)?;
            }
            sheet.text((LEFT - 14.0, y), HPos::Right, SIZE, peer)?;
            sheet.line((x(1.0), y), (x(*ratio), y), BLUE, 2)?;
            if let Some(target) = outcome.target[*peer].as_f64() {
                sheet.line((x(target), y - 9.0), (x(target), y + 9.0), VERMILLION, 3)?;
            }
            let dot = Circle::new(place((x(*ratio), y)), 5, BLUE.filled());
            sheet.0.draw(&dot).map_err(failed)?;
            sheet.text((WIDTH - 16.0, y), HPos::Right, SIZE, &format!("{ratio:.2}"))?;
        }
        sheet.0.present().map_err(failed)?;
    }
    // For those who cannot see it.
    let alt = escape(&alt.join("; "));
    let title = format!("><title>How many times better ours is. {alt}</title>");
    Ok(Some(svg.replacen('>', &title, 1)))
}

/// The sheet that the ratios are drawn on, by places in pixels.
struct Sheet<'a>(DrawingArea<SVGBackend<'a>, Shift>);

impl Sheet<'_> {
    fn text(&self, at: (f64, f64), anchor: HPos, size: i32, words: &str) -> Result<()> {
        let style = ("sans-serif", size).into_font().color(&INK);
        let style = style.pos(Pos::new(anchor, VPos::Center));
        self.0.draw_text(words, &style, place(at)).map_err(failed)
    }

    fn line(&self, from: (f64, f64), to: (f64, f64), colour: RGBColor, width: u32) -> Result<()> {
        let line = PathElement::new([place(from), place(to)], colour.stroke_width(width));
        self.0.draw(&line).map_err(failed)
    }
}

fn place((x, y): (f64, f64)) -> (i32, i32) {
    (x.round() as i32, y.round() as i32)
}

fn failed(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("{error}")
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
pub fn race(curves: &[Curve]) -> Output {
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
    if let Some(svg) = ratios(outcomes)? {
        let path = folder.join("ratios.svg");
        figures::write_whole(&path, svg.as_bytes())?;
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
        let svg = ratios(&[Outcome::new(found, all, None)]).unwrap().unwrap();
        assert_eq!(svg.matches("<circle").count(), 4);
        assert_eq!(svg.matches("#D55E00").count(), 2);
        assert!(
            svg.contains("cnn_train_mixed\n") && svg.contains("0.10\n"),
            "{svg}"
        );
        assert!(svg.contains(
            "<title>How many times better ours is. cnn_train_mixed beside keras-float32: 2.00"
        ));
        for x in svg.split("cx=\"").skip(1) {
            let x: f64 = x.split('"').next().unwrap().parse().unwrap();
            assert!((LEFT..=RIGHT).contains(&x), "{x}");
        }
    }

    #[test]
    fn without_peers_there_are_no_ratios_to_draw() {
        assert!(ratios(&[]).unwrap().is_none());
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
        let svg = std::fs::read_to_string(folder.path().join("race.svg")).unwrap();
        // The picture breaks a long name into lines, at spaces and hyphens.
        let words = svg.split('>').map(|part| part.split('<').next().unwrap());
        let words: String = words
            .flat_map(str::chars)
            .filter(|it| !it.is_whitespace())
            .collect();
        for name in ["keras-float32,seed2", "19dB"] {
            assert!(words.contains(name), "{name:?} is not in {words}");
        }
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
