//! How many of the 64 units in the denoiser's narrowest layer stay alive, for many seeds:
//!
//! ```text
//! cargo run -p diffusion --example seeds -- [LAST_SEED]
//! ```
//!
//! Each network learns from 5,120 images once. A unit is alive when it answers more than 0 to at least one of
//! 1,000 noisy test images. `CnnConfig`'s default is the seed that keeps most alive.

use diffusion::prelude::*;

fn main() -> Result<()> {
    let last: u64 = std::env::args()
        .nth(1)
        .map_or(Ok(48), |text| text.parse())?;
    let mnist = Mnist::load()?;
    let (_, few) = mnist.train.hold_out(5_120)?;
    seed(1);
    let noisy = add_noise(&mnist.test.images(1000)?, 0.5)?;
    let config = FitConfig {
        validation: 0,
        quiet: true,
        ..Default::default()
    };
    for seed in 1..=last {
        let mut cnn = Cnn::new(CnnConfig { seed });
        let history = fit(&mut cnn, &few, &config)?;
        let alive = cnn
            .encode(&noisy)?
            .gt(0.0)
            .any_dim(0, false)
            .sum(Kind::Int64);
        let loss = history.last().map_or(f64::NAN, |epoch| epoch.loss);
        println!(
            "seed {seed:>2}: {:>2} units alive, mean loss {loss:.3}",
            alive.int64_value(&[])
        );
    }
    Ok(())
}
