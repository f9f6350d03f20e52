//! Trains the classifier that generated images are scored with, and saves it where the notebooks look for it:
//!
//! ```text
//! cargo run -p diffusion --example train_classifier -- [EPOCHS] [FILE]
//! ```
//!
//! The seed and every setting stand below; the card beside the weights names the scores.

use diffusion::prelude::*;
use diffusion::train::{Keep, Precision};

fn main() -> Result<()> {
    let mut arguments = std::env::args().skip(1);
    let epochs: usize = arguments.next().map_or(Ok(6), |text| text.parse())?;
    let file = arguments
        .next()
        .unwrap_or("notebooks/weights/classifier.safetensors".to_owned());

    let mnist = Mnist::load()?;
    let mut classifier = Network::new([28, 28, 1], digit_classifier())?;
    classifier.compile(Adam::new(0.001), Loss::CrossEntropy);
    let fit = Fit {
        epochs,
        cosine_decay: true,
        keep: Keep::Best,
        precision: Precision::Float32,
        ..Fit::default()
    };
    classifier.fit(&mnist.train.labelled(), &fit)?;
    classifier.save_half(&file)?;

    let classifier = Network::load(&file)?;
    let n = mnist.test.len();
    let labels = mnist.test.labels(n)?;
    let accuracy = class_accuracy(&classifier, &mnist.test.images(n)?, &labels)?;
    println!(
        "{:.2} % of the test images are classified correctly. Saved to {file}.",
        100.0 * accuracy
    );
    Ok(())
}
