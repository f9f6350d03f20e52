//! The reverse process against closed forms: where the data are known, so is the best guess at the noise.
#![allow(clippy::unwrap_used)]

use anyhow::{Result, bail};
use diffusion::prelude::*;
use diffusion::sample::NoiseModel;
use tch::Device;

/// Knows that all images are this image.
struct OneImage<'a> {
    image: Tensor,
    schedule: &'a Schedule,
}

impl NoiseModel for OneImage<'_> {
    fn noise(&self, x: &Tensor, t: usize, _: &[Option<i64>]) -> Result<Tensor> {
        let alpha_bar = self.schedule.alpha_bar()[t];
        Ok((x - &self.image * alpha_bar.sqrt()) / (1.0 - alpha_bar).sqrt())
    }
}

/// Knows that each pixel is normal with this mean and deviation: E[x0 | x_t] is linear in x_t.
struct Normal<'a> {
    mean: f64,
    deviation: f64,
    schedule: &'a Schedule,
}

impl NoiseModel for Normal<'_> {
    fn noise(&self, x: &Tensor, t: usize, _: &[Option<i64>]) -> Result<Tensor> {
        let alpha_bar = self.schedule.alpha_bar()[t];
        let variance = self.deviation.powi(2);
        let gain = variance * alpha_bar.sqrt() / (alpha_bar * variance + 1.0 - alpha_bar);
        let x0 = (x - alpha_bar.sqrt() * self.mean) * gain + self.mean;
        Ok((x - x0 * alpha_bar.sqrt()) / (1.0 - alpha_bar).sqrt())
    }
}

fn double(shape: &[i64]) -> Tensor {
    Tensor::zeros(shape, (Kind::Double, Device::Cpu))
}

fn largest(difference: &Tensor) -> f64 {
    difference.abs().max().double_value(&[])
}

