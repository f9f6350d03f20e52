//! What a training needs of a network and its data. A cell that trains names no trait: it calls a network's own methods.

use std::path::Path;

use anyhow::Result;
use figures::{Output, rows};
use tch::{Kind, Tensor};

use super::history::{Measures, Validation};
use crate::batch::Batch;
use crate::data::Split;
use crate::network::{NamedLayer, Network};
use crate::objective::{Compiled, Loss, one_number};
use crate::pairs::Pairs;
use crate::sample::{Sampler, balanced_classes, sample, with_labels};
use crate::unet::{Predicts, Unet, UnetLoss};

/// How many digits a panel shows.
pub(super) const SHOWN: usize = 10;

/// Data to learn from.
pub(crate) trait Data: Send + Sized + 'static {
    /// How many images or pairs there are.
    fn len(&self) -> usize;
    /// All but the last `n`, and the last `n`.
    fn hold_out(&self, n: usize) -> Result<(Self, Self)>;
    /// The same again, without copying.
    fn shallow_clone(&self) -> Self;
    /// What it is, in words.
    fn description(&self) -> String;
}

/// A network that can be trained, saved and loaded.
pub(crate) trait Model: Clone + Send + 'static {
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
    fn save(&self, path: &Path) -> Result<()>;
    /// Loads it from a file.
    fn load(path: &Path) -> Result<Self>;
    /// What it is compiled with.
    fn compiled(&self) -> Result<&Compiled<Self::Loss>>;
    /// The same, to change it.
    fn compiled_mut(&mut self) -> Option<&mut Compiled<Self::Loss>>;
    /// Compiles it.
    fn set_compiled(&mut self, compiled: Compiled<Self::Loss>);

    /// Do network, loss and data fit each other?
    fn check(&self, data: &Self::Data) -> Result<()>;
    /// What its loss and its score are called.
    fn measures(&self, data: &Self::Data) -> Result<Measures>;
    /// Whether its loss is a function of a cell.
    fn has_own_loss(&self) -> Result<bool>;
    /// The mean loss of some images in this epoch; `self` is a worker.
    fn loss(&self, loss: Self::Loss, data: &Self::Data, at: &Images) -> Result<Tensor>;
    /// Loss and score of held-out images; `self` is a worker.
    fn validate(&self, loss: Self::Loss, held_out: &Self::Data, at: &[i64]) -> Result<Validation>;
    /// A picture of what the network makes of the data now.
    fn preview(&self, data: &Self::Data) -> Result<Output>;
}

/// Which images of the data a loss is for.
pub(crate) struct Images<'a> {
    pub(super) indices: &'a [i64],
    pub(super) epoch: u64,
    pub(super) seed: u64,
}

/// The methods of traits that are the type's own.
macro_rules! own_methods {
    (Data for $data:ty) => {
        fn len(&self) -> usize {
            <$data>::len(self)
        }

        fn hold_out(&self, n: usize) -> Result<(Self, Self)> {
            <$data>::hold_out(self, n)
        }

        fn shallow_clone(&self) -> Self {
            <$data>::shallow_clone(self)
        }
    };
    (Model for $network:ty) => {
        fn layers(&self) -> &[NamedLayer] {
            <$network>::layers(self)
        }

        fn layers_mut(&mut self) -> &mut [NamedLayer] {
            <$network>::layers_mut(self)
        }

        fn shared(&self) -> Self {
            self.replica(Kind::Float)
        }

        fn save(&self, path: &Path) -> Result<()> {
            <$network>::save(self, path)
        }

        fn load(path: &Path) -> Result<Self> {
            <$network>::load(path)
        }

        fn compiled(&self) -> Result<&Compiled<Self::Loss>> {
            <$network>::compiled(self)
        }

        fn compiled_mut(&mut self) -> Option<&mut Compiled<Self::Loss>> {
            <$network>::compiled_mut(self)
        }

        fn set_compiled(&mut self, compiled: Compiled<Self::Loss>) {
            self.compile(compiled.optimizer, compiled.loss);
        }
    };
}

impl Data for Pairs {
    own_methods!(Data for Pairs);

    fn description(&self) -> String {
        Pairs::description(self)
    }
}

impl Data for Split {
    own_methods!(Data for Split);

    fn description(&self) -> String {
        "images".to_owned()
    }
}

impl Model for Network {
    const KIND: &'static str = "network";
    type Data = Pairs;
    type Loss = Loss;

    own_methods!(Model for Network);

    fn worker(&self, kind: Kind) -> Network {
        self.replica(kind)
    }

    fn check(&self, pairs: &Pairs) -> Result<()> {
        self.check_pairs(&self.compiled()?.loss, pairs)
    }

    fn measures(&self, pairs: &Pairs) -> Result<Measures> {
        Ok(Measures {
            loss: self.compiled()?.loss.name(),
            unit: match pairs.has_classes() {
                true => "% accuracy",
                false => "dB",
            },
        })
    }

    fn has_own_loss(&self) -> Result<bool> {
        Ok(matches!(self.compiled()?.loss, Loss::Custom(_)))
    }

    fn loss(&self, loss: Loss, pairs: &Pairs, at: &Images) -> Result<Tensor> {
        let (input, target) = pairs.at(at.indices, Some(at.epoch));
        self.loss_and_logits(loss, &input, &target)
            .map(|(loss, _)| loss)
    }

    fn validate(&self, loss: Loss, held_out: &Pairs, at: &[i64]) -> Result<Validation> {
        let (input, target) = held_out.at(at, None);
        let (loss, logits) = self.loss_and_logits(loss, &input, &target)?;
        let loss = loss.double_value(&[]);
        // Images that are not finite have no score; training ends at such a loss.
        let score = match loss.is_finite() {
            true => self.score(&logits, &target, held_out.has_classes())?,
            false => None,
        };
        Ok(Validation { loss, score })
    }

    fn preview(&self, pairs: &Pairs) -> Result<Output> {
        self.preview_of(pairs)
    }
}

impl Model for Unet {
    const KIND: &'static str = "unet";
    type Data = Split;
    type Loss = UnetLoss;

    own_methods!(Model for Unet);

    fn worker(&self, kind: Kind) -> Unet {
        Unet::worker(self, kind)
    }

    fn check(&self, _: &Split) -> Result<()> {
        self.compiled().map(drop)
    }

    fn measures(&self, _: &Split) -> Result<Measures> {
        Ok(Measures {
            loss: "loss",
            unit: "",
        })
    }

    fn has_own_loss(&self) -> Result<bool> {
        Ok(true)
    }

    fn loss(&self, loss: UnetLoss, images: &Split, at: &Images) -> Result<Tensor> {
        let batch = Batch::of(images, at.indices, at.epoch, at.seed);
        one_number(loss(self, &batch)?)
    }

    fn validate(&self, loss: UnetLoss, held_out: &Split, at: &[i64]) -> Result<Validation> {
        let loss = one_number(loss(self, &Batch::held_out(held_out, at))?)?;
        Ok(Validation {
            loss: loss.double_value(&[]),
            score: None,
        })
    }

    /// A digit of each class, always from the same noise, as the network of this moment draws it.
    fn preview(&self, _: &Split) -> Result<Output> {
        if self.config().predicts != Predicts::Noise {
            return Ok(Output::plain(""));
        }
        let few_steps = Sampler::ddim(10.min(self.schedule().steps()));
        let drawn = sample(self, &with_labels(&balanced_classes(SHOWN)), &few_steps)?;
        Ok(rows(&[("drawn", &drawn.images)])
            .alt("A digit of each class, as the network draws it now"))
    }
}
