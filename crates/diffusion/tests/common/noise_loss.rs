//! The loss of notebook 6.

use diffusion::prelude::*;

/// Ho et al. 2020, eq. 14.
pub fn noise_loss(unet: &Unet, batch: &Batch) -> Result<Tensor> {
    let x0 = centred(&batch.images);
    let t = batch.timesteps(unet.schedule());
    let eps = batch.noise();
    let x_t = unet.schedule().q_sample(&x0, &t, &eps)?;
    mean_squared_error(&unet.predict(&x_t, &t, &batch.labels_dropped(0.1)?)?, &eps)
}
