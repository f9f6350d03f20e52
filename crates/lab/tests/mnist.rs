//! MNIST from a folder that somebody names.

#![allow(clippy::unwrap_used)]

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Scratch, names};
use lab::setup::mnist::make;
use lab::setup::part::Options;

/// What set-up says to such a folder. Nothing of it may stay in the cache.
fn refused(name: &str, prepare: impl Fn(&Path)) -> String {
    let scratch = Scratch::new(name);
    let layout = scratch.layout();
    let folder = scratch.0.join("folder");
    prepare(&folder);
    let error = make(
        &layout,
        &Options {
            mnist: Some(folder),
        },
    )
    .unwrap_err();
    assert!(
        names(&layout.mnist()).is_empty(),
        "{:?}",
        names(&layout.mnist())
    );
    format!("{error:#}")
}

#[test]
fn a_missing_folder() {
    let text = refused("mnist-missing", |_| ());
    assert!(text.contains("is no folder"), "{text}");
}

#[test]
fn an_incomplete_folder() {
    let text = refused("mnist-incomplete", |folder| fs::create_dir(folder).unwrap());
    assert!(
        text.contains("holds neither train-images-idx3-ubyte nor train-images-idx3-ubyte.gz"),
        "{text}"
    );
}

#[test]
fn a_truncated_file() {
    let text = refused("mnist-truncated", |folder| {
        fs::create_dir(folder).unwrap();
        fs::write(
            folder.join("train-images-idx3-ubyte"),
            [0, 0, 8, 3, 0, 0, 234, 96],
        )
        .unwrap();
    });
    assert!(
        text.contains("expected 47040016 bytes") && text.contains("got 8 bytes"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_no_gzip() {
    let text = refused("mnist-gzip", |folder| {
        fs::create_dir(folder).unwrap();
        fs::write(
            folder.join("train-images-idx3-ubyte.gz"),
            b"<html>not found</html>",
        )
        .unwrap();
    });
    assert!(
        text.contains("train-images-idx3-ubyte.gz is not usable"),
        "{text}"
    );
}

#[test]
fn a_file_that_is_another() {
    let text = refused("mnist-other", |folder| {
        fs::create_dir(folder).unwrap();
        fs::write(folder.join("train-images-idx3-ubyte"), vec![0; 47_040_017]).unwrap();
    });
    assert!(
        text.contains("is not the MNIST file") && text.contains("got more than 47040016 bytes"),
        "{text}"
    );
}

/// With the real files, where set-up has brought them.
#[test]
fn the_real_files_raw_and_packed() {
    let Some(real) = real_files() else {
        println!("skipped: MNIST is not in the cache yet");
        return;
    };
    let scratch = Scratch::new("mnist-real");
    let (layout, folder) = (scratch.layout(), scratch.0.join("folder"));
    fs::create_dir(&folder).unwrap();
    for name in [
        "train-images-idx3-ubyte",
        "train-labels-idx1-ubyte",
        "t10k-images-idx3-ubyte",
    ] {
        std::os::unix::fs::symlink(real.join(name), folder.join(name)).unwrap();
    }
    let packed = fs::File::create(folder.join("t10k-labels-idx1-ubyte.gz")).unwrap();
    let mut packed = flate2::write::GzEncoder::new(packed, flate2::Compression::fast());
    std::io::copy(
        &mut fs::File::open(real.join("t10k-labels-idx1-ubyte")).unwrap(),
        &mut packed,
    )
    .unwrap();
    packed.finish().unwrap();
    make(
        &layout,
        &Options {
            mnist: Some(folder),
        },
    )
    .unwrap();
    let found = lab::setup::mnist::check(&layout, false).unwrap();
    assert!(
        matches!(found, lab::setup::part::Finding::Found(_)),
        "{found:?}"
    );
    assert_eq!(names(&layout.mnist()).len(), 4);
}

fn real_files() -> Option<PathBuf> {
    let folder = kernel::machine::layout::Layout::find().unwrap().mnist();
    folder
        .join("t10k-labels-idx1-ubyte")
        .is_file()
        .then_some(folder)
}
