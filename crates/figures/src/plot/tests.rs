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
        let top = |says: &str| texts.iter().find(|text| text.says == says).unwrap().top;
        top("far") < top("y")
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
