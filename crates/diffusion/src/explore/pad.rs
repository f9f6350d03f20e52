//! A pad to draw a digit of one's own on.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use tch::{Kind, Tensor};

use super::pages::{Explorer, framed};
use crate::data::{PIXELS, SIDE};
use crate::figure::grid;
use crate::show::escape;

const SCRIPT: &str = include_str!("../../assets/pad.js");

/// A pad in the notebook, and the file that its drawing goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pad {
    file: PathBuf,
}

impl Pad {
    /// A pad whose drawing goes to a file, beside the notebook: `saved/mine.json`. Its folder is made if need be.
    ///
    /// # Errors
    /// A folder that cannot be made.
    pub fn new(file: impl AsRef<Path>) -> Result<Pad> {
        let file = file.as_ref().to_owned();
        if let Some(folder) = file.parent() {
            fs::create_dir_all(folder)
                .with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(Pad { file })
    }

    /// The pad itself, to be shown by a cell.
    pub fn show(&self) -> Explorer {
        let make = || {
            let blank = Tensor::zeros([1, 1, SIDE, SIDE], (Kind::Float, tch::Device::Cpu));
            let still = grid(&blank, 1)
                .alt("A pad to draw on, where scripts may run")
                .html()?;
            let attributes = format!(
                " data-file=\"{}\"",
                escape(&self.file.display().to_string())
            );
            Ok(framed(&attributes, &still, "", SCRIPT))
        };
        Explorer::of(make(), "A pad to draw a digit on")
    }

    /// What was drawn, `(1, 1, 28, 28)` in `[0, 1]`, its centre of mass in the middle, as MNIST's digits have it.
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
        ensure!(
            pixels.len() == PIXELS,
            "{} holds {} pixels; expected {PIXELS}",
            self.file.display(),
            pixels.len()
        );
        if pixels.iter().all(|&pixel| pixel == 0) {
            return Ok(None);
        }
        let image = Tensor::from_slice(&pixels).view([1, 1, SIDE, SIDE]);
        Ok(Some(centred_by_mass(&(image.to_kind(Kind::Float) / 255.0))))
    }

    /// What was drawn, or this digit as long as nothing is; says which.
    ///
    /// # Errors
    /// As [`read`](Pad::read).
    pub fn read_or(&self, other: &Tensor) -> Result<Tensor> {
        Ok(match self.read()? {
            Some(mine) => mine,
            None => {
                println!("Nothing is drawn yet, so here is another digit.");
                other.shallow_clone()
            }
        })
    }
}

/// The image moved by whole pixels, its centre of mass in the middle; what leaves on one side is lost.
fn centred_by_mass(image: &Tensor) -> Tensor {
    let mass = image.sum(Kind::Double).double_value(&[]);
    let places = Tensor::arange(SIDE, (Kind::Double, image.device())) + 0.5;
    // How far the centre of the sums over rows or columns lies from the middle.
    let away = |over: i64| -> i64 {
        let line = image.sum_dim_intlist(over, false, Kind::Double).view(SIDE);
        let centre = (line * &places).sum(Kind::Double).double_value(&[]) / mass;
        (SIDE as f64 / 2.0 - centre).round() as i64
    };
    let (down, right) = (away(3), away(2));
    let pad = SIDE;
    let wide = image.constant_pad_nd([pad, pad, pad, pad]);
    wide.narrow(2, pad - down, SIDE)
        .narrow(3, pad - right, SIDE)
        .contiguous()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_drawing_is_centred_and_nothing_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let pad = Pad::new(folder.path().join("saved/mine.json")).unwrap();
        assert!(pad.read().unwrap().is_none());
        let mut pixels = vec![0u8; PIXELS];
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
    fn another_file_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let pad = Pad::new(folder.path().join("mine.json")).unwrap();
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
}
