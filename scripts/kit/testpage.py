"""A small page whose reading shows that the whole service works: layout, VLM, reply. Needs Pillow alone."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageDraw, ImageFont

HEADING, LINE = "Health check", "This page was made by a machine to see whether reading works."
WORD = "health"  # read by PaddleOCR-VL and the preview; another model may misread it and still serve


def page() -> bytes:
    """The page, a small PNG: a heading and one line."""
    image = Image.new("RGB", (900, 320), "white")
    draw = ImageDraw.Draw(image)
    draw.text((60, 60), HEADING, "black", font=ImageFont.load_default(56))
    draw.text((60, 190), LINE, "black", font=ImageFont.load_default(26))
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
