//! MNIST and data sets of the same form: read, check, split, batch.
//!
//! The format is LeCun's IDX (<http://yann.lecun.com/exdb/mnist/>, section "File formats"): a
//! big-endian magic number that names type and rank, one big-endian 32-bit size for each
//! dimension, then the bytes. Four files make a data set.

mod idx;
mod pairs;
#[cfg(test)]
mod tests;

use std::ops::Range;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use figures::{Output, thousands, with_home};
use idx::{FILES, IMAGES_MAGIC, LABELS_MAGIC, RawFile, parse_idx, read_files};
use ndarray::Array2;
use tch::{IndexOp, Kind, Tensor};

/// Height and width of an image in pixels.
pub const SIDE: i64 = 28;
/// Pixels in an image.
pub const PIXELS: usize = (SIDE * SIDE) as usize;

/// A data set of 28x28 images in ten classes, split into training and test images.
#[derive(Debug)]
pub struct Mnist {
    /// The images to learn from: 60,000 in MNIST.
    pub train: Split,
    /// The images to test with: 10,000 in MNIST.
    pub test: Split,
    /// Whether these are byte for byte the standard MNIST files.
    pub is_standard: bool,
}

impl Mnist {
    /// Reads MNIST from the user's cache folder, where `make lab` put it, and checks each file's SHA-256.
    ///
    /// # Errors
    /// A file that is missing, unreadable, or not the standard one; the message says how to fix it.
    pub fn load() -> Result<Mnist> {
        Mnist::load_standard(&cache_folder()?.join("mnist"))
    }

    fn load_standard(folder: &Path) -> Result<Mnist> {
        let files = read_files(folder).context(
            "MNIST is not ready; `make lab` (or `cargo run -p lab -- setup`) fetches it",
        )?;
        for ((_, expected), RawFile { path, bytes, sum }) in FILES.iter().zip(&files) {
            ensure!(
                expected == sum,
                "{} is not the standard MNIST file: expected SHA-256 {expected}, found {sum} ({} bytes); \
                 delete it and run `make lab` to fetch it again",
                path.display(),
                bytes.len(),
            );
        }
        Mnist::from_files(&files)
    }

    /// Reads any data set in the same four files (Fashion-MNIST, for example), checks its structure
    /// fully, and prints a note if it is not the standard MNIST. Each file may be packed by gzip (`.gz`), and its name may
    /// have a dot in place of the last hyphen but one (`train-images.idx3-ubyte`).
    ///
    /// # Errors
    /// A file that is missing or not well formed: wrong magic number, truncated, oversized, images
    /// that are not 28x28, labels outside 0..=9, or images and labels of different number.
    pub fn load_from(folder: impl AsRef<Path>) -> Result<Mnist> {
        let folder: &Path = &with_home(folder.as_ref())?;
        ensure!(
            folder.is_dir(),
            "{} is not a folder; expected one with the files {}",
            folder.display(),
            FILES.map(|(name, _)| name).join(", "),
        );
        let mnist = Mnist::from_files(&read_files(folder)?)?;
        if !mnist.is_standard {
            println!(
                "Note: {} is well formed, but it is not the standard MNIST.",
                folder.display()
            );
        }
        Ok(mnist)
    }

    fn from_files(files: &[RawFile; 4]) -> Result<Mnist> {
        let [images, labels, test_images, test_labels] = files;
        let mut sums = FILES.iter().zip(files);
        Ok(Mnist {
            train: Split::from_idx(images, labels)?,
            test: Split::from_idx(test_images, test_labels)?,
            is_standard: sums.all(|((_, sum), file)| *sum == file.sum),
        })
    }

    /// Shows the data set's shape in a notebook.
    pub fn evcxr_display(&self) {
        let name = if self.is_standard {
            "MNIST"
        } else {
            "a data set in MNIST's form"
        };
        Output::plain(format!(
            "{name}: {} images to train, {} to test; each (1, 28, 28), pixels in [0, 1]",
            thousands(self.train.len()),
            thousands(self.test.len()),
        ))
        .evcxr_display();
    }
}

/// Images with their labels.
///
/// Held as bytes (a quarter of the memory) and given out as `float32` in `[0, 1]`: that
/// division by 255 is the one place where pixels are scaled.
#[derive(Debug)]
pub struct Split {
    images: Tensor, // (N, 1, 28, 28), bytes 0..=255
    labels: Tensor, // (N,), int64 0..=9
}

impl Split {
    /// A split of one's own images, of `(N, 1, 28, 28)` in `[0, 1]`, and a label for each. Pixels are kept as bytes.
    ///
    /// # Errors
    /// Images of another shape, of whole numbers, or with pixels outside `[0, 1]`; another number of labels, or a label that
    /// is not in `0..=9`.
    pub fn of(images: &Tensor, labels: &[i64]) -> Result<Split> {
        let count = check_images(images)?;
        ensure!(
            labels.len() == count,
            "expected a label for each of {count} images; got {}",
            labels.len()
        );
        if let Some(wrong) = labels.iter().find(|label| !(0..10).contains(*label)) {
            bail!("there is no class {wrong}; expected one of 0 to 9");
        }
        let images = images.detach().to_kind(Kind::Float);
        let (least, most) = (
            images.min().double_value(&[]),
            images.max().double_value(&[]),
        );
        // NaN fails both comparisons.
        ensure!(
            least >= 0.0 && most <= 1.0,
            "a split takes pixels from 0 to 1; these go from {least} to {most}"
        );
        let bytes = (images * 255.0).round();
        Ok(Split {
            images: bytes.to_kind(Kind::Uint8).contiguous(),
            labels: Tensor::from_slice(labels),
        })
    }

