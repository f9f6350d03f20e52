//! The layers that a list in a cell is made of: what each of them takes, and what comes out.

use std::fmt;

use anyhow::{Result, bail, ensure};
use serde::{Deserialize, Serialize};

use super::shape::{Shape, check_shape, numbers};

/// One layer in the list that a [`Network`](super::Network) is built from: made by [`conv2d`], [`dense`] and the other
/// functions, and changed by the methods of this type.
///
/// Shapes are `(height, width, channels)`, or `(numbers)` after [`flatten`] and [`dense`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layer {
    pub(super) operation: Operation,
    pub(super) strides: i64,
    pub(super) activation: Activation,
}

/// What a layer computes before its activation.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Operation {
    Conv2d { filters: i64, size: i64 },
    Conv2dTranspose { filters: i64, size: i64 },
    Dense { units: i64 },
    Flatten,
    Reshape { shape: Vec<i64> },
    MaxPooling2d { size: i64 },
    UpSampling2d { size: i64 },
    GroupNorm { groups: i64 },
}

/// The function that follows a layer's operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activation {
    Linear,
    Relu,
    Silu,
    Sigmoid,
    Softmax,
}

/// A convolution with `filters` kernels of `size` x `size`, an odd number, and "same" padding: what comes out is as high
/// and wide as what goes in (half, rounded up, with [`strides(2)`](Layer::strides)). As Keras's `Conv2D`.
///
/// ```
/// use diffusion::prelude::*;
///
/// # fn main() -> anyhow::Result<()> {
/// let edges = Network::new([28, 28, 1], vec![conv2d(16, 3).relu().strides(2)])?;
/// assert_eq!(edges.layers()[1].output_shape, [14, 14, 16]);
/// # Ok(())
/// # }
/// ```
pub fn conv2d(filters: i64, size: i64) -> Layer {
    Layer::of(Operation::Conv2d { filters, size })
}

/// A transposed convolution, which computes what the gradient of a [`conv2d`] computes: with
/// [`strides(2)`](Layer::strides) what comes out is twice as high and wide (Dumoulin & Visin 2016, "A guide to
/// convolution arithmetic for deep learning", section 4). As Keras's `Conv2DTranspose` with "same" padding; `size` is odd.
pub fn conv2d_transpose(filters: i64, size: i64) -> Layer {
    Layer::of(Operation::Conv2dTranspose { filters, size })
}

/// A dense layer: each of `units` numbers that come out is a weighted sum of all numbers that go in, plus a bias. As
/// Keras's `Dense`; it takes a vector, so put [`flatten`] between images and it.
pub fn dense(units: i64) -> Layer {
    Layer::of(Operation::Dense { units })
}

/// All numbers of an image in one vector: row by row, the channels of a pixel side by side. As Keras's `Flatten`.
pub fn flatten() -> Layer {
    Layer::of(Operation::Flatten)
}

/// The same numbers in another shape, `[height, width, channels]` or `[numbers]`. As Keras's `Reshape`.
pub fn reshape<const N: usize>(shape: [i64; N]) -> Layer {
    let shape = shape.to_vec();
    Layer::of(Operation::Reshape { shape })
}

/// The largest number of each block of `size` x `size` pixels, which makes the image `size` times smaller (rows and columns
/// that fill no block are left out). As Keras's `MaxPooling2D`.
pub fn max_pooling2d(size: i64) -> Layer {
    Layer::of(Operation::MaxPooling2d { size })
}

/// Each pixel becomes a block of `size` x `size` equal pixels, which makes the image `size` times larger. As Keras's
/// `UpSampling2D`.
pub fn up_sampling2d(size: i64) -> Layer {
    Layer::of(Operation::UpSampling2d { size })
}

/// Group normalisation: the channels are divided into `groups`, and the numbers of each group are brought to mean 0 and
/// variance 1 for each image, then scaled by `gamma` and shifted by `beta`, which are learnt (Wu & He 2018, eq. 1 and 7).
/// As Keras's `GroupNormalization`, whose ε is 0.001.
pub fn group_norm(groups: i64) -> Layer {
    Layer::of(Operation::GroupNorm { groups })
}

impl Layer {
    fn of(operation: Operation) -> Layer {
        Layer {
            operation,
            strides: 1,
            activation: Activation::Linear,
        }
    }