#[test]
fn a_model_that_knows_the_image_finds_it_in_any_number_of_steps() {
    let schedule = Schedule::cosine(1000).unwrap();
    seed(1);
    let image = Tensor::rand([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let model = OneImage {
        image: centred(&image),
        schedule: &schedule,
    };
    // From the last step, 20,000 times noisier than the image, rounding alone is some thousandths.
    for sampler in [Sampler::ddim(1), Sampler::ddim(7), Sampler::ddpm(&schedule)] {
        let samples = sample(&model, &schedule, &sampler, &[None; 3]).unwrap();
        assert!(largest(&(samples.images - &image)) < 1e-2, "{sampler:?}");
    }
}

#[test]
fn a_normal_distribution_is_recovered() {
    let schedule = Schedule::cosine(1000).unwrap();
    let model = Normal {
        mean: 0.1,
        deviation: 0.2,
        schedule: &schedule,
    };
    for sampler in [Sampler::ddim(200), Sampler::ddpm(&schedule)] {
        let steps = Steps::new(&model, &schedule, &sampler, &[None; 64]).unwrap();
        let x = steps.last().unwrap().unwrap().x.to_kind(Kind::Double);
        // 50,176 pixels: the standard error of the mean is 0.0009, of the deviation 0.0006.
        let (mean, deviation) = (x.mean(Kind::Double), x.std(true));
        assert!((mean.double_value(&[]) - 0.1).abs() < 0.005, "{sampler:?}");
        assert!(
            (deviation.double_value(&[]) - 0.2).abs() < 0.006,
            "{sampler:?} {}",
            deviation.double_value(&[])
        );
    }
}

#[test]
fn ddim_with_eta_one_over_all_steps_is_ddpm() {
    let schedule = Schedule::linear(100).unwrap();
    let model = Normal {
        mean: -0.3,
        deviation: 0.5,
        schedule: &schedule,
    };
    let sampler = Sampler::ddpm(&schedule).seeded(5);
    let mut rng = diffusion::rng::Rng::new(5);
    let mut x = rng.normal(&[2, 1, 28, 28]);
    let variance = schedule.posterior_variance();
    let steps = Steps::new(&model, &schedule, &sampler, &[None; 2]).unwrap();
    for (step, t) in steps.zip((0..100).rev()) {
        // Ho et al. 2020, eq. 6 and 7, from the clipped guess.
        let alpha_bar = schedule.alpha_bar()[t];
        let before = if t == 0 {
            1.0
        } else {
            schedule.alpha_bar()[t - 1]
        };
        let beta = schedule.betas()[t];
        let eps = model.noise(&x, t, &[]).unwrap();
        let x0 = ((&x - eps * (1.0 - alpha_bar).sqrt()) / alpha_bar.sqrt()).clamp(-1.0, 1.0);
        let mean = &x0 * (before.sqrt() * beta / (1.0 - alpha_bar))
            + &x * ((1.0 - beta).sqrt() * (1.0 - before) / (1.0 - alpha_bar));
        x = match t {
            0 => mean,
            _ => mean + rng.normal(&[2, 1, 28, 28]) * variance[t].sqrt(),
        };
        assert!(largest(&(step.unwrap().x - &x)) < 1e-4, "step {t}");
    }
}

#[test]
fn sampling_from_given_noise_equals_sampling_from_the_same_seed() {
    let schedule = Schedule::cosine(50).unwrap();
    let model = Normal {
        mean: 0.0,
        deviation: 0.3,
        schedule: &schedule,
    };
    let sampler = Sampler::ddim(10).seeded(3);
    let noise = diffusion::rng::Rng::new(3).normal(&[2, 1, 28, 28]);
    let own = sample_from(&model, &schedule, &sampler, &noise, &[None; 2]).unwrap();
    let drawn = sample(&model, &schedule, &sampler, &[None; 2]).unwrap();
    assert_eq!(own.images, drawn.images);
    let error = sample_from(&model, &schedule, &sampler, &noise, &[None; 3]).unwrap_err();
    assert!(
        error.to_string().contains("each of 2 noises; got 3"),
        "{error}"
    );
}

#[test]
fn a_seed_gives_the_same_images_again() {
    let schedule = Schedule::cosine(50).unwrap();
    let model = Normal {
        mean: 0.0,
        deviation: 0.3,
        schedule: &schedule,
    };
    let draw = |seed| {
        let sampler = Sampler::ddpm(&schedule).seeded(seed);
        sample(&model, &schedule, &sampler, &[None; 2])
            .unwrap()
            .images
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// Predicts this noise in every pixel: class + 1, or 0 without a class.
struct ByClass;

impl NoiseModel for ByClass {
    fn noise(&self, x: &Tensor, _: usize, classes: &[Option<i64>]) -> Result<Tensor> {
        let values: Vec<f32> = classes
            .iter()
            .map(|c| c.map_or(0.0, |c| c as f32 + 1.0))
            .collect();
        Ok(Tensor::from_slice(&values).view([-1, 1, 1, 1]).expand_as(x))
    }
}

#[test]
fn guidance_leads_away_from_the_prediction_without_a_class() {
    // One step with alpha_bar near 1: x0 is (x - eps √(1 - alpha_bar)) / √alpha_bar, in range.
    let schedule = Schedule::from_alpha_bar(ndarray::array![0.999]).unwrap();
    let guess = |guidance: f64| {
        let sampler = Sampler::ddim(1).guided(guidance);
        let mut steps = Steps::new(&ByClass, &schedule, &sampler, &[Some(3), Some(0)]).unwrap();
        let step = steps.next().unwrap().unwrap();
        step.x0
    };
    let moved = (guess(0.5) - guess(0.0)) * 0.999f64.sqrt() / 0.001f64.sqrt();
    // w · (eps(class) - eps(nothing)) = 0.5 · 4 and 0.5 · 1, downwards, where nothing was clipped.
    for (image, expected) in [(0, -2.0), (1, -0.5)] {
        let inside = guess(0.5)
            .get(image)
            .abs()
            .lt(1.0)
            .logical_and(&guess(0.0).get(image).abs().lt(1.0));
        let moved = moved.get(image).masked_select(&inside);
        assert!(moved.numel() > 100);
        assert!(largest(&(moved - expected)) < 1e-2, "image {image}");
    }
}

#[test]
fn known_pixels_stay_and_the_others_are_drawn() {
    let schedule = Schedule::cosine(100).unwrap();
    let white = Tensor::ones([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let model = OneImage {
        image: centred(&(&white * 0.25)),
        schedule: &schedule,
    };
    let mask = white.copy();
    let _ = mask.narrow(3, 14, 14).fill_(0.0);
    let images = Tensor::cat(&[&white, &white], 0) * 0.8;
    let painted = inpaint(
        &model,
        &schedule,
        &Sampler::ddim(20),
        &images,
        &mask,
        &[None; 2],
    )
    .unwrap();
    let (left, right) = (
        painted.images.narrow(3, 0, 14),
        painted.images.narrow(3, 14, 14),
    );
    assert!(largest(&(left - 0.8)) < 1e-4);
    assert!(largest(&(right - 0.25)) < 1e-4);
}

#[test]
fn a_noisy_image_is_denoised_from_its_timestep() {
    let schedule = Schedule::cosine(1000).unwrap();
    let image = Tensor::rand([4, 1, 28, 28], (Kind::Float, Device::Cpu));
    let model = OneImage {
        image: centred(&image),
        schedule: &schedule,
    };
    let t = schedule.step_of_noise(0.5).unwrap();
    let noisy = &image + image.randn_like() * 0.5;
    let cleaned = denoise_from(&model, &schedule, &Sampler::ddim(20), &noisy, t).unwrap();
    assert!(largest(&(cleaned.images - &image)) < 1e-4);
}

/// Cannot do it.
struct Broken;

impl NoiseModel for Broken {
    fn noise(&self, _: &Tensor, t: usize, _: &[Option<i64>]) -> Result<Tensor> {
        bail!("broken at {t}")
    }
}

#[test]
fn a_model_that_fails_ends_the_loop_with_its_error() {
    let schedule = Schedule::cosine(10).unwrap();
    let mut steps = Steps::new(&Broken, &schedule, &Sampler::ddim(5), &[None]).unwrap();
    assert_eq!(
        steps.next().unwrap().unwrap_err().to_string(),
        "broken at 9"
    );
    assert!(steps.next().is_none());
}

#[test]
fn what_makes_no_sense_is_named() {
    let schedule = Schedule::cosine(100).unwrap();
    let text = |sampler: Sampler, classes: &[Option<i64>]| {
        sample(&ByClass, &schedule, &sampler, classes)
            .unwrap_err()
            .to_string()
    };
    let one = [Some(1)];
    assert!(text(Sampler::ddim(0), &one).contains("cannot take 0 steps"));
    assert!(
        text(Sampler::ddim(101), &one).contains("cannot take 101 steps; this schedule has 100")
    );
    assert!(text(Sampler::ddim(5), &[Some(12)]).contains("no class 12; expected one of 0 to 9"));
    assert!(text(Sampler::ddim(5), &[Some(-1)]).contains("no class -1"));
    assert!(text(Sampler::ddim(5), &[]).contains("got no labels"));
    for guidance in [f64::NAN, -1.0, f64::INFINITY] {
        let error = text(Sampler::ddim(5).guided(guidance), &one);
        assert!(
            error.contains(&format!("guidance strength is {guidance}")),
            "{error}"
        );
    }
    let eta = Sampler {
        eta: 1.5,
        ..Sampler::default()
    };
    assert!(text(eta, &one).contains("eta is 1.5"));
    let images = double(&[2, 1, 28, 28]);
    let mask = |mask: &Tensor, classes: &[Option<i64>]| {
        let sampler = Sampler::ddim(5);
        inpaint(&ByClass, &schedule, &sampler, &images, mask, classes)
            .unwrap_err()
            .to_string()
    };
    assert!(mask(&double(&[1, 1, 14, 14]), &[None; 2]).contains("[1, 1, 14, 14]"));
    assert!(mask(&(double(&[1, 1, 28, 28]) + 0.5), &[None; 2]).contains("other numbers than 0"));
    assert!(mask(&double(&[1, 1, 28, 28]), &[None]).contains("each of 2 images; got 1"));
    let error = denoise_from(&ByClass, &schedule, &Sampler::ddim(5), &images, 100).unwrap_err();
    assert!(error.to_string().contains("no step 100"));
    let error = denoise_from(
        &ByClass,
        &schedule,
        &Sampler::ddim(5),
        &double(&[2, 28, 28]),
        5,
    );
    assert!(error.unwrap_err().to_string().contains("[2, 28, 28]"));
}

#[test]
fn the_trajectory_can_be_shown_and_says_what_it_shows() {
    let schedule = Schedule::cosine(100).unwrap();
    let model = Normal {
        mean: 0.0,
        deviation: 0.3,
        schedule: &schedule,
    };
    let samples = sample(&model, &schedule, &Sampler::ddim(20), &[None; 30]).unwrap();
    let alt = samples.strip(2).alt_text().to_owned();
    assert!(alt.starts_with("2 digits on their way from noise to digit, at the steps 99, "));
    assert!(alt.ends_with(", image"), "{alt}");
    let alt = samples.guesses(100).alt_text().to_owned();
    assert!(alt.starts_with("30 digits as the network predicted them"));
    assert!(alt.contains("steps 99, ") && alt.ends_with(", 0"), "{alt}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("way.gif");
    samples.animate().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"GIF89a") && bytes.len() < 1_500_000);
    // Few steps: a column for each, none twice.
    let samples = sample(&model, &schedule, &Sampler::ddim(2), &[None; 1]).unwrap();
    assert!(
        samples
            .strip(1)
            .alt_text()
            .ends_with("at the steps 99, 0, image")
    );
}
