"""Seeds by hashing: the same everywhere, different for different paths."""

from __future__ import annotations

from tasks.common.seeding import derive_seed, make_generator


def test_a_seed_is_the_same_on_every_machine() -> None:
    assert derive_seed("learner", "bc", 3) == 5841721720207680865  # first 8 bytes of sha256sum, halved


def test_paths_do_not_run_into_each_other() -> None:
    seeds = {
        derive_seed("a", "b"),
        derive_seed("ab"),
        derive_seed("a", "b", 0),
        derive_seed("a", 0, "b"),
        derive_seed("1"),
    }
    assert derive_seed(1) not in seeds
    assert len(seeds) == 5


def test_generators_repeat_and_differ() -> None:
    first, again, other = (make_generator("noise", seed).normal(size=4).tolist() for seed in (0, 0, 1))
    assert first == again != other
