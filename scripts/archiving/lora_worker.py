"""Run by adapters.py in a process of its own: LoRA files into an archive's own form.

diffusers reads them, in whatever way they were saved (its own, PEFT's, kohya's), into the
pipeline's models without their weights; what it puts into their layers is what is kept.
"""

from __future__ import annotations

import json
import logging
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from diffusion_core.adapters import AdapterSettings
from diffusion_core.errors import ConfigError
from diffusion_engine.adapters import Adapter, LowRank, require_bounds, write_adapter

_NAME = "adapter"

# How the names of the two factors end, in the words of diffusers' present and past.
_ENDS = re.compile(
    r"(?:\.lora|_lora|\.lora_linear_layer|)(?:[._](?P<down>A|down)|[._](?P<up>B|up))\.weight$"
)


def main() -> None:
    """Reads an order from stdin; writes a file for each adapter, or names what is wrong."""
    order = json.load(sys.stdin)
    import diffusers

    # What it says of an error would be taken for this program's own last words.
    diffusers.utils.logging.set_verbosity(logging.CRITICAL)
    pipeline = without_weights(Path(order["pipeline"]))
    settings = AdapterSettings.model_validate(order["settings"])
    adapters = {}
    for name, source in settings.files.items():
        try:
            adapters[name] = read_lora(pipeline, Path(source))
        except ConfigError as error:
            sys.exit(f"adapter {name}: {error.message}")
    try:
        require_bounds(adapters, settings, getattr(torch, order["dtype"]))
    except ConfigError as error:
        sys.exit(error.message)
    for name, adapter in adapters.items():
        write_adapter(adapter, Path(order["targets"][name]))


def without_weights(folder: Path) -> Any:
    """The pipeline in `folder`, with models that have their layers and no weights."""
    import diffusers

    index = json.loads((folder / "model_index.json").read_bytes())
    kind = getattr(diffusers, index["_class_name"])
    taking = getattr(kind, "_lora_loadable_modules", ())
    parts = {
        name: _without_weights(folder / name, *value, taking=name in taking)
        for name, value in index.items()
        if isinstance(value, list) and value[0] is not None and _has_weights(folder / name)
    }
    return kind.from_pretrained(folder, local_files_only=True, **parts)


def _has_weights(home: Path) -> bool:
    return any(path.suffix == ".safetensors" for path in home.iterdir())


def _without_weights(home: Path, library: str, name: str, *, taking: bool) -> Any:
    """A model with its layers, or None for one that takes no LoRA."""
    import diffusers
    import transformers
    from accelerate import init_empty_weights

    if not taking:
        return None
    kind = getattr(transformers if library == "transformers" else diffusers, name)
    with init_empty_weights():
        if library == "transformers":
            model = kind(kind.config_class.from_pretrained(home))
        else:
            model = kind.from_config(kind.load_config(home))
    # A LoRA goes where its model is and would be lost on no device; memory that nobody writes to
    # is only addresses.
    return model.to_empty(device="cpu")


def read_lora(pipeline: Any, source: Path) -> Adapter:
    """The LoRA in the file `source` as `pipeline` has it in its layers.

    Raises `ConfigError` where the pipeline takes none, or does not take all of it.
    """
    if not hasattr(pipeline, "load_lora_weights"):
        raise ConfigError(f"{type(pipeline).__name__} takes no LoRA")
    read = pipeline.lora_state_dict
    found: list[Any] = []

    def noted(*args: Any, **kwargs: Any) -> Any:
        result = read(*args, **kwargs)
        found.append(result[0] if isinstance(result, tuple) else result)
        return result

    pipeline.lora_state_dict = noted
    try:
        pipeline.load_lora_weights(
            str(source.parent),
            weight_name=source.name,
            adapter_name=_NAME,
            low_cpu_mem_usage=True,
            local_files_only=True,
        )
        adapter = Adapter(
            {
                name: layers
                for name, model in pipeline.components.items()
                if isinstance(model, torch.nn.Module) and (layers := dict(_layers(name, model)))
            }
        )
    except (ValueError, RuntimeError, LookupError, TypeError, AttributeError) as error:
        strange = _strange(_named(found[0]), pipeline) if found else []
        hint = f"; the pipeline has no layer {strange[0]}" if strange else ""
        raise ConfigError(f"diffusers cannot read {source.name}: {_reason(error)}{hint}") from None
    finally:
        del pipeline.lora_state_dict
        pipeline.unload_lora_weights()
    named = _named(found[0])
    missing = len(named) - sum(map(len, adapter.layers.values()))
    if missing > 0:
        # Text encoders lose some of older files without a word; their layers are there.
        strange = _strange(named, pipeline) or sorted(named)
        raise ConfigError(
            f"names {missing} layers that the pipeline does not have or take, {strange[0]} for one"
        )
    return adapter


def _layers(component: str, model: torch.nn.Module) -> Iterator[tuple[str, LowRank]]:
    from peft.tuners.lora import Conv2d, Linear
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in model.named_modules():
        if not isinstance(module, BaseTunerLayer):
            continue
        place = f"{component}.{name}"
        if not isinstance(module, (Linear, Conv2d)):
            raise ConfigError(f"{place}: is a {type(module).__name__}, not a low-rank layer")
        if module.use_dora.get(_NAME) or module.lora_variant.get(_NAME):
            raise ConfigError(f"{place}: is a DoRA or another variant of LoRA, which is not served")
        down, up = module.lora_A[_NAME], module.lora_B[_NAME]
        if up.bias is not None:
            raise ConfigError(f"{place}: has a bias beside its low-rank weights")
        yield name, LowRank(down.weight.detach(), up.weight.detach(), float(module.scaling[_NAME]))


def _named(state: dict[str, Any]) -> set[str]:
    """Layers that the file has both factors for; `ConfigError` where it has only one."""
    ends = [(key, found) for key in state if (found := _ENDS.search(key))]
    named = {key[: end.start()] for key, end in ends if end["down"]}
    halves = named ^ {key[: end.start()] for key, end in ends if end["up"]}
    if halves:
        raise ConfigError(f"has only one of two factors for {min(halves)}")
    return named


def _strange(named: set[str], pipeline: Any) -> list[str]:
    """Those of the layers that the pipeline's models do not have, by the names they have today."""
    known = {
        f"{component}.{name}"
        for component, model in pipeline.components.items()
        if isinstance(model, torch.nn.Module)
        for name, _ in model.named_modules()
    }
    # Older libraries put these into the names.
    return sorted(
        name
        for name in named
        if name.replace("processor.", "").replace("text_model.", "") not in known
    )


def _reason(error: Exception) -> str:
    """In one line, and not in the words of an exception, which would be all that is passed on."""
    return " ".join(str(error).split())[:300].replace("Error(s)", "errors") or type(error).__name__


if __name__ == "__main__":
    main()
