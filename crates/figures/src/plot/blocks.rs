//! A network as a row of blocks.

use std::cmp::Reverse;

use anyhow::{Result, ensure};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::looks::{BLUE, Dash, Look, VERMILLION};
use super::svg::{
    Area, Drawn, GAP, GRID, HEIGHT, LEAST, LINE, MARGIN, TEXT, TITLE, TITLE_LINE, WIDTH,
    draw_lines, picture,
};
use crate::font::{self, INK};
use crate::output::Output;
use crate::picture::{FINENESS, Picture};
use crate::text::thousands;

/// Most blocks that one picture shows.
const MOST: usize = 40;
/// The widest that a block can be, and how much of its column it takes.
const WIDEST: i32 = 110 * FINENESS;
const SHARE: f64 = 0.6;
/// The longest line of a rotated text; longer ones are wrapped.
const LONGEST: i32 = 260 * FINENESS;
/// Edge of a square in the legend.
const KEY: i32 = 18 * FINENESS;
/// How high the smallest block is, in doublings of its size.
const SMALLEST: f64 = 2.0;

/// One step of a network in a picture of [`blocks`]: a layer, or the input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// What stands first below the block: the layer's name.
    pub name: String,
    /// What stands next to the name: the shape of the output, such as `28x28x32`. It may be empty.
    pub detail: String,
    /// How many numbers come out for one image; at least 1.
    pub size: usize,
    /// What the output is; it decides the block's colour.
    pub role: Role,
}

/// What the output of a [`Block`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// An image: its numbers have a height, a width and channels.
    Image,
    /// A flat vector.
    Flat,
}

impl Block {
    /// A step whose output is an image: `Block::image("conv2d", "28x28x32", 28 * 28 * 32)`.
    pub fn image(name: &str, detail: &str, size: usize) -> Block {
        Block::new(name, detail, size, Role::Image)
    }

    /// A step whose output is a flat vector: `Block::flat("dense", "64", 64)`.
    pub fn flat(name: &str, detail: &str, size: usize) -> Block {
        Block::new(name, detail, size, Role::Flat)
    }

    fn new(name: &str, detail: &str, size: usize, role: Role) -> Block {
        Block {
            name: name.to_owned(),
            detail: detail.to_owned(),
            size,
            role,
        }
    }
}

impl Role {
    const ALL: [Role; 2] = [Role::Image, Role::Flat];

    fn name(self) -> &'static str {
        match self {
            Role::Image => "image",
            Role::Flat => "flat vector",
        }
    }

    fn look(self) -> Look {
        let colour = match self {
            Role::Image => BLUE,
            Role::Flat => VERMILLION,
        };
        Look {
            colour,
            dash: Dash::Solid,
        }
    }
}

/// A network as a row of blocks, from the input on the left to the output on the right.
///
/// A block's height grows with the logarithm of its size: each doubling adds the same height, and the smallest
/// block is two doublings high. So an autoencoder has the outline of an hourglass. Below each block stand its
/// name and detail. The smallest block has its size above it, and so have others where there is room; blocks of equal
/// size side by side share one number. Where a picture has both images and flat vectors, a legend names their
/// colours.
///
/// A picture has 1 to 40 blocks, each of a size of at least 1; with others the output holds an error.
///
/// ```
/// use figures::{Block, blocks};
///
/// let picture = blocks("A small autoencoder", &[
///     Block::image("input", "28x28x1", 784),
///     Block::flat("flatten", "784", 784),
///     Block::flat("dense", "64", 64),
///     Block::flat("dense_1", "784", 784),
///     Block::image("reshape", "28x28x1", 784),
/// ]);
/// assert!(picture.html().is_ok());
/// assert!(picture.alt_text().contains("dense with 64"));
/// ```
pub fn blocks(title: &str, blocks: &[Block]) -> Output {
    Output::picture(draw(title, blocks), described(title, blocks))
}

/// A sentence that lists names and sizes, for an alt text.
fn described(title: &str, blocks: &[Block]) -> String {
    let steps: Vec<String> = blocks
        .iter()
        .map(|block| format!("{} with {}", block.name, thousands(block.size)))
        .collect();
    format!(
        "{title}: blocks from left to right, each with how many numbers come out: {}",
        steps.join(", ")
    )
}