    /// The first `n` images with their labels; they share this split's memory.
    ///
    /// # Errors
    /// When there are fewer than `n`, or `n` is 0.
    pub fn first(&self, n: usize) -> Result<Split> {
        self.check(n)?;
        Ok(Split {
            images: self.images.i(..n as i64),
            labels: self.labels.i(..n as i64),
        })
    }

    /// The first `n` images of each class, 0 to 9.
    ///
    /// # Errors
    /// When a class has fewer than `n` images.
    pub fn first_of_each(&self, n: usize) -> Result<Split> {
        let mut indices = Vec::with_capacity(10 * n);
        for class in 0..10 {
            indices.extend(self.of_class(class, n)?.1);
        }
        self.select(&indices)
    }

    /// This split's images followed by another's.
    pub fn join(&self, other: &Split) -> Split {
        Split {
            images: Tensor::cat(&[&self.images, &other.images], 0),
            labels: Tensor::cat(&[&self.labels, &other.labels], 0),
        }
    }

    /// The images at these indices as a split of their own.
    ///
    /// # Errors
    /// No indices, or one that is not in `0..len()`.
    pub fn select(&self, indices: &[i64]) -> Result<Split> {
        ensure!(
            !indices.is_empty(),
            "got no indices; expected at least one image for a split"
        );
        self.check_indices(indices)?;
        let indices = Tensor::from_slice(indices);
        Ok(Split {
            images: self.images.index_select(0, &indices),
            labels: self.labels.index_select(0, &indices),
        })
    }

    /// How many images there are.
    #[allow(clippy::len_without_is_empty)] // a data set is never empty: `load` checks
    pub fn len(&self) -> usize {
        self.images.size()[0] as usize
    }

    /// The first `n` images: `(n, 1, 28, 28)`, `float32` in `[0, 1]`.
    ///
    /// # Errors
    /// When there are fewer than `n`, or `n` is 0.
    pub fn images(&self, n: usize) -> Result<Tensor> {
        self.check(n)?;
        Ok(scale(&self.images.i(..n as i64)))
    }

    /// The first `n` labels, each in `0..=9`.
    ///
    /// # Errors
    /// When there are fewer than `n`, or `n` is 0.
    pub fn labels(&self, n: usize) -> Result<Vec<i64>> {
        self.check(n)?;
        Ok(Vec::try_from(self.labels.i(..n as i64))?)
    }

    /// The first image of each class, 0 to 9: `(10, 1, 28, 28)`, `float32` in `[0, 1]`.
    ///
    /// # Errors
    /// When a class has no image.
    pub fn one_of_each(&self) -> Result<Tensor> {
        let firsts = (0..10)
            .map(|class| Ok(self.of_class(class, 1)?.0))
            .collect::<Result<Vec<_>>>()?;
        Ok(Tensor::cat(&firsts, 0))
    }

    /// The first `n` images of a class, and their indices in this split.
    ///
    /// # Errors
    /// A class that is not in `0..=9`, or one with fewer than `n` images.
    pub fn of_class(&self, class: i64, n: usize) -> Result<(Tensor, Vec<i64>)> {
        ensure!(
            (0..10).contains(&class),
            "there is no class {class}; expected one of 0 to 9"
        );
        let indices = self.labels.eq(class).nonzero().view(-1);
        let found = indices.size()[0] as usize;
        ensure!(
            n >= 1 && n <= found,
            "asked for {n} images of class {class}; there are {found}"
        );
        let indices = Vec::<i64>::try_from(indices.i(..n as i64))?;
        Ok((self.gather(&indices), indices))
    }

    /// The images at these indices: `(indices, 1, 28, 28)`, `float32` in `[0, 1]`.
    ///
    /// # Errors
    /// An index that is not in `0..len()`.
    pub fn batch(&self, indices: &[i64]) -> Result<Tensor> {
        self.check_indices(indices)?;
        Ok(self.gather(indices))
    }

    fn check_indices(&self, indices: &[i64]) -> Result<()> {
        let len = self.len() as i64;
        let wrong = indices.iter().find(|index| !(0..len).contains(*index));
        match wrong {
            Some(wrong) => bail!(
                "there is no image {wrong}; this split has images 0 to {}",
                len - 1
            ),
            None => Ok(()),
        }
    }

    /// [`batch`](Split::batch) for indices that are known to be right.
    pub(crate) fn gather(&self, indices: &[i64]) -> Tensor {
        scale(&self.images.index_select(0, &Tensor::from_slice(indices)))
    }

