//! Sliders, wipe, pad and panel: the page holds everything, and each part says what does not fit.
#![allow(clippy::unwrap_used)]

use figures::panel::{Notes, STOP_FILE, State, panel};
use figures::{Output, Pad, Row, Slider, Sliders, compare, grid, rows};
use tch::{Device, Kind, Tensor};

fn images(n: i64, height: i64, width: i64) -> Tensor {
    let count = n * height * width;
    Tensor::arange(count, (Kind::Float, Device::Cpu)).view([n, 1, height, width]) / count as f64
}

/// What the page's script reads.
fn data(output: &Output) -> serde_json::Value {
    let html = output.html().unwrap();
    assert!(
        !html.contains("://"),
        "the page needs something from elsewhere"
    );
    let start = html.find("application/json\">").unwrap() + 18;
    let end = start + html[start..].find("</script>").unwrap();
    serde_json::from_str(&html[start..end]).unwrap()
}

fn sliders() -> Sliders {
    let (dark, bright) = (images(3, 6, 9) * 0.5, images(3, 6, 9));
    let stops = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
    Sliders {
        still: rows(&[("bright", &bright)]),
        sliders: vec![
            Slider {
                name: "brightness",
                stops: stops(&["0.5", "1"]),
                first: 1,
            },
            Slider {
                name: "end",
                stops: stops(&["</script>", "<!--<script>"]),
                first: 0,
            },
        ],
        rows: vec![
            Row::of("all", [&bright]).unwrap(),
            Row::of("each", [&dark, &dark, &bright, &bright]).unwrap(),
        ],
        captions: stops(&["1", "2", "3", "4"]),
        play: true,
    }
}

#[test]
fn sliders_hold_a_picture_for_every_frame() {
    let output = sliders().output("Images of any brightness");
    let data = data(&output);
    assert_eq!(data["sliders"][0]["stops"][1], "1");
    assert_eq!(data["sliders"][0]["first"], 1);
    assert_eq!(data["sliders"][1]["stops"][0], "</script>");
    assert_eq!(data["sliders"][1]["stops"][1], "<!--<script>");
    assert!(!output.html().unwrap().contains("<!--"));
    assert_eq!(data["rows"][0]["images"].as_array().unwrap().len(), 1);
    let each = &data["rows"][1]["images"];
    assert!(
        each[0]
            .as_str()
            .unwrap()
            .starts_with("data:image/png;base64,")
    );
    assert_eq!(each[0], each[1]);
    assert_ne!(each[1], each[2]);
    assert_eq!(data["frames"].as_array().unwrap().len(), 4);
    assert_eq!(data["play"], true);
    // Where scripts do not run, the still picture is there, and its text is that of the whole.
    let html = output.html().unwrap();
    assert!(html.contains("alt=\"Images of any brightness\""));
    assert_eq!(output.to_string(), "Images of any brightness");
}

#[test]
fn sliders_that_do_not_fit_say_why() {
    let error = |sliders: Sliders| sliders.output("alt").html().unwrap_err().to_string();
    let few = Sliders {
        captions: vec!["1".to_owned()],
        ..sliders()
    };
    assert_eq!(
        error(few),
        "the sliders have 4 frames, but there are 1 captions; expected one for each frame"
    );
    let mut odd = sliders();
    odd.rows
        .push(Row::of("odd", [&images(1, 2, 2), &images(1, 2, 2)]).unwrap());
    assert!(error(odd).contains("the row \"odd\" has 2 pictures; expected 1 or 4"));
    let mut beyond = sliders();
    beyond.sliders[0].first = 2;
    assert!(error(beyond).contains("\"brightness\" has 2 stops and begins at stop 2"));
    let mut empty = sliders();
    empty.sliders[0] = Slider {
        stops: Vec::new(),
        first: 0,
        ..empty.sliders[0].clone()
    };
    assert_eq!(
        error(empty),
        "the slider \"brightness\" has no stops; expected at least one"
    );
    let none = |play: bool| Sliders {
        sliders: Vec::new(),
        rows: Vec::new(),
        captions: vec!["1".to_owned()],
        play,
        ..sliders()
    };
    assert!(error(none(true)).contains("a play button but no slider"));
    assert!(none(false).output("alt").html().is_ok());
    let flat = Tensor::zeros([2, 784], (Kind::Float, Device::Cpu));
    assert!(
        Row::of("flat", [&flat])
            .unwrap_err()
            .to_string()
            .contains("this one has [2, 784]")
    );
}

#[test]
fn a_wipe_holds_both_pictures() {
    let (a, b) = (images(10, 5, 7), images(10, 5, 7) * 0.5);
    let data = data(&compare(("one", &a), ("two", &b)));
    assert_eq!(data["names"], serde_json::json!(["one", "two"]));
    assert_ne!(data["pictures"][0], data["pictures"][1]);
    let error = compare(("one", &a), ("few", &images(3, 5, 7)))
        .html()
        .unwrap_err()
        .to_string();
    assert!(error.contains("[10, 1, 5, 7] and [3, 1, 5, 7]"), "{error}");
}

#[test]
fn a_pad_says_where_its_drawing_goes_and_how_large_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let pad = Pad::new(folder.path().join("mine.json"), 32).unwrap();
    let html = pad.show().html().unwrap();
    assert!(html.contains("mine.json\" data-side=\"32\""));
    let other = images(1, 32, 32);
    assert_eq!(pad.read_or(&other).unwrap(), other);
}

#[test]
fn a_panel_follows_what_runs_and_becomes_a_picture_when_it_ends() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path().join("run");
    let error = panel(&folder).html().unwrap_err();
    assert!(format!("{error:#}").contains("panel.json"), "{error:#}");

    let notes = Notes {
        state: State::Running,
        text: "1 < 2 epochs".to_owned(),
        preview: Some(grid(&images(2, 4, 4), 2)),
        curve: Some(grid(&images(2, 7, 28), 2)),
    };
    notes.write(&folder).unwrap();
    let running = panel(&folder);
    assert_eq!(running.to_string(), "1 < 2 epochs");
    let html = running.html().unwrap();
    assert!(
        html.contains("1 &lt; 2 epochs") && html.contains("run\""),
        "{html:.300}"
    );
    assert!(html.contains("A grid of 2 images"));
    // The button makes the file that whatever runs looks for.
    assert!(html.contains("<button") && html.contains(&format!("/{STOP_FILE}`")));
    let file = std::fs::read(folder.join("panel.json")).unwrap();
    let file: serde_json::Value = serde_json::from_slice(&file).unwrap();
    assert_eq!(file["state"], "running");

    let notes = Notes {
        state: State::Stopped,
        preview: Some(grid(&images(2, 4, 4), 0)), // cannot be drawn
        curve: None,
        ..notes
    };
    notes.write(&folder).unwrap();
    let html = panel(&folder).html().unwrap();
    assert!(!html.contains("<button") && !html.contains("<script"));
    assert!(html.contains("<div class=\"preview\"></div>"));
}
