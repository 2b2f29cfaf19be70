"""What the installed diffusers and transformers know, read without importing torch.

Importing diffusers takes seconds and more memory than all the rest of the archiver.

A pipeline's class tells which components it needs (its `__init__`), which may be left out
(`_optional_components`) and what it can be asked for (its `__call__`).
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path

from diffusion_core.errors import ConfigError

_SERVABLE = ("AUTO_TEXT2IMAGE_PIPELINES_MAPPING", "AUTO_INPAINT_PIPELINES_MAPPING")


@dataclass(frozen=True)
class PipelineClass:
    """The signature of a diffusers pipeline class.

    Attributes:
        call_defaults: numbers that its call takes where nobody names one.
    """

    name: str
    components: frozenset[str]
    required: frozenset[str]
    call_parameters: frozenset[str]
    call_defaults: Mapping[str, float]
    takes_images: bool


def servable_class(name: str) -> PipelineClass:
    """The text-to-image or inpainting pipeline class `name`; `ConfigError` says why not another.

    An inpainting pipeline is what a checkpoint names whose denoiser sees masks.
    """
    if not any(name in _automatic(mapping).values() for mapping in _SERVABLE):
        raise ConfigError(
            f"{name} is not a text-to-image or inpainting pipeline that diffusers "
            f"{version('diffusers')} knows"
        )
    known = _read_class(name)
    if "Control" in name or "control_image" in known.call_parameters:
        raise ConfigError(
            f"{name} needs a control image with each request, which is not served: give the plain "
            "pipeline handler.controlnets instead"
        )
    if "num_frames" in known.call_parameters:
        raise ConfigError(f"{name} draws videos, not images")
    return known


def require_class(library: str, name: str) -> None:
    """`ConfigError` unless the installed `library` has a class `name`.

    `library` is what model_index.json has: diffusers, transformers, or a folder of
    diffusers' pipelines. Any other would be code that comes with the model.
    """
    if library == "transformers":
        known = _in_transformers(name)
    elif library == "diffusers":
        known = f'"{name}"' in (_root("diffusers") / "__init__.py").read_text(encoding="utf-8")
    else:
        folder = _root("diffusers") / "pipelines" / library
        if not library.isidentifier() or not folder.is_dir():
            raise ConfigError(f"{library} is not a library that pipelines may name")
        known = any(_defines(file, name) for file in folder.glob("*.py"))
    if not known:
        package = "transformers" if library == "transformers" else "diffusers"
        raise ConfigError(f"{package} {version(package)} has no class {name}")


@cache
def _root(package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise ConfigError(f"{package} is not installed: install what requirements.txt names")
    return Path(spec.origin).parent


def _in_transformers(name: str) -> bool:
    """Looks first where the name points (CLIPTextModel: models/clip): an import takes a second."""
    for folder in (_root("transformers") / "models").iterdir():
        if name.lower().startswith(folder.name.replace("_", "")) and any(
            _defines(file, name) for file in folder.glob("*.py")
        ):
            return True
    # Its own table of names, filled without importing torch.
    return name in dir(importlib.import_module("transformers"))


@cache
def _automatic(mapping: str) -> dict[str, str]:
    """One of diffusers' mappings for AutoPipeline: class names by family."""
    tree = ast.parse((_root("diffusers") / "pipelines" / "auto_pipeline.py").read_bytes())
    for node in tree.body:
        if isinstance(node, ast.Assign) and _names(node, mapping):
            assert isinstance(node.value, ast.Call)
            pairs = node.value.args[0]
            assert isinstance(pairs, ast.List)
            return {
                str(pair.elts[0].value): pair.elts[1].id
                for pair in pairs.elts
                if isinstance(pair, ast.Tuple)
                and isinstance(pair.elts[0], ast.Constant)
                and isinstance(pair.elts[1], ast.Name)
            }
    raise ConfigError(f"diffusers {version('diffusers')} has no {mapping}: it is not supported")


def _takes_images(name: str) -> bool:
    """Whether the class, or another of its family, draws over a picture."""
    with_images = _automatic("AUTO_IMAGE2IMAGE_PIPELINES_MAPPING")
    families = _automatic("AUTO_TEXT2IMAGE_PIPELINES_MAPPING")
    sibling = any(kind == name and family in with_images for family, kind in families.items())
    return sibling or name in _automatic("AUTO_INPAINT_PIPELINES_MAPPING").values()


def _names(node: ast.Assign, name: str) -> bool:
    return any(isinstance(target, ast.Name) and target.id == name for target in node.targets)


def _read_class(name: str) -> PipelineClass:
    for file in sorted((_root("diffusers") / "pipelines").glob("**/pipeline_*.py")):
        if _defines(file, name):
            break
    else:
        raise ConfigError(f"diffusers {version('diffusers')} has no class {name}")
    body = next(
        node.body
        for node in ast.walk(ast.parse(file.read_bytes()))
        if isinstance(node, ast.ClassDef) and node.name == name
    )
    components = _parameters(body, "__init__")
    needed = {part for part, default in components.items() if default is None}
    call = _parameters(body, "__call__")
    return PipelineClass(
        name,
        frozenset(components),
        frozenset(needed) - _optional(body),
        frozenset(call),
        _numbers(call),
        _takes_images(name),
    )


def _defines(file: Path, name: str) -> bool:
    return f"\nclass {name}(".encode() in file.read_bytes()


def _parameters(body: list[ast.stmt], method: str) -> dict[str, ast.expr | None]:
    """A method's parameters but self, each with its default; None where it has none."""
    for node in body:
        if isinstance(node, ast.FunctionDef) and node.name == method:
            positional = [argument.arg for argument in node.args.args[1:]]
            keyword = [argument.arg for argument in node.args.kwonlyargs]
            without = len(positional) - len(node.args.defaults)
            defaults = [*[None] * without, *node.args.defaults, *node.args.kw_defaults]
            return dict(zip(positional + keyword, defaults, strict=True))
    return {}


def _numbers(parameters: Mapping[str, ast.expr | None]) -> dict[str, float]:
    return {
        name: default.value
        for name, default in parameters.items()
        if isinstance(default, ast.Constant)
        and isinstance(default.value, int | float)
        and not isinstance(default.value, bool)
    }


def _optional(body: list[ast.stmt]) -> frozenset[str]:
    for node in body:
        if isinstance(node, ast.Assign) and _names(node, "_optional_components"):
            return frozenset(ast.literal_eval(node.value))
    return frozenset()
