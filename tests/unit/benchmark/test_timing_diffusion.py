import math

import pytest
import torch

from benchmark.timing import diffusion, few_steps


@pytest.mark.slow
def test_the_group_at_toy_size(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PAPER": 16, "QUICK": 8, "BATCH": 2, "SEEDS": 2}.items():
        monkeypatch.setattr(diffusion, name, value)
    toy = {
        "EPISODES": 8,
        "WIDTH": 8,
        "UPDATES": 2,
        "SEGMENTS": 4,
        "STEPS": 26,
        "SAMPLERS": (("ddim", 2), ("dpmpp_2m", 25)),
    }
    for name, value in toy.items():
        monkeypatch.setattr(few_steps, name, value)
    before = torch.get_float32_matmul_precision()
    taken = {measurement.name: measurement for measurement in diffusion.measure("cpu")}
    assert torch.get_float32_matmul_precision() == before
    assert all(math.isfinite(m.value) and m.value > 0 for m in taken.values())
    targets = {name: m.target for name, m in taken.items() if m.target is not None}
    assert targets == {
        "diffusion/train/width 16: speed-up": 1.2,
        "diffusion/train/width 8: speed-up": 10.0,
        "diffusion/sample/H = 8: speed-up": 2.2,
        "diffusion/few steps/ddim 2: speed-up": 8.0,
    }
    assert 0 < taken["diffusion/few steps/ddpm 26 against itself: distance"].value < 1
