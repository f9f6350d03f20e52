#!/usr/bin/env python3
"""How well the lesson's network denoises when Keras trains it: the figure to reach.

    pip install -r requirements-golden.txt
    python keras_reference.py --seed 1 [--mnist FOLDER] [--out keras_reference.json]

One run trains one seed and adds it to the JSON (a run of the same seed replaces it);
without --seed it prints the table of what is there. A run of three epochs takes
two to three minutes on two cores.

Training: the first 55,000 training images (the last 5,000 held out), pixels in
[0, 1], batch 128, Adam 1e-3, binary cross-entropy, three epochs, shuffled. Noise as
in the lesson, drawn once from the seed and kept: clip(x + 0.5 * N(0, 1), 0, 1).
The seed decides initial weights, order and noise.

After every epoch, on all 10,000 test images with noise 0.5 from a fixed seed of
their own, the same in every run:
    psnr   mean over the images of 10 log10(1 / MSE)
    ssim   mean over the images of scikit-image's default SSIM at data_range 1
           (7x7 windows), vectorised below and checked against scikit-image in every run
    bce    what Keras's evaluate reports
and under val_loss the loss on the 5,000 held-out images with fixed noise. The
baselines (the noisy input, the 3x3 median, the Gaussian of sigma 0.9) on the same
images; their cross-entropy is Keras's clipped one ([1e-7, 1 - 1e-7]), which
punishes a wrong 0 or 1 hard and says little.

`plateau_steps` is the first step at which a batch's loss fell below 0.2: this
network rests at about 0.26 for its first hundreds of steps, for how long is luck.
"""

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["KERAS_BACKEND"] = "tensorflow"
os.environ["CUDA_VISIBLE_DEVICES"] = ""

import numpy as np

from golden_common import add_mnist_argument, digits, read_images, scale, write_json

HERE = Path(__file__).resolve().parent
NOISE = 0.5
TRAIN = 55_000
TEST_NOISE_SEED = 20_000
VALIDATION_NOISE_SEED = 20_001


def add_noise(images, seed):
    noise = np.random.default_rng(seed).standard_normal(images.shape, dtype=np.float32)
    noise *= np.float32(NOISE)
    noise += images
    return np.clip(noise, 0.0, 1.0, out=noise)


def psnr(clean, other):
    error = np.mean((clean.astype(np.float64) - other.astype(np.float64)) ** 2, axis=(1, 2))
    return 10.0 * np.log10(1.0 / error)


def ssim(clean, other, chunk=1000):
    """scikit-image's default SSIM at data_range 1, of each of many images."""

    def window_mean(a):  # over every 7x7 window that lies inside
        s = np.pad(a.cumsum(1).cumsum(2), ((0, 0), (1, 0), (1, 0)))
        return (s[:, 7:, 7:] - s[:, :-7, 7:] - s[:, 7:, :-7] + s[:, :-7, :-7]) / 49.0

    out = []
    for start in range(0, len(clean), chunk):
        x = clean[start : start + chunk].astype(np.float64)
        y = other[start : start + chunk].astype(np.float64)
        ux, uy = window_mean(x), window_mean(y)
        vx = (window_mean(x * x) - ux * ux) * (49.0 / 48.0)
        vy = (window_mean(y * y) - uy * uy) * (49.0 / 48.0)
        vxy = (window_mean(x * y) - ux * uy) * (49.0 / 48.0)
        c1, c2 = 0.01**2, 0.03**2
        s = (2 * ux * uy + c1) * (2 * vxy + c2) / ((ux**2 + uy**2 + c1) * (vx + vy + c2))
        out.append(s.mean(axis=(1, 2)))
    return np.concatenate(out)


