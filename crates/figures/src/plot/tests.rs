//! What stands in a plot can be read: no text is cut, no two overlap, and no two lines look alike.

use super::*;
use crate::font;
use crate::plot::histogram;
use tch::{Device, Kind, Tensor};

/// A piece of text in a picture: what it says, its colour, and left, top, right and bottom.
#[derive(Debug)]
struct Text {
    says: String,
    fill: String,
    size: i32,
    left: i32,
    top: i32,
    right: i32,
    bottom: i32,
}

impl Text {
    /// The text turned by 90 degrees around this point, so that it reads upwards.
    fn rotated(self, (x, y): (i32, i32)) -> Text {
        Text {
            left: x + self.top - y,
            top: y - (self.right - x),
            right: x + self.bottom - y,
            bottom: y - (self.left - x),
            ..self
        }
    }
}

fn svg(output: &Output) -> String {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("plot.svg");
    output.save(&file).unwrap();
    std::fs::read_to_string(&file).unwrap()
}

fn attribute<'a>(tag: &'a str, name: &str) -> &'a str {
    let start = tag.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
    &tag[start..start + tag[start..].find('"').unwrap()]
}

/// The texts of a picture, all of them inside it and apart from each other.
fn readable(output: &Output) -> Vec<Text> {
    let svg = svg(output);
    let view: Vec<i32> = attribute(&svg, "viewBox")
        .split(' ')
        .map(|number| number.parse().unwrap())
        .collect();
    let mut texts: Vec<Text> = Vec::new();
    for tag in svg.split("<text").skip(1) {
        let number = |name: &str| attribute(tag, name).parse::<f64>().unwrap();
        let says = tag[tag.find('>').unwrap() + 1..tag.find("</text>").unwrap()].trim();
        let says = says.replace("&lt;", "<").replace("&amp;", "&");
        let size = (number("font-size") * 1.24).round() as i32;
        let width = font::width(&says, size);
        let left = match attribute(tag, "text-anchor") {
            "start" => number("x") as i32,
            "middle" => number("x") as i32 - width / 2,
            _ => number("x") as i32 - width,
        };
        let (middle, half) = (number("y") as i32, (0.38 * f64::from(size)) as i32);
        let text = Text {
            says,
            fill: attribute(tag, "fill").to_owned(),
            size,
            left,
            top: middle - half,
            right: left + width,
            bottom: middle + half,
        };
        let text = match tag[..tag.find('>').unwrap()].contains("rotate(270,") {
            true => text.rotated((number("x") as i32, middle)),
            false => text,
        };
        assert!(
            text.left >= 0 && text.right <= view[2] && text.top >= 0 && text.bottom <= view[3],
            "{text:?} is cut: {view:?}"
        );
        for other in &texts {
            let apart = text.right <= other.left
                || other.right <= text.left
                || text.bottom <= other.top
                || other.bottom <= text.top;
            assert!(apart, "{text:?} and {other:?} overlap");
        }
        texts.push(text);
    }
    texts
}

fn says(texts: &[Text]) -> Vec<&str> {
    texts.iter().map(|text| text.says.as_str()).collect()
}

fn line(name: &str, from: f64, to: f64) -> Series {
    Series::of(name, (0..50).map(f64::from), |x| {
        from + (to - from) * x / 49.0
    })
}

#[test]
fn six_names_are_all_there_whole() {
    let names = [
        "noisy",
        "median of 3 by 3 pixels",
        "gaussian of 3 by 3 pixels",
        "cnn",
        "diffusion, mean of 8",
        "u-net, one step",
    ];
    let series: Vec<Series> = names.iter().map(|name| line(name, 1.0, 2.0)).collect();
    let texts = readable(&curve(
        "Six lines that end at one place",
        ("x", "y"),
        &series,
    ));
    let all = says(&texts).join(" ");
    for word in names.iter().flat_map(|name| name.split(' ')) {
        assert!(all.contains(word), "{word:?} is not in {all}");
    }
    // Each name has a colour of its own.
    let first = |name: &str| {
        let word = name.split(' ').next().unwrap();
        let text = texts.iter().find(|text| text.says.starts_with(word));
        text.unwrap().fill.clone()
    };
    let mut colours: Vec<String> = names.iter().map(|name| first(name)).collect();
    colours.sort();
    colours.dedup();
    assert_eq!(colours.len(), 6);
}

#[test]
fn twenty_one_lines_make_the_picture_higher() {
    let series: Vec<Series> = (0..21)
        .map(|at| line(&format!("a name that takes two lines, {at}"), 0.0, 1.0))
        .collect();
    let texts = readable(&curve("Many", ("x", "y"), &series));
    assert!(says(&texts).iter().any(|text| text.ends_with("20")));
    let more: Vec<Series> = (0..22).map(|_| line("x", 0.0, 1.0)).collect();
    assert!(curve("More", ("x", "y"), &more).html().is_err());
}

