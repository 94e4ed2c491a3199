"""What trainers on sequences have in common: padding has no part, targets are copies, a stored one goes on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from methods.algorithms.training import restore, stored_parts
from methods.base import Run
from methods.data.sequences import SequenceBatch
from tests.unit.methods.plain import padded_further, poisoned_behind
from tests.unit.methods.small_trainers import ACTIONS, SHAPES, SMALL, datasets, made, sequences, small

Told = list[Tensor]
Losses = Callable[[Any, SequenceBatch], tuple[Sequence[Tensor], Told]]


def of_omar(trainer: Any, batch: SequenceBatch) -> tuple[Sequence[Tensor], Told]:
    seen = trainer.view(batch)
    of_critics = trainer.critic_losses(seen, trainer.targets(batch, seen), slice(None))
    return [of_critics.loss, trainer.actor_loss(batch, seen)], []


def of_icq(trainer: Any, batch: SequenceBatch) -> tuple[Sequence[Tensor], Told]:
    seen = trainer.view(batch)
    return [trainer.critic_loss(seen), trainer.policy_loss(batch, seen)[0]], []


def of_td3bc(trainer: Any, batch: SequenceBatch) -> tuple[Sequence[Tensor], Told]:
    seen = trainer.view(batch)
    loss, q = trainer.critic_loss(batch, seen)
    return [loss, trainer.actor_loss(batch, seen)], [q]


def of_omiga(trainer: Any, batch: SequenceBatch) -> tuple[Sequence[Tensor], Told]:
    found = trainer.losses(batch)
    return found[:3], list(found[3:])


def by_name(trainer: Any, batch: SequenceBatch) -> tuple[Sequence[Tensor], Told]:
    found, told = trainer.losses(batch)
    return found, [told[name] for name in sorted(told)]


LOSSES: dict[str, Losses] = {"omar": of_omar, "icq": of_icq, "td3bc": of_td3bc, "omiga": of_omiga}
"""What a trainer lowers, (R,) each, and what it tells; those not named here are asked for both at once."""


def weights(net: nn.Module) -> Tensor:
    return torch.cat([p.detach().flatten() for p in net.parameters()])


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("name", SMALL)
def test_padding_changes_nothing(name: str, shape: str) -> None:
    """Neither losses nor what is told nor any gradient, whatever it holds and however much of it there is.

    Draws are the same, for each is made by a trainer in the same state.
    """
    trainer, batch = made(name, shape)
    assert not batch.valid.all()

    def found(given: SequenceBatch) -> tuple[list[Tensor], list[list[Tensor | None]]]:
        own = copy.deepcopy(trainer)
        parameters = [p for net in vars(own).values() if isinstance(net, nn.Module) for p in net.parameters()]
        changed = [p for p in parameters if p.requires_grad]
        losses, told = LOSSES.get(name, by_name)(own, given)
        gradients = [torch.autograd.grad(x.sum(), changed, retain_graph=True, allow_unused=True) for x in losses]
        assert all(any(g is not None for g in of_loss) for of_loss in gradients)
        return [*losses, *told], [list(of_loss) for of_loss in gradients]

    values, gradients = found(batch)
    for other in (
        poisoned_behind(batch, ~batch.valid),
        padded_further(batch, 3),
        padded_further(poisoned_behind(batch, ~batch.valid, ACTIONS - 1), 2),
    ):
        other_values, other_gradients = found(other)
        torch.testing.assert_close(other_values, values)
        for mine, theirs in zip(gradients, other_gradients, strict=True):
            for one, two in zip(mine, theirs, strict=True):
                assert (one is None) == (two is None)
                if one is not None:
                    torch.testing.assert_close(two, one)


FOLLOWERS: dict[str, list[tuple[str, str]]] = {
    "omar": [("target_agent", "agent"), ("target_critics", "critics")],
    "cfcql": [("target", "team")],
    "icq": [("target", "critic")],
    "qmix-cql": [("target", "team")],
    "qmix-bcq": [("target", "team")],
    "bcq": [("target", "values")],
}
"""Of the learners whose targets are copies now and then: which network is one of which."""


@pytest.mark.parametrize("name", FOLLOWERS)
def test_targets_are_copied_every_so_many_updates_and_rest_between(name: str) -> None:
    learner, data = small(name, target_every=3), datasets("discrete")
    trainer, same = learner.new_trainer(data, Run(seeds=(0, 1))), []
    pairs = [(getattr(trainer, target), getattr(trainer, net)) for target, net in FOLLOWERS[name]]
    first = [weights(target) for target, _ in pairs]
    assert all(torch.equal(weights(target), weights(net)) for target, net in pairs)
    for done, batch in enumerate(sequences(learner, data, 6), start=1):
        trainer.update(batch)
        assert trainer.done == done
        same.append([torch.equal(weights(target), weights(net)) for target, net in pairs])
        if done < 3:
            assert all(torch.equal(weights(target), old) for (target, _), old in zip(pairs, first, strict=True))
    assert same == [[done % 3 == 0] * len(pairs) for done in range(1, 7)]


@pytest.mark.parametrize("memory", ["gru", "none"])
@pytest.mark.parametrize("name", SMALL)
def test_a_stored_trainer_goes_on_as_the_one_it_was(name: str, memory: str) -> None:
    """With its targets, which were moved once, moments and draws."""
    config: dict[str, Any] = {"memory": memory, **({"target_every": 2} if name in FOLLOWERS else {})}
    trainer, batch = made(name, **config)
    for _ in range(2):
        trainer.update(batch)
    other, _ = made(name, **config)
    restore(other, stored_parts(trainer))
    assert other.done == 2
    for each in (trainer, other, trainer, other):
        each.update(batch)
    mine, theirs = trainer.parts().tensors, other.parts().tensors
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(tensor, theirs[key]) for key, tensor in mine.items())
