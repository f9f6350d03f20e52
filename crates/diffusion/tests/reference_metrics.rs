//! PSNR, SSIM and the classical filters against scikit-image and SciPy.
//!
//! The golden numbers come from `golden/metrics_golden.py`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{golden, images, numbers};
use diffusion::prelude::*;

#[test]
fn psnr_and_ssim_are_scikit_images() {
    let golden = golden("metrics_golden");
    let (clean, noisy) = images(&golden);
    let pairs = [
        (
            psnr(&clean, &noisy).unwrap().to_vec(),
            numbers(&golden["noisy"]["psnr"]),
        ),
        (
            ssim(&clean, &noisy).unwrap().to_vec(),
            numbers(&golden["noisy"]["ssim"]),
        ),
    ];
    for (ours, theirs) in pairs {
        assert_eq!(ours.len(), theirs.len());
        for (ours, theirs) in ours.iter().zip(theirs) {
            // The noisy images are float32 on both sides; their last bits differ.
            assert!(
                (ours - theirs).abs() < 1e-6 * theirs.abs().max(1.0),
                "{ours}, expected {theirs}"
            );
        }
    }
    let (first, second) = (clean.narrow(0, 0, 1), clean.narrow(0, 1, 1));
    assert!(
        (psnr(&first, &second).unwrap()[0] - golden["other"]["psnr"].as_f64().unwrap()).abs()
            < 1e-6
    );
    assert!(
        (ssim(&first, &second).unwrap()[0] - golden["other"]["ssim"].as_f64().unwrap()).abs()
            < 1e-6
    );
    assert!((ssim(&first, &first).unwrap()[0] - 1.0).abs() < 1e-12);
    assert_eq!(psnr(&first, &first).unwrap()[0], f64::INFINITY);
}

#[test]
fn filters_are_scipys() {
    let golden = golden("metrics_golden");
    let (_, noisy) = images(&golden);
    let noisy = noisy.narrow(0, 0, 1);
    let sigma = golden["gaussian"]["sigma"].as_f64().unwrap();
    let filtered = [
        ("median", median_filter(&noisy).unwrap()),
        ("gaussian", gaussian_filter(&noisy, sigma).unwrap()),
    ];
    for (name, ours) in filtered {
        let theirs = Tensor::from_slice(&numbers(&golden[name]["image"]));
        let difference = (ours.to_kind(Kind::Double).view(-1) - theirs)
            .abs()
            .max()
            .double_value(&[]);
        assert!(difference < 1e-6, "{name}: {difference:e}");
    }
}

#[test]
fn psnr_of_a_constant_error_is_its_closed_form() {
    let black = Tensor::zeros([3, 1, 28, 28], (Kind::Float, tch::Device::Cpu));
    for error in [0.5, 0.1, 0.01] {
        for psnr in psnr(&black, &(&black + error)).unwrap() {
            assert!((psnr + 20.0 * f64::log10(error)).abs() < 1e-5, "{psnr}");
        }
    }
}

#[test]
fn what_cannot_be_compared_or_filtered_is_named() {
    let image = Tensor::zeros([1, 1, 28, 28], (Kind::Float, tch::Device::Cpu));
    let small = Tensor::zeros([1, 1, 5, 5], (Kind::Float, tch::Device::Cpu));
    let errors = [
        (
            psnr(&image, &small).unwrap_err(),
            "[1, 1, 28, 28] and [1, 1, 5, 5]",
        ),
        (ssim(&small, &small).unwrap_err(), "at least 7x7"),
        (
            median_filter(&image.view([28, 28])).unwrap_err(),
            "(N, C, H, W)",
        ),
        (gaussian_filter(&image, 0.0).unwrap_err(), "sigma is 0"),
        (
            gaussian_filter(&image, f64::NAN).unwrap_err(),
            "sigma is NaN",
        ),
        (gaussian_filter(&image, 50.0).unwrap_err(), "sigma is 50"),
    ];
    for (error, words) in errors {
        assert!(error.to_string().contains(words), "{error}");
    }
}
