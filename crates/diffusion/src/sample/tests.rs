//! The reverse process against closed forms: where the data are known, so is the best guess at the noise.

use anyhow::bail;
use tch::{Device, Kind};

use super::*;
use crate::rng::Rng;
use crate::schedule::{Schedule, centred};

/// The last frames of a walk, as tensors.
fn walk_by(
    predict: &Predict,
    schedule: &Schedule,
    labels: &[Option<i64>],
    sampler: &Sampler,
) -> Result<Vec<Frame>> {
    let mut frames = Vec::new();
    let _ = reverse(predict, schedule, labels, sampler, &mut |frame| {
        frames.push(frame)
    })?;
    Ok(frames)
}

fn samples(
    predict: &Predict,
    schedule: &Schedule,
    labels: &[Option<i64>],
    sampler: &Sampler,
) -> Result<Samples> {
    Samples::collect(sampler.steps, |see| {
        reverse(predict, schedule, labels, sampler, see)
    })
}

/// Knows that all images are this image, with pixels in `[-1, 1]`.
fn one_image<'a>(
    image: &'a Tensor,
    schedule: &'a Schedule,
) -> impl Fn(&Tensor, usize, &[Option<i64>]) -> Result<Tensor> + 'a {
    move |x, t, _| {
        let alpha_bar = schedule.alpha_bar()[t];
        Ok((x - image * alpha_bar.sqrt()) / (1.0 - alpha_bar).sqrt())
    }
}

