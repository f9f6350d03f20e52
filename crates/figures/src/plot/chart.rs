//! Lines with axes, ticks, title and names, as an SVG.

use std::ops::Range;

use anyhow::Result;
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::labels::apart;
use super::looks::{Dash, Look};
use super::svg::{
    Area, Drawn, GAP, GRID, HEIGHT, LEAST, LINE, MARGIN, TEXT, TITLE, TITLE_LINE, WIDTH,
    draw_lines, picture,
};
use super::ticks::Ticks;
use crate::font::{self, INK};
use crate::picture::{FINENESS, Picture};
use crate::text::short;

/// The widest that a name at the end of a line can be; longer ones are wrapped.
const NAME: i32 = 176 * FINENESS;
/// From the axes' right end to the names.
const LEADER: i32 = 16 * FINENESS;
/// Length of a piece of line before a name.
const KEY: i32 = 30 * FINENESS;
const STROKE: u32 = 3 * FINENESS as u32;

/// A line, or the outline of bars.
pub(super) struct Line {
    pub(super) name: String,
    pub(super) points: Vec<(f64, f64)>,
    pub(super) look: Look,
    /// Whether each point has a dot.
    pub(super) marked: bool,
    /// Whether the space below is filled.
    pub(super) filled: bool,
}

/// Where the names of the lines stand.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Names {
    /// Beside the place where the line ends.
    AtEnds,
    /// Above the axes.
    Legend,
}

/// A chart; its points lie within its ranges.
pub(super) struct Chart<'a> {
    pub(super) title: &'a str,
    pub(super) axes: (&'a str, &'a str),
    pub(super) x: Range<f64>,
    pub(super) y: Range<f64>,
    pub(super) lines: Vec<Line>,
    pub(super) names: Names,
}

/// Where everything stands.
struct Layout {
    title: Vec<String>,
    y_name: Vec<String>,
    x_name: Vec<String>,
    /// The names of a legend: left and top of each, and its lines.
    legend: Vec<(i32, i32, Vec<String>)>,
    /// The names at the ends of the lines.
    ends: Vec<Vec<String>>,
    legend_top: i32,
    left: i32,
    right: i32,
    top: i32,
    bottom: i32,
    height: i32,
    x: Ticks,
    y: Ticks,
}

