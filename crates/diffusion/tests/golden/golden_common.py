"""What the golden scripts share: MNIST from its raw files, the integer hash, JSON.

The hash
--------
Everything "random" in the golden numbers comes from one integer formula, so
that nothing big has to be stored and Rust reproduces it bit for bit. For
stream p and flat index i, in unsigned 32-bit arithmetic that wraps:

    h = i * 2654435761 + (p + 1) * 40503 + 12345
    h = (h ^ (h >> 15)) * 2246822519
    h = h ^ (h >> 13)
    u = h / 2^32                       (float64, exact, 0 <= u < 1)

Noisy images use p = 100 and the flat index over all images together:

    clean = float32(byte) / float32(255)
    noisy = float32(clip(float64(clean) + (0.5 * (2u - 1)) * 1.7, 0, 1))

all in float64 but for the first division and the last rounding, in this
order, without fused multiply-add.
"""

import json
import os
import struct
from pathlib import Path

import numpy as np

NOISE_STREAM = 100


def cache_folder():
    """$DIFFUSION_CACHE, else the per-user cache folder, as the lesson has it."""
    if os.environ.get("DIFFUSION_CACHE"):
        return Path(os.environ["DIFFUSION_CACHE"])
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "diffusion-lesson"


def add_mnist_argument(parser):
    parser.add_argument(
        "--mnist",
        type=Path,
        default=cache_folder() / "mnist",
        help="folder with the four raw IDX files (default: mnist in the per-user cache)",
    )


def read_images(folder, split):
    """Bytes of the 'train' or 't10k' images, shape (n, 28, 28)."""
    data = (Path(folder) / f"{split}-images-idx3-ubyte").read_bytes()
    magic, n, rows, cols = struct.unpack(">IIII", data[:16])
    if (magic, rows, cols) != (2051, 28, 28) or len(data) != 16 + n * 784:
        raise SystemExit(f"{split}-images-idx3-ubyte is not an IDX file of 28x28 images")
    return np.frombuffer(data, np.uint8, offset=16).reshape(n, 28, 28)


def scale(images):
    return images.astype(np.float32) / np.float32(255)


def hash_unit(count, stream):
    """u of the docstring above for the indices 0..count."""
    mask = np.uint64(0xFFFFFFFF)
    h = np.arange(count, dtype=np.uint64) * np.uint64(2654435761)
    h = (h + np.uint64((stream + 1) * 40503 + 12345)) & mask
    h = ((h ^ (h >> np.uint64(15))) * np.uint64(2246822519)) & mask
    h = h ^ (h >> np.uint64(13))
    return h.astype(np.float64) / 4294967296.0


def hash_noisy(clean):
    u = hash_unit(clean.size, NOISE_STREAM).reshape(clean.shape)
    noisy = clean.astype(np.float64) + (0.5 * (2.0 * u - 1.0)) * 1.7
    return np.clip(noisy, 0.0, 1.0).astype(np.float32)


def digits(value, n):
    """value rounded to n significant digits."""
    return float(f"{float(value):.{n}g}")


def rounded(values, n=9):
    return [digits(v, n) for v in np.asarray(values).ravel()]


def write_json(path, value):
    """Indented objects, every list of plain values on one line, written whole or not at all."""

    def text(v, pad):
        inner = pad + " "
        if isinstance(v, dict):
            body = ",\n".join(f"{inner}{json.dumps(k)}: {text(w, inner)}" for k, w in v.items())
            return "{\n" + body + "\n" + pad + "}"
        if isinstance(v, list) and any(isinstance(w, (list, dict)) for w in v):
            return "[\n" + ",\n".join(inner + text(w, inner) for w in v) + "\n" + pad + "]"
        return json.dumps(v, separators=(",", ":"), allow_nan=False)

    part = Path(f"{path}.part")
    part.write_text(text(value, "") + "\n")
    part.replace(path)
