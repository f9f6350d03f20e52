//! The IDX format and the four files of a data set.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use flate2::read::GzDecoder;
use sha2::{Digest, Sha256};

/// A larger file is no data set of small images.
const MOST_BYTES: u64 = 1 << 30;
pub(super) const IMAGES_MAGIC: u32 = 0x0000_0803; // unsigned bytes, three dimensions
pub(super) const LABELS_MAGIC: u32 = 0x0000_0801; // unsigned bytes, one dimension

/// The four files of the standard MNIST with their SHA-256 sums.
pub(super) const FILES: [(&str, &str); 4] = [
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

/// Splits an IDX file into its `RANK` sizes and its bytes.
pub(super) fn parse_idx<const RANK: usize>(
    bytes: &[u8],
    magic: u32,
) -> Result<([usize; RANK], &[u8])> {
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
        "expected magic number {magic:#010x}, found {found:#010x}"
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

/// One file of a data set, unpacked.
pub(super) struct RawFile {
    /// Where it was found.
    pub(super) path: PathBuf,
    pub(super) bytes: Vec<u8>,
    /// The SHA-256 sum of the bytes.
    pub(super) sum: String,
}

/// The four files, large ones side by side on threads.
pub(super) fn read_files(folder: &Path) -> Result<[RawFile; 4]> {
    let [a, b, c, d] = std::thread::scope(|scope| {
        FILES
            .map(|(name, _)| scope.spawn(move || read_file(folder, name)))
            .map(|thread| {
                thread
                    .join()
                    .unwrap_or_else(|_| bail!("reading {} stopped unexpectedly", folder.display()))
            })
    });
    Ok([a?, b?, c?, d?])
}

/// A file under one of the names that are in use, with `-idx` or `.idx`, packed by gzip or not.
fn read_file(folder: &Path, name: &str) -> Result<RawFile> {
    let dotted = name.replace("-idx", ".idx");
    let names = [name, &dotted].map(str::to_owned);
    let packed = names.each_ref().map(|name| format!("{name}.gz"));
    let mut paths = names.iter().chain(&packed).map(|name| folder.join(name));
    let path = paths.find(|path| path.exists()).with_context(|| {
        format!(
            "cannot read {}: the folder holds neither it nor {}, {} or {}",
            folder.join(name).display(),
            names[1],
            packed[0],
            packed[1]
        )
    })?;
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let bytes = match bytes.starts_with(&[0x1f, 0x8b]) {
        true => unpacked(&bytes).with_context(|| format!("cannot unpack {}", path.display()))?,
        false => bytes,
    };
    let sum = Sha256::digest(&bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(RawFile { path, bytes, sum })
}

fn unpacked(bytes: &[u8]) -> Result<Vec<u8>> {
    let mut unpacked = Vec::new();
    GzDecoder::new(bytes)
        .take(MOST_BYTES + 1)
        .read_to_end(&mut unpacked)
        .context("it is a damaged gzip file: copy or download it again")?;
    ensure!(
        unpacked.len() as u64 <= MOST_BYTES,
        "it holds more than {MOST_BYTES} bytes; a file of this form holds at most as many"
    );
    Ok(unpacked)
}
