//! PSNR, SSIM and the classical filters against scikit-image and SciPy; schedules and the Fréchet distance against
//! diffusers and SciPy.
//!
//! The golden numbers come from `golden/metrics_golden.py` and `golden/diffusion_golden.py`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{golden, images, numbers};
use diffusion::metrics::ssim;
use diffusion::prelude::*;
use diffusion::scores::frechet_distance;
use serde_json::Value;

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
fn images_are_filtered_and_compared_alike_whatever_their_number() {
    let golden = golden("metrics_golden");
    let (_, noisy) = images(&golden);
    let one = noisy.narrow(0, 0, 1);
    let count = 1_001; // batches of 500 and of 250, and one more
    let many = one.repeat([count, 1, 1, 1]);
    let filters: [fn(&Tensor) -> anyhow::Result<Tensor>; 2] =
        [median_filter, |images| gaussian_filter(images, 0.9)];
    for filter in filters {
        let (one_filtered, filtered) = (filter(&one).unwrap(), filter(&many).unwrap());
        assert_eq!(filtered, one_filtered.repeat([count, 1, 1, 1]));
        let alone = psnr(&one, &one_filtered).unwrap()[0];
        let together = psnr(&many, &filtered).unwrap();
        assert_eq!(together.to_vec(), vec![alone; count as usize]);
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

// ---- diffusion -----------------------------------------------------------------------------------

#[test]
fn schedules_are_those_of_diffusers() {
    let golden = golden("diffusion_golden");
    let schedules = golden["schedules"].as_array().unwrap();
    assert_eq!(schedules.len(), 3);
    for theirs in schedules {
        let steps = theirs["steps"].as_u64().unwrap() as usize;
        let ours = match theirs["name"].as_str().unwrap() {
            "linear" => Schedule::linear(steps),
            _ => Schedule::cosine(steps),
        }
        .unwrap();
        let variance = ours.posterior_variance();
        for at in theirs["at"].as_array().unwrap() {
            let t = at["t"].as_u64().unwrap() as usize;
            let number = |name: &str| at[name].as_f64().unwrap();
            assert!((ours.betas()[t] - number("beta")).abs() < 1e-10, "{t}");
            assert!(
                (ours.alpha_bar()[t] - number("alpha_bar")).abs() < 1e-10,
                "{t}"
            );
            // Theirs is at least 1e-20, ours 0 at the first step.
            assert!(
                (variance[t] - number("posterior_variance")).abs() < 1e-10,
                "{t}"
            );
        }
    }
}

fn cloud(rows: &Value) -> Array2<f64> {
    let rows: Vec<Vec<f64>> = rows.as_array().unwrap().iter().map(numbers).collect();
    let columns = rows[0].len();
    Array2::from_shape_vec((rows.len(), columns), rows.concat()).unwrap()
}

#[test]
fn the_frechet_distance_is_that_of_scipys_matrix_root() {
    let golden = golden("diffusion_golden");
    for case in golden["frechet"].as_array().unwrap() {
        let ours = frechet_distance(&cloud(&case["a"]), &cloud(&case["b"])).unwrap();
        let theirs = case["distance"].as_f64().unwrap();
        assert!((ours / theirs - 1.0).abs() < 1e-6, "{ours} and {theirs}");
    }
}

#[test]
fn pixels_of_another_range_and_images_of_several_channels_are_refused() {
    let (clean, noisy) = images(&golden("metrics_golden"));
    let wrong: [(Tensor, Tensor, &str); 4] = [
        (centred(&clean), centred(&noisy), "from -1.000 to 1.000"),
        (&clean * 255.0, &noisy * 255.0, "from 0.000 to 25"),
        (clean.copy(), &noisy * 12.0 - 6.0, "the other images"),
        (clean.copy(), &noisy * f64::NAN, "NaN"),
    ];
    for (original, other, words) in &wrong {
        for error in [
            psnr(original, other).unwrap_err(),
            ssim(original, other).unwrap_err(),
            mean_psnr(original, other).map(drop).unwrap_err(),
        ] {
            assert!(
                error.to_string().contains(words),
                "{words:?} is not in: {error}"
            );
        }
    }
    // Rounding is no fault.
    assert!(psnr(&clean, &(&clean * 1.000_001)).is_ok());
    let colour = clean.expand([-1, 3, 28, 28], false);
    let error = ssim(&colour, &colour).unwrap_err().to_string();
    assert!(
        error.contains("(N, 1, H, W)") && error.contains("3, 28, 28"),
        "{error}"
    );
}
