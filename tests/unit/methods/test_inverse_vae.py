"""The inverse model against plain loops in float64."""

import numpy as np
import torch

from methods.networks.inverse_vae import InverseVAE
from tasks.spec import ActionSpec


def model(kind: str, size: int, low: float = -1.0, high: float = 1.0) -> InverseVAE:
    action = ActionSpec(kind=kind, size=size, low=low, high=high)  # type: ignore[arg-type]
    return InverseVAE(6, action, 2, 7, [np.random.default_rng(0), np.random.default_rng(1)]).double()


def by_hand(net: torch.nn.Module, x: np.ndarray, g: int) -> np.ndarray:
    parameters = [p.detach().numpy()[g] for p in net.parameters()]
    for i in range(0, len(parameters), 2):
        x = x @ parameters[i] + parameters[i + 1][0]
        x = np.maximum(x, 0) if i < len(parameters) - 2 else x
    return x


def test_the_loss_of_continuous_actions() -> None:
    vae, rng = model("continuous", 3), np.random.default_rng(2)
    seen, noise = rng.normal(size=(2, 4, 6)), rng.normal(size=(2, 4, vae.latent))
    actions = rng.uniform(-1, 1, size=(2, 4, 2, 3))
    assert vae.latent == 12  # twice the joint action
    found = vae.losses(torch.tensor(seen), torch.tensor(actions), torch.tensor(noise))
    for g in range(2):
        squares, divergences = [], []
        for b in range(4):
            code = by_hand(vae.encoder, np.concatenate([seen[g, b], actions[g, b].ravel()]), g)
            mean, log_std = code[:12], code[12:].clip(-4, 15)
            raw = by_hand(vae.decoder, np.concatenate([seen[g, b], mean + np.exp(log_std) * noise[g, b]]), g)
            squares.append((np.tanh(raw) - actions[g, b].ravel()) ** 2)
            divergences.append(0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std)
        np.testing.assert_allclose(found[g].item(), 0.5 * (np.mean(squares) + np.mean(divergences)), rtol=1e-10)


def test_the_loss_of_discrete_actions_is_a_cross_entropy_over_what_is_available() -> None:
    vae, rng = model("discrete", 3), np.random.default_rng(3)
    seen, noise = rng.normal(size=(2, 1, 6)), rng.normal(size=(2, 1, vae.latent))
    available = np.array([[True, True, False], [True, True, True]])[None, None].repeat(2, axis=0)
    actions = np.array([[0, 1, 0], [0, 0, 1]], dtype=np.float64)[None, None].repeat(2, axis=0)
    found = vae.losses(torch.tensor(seen), torch.tensor(actions), torch.tensor(noise), torch.tensor(available))
    for g in range(2):
        code = by_hand(vae.encoder, np.concatenate([seen[g, 0], actions[g, 0].ravel()]), g)
        mean, log_std = code[:12], code[12:].clip(-4, 15)
        raw = by_hand(vae.decoder, np.concatenate([seen[g, 0], mean + np.exp(log_std) * noise[g, 0]]), g).reshape(2, 3)
        first = -np.log(np.exp(raw[0, 1]) / np.exp(raw[0, :2]).sum())
        second = -np.log(np.exp(raw[1, 2]) / np.exp(raw[1]).sum())
        divergence = (0.5 * (mean**2 + np.exp(2 * log_std) - 1) - log_std).mean()
        np.testing.assert_allclose(found[g].item(), 0.5 * ((first + second) / 2 + divergence), rtol=1e-10)


def test_decoded_actions_are_within_the_bounds_or_available() -> None:
    seen, rng = torch.randn(2, 50, 6).double(), np.random.default_rng(4)
    box = model("continuous", 3, low=-0.4, high=1.0)
    actions = box.decode(seen, 30 * torch.randn(2, 50, box.latent).double())
    assert actions.shape == (2, 50, 2, 3)
    assert actions.min() >= -0.4
    assert actions.max() <= 1.0
    assert actions.max() > 0.9  # stretched, not clipped to [−1, 1]
    choice = model("discrete", 3)
    available = torch.from_numpy(rng.random((2, 50, 2, 3)) < 0.4)
    available[..., 1] = True
    chosen = choice.decode(seen, torch.randn(2, 50, choice.latent).double(), available)
    assert available.gather(-1, chosen[..., None]).all()
