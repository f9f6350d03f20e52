//! How many of the 64 units in the denoiser's narrowest layer stay alive, for many seeds and both initialisations:
//!
//! ```text
//! cargo run -p diffusion --example seeds -- [LAST_SEED]
//! ```
//!
//! Each network is trained on 5,120 images once. A unit is alive when its output is more than 0 for at least one of
//! 1,000 noisy test images. The lesson takes the seed that keeps most alive with Keras's initialisation.

use diffusion::prelude::*;
use diffusion::train::Precision;

fn main() -> Result<()> {
    let last: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(48), |text| text.parse())?;
    let mnist = Mnist::load()?;
    let (_, few) = mnist.train.hold_out(5_120)?;
    set_seed(1);
    let noisy = add_noise(&mnist.test.images(1000)?, 0.5)?;
    println!("        --- Keras's weights ---   - calibrated weights --");
    println!("seed    units alive   mean loss   units alive   mean loss");
    for seed in 1..=last {
        let (keras, keras_loss) = learn(seed, Initialisation::Keras, &few, &noisy)?;
        let (calibrated, loss) = learn(seed, Initialisation::Calibrated, &few, &noisy)?;
        println!("{seed:>4}    {keras:>11}   {keras_loss:>9.3}   {calibrated:>11}   {loss:>9.3}");
    }
    Ok(())
}

/// How many units are alive after a network has seen these images once, and its mean loss in training.
fn learn(
    seed: u64,
    initialisation: Initialisation,
    few: &Split,
    noisy: &Tensor,
) -> Result<(i64, f64)> {
    let mut cnn = Network::new([28, 28, 1], lesson_cnn())?
        .seeded(seed)
        .initialised(initialisation);
    cnn.compile(Adam::new(0.001), Loss::BinaryCrossEntropy);
    let fit = Fit {
        validation: 0,
        quiet: true,
        ..Fit::default()
    };
    let history = cnn.fit(&few.noisy(0.5)?, &fit)?;
    let alive = cnn
        .up_to("dense")?
        .predict_in(Precision::Float32, noisy)?
        .gt(0.0)
        .any_dim(0, false)
        .sum(Kind::Int64);
    let loss = history.last().map_or(f64::NAN, |epoch| epoch.loss);
    Ok((alive.int64_value(&[]), loss))
}