#[test]
fn axes_can_be_read_at_any_magnitude() {
    for (scale, expected) in [
        (1e-8, "4e-9"),
        (2e12, "1e12"),
        (60_000.0, "20,000"),
        (1.0, "0.4"),
    ] {
        let points = (0..50).map(|at| f64::from(at) / 49.0 * scale);
        let both = Series::new("w", points.map(|x| (x, x)));
        let texts = readable(&curve("Magnitudes", ("x", "y"), &[both]));
        let all = says(&texts);
        assert!(all.contains(&expected), "{expected:?} is not in {all:?}");
    }
    for points in [
        vec![(1e-8, 1e12)],
        vec![(0.0, 0.0), (1.0, 0.0)],
        vec![(0.0, 1e12), (1.0, 1e12 + 1.0)],
        vec![(-1e9, -123.456), (1e9, 123.456)],
        vec![(1.0, 1e-300), (2.0, 1e299)],
    ] {
        let texts = readable(&curve("Odd", ("x", "y"), &[Series::new("s", points)]));
        assert!(texts.len() > 6, "{texts:?}");
    }
}

#[test]
fn long_titles_and_names_are_wrapped() {
    let long =
        "a text that is much longer than one line of a picture can be in letters of this size";
    let axes = (long, long);
    let texts = readable(&curve(long, axes, &[line(long, 0.0, 1.0)]));
    assert!(
        texts
            .iter()
            .filter(|text| text.says.contains("picture"))
            .count()
            >= 3
    );
    let word = "m".repeat(200);
    readable(&curve(&word, (&word, &word), &[line(&word, 0.0, 1.0)]));
    let values = Tensor::rand([100], (Kind::Float, Device::Cpu));
    readable(&histogram(long, long, &[(long, &values), (&word, &values)]));
}

#[test]
fn letters_can_be_read_from_afar() {
    let texts = readable(&curve("Title", ("x", "y"), &[line("name", 0.0, 1.0)]));
    for text in texts {
        let least = if text.says == "Title" { 26 } else { 22 };
        assert!(text.size >= least * crate::picture::FINENESS, "{text:?}");
    }
}

#[test]
fn lines_that_end_far_apart_have_a_legend() {
    let far = Series::new("far", [(0.0, 1.0), (10.0, 2.0)]);
    let near = Series::new("near", [(0.0, 1.0), (2.0, 2.0)]);
    let at_the_top = |series: &[Series]| {
        let texts = readable(&curve("Title", ("x", "y"), series));
        let top = |says: &str| {
            let found = texts.iter().find(|text| text.says.starts_with(says));
            found.unwrap().top
        };
        top("far") < top("y (")
    };
    assert!(at_the_top(&[far.clone(), near]));
    assert!(!at_the_top(&[far]));
}

#[test]
fn a_line_without_finite_values_says_so_wherever_names_stand() {
    let far = Series::new("far", [(0.0, 1.0), (10.0, 2.0)]);
    let near = Series::new("near", [(0.0, 1.0), (2.0, 2.0)]);
    let gone = Series::new("gone", [(0.0, f64::NAN)]);
    for series in [vec![far.clone(), near, gone.clone()], vec![far, gone]] {
        let texts = readable(&curve("Title", ("x", "y"), &series));
        let all = says(&texts).join(" ");
        assert!(all.contains("gone (no finite value)"), "{all}");
    }
}

#[test]
fn an_offset_of_an_axis_has_one_sign() {
    for (value, expected) in [(1e12, "y (minus 1e12)"), (-1e12, "y (plus 1e12)")] {
        let points = [(0.0, value), (1.0, value + 2.0)];
        let texts = readable(&curve("Title", ("x", "y"), &[Series::new("s", points)]));
        assert!(says(&texts).contains(&expected), "{:?}", says(&texts));
    }
}

#[test]
fn a_vertical_axis_that_begins_above_0_says_so() {
    let names = |points: [(f64, f64); 2]| {
        let plot = curve("Title", ("x", "y"), &[Series::new("s", points)]);
        says(&readable(&plot)).join(" ")
    };
    let shown = names([(0.0, 0.8), (1.0, 1.0)]);
    assert!(shown.contains("y (the axis begins at 0.79"), "{shown}");
    for points in [[(0.0, 0.01), (1.0, 1.0)], [(0.0, -3.0), (1.0, 1.0)]] {
        let shown = names(points);
        assert!(!shown.contains("begins at"), "{shown}");
    }
}