impl Chart<'_> {
    pub(super) fn svg(&self) -> Result<Picture> {
        font::register()?;
        let layout = self.layout();
        picture((WIDTH, layout.height), |area| self.draw(area, &layout))
    }

    fn layout(&self) -> Layout {
        let whole = WIDTH - 2 * MARGIN;
        let title = font::wrap(self.title, TITLE, whole);
        let lines = |lines: &Vec<String>| lines.len() as i32 * LINE;

        let ends: Vec<Vec<String>> = match self.names {
            Names::AtEnds => self.lines.iter().map(end_name).collect(),
            Names::Legend => Vec::new(),
        };
        let (legend, legend_height) = match self.names {
            Names::AtEnds => (Vec::new(), 0),
            Names::Legend => self.legend(),
        };
        // The offset of an axis depends on its range alone, as long as there are more than a few ticks.
        let y_name = axis_name(&self.name_of_y(), &Ticks::of(&self.y, 5));
        let x_name = axis_name(self.axes.0, &Ticks::of(&self.x, 5));

        let legend_top = MARGIN + title.len() as i32 * TITLE_LINE;
        let top = legend_top + legend_height + lines(&y_name) + GAP + LINE / 2;
        let below = GAP + LINE + lines(&x_name) + MARGIN / 2;
        let names_height: i32 = ends.iter().map(lines).sum();
        let inner = (HEIGHT - top - below).max(LEAST).max(names_height);

        let y = Ticks::of(&self.y, (inner / (3 * LINE / 2)).clamp(3, 7) as usize);
        let left = MARGIN + font::widest(&y.labels(), TEXT) + GAP;
        let names_width = ends.iter().map(|lines| font::widest(lines, TEXT)).max();
        let mut right = match names_width {
            Some(width) => WIDTH - MARGIN / 2 - width - self.key() - LEADER,
            None => WIDTH - 2 * MARGIN,
        };
        let mut x = Ticks::of(&self.x, 3);
        for most in (4..=8).rev() {
            let ticks = Ticks::of(&self.x, most);
            if fits(&ticks, &self.x, right - left) {
                x = ticks;
                break;
            }
        }
        // The last label may not leave the picture, nor the first one.
        let half = |label: Option<&&str>| label.map_or(0, |label| font::width(label, TEXT) / 2);
        right = right.min(WIDTH - MARGIN / 2 - half(x.labels().last()));
        let left = left.max(MARGIN / 2 + half(x.labels().first()));
        Layout {
            title,
            y_name,
            x_name,
            legend,
            ends,
            legend_top,
            left,
            right,
            top,
            bottom: top + inner,
            height: top + inner + below,
            x,
            y,
        }
    }

    /// The vertical axis's name. An axis that begins above 0 makes small differences look large, so its name says so; where its labels are
    /// distances from a round number, they say it.
    fn name_of_y(&self) -> String {
        let begins_above_0 = self.y.start > 0.05 * self.y.end;
        match begins_above_0 && Ticks::of(&self.y, 5).offset.is_empty() {
            true => format!(
                "{} (the axis begins at {})",
                self.axes.1,
                short(self.y.start)
            ),
            false => self.axes.1.to_owned(),
        }
    }

    /// How much space before a name a piece of its line takes: none while colours suffice.
    fn key(&self) -> i32 {
        let is_broken = |line: &Line| line.look.dash != Dash::Solid;
        match self.names == Names::Legend || self.lines.iter().any(is_broken) {
            true => KEY + GAP,
            false => 0,
        }
    }

    /// The names of a legend in as many rows as they need, and the height of all.
    fn legend(&self) -> (Vec<(i32, i32, Vec<String>)>, i32) {
        let key = self.key();
        let (mut left, mut top, mut row) = (MARGIN, 0, LINE);
        let mut names = Vec::new();
        for line in &self.lines {
            let name = font::wrap(&shown_name(line), TEXT, WIDTH - 2 * MARGIN - key);
            let width = key + font::widest(&name, TEXT);
            if left > MARGIN && left + width > WIDTH - MARGIN {
                (left, top, row) = (MARGIN, top + row, LINE);
            }
            row = row.max(name.len() as i32 * LINE);
            names.push((left, top, name));
            left += width + 3 * GAP;
        }
        (names, top + row + GAP)
    }

    fn draw<'b>(&self, area: &Area<'b>, layout: &Layout) -> Drawn<'b> {
        draw_lines(
            area,
            &layout.title,
            (TITLE, TITLE_LINE),
            &INK,
            MARGIN,
            MARGIN,
        )?;
        let y_name = layout.top - GAP - LINE / 2 - layout.y_name.len() as i32 * LINE;
        draw_lines(area, &layout.y_name, (TEXT, LINE), &INK, MARGIN, y_name)?;
        for ((left, top, name), line) in layout.legend.iter().zip(&self.lines) {
            let (top, key) = (layout.legend_top + top, self.key());
            let middle = top + LINE / 2;
            draw_path(
                area,
                &[(*left, middle), (left + key - GAP, middle)],
                line.look,
                STROKE,
            )?;
            draw_lines(area, name, (TEXT, LINE), &INK, left + key, top)?;
        }
        self.draw_axes(area, layout)?;
        for line in &self.lines {
            self.draw_line(area, layout, line)?;
        }
        self.draw_ends(area, layout)
    }

    fn draw_axes<'b>(&self, area: &Area<'b>, layout: &Layout) -> Drawn<'b> {
        let (left, right, top, bottom) = (layout.left, layout.right, layout.top, layout.bottom);
        let line = |points: [(i32, i32); 2], colour: &RGBColor| {
            area.draw(&PathElement::new(
                points,
                colour.stroke_width(FINENESS as u32),
            ))
        };
        let style = font::style(TEXT, &INK);
        let label = style.pos(Pos::new(HPos::Right, VPos::Center));
        for (value, text) in &layout.y.ticks {
            let y = self.place(layout, (self.x.start, *value)).1;
            line([(left, y), (right, y)], &GRID)?;
            area.draw_text(text, &label, (left - GAP, y))?;
        }
        let label = style.pos(Pos::new(HPos::Center, VPos::Center));
        let below = bottom + GAP + LINE / 2;
        let mut free = 0;
        for (value, text) in &layout.x.ticks {
            let x = self.place(layout, (*value, self.y.start)).0;
            line([(x, top), (x, bottom)], &GRID)?;
            let half = font::width(text, TEXT) / 2;
            if x - half >= free {
                area.draw_text(text, &label, (x, below))?;
                free = x + half + GAP;
            }
        }
        line([(left, top), (left, bottom)], &INK)?;
        line([(left, bottom), (right, bottom)], &INK)?;
        let half = font::widest(&layout.x_name, TEXT) / 2;
        let middle =
            ((left + right) / 2).clamp(MARGIN + half, (WIDTH - MARGIN - half).max(MARGIN + half));
        for (text, at) in layout.x_name.iter().zip(1..) {
            area.draw_text(text, &label, (middle, below + at * LINE))?;
        }
        Ok(())
    }

    fn draw_line<'b>(&self, area: &Area<'b>, layout: &Layout, line: &Line) -> Drawn<'b> {
        let points = line.points.iter().map(|&point| self.place(layout, point));
        let points: Vec<(i32, i32)> = points.collect();
        let colour = line.look.colour;
        if line.filled {
            area.draw(&Polygon::new(points.clone(), colour.mix(0.35).filled()))?;
        }
        draw_path(area, &points, line.look, STROKE)?;
        if line.marked {
            for point in points {
                area.draw(&Circle::new(point, 5 * FINENESS, colour.filled()))?;
            }
        }
        Ok(())
    }

    /// The names beside the ends of the lines, those that would overlap moved apart; a thin line leads to
    /// each.
    fn draw_ends<'b>(&self, area: &Area<'b>, layout: &Layout) -> Drawn<'b> {
        let end = |line: &Line| {
            let ends = [line.points.first(), line.points.last()]
                .into_iter()
                .flatten();
            let end = ends.max_by(|one, other| one.0.total_cmp(&other.0));
            end.map(|&end| self.place(layout, end))
        };
        let ends: Vec<Option<(i32, i32)>> = self.lines.iter().map(end).collect();
        let wanted: Vec<(i32, i32)> = layout
            .ends
            .iter()
            .zip(&ends)
            .map(|(name, end)| {
                let middle = end.map_or(layout.bottom, |(_, y)| y);
                (middle, name.len() as i32 * LINE)
            })
            .collect();
        let tops = apart(&wanted, layout.top - LINE / 2, layout.bottom + LINE / 2);
        let key = self.key();
        for (((name, line), end), top) in layout.ends.iter().zip(&self.lines).zip(ends).zip(tops) {
            let middle = top + name.len() as i32 * LINE / 2;
            let left = layout.right + LEADER;
            if let Some(end) = end {
                let to = (left - LEADER / 4, middle);
                let colour = line.look.colour.mix(0.7);
                area.draw(&PathElement::new(
                    [end, to],
                    colour.stroke_width(FINENESS as u32),
                ))?;
            }
            if key > 0 {
                draw_path(
                    area,
                    &[(left, middle), (left + key - GAP, middle)],
                    line.look,
                    STROKE,
                )?;
            }
            draw_lines(
                area,
                name,
                (TEXT, LINE),
                &line.look.text_colour(),
                left + key,
                top,
            )?;
        }
        Ok(())
    }

    /// Where a point stands in the picture.
    fn place(&self, layout: &Layout, (x, y): (f64, f64)) -> (i32, i32) {
        let share = |value: f64, range: &Range<f64>| {
            ((value - range.start) / (range.end - range.start)).clamp(0.0, 1.0)
        };
        let width = f64::from(layout.right - layout.left) * share(x, &self.x);
        let height = f64::from(layout.bottom - layout.top) * share(y, &self.y);
        (
            layout.left + width.round() as i32,
            layout.bottom - height.round() as i32,
        )
    }
}

