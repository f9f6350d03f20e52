//! Figures: the right pixels at the right size, with alt text, and errors instead of panics.
#![allow(clippy::unwrap_used)]

use base64::Engine;
use figures::{
    Block, Output, Pad, Series, animation, blocks, curve, grid, histogram, rows,
    rows_with_captions, scatter,
};
use tch::{Device, Kind, Tensor};

fn images(n: i64) -> Tensor {
    Tensor::arange(n * 784, (Kind::Float, Device::Cpu)).view([n, 1, 28, 28]) / (n * 784) as f64
}

fn blank(n: i64) -> Tensor {
    Tensor::zeros([n, 1, 28, 28], (Kind::Float, Device::Cpu))
}

/// A picture's bytes as the notebook gets them.
fn bytes(figure: &Output) -> Vec<u8> {
    let html = figure.html().unwrap();
    let start = html.find("base64,").unwrap() + 7;
    let end = start + html[start..].find('"').unwrap();
    base64::engine::general_purpose::STANDARD
        .decode(&html[start..end])
        .unwrap()
}

/// A grey PNG as rows of pixels.
fn decoded(figure: &Output) -> (Vec<u8>, usize) {
    let bytes = bytes(figure);
    let mut reader = png::Decoder::new(std::io::Cursor::new(bytes))
        .read_info()
        .unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(info.color_type, png::ColorType::Grayscale);
    (pixels, info.width as usize)
}

#[test]
fn images_are_enlarged_without_interpolation() {
    let image = images(1);
    let (pixels, width) = decoded(&grid(&image, 1));
    // Three times as large, twice as fine: each pixel of the image is 6x6, 8 pixels from the edge.
    for (y, x) in [(0, 0), (0, 27), (13, 14), (27, 27)] {
        let expected = (image.double_value(&[0, 0, y as i64, x as i64]) * 255.0).round() as u8;
        for (dy, dx) in [(0, 0), (0, 5), (5, 0), (5, 5)] {
            assert_eq!(pixels[(8 + 6 * y + dy) * width + 8 + 6 * x + dx], expected);
        }
    }
    assert_eq!(pixels[0], 255);
}

#[test]
fn every_figure_has_a_size_and_an_alt_text() {
    let cloud = images(1).view(-1).narrow(0, 0, 100).view([50, 2]);
    let figures = [
        (
            rows(&[("original", &images(10)), ("noisy", &images(10))]),
            "Rows of 10 images: original, noisy",
        ),
        (
            rows_with_captions(&[("noisy", &images(2))], &["0.1", "0.2"]),
            "the columns are 0.1, 0.2",
        ),
        (grid(&images(12), 5), "A grid of 12 images"),
        (
            scatter(&[("start", &cloud), ("end", &cloud)]),
            "50 points, seen 2 times: start, end",
        ),
        (
            histogram("Pixels", "value", &[("clean", &images(2))]),
            "Histogram, Pixels",
        ),
        (
            curve(
                "Loss",
                ("epoch", "loss"),
                &[Series::new("a", [(0.0, 1.0), (1.0, 0.5)])],
            ),
            "a goes from 1.00 to 0.50",
        ),
        (
            blocks(
                "Encoder",
                &[
                    Block::image("input", "28x28x1", 784),
                    Block::flat("dense", "64", 64),
                ],
            ),
            "input with 784, dense with 64",
        ),
    ];
    for (figure, words) in figures {
        let html = figure.html().unwrap();
        assert!(figure.alt_text().contains(words), "{}", figure.alt_text());
        assert!(
            html.contains(&format!("alt=\"{}\"", figure.alt_text())),
            "{html:.200}"
        );
        assert!(html.contains(" width=\""), "{html:.200}");
        assert!(
            html.len() < 150_000,
            "{} is {} bytes",
            figure.alt_text(),
            html.len()
        );
    }
    let told = rows(&[("a", &images(1))]).alt("a \"picture\" <3");
    assert!(
        told.html()
            .unwrap()
            .contains("alt=\"a &quot;picture&quot; &lt;3\"")
    );
}