fn draw(title: &str, blocks: &[Block]) -> Result<Picture> {
    ensure!(
        !blocks.is_empty(),
        "there is nothing to draw; expected at least one block"
    );
    ensure!(
        blocks.len() <= MOST,
        "a picture of {} blocks cannot be drawn; expected at most {MOST}",
        blocks.len()
    );
    for (at, block) in blocks.iter().enumerate() {
        ensure!(
            block.size > 0,
            "block {at}, {:?}, has size 0; expected how many numbers come out of it, at least 1",
            block.name
        );
    }
    font::register()?;
    let layout = Layout::of(title, blocks);
    picture((layout.width, layout.height), |area| {
        layout.draw(area, blocks)
    })
}

/// How names and details stand below the blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Labels {
    /// Not rotated, the detail below the name.
    Level,
    /// Rotated, the detail to the right of the name.
    Beside,
    /// Rotated, the details below all names.
    Below,
}

/// The lines of a block's name and of its detail.
struct Label {
    name: Vec<String>,
    detail: Vec<String>,
}

/// A rectangle from its left and top to its right and bottom.
#[derive(Clone, Copy)]
struct Frame {
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

/// A size above its blocks.
struct Size {
    text: String,
    /// From the top of the text down to its blocks.
    frame: Frame,
    /// How much higher it stands than directly above its blocks.
    lifted: i32,
}

/// Where everything stands.
struct Layout {
    title: Vec<String>,
    legend: Vec<Role>,
    legend_top: i32,
    labels: Labels,
    /// One for each block.
    texts: Vec<Label>,
    labels_top: i32,
    /// Top of the details if they stand below all names.
    details_top: i32,
    /// One for each block.
    frames: Vec<Frame>,
    width: i32,
    height: i32,
}

impl Layout {
    fn of(title: &str, blocks: &[Block]) -> Layout {
        let n = blocks.len() as i32;
        let narrow = (WIDTH - 2 * MARGIN) / n;
        let (labels, texts, column) = labels(blocks, narrow);
        let width = WIDTH.max(n * column + 2 * MARGIN);
        let title = font::wrap(title, TITLE, width - 2 * MARGIN);
        let has = |role: &Role| blocks.iter().any(|block| block.role == *role);
        let legend: Vec<Role> = Role::ALL.into_iter().filter(has).collect();
        // One colour needs no legend.
        let legend = if legend.len() > 1 { legend } else { Vec::new() };

        let lines = |lines: &[String]| lines.len() as i32 * LINE;
        let longest = |of: fn(&Label) -> &Vec<String>| {
            let widths = texts.iter().map(|text| font::widest(of(text), TEXT));
            widths.max().unwrap_or(0)
        };
        let (names, details) = (longest(|text| &text.name), longest(|text| &text.detail));
        let level = texts
            .iter()
            .map(|text| lines(&text.name) + lines(&text.detail));
        let labels_height = match labels {
            Labels::Level => level.max().unwrap_or(0),
            Labels::Beside => names.max(details),
            Labels::Below => names + 2 * GAP + details,
        };

        let legend_top = MARGIN + title.len() as i32 * TITLE_LINE;
        let legend_height = if legend.is_empty() { 0 } else { LINE + GAP };
        // Above the highest block there is room for its size.
        let top = legend_top + legend_height + LINE + GAP;
        let below = GAP + labels_height + MARGIN;
        let inner = (HEIGHT - top - below).max(LEAST);
        let labels_top = top + inner + GAP;
        let half = (WIDEST.min((f64::from(column) * SHARE) as i32)) / 2;
        let left = (width - n * column) / 2;
        let frames = heights(blocks, inner)
            .into_iter()
            .zip(0..)
            .map(|(height, at)| {
                let (x, y) = (left + at * column + column / 2, top + inner / 2);
                Frame {
                    left: x - half,
                    top: y - height / 2,
                    right: x + half,
                    bottom: y + height / 2,
                }
            })
            .collect();
        Layout {
            title,
            legend,
            legend_top,
            labels,
            texts,
            labels_top,
            details_top: labels_top + names + 2 * GAP,
            frames,
            width,
            height: top + inner + below,
        }
    }

