"""The emoji set: what is in it, and that scoring finds a picture among its own."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import emoji_data

needs_font = pytest.mark.skipif(
    not emoji_data.FONT.is_file(), reason=f"needs the Debian package {emoji_data.FONT_PACKAGE}"
)


@pytest.fixture(scope="module")
def emoji() -> emoji_data.EmojiSet:
    return emoji_data.load_emoji()


@needs_font
def test_counts(emoji: emoji_data.EmojiSet) -> None:
    assert len(emoji) > 750
    assert emoji.pictures.shape == (len(emoji), 64, 64, 3)
    assert emoji.pictures.dtype == np.uint8


@needs_font
def test_names_are_short_unique_and_name_things(emoji: emoji_data.EmojiSet) -> None:
    assert len(set(emoji.names)) == len(emoji)
    assert all(name == name.lower() and 1 <= len(name.split()) <= 2 for name in emoji.names)
    assert {"cat", "hot dog", "rocket"} <= set(emoji.names)
    assert not {"registered sign", "squared ok", "leo", "cross mark"} & set(emoji.names)


@needs_font
def test_pictures_are_distinct_and_on_white(emoji: emoji_data.EmojiSet) -> None:
    assert len({picture.tobytes() for picture in emoji.pictures}) == len(emoji)
    assert np.median(emoji.pictures[:, 0, 0]) == 255


@needs_font
def test_longer_names_and_symbols_on_request(emoji: emoji_data.EmojiSet) -> None:
    everything = emoji_data.load_emoji(max_words=None, symbols=True)
    assert set(emoji.names) < set(everything.names)
    assert "face with cowboy hat" in everything.names


@needs_font
def test_every_picture_is_nearest_to_itself(emoji: emoji_data.EmojiSet) -> None:
    for name, picture in list(zip(emoji.names, emoji.pictures, strict=True))[::20]:
        assert emoji.nearest(Image.fromarray(picture), 1) == [name]


@needs_font
def test_nearest_survives_noise_and_size_and_orders_names(emoji: emoji_data.EmojiSet) -> None:
    at = emoji.names.index("rocket")
    noise = np.random.default_rng(0).normal(0, 20, emoji.pictures[at].shape)
    noisy = np.clip(emoji.pictures[at] + noise, 0, 255).astype(np.uint8)
    nearest = emoji.nearest(Image.fromarray(noisy).resize((128, 128)), 5)
    assert nearest[0] == "rocket"
    assert len(set(nearest)) == 5


def test_transparency_becomes_white() -> None:
    clear = Image.new("RGBA", (8, 8), (10, 20, 30, 0))
    assert emoji_data.on_white(clear).getpixel((4, 4)) == (255, 255, 255)


def test_missing_font_names_its_package(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=emoji_data.FONT_PACKAGE):
        emoji_data.load_emoji(font=tmp_path / "absent.ttf")