#[test]
fn points_that_move_are_a_gif_with_the_last_frame_among_them() {
    let frame = |at: i64| Tensor::full([5, 2], at, (Kind::Float, Device::Cpu));
    let mut frames: Vec<Tensor> = (0..101).map(frame).collect();
    let film = scatter_animation(&frames);
    let before = film.html().unwrap();
    assert!(before.contains("data:image/gif;base64,"));
    // Another last frame within the same axes is another animation; the one before it is not shown.
    frames[99] = frame(3);
    assert_eq!(scatter_animation(&frames).html().unwrap(), before);
    frames[99] = frame(99);
    let _ = frames[100].get(0).fill_(50.0);
    assert_ne!(scatter_animation(&frames).html().unwrap(), before);
    assert_eq!(film.alt_text(), "An animation of 5 points");
    assert!(scatter_animation(&[]).html().is_err());
    let wrong = Tensor::zeros([5, 3], (Kind::Float, Device::Cpu));
    let error = scatter_animation(&[wrong]).html().unwrap_err().to_string();
    assert!(error.contains("expected (N, 2)"), "{error}");
}

#[test]
fn a_network_at_several_sizes_has_every_name_once() {
    let step = |name: &str, level| Step {
        name: name.to_owned(),
        detail: "8".to_owned(),
        level,
        filled: level > 0,
    };
    let steps = [
        step("in", 0),
        step("down", 1),
        step("up", 1),
        step("out", 0),
    ];
    let shown = says(&readable(&levels(
        "A U",
        &["8x8", "4x4"],
        &steps,
        &[(1, 2)],
        "a note",
    )))
    .join("|");
    for name in ["A U", "8x8", "4x4", "in", "down", "up", "out", "a note"] {
        assert_eq!(
            shown.split('|').filter(|says| *says == name).count(),
            1,
            "{name}: {shown}"
        );
    }
    let error = |skips: &[(usize, usize)], names: &[&str]| {
        let picture = levels("A U", names, &steps, skips, "");
        picture.html().unwrap_err().to_string()
    };
    assert!(error(&[(2, 1)], &["8x8", "4x4"]).contains("no skip connection from step 2 to 1"));
    assert!(error(&[], &["8x8"]).contains("there are 1 levels"));
}

#[test]
fn clouds_with_names_that_fill_a_picture_are_an_error() {
    let points = Tensor::rand([2, 2], (Kind::Float, Device::Cpu));
    let name = "word ".repeat(4_000);
    let error = scatter(&[(name.as_str(), &points); 40]).html().unwrap_err();
    assert!(error.to_string().contains("use shorter names"), "{error}");
}

#[test]
fn overlaid_histograms_are_outlines() {
    let values = Tensor::rand([1000], (Kind::Float, Device::Cpu));
    let six: Vec<(&str, &Tensor)> = [
        "noisy",
        "median",
        "gaussian, the best of all widths",
        "cnn",
        "diffusion, mean of 8",
        "u-net, one step",
    ]
    .map(|name| (name, &values))
    .to_vec();
    let plot = histogram("Six", "value", &six);
    assert_eq!(svg(&plot).matches("<polygon").count(), 0);
    let texts = readable(&plot);
    for (name, _) in six {
        assert!(says(&texts).contains(&name), "{name:?} is cut");
    }
    let one = histogram("One", "value", &[("noisy", &values)]);
    assert_eq!(svg(&one).matches("<polygon").count(), 1);
}

/// The rectangles of a picture: left, top, right, bottom and colour. The first one is the page.
fn rectangles(output: &Output) -> Vec<([i32; 4], String)> {
    let svg = svg(output);
    let tags = svg.split("<rect").skip(1);
    tags.map(|tag| {
        let number = |name: &str| attribute(tag, name).parse::<i32>().unwrap();
        let (x, y) = (number("x"), number("y"));
        let ends = [x, y, x + number("width"), y + number("height")];
        (ends, attribute(tag, "fill").to_owned())
    })
    .collect()
}

/// The texts of a picture of blocks. None of them is on a block, and every word of a name and a detail is there.
fn readable_blocks(title: &str, blocks_of: &[Block]) -> Vec<Text> {
    let output = blocks(title, blocks_of);
    let texts = readable(&output);
    for text in &texts {
        for ([left, top, right, bottom], _) in rectangles(&output).into_iter().skip(1) {
            let apart = text.right <= left
                || right <= text.left
                || text.bottom <= top
                || bottom <= text.top;
            assert!(apart, "{text:?} is on a block");
        }
    }
    let all = says(&texts).concat().replace(' ', "");
    for text in blocks_of
        .iter()
        .flat_map(|block| [&block.name, &block.detail])
    {
        assert!(
            all.contains(&text.replace(' ', "")),
            "{text:?} is not in {all}"
        );
    }
    texts
}