    fn draw<'b>(&self, area: &Area<'b>, blocks: &[Block]) -> Drawn<'b> {
        draw_lines(area, &self.title, (TITLE, TITLE_LINE), &INK, MARGIN, MARGIN)?;
        self.draw_legend(area)?;
        for two in self.frames.windows(2) {
            let (one, next) = (two[0], two[1]);
            let between = [
                (one.right, one.top),
                (next.left, next.top),
                (next.left, next.bottom),
                (one.right, one.bottom),
            ];
            area.draw(&Polygon::new(between, GRID.filled()))?;
        }
        for (frame, block) in self.frames.iter().zip(blocks) {
            let corners = [(frame.left, frame.top), (frame.right, frame.bottom)];
            let colour = block.role.look().colour;
            area.draw(&Rectangle::new(corners, colour.filled()))?;
        }
        self.draw_sizes(area, blocks)?;
        self.draw_labels(area, blocks)
    }

    fn draw_legend<'b>(&self, area: &Area<'b>) -> Drawn<'b> {
        let mut left = MARGIN;
        for role in &self.legend {
            let top = self.legend_top + (LINE - KEY) / 2;
            let key = [(left, top), (left + KEY, top + KEY)];
            area.draw(&Rectangle::new(key, role.look().colour.filled()))?;
            left += KEY + GAP;
            let name = [role.name().to_owned()];
            draw_lines(area, &name, (TEXT, LINE), &INK, left, self.legend_top)?;
            left += font::widest(&name, TEXT) + 3 * GAP;
        }
        Ok(())
    }

    fn draw_labels<'b>(&self, area: &Area<'b>, blocks: &[Block]) -> Drawn<'b> {
        for ((text, frame), block) in self.texts.iter().zip(&self.frames).zip(blocks) {
            let (x, top) = (frame.middle(), self.labels_top);
            let (names, details) = (text.name.len() as i32, text.detail.len() as i32);
            let colour = block.role.look().text_colour();
            // Where the first line of the name and of the detail stands.
            let beside = |lines: i32| x - (lines - 1) * LINE / 2;
            let (name, detail) = match self.labels {
                Labels::Level => {
                    let first = top + LINE / 2;
                    ((x, first), (x, first + names * LINE))
                }
                Labels::Beside => {
                    let first = beside(names + details);
                    ((first, top), (first + names * LINE, top))
                }
                Labels::Below => ((beside(names), top), (beside(details), self.details_top)),
            };
            self.draw_label(area, &text.name, &INK, name)?;
            self.draw_label(area, &text.detail, &colour, detail)?;
        }
        Ok(())
    }

    /// Lines below each other, or side by side if they are rotated; the first one stands here.
    fn draw_label<'b>(
        &self,
        area: &Area<'b>,
        lines: &[String],
        colour: &RGBColor,
        (x, y): (i32, i32),
    ) -> Drawn<'b> {
        let style = font::style(TEXT, colour);
        for (text, at) in lines.iter().zip(0..) {
            match self.labels {
                Labels::Level => {
                    let style = style.pos(Pos::new(HPos::Center, VPos::Center));
                    area.draw_text(text, &style, (x, y + at * LINE))?;
                }
                Labels::Beside | Labels::Below => {
                    let style = style.transform(FontTransform::Rotate270);
                    let style = style.pos(Pos::new(HPos::Right, VPos::Center));
                    area.draw_text(text, &style, (x + at * LINE, y))?;
                }
            }
        }
        Ok(())
    }

    /// The sizes above the blocks. A thin line leads to one that could not stand directly above its block.
    fn draw_sizes<'b>(&self, area: &Area<'b>, blocks: &[Block]) -> Drawn<'b> {
        let style = font::style(TEXT, &INK).pos(Pos::new(HPos::Center, VPos::Center));
        for size in self.sizes(blocks) {
            let Frame { top, bottom, .. } = size.frame;
            let x = size.frame.middle();
            if size.lifted > LINE / 2 {
                let leader = [(x, top + LINE), (x, bottom)];
                let thin = INK.stroke_width(FINENESS as u32);
                area.draw(&PathElement::new(leader, thin))?;
            }
            area.draw_text(&size.text, &style, (x, top + LINE / 2))?;
        }
        Ok(())
    }

    /// The sizes that have room above their blocks. Every smallest size is lifted above its neighbours where it is
    /// wider than the space between them; others are left out if it would not be clear whose they are.
    fn sizes(&self, blocks: &[Block]) -> Vec<Size> {
        let equal = |one: &Block, next: &Block| one.size == next.size;
        let mut from = 0;
        let mut runs = Vec::new();
        for run in blocks.chunk_by(equal) {
            runs.push((run[0].size, &self.frames[from..from + run.len()]));
            from += run.len();
        }
        let smallest = runs.iter().map(|run| run.0).min();
        let last = runs.len() - 1;
        let mut wanted: Vec<_> = runs
            .into_iter()
            .enumerate()
            .map(|(at, (size, run))| {
                let most_lifted = match at {
                    _ if Some(size) == smallest => i32::MAX,
                    _ if at == 0 || at == last => LINE / 2,
                    _ => 0,
                };
                (most_lifted, size, run)
            })
            .collect();
        wanted.sort_by_key(|&(most_lifted, size, _)| Reverse((most_lifted, size)));
        let mut sizes: Vec<Size> = Vec::new();
        for (most_lifted, size, run) in wanted {
            let size = self.above(run, thousands(size));
            let is_free = sizes.iter().all(|other| !size.frame.touches(&other.frame));
            if is_free && size.lifted <= most_lifted {
                sizes.push(size);
            }
        }
        sizes
    }

    /// A text above blocks of equal size, and above every other block that it would cover.
    fn above(&self, run: &[Frame], text: String) -> Size {
        let half = font::width(&text, TEXT) / 2 + 1;
        let middle = (run[0].left + run[run.len() - 1].right) / 2;
        let middle = middle
            .min(self.width - MARGIN / 2 - half)
            .max(MARGIN / 2 + half);
        let (left, right) = (middle - half, middle + half);
        let covered = self
            .frames
            .iter()
            .filter(|frame| frame.left < right && left < frame.right);
        let own = run[0].top;
        let highest = covered.map(|frame| frame.top).fold(own, i32::min);
        Size {
            text,
            frame: Frame {
                left,
                top: highest - GAP / 4 - LINE,
                right,
                bottom: own - GAP / 4,
            },
            lifted: own - highest,
        }
    }
}

