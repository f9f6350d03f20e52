"""Golden numbers of the mathematics of diffusion: schedules from diffusers, a Fréchet distance with SciPy's root.

    pip install -r requirements-golden.txt
    python diffusion_golden.py > diffusion_golden.json

Made with Python 3.11; the versions of the packages stand in the JSON.

diffusers computes its schedules in float32. Here it is made to compute them in float64, by handing its module a torch
whose float32 is float64: its formulas, our precision.
"""

import json
import sys
import types

import diffusers
import numpy as np
import scipy
import scipy.linalg
import torch
from diffusers.schedulers import scheduling_ddpm


class WideTorch(types.ModuleType):
    """torch, but float32 is float64."""

    def __getattr__(self, name):
        return getattr(torch, "float64" if name == "float32" else name)


scheduling_ddpm.torch = WideTorch("torch")


def schedule(name, steps):
    scheduler = scheduling_ddpm.DDPMScheduler(num_train_timesteps=steps, beta_schedule=name, variance_type="fixed_small")
    assert scheduler.alphas_cumprod.dtype == torch.float64
    # Some of the steps, the first and the last ones among them.
    chosen = sorted({0, 1, 2, steps - 3, steps - 2, steps - 1, *range(0, steps, 37)})
    at = [
        {
            "t": t,
            "beta": float(scheduler.betas[t]),
            "alpha_bar": float(scheduler.alphas_cumprod[t]),
            "posterior_variance": float(scheduler._get_variance(t)),
        }
        for t in chosen
    ]
    return {"name": name, "steps": steps, "at": at}


def frechet(rng, rows, columns):
    """Two clouds; the last feature of both never varies."""
    a = rng.normal(size=(rows, columns)) @ rng.normal(size=(columns, columns))
    b = rng.normal(size=(rows + 7, columns)) @ rng.normal(size=(columns, columns)) + 0.3
    a[:, -1] = b[:, -1] = 2.0
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    # SciPy's root of a singular product is not exact; a trace on the diagonal fixes it.
    little = np.eye(columns) * 1e-12
    root = scipy.linalg.sqrtm((cov_a + little) @ (cov_b + little)).real
    distance = np.sum((a.mean(0) - b.mean(0)) ** 2) + np.trace(cov_a + cov_b - 2 * root)
    return {"a": a.tolist(), "b": b.tolist(), "distance": float(distance)}


def main():
    rng = np.random.default_rng(4)
    golden = {
        "versions": {module.__name__: module.__version__ for module in (diffusers, torch, np, scipy)},
        "schedules": [
            schedule("linear", 1000),
            schedule("squaredcos_cap_v2", 1000),
            schedule("squaredcos_cap_v2", 50),
        ],
        "frechet": [frechet(rng, 40, 5), frechet(rng, 30, 12)],
    }
    json.dump(golden, sys.stdout, indent=1)


if __name__ == "__main__":
    main()