fn hourglass() -> Vec<Block> {
    let image = |name: &str, channels: usize| {
        Block::image(name, &format!("28x28x{channels}"), 28 * 28 * channels)
    };
    vec![
        image("input", 1),
        image("conv2d", 16),
        image("conv2d_1", 32),
        Block::flat("flatten", "25088", 25_088),
        Block::flat("dense", "64", 64),
        Block::flat("dense_1", "25088", 25_088),
        image("reshape", 32),
        image("conv2d_transpose", 32),
        image("conv2d_transpose_1", 16),
        image("conv2d_transpose_2", 1),
    ]
}

#[test]
fn an_autoencoder_is_an_hourglass() {
    let texts = readable_blocks("An autoencoder", &hourglass());
    let count = |size: &str| texts.iter().filter(|text| text.says == size).count();
    // The waist's detail says 64 as well.
    for (size, times) in [("784", 2), ("12,544", 2), ("25,088", 2), ("64", 2)] {
        assert_eq!(count(size), times, "{size}");
    }
    assert!(says(&texts).contains(&"image") && says(&texts).contains(&"flat vector"));

    let output = blocks("An autoencoder", &hourglass());
    // After the page and the two colours of the legend.
    let shapes = rectangles(&output).split_off(3);
    assert_eq!(shapes.len(), 10);
    assert_eq!(svg(&output).matches("<polygon").count(), 9);
    let heights: Vec<i32> = shapes.iter().map(|(ends, _)| ends[3] - ends[1]).collect();
    let unit = f64::from(heights[4]) / 2.0;
    for (block, (([left, top, right, bottom], colour), height)) in
        hourglass().iter().zip(shapes.iter().zip(&heights))
    {
        let doublings = (block.size as f64 / 64.0).log2() + 2.0;
        assert!(
            (f64::from(*height) - unit * doublings).abs() <= 6.0,
            "{block:?}: {height}"
        );
        assert_eq!(right - left, shapes[0].0[2] - shapes[0].0[0]);
        assert!((top + bottom - shapes[0].0[1] - shapes[0].0[3]).abs() <= 2);
        let is_flat = *colour != shapes[0].1;
        assert_eq!(is_flat, block.role == Role::Flat, "{block:?}");
    }
    let alt = output.alt_text();
    assert!(alt.starts_with("An autoencoder: "), "{alt}");
    assert!(
        alt.contains("input with 784, conv2d with 12,544, ") && alt.contains("dense with 64, "),
        "{alt}"
    );
}

#[test]
fn one_to_forty_blocks_can_be_read() {
    for n in 1..=40 {
        let many: Vec<Block> = (0..n)
            .map(|at| match at == n / 2 {
                true => Block::flat("dense", "1024", 1024),
                false => Block::image(
                    &format!("conv2d_transpose_{at}"),
                    "64x64x512",
                    (64 * 64 * 512) >> (7 * at % 9),
                ),
            })
            .collect();
        let texts = readable_blocks("Many", &many);
        for text in &texts {
            let least = if text.says == "Many" { 26 } else { 22 };
            assert!(text.size >= least * crate::picture::FINENESS, "{text:?}");
        }
        assert!(says(&texts).contains(&"1,024"), "{n}");
    }
    let more = vec![Block::flat("dense", "64", 64); 41];
    let error = blocks("More", &more).html().unwrap_err().to_string();
    assert!(
        error.contains("41 blocks") && error.contains("at most 40"),
        "{error}"
    );
}

#[test]
fn blocks_of_any_size_and_name_can_be_read() {
    let long = "a name that is much longer than the space below one block";
    let word = "m".repeat(100);
    let any = [
        Block::image("", "", 1),
        Block::flat(long, &word, usize::MAX),
        Block::image(&word, long, 5),
        Block::flat("a < b & c", "-", 1_000_000),
    ];
    for n in 1..=4 {
        readable_blocks(long, &any[..n]);
        readable_blocks(&word, &any[4 - n..]);
    }
    // One colour needs no legend, and equal sizes share one number.
    let same = [
        Block::flat("dense", "a", 300),
        Block::flat("relu", "b", 300),
    ];
    assert_eq!(
        says(&readable_blocks("Same", &same)),
        ["Same", "300", "dense", "a", "relu", "b"]
    );
}

#[test]
fn a_block_of_no_size_is_an_error() {
    let mut none = hourglass();
    none[4].size = 0;
    let error = blocks("None", &none).html().unwrap_err().to_string();
    assert!(error.contains("block 4, \"dense\", has size 0"), "{error}");
    let error = blocks("None", &[]).html().unwrap_err().to_string();
    assert!(error.contains("nothing to draw"), "{error}");
}
