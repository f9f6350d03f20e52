//! Pictures one can play with: a slider, and the digits follow at once.
//!
//! Everything is computed beforehand and handed to the page whole, so an explorer asks nobody for anything: it works
//! in JupyterLab, in an exported page, and without a network, by mouse, touch and keyboard. Where scripts do not run (a
//! notebook that is not trusted, a page on a code host), a still picture stands in its place.

mod pad;
mod pages;

use anyhow::Result;
use tch::Tensor;

use crate::denoiser::Denoiser;
use crate::figure::{line_of_digits, rows};
use crate::metrics::{psnr, ssim};
use crate::noise::corrupt;
use crate::sample::{NoiseModel, Sampler, Steps, sample_from};
use crate::schedule::{Schedule, centred, to_pixels};
pub use pad::Pad;
pub use pages::Explorer;
use pages::{Content, Row, Slider, framed};

/// The levels of a noise explorer: 0, 0.05, … 1.
const LEVELS: usize = 21;
/// The level it opens with, the lesson's: 0.5.
const FIRST_LEVEL: usize = 10;
/// How many frames a diffusion explorer has at most.
const FRAMES: usize = 51;
/// The classes, strengths and steps of a guidance explorer.
const CLASSES: i64 = 10;
const STRENGTHS: [f64; 4] = [0.0, 0.5, 1.0, 3.0];
const STEPS: usize = 8;
const COMPARE: &str = include_str!("../assets/compare.js");

/// A slider over levels of noise: original, noisy and denoised digits, with PSNR and SSIM.
///
/// `clean` is `(N, 1, 28, 28)` in `[0, 1]`; ten digits fill the page. The noise is the same at every level, only
/// stronger, and comes from the generator that [`seed`](crate::rng::seed) sets.
///
/// ```no_run
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let mnist = Mnist::load()?;
/// let cnn = Cnn::load("weights/cnn.safetensors")?;
/// noise_explorer(&cnn, &mnist.test.one_of_each()?).evcxr_display();
/// # Ok(())
/// # }
/// ```
pub fn noise_explorer(denoiser: &impl Denoiser, clean: &Tensor) -> Explorer {
    noises(&|noisy| denoiser.denoise(noisy), clean)
}