    /// With the rectifier, `max(x, 0)`, as its activation.
    #[must_use]
    pub fn relu(self) -> Layer {
        self.activated(Activation::Relu)
    }

    /// With SiLU, `x · sigmoid(x)`, as its activation (Hendrycks & Gimpel 2016).
    #[must_use]
    pub fn silu(self) -> Layer {
        self.activated(Activation::Silu)
    }

    /// With the sigmoid, `1 / (1 + exp(-x))`, as its activation: numbers from 0 to 1, such as pixels.
    #[must_use]
    pub fn sigmoid(self) -> Layer {
        self.activated(Activation::Sigmoid)
    }

    /// With softmax over the channels as its activation: numbers from 0 to 1 that add up to 1, such as the probabilities of
    /// classes (Bishop 2006, *Pattern Recognition and Machine Learning*, eq. 4.62).
    #[must_use]
    pub fn softmax(self) -> Layer {
        self.activated(Activation::Softmax)
    }

    fn activated(self, activation: Activation) -> Layer {
        Layer { activation, ..self }
    }

    /// How many pixels a convolution's window moves at a time: 1 (the default) or 2.
    #[must_use]
    pub fn strides(self, strides: i64) -> Layer {
        Layer { strides, ..self }
    }

    /// What Keras calls this kind of layer, and the first layer of it in a network.
    pub(super) fn keras_names(&self) -> (&'static str, &'static str) {
        match self.operation {
            Operation::Conv2d { .. } => ("Conv2D", "conv2d"),
            Operation::Conv2dTranspose { .. } => ("Conv2DTranspose", "conv2d_transpose"),
            Operation::Dense { .. } => ("Dense", "dense"),
            Operation::Flatten => ("Flatten", "flatten"),
            Operation::Reshape { .. } => ("Reshape", "reshape"),
            Operation::MaxPooling2d { .. } => ("MaxPooling2D", "max_pooling2d"),
            Operation::UpSampling2d { .. } => ("UpSampling2D", "up_sampling2d"),
            Operation::GroupNorm { .. } => ("GroupNormalization", "group_normalization"),
        }
    }

    /// Whether it only gives numbers another order or shape.
    pub(super) fn only_reshapes(&self) -> bool {
        matches!(
            self.operation,
            Operation::Flatten | Operation::Reshape { .. }
        )
    }

    /// What comes out of this layer for one image, when `input` goes in.
    ///
    /// # Errors
    /// Settings that make no sense, or an input that the layer cannot take.
    pub(super) fn output_shape(&self, input: &[i64]) -> Result<Vec<i64>> {
        self.check_options()?;
        let output = match &self.operation {
            Operation::Conv2d { filters, size } => {
                check_kernel(*filters, *size)?;
                let part = |pixels: i64| (pixels + self.strides - 1) / self.strides;
                let [height, width, _] = image(input)?;
                vec![part(height), part(width), *filters]
            }
            Operation::Conv2dTranspose { filters, size } => {
                check_kernel(*filters, *size)?;
                let [height, width, _] = image(input)?.map(|pixels| pixels * self.strides);
                vec![height, width, *filters]
            }
            Operation::Dense { units } => {
                ensure!(*units >= 1, "{units} units; expected 1 or more");
                ensure!(
                    input.len() == 1,
                    "expected a vector: put flatten() before it (or take conv2d({units}, 1), which works on each pixel)"
                );
                vec![*units]
            }
            Operation::Flatten => vec![numbers(input)?],
            Operation::Reshape { shape } => {
                check_shape(shape)?;
                let (arrive, wanted) = (numbers(input)?, numbers(shape)?);
                ensure!(
                    arrive == wanted,
                    "{} numbers; expected {} for {}",
                    Shape(&[arrive]),
                    Shape(&[wanted]),
                    Shape(shape)
                );
                shape.clone()
            }
            Operation::MaxPooling2d { size } => {
                let [height, width, channels] = image(input)?;
                check_block(*size)?;
                ensure!(
                    height >= *size && width >= *size,
                    "expected at least {size} x {size} pixels, one block"
                );
                vec![height / size, width / size, channels]
            }
            Operation::UpSampling2d { size } => {
                check_block(*size)?;
                let [height, width, channels] = image(input)?;
                let times = |pixels: i64| pixels.saturating_mul(*size);
                vec![times(height), times(width), channels]
            }
            Operation::GroupNorm { groups } => {
                let channels = input.last().copied().unwrap_or_default();
                ensure!(
                    *groups >= 1 && channels % groups == 0,
                    "{channels} channels cannot be divided into {groups} groups; expected a divisor of {channels}"
                );
                input.to_vec()
            }
        };
        numbers(&output)?;
        Ok(output)
    }

