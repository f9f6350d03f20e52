//! A network that works at several sizes: a row of blocks that goes down and up again.

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::looks::{BLUE, VERMILLION};
use super::svg::{
    Area, Drawn, GAP, LINE, MARGIN, TEXT, TITLE, TITLE_LINE, WIDTH, draw_lines, picture,
};
use crate::font::{self, INK};
use crate::output::Output;
use crate::picture::{FINENESS, Picture};

/// Size of the text within a block, and of a block itself.
const SMALL: i32 = 17 * FINENESS;
const BLOCK: i32 = 56 * FINENESS;
/// From one level to the next, and the space above the highest one for the arcs of skips.
const LEVEL: i32 = 84 * FINENESS;
const ARC: i32 = 22 * FINENESS;
const STROKE: u32 = 2 * FINENESS as u32;
const GREY: RGBColor = RGBColor(120, 120, 120);

/// One step of a network in a picture of [`levels`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// What stands in the block.
    pub name: String,
    /// What stands below the name.
    pub detail: String,
    /// On which level it stands; 0 is the highest.
    pub level: usize,
    /// Whether the block is filled.
    pub filled: bool,
}

/// A network that works at several sizes, from the input on the left to the output on the right.
///
/// `names` are those of the levels, the highest first. Arrows lead from each step to the next one. `skips` are connections that
/// pass over some steps, from one step's number to another's: arcs above the blocks. `note` stands below, as the legend of
/// filled blocks. Shapes that do not fit together make an output that holds the error.
///
/// ```
/// use figures::{Step, levels};
///
/// let step = |name: &str, level| Step { name: name.into(), detail: "8".into(), level, filled: level > 0 };
/// let steps = [step("in", 0), step("down", 1), step("deep", 2), step("up", 1), step("out", 0)];
/// let picture = levels("A small U-Net", &["8x8", "4x4", "2x2"], &steps, &[(1, 3)], "with a timestep");
/// assert!(picture.html().is_ok());
/// assert!(picture.alt_text().contains("down at 4x4"));
/// ```
pub fn levels(
    title: &str,
    names: &[&str],
    steps: &[Step],
    skips: &[(usize, usize)],
    note: &str,
) -> Output {
    let described: Vec<String> = steps
        .iter()
        .map(|step| format!("{} at {}", step.name, names.get(step.level).unwrap_or(&"?")))
        .collect();
    let alt = format!(
        "{title}: blocks from left to right: {}",
        described.join(", ")
    );
    Output::picture(draw(title, names, steps, skips, note), alt)
}

fn draw(
    title: &str,
    names: &[&str],
    steps: &[Step],
    skips: &[(usize, usize)],
    note: &str,
) -> Result<Picture> {
    ensure!(
        (1..=12).contains(&steps.len()),
        "a picture of {} steps cannot be drawn; expected 1 to 12",
        steps.len()
    );
    for step in steps {
        ensure!(
            step.level < names.len(),
            "the step {:?} stands on level {}, but there are {} levels",
            step.name,
            step.level,
            names.len()
        );
    }
    for &(from, to) in skips {
        ensure!(
            from < to && to < steps.len(),
            "there is no skip connection from step {from} to {to} of {}; expected one that leads forward",
            steps.len()
        );
    }
    font::register()?;
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let title = font::wrap(title, TITLE, WIDTH - 2 * MARGIN);
    let note = font::wrap(note, TEXT, WIDTH - 3 * MARGIN - LINE);
    let left = MARGIN + font::widest(&names, TEXT) + 2 * GAP;
    let column = (WIDTH - MARGIN - left) / steps.len() as i32;
    let half = (BLOCK / 2).min(column * 2 / 5);
    let top = MARGIN + title.len() as i32 * TITLE_LINE + 2 * ARC;
    let bottom = top + (names.len() as i32 - 1) * LEVEL + BLOCK;
    let middle = |at: usize| {
        let y = top + steps[at].level as i32 * LEVEL + BLOCK / 2;
        (left + at as i32 * column + column / 2, y)
    };
    let height = bottom + 2 * GAP + note.len() as i32 * LINE + MARGIN;
    picture((WIDTH, height), |area| {
        draw_lines(area, &title, (TITLE, TITLE_LINE), &INK, MARGIN, MARGIN)?;
        for (name, level) in names.iter().zip(0..) {
            let y = top + level * LEVEL + BLOCK / 2 - LINE / 2;
            draw_lines(
                area,
                std::slice::from_ref(name),
                (TEXT, LINE),
                &INK,
                MARGIN,
                y,
            )?;
        }
        for at in 1..steps.len() {
            let ((x, y), (to_x, to_y)) = (middle(at - 1), middle(at));
            arrow(area, &[(x + half, y), (to_x - half, to_y)], GREY)?;
        }
        for (&(from, to), number) in skips.iter().zip(1..) {
            let ((x, y), (to_x, to_y)) = (middle(from), middle(to));
            let above = y.min(to_y) - BLOCK / 2 - number * ARC * 2 / 3;
            let x = x + number * GAP;
            let corners = [
                (x, y - BLOCK / 2),
                (x, above),
                (to_x, above),
                (to_x, to_y - BLOCK / 2),
            ];
            arrow(area, &corners, VERMILLION)?;
        }
        for (at, step) in steps.iter().enumerate() {
            let (x, y) = middle(at);
            let corners = [(x - half, y - BLOCK / 2), (x + half, y + BLOCK / 2)];
            let (fill, ink) = if step.filled {
                (BLUE, WHITE)
            } else {
                (WHITE, INK)
            };
            area.draw(&Rectangle::new(corners, fill.filled()))?;
            area.draw(&Rectangle::new(corners, BLUE.stroke_width(STROKE)))?;
            let style = font::style(SMALL, &ink).pos(Pos::new(HPos::Center, VPos::Center));
            area.draw_text(&step.name, &style, (x, y - SMALL * 3 / 5))?;
            area.draw_text(&step.detail, &style, (x, y + SMALL * 3 / 5))?;
        }
        let below = bottom + 2 * GAP;
        let key = [
            (MARGIN, below),
            (MARGIN + LINE * 3 / 4, below + LINE * 3 / 4),
        ];
        area.draw(&Rectangle::new(key, BLUE.filled()))?;
        draw_lines(area, &note, (TEXT, LINE), &INK, MARGIN + LINE, below)
    })
}

/// A broken line with a head at its end.
fn arrow<'b>(area: &Area<'b>, points: &[(i32, i32)], colour: RGBColor) -> Drawn<'b> {
    area.draw(&PathElement::new(
        points.to_vec(),
        colour.stroke_width(STROKE),
    ))?;
    let [.., (from_x, from_y), (x, y)] = *points else {
        return Ok(());
    };
    let (across, down) = (f64::from(x - from_x), f64::from(y - from_y));
    let length = across.hypot(down).max(1.0);
    let (across, down) = (across / length, down / length);
    let size = f64::from(7 * FINENESS);
    let corner = |side: f64| {
        (
            x - (size * (across - side * down * 0.6)) as i32,
            y - (size * (down + side * across * 0.6)) as i32,
        )
    };
    area.draw(&Polygon::new(
        [(x, y), corner(1.0), corner(-1.0)],
        colour.filled(),
    ))
}
