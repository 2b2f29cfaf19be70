"""What requests cost, in calls of models: the counts that seconds follow from."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from rig import (
    Asked,
    assert_same_image,
    finish,
    instead,
    mates,
    rig,
    rows_of_calls,
    unlike,
)

from diffusion_engine.prompt_cache import PromptCache

ENCODERS = {"sd": 1, "sdxl": 2}

each_family = pytest.mark.parametrize("family", ["sd", "sdxl"])


@each_family
def test_a_warm_prompt_costs_no_encoder_call(family: str) -> None:
    stage, asked = rig(family), Asked(negative="rain")
    engine = stage.engine()
    counts = engine.forward.counts
    stage.draw(engine, asked)
    assert counts.encoder_calls == 2 * ENCODERS[family]
    stage.draw(engine, replace(asked, seed=2, steps=6, guidance=2.0), replace(asked, images=3))
    assert counts.encoder_calls == 2 * ENCODERS[family]


@each_family
@pytest.mark.parametrize("negative", [None, "", "rain"])
def test_the_usual_negative_prompt_is_encoded_once(family: str, negative: str | None) -> None:
    stage = rig(family)
    engine = stage.engine()
    for number in range(3):
        stage.draw(engine, Asked(prompt=f"cat {number}", negative=negative))
    # SDXL draws without a negative prompt against zeros, not against an empty one.
    negatives = 0 if family == "sdxl" and negative is None else 1
    assert engine.forward.counts.encoder_calls == (3 + negatives) * ENCODERS[family]


def test_prompts_beyond_the_cache_s_bound_are_forgotten_not_wrong() -> None:
    stage = rig("sd")
    engine = stage.engine(cache_bytes=120_000)
    cache = engine.served.prompt_cache
    requests = [Asked(prompt=f"cat {number % 15}", steps=1, seed=number) for number in range(30)]
    for asked in requests:
        (images,) = stage.draw(engine, asked)
        assert_same_image(images, stage.solo(asked))
        assert 0 < cache.bytes <= cache.max_bytes
    assert engine.forward.counts.encoder_calls > 16


def test_the_cache_counts_every_byte_it_holds() -> None:
    cache = PromptCache(100_000)
    for number in range(50):
        cache.put(number, {"a": torch.zeros(1000), "b": (torch.zeros(500), None)})
        assert cache.bytes == sum(size for _, size, _ in cache._entries.values())
        assert cache.bytes <= 100_000
    assert 49 in cache._entries
    assert 0 not in cache._entries
    cache.put("too large", torch.zeros(1_000_000))
    assert cache.get("too large") is None


def test_an_output_that_was_written_to_is_not_given_out_again() -> None:
    cache, output = PromptCache(1 << 20), torch.zeros(4)
    cache.put("key", output)
    assert cache.get("key") is output
    output += 1
    assert cache.get("key") is None
    assert cache.bytes == 0


@pytest.mark.parametrize("value", [1, 1.0, True, "1", None, (1,), torch.tensor(1)])
def test_arguments_that_only_look_alike_have_keys_of_their_own(value: object) -> None:
    values = [1, 1.0, True, "1", None, (1,), torch.tensor(1)]
    key = PromptCache.key("text_encoder", (value,), {})
    equal = [PromptCache.key("text_encoder", (other,), {}) == key for other in values]
    assert sum(equal) == 1


@each_family
def test_one_call_serves_rows_that_differ_in_everything(family: str) -> None:
    stage = rig(family)
    company = [asked for task in ("text-to-image", "inpainting") for asked in unlike(task)[::2]]
    calls = []
    for asked in company:
        engine = stage.engine()
        stage.draw(engine, asked)
        calls.append(engine.forward.counts.denoiser_calls)
    engine = stage.engine(cap=sum(asked.rows for asked in company))
    stage.draw(engine, *company)
    counts = engine.forward.counts
    # All ride along until the longest is done: no call more, no row more.
    assert counts.denoiser_calls == max(calls)
    assert counts.denoiser_rows == sum(
        asked.rows * number for asked, number in zip(company, calls, strict=True)
    )
    assert counts.padded_rows == counts.splits == 0


def test_who_joins_midway_shares_the_very_next_call() -> None:
    stage = rig("sd")
    engine = stage.engine()
    stage.draw(engine, Asked(prompt="warm"))
    with rows_of_calls(stage) as rows:
        engine.submit(stage.job(Asked(prompt="warm", steps=6)))
        for _ in range(2):
            engine.step()
        engine.submit(stage.job(Asked(prompt="warm", steps=2, guidance=1.0)))
        finish(engine)
    assert rows == [2, 2, 3, 3, 2, 2]


def test_pictures_of_another_size_take_turns() -> None:
    stage = rig("sd")
    engine = stage.engine()
    company = [Asked(steps=3), Asked(steps=3, size=48), Asked(steps=3, seed=4)]
    drawn = stage.draw(engine, *company)
    assert engine.forward.counts.denoiser_calls == 6
    for asked, images in zip(company, drawn, strict=True):
        assert_same_image(images, stage.solo(asked))


def test_pictures_are_decoded_one_request_at_a_time() -> None:
    stage = rig("sd")
    engine = stage.engine()
    decoded: list[int] = []

    def counted(original, latents, *args, **kwargs):
        decoded.append(latents.shape[0])
        return original(latents, *args, **kwargs)

    company = [Asked(seed=number, images=number, steps=3) for number in (1, 2, 3)]
    with instead(stage.vae, "decode", counted):
        stage.draw(engine, *company)
    assert sorted(decoded) == [1, 2, 3]
    assert engine.forward.counts.decoder_calls == 3


def test_shares_of_the_time_add_up() -> None:
    stage = rig("sd")
    ticks = iter(range(1_000_000))
    engine = stage.engine(clock=lambda: float(next(ticks)))
    tickets = [engine.submit(stage.job(asked)) for asked in mates(Asked(steps=5))]
    finish(engine)
    spent = sum(ticket.future.result().device_seconds for ticket in tickets)
    assert spent == pytest.approx(engine.forward.counts.seconds)


def test_nothing_is_kept_from_step_to_step_when_idle() -> None:
    stage = rig("sd")
    engine = stage.engine()
    stage.draw(engine, *mates(Asked()))
    assert engine.step() is False
    assert all(rule is None or not rule._joined for rule in engine.served.rules.values())