impl Frame {
    fn middle(&self) -> i32 {
        (self.left + self.right) / 2
    }

    /// Whether less than a small gap is between two texts.
    fn touches(&self, other: &Frame) -> bool {
        self.left < other.right + GAP
            && other.left < self.right + GAP
            && self.top < other.bottom
            && other.top < self.bottom
    }
}

/// How high each block is if the highest is this high.
fn heights(blocks: &[Block], highest: i32) -> Vec<i32> {
    let doublings = |size: usize| (size as f64).log2();
    let sizes = || blocks.iter().map(|block| doublings(block.size));
    let least = sizes().fold(f64::INFINITY, f64::min);
    let most = sizes().fold(0.0, f64::max);
    let share = |size: f64| (size - least + SMALLEST) / (most - least + SMALLEST);
    sizes()
        .map(|size| (share(size) * f64::from(highest)).round() as i32)
        .collect()
}

/// How the labels stand, their lines, and how wide a block's column is: as narrow as given, if the labels allow it.
fn labels(blocks: &[Block], narrow: i32) -> (Labels, Vec<Label>, i32) {
    let wrapped = |most: i32| -> Vec<Label> {
        let wrap = |text: &str| font::wrap_evenly(text, TEXT, most);
        blocks
            .iter()
            .map(|block| Label {
                name: wrap(&block.name),
                detail: wrap(&block.detail),
            })
            .collect()
    };
    let fits = |text: &str| {
        let mut words = text.split_whitespace();
        words.all(|word| font::width(word, TEXT) <= narrow - GAP)
    };
    if blocks.len() == 1 {
        return (Labels::Level, wrapped(narrow), narrow);
    }
    if blocks
        .iter()
        .all(|block| fits(&block.name) && fits(&block.detail))
    {
        return (Labels::Level, wrapped(narrow - GAP), narrow);
    }
    let texts = wrapped(LONGEST);
    let column = |lines: fn(&Label) -> usize| {
        let most = texts.iter().map(lines).max().unwrap_or(0);
        most as i32 * LINE + GAP / 2
    };
    if column(|text| text.name.len() + text.detail.len()) <= narrow {
        return (Labels::Beside, texts, narrow);
    }
    let column = column(|text| text.name.len().max(text.detail.len())).max(narrow);
    (Labels::Below, texts, column)
}
