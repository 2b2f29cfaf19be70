"""Run by adapters.py in a process of its own: LoRA files into an archive's own form.

diffusers reads them, in whatever way they were saved (its own, PEFT's, kohya's), into the
pipeline's models without their weights; what it puts into their layers is what is kept.
"""

from __future__ import annotations

import json
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

    diffusers.utils.logging.set_verbosity_error()
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
    except (ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"diffusers cannot read {source.name}: {_reason(error)}") from None
    finally:
        del pipeline.lora_state_dict
        pipeline.unload_lora_weights()
    _require_all(found[0], adapter)
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


def _require_all(state: dict[str, Any], adapter: Adapter) -> None:
    """Every factor that the file holds was found: diffusers only warns of those that are not."""
    ends = [(key, found) for key in state if (found := _ENDS.search(key))]
    named = {key[: end.start()] for key, end in ends if end["down"]}
    halves = named ^ {key[: end.start()] for key, end in ends if end["up"]}
    if halves:
        raise ConfigError(f"has only one of two factors for {min(halves)}")
    layers = {
        f"{component}.{name}" for component, layers in adapter.layers.items() for name in layers
    }
    if len(layers) < len(named):
        missing = sorted(name for name in named if _plain(name) not in layers)
        raise ConfigError(
            f"names {len(named) - len(layers)} layers that the pipeline does not have"
            + (f", {missing[0]} for one" if missing else "")
        )


def _plain(name: str) -> str:
    """A layer's name without what older libraries put into it."""
    return name.replace("processor.", "").replace("text_model.", "")


def _reason(error: Exception) -> str:
    """In one line, and not in the words of an exception, which would be all that is passed on."""
    return " ".join(str(error).split())[:300].replace("Error(s)", "errors") or type(error).__name__


if __name__ == "__main__":
    main()
