"""The image processor of the tiny test model; copied into its folder, where transformers loads it from.

The resize rule must give the very number of tokens that vLLM counts: it is that
of `smart_resize` in vLLM's paddleocr_vl.py (Apache-2.0), written anew.
"""

import math

import numpy as np
from PIL import Image
from transformers.feature_extraction_utils import BatchFeature
from transformers.image_processing_utils import BaseImageProcessor


class TinyImageProcessor(BaseImageProcessor):
    model_input_names = ("pixel_values", "image_grid_thw")

    def __init__(self, min_pixels, max_pixels, patch_size, merge_size, image_mean, image_std, size=None, **others):
        super().__init__(**others)
        # vLLM reads and overrides either form.
        self.size = {"min_pixels": min_pixels, "max_pixels": max_pixels} | (size or {})
        self.min_pixels, self.max_pixels = self.size["min_pixels"], self.size["max_pixels"]
        self.patch_size, self.merge_size, self.temporal_patch_size = patch_size, merge_size, 1
        self.image_mean, self.image_std = image_mean, image_std

    def __call__(self, images, **options):
        return self.preprocess(images, **options)

    def preprocess(self, images, min_pixels=None, max_pixels=None, return_tensors=None, **_):
        images = [image for entry in _list(images) for image in _list(entry)]
        pages = [self._patches(image, min_pixels or self.min_pixels, max_pixels or self.max_pixels) for image in images]
        pixels = np.concatenate([patches for patches, _ in pages])
        grids = np.array([grid for _, grid in pages], dtype=np.int64)
        return BatchFeature({"pixel_values": pixels, "image_grid_thw": grids}, tensor_type=return_tensors)

    def _patches(self, image, least, most):
        """The picture as normalised patches [n, 3, patch, patch], and their grid: time, rows, columns."""
        if not isinstance(image, Image.Image):
            image = Image.fromarray(np.asarray(image).astype("uint8"))
        width, height = self._target(*image.size, least, most)
        colours = np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC), dtype=np.float32) / 255
        colours = ((colours - self.image_mean) / self.image_std).astype(np.float32)
        side, rows, columns = self.patch_size, height // self.patch_size, width // self.patch_size
        patches = colours.reshape(rows, side, columns, side, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, side, side)
        return patches, [1, rows, columns]

    def _target(self, width, height, least, most):
        """Both sides multiples of a token's, their product within the limits, nearly the same shape."""
        unit = self.patch_size * self.merge_size
        if height < unit:
            width, height = round(width * unit / height), unit
        if width < unit:
            width, height = unit, round(height * unit / width)
        rows, columns = round(height / unit), round(width / unit)
        if rows * columns * unit**2 > most:
            shrink = math.sqrt(height * width / most)
            rows, columns = math.floor(height / shrink / unit), math.floor(width / shrink / unit)
        elif rows * columns * unit**2 < least:
            grow = math.sqrt(least / (height * width))
            rows, columns = math.ceil(height * grow / unit), math.ceil(width * grow / unit)
        return columns * unit, rows * unit


def _list(value):
    return value if isinstance(value, list | tuple) else [value]