/// Knows that each pixel is normal with this mean and deviation: E[x0 | x_t] is linear in x_t.
fn normal(
    mean: f64,
    deviation: f64,
    schedule: &Schedule,
) -> impl Fn(&Tensor, usize, &[Option<i64>]) -> Result<Tensor> + '_ {
    move |x, t, _| {
        let alpha_bar = schedule.alpha_bar()[t];
        let variance = deviation.powi(2);
        let gain = variance * alpha_bar.sqrt() / (alpha_bar * variance + 1.0 - alpha_bar);
        let x0 = (x - alpha_bar.sqrt() * mean) * gain + mean;
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
    tch::manual_seed(1);
    let image = Tensor::rand([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let known = centred(&image);
    let predict = one_image(&known, &schedule);
    // From the last step, 20,000 times noisier than the image, rounding alone is some thousandths.
    for sampler in [Sampler::ddim(1), Sampler::ddim(7), Sampler::ddpm(1000)] {
        let samples = samples(&predict, &schedule, &[None; 3], &sampler).unwrap();
        assert!(largest(&(samples.images - &image)) < 1e-2, "{sampler:?}");
    }
}

#[test]
fn a_normal_distribution_is_recovered() {
    let schedule = Schedule::cosine(1000).unwrap();
    let predict = normal(0.1, 0.2, &schedule);
    for sampler in [Sampler::ddim(200), Sampler::ddpm(1000)] {
        let frames = walk_by(&predict, &schedule, &[None; 64], &sampler).unwrap();
        let x = frames.last().unwrap().x.to_kind(Kind::Double);
        // 50,176 pixels: the standard error of the mean is 0.0009, of the deviation 0.0006.
        let (mean, deviation) = (x.mean(Kind::Double), x.std(true));
        assert!((mean.double_value(&[]) - 0.1).abs() < 0.005, "{sampler:?}");
        assert!(
            (deviation.double_value(&[]) - 0.2).abs() < 0.006,
            "{sampler:?} {deviation}"
        );
    }
}

#[test]
fn ddim_with_eta_one_over_all_steps_is_ddpm() {
    let schedule = Schedule::linear(100).unwrap();
    let predict = normal(-0.3, 0.5, &schedule);
    let sampler = Sampler::ddpm(100).seeded(5);
    let mut rng = Rng::new(5);
    let mut x = rng.normal(&[2, 1, 28, 28]);
    let variance = schedule.posterior_variance();
    let frames = walk_by(&predict, &schedule, &[None; 2], &sampler).unwrap();
    for (frame, t) in frames[1..].iter().zip((0..100).rev()) {
        // Ho et al. 2020, eq. 6 and 7, from the clipped guess.
        let alpha_bar = schedule.alpha_bar()[t];
        let before = if t == 0 {
            1.0
        } else {
            schedule.alpha_bar()[t - 1]
        };
        let beta = schedule.betas()[t];
        let eps = predict(&x, t, &[]).unwrap();
        let x0 = ((&x - eps * (1.0 - alpha_bar).sqrt()) / alpha_bar.sqrt()).clamp(-1.0, 1.0);
        let mean = &x0 * (before.sqrt() * beta / (1.0 - alpha_bar))
            + &x * ((1.0 - beta).sqrt() * (1.0 - before) / (1.0 - alpha_bar));
        x = match t {
            0 => mean,
            _ => mean + rng.normal(&[2, 1, 28, 28]) * variance[t].sqrt(),
        };
        assert!(largest(&(&frame.x - &x)) < 1e-4, "step {t}");
    }
}

#[test]
fn noise_of_ones_own_is_where_it_starts_and_new_noise_is_other_noise() {
    let schedule = Schedule::cosine(50).unwrap();
    let predict = normal(0.0, 0.3, &schedule);
    let noise = Rng::new(3).normal(&[2, 1, 28, 28]);
    let sampler = Sampler::ddim(10).seeded(3);
    let own = sampler.clone().from_noise(&noise);
    let images = |sampler: &Sampler| {
        samples(&predict, &schedule, &[None; 2], sampler)
            .unwrap()
            .images
    };
    assert_eq!(images(&own), images(&sampler));
    // With a model that sees no noise at all, the first step adds nothing but the new noise.
    let blank = |x: &Tensor, _: usize, _: &[Option<i64>]| Ok(x.zeros_like());
    let first_steps = |eta: f64| {
        let frames = walk_by(&blank, &schedule, &[None; 2], &own.clone().eta(eta)).unwrap();
        let [start, next]: [&Tensor; 2] = [&frames[0].x, &frames[1].x];
        (start.shallow_clone(), next.shallow_clone())
    };
    let (start, with) = first_steps(1.0);
    let correlation = |a: &Tensor, b: &Tensor| {
        let [a, b] = [a, b].map(|x| x.to_kind(Kind::Double) - x.mean(Kind::Double));
        ((&a * &b).mean(Kind::Double) / (a.std(true) * b.std(true))).double_value(&[])
    };
    assert_eq!(start, noise);
    // The new noise is what is left when the strength of the old noise is taken away: it is not the start again.
    let steps = schedule.timesteps(10).unwrap();
    let (now, next) = steps[0];
    let fresh = now.posterior_deviation(&next);
    let x0 = (&start / now.alpha).clamp(-1.0, 1.0);
    let eps = (&start - now.alpha * &x0) / now.sigma;
    let new = (with - next.alpha * x0 - (next.sigma.powi(2) - fresh.powi(2)).sqrt() * eps) / fresh;
    assert!((new.std(true).double_value(&[]) - 1.0).abs() < 0.1);
    assert!(correlation(&new, &start).abs() < 0.1);
}

#[test]
fn a_seed_gives_the_same_images_again() {
    let schedule = Schedule::cosine(50).unwrap();
    let predict = normal(0.0, 0.3, &schedule);
    let draw = |seed| {
        let sampler = Sampler::ddpm(50).seeded(seed);
        samples(&predict, &schedule, &[None; 2], &sampler)
            .unwrap()
            .images
    };
    assert_eq!(draw(1), draw(1));
    assert_ne!(draw(1), draw(2));
}

/// Predicts this noise in every pixel: class + 1, or 0 without a class.
fn by_class(x: &Tensor, _: usize, classes: &[Option<i64>]) -> Result<Tensor> {
    let values: Vec<f32> = classes
        .iter()
        .map(|c| c.map_or(0.0, |c| c as f32 + 1.0))
        .collect();
    Ok(Tensor::from_slice(&values).view([-1, 1, 1, 1]).expand_as(x))
}

#[test]
fn guidance_leads_away_from_the_prediction_without_a_class() {
    // One step with alpha_bar near 1: x0 is (x - eps √(1 - alpha_bar)) / √alpha_bar, in range.
    let schedule = Schedule::from_alpha_bar(ndarray::array![0.999]).unwrap();
    let guess = |guidance: f64| {
        let sampler = Sampler::ddim(1).guided(guidance);
        let frames = walk_by(&by_class, &schedule, &[Some(3), Some(0)], &sampler).unwrap();
        frames[1].x0.as_ref().unwrap().shallow_clone()
    };
    let moved = (guess(0.5) - guess(0.0)) * 0.999f64.sqrt() / 0.001f64.sqrt();
    // w · (eps(class) - eps(nothing)) = 0.5 · 4 and 0.5 · 1, downwards, where nothing was clipped.
    for (image, expected) in [(0, -2.0), (1, -0.5)] {
        let inside = |x: &Tensor| x.get(image).abs().lt(1.0);
        let inside = inside(&guess(0.5)).logical_and(&inside(&guess(0.0)));
        let moved = moved.get(image).masked_select(&inside);
        assert!(moved.numel() > 100);
        assert!(largest(&(moved - expected)) < 1e-2, "image {image}");
    }
}

#[test]
fn known_pixels_stay_and_the_others_are_drawn() {
    let schedule = Schedule::cosine(100).unwrap();
    let white = Tensor::ones([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let grey = centred(&(&white * 0.25));
    let predict = one_image(&grey, &schedule);
    let mask = white.copy();
    let _ = mask.narrow(3, 14, 14).fill_(0.0);
    let images = Tensor::cat(&[&white, &white], 0) * 0.8;
    for labels in [&[None; 2][..], &[None]] {
        let sampler = Sampler::ddim(20).keeping(&images, &mask);
        let painted = samples(&predict, &schedule, labels, &sampler)
            .unwrap()
            .images;
        assert_eq!(painted.size(), [2, 1, 28, 28]);
        assert!(largest(&(painted.narrow(3, 0, 14) - 0.8)) < 1e-4);
        assert!(largest(&(painted.narrow(3, 14, 14) - 0.25)) < 1e-4);
    }
}

#[test]
fn a_noisy_image_is_denoised_from_its_timestep() {
    let schedule = Schedule::cosine(1000).unwrap();
    let image = Tensor::rand([4, 1, 28, 28], (Kind::Float, Device::Cpu));
    let known = centred(&image);
    let predict = one_image(&known, &schedule);
    let t = schedule.step_of_noise(0.5).unwrap();
    let noisy = &image + image.randn_like() * 0.5;
    let sampler = Sampler::ddim(20).from_noisy(&noisy, t);
    let cleaned = samples(&predict, &schedule, &[None], &sampler).unwrap();
    assert!(largest(&(cleaned.images - &image)) < 1e-4);
}

#[test]
fn a_model_that_fails_ends_the_loop_with_its_error() {
    let schedule = Schedule::cosine(10).unwrap();
    let broken = |_: &Tensor, t: usize, _: &[Option<i64>]| bail!("broken at {t}");
    let error = walk_by(&broken, &schedule, &[None], &Sampler::ddim(5)).unwrap_err();
    assert_eq!(error.to_string(), "broken at 9");
}

#[test]
fn what_makes_no_sense_is_named() {
    let schedule = Schedule::cosine(100).unwrap();
    let text = |sampler: Sampler, classes: &[Option<i64>]| {
        let error = samples(&by_class, &schedule, classes, &sampler);
        error.unwrap_err().to_string()
    };
    let one = [Some(1)];
    let ddim = || Sampler::ddim(5);
    assert!(text(Sampler::ddim(0), &one).contains("cannot take 0 steps"));
    assert!(text(Sampler::ddim(101), &one).contains("101 steps; this schedule has 100"));
    assert!(text(ddim(), &[Some(12)]).contains("no class 12; expected one of 0 to 9"));
    assert!(text(ddim(), &[Some(-1)]).contains("no class -1"));
    assert!(text(ddim(), &[]).contains("got no labels"));
    for guidance in [f64::NAN, -1.0, f64::INFINITY] {
        let error = text(ddim().guided(guidance), &one);
        assert!(
            error.contains(&format!("guidance strength is {guidance}")),
            "{error}"
        );
    }
    assert!(text(ddim().eta(1.5), &one).contains("eta is 1.5"));
    let images = double(&[2, 1, 28, 28]);
    let noise = ddim().from_noise(&images);
    assert!(text(noise, &[None; 3]).contains("each of 2 images, or one for all; got 3"));
    let mask =
        |mask: &Tensor, classes: &[Option<i64>]| text(ddim().keeping(&images, mask), classes);
    assert!(mask(&double(&[1, 1, 14, 14]), &[None; 2]).contains("[1, 1, 14, 14]"));
    assert!(mask(&(double(&[1, 1, 28, 28]) + 0.5), &[None; 2]).contains("other numbers than 0"));
    assert!(mask(&double(&[1, 1, 28, 28]), &[None; 3]).contains("as are sampled, 3; got 2"));
    let centred = ddim().keeping(&(&images - 1.0), &double(&[1, 1, 28, 28]));
    assert!(text(centred, &[None; 2]).contains("expected 0 to 1, not centred"));
    assert!(text(ddim().from_noisy(&images, 100), &[None]).contains("no step 100"));
    assert!(text(ddim().from_noisy(&double(&[2, 28, 28]), 5), &[None]).contains("[2, 28, 28]"));
}

#[test]
fn the_trajectory_can_be_shown_and_says_what_it_shows() {
    let schedule = Schedule::cosine(100).unwrap();
    let predict = normal(0.0, 0.3, &schedule);
    let of = |steps, images: usize| {
        let sampler = Sampler::ddim(steps);
        samples(&predict, &schedule, &vec![None; images], &sampler).unwrap()
    };
    let many = of(20, 30);
    let alt = many.strip(2).alt_text().to_owned();
    assert!(alt.starts_with("2 digits on their way from noise to digit, at the steps 99, "));
    assert!(alt.ends_with(", image"), "{alt}");
    let alt = many.guesses(100).alt_text().to_owned();
    assert!(alt.starts_with("30 digits as the network predicted them"));
    assert!(alt.contains("steps 99, ") && alt.ends_with(", 0"), "{alt}");
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("way.gif");
    many.animate().save(&path).unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert!(bytes.starts_with(b"GIF89a") && bytes.len() < 1_500_000);
    // Few steps: a column for each, none twice.
    let few = of(2, 1);
    assert!(
        few.strip(1)
            .alt_text()
            .ends_with("at the steps 99, 0, image")
    );
}
