use super::idx::{FILES, IMAGES_MAGIC, LABELS_MAGIC};
use super::*;
use std::fs;
use std::path::Path;

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

/// Packs a file by gzip and gives it another name.
fn pack(folder: &Path, from: &str, to: &str) {
    let bytes = fs::read(folder.join(from)).unwrap();
    let file = fs::File::create(folder.join(to)).unwrap();
    let mut encoder = flate2::write::GzEncoder::new(file, flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, &bytes).unwrap();
    encoder.finish().unwrap();
    fs::remove_file(folder.join(from)).unwrap();
}

#[test]
fn packed_files_and_dotted_names_are_read() {
    let folder = folder(20);
    let path = |name: &str| folder.path().join(name);
    let expected = Mnist::load_from(folder.path()).unwrap();
    pack(
        folder.path(),
        "train-images-idx3-ubyte",
        "train-images-idx3-ubyte.gz",
    );
    pack(
        folder.path(),
        "t10k-images-idx3-ubyte",
        "t10k-images.idx3-ubyte.gz",
    );
    let dotted = path("train-labels.idx1-ubyte");
    fs::rename(path("train-labels-idx1-ubyte"), dotted).unwrap();
    let found = Mnist::load_from(folder.path()).unwrap();
    for (found, expected) in [(found.train, expected.train), (found.test, expected.test)] {
        assert_eq!(found.images(20).unwrap(), expected.images(20).unwrap());
        assert_eq!(found.labels(20).unwrap(), expected.labels(20).unwrap());
    }
    // A damaged one is named as what it is.
    let packed = path("train-images-idx3-ubyte.gz");
    let bytes = fs::read(&packed).unwrap();
    fs::write(&packed, &bytes[..bytes.len() / 2]).unwrap();
    let error = format!("{:#}", Mnist::load_from(folder.path()).unwrap_err());
    assert!(
        error.contains("train-images-idx3-ubyte.gz") && error.contains("damaged gzip"),
        "{error}"
    );
}

#[test]
fn a_data_set_without_images_is_refused() {
    let error = format!("{:?}", Mnist::load_from(folder(0).path()).unwrap_err());
    assert!(error.contains("holds no images"), "{error}");
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
    assert_eq!(
        (0..10)
            .map(|class| labels.iter().filter(|label| **label == class).count())
            .collect::<Vec<_>>(),
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
fn a_split_of_ones_own_keeps_images_and_labels_together() {
    let images = Tensor::rand([3, 1, 28, 28], (Kind::Float, tch::Device::Cpu));
    let split = Split::of(&images, &[7, 0, 9]).unwrap();
    let difference = (split.images(3).unwrap() - &images).abs().max();
    assert!(difference.double_value(&[]) <= 0.5 / 255.0 + 1e-6);
    let chosen = split.select(&[2, 0]).unwrap();
    assert_eq!(chosen.label_values(&[0, 1]), [9, 7]);
    assert_eq!(chosen.images(1).unwrap(), split.batch(&[2]).unwrap());
    let both = split.join(&chosen);
    assert_eq!(both.label_values(&[0, 1, 2, 3, 4]), [7, 0, 9, 9, 7]);
    let text = |error: Result<Split>| error.unwrap_err().to_string();
    assert!(text(Split::of(&images, &[1, 2])).contains("each of 3 images; got 2"));
    assert!(text(Split::of(&images, &[1, 2, 12])).contains("no class 12"));
    assert!(text(Split::of(&images.view([3, 28, 28]), &[1, 2, 3])).contains("[3, 28, 28]"));
    assert!(text(Split::of(&(&images * 255.0), &[1, 2, 3])).contains("pixels from 0 to 1"));
    let none: Tensor = &images * f64::NAN;
    assert!(text(Split::of(&none, &[1, 2, 3])).contains("NaN"));
    let first = both.first(2).unwrap();
    assert_eq!(first.labels(2).unwrap(), [7, 0]);
    assert!(text(both.first(6)).contains("asked for 6 images; this split has 5"));
    assert!(text(both.first_of_each(1)).contains("of class 1; there are 0"));
    assert!(text(split.select(&[3])).contains("no image 3; this split has images 0 to 2"));
    assert!(text(split.select(&[])).contains("got no indices; expected at least one image"));
}
