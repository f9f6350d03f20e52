//! The lesson's own sliders: noise levels, timesteps and guidance. Everything is computed before the page is shown, so the
//! digits follow the slider at once.

use anyhow::Result;
use figures::{Output, Row, Slider, Sliders, rows};
use ndarray::Array1;
use tch::Tensor;

use crate::metrics::{psnr, ssim};
use crate::network::Network;
use crate::noise::corrupt;
use crate::sample::{Frame, Sampler, sample, walk, with_labels};
use crate::schedule::{centred, to_pixels};
use crate::unet::{CLASSES, Unet};

/// How many levels a noise explorer has: 0, 0.05, … 1.
const LEVELS: usize = 21;
/// The level it opens with, the lesson's: 0.5.
const FIRST_LEVEL: usize = 10;
/// How many frames a diffusion explorer has at most.
const FRAMES: usize = 51;
/// The strengths and steps of a guidance explorer.
const STRENGTHS: [f64; 4] = [0.0, 0.5, 1.0, 3.0];
const STEPS: usize = 8;

/// A slider over noise levels: original, noisy and denoised digits, with PSNR and SSIM.
///
/// `clean` is `(N, 1, 28, 28)` in `[0, 1]`; ten digits fill the page. The noise is the same at every level, only
/// stronger, and comes from the generator that [`set_seed`](crate::rng::set_seed) sets.
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist = Mnist::load()?;
/// let cnn = Network::load("weights/cnn.safetensors")?;
/// noise_explorer(&cnn, &mnist.test.one_of_each()?).evcxr_display();
/// # Ok(())
/// # }
/// ```
pub fn noise_explorer(denoiser: &Network, clean: &Tensor) -> Output {
    let make = || {
        let levels: Vec<f64> = (0..LEVELS)
            .map(|at| at as f64 / (LEVELS - 1) as f64)
            .collect();
        let eps = clean.randn_like();
        // All levels pass through the network at once.
        let noisy: Vec<Tensor> = levels
            .iter()
            .map(|level| corrupt(clean, &eps, *level))
            .collect();
        let denoised = denoiser.predict(&Tensor::cat(&noisy, 0))?;
        let denoised = denoised.chunk(LEVELS as i64, 0);
        let mut captions = Vec::with_capacity(LEVELS);
        for (noisy, denoised) in noisy.iter().zip(&denoised) {
            captions.push(format!(
                "noisy: {}; denoised: {}",
                scores(clean, noisy)?,
                scores(clean, denoised)?
            ));
        }
        Ok(Sliders {
            still: rows(&[
                ("original", clean),
                ("noisy", &noisy[FIRST_LEVEL]),
                ("denoised", &denoised[FIRST_LEVEL]),
            ]),
            sliders: vec![Slider {
                name: "noise",
                stops: levels.iter().map(|level| format!("{level:.2}")).collect(),
                first: FIRST_LEVEL,
            }],
            rows: vec![
                Row::of("original", [clean])?,
                Row::of("noisy", &noisy)?,
                Row::of("denoised", &denoised)?,
            ],
            captions,
            play: false,
        })
    };
    shown(
        make(),
        "Digits with noise of any level, and the denoised digits",
    )
}

/// PSNR and SSIM as text.
fn scores(clean: &Tensor, other: &Tensor) -> Result<String> {
    let mean = |scores: Array1<f64>| scores.mean().unwrap_or(f64::NAN);
    let (psnr, ssim) = (mean(psnr(clean, other)?), mean(ssim(clean, other)?));
    let psnr = if psnr.is_finite() {
        format!("{psnr:.1} dB")
    } else {
        "equal".to_owned()
    };
    Ok(format!("{psnr}, SSIM {ssim:.2}"))
}

