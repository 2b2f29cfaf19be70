"""The emoji the demonstration pipeline is trained on, and the score of a drawing against them.

The pictures are the colour bitmaps of Noto Emoji, the names are Unicode's own, lower-cased.
"""

import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

FONT = Path("/usr/share/fonts/truetype/noto/NotoColorEmoji.ttf")
FONT_PACKAGE = "fonts-noto-color-emoji"
PICTURE_SIZE = 64
SCORE_SIZE = 32

_BITMAP_SIZE = 109
_CODE_POINTS = (range(0x231A, 0x3040), range(0x1F000, 0x1FB00))
_ZODIAC = {*range(0x2648, 0x2654), 0x26CE}
_SYMBOL_WORDS = frozenset(
    ["arrow", "button", "cross", "dash", "emblem", "entry", "keycap", "loop", "mark", "mode"]
) | {"sign", "source", "squared", "symbol"}


@dataclass(frozen=True)
class EmojiSet:
    """Named emoji: `pictures` is uint8 [n, 64, 64, 3] on white, row `i` is called `names[i]`."""

    names: tuple[str, ...]
    pictures: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.names)

    def nearest(self, picture: Image.Image, count: int = 5) -> list[str]:
        """The names of the `count` emoji nearest to `picture`, nearest first.

        Distance is L2 between RGB pixels, both sides composited on white and brought to 32×32.
        """
        distance = np.square(self._pixels - _pixels([picture])).sum(axis=1)
        return [self.names[i] for i in np.argsort(distance, kind="stable")[:count]]

    @cached_property
    def _pixels(self) -> NDArray[np.float32]:
        return _pixels(map(Image.fromarray, self.pictures))


def load_emoji(max_words: int | None = 2, symbols: bool = False, font: Path = FONT) -> EmojiSet:
    """Draw every emoji of the font whose name has at most `max_words` words (None: any number).

    Names which denote a symbol or an arrow are left out unless `symbols` is true.

    Raises:
        FileNotFoundError: the font is not installed; the message names its Debian package.
    """
    if not font.is_file():
        raise FileNotFoundError(f"{font} is missing: install the Debian package {FONT_PACKAGE}")
    bitmaps = ImageFont.truetype(font, _BITMAP_SIZE, layout_engine=ImageFont.Layout.BASIC)
    pictures: dict[str, NDArray[np.uint8]] = {}
    seen: set[bytes] = set()
    for name, character in _named_characters(bitmaps):
        if max_words is not None and len(name.split()) > max_words:
            continue
        if not symbols and is_symbol(name, character):
            continue
        pixels = np.asarray(draw_emoji(character, bitmaps))
        # A few code points share one bitmap; the second name would be a question with two answers.
        if pixels.tobytes() not in seen and not _is_blank(pixels):
            seen.add(pixels.tobytes())
            pictures[name] = pixels
    return EmojiSet(tuple(pictures), np.stack(list(pictures.values())))


def is_symbol(name: str, character: str) -> bool:
    """Whether a name stands for a symbol or an arrow rather than for a thing."""
    return ord(character) in _ZODIAC or not _SYMBOL_WORDS.isdisjoint(name.split())


def draw_emoji(character: str, bitmaps: ImageFont.FreeTypeFont) -> Image.Image:
    """One emoji on white, RGB, 64×64, in the middle of its square."""
    left, top, right, bottom = (int(edge) for edge in bitmaps.getbbox(character))
    side = max(right - left, bottom - top)
    corner = ((side - right - left) // 2, (side - bottom - top) // 2)
    canvas = Image.new("RGB", (side, side), "white")
    ImageDraw.Draw(canvas).text(corner, character, font=bitmaps, embedded_color=True)
    return canvas.resize((PICTURE_SIZE, PICTURE_SIZE), Image.Resampling.LANCZOS)


def on_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, whatever was transparent now white."""
    rgba = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def contact_sheet(
    pictures: Sequence[Image.Image], names: Sequence[str], columns: int, scale: int = 2
) -> Image.Image:
    """The pictures in rows of `columns`, enlarged `scale` times, each above its name."""
    side, margin, text_height = PICTURE_SIZE * scale, 8, 16
    cell = (side + 2 * margin, side + text_height + margin)
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * cell[0], rows * cell[1] + margin), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=12)
    for i, (picture, name) in enumerate(zip(pictures, names, strict=True)):
        left, top = i % columns * cell[0], i // columns * cell[1] + margin
        enlarged = picture.resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(enlarged, (left + margin, top))
        draw.text((left + cell[0] / 2, top + side + 1), name, fill="black", font=font, anchor="ma")
    return sheet


def _named_characters(bitmaps: ImageFont.FreeTypeFont) -> Iterator[tuple[str, str]]:
    for code_point in (code_point for block in _CODE_POINTS for code_point in block):
        character = chr(code_point)
        name = unicodedata.name(character, None)
        if name is None:
            continue
        left, top, right, bottom = bitmaps.getbbox(character)
        if left < right and top < bottom:
            yield name.lower(), character


def _is_blank(pixels: NDArray[np.uint8]) -> bool:
    return bool(pixels.min() == pixels.max())


def _pixels(pictures: Iterable[Image.Image]) -> NDArray[np.float32]:
    small = [
        on_white(picture).resize((SCORE_SIZE, SCORE_SIZE), Image.Resampling.BOX)
        for picture in pictures
    ]
    return np.stack([np.asarray(picture, np.float32).ravel() / 255 for picture in small])
