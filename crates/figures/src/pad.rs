//! A pad to draw an image of one's own on.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tch::{Device, Kind, Tensor};

use crate::file::with_home;
use crate::images::grid;
use crate::output::Output;
use crate::page::interactive;
use crate::text::escape;

const SCRIPT: &str = include_str!("../assets/pad.js");
/// The largest side of an image that can be drawn; the pad is 280 pixels wide on the page.
const MOST: i64 = 280;

/// A pad in the notebook, and the file that its drawing goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    file: PathBuf,
    side: i64,
}

impl Pad {
    /// A pad for an image of `side` by `side` pixels. Its drawing goes to a file beside the notebook, as
    /// `saved/mine.json`; the file's folder is made if it does not exist.
    ///
    /// # Errors
    /// A side that is not in 1 to 280, or a folder that cannot be made.
    pub fn new(file: impl AsRef<Path>, side: i64) -> Result<Pad> {
        ensure!(
            (1..=MOST).contains(&side),
            "an image of side {side} cannot be drawn; expected 1 to {MOST}"
        );
        let file = with_home(file.as_ref())?.into_owned();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder {}", folder.display()))?;
        }
        Ok(Pad { file, side })
    }

    /// The pad itself, to be shown by a cell.
    pub fn show(&self) -> Output {
        Output::from_html(self.page(), "A pad to draw an image on")
    }

    fn page(&self) -> Result<String> {
        let blank = Tensor::zeros([1, 1, self.side, self.side], (Kind::Float, Device::Cpu));
        let still = grid(&blank, 1)
            .alt("A pad to draw on, where scripts may run")
            .html()?;
        let attributes = format!(
            " data-file=\"{}\" data-side=\"{}\"",
            escape(&self.file.display().to_string()),
            self.side
        );
        Ok(interactive(&attributes, &still, "", SCRIPT))
    }

    /// The drawing, `(1, 1, side, side)` in `[0, 1]`, moved so that its centre of mass is in the middle.
    /// None as long as nothing is drawn.
    ///
    /// # Errors
    /// A file that holds something else.
    pub fn read(&self) -> Result<Option<Tensor>> {
        let text = match fs::read_to_string(&self.file) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            text => text.with_context(|| format!("cannot read {}", self.file.display()))?,
        };
        let pixels: Vec<u8> = serde_json::from_str(&text)
            .with_context(|| format!("{} holds no drawing", self.file.display()))?;
        let expected = (self.side * self.side) as usize;
        ensure!(
            pixels.len() == expected,
            "{} holds {} pixels; expected {expected}, {side} times {side}",
            self.file.display(),
            pixels.len(),
            side = self.side
        );
        if pixels.iter().all(|&pixel| pixel == 0) {
            return Ok(None);
        }
        let image = Tensor::from_slice(&pixels).view([1, 1, self.side, self.side]);
        Ok(Some(centred_by_mass(&(image.to_kind(Kind::Float) / 255.0))))
    }

    /// The drawing, or `other` as long as nothing is drawn. In that case a printed line says so.
    ///
    /// # Errors
    /// As [`read`](Pad::read).
    pub fn read_or(&self, other: &Tensor) -> Result<Tensor> {
        Ok(match self.read()? {
            Some(mine) => mine,
            None => {
                println!("Nothing is drawn yet, so here is another image.");
                other.shallow_clone()
            }
        })
    }

    /// The drawing as points, `(N, 2)`: x to the right and y up of each bright pixel, with mean 0 and standard deviation 1. Or `other`
    /// as long as nothing is drawn; in that case a printed line says so.
    ///
    /// # Errors
    /// As [`read`](Pad::read).
    pub fn points_or(&self, other: &Tensor) -> Result<Tensor> {
        Ok(match self.read()? {
            Some(mine) => places(&mine),
            None => {
                println!("Nothing is drawn yet, so here are other points.");
                other.shallow_clone()
            }
        })
    }
}

/// The places of the bright pixels of an image `(1, 1, side, side)`, `(N, 2)`: x to the right and y up, with mean 0 and, over both,
/// standard deviation 1.
fn places(image: &Tensor) -> Tensor {
    let found = image.gt(0.5).nonzero().to_kind(Kind::Float); // (N, 4): image, channel, row, column
    let places = Tensor::stack(&[found.select(1, 3), -found.select(1, 2)], 1);
    let places = &places - places.mean_dim([0i64].as_slice(), true, Kind::Float);
    let deviation = places.square().mean(Kind::Float).sqrt();
    places / deviation.clamp_min(1e-6)
}