/// A slider over the steps of the process, which can also play by itself: real digits that become noise, and noise
/// that becomes digits, with the network's prediction of the final image.
///
/// `clean` is `(N, 1, 28, 28)` in `[0, 1]`, eight digits fill the page; `labels` has one label for each digit that the
/// network draws. With more than 51 steps the slider shows every second, third, … step.
pub fn diffusion_explorer(
    unet: &Unet,
    sampler: &Sampler,
    clean: &Tensor,
    labels: &[Option<i64>],
) -> Output {
    let make = || {
        let (schedule, mut frames) = (unet.schedule(), Vec::new());
        let (last, mut at) = (sampler.steps(), 0);
        let every = (last + 1).div_ceil(FRAMES);
        let _ = walk(unet, labels, sampler, &mut |frame| {
            if (last - at.min(last)).is_multiple_of(every) {
                frames.push(frame);
            }
            at += 1;
        })?;
        let (x0, eps) = (centred(clean), clean.randn_like());
        let forward = |t: Option<usize>| match t {
            Some(t) => schedule.q_sample(&x0, &[t], &eps),
            None => Ok(x0.shallow_clone()),
        };
        let (mut there, mut back, mut predictions, mut captions) = (vec![], vec![], vec![], vec![]);
        for Frame { t, x, x0 } in &frames {
            there.push(to_pixels(&forward(*t)?));
            back.push(to_pixels(x));
            predictions.push(x0.as_ref().map_or_else(|| x.zeros_like(), to_pixels));
            captions.push(match t {
                Some(t) => format!("timestep {t}: alpha_bar is {:.3}", schedule.alpha_bar()[*t]),
                None => "the image".to_owned(),
            });
        }
        let middle = frames.len() / 2;
        let step = |t: &Option<usize>| t.map_or("image".to_owned(), |t| t.to_string());
        Ok(Sliders {
            still: rows(&[
                ("forward", &there[middle]),
                ("reverse", &back[middle]),
                ("predicted", &predictions[middle]),
            ]),
            sliders: vec![Slider {
                name: "step",
                stops: frames.iter().map(|frame| step(&frame.t)).collect(),
                first: 0,
            }],
            rows: vec![
                Row::of("forward", &there)?,
                Row::of("reverse", &back)?,
                Row::of("predicted", &predictions)?,
            ],
            captions,
            play: true,
        })
    };
    shown(
        make(),
        "Real digits that become noise, and noise that becomes digits, step by step",
    )
}

/// Two sliders, for the class and for the strength of guidance: some digits of each, always from the same noise.
///
/// `noise` is `(N, 1, 28, 28)`, standard normal, for N digits; five are quick. Samples in few steps, so the sliders appear within a second.
pub fn guidance_explorer(unet: &Unet, noise: &Tensor) -> Output {
    let make = || {
        let digits = noise.size().first().map_or(0, |&digits| digits as usize);
        let classes: Vec<i64> = (0..CLASSES).flat_map(|class| vec![class; digits]).collect();
        let labels = with_labels(&classes);
        let noises = noise.repeat([CLASSES, 1, 1, 1]);
        let mut by_strength = Vec::with_capacity(STRENGTHS.len());
        for strength in STRENGTHS {
            let sampler = Sampler::ddim(STEPS).guided(strength).from_noise(&noises);
            let drawn = sample(unet, &labels, &sampler)?.images;
            by_strength.push(drawn.chunk(CLASSES, 0));
        }
        let frames: Vec<&Tensor> = (0..CLASSES as usize)
            .flat_map(|class| by_strength.iter().map(move |drawn| &drawn[class]))
            .collect();
        let captions = (0..CLASSES).flat_map(|class| {
            STRENGTHS.map(|strength| format!("class {class}, guidance {strength}"))
        });
        Ok(Sliders {
            still: rows(&[
                ("7 at 0", &by_strength[0][7]),
                ("7 at 3", &by_strength[3][7]),
            ]),
            sliders: vec![
                Slider {
                    name: "class",
                    stops: (0..CLASSES).map(|class| class.to_string()).collect(),
                    first: 7,
                },
                Slider {
                    name: "guidance",
                    stops: STRENGTHS.map(|strength| strength.to_string()).to_vec(),
                    first: 0,
                },
            ],
            rows: vec![Row::of("drawn", frames)?],
            captions: captions.collect(),
            play: false,
        })
    };
    shown(
        make(),
        "Digits of any class, drawn with more and less guidance from the same noise",
    )
}

/// The sliders, or the error in their place.
fn shown(sliders: Result<Sliders>, alt: &str) -> Output {
    match sliders {
        Ok(sliders) => sliders.output(alt),
        Err(error) => Output::from_html(Err(error), alt),
    }
}
