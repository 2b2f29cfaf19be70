"""A module in training: its optimizer, its running average, its checkpoint."""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from tqdm import tqdm

CHECKPOINT_SECONDS = 60

Trained = TypeVar("Trained", bound=nn.Module)


@dataclass(frozen=True)
class Budget:
    """What a stage may spend: optimizer steps where given, else minutes of training."""

    minutes: float
    steps: int | None = None

    def spent(self, step: int, seconds: float) -> float:
        """The part of the budget that is used up; 1 and above is all of it."""
        if self.steps is not None:
            return step / self.steps if self.steps else 1.0
        return seconds / (60 * self.minutes) if self.minutes else 1.0


class Stage(Generic[Trained]):
    """One module in training, with the running average of its weights and its checkpoint.

    The loss is computed by a bfloat16 copy, the optimizer keeps the weights in float32.
    """

    def __init__(self, module: Trained, checkpoint: Path, peak: float) -> None:
        self.module, self.checkpoint, self.peak = module, checkpoint, peak
        self.average = copy.deepcopy(module).eval().requires_grad_(False)
        self.working = copy.deepcopy(module).train().to(torch.bfloat16)
        self.optimizer = torch.optim.AdamW(
            module.parameters(), lr=peak, betas=(0.9, 0.99), weight_decay=0.01, fused=True
        )
        self.step, self.seconds = 0, 0.0
        if checkpoint.exists():
            self._load()

    def run(self, loss_of: Callable[[Trained], Tensor], budget: Budget, seed: int) -> Trained:
        """Minimise `loss_of(module)` until the budget is spent; returns the averaged module."""
        torch.manual_seed(seed + self.step)
        self._refresh()
        saved, first, loss_mean = time.monotonic(), self.step, 0.0
        with tqdm(total=100, desc=self.checkpoint.stem, unit="%") as bar:
            while (spent := budget.spent(self.step, self.seconds)) < 1:
                begun = time.monotonic()
                loss = self._update(loss_of, spent)
                loss_mean += (loss - loss_mean) * max(0.01, 1 / (self.step - first + 1))
                self.step += 1
                self.seconds += time.monotonic() - begun
                bar.n = min(100, round(100 * spent, 1))
                bar.set_postfix(step=self.step, loss=f"{loss_mean:.4f}")
                if time.monotonic() - saved > CHECKPOINT_SECONDS:
                    self._save()
                    saved = time.monotonic()
        self._save()
        return self.average

    def _update(self, loss_of: Callable[[Trained], Tensor], spent: float) -> float:
        for group in self.optimizer.param_groups:
            group["lr"] = self.peak * learning_rate_factor(self.step, spent)
        loss = loss_of(self.working)
        loss.backward()  # type: ignore[no-untyped-call]
        for weight, worked in self._pairs():
            if worked.grad is not None:
                weight.grad, worked.grad = worked.grad.float(), None
        nn.utils.clip_grad_norm_(self.module.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self._refresh()
        decay = min(0.999, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            pairs = zip(self.average.parameters(), self.module.parameters(), strict=True)
            for average, weight in pairs:
                average.lerp_(weight, 1 - decay)
        return loss.item()

    @torch.no_grad()
    def _refresh(self) -> None:
        for weight, worked in self._pairs():
            worked.copy_(weight)

    def _pairs(self) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
        return zip(self.module.parameters(), self.working.parameters(), strict=True)

    def _save(self) -> None:
        state = {
            "module": self.module.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "step": self.step,
            "seconds": self.seconds,
        }
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(state, partial)
        os.replace(partial, self.checkpoint)

    def _load(self) -> None:
        state = torch.load(self.checkpoint, weights_only=True)
        self.module.load_state_dict(state["module"])
        self.average.load_state_dict(state["average"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds = state["step"], state["seconds"]


def learning_rate_factor(step: int, spent: float) -> float:
    """Warm up over 200 steps, hold, then from half of the budget on decay to a hundredth."""
    warm = min(1.0, (step + 1) / 200)
    return float(warm * 0.01 ** max(0.0, 2 * spent - 1))