/// A square image `(1, 1, side, side)` moved by whole pixels so that its centre of mass is in the middle.
/// Pixels that leave on one side are lost.
fn centred_by_mass(image: &Tensor) -> Tensor {
    let side = image.size()[3];
    let mass = image.sum(Kind::Double).double_value(&[]);
    let places = Tensor::arange(side, (Kind::Double, image.device())) + 0.5;
    // How far the centre of the sums over rows or columns lies from the middle.
    let away = |over: i64| -> i64 {
        let line = image.sum_dim_intlist(over, false, Kind::Double).view(side);
        let centre = (line * &places).sum(Kind::Double).double_value(&[]) / mass;
        (side as f64 / 2.0 - centre).round() as i64
    };
    let (down, right) = (away(3), away(2));
    let wide = image.constant_pad_nd([side, side, side, side]);
    wide.narrow(2, side - down, side)
        .narrow(3, side - right, side)
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_centred_and_nothing_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let pad = Pad::new(folder.path().join("saved/mine.json"), 28).unwrap();
        assert!(pad.read().unwrap().is_none());
        let mut pixels = vec![0u8; 28 * 28];
        fs::write(&pad.file, serde_json::to_string(&pixels).unwrap()).unwrap();
        assert!(pad.read().unwrap().is_none());
        // Two by two pixels in a corner: their centre moves to that of the image.
        for at in [0, 1, 28, 29] {
            pixels[at] = 255;
        }
        fs::write(&pad.file, serde_json::to_string(&pixels).unwrap()).unwrap();
        let image = pad.read().unwrap().unwrap();
        assert_eq!(image.size(), [1, 1, 28, 28]);
        assert_eq!(image.sum(Kind::Float).double_value(&[]), 4.0);
        assert_eq!(
            image
                .narrow(2, 13, 2)
                .narrow(3, 13, 2)
                .sum(Kind::Float)
                .double_value(&[]),
            4.0
        );
    }

    #[test]
    fn a_drawing_is_also_points() {
        let folder = tempfile::tempdir().unwrap();
        let pad = Pad::new(folder.path().join("mine.json"), 4).unwrap();
        let other = Tensor::zeros([3, 2], (Kind::Float, Device::Cpu));
        assert_eq!(pad.points_or(&other).unwrap(), other);
        // A line from the lower left to the upper right.
        let line = "[0, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 255, 0, 0, 0]";
        fs::write(&pad.file, line).unwrap();
        let points = pad.points_or(&other).unwrap();
        assert_eq!(points.size(), [4, 2]);
        let (x, y) = (points.select(1, 0), points.select(1, 1));
        assert!((&x - &y).abs().max().double_value(&[]) < 1e-6, "{points}");
        assert!(x.mean(Kind::Float).double_value(&[]).abs() < 1e-6);
        assert!((points.square().mean(Kind::Float).double_value(&[]) - 1.0).abs() < 1e-5);
    }

    #[test]
    fn another_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let pad = Pad::new(folder.path().join("mine.json"), 28).unwrap();
        fs::write(&pad.file, "[1, 2]").unwrap();
        assert!(
            pad.read()
                .unwrap_err()
                .to_string()
                .contains("holds 2 pixels; expected 784")
        );
        fs::write(&pad.file, "[300]").unwrap();
        assert!(
            pad.read()
                .unwrap_err()
                .to_string()
                .contains("holds no drawing")
        );
    }

    #[test]
    fn a_pad_of_any_side_reads_its_own_size() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mine.json");
        let pad = Pad::new(&file, 3).unwrap();
        fs::write(&file, "[0, 0, 0, 0, 0, 0, 0, 0, 255]").unwrap();
        let image = pad.read().unwrap().unwrap();
        assert_eq!(image.size(), [1, 1, 3, 3]);
        assert_eq!(image.double_value(&[0, 0, 1, 1]), 1.0);
        let error = Pad::new(&file, 0).unwrap_err().to_string();
        assert!(
            error.contains("side 0") && error.contains("1 to 280"),
            "{error}"
        );
    }
}
