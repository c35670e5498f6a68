"""Figures for places that are narrower than a page of print."""

from __future__ import annotations

import io

PAGE_WIDTH = 960
"""Pixels that a page of a web interface has room for."""


def narrowed(png: bytes, *, width: int = PAGE_WIDTH) -> bytes:
    """A PNG of at most `width` pixels across, in 256 colours; height in proportion, never enlarged."""
    from PIL import Image

    picture = Image.open(io.BytesIO(png)).convert("RGB")
    if picture.width > width:
        picture = picture.resize((width, round(picture.height * width / picture.width)), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    picture.quantize(256).save(buffer, format="png", optimize=True)
    return buffer.getvalue()
