//! Observers of a training: the trait, and the observer that prints lines.

use std::ops::ControlFlow;
use std::time::Instant;

use figures::thousands;

use super::history::{Epoch, Plan, line};

/// Batches to wait before the time that a training takes is estimated.
const WARM_UP: usize = 20;

/// Follows a training and can end it: `ControlFlow::Break` stops the training after the current batch.
///
/// An observer that wants to see the network holds a copy that shares its weights:
/// [`Network::shared`](crate::network::Network::shared), or the same of another model.
pub trait Observer {
    /// Called once, before the first batch.
    fn start(&mut self, _plan: &Plan) {}

    /// Called after every batch with its number, counted from 1 over all epochs, and its loss. The network
    /// has the weights of this moment, also where a moving average is kept.
    fn batch(&mut self, _plan: &Plan, _batch: usize, _loss: f64) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    /// Called after every epoch, validation included. Where a moving average is kept, the network has its weights.
    fn epoch(&mut self, _plan: &Plan, _epoch: &Epoch) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }
}

/// Does nothing.
impl Observer for () {}

/// The observer that prints: an estimate after the first batches, then a line for each epoch.
#[derive(Debug)]
pub struct PrintLines {
    started: Instant,
    /// Batches of the earlier run that this one resumes.
    before: Option<usize>,
}

impl Default for PrintLines {
    fn default() -> PrintLines {
        PrintLines {
            started: Instant::now(),
            before: None,
        }
    }
}

impl PrintLines {
    /// Seconds still to go, by the speed so far.
    fn seconds_left(&self, plan: &Plan, done: usize) -> f64 {
        let left = (plan.epochs * plan.batches).saturating_sub(done);
        let here = done.saturating_sub(self.before.unwrap_or(0)).max(1);
        self.started.elapsed().as_secs_f64() * left as f64 / here as f64
    }
}

impl Observer for PrintLines {
    fn start(&mut self, plan: &Plan) {
        *self = PrintLines::default();
        println!(
            "Training on {} images, {} held out, in {}.",
            thousands(plan.images),
            thousands(plan.validation),
            plan.precision,
        );
    }

    fn batch(&mut self, plan: &Plan, batch: usize, loss: f64) -> ControlFlow<()> {
        let before = *self.before.get_or_insert(batch - 1);
        if batch == before + WARM_UP && plan.epochs * plan.batches > 4 * WARM_UP {
            println!(
                "About {:.0} s to go; the loss is now {loss:.4}.",
                self.seconds_left(plan, batch)
            );
        }
        ControlFlow::Continue(())
    }

    fn epoch(&mut self, plan: &Plan, epoch: &Epoch) -> ControlFlow<()> {
        let left = self.seconds_left(plan, epoch.number * plan.batches);
        let left = if epoch.number < plan.epochs {
            format!("  ({left:.0} s to go)")
        } else {
            String::new()
        };
        println!("{}{left}", line(plan, epoch));
        ControlFlow::Continue(())
    }
}