/// A name as it stands at the end of its line.
fn end_name(line: &Line) -> Vec<String> {
    font::wrap_evenly(&shown_name(line), TEXT, NAME)
}

/// A line's name, which also says if nothing of the line can be drawn.
fn shown_name(line: &Line) -> String {
    match line.points.is_empty() {
        true => format!("{} (no finite value)", line.name),
        false => line.name.clone(),
    }
}

/// An axis's name, which also says by which offset its numbers differ from the values.
fn axis_name(name: &str, ticks: &Ticks) -> Vec<String> {
    let name = match (ticks.offset.as_str(), ticks.offset.strip_prefix('-')) {
        ("", _) => name.to_owned(),
        (_, Some(positive)) => format!("{name} (plus {positive})"),
        (offset, None) => format!("{name} (minus {offset})"),
    };
    font::wrap(&name, TEXT, WIDTH - 2 * MARGIN)
}

/// Whether the labels of a horizontal axis of this width have space between them.
fn fits(ticks: &Ticks, range: &Range<f64>, width: i32) -> bool {
    let place = |value: f64| (value - range.start) / (range.end - range.start) * f64::from(width);
    ticks.ticks.windows(2).all(|two| {
        let half = |label: &str| f64::from(font::width(label, TEXT)) / 2.0;
        let space = place(two[1].0) - half(&two[1].1) - place(two[0].0) - half(&two[0].1);
        space >= f64::from(3 * GAP)
    })
}

/// A line through points, broken as its look says.
fn draw_path<'b>(area: &Area<'b>, points: &[(i32, i32)], look: Look, width: u32) -> Drawn<'b> {
    let (dash, gap) = match look.dash {
        Dash::Solid => {
            return area.draw(&PathElement::new(
                points.to_vec(),
                look.colour.stroke_width(width),
            ));
        }
        Dash::Dashed => (12 * FINENESS, 6 * FINENESS),
        Dash::Dotted => (4 * FINENESS, 5 * FINENESS),
    };
    let points = points.iter().copied();
    area.draw(&DashedPathElement::new(
        points,
        dash,
        gap,
        look.colour.stroke_width(width),
    ))
}
