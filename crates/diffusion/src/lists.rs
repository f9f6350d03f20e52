//! The lists of layers of the lesson's own networks.

use networks::network::{Layer, conv2d, conv2d_transpose, dense, flatten, max_pooling2d, reshape};

/// The video's denoiser, 3,255,233 parameters: images of 28x28 pixels to images of the same size, through a layer of 64
/// numbers.
///
/// The lesson trains it with seed 26, which keeps more units of the layer `dense` alive than any other of the seeds 1
/// to 48 ([`Initialisation::Keras`](networks::network::Initialisation::Keras) says what a dead unit is):
/// `cargo run -p diffusion --example seeds`.
pub fn lesson_cnn() -> Vec<Layer> {
    vec![
        conv2d(16, 3).relu(),
        conv2d(32, 3).relu(),
        flatten(),
        dense(64).relu(),
        dense(28 * 28 * 32).relu(),
        reshape([28, 28, 32]),
        conv2d_transpose(32, 3).relu(),
        conv2d_transpose(16, 3).relu(),
        conv2d(1, 3).sigmoid(),
    ]
}

/// The classifier that measures generated images: images of 28x28 pixels to the probabilities of ten digits. The 128
/// numbers of its layer `dense` are the features of an image.
pub fn digit_classifier() -> Vec<Layer> {
    vec![
        conv2d(16, 3).relu(),
        conv2d(32, 3).relu(),
        max_pooling2d(2),
        conv2d(48, 3).relu(),
        conv2d(48, 3).relu(),
        max_pooling2d(2),
        flatten(),
        dense(128).relu(),
        dense(10).softmax(),
    ]
}
