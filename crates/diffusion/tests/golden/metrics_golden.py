#!/usr/bin/env python3
"""Golden numbers of the picture metrics and the two classic filters.

    pip install -r requirements-golden.txt
    python metrics_golden.py [--mnist FOLDER] [--out metrics_golden.json]

Made with Python 3.11, NumPy 2.4.6, SciPy 1.17.1, scikit-image 0.26.0.

Images: the first four of the MNIST test split (clean, stored as bytes in
hexadecimal) and the noisy ones of golden_common.py (hash, stream 100): the same
as in keras_golden.json. Both are float32 values, taken to float64 before
anything is computed (scikit-image would compute in float32 otherwise; what it
then gets for SSIM is under ssim_float32, for comparison).

PSNR   skimage.metrics.peak_signal_noise_ratio, data_range 1: 10 log10(1 / MSE).
SSIM   skimage.metrics.structural_similarity with its defaults and data_range 1:
       windows of 7x7, all weights alike; K1 = 0.01, K2 = 0.03; variances and
       covariance with the sample's divisor (48, not 49); the mean over the
       22x22 windows that lie wholly inside the image, so borders do not matter.
median scipy.ndimage.median_filter, size 3; gaussian scipy.ndimage.gaussian_filter,
       sigma 0.9, truncated at int(4 * 0.9 + 0.5) = 4 pixels, weights normalised.
       Both continue the image by "reflect" (d c b a | a b c d | d c b a: the
       border pixel itself is repeated).

Layout of the JSON
------------------
images       count, clean_hex, noise_stream, noisy_first, noisy_sum
noisy        psnr (4), ssim (4), psnr_mean, ssim_mean, ssim_float32 (4)
median       of noisy image 0: image (784), psnr, ssim against clean image 0
gaussian     the same, and weights (the nine of one axis)
other        a clean image against another, 0 with 1: psnr, ssim
same         an image against itself: ssim 1 (its PSNR is infinite)
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import scipy
import skimage
from scipy.ndimage import gaussian_filter, gaussian_filter1d, median_filter
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from golden_common import (
    NOISE_STREAM,
    add_mnist_argument,
    digits,
    hash_noisy,
    read_images,
    rounded,
    scale,
    write_json,
)

HERE = Path(__file__).resolve().parent
IMAGES = 4


def psnr(clean, other):
    return float(peak_signal_noise_ratio(clean, other, data_range=1.0))


def ssim(clean, other):
    return float(structural_similarity(clean, other, data_range=1.0))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    add_mnist_argument(parser)
    parser.add_argument("--out", type=Path, default=HERE / "metrics_golden.json")
    args = parser.parse_args()

    images = read_images(args.mnist, "t10k")[:IMAGES]
    clean32 = scale(images)
    noisy32 = hash_noisy(clean32)
    clean, noisy = clean32.astype(np.float64), noisy32.astype(np.float64)

    psnrs = [psnr(a, b) for a, b in zip(clean, noisy)]
    ssims = [ssim(a, b) for a, b in zip(clean, noisy)]
    median = median_filter(noisy[0], size=3)
    blurred = gaussian_filter(noisy[0], sigma=0.9)
    point = np.zeros(9)
    point[4] = 1.0

    def filtered(image):
        return {
            "psnr": digits(psnr(clean[0], image), 12),
            "ssim": digits(ssim(clean[0], image), 12),
            "image": rounded(image, 9),
        }

    golden = {
        "about": "made by metrics_golden.py; see its docstring for definitions and layout",
        "versions": {
            "python": ".".join(map(str, sys.version_info[:3])),
            "numpy": np.__version__,
            "scipy": scipy.__version__,
            "scikit-image": skimage.__version__,
        },
        "images": {
            "count": IMAGES,
            "clean_hex": [image.tobytes().hex() for image in images],
            "noise_stream": NOISE_STREAM,
            "noisy_first": rounded(noisy32.ravel()[:8], 9),
            "noisy_sum": digits(np.sum(noisy32, dtype=np.float64), 12),
        },
        "noisy": {
            "psnr": rounded(psnrs, 12),
            "ssim": rounded(ssims, 12),
            "psnr_mean": digits(np.mean(psnrs), 12),
            "ssim_mean": digits(np.mean(ssims), 12),
            "ssim_float32": rounded([ssim(a, b) for a, b in zip(clean32, noisy32)], 9),
        },
        "median": filtered(median),
        "gaussian": {
            "sigma": 0.9,
            "weights": rounded(gaussian_filter1d(point, 0.9, mode="constant"), 12),
            **filtered(blurred),
        },
        "other": {"psnr": digits(psnr(clean[0], clean[1]), 12), "ssim": digits(ssim(clean[0], clean[1]), 12)},
        "same": {"ssim": digits(ssim(clean[0], clean[0]), 12)},
    }
    write_json(args.out, golden)
    print(f"{args.out.name}: {args.out.stat().st_size} bytes")
    for name in ("noisy", "median", "gaussian", "other", "same"):
        print(name, {k: v for k, v in golden[name].items() if k != "image"})


if __name__ == "__main__":
    main()
