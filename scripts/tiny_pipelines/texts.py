"""Tiny tokenizers and text encoders. CLIP's embeddings are 32 wide, all others' 64."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

_SPECIAL = ("<pad>", "</s>", "<s>", "<unk>")
_CHAT = "{% for message in messages %}user: {{ message.content }}\n{% endfor %}assistant:"

CLIP_WIDTH = 32
WIDTH = 64


def clip_tokenizer(limit: int = 77) -> Any:
    """A CLIPTokenizer over bytes, with no merges: every text has tokens."""
    from transformers import CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    letters = list(bytes_to_unicode().values())
    words = [*letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    with tempfile.TemporaryDirectory() as folder:
        vocabulary, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocabulary.write_text(json.dumps({word: number for number, word in enumerate(words)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(str(vocabulary), str(merges), model_max_length=limit)


def byte_tokenizer(limit: int = 512) -> Any:
    """A fast tokenizer over bytes that closes a text with `</s>`, and knows a chat template."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary = {word: number for number, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", vocabulary["</s>"])]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        **dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), _SPECIAL, strict=True)),
        model_max_length=limit,
        chat_template=_CHAT,
    )


def text_encoder(name: str) -> Any:
    """A text encoder of the transformers class `name`; `KeyError` if none is known here."""
    import transformers

    config, settings = ENCODERS[name]
    built = getattr(transformers, _OF_A_BASE_CLASS.get(name, name))(
        getattr(transformers, config)(**settings)
    )
    return built.eval()


def _clip() -> Mapping[str, Any]:
    return {
        "vocab_size": 514,
        "hidden_size": CLIP_WIDTH,
        "intermediate_size": 37,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "max_position_embeddings": 77,
        "projection_dim": CLIP_WIDTH,
        "bos_token_id": 512,
        "eos_token_id": 513,
        "pad_token_id": 513,
        "hidden_act": "gelu",
    }


def _t5() -> Mapping[str, Any]:
    return {
        "vocab_size": 320,
        "d_model": WIDTH,
        "d_kv": 16,
        "d_ff": 64,
        "num_layers": 2,
        "num_heads": 4,
        "dense_act_fn": "gelu_new",
        "feed_forward_proj": "gated-gelu",
    }


def _decoder_only() -> dict[str, Any]:
    return {
        "vocab_size": 320,
        "hidden_size": WIDTH,
        "intermediate_size": 64,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
    }


def _qwen_vl() -> dict[str, Any]:
    text = _decoder_only()
    del text["head_dim"]
    text["rope_scaling"] = {
        "rope_type": "default",
        "type": "default",
        "mrope_section": [2, 2, 4],
        "rope_theta": 1e6,
    }
    vision = {
        "depth": 1,
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
    }
    tokens = {f"{name}_token_id": 3 for name in ("image", "video", "vision_start", "vision_end")}
    return {"text_config": text, "vision_config": vision, **tokens}


ENCODERS: dict[str, tuple[str, Mapping[str, Any]]] = {
    "CLIPTextModel": ("CLIPTextConfig", _clip()),
    "CLIPTextModelWithProjection": ("CLIPTextConfig", _clip()),
    "T5EncoderModel": ("T5Config", _t5()),
    "UMT5EncoderModel": ("UMT5Config", _t5()),
    "BertModel": (
        "BertConfig",
        {
            "vocab_size": 320,
            "hidden_size": WIDTH,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
        },
    ),
    "GemmaPreTrainedModel": ("GemmaConfig", _decoder_only()),
    "Gemma2PreTrainedModel": ("Gemma2Config", _decoder_only()),
    "Qwen2_5_VLForConditionalGeneration": ("Qwen2_5_VLConfig", _qwen_vl()),
    "Qwen3Model": ("Qwen3Config", _decoder_only()),
    "PreTrainedModel": ("Qwen3Config", _decoder_only()),
    "Qwen3ForCausalLM": ("Qwen3Config", _decoder_only()),
    "GlmModel": ("GlmConfig", _decoder_only()),
}

# What a pipeline's signature calls by a base class, as the released models fill it.
_OF_A_BASE_CLASS = {
    "GemmaPreTrainedModel": "GemmaModel",
    "Gemma2PreTrainedModel": "Gemma2Model",
    "PreTrainedModel": "Qwen3Model",
}

TOKENIZERS: dict[str, Callable[[], Any]] = {
    "CLIPTokenizer": clip_tokenizer,
    **dict.fromkeys(
        (
            "T5Tokenizer",
            "BertTokenizer",
            "GemmaTokenizer",
            "Qwen2Tokenizer",
            "AutoTokenizer",
        ),
        byte_tokenizer,
    ),
}