    /// The labels of images that are known to exist: `(indices,)`, `int64`.
    pub(crate) fn gather_labels(&self, indices: &[i64]) -> Tensor {
        self.labels.index_select(0, &Tensor::from_slice(indices))
    }

    /// The same as numbers.
    pub(crate) fn label_values(&self, indices: &[i64]) -> Vec<i64> {
        let labels = Vec::try_from(self.gather_labels(indices));
        labels.unwrap_or_else(|error| unreachable!("labels are `int64`: {error}"))
    }

    /// All but the last `n` images, and the last `n`: a training set and a validation set.
    /// Both share this split's memory.
    ///
    /// # Errors
    /// When not at least one image remains on either side.
    pub fn hold_out(&self, n: usize) -> Result<(Split, Split)> {
        let len = self.len();
        ensure!(
            n >= 1 && n < len,
            "cannot hold out {n} of {len} images; expected 1 to {}",
            len - 1
        );
        Ok((self.part(0..len - n), self.part(len - n..len)))
    }

    /// Some of the images, which are known to exist; they share this split's memory.
    pub(crate) fn part(&self, range: Range<usize>) -> Split {
        let range = range.start as i64..range.end as i64;
        Split {
            images: self.images.i(range.clone()),
            labels: self.labels.i(range),
        }
    }

    /// The same images again, without copying them.
    pub(crate) fn shallow_clone(&self) -> Split {
        Split {
            images: self.images.shallow_clone(),
            labels: self.labels.shallow_clone(),
        }
    }

    fn check(&self, n: usize) -> Result<()> {
        let len = self.len();
        ensure!(
            (1..=len).contains(&n),
            "asked for {n} images; this split has {len}"
        );
        Ok(())
    }

    fn from_idx(images: &RawFile, labels: &RawFile) -> Result<Split> {
        let (images_at, labels_at) = (&images.path, &labels.path);
        let (sizes, pixels) = parse_idx::<3>(&images.bytes, IMAGES_MAGIC)
            .with_context(|| format!("{} is not a file of images", images_at.display()))?;
        ensure!(
            sizes[1..] == [SIDE as usize; 2],
            "{} holds images of {}x{} pixels; expected 28x28",
            images_at.display(),
            sizes[1],
            sizes[2],
        );
        let ([count], classes) = parse_idx::<1>(&labels.bytes, LABELS_MAGIC)
            .with_context(|| format!("{} is not a file of labels", labels_at.display()))?;
        ensure!(
            sizes[0] == count,
            "{} holds {} images, but {} holds {count} labels; expected one for each",
            images_at.display(),
            sizes[0],
            labels_at.display(),
        );
        ensure!(count > 0, "{} holds no images", images_at.display());
        if let Some(at) = classes.iter().position(|&class| class > 9) {
            bail!(
                "{}: label {at} is {}; expected 0 to 9",
                labels_at.display(),
                classes[at]
            );
        }
        Ok(Split {
            images: Tensor::from_slice(pixels).view([-1, 1, SIDE, SIDE]),
            labels: Tensor::from_slice(classes).to_kind(Kind::Int64),
        })
    }
}

/// How many images a tensor holds, if it holds images: `(N, 1, 28, 28)`, fractions.
///
/// # Errors
/// A tensor of another shape, without images, or of whole numbers.
pub(crate) fn check_images(images: &Tensor) -> Result<usize> {
    let shape = images.size();
    ensure!(
        shape.len() == 4 && shape[0] > 0 && shape[1..] == [1, SIDE, SIDE],
        "expected images of shape (N, 1, 28, 28); these have {shape:?}"
    );
    ensure!(
        images.is_floating_point(),
        "expected images of fractions in [0, 1]; these hold {:?} numbers",
        images.kind()
    );
    Ok(shape[0] as usize)
}

/// Bytes to `float32` in `[0, 1]`.
fn scale(bytes: &Tensor) -> Tensor {
    bytes.to_kind(Kind::Float) / 255.0
}

/// The pixels of one image as numbers to look at: `(28, 28)`, rows from top to bottom.
///
/// # Errors
/// A tensor that does not hold one image of 28x28 pixels.
pub fn pixels(image: &Tensor) -> Result<Array2<f32>> {
    ensure!(
        image.numel() == PIXELS,
        "expected one image of shape (1, 1, 28, 28); this tensor has {:?}",
        image.size()
    );
    let values = Vec::<f32>::try_from(image.detach().to_kind(Kind::Float).contiguous().view(-1))?;
    Ok(Array2::from_shape_vec(
        (SIDE as usize, SIDE as usize),
        values,
    )?)
}

/// The per-user folder in which set-up keeps what it fetched: `DIFFUSION_CACHE`, else
/// `diffusion-lesson` in the platform's cache folder.
fn cache_folder() -> Result<PathBuf> {
    match std::env::var_os("DIFFUSION_CACHE") {
        Some(folder) => Ok(folder.into()),
        None => Ok(dirs::cache_dir()
            .context("this user has no cache folder; set DIFFUSION_CACHE to a folder")?
            .join("diffusion-lesson")),
    }
}
