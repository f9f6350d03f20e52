//! Sliders: everything is in the page, which asks no server, and the page stays small.
#![allow(clippy::unwrap_used)]

use diffusion::prelude::*;
use figures::Output;

/// The most that a notebook should carry for one explorer.
const MOST_BYTES: usize = 1_500_000;

fn digits(n: usize) -> Tensor {
    Mnist::load().unwrap().test.images(n).unwrap()
}

/// Untrained, and small: quick, and enough for a page.
fn unet(steps: usize) -> Unet {
    Unet::new(UnetConfig {
        width: 16,
        schedule: Schedule::cosine(steps).unwrap(),
        ..UnetConfig::default()
    })
    .unwrap()
}

/// What the page's script reads.
fn data(explorer: &Output) -> serde_json::Value {
    let html = explorer.html().unwrap();
    assert!(html.len() < MOST_BYTES, "{} bytes", html.len());
    assert!(!html.contains("://"), "the page names a server");
    let start = html.find("application/json\">").unwrap() + 18;
    let end = start + html[start..].find("</script>").unwrap();
    serde_json::from_str(&html[start..end]).unwrap()
}

fn check_shape(data: &serde_json::Value, frames: usize, rows: &[&str]) {
    let stops = data["sliders"].as_array().unwrap().iter();
    let stops: usize = stops
        .map(|slider| slider["stops"].as_array().unwrap().len())
        .product();
    assert_eq!(stops, frames);
    assert_eq!(data["frames"].as_array().unwrap().len(), frames);
    let names: Vec<&str> = data["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert_eq!(names, rows);
    for row in data["rows"].as_array().unwrap() {
        let images = row["images"].as_array().unwrap();
        assert!([1, frames].contains(&images.len()));
        assert!(images.iter().all(|image| {
            image
                .as_str()
                .unwrap()
                .starts_with("data:image/png;base64,")
        }));
    }
}

#[test]
fn a_noise_explorer_has_a_picture_and_scores_for_every_level() {
    set_seed(1);
    let cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    let explorer = noise_explorer(&cnn, &digits(10));
    let data = data(&explorer);
    check_shape(&data, 21, &["original", "noisy", "denoised"]);
    assert_eq!(data["sliders"][0]["stops"][10], "0.50");
    let caption = |at: usize| data["frames"][at].as_str().unwrap().to_owned();
    assert!(
        caption(0).starts_with("noisy: equal, SSIM 1.00"),
        "{}",
        caption(0)
    );
    assert!(caption(10).starts_with("noisy: 9."), "{}", caption(10));
    // A picture for where scripts do not run.
    assert!(
        explorer
            .html()
            .unwrap()
            .contains("<img src=\"data:image/png")
    );
}

#[test]
fn a_diffusion_explorer_ends_with_the_image_and_keeps_its_size_over_many_steps() {
    set_seed(1);
    let sampler = Sampler::ddim(200);
    let explorer = diffusion_explorer(&unet(200), &sampler, &digits(8), &[None; 8]);
    let data = data(&explorer);
    let frames = data["frames"].as_array().unwrap();
    check_shape(&data, frames.len(), &["forward", "reverse", "predicted"]);
    assert!((40..=51).contains(&frames.len()), "{}", frames.len());
    assert_eq!(frames.last().unwrap(), "the image");
    assert_eq!(data["play"], true);
}

#[test]
fn a_guidance_explorer_has_a_frame_for_each_class_and_strength() {
    set_seed(1);
    let noise = Tensor::randn([5, 1, 28, 28], (Kind::Float, Device::Cpu));
    let data = data(&guidance_explorer(&unet(100), &noise));
    check_shape(&data, 40, &["drawn"]);
    assert_eq!(data["frames"][4 * 7 + 1], "class 7, guidance 0.5");
}

#[test]
fn what_cannot_be_explored_says_why() {
    let cnn = Network::new([28, 28, 1], lesson_cnn()).unwrap().seeded(26);
    let flat = Tensor::zeros([2, 784], (Kind::Float, Device::Cpu));
    let error = noise_explorer(&cnn, &flat).html().unwrap_err().to_string();
    assert!(
        error.contains("(N, 1, 28, 28); this one has [42, 784]"),
        "{error}"
    );
    let error = guidance_explorer(&unet(100), &flat).html().unwrap_err();
    assert!(
        error.to_string().contains("expected images of shape"),
        "{error}"
    );
    let steps = Sampler::ddim(101);
    let error = diffusion_explorer(&unet(100), &steps, &digits(1), &[None]);
    assert!(
        error
            .html()
            .unwrap_err()
            .to_string()
            .contains("cannot take 101 steps")
    );
}
