"""The joining rules: which denoiser calls may share one forward, and how their rows are joined.

A rule belongs to a denoiser's class (`table.py`). It says of what kind each argument is
(`kinds.py`); from that come a key (calls with equal keys may share), the joined call, and its parts
(`rule.py`). A denoiser without a rule runs alone in each call, which is always right.
"""

from diffusion_engine.rules.outputs import join_outputs, split_output
from diffusion_engine.rules.rule import Cuts, JoiningRule
from diffusion_engine.rules.table import rule_for

__all__ = ["Cuts", "JoiningRule", "join_outputs", "rule_for", "split_output"]