    fn check_options(&self) -> Result<()> {
        let (convolves, computes) = match self.operation {
            Operation::Conv2d { .. } | Operation::Conv2dTranspose { .. } => (true, true),
            Operation::Dense { .. } | Operation::GroupNorm { .. } => (false, true),
            _ => (false, false),
        };
        ensure!(
            self.strides == 1 || (convolves && self.strides == 2),
            "strides of {}; expected 1, or in a convolution 2",
            self.strides
        );
        ensure!(
            computes || self.activation == Activation::Linear,
            "it has no activation of its own: give {:?} to the layer before it",
            self.activation
        );
        Ok(())
    }

    /// The shapes of its weights, by name, when `input` goes in; and of how many numbers each sum of a kernel is made, and
    /// in how many sums each number takes part ("fan in" and "fan out").
    pub(super) fn weights(&self, input: &[i64]) -> Vec<(&'static str, Vec<i64>, Initial)> {
        let from = input.last().copied().unwrap_or_default();
        let kernel = |to: i64, size: i64, shape: Vec<i64>| {
            let field = size.saturating_mul(size);
            let fans = field.saturating_mul(from.saturating_add(to));
            vec![
                ("kernel", shape, Initial::Glorot { fans }),
                ("bias", vec![to], Initial::Zeros),
            ]
        };
        match self.operation {
            Operation::Conv2d { filters, size } | Operation::Conv2dTranspose { filters, size } => {
                kernel(filters, size, vec![filters, size, size, from])
            }
            Operation::Dense { units } => kernel(units, 1, vec![units, from]),
            Operation::GroupNorm { .. } => vec![
                ("gamma", vec![from], Initial::Ones),
                ("beta", vec![from], Initial::Zeros),
            ],
            _ => vec![],
        }
    }
}

fn check_kernel(filters: i64, size: i64) -> Result<()> {
    ensure!(filters >= 1, "{filters} filters; expected 1 or more");
    ensure!(
        size >= 1 && size % 2 == 1,
        "a kernel of {size} x {size}; expected an odd number (3 is usual), so that a pixel is in the middle"
    );
    Ok(())
}

fn check_block(size: i64) -> Result<()> {
    ensure!(
        size >= 1,
        "blocks of {size} x {size}; expected 1 or more (2 is usual)"
    );
    Ok(())
}

/// The sizes of an image that arrives.
fn image(input: &[i64]) -> Result<[i64; 3]> {
    match *input {
        [height, width, channels] => Ok([height, width, channels]),
        _ => bail!(
            "expected an image (height, width, channels): put reshape([height, width, channels]) before it"
        ),
    }
}

/// How a weight begins.
#[derive(Clone, Copy, Debug)]
pub(super) enum Initial {
    Zeros,
    Ones,
    /// Evenly spread over ±√(6 / fans), with `fans` = fan in + fan out.
    Glorot {
        fans: i64,
    },
}

/// As it is written in a list: `conv2d(16, 3).relu()`.
impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.operation {
            Operation::Conv2d { filters, size } => write!(f, "conv2d({filters}, {size})"),
            Operation::Conv2dTranspose { filters, size } => {
                write!(f, "conv2d_transpose({filters}, {size})")
            }
            Operation::Dense { units } => write!(f, "dense({units})"),
            Operation::Flatten => write!(f, "flatten()"),
            Operation::Reshape { shape } => write!(f, "reshape({shape:?})"),
            Operation::MaxPooling2d { size } => write!(f, "max_pooling2d({size})"),
            Operation::UpSampling2d { size } => write!(f, "up_sampling2d({size})"),
            Operation::GroupNorm { groups } => write!(f, "group_norm({groups})"),
        }?;
        if self.strides != 1 {
            write!(f, ".strides({})", self.strides)?;
        }
        match self.activation {
            Activation::Linear => Ok(()),
            activation => write!(f, ".{}()", format!("{activation:?}").to_lowercase()),
        }
    }
}
