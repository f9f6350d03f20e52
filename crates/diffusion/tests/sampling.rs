//! `sample` computes the lines that stand in the notebooks' cells, to the bit.
#![allow(clippy::unwrap_used)]

#[path = "common/noise_loss.rs"]
mod noise_loss;

use std::sync::OnceLock;

use diffusion::prelude::*;
use noise_loss::noise_loss;

/// A small network that has learnt a little, so that it finds some noise, other noise for other classes.
fn unet() -> Unet {
    static FILE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let folder = FILE.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let mut unet = Unet::new(UnetConfig {
            width: 16,
            ..UnetConfig::default()
        })
        .unwrap();
        unet.compile(Adam::new(0.003), noise_loss);
        let fit = Fit {
            batch_size: 32,
            validation: 0,
            quiet: true,
            ..Fit::default()
        };
        let few = Mnist::load().unwrap().train.first(640).unwrap();
        unet.fit(&few, &fit).unwrap();
        unet.save(folder.path().join("unet.safetensors")).unwrap();
        folder
    });
    Unet::load(folder.path().join("unet.safetensors")).unwrap()
}

/// What a cell adds to the loop of DDIM.
#[derive(Clone, Copy, Default)]
struct Lines<'a> {
    eta: Option<f64>,
    guidance: Option<f64>,
    /// Images in `[-1, 1]`, and a mask.
    known: Option<(&'a Tensor, &'a Tensor)>,
}

/// The loop of notebooks 6 to 8.
fn cell(
    unet: &Unet,
    labels: &[Option<i64>],
    steps: Vec<(diffusion::schedule::Timestep, diffusion::schedule::Timestep)>,
    mut x: Tensor,
    mut rng: Rng,
    lines: Lines,
) -> Result<Tensor> {
    for (now, next) in steps {
        let mut eps: Tensor = unet.predict(&x, &[now.t], labels)?;
        if let Some(w) = lines.guidance {
            eps = (1.0 + w) * eps - w * unet.predict(&x, &[now.t], &[None])?;
        }
        let x0: Tensor = ((&x - now.sigma * &eps) / now.alpha).clamp(-1.0, 1.0);
        let eps: Tensor = (&x - now.alpha * &x0) / now.sigma;
        x = match lines.eta {
            None => next.alpha * x0 + next.sigma * eps,
            Some(eta) => {
                let fresh: f64 = eta * now.posterior_deviation(&next);
                next.alpha * x0
                    + (next.sigma.powi(2) - fresh.powi(2)).sqrt() * eps
                    + fresh * rng.normal(&x.size())
            }
        };
        if let Some((known, mask)) = lines.known {
            x = mask * (next.alpha * known + next.sigma * rng.normal(&x.size())) + (1.0 - mask) * x;
        }
    }
    Ok(to_pixels(&x))
}

fn from_seed(unet: &Unet, labels: &[Option<i64>], steps: usize, lines: Lines) -> Tensor {
    let mut rng: Rng = Rng::new(7);
    let x: Tensor = rng.normal(&[labels.len() as i64, 1, 28, 28]);
    let steps = unet.schedule().timesteps(steps).unwrap();
    cell(unet, labels, steps, x, rng, lines).unwrap()
}

fn drawn(unet: &Unet, labels: &[Option<i64>], sampler: &Sampler) -> Tensor {
    sample(unet, labels, sampler).unwrap().images
}

#[test]
fn sample_is_the_loop_of_the_cells_to_the_bit() {
    let unet = unet();
    let labels = with_labels(&balanced_classes(10));
    let ddim = || Sampler::ddim(20).seeded(7);
    let plain = from_seed(&unet, &labels, 20, Lines::default());
    assert_eq!(drawn(&unet, &labels, &ddim()), plain);

    let lines = Lines {
        eta: Some(1.0),
        ..Lines::default()
    };
    let ddpm = from_seed(&unet, &labels, 20, lines);
    assert_eq!(drawn(&unet, &labels, &ddim().eta(1.0)), ddpm);
    assert_ne!(ddpm, plain);

    let lines = Lines {
        guidance: Some(2.0),
        ..Lines::default()
    };
    let guided = from_seed(&unet, &labels, 20, lines);
    assert_eq!(drawn(&unet, &labels, &ddim().guided(2.0)), guided);
    assert_ne!(guided, plain);

    let images = Mnist::load().unwrap().test.one_of_each().unwrap();
    let mask = Tensor::ones([1, 1, 28, 28], (Kind::Float, Device::Cpu));
    let _ = mask.narrow(2, 14, 14).fill_(0.0);
    let known = centred(&images);
    let lines = Lines {
        eta: Some(0.5),
        guidance: Some(1.0),
        known: Some((&known, &mask)),
    };
    let painted = from_seed(&unet, &labels, 20, lines);
    let sampler = ddim().eta(0.5).guided(1.0).keeping(&images, &mask);
    assert_eq!(drawn(&unet, &labels, &sampler), painted);
    let moved = (painted - images) * mask;
    assert!(moved.abs().max().double_value(&[]) < 1e-6);
}

#[test]
fn starts_of_ones_own_are_the_loop_of_the_cells_too() {
    let unet = unet();
    let labels = [Some(3); 4];
    let noise = Rng::new(1).normal(&[4, 1, 28, 28]);
    let steps = unet.schedule().timesteps(10).unwrap();
    let lines = Lines::default();
    let ours = cell(&unet, &labels, steps, noise.copy(), Rng::new(2), lines).unwrap();
    let sampler = Sampler::ddim(10).from_noise(&noise);
    assert_eq!(drawn(&unet, &labels, &sampler), ours);

    let clean = Mnist::load().unwrap().test.images(4).unwrap();
    let noisy = add_noise(&clean, 0.5).unwrap();
    let t = unet.schedule().step_of_noise(0.5).unwrap();
    let steps = unet.schedule().timesteps_from(t, 30).unwrap();
    let x = centred(&noisy) * steps[0].0.alpha;
    let ours = cell(&unet, &[None], steps, x, Rng::new(2), lines).unwrap();
    let sampler = Sampler::ddim(30).from_noisy(&noisy, t);
    assert_eq!(drawn(&unet, &[None], &sampler), ours);
}
