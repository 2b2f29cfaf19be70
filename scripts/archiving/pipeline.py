"""A diffusers pipeline folder: its components, and the files of it that an archive needs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from archiving import catalog
from archiving.component import Component, SourceFile, read_component
from archiving.weights import PICKLE_SUFFIXES, Weights, read_json
from diffusion_core.errors import ConfigError

INDEX = "model_index.json"

_NOTICES = ("LICENSE*", "LICENCE*", "NOTICE*", "README*")
_NOTICE_SUFFIXES = frozenset({"", ".md", ".txt"})
_MAX_NOTICE_BYTES = 1 << 20


@dataclass(frozen=True)
class Pipeline:
    """A folder that was read and found whole. `notices` are its licence and README texts."""

    folder: Path
    kind: catalog.PipelineClass
    components: tuple[Component, ...]
    notices: tuple[SourceFile, ...]

    @property
    def files(self) -> Iterator[SourceFile]:
        """Every file that belongs into an archive, by its path inside the pipeline folder."""
        yield SourceFile(INDEX, self.folder / INDEX)
        for component in self.components:
            yield from component.files

    @property
    def has_pickles(self) -> bool:
        """Whether any weights are pickles, which were allowed and must be converted."""
        return any(file.source.suffix in PICKLE_SUFFIXES for file in self.files)

    @property
    def weights(self) -> Weights:
        """All components' weights together."""
        return sum((component.weights for component in self.components), Weights())

    @property
    def default_size(self) -> tuple[int, int] | None:
        """Width and height in pixels where a request names none; None where code decides."""
        denoiser = self.config_of("unet") or self.config_of("transformer")
        side, scale = denoiser.get("sample_size"), self.scale_factor
        height, width = side if isinstance(side, list) and len(side) == 2 else (side, side)
        if scale is None or not isinstance(width, int) or not isinstance(height, int):
            return None
        return width * scale, height * scale

    @property
    def scale_factor(self) -> int | None:
        """Pixels a side of one latent; None where the VAE's config does not tell."""
        blocks = self.config_of("vae").get("block_out_channels")
        return int(2 ** (len(blocks) - 1)) if isinstance(blocks, list) and blocks else None

    @property
    def inpaints_alone(self) -> bool:
        """Whether the denoiser's channels are latents, a mask, and the masked picture's latents."""
        denoiser = self.config_of("unet") or self.config_of("transformer")
        latents = self.config_of("vae").get("latent_channels", 4)
        return bool(denoiser.get("in_channels") == 2 * latents + 1)

    @property
    def licence(self) -> str | None:
        """The licence that the model card's front matter names."""
        for notice in self.notices:
            if notice.path.startswith("README"):
                return _front_matter_licence(notice.source)
        return None

    def config_of(self, name: str) -> dict[str, Any]:
        """A component's config, empty where there is none."""
        return next((part.config for part in self.components if part.name == name), {})


def read_pipeline(
    folder: Path, *, variant: str | None = None, allow_pickle: bool = False
) -> Pipeline:
    """The pipeline in `folder`, checked without loading it; `ConfigError` names file and reason.

    `variant` picks weight files such as `*.fp16.safetensors` where a component has them.
    """
    index_path = folder / INDEX
    if not index_path.is_file():
        raise ConfigError(f"{index_path}: is missing: {folder} is not a diffusers pipeline folder")
    index = read_json(index_path)
    name = index.get("_class_name")
    if not isinstance(name, str):
        raise ConfigError(f"{index_path}: has no _class_name")
    kind = _of(index_path, catalog.servable_class, name)
    named = _named_components(index_path, index, kind)
    components = tuple(
        read_component(folder, part, class_name, variant, allow_pickle)
        for part, class_name in named.items()
    )
    if variant and not any(component.has_variant for component in components):
        raise ConfigError(f"{folder}: no component has weights of variant {variant}")
    return Pipeline(folder, kind, components, tuple(_notices(folder)))


def _named_components(
    index_path: Path, index: dict[str, Any], kind: catalog.PipelineClass
) -> dict[str, str]:
    """Class names by component; each class is known, and no needed component is left out."""
    named = {}
    for part, value in index.items():
        if not isinstance(value, list):
            continue
        if not part.isidentifier():
            raise ConfigError(f"{index_path}: {part!r} cannot be a component's folder")
        if part not in kind.components:
            raise ConfigError(f"{index_path}: {kind.name} takes no component {part}")
        if value == [None, None]:
            continue
        if len(value) != 2 or not all(isinstance(word, str) for word in value):
            raise ConfigError(f"{index_path}: {part} must be a library and a class")
        library, class_name = value
        _of(index_path, catalog.require_class, library, class_name)
        named[part] = class_name
    absent = sorted(kind.required - set(named))
    if absent:
        raise ConfigError(f"{index_path}: names no {absent[0]}, which {kind.name} needs")
    return named


def _of(path: Path, check: Any, *arguments: str) -> Any:
    """A check's result; its error gets the name of the file that asked for it."""
    try:
        return check(*arguments)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error.message}") from None


def _notices(folder: Path) -> Iterator[SourceFile]:
    for path in sorted({path for pattern in _NOTICES for path in folder.glob(pattern)}):
        small = path.is_file() and path.stat().st_size <= _MAX_NOTICE_BYTES
        if small and path.suffix.lower() in _NOTICE_SUFFIXES:
            yield SourceFile(path.name, path)


def _front_matter_licence(card: Path) -> str | None:
    """`license:` of a model card, whose front matter lies between two lines of three dashes."""
    lines = card.read_text(encoding="utf-8", errors="replace").splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    fields = {}
    for line in lines[1:]:
        if line.strip() == "---":
            break
        key, _, value = line.partition(":")
        fields[key.strip()] = value.strip().strip("\"'")
    return fields.get("license_name") or fields.get("license") or None