def check_ssim(clean, other):
    from skimage.metrics import structural_similarity

    some = slice(0, None, len(clean) // 100)
    ours = ssim(clean[some], other[some])
    theirs = [
        structural_similarity(a.astype(np.float64), b.astype(np.float64), data_range=1.0)
        for a, b in zip(clean[some], other[some])
    ]
    worst = float(np.abs(ours - theirs).max())
    assert worst < 1e-9, f"SSIM differs from scikit-image's by {worst}"
    return worst


def quality(clean, other):
    return {"psnr": digits(psnr(clean, other).mean(), 6), "ssim": digits(ssim(clean, other).mean(), 6)}


def clipped_bce(clean, other):
    p = np.clip(other.astype(np.float64), 1e-7, 1 - 1e-7)
    return digits(-np.mean(clean * np.log(p) + (1 - clean) * np.log(1 - p)), 6)


def baselines(clean, noisy):
    from scipy.ndimage import gaussian_filter, median_filter

    images = {
        "noisy": noisy,
        "median 3x3": median_filter(noisy, size=(1, 3, 3)),
        "gaussian 0.9": gaussian_filter(noisy, sigma=(0, 0.9, 0.9)),
    }
    return {k: {**quality(clean, v), "bce_clipped": clipped_bce(clean, v)} for k, v in images.items()}


def run(seed, mnist, epochs):
    import keras
    import tensorflow as tf
    from keras_golden import build

    train, test = scale(read_images(mnist, "train")), scale(read_images(mnist, "t10k"))
    train, held_out = train[:TRAIN], train[TRAIN:]
    noisy_test = add_noise(test, TEST_NOISE_SEED)
    noisy_held_out = add_noise(held_out, VALIDATION_NOISE_SEED)
    noisy_train = add_noise(train, seed)
    ssim_check = check_ssim(test, noisy_test)

    keras.utils.set_random_seed(seed)
    model = build(keras)
    model.compile(optimizer=keras.optimizers.Adam(1e-3), loss="binary_crossentropy")

    class Plateau(keras.callbacks.Callback):
        """The batch's loss from the running mean that Keras hands out."""

        step, in_epoch, total, left = 0, 0, 0.0, None

        def on_epoch_begin(self, epoch, logs=None):
            self.in_epoch, self.total = 0, 0.0

        def on_train_batch_end(self, batch, logs=None):
            self.step += 1
            self.in_epoch += 1
            total = logs["loss"] * self.in_epoch
            if self.left is None and total - self.total < 0.2:
                self.left = self.step
            self.total = total

    class Judge(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            self.start = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            seconds = time.perf_counter() - self.start
            # the metrics' running state is the training's: evaluate resets it, so take the loss first
            loss = float(logs["loss"])
            output = model.predict(noisy_test[..., None], batch_size=256, verbose=0)[..., 0]
            row = {
                "epoch": epoch + 1,
                "loss": digits(loss, 6),
                "val_loss": digits(evaluate(noisy_held_out, held_out), 6),
                **quality(test, output),
                "bce": digits(evaluate(noisy_test, test), 6),
                "seconds": digits(seconds, 4),
                "images_per_second": round(TRAIN / seconds),
            }
            print(f"seed {seed}", row, flush=True)
            rows.append(row)

    def evaluate(x, y):
        return model.evaluate(x[..., None], y[..., None], batch_size=256, verbose=0)

    rows = []
    plateau = Plateau()
    model.fit(
        noisy_train[..., None],
        train[..., None],
        batch_size=128,
        epochs=epochs,
        verbose=0,
        callbacks=[plateau, Judge()],
    )
    versions = {
        "python": ".".join(map(str, sys.version_info[:3])),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "numpy": np.__version__,
    }
    result = {"seed": seed, "plateau_steps": plateau.left, "epochs": rows}
    return versions, result, ssim_check, baselines(test, noisy_test)


def table(reference):
    print("| run | epoch | PSNR dB | SSIM | BCE | loss | val. loss | s | images/s | plateau |")
    print("| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |")
    for name, b in reference["baselines"].items():
        print(f"| {name} | | {b['psnr']:.2f} | {b['ssim']:.3f} | ({b['bce_clipped']:.3f}) | | | | | |")
    for r in reference["runs"]:
        for e in r["epochs"]:
            left = r["plateau_steps"] if e["epoch"] == 1 else ""
            print(
                f"| seed {r['seed']} | {e['epoch']} | {e['psnr']:.2f} | {e['ssim']:.3f} | {e['bce']:.4f} "
                f"| {e['loss']:.4f} | {e['val_loss']:.4f} | {e['seconds']:.0f} | {e['images_per_second']} | {left} |"
            )
    for m in reference["mean"]:
        print(f"| mean of {m['seeds']} | {m['epoch']} | {m['psnr']:.2f} | {m['ssim']:.3f} | {m['bce']:.4f} | | {m['val_loss']:.4f} | | | |")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_mnist_argument(parser)
    parser.add_argument("--out", type=Path, default=HERE / "keras_reference.json")
    parser.add_argument("--seed", type=int)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()

    old = json.loads(args.out.read_text()) if args.out.exists() else {"runs": []}
    if args.seed is None:
        return table(old) if old["runs"] else parser.error("no runs yet: give a --seed")

    versions, result, ssim_check, base = run(args.seed, args.mnist, args.epochs)
    runs = sorted([r for r in old["runs"] if r["seed"] != args.seed] + [result], key=lambda r: r["seed"])
    mean = []
    for i in range(min(len(r["epochs"]) for r in runs)):
        rows = [r["epochs"][i] for r in runs]
        mean.append({"epoch": i + 1, "seeds": len(rows), "images_seen": TRAIN * (i + 1)})
        for key in ("psnr", "ssim", "bce", "val_loss"):
            mean[-1][key] = digits(np.mean([row[key] for row in rows]), 6)
    reference = {
        "about": "made by keras_reference.py; see its docstring",
        "versions": versions,
        "machine": f"{os.cpu_count()} cores, {platform.machine()}, no GPU; shared with other work, so seconds vary",
        "setting": {
            "noise": NOISE,
            "train_images": TRAIN,
            "test_images": 10_000,
            "batch": 128,
            "learning_rate": 1e-3,
            "test_noise_seed": TEST_NOISE_SEED,
        },
        "ssim_off_from_skimage": digits(ssim_check, 3),
        "baselines": base,
        "mean": mean,
        "runs": runs,
    }
    write_json(args.out, reference)
    table(reference)


if __name__ == "__main__":
    main()
