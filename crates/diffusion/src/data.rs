//! MNIST and data sets of the same form: read, check, split, batch.
//!
//! The format is LeCun's IDX (<http://yann.lecun.com/exdb/mnist/>, section "File formats"): a
//! big-endian magic number that names type and rank, one big-endian 32-bit size for each
//! dimension, then the bytes. Four files make a data set.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use ndarray::Array2;
use sha2::{Digest, Sha256};
use tch::{IndexOp, Kind, Tensor};

/// Height and width of an image in pixels.
pub const SIDE: i64 = 28;
/// Pixels in an image.
pub const PIXELS: usize = (SIDE * SIDE) as usize;

const IMAGES_MAGIC: u32 = 0x0000_0803; // unsigned bytes, three dimensions
const LABELS_MAGIC: u32 = 0x0000_0801; // unsigned bytes, one dimension

/// The four files of the standard MNIST with their SHA-256 sums.
const FILES: [(&str, &str); 4] = [
    (
        "train-images-idx3-ubyte",
        "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    ),
    (
        "train-labels-idx1-ubyte",
        "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    ),
    (
        "t10k-images-idx3-ubyte",
        "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    ),
    (
        "t10k-labels-idx1-ubyte",
        "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
    ),
];

/// A data set of 28x28 images in ten classes, split into training and test images.
#[derive(Debug)]
pub struct Mnist {
    /// The images to learn from: 60,000 in MNIST.
    pub train: Split,
    /// The images to be judged by: 10,000 in MNIST.
    pub test: Split,
    /// Whether these are byte for byte the standard MNIST files.
    pub is_standard: bool,
}

impl Mnist {
    /// Reads MNIST from the user's cache folder, where `make lab` put it, and checks each file's SHA-256.
    ///
    /// # Errors
    /// A file that is missing, unreadable, or not the standard one; the message says how to mend it.
    pub fn load() -> Result<Mnist> {
        Mnist::load_standard(&cache_folder()?.join("mnist"))
    }

    fn load_standard(folder: &Path) -> Result<Mnist> {
        let files = read_files(folder).context(
            "MNIST is not ready; `make lab` (or `cargo run -p lab -- setup`) fetches it",
        )?;
        for ((name, expected), (bytes, found)) in FILES.iter().zip(&files) {
            ensure!(
                expected == found,
                "{} is not the standard MNIST file: expected SHA-256 {expected}, found {found} ({} bytes); \
                 delete it and run `make lab` to fetch it again",
                folder.join(name).display(),
                bytes.len(),
            );
        }
        Mnist::from_files(folder, &files)
    }

    /// Reads any data set in the same four files (Fashion-MNIST, one's own), checks its structure
    /// fully, and says so if it is not the standard MNIST.
    ///
    /// # Errors
    /// A file that is missing or not well formed: wrong magic number, truncated, oversized, images
    /// that are not 28x28, labels outside 0..=9, or images and labels of different number.
    pub fn load_from(folder: impl AsRef<Path>) -> Result<Mnist> {
        let folder = folder.as_ref();
        ensure!(
            folder.is_dir(),
            "{} is not a folder; expected one with the files {}",
            folder.display(),
            FILES.map(|(name, _)| name).join(", "),
        );
        let mnist = Mnist::from_files(folder, &read_files(folder)?)?;
        if !mnist.is_standard {
            println!(
                "Note: {} is well formed, but it is not the standard MNIST.",
                folder.display()
            );
        }
        Ok(mnist)
    }

    fn from_files(folder: &Path, files: &[(Vec<u8>, String); 4]) -> Result<Mnist> {
        let is_standard = FILES
            .iter()
            .zip(files)
            .all(|((_, sum), (_, found))| sum == found);
        let split = |images: usize, labels: usize| {
            let path = |file: usize| folder.join(FILES[file].0);
            Split::from_idx(
                &path(images),
                &files[images].0,
                &path(labels),
                &files[labels].0,
            )
        };
        Ok(Mnist {
            train: split(0, 1)?,
            test: split(2, 3)?,
            is_standard,
        })
    }

    /// Shows the data set's shape in a notebook.
    pub fn evcxr_display(&self) {
        let name = if self.is_standard {
            "MNIST"
        } else {
            "a data set in MNIST's form"
        };
        crate::show::text(&format!(
            "{name}: {} images to train, {} to test; each (1, 28, 28), pixels in [0, 1]",
            thousands(self.train.len()),
            thousands(self.test.len()),
        ));
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

    /// The first `n` labels: `(n,)`, `int64` in `0..=9`.
    ///
    /// # Errors
    /// When there are fewer than `n`, or `n` is 0.
    pub fn labels(&self, n: usize) -> Result<Tensor> {
        self.check(n)?;
        Ok(self.labels.i(..n as i64).shallow_clone())
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
        let len = self.len() as i64;
        if let Some(wrong) = indices.iter().find(|index| !(0..len).contains(index)) {
            bail!(
                "there is no image {wrong}; this split has images 0 to {}",
                len - 1
            );
        }
        Ok(self.gather(indices))
    }

    /// [`batch`](Split::batch) for indices that are known to be right.
    pub(crate) fn gather(&self, indices: &[i64]) -> Tensor {
        scale(&self.images.index_select(0, &Tensor::from_slice(indices)))
    }

    /// All but the last `n` images, and the last `n`: what to train on, and what to watch it by.
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
        let at = (len - n) as i64;
        let part = |range: std::ops::Range<i64>| Split {
            images: self.images.i(range.clone()),
            labels: self.labels.i(range),
        };
        Ok((part(0..at), part(at..len as i64)))
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

    fn from_idx(images_at: &Path, images: &[u8], labels_at: &Path, labels: &[u8]) -> Result<Split> {
        let (sizes, pixels) = parse_idx::<3>(images, IMAGES_MAGIC)
            .with_context(|| format!("{} is not a file of images", images_at.display()))?;
        ensure!(
            sizes[1..] == [SIDE as usize; 2],
            "{} holds images of {}x{} pixels; expected 28x28",
            images_at.display(),
            sizes[1],
            sizes[2],
        );
        let ([count], classes) = parse_idx::<1>(labels, LABELS_MAGIC)
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

/// Bytes to `float32` in `[0, 1]`.
fn scale(bytes: &Tensor) -> Tensor {
    bytes.to_kind(Kind::Float) / 255.0
}

/// Splits an IDX file into its `RANK` sizes and its bytes.
fn parse_idx<const RANK: usize>(bytes: &[u8], magic: u32) -> Result<([usize; RANK], &[u8])> {
    let word = |at: usize| {
        bytes
            .get(4 * at..4 * at + 4)
            .and_then(|word| word.try_into().ok())
            .map(u32::from_be_bytes)
            .with_context(|| format!("it ends within its header, after {} bytes", bytes.len()))
    };
    let found = word(0)?;
    ensure!(
        found == magic,
        "expected magic number {magic:#010x}, found {found:#010x}{}",
        gzip_hint(bytes)
    );
    let mut sizes = [0; RANK];
    for (at, size) in sizes.iter_mut().enumerate() {
        *size = word(at + 1)? as usize;
    }
    let body = &bytes[4 * (RANK + 1)..];
    let expected = sizes
        .iter()
        .try_fold(1usize, |product, &size| product.checked_mul(size));
    ensure!(
        expected == Some(body.len()),
        "its header promises {} bytes of data, but {} follow: it is {}",
        expected.map_or("too many".to_owned(), |n| n.to_string()),
        body.len(),
        if expected.is_none_or(|n| n > body.len()) {
            "truncated"
        } else {
            "too long"
        },
    );
    Ok((sizes, body))
}

fn gzip_hint(bytes: &[u8]) -> &'static str {
    if bytes.starts_with(&[0x1f, 0x8b]) {
        " (a gzip file: unpack it first)"
    } else {
        ""
    }
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

/// The four files with their SHA-256 sums, large ones side by side on threads.
fn read_files(folder: &Path) -> Result<[(Vec<u8>, String); 4]> {
    let read = |name: &str| -> Result<(Vec<u8>, String)> {
        let path = folder.join(name);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let sum = Sha256::digest(&bytes)
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        Ok((bytes, sum))
    };
    let [a, b, c, d] = std::thread::scope(|scope| {
        FILES
            .map(|(name, _)| scope.spawn(move || read(name)))
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("reading {} stopped unexpectedly", folder.display()))
            })
    });
    Ok([a?, b?, c?, d?])
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

/// A count with thousands separated, as Keras and people write it: `3,255,233`.
pub(crate) fn thousands(n: usize) -> String {
    let digits = n.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .filter_map(|group| std::str::from_utf8(group).ok())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A folder with a well-formed data set of `n` images in each split.
    fn folder(n: u32) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, _) in FILES {
            let images = name.contains("images");
            let header: &[u32] = if images {
                &[IMAGES_MAGIC, n, 28, 28]
            } else {
                &[LABELS_MAGIC, n]
            };
            let body = if images { n * 28 * 28 } else { n };
            let bytes = header.iter().flat_map(|word| word.to_be_bytes());
            let bytes: Vec<u8> = bytes.chain((0..body).map(|i| (i % 10) as u8)).collect();
            fs::write(folder.path().join(name), bytes).unwrap();
        }
        folder
    }

    /// Changes one file of a good folder, and returns the error that loading it gives.
    fn error_after(name: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
        let folder = folder(20);
        let path = folder.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        change(&mut bytes);
        fs::write(&path, bytes).unwrap();
        format!("{:?}", Mnist::load_from(folder.path()).unwrap_err())
    }

    #[test]
    fn a_folder_of_ones_own_is_read_and_known_not_to_be_mnist() {
        let folder = folder(20);
        let mine = Mnist::load_from(folder.path()).unwrap();
        assert!(!mine.is_standard);
        assert_eq!((mine.train.len(), mine.test.len()), (20, 20));
        assert_eq!(mine.test.images(3).unwrap().size(), [3, 1, 28, 28]);
        let nine = mine.train.of_class(9, 2).unwrap().1;
        assert_eq!(nine, [9, 19]);
    }

    #[test]
    fn each_broken_file_gives_one_clear_error() {
        let images = "train-images-idx3-ubyte";
        let labels = "t10k-labels-idx1-ubyte";
        let cases: [(String, &[&str]); 9] = [
            (
                error_after(images, |b| b.truncate(500)),
                &[images, "promises 15680", "484", "truncated"],
            ),
            (
                error_after(images, |b| b.push(0)),
                &[images, "promises 15680", "15681", "too long"],
            ),
            (
                error_after(images, |b| b.truncate(7)),
                &[images, "within its header", "7 bytes"],
            ),
            (
                error_after(images, |b| b[3] = 1),
                &[images, "0x00000803", "0x00000801"],
            ),
            (
                error_after(images, |b| b[..2].copy_from_slice(&[0x1f, 0x8b])),
                &[images, "gzip"],
            ),
            (
                error_after(images, |b| b[7] = 255),
                &[images, "promises", "truncated"],
            ),
            (
                error_after(labels, |b| b[8] = 12),
                &[labels, "label 0 is 12", "0 to 9"],
            ),
            (
                error_after(labels, |b| {
                    b[7] = 19;
                    b.pop();
                }),
                &["20 images", "19 labels"],
            ),
            (
                error_after(images, |b| {
                    b.splice(8..16, [0, 0, 0, 14, 0, 0, 0, 56]).for_each(drop)
                }),
                &[images, "14x56", "28x28"],
            ),
        ];
        for (error, words) in cases {
            for word in words {
                assert!(error.contains(word), "{word:?} is not in: {error}");
            }
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let error = format!("{:?}", Mnist::load_from("no/such/folder").unwrap_err());
        assert!(
            error.contains("no/such/folder") && error.contains("t10k-labels-idx1-ubyte"),
            "{error}"
        );
        let folder = folder(1);
        fs::remove_file(folder.path().join("t10k-images-idx3-ubyte")).unwrap();
        let error = format!("{:?}", Mnist::load_from(folder.path()).unwrap_err());
        assert!(
            error.contains("cannot read") && error.contains("t10k-images-idx3-ubyte"),
            "{error}"
        );
    }

    #[test]
    fn a_file_that_is_not_the_standard_one_is_told_by_its_hash() {
        let folder = folder(20);
        let error = format!("{:?}", Mnist::load_standard(folder.path()).unwrap_err());
        for words in ["train-images-idx3-ubyte", FILES[0].1, "found", "make lab"] {
            assert!(error.contains(words), "{words:?} is not in: {error}");
        }
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let folder = folder(1);
        let path = folder.path().join("train-labels-idx1-ubyte");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        let error = format!("{:?}", Mnist::load_from(folder.path()).unwrap_err());
        assert!(
            error.contains("cannot read") && error.contains("train-labels"),
            "{error}"
        );
    }

    #[test]
    fn mnist_is_the_standard_one_with_its_known_counts() {
        let mnist = Mnist::load().unwrap();
        assert!(mnist.is_standard);
        assert_eq!((mnist.train.len(), mnist.test.len()), (60_000, 10_000));
        // The published class counts of the test split.
        let labels = mnist.test.labels(10_000).unwrap();
        let counts = Vec::<i64>::try_from(labels.bincount::<Tensor>(None, 10)).unwrap();
        assert_eq!(
            counts,
            [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
        );
        // The mean pixel of the training images, known to everyone who normalises MNIST.
        let mean = mnist
            .train
            .images(60_000)
            .unwrap()
            .mean(Kind::Double)
            .double_value(&[]);
        assert!((mean - 0.1307).abs() < 5e-5, "{mean}");
        let seven = pixels(&mnist.test.images(1).unwrap()).unwrap();
        assert_eq!(seven.dim(), (28, 28));
        assert_eq!((seven[[7, 6]] * 255.0, seven[[0, 0]]), (84.0, 0.0));
        assert!(pixels(&mnist.test.images(2).unwrap()).is_err());
        let ones = mnist.test.one_of_each().unwrap();
        assert_eq!(ones.size(), [10, 1, 28, 28]);
        assert_eq!(
            (ones.min().double_value(&[]), ones.max().double_value(&[])),
            (0.0, 1.0)
        );
    }

    #[test]
    fn asking_for_too_much_says_what_there_is() {
        let folder = folder(20);
        let split = Mnist::load_from(folder.path()).unwrap().train;
        for (error, words) in [
            (
                split.images(21).unwrap_err(),
                "asked for 21 images; this split has 20",
            ),
            (
                split.labels(0).unwrap_err(),
                "asked for 0 images; this split has 20",
            ),
            (split.of_class(12, 1).unwrap_err(), "no class 12"),
            (
                split.of_class(3, 9).unwrap_err(),
                "asked for 9 images of class 3; there are 2",
            ),
            (split.hold_out(20).unwrap_err(), "cannot hold out 20 of 20"),
        ] {
            assert!(error.to_string().contains(words), "{error}");
        }
        let (train, held_out) = split.hold_out(5).unwrap();
        assert_eq!((train.len(), held_out.len()), (15, 5));
        assert_eq!(held_out.batch(&[0]).unwrap(), split.batch(&[15]).unwrap());
        let error = held_out.batch(&[4, 5]).unwrap_err().to_string();
        assert!(
            error.contains("no image 5; this split has images 0 to 4"),
            "{error}"
        );
    }

    #[test]
    fn thousands_are_separated() {
        assert_eq!(
            [0, 999, 1000, 3_255_233].map(thousands),
            ["0", "999", "1,000", "3,255,233"]
        );
    }
}