fn noises(denoise: &dyn Fn(&Tensor) -> Result<Tensor>, clean: &Tensor) -> Explorer {
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
        let denoised = denoise(&Tensor::cat(&noisy, 0))?;
        let denoised = denoised.chunk(LEVELS as i64, 0);
        let mut captions = Vec::with_capacity(LEVELS);
        for (noisy, denoised) in noisy.iter().zip(&denoised) {
            captions.push(format!(
                "noisy: {}; denoised: {}",
                scores(clean, noisy)?,
                scores(clean, denoised)?
            ));
        }
        Ok(Content {
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
    Explorer::new(
        make(),
        "Digits with noise of any level, and what the denoiser makes of them",
    )
}

/// PSNR and SSIM in words.
fn scores(clean: &Tensor, other: &Tensor) -> Result<String> {
    let mean = |scores: ndarray::Array1<f64>| scores.mean().unwrap_or(f64::NAN);
    let (psnr, ssim) = (mean(psnr(clean, other)?), mean(ssim(clean, other)?));
    let psnr = if psnr.is_finite() {
        format!("{psnr:.1} dB")
    } else {
        "equal".to_owned()
    };
    Ok(format!("{psnr}, SSIM {ssim:.2}"))
}

/// A slider over the steps of the process, which can also play by itself: real digits that drown in noise, and noise
/// that becomes digits, with the network's guess at the final image.
///
/// `clean` is `(N, 1, 28, 28)` in `[0, 1]`, eight digits fill the page; `classes` says what the network is to draw, one
/// for each of them. More than 51 steps show every second, third, … one.
pub fn diffusion_explorer(
    model: &dyn NoiseModel,
    schedule: &Schedule,
    sampler: &Sampler,
    clean: &Tensor,
    classes: &[Option<i64>],
) -> Explorer {
    let make = || {
        let mut steps = Steps::new(model, schedule, sampler, classes)?;
        let mut way = vec![(steps.ahead(), steps.now(), None)];
        for step in steps.by_ref() {
            let step = step?;
            way.push((step.t, step.x, Some(step.x0)));
        }
        let every = way.len().div_ceil(FRAMES);
        let last = way.len() - 1;
        let way: Vec<_> = way
            .into_iter()
            .enumerate()
            .filter(|(at, _)| (last - at).is_multiple_of(every))
            .map(|(_, frame)| frame)
            .collect();
        let (x0, eps) = (centred(clean), clean.randn_like());
        let forward = |t: Option<usize>| match t {
            Some(t) => schedule.q_sample(&x0, &[t], &eps),
            None => Ok(x0.shallow_clone()),
        };
        let (mut there, mut back, mut guesses, mut captions) = (vec![], vec![], vec![], vec![]);
        for (t, x, guess) in &way {
            there.push(to_pixels(&forward(*t)?));
            back.push(to_pixels(x));
            guesses.push(guess.as_ref().map_or_else(|| x.zeros_like(), to_pixels));
            captions.push(match t {
                Some(t) => format!(
                    "step {t}: {:.1} % of the image is left",
                    100.0 * schedule.alpha_bar()[*t]
                ),
                None => "the image".to_owned(),
            });
        }
        let middle = way.len() / 2;
        let step = |t: &Option<usize>| t.map_or("image".to_owned(), |t| t.to_string());
        Ok(Content {
            still: rows(&[
                ("forward", &there[middle]),
                ("reverse", &back[middle]),
                ("its guess", &guesses[middle]),
            ]),
            sliders: vec![Slider {
                name: "step",
                stops: way.iter().map(|(t, _, _)| step(t)).collect(),
                first: 0,
            }],
            rows: vec![
                Row::of("forward", &there)?,
                Row::of("reverse", &back)?,
                Row::of("its guess", &guesses)?,
            ],
            captions,
            play: true,
        })
    };
    Explorer::new(
        make(),
        "Real digits that drown in noise, and noise that becomes digits, step by step",
    )
}

/// Two sliders, for the class and for the strength of guidance: some digits of each, from the same noise everywhere.
///
/// `noise` is `(N, 1, 28, 28)`, standard normal, for N digits; five are quick. Draws in few steps, so that it is there in a second.
pub fn guidance_explorer(model: &dyn NoiseModel, schedule: &Schedule, noise: &Tensor) -> Explorer {
    let make = || {
        let digits = noise.size().first().map_or(0, |&digits| digits as usize);
        let classes: Vec<i64> = (0..CLASSES).flat_map(|class| vec![class; digits]).collect();
        let asked: Vec<Option<i64>> = classes.iter().copied().map(Some).collect();
        let noises = noise.repeat([CLASSES, 1, 1, 1]);
        let mut by_strength = Vec::with_capacity(STRENGTHS.len());
        for strength in STRENGTHS {
            let sampler = Sampler::ddim(STEPS).guided(strength);
            let drawn = sample_from(model, schedule, &sampler, &noises, &asked)?.images;
            by_strength.push(drawn.chunk(CLASSES, 0));
        }
        let frames: Vec<&Tensor> = (0..CLASSES as usize)
            .flat_map(|class| by_strength.iter().map(move |drawn| &drawn[class]))
            .collect();
        let captions = (0..CLASSES).flat_map(|class| {
            STRENGTHS.map(|strength| format!("class {class}, guidance {strength}"))
        });
        Ok(Content {
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
    Explorer::new(
        make(),
        "Digits of any class, drawn with more and less guidance from the same noise",
    )
}

/// A wipe between two pictures of the same digits: `compare(("noisy", &noisy), ("denoised", &denoised))`.
///
/// Both are `(N, 1, 28, 28)` in `[0, 1]`; the first lies below, the second is drawn over it from the left.
pub fn compare(below: (&str, &Tensor), above: (&str, &Tensor)) -> Explorer {
    let make = || {
        anyhow::ensure!(
            below.1.size() == above.1.size(),
            "a wipe takes two tensors of one shape; got {:?} and {:?}",
            below.1.size(),
            above.1.size()
        );
        let data = serde_json::json!({
            "names": [below.0, above.0],
            "pictures": [line_of_digits(below.1)?, line_of_digits(above.1)?],
        });
        let still = rows(&[below, above]).html()?;
        Ok(framed("", &still, &data.to_string(), COMPARE))
    };
    Explorer::of(
        make(),
        "Two pictures of the same digits, and a wipe between them",
    )
}
