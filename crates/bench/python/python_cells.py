"""What notebooks 1 and 4 do up to their pictures, as a Python lesson would: Keras, numpy, matplotlib."""

IMPORTS = """import os
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
%matplotlib inline
import keras
import matplotlib.pyplot as plt
import numpy as np
"""
LOAD = """def idx(name, skip):
    return np.fromfile("MNIST/" + name, np.uint8)[skip:]

train = idx("train-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) / np.float32(255)
test = idx("t10k-images-idx3-ubyte", 16).reshape(-1, 28, 28, 1) / np.float32(255)
labels = idx("t10k-labels-idx1-ubyte", 8)
ten = np.stack([test[labels == digit][0] for digit in range(10)])
"""
GRID = """fig, axes = plt.subplots(1, 10, figsize=(8, 1))
for ax, image in zip(axes, ten):
    ax.imshow(image[..., 0], cmap="gray")
    ax.axis("off")
plt.show()
"""
# The lesson's network; what its weights are makes no difference to the time.
MODEL = """layers = keras.layers
model = keras.Sequential([
    keras.Input((28, 28, 1)),
    layers.Conv2D(16, 3, activation="relu", padding="same"),
    layers.Conv2D(32, 3, activation="relu", padding="same"),
    layers.Flatten(),
    layers.Dense(64, activation="relu"),
    layers.Dense(28 * 28 * 32, activation="relu"),
    layers.Reshape((28, 28, 32)),
    layers.Conv2DTranspose(32, 3, activation="relu", padding="same"),
    layers.Conv2DTranspose(16, 3, activation="relu", padding="same"),
    layers.Conv2D(1, 3, activation="sigmoid", padding="same"),
])
"""
ROWS = """noise = 0.5

rng = np.random.default_rng(1)
noisy = np.clip(ten + noise * rng.standard_normal(ten.shape, np.float32), 0, 1)
denoised = model.predict(noisy, verbose=0)
fig, axes = plt.subplots(3, 10, figsize=(8, 2.6))
for row, images in zip(axes, (ten, noisy, denoised)):
    for ax, image in zip(row, images):
        ax.imshow(image[..., 0], cmap="gray")
        ax.axis("off")
plt.show()
"""


def cells(mnist):
    """Notebook 1's cells as texts, notebook 4's as (text, tags)."""
    load = LOAD.replace("MNIST/", f"{mnist}/")
    return {
        "first": [IMPORTS, load + GRID],
        "denoise": [(IMPORTS, []), (load + MODEL, []), (ROWS, ["noise-factor"])],
    }