#[test]
fn lines_are_drawn_where_their_points_are_not_finite_too() {
    let series = Series::new(
        "psnr",
        [
            (0.0, f64::INFINITY),
            (1.0, 3.0),
            (f64::NAN, 1.0),
            (2.0, 4.0),
        ],
    );
    let svg = String::from_utf8(bytes(&curve("t", ("x", "y"), &[series]))).unwrap();
    assert!(svg.contains("<svg") && !svg.contains("inf") && !svg.contains("NaN"));
    // A single point, and a flat line, have a range as well.
    for points in [vec![(1.0, 1.0)], vec![(0.0, 2.0), (1.0, 2.0)]] {
        assert!(
            curve("t", ("x", "y"), &[Series::new("s", points)])
                .html()
                .is_ok()
        );
    }
}

#[test]
fn what_cannot_be_drawn_says_so() {
    let flat = Tensor::zeros([28, 28], (Kind::Float, Device::Cpu));
    let empty = Tensor::zeros([0, 1, 28, 28], (Kind::Float, Device::Cpu));
    let narrow = flat.view([784, 1]);
    let cases = [
        (
            rows(&[("flat", &flat)]),
            "in the row \"flat\": a picture of images takes a tensor of shape (N, 1, H, W) with at least one image; this one has [28, 28]",
        ),
        (rows::<&str, &Tensor>(&[]), "nothing to draw"),
        (grid(&empty, 3), "[0, 1, 28, 28]"),
        (grid(&images(3), 0), "a grid of 0 columns"),
        (grid(&blank(2_001), 10), "2001 images are too many"),
        (
            rows(&[("mean", &images(1).mean(Kind::Float))]),
            "this one has []",
        ),
        (
            histogram("h", "x", &[("holes", &(images(1) / 0.0))]),
            "\"holes\" holds numbers that are not finite",
        ),
        (histogram("h", "x", &[]), "nothing to draw"),
        (
            histogram("h", "x", &[("none", &empty)]),
            "\"none\" is empty",
        ),
        (curve("c", ("x", "y"), &[]), "nothing to draw"),
        (blocks("b", &[]), "nothing to draw"),
        (
            blocks("b", &[Block::flat("dense", "0", 0)]),
            "block 0, \"dense\", has size 0; expected",
        ),
        (
            scatter(&[("narrow", &narrow)]),
            "has shape [784, 1]; expected (N, 2)",
        ),
    ];
    for (figure, words) in cases {
        let error = figure.save("nowhere.png").unwrap_err().to_string();
        assert!(error.contains(words), "{words:?} is not in: {error}");
    }
}

#[test]
fn an_animation_is_a_gif_of_frames_of_one_shape() {
    let gif = animation(&[images(4), blank(4)], 2);
    assert!(bytes(&gif).starts_with(b"GIF89a"));
    assert_eq!(gif.alt_text(), "An animation of 4 images");
    let error = |frames: &[Tensor], columns: usize| {
        animation(frames, columns).html().unwrap_err().to_string()
    };
    assert!(error(&[], 3).contains("at least one frame"));
    assert!(error(&[images(4)], 0).contains("1 to 2000 columns; got 1 and 0"));
    assert!(error(&[images(4), blank(3)], 2).contains("got [4, 1, 28, 28] and [3, 1, 28, 28]"));
    assert!(error(&[Tensor::from(1.0)], 2).contains("(N, 1, H, W)"));
    let wide = error(&[blank(1_200)], 1_200);
    assert!(
        wide.contains("69602 by 60 pixels is too large; a GIF has at most 65535"),
        "{wide}"
    );
}

