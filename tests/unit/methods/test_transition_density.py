import math

import numpy as np
import torch

from methods.networks.transition_density import TransitionDensity
from methods.objectives.transition_density import diagonal_log_density, log_mean_density, within_reach


def test_the_log_density_of_a_diagonal_gaussian() -> None:
    # z = (1, −2): −½ (1 + 4) − (ln 2 + ln ½) − ln 2π
    y, mean = torch.tensor([3.0, 0.0]).double(), torch.tensor([1.0, 1.0]).double()
    log_std = torch.tensor([2.0, 0.5]).double().log()
    torch.testing.assert_close(
        diagonal_log_density(y, mean, log_std), torch.tensor(-2.5 - math.log(2 * math.pi)).double()
    )


def test_every_member_must_find_the_candidate_likelier_than_the_mean_finds_what_followed() -> None:
    real = torch.tensor([[0.2], [0.6]]).log()  # mean 0.4
    candidates = torch.tensor([[0.41, 0.39, 0.9], [0.9, 0.9, 0.41]]).log()  # smallest 0.41, 0.39, 0.41
    assert within_reach(candidates, real).tolist() == [True, False, True]
    torch.testing.assert_close(log_mean_density(real).exp(), torch.tensor([0.4]))


def test_densities_that_no_float_holds_are_compared_all_the_same() -> None:
    real = torch.tensor([[-5000.0], [-4000.0]])
    assert within_reach(torch.tensor([[-4000.5], [-3999.0]]), real).item()
    assert not within_reach(torch.tensor([[-4000.8], [-3999.0]]), real).item()  # ln mean = −4000 − ln 2


def test_members_are_apart_and_their_deviations_bounded() -> None:
    module = TransitionDensity(3, 8, [np.random.default_rng(0), np.random.default_rng(1)], members=2)
    x = torch.randn(1, 5, 3).expand(4, 5, 3)
    mean, log_std = module(x)
    assert mean.shape == log_std.shape == (4, 5, 3)
    assert not torch.allclose(mean[0], mean[1])
    with torch.no_grad():
        module.net.layers[-1].bias[:] = 100.0
    assert module(x)[1].max() == 2.0
    with torch.no_grad():
        module.net.layers[-1].bias[:] = -100.0
    assert module(x)[1].min() == -20.0
    hidden = [layer.weight.shape[-1] for layer in module.net.layers]
    assert hidden == [8, 8, 8, 8, 6]
