"""The app's icon: a lens in a dark field, drawn here."""

from __future__ import annotations

from io import BytesIO

from PIL import Image, ImageDraw

DARK, RING, GLASS, SHINE = (17, 20, 23), (241, 243, 245), (11, 99, 196), (125, 184, 255)
DRAWN = 4
"""So many times larger it is drawn, and made smaller then: its edges are smooth."""


def icon(side: int) -> bytes:
    """A square PNG; all that matters lies in the circle of four fifths that every launcher shows."""
    large = side * DRAWN
    picture = Image.new("RGB", (large, large), DARK)
    pen = ImageDraw.Draw(picture)
    for share, colour in ((0.30, RING), (0.24, DARK), (0.205, GLASS)):
        reach = share * large
        pen.ellipse([large / 2 - reach, large / 2 - reach, large / 2 + reach, large / 2 + reach], fill=colour)
    x, y, reach = 0.43 * large, 0.42 * large, 0.055 * large
    pen.ellipse([x - reach, y - reach, x + reach, y + reach], fill=SHINE)
    file = BytesIO()
    small = picture.resize((side, side), Image.Resampling.LANCZOS).quantize(64)
    small.save(file, "PNG", optimize=True)
    return file.getvalue()
