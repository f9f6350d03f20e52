//! What a training needs of a network and its data. A cell that trains names no trait: it calls a network's own methods.

use std::ops::Range;
use std::path::Path;

use anyhow::Result;
use figures::Output;
use tch::{Kind, Tensor};

use super::history::{Measures, Validation};
use crate::network::{NamedLayer, Network};
use crate::objective::{Compiled, Loss};
use crate::pairs::Pairs;

/// How many digits a panel shows.
const SHOWN: usize = 10;

/// Data to learn from.
#[allow(clippy::len_without_is_empty, reason = "there is always one")]
pub trait Data: Send + Sized + 'static {
    /// How many images or pairs there are.
    fn len(&self) -> usize;
    /// Some of them, without copying.
    fn part(&self, range: Range<usize>) -> Self;
    /// What it is, in words: a training that goes on must have the same.
    fn description(&self) -> String;
}

/// A network that can be trained, saved and loaded: [`fit`](super::fit) and the functions beside it take any.
pub trait Model: Clone + Send + 'static {
    /// What its files call it.
    const KIND: &'static str;
    /// What it learns from.
    type Data: Data;
    /// What it is compiled with.
    type Loss: Copy + Send + Sync + 'static;

    /// The layers, from input to output.
    fn layers(&self) -> &[NamedLayer];
    /// The layers, to freeze them.
    fn layers_mut(&mut self) -> &mut [NamedLayer];
    /// The same network for a worker, with weights in another kind; in the same kind the two share memory.
    fn worker(&self, kind: Kind) -> Self;
    /// The same network, which shares its weights' memory.
    fn shared(&self) -> Self;
    /// Saves it to a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    fn save(&self, path: &Path) -> Result<()>;
    /// Loads it from a file.
    ///
    /// # Errors
    /// When the file does not hold such a network.
    fn load(path: &Path) -> Result<Self>;
    /// What it is compiled with.
    fn compiled(&self) -> Option<&Compiled<Self::Loss>>;
    /// The same, to change it.
    fn compiled_mut(&mut self) -> &mut Option<Compiled<Self::Loss>>;
    /// How to compile it, for the error of one that is not: `compile(Adam::new(0.001), …)`.
    fn how_to_compile() -> &'static str;
    /// What to do about a loss that draws random numbers of its own, for its error.
    fn how_to_repeat() -> &'static str;

    /// Do network, loss and data fit each other?
    ///
    /// # Errors
    /// What does not fit, and what was expected.
    fn check(&self, loss: Self::Loss, data: &Self::Data) -> Result<()>;
    /// What its loss and its score are called.
    fn measures(loss: Self::Loss, data: &Self::Data) -> Measures;
    /// Whether this loss is a function of a cell.
    fn is_own(loss: Self::Loss) -> bool;
    /// The mean loss of some images; `self` is a worker.
    ///
    /// # Errors
    /// When it cannot be computed.
    fn loss(&self, loss: Self::Loss, data: &Self::Data, chosen: &Selection) -> Result<Tensor>;
    /// Loss and score of held-out images; `self` is a worker.
    ///
    /// # Errors
    /// When they cannot be computed.
    fn validate(&self, loss: Self::Loss, held_out: &Self::Data, at: &[i64]) -> Result<Validation>;
    /// A picture of what the network makes of the data now.
    ///
    /// # Errors
    /// When there is none.
    fn preview(&self, data: &Self::Data) -> Result<Output>;
}

/// Which images of the data a loss is for.
#[derive(Clone, Copy, Debug)]
pub struct Selection<'a> {
    /// Their indices, which exist.
    pub indices: &'a [i64],
    /// The epoch, counted from 0.
    pub epoch: u64,
    /// The seed of the training.
    pub seed: u64,
}

impl Data for Pairs {
    fn len(&self) -> usize {
        Pairs::len(self)
    }

    fn part(&self, range: Range<usize>) -> Pairs {
        Pairs::part(self, range)
    }

    fn description(&self) -> String {
        self.source().description()
    }
}

impl Model for Network {
    const KIND: &'static str = "network";
    type Data = Pairs;
    type Loss = Loss;

    fn layers(&self) -> &[NamedLayer] {
        &self.layers
    }

    fn layers_mut(&mut self) -> &mut [NamedLayer] {
        &mut self.layers
    }

    fn worker(&self, kind: Kind) -> Network {
        self.replica(kind)
    }

    fn shared(&self) -> Network {
        Network::shared(self)
    }

    fn save(&self, path: &Path) -> Result<()> {
        Network::save(self, path)
    }

    fn load(path: &Path) -> Result<Network> {
        Network::load(path)
    }

    fn compiled(&self) -> Option<&Compiled<Loss>> {
        self.compiled.as_ref()
    }

    fn compiled_mut(&mut self) -> &mut Option<Compiled<Loss>> {
        &mut self.compiled
    }

    fn how_to_compile() -> &'static str {
        "compile(Adam::new(0.001), Loss::BinaryCrossEntropy)"
    }

    fn how_to_repeat() -> &'static str {
        "Compute it from prediction and target alone"
    }

    fn check(&self, loss: Loss, pairs: &Pairs) -> Result<()> {
        self.check_pairs(loss, pairs)
    }

    fn measures(loss: Loss, pairs: &Pairs) -> Measures {
        Measures {
            loss: loss.name(),
            unit: pairs.source().unit(),
        }
    }

    fn is_own(loss: Loss) -> bool {
        matches!(loss, Loss::Custom(_))
    }

    fn loss(&self, loss: Loss, pairs: &Pairs, chosen: &Selection) -> Result<Tensor> {
        let (input, target) = pairs.source().at(chosen.indices, Some(chosen.epoch));
        Ok(self.loss_and_logits(loss, &input, &target)?.0)
    }

    fn validate(&self, loss: Loss, held_out: &Pairs, at: &[i64]) -> Result<Validation> {
        let (input, target) = held_out.source().at(at, None);
        let (loss, logits) = self.loss_and_logits(loss, &input, &target)?;
        let loss = loss.double_value(&[]);
        // Selection that are not finite have no score; training ends at such a loss.
        let score = match loss.is_finite() {
            true => held_out.source().score(&self.activated(&logits), &target)?,
            false => None,
        };
        Ok(Validation { loss, score })
    }

    /// What the network makes of the last pairs.
    fn preview(&self, pairs: &Pairs) -> Result<Output> {
        let count = pairs.len() as i64;
        let indices: Vec<i64> = ((count - SHOWN as i64).max(0)..count).collect();
        let (input, target) = pairs.source().at(&indices, None);
        let prediction = self.predict(&input)?;
        pairs.source().picture(&input, &target, &prediction)
    }
}