#[test]
fn images_of_any_size_are_drawn_but_one_size_in_a_picture() {
    let small = Tensor::rand([3, 1, 5, 9], (Kind::Float, Device::Cpu));
    let (pixels, width) = decoded(&grid(&small, 3));
    // Nine times as large, so that 9 pixels become 81, and twice as fine.
    assert_eq!(width, 8 + 3 * (9 * 18 + 8));
    assert_eq!(pixels.len() / width, 8 + 5 * 18 + 8);
    let error = rows(&[("a", &small), ("b", &images(2))])
        .html()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "the rows of a picture hold images of one size; those of \"b\" are 28 by 28, and the first row's 5 by 9"
    );
    let large = Tensor::zeros([1, 1, 5_000, 5_000], (Kind::Float, Device::Cpu));
    let error = grid(&large, 1).html().unwrap_err().to_string();
    assert!(error.contains("pixels is too large"), "{error}");
}

#[test]
fn names_and_captions_of_any_length_have_room() {
    // Captions that are wider than an image make the columns wider, so that they do not overlap.
    let (_, narrow) = decoded(&rows_with_captions(&[("", &images(10))], &["1"; 10]));
    let (_, wide) = decoded(&rows_with_captions(
        &[("", &images(10))],
        &["1,000,000"; 10],
    ));
    assert!(wide > narrow + 1_000, "{wide} {narrow}");
    // No caption disappears.
    let error = rows_with_captions(&[("", &images(2))], &["1"; 3])
        .html()
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there are 3 captions for 2 columns; expected at most one for each column"
    );
    // A name that takes more lines than an image is high makes its row higher.
    let name = "a name that takes many lines beside one small image";
    let (short, short_width) = decoded(&rows(&[("a name", &images(1))]));
    let (long, long_width) = decoded(&rows(&[(name, &images(1))]));
    assert!(long.len() / long_width > short.len() / short_width);
}

#[test]
fn an_output_that_is_no_picture_cannot_be_saved() {
    let plain = Output::plain("60,000 images <train>");
    assert_eq!(plain.to_string(), "60,000 images <train>");
    assert_eq!(
        plain.html().unwrap(),
        "<pre>60,000 images &lt;train&gt;</pre>"
    );
    for output in [plain, Output::from_html(Ok("<b>x</b>".to_owned()), "x")] {
        let error = output.save("nowhere.png").unwrap_err().to_string();
        assert!(error.contains("only pictures can be saved"), "{error}");
    }
    let failed = Output::from_html(Err(anyhow::anyhow!("inner").context("outer")), "text");
    assert_eq!(failed.html().unwrap_err().to_string(), "outer: inner");
    assert_eq!(format!("{failed:?}"), "Output(\"text\")");
}

#[test]
fn a_figure_is_saved_whole_under_the_right_name() {
    let folder = tempfile::tempdir().unwrap();
    let figure = grid(&images(3), 3);
    figure.save(folder.path().join("images.png")).unwrap();
    assert_eq!(
        std::fs::read(folder.path().join("images.png")).unwrap(),
        bytes(&figure)
    );
    let error = figure
        .save(folder.path().join("images.svg"))
        .unwrap_err()
        .to_string();
    assert!(error.contains("ends in .png"), "{error}");
}

/// Runs this very test again as a process with another home folder, where it takes the first branch.
#[test]
fn a_tilde_is_the_home_folder() {
    if let Some(home) = std::env::var_os("FIGURES_TEST_HOME") {
        let home = std::path::Path::new(&home);
        grid(&images(1), 1).save("~/deep/image.png").unwrap();
        assert!(home.join("deep/image.png").is_file());
        Pad::new("~/pad/mine.json", 28).unwrap();
        assert!(home.join("pad").is_dir());
        let error = grid(&images(1), 1).save("~ann/image.png").unwrap_err();
        assert!(error.to_string().contains("below your own home"), "{error}");
        return;
    }
    let (home, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let again = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "a_tilde_is_the_home_folder"])
        .env("HOME", home.path())
        .env("FIGURES_TEST_HOME", home.path())
        .current_dir(&elsewhere)
        .output()
        .unwrap();
    assert!(again.status.success(), "{again:?}");
    let left = std::fs::read_dir(&elsewhere).unwrap().count();
    assert_eq!(left, 0, "a folder named ~ was made");
}
