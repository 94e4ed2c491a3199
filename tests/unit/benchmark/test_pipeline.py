from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmark.artefacts import ArtefactStore
from benchmark.keys import STAGES
from benchmark.pipeline import run_group
from benchmark.plans import plan_group
from benchmark.protocols import Mix
from benchmark.provenance import Origin
from benchmark.records import RunRecord
from benchmark.stages import augmentation, datasets
from benchmark.stages.context import Context
from benchmark.stages.policies import load_states, mixed
from methods.base import LearnedPolicy, Run
from tasks.datasets.offline import OfflineDataset
from tests.unit.benchmark.conftest import RunSmoke, smoke_group


def comparable(record: RunRecord) -> dict[str, object]:
    return record.model_dump(exclude={"timings", "provenance"})


def count(store: ArtefactStore) -> dict[str, int]:
    return {stage: sum(1 for _ in store.stored(stage)) for stage in STAGES}


def test_a_group_gives_one_full_record_a_replicate(run_smoke: RunSmoke, store: ArtefactStore) -> None:
    records = run_smoke(augmenter="rad-s", learner="bc")
    assert [(record.cell.seed, record.status) for record in records] == [(0, "ok"), (1, "ok")]
    first = records[0]
    assert first.evaluation is not None
    assert len(first.evaluation.returns) == first.evaluation.episodes == 8
    assert first.scores["return"] == pytest.approx(np.mean(first.evaluation.returns))
    assert first.scores["normalised"] == pytest.approx(
        float(plan_group(smoke_group()).spec.score_references.normalise(np.float64(first.scores["return"])))  # type: ignore[union-attr,arg-type]
    )
    assert [(point.updates, point.episodes) for point in first.evaluation.curve] == [(6, 4), (12, 4)]
    assert first.dataset_summary["episodes"] == 16
    assert first.dataset_summary["synthetic_share"] == 0.5
    assert set(first.timings) == {"dataset", "augmented", "policy", "evaluation"}
    assert first.timings["policy"].together == 2
    assert all((timing.peak_memory_bytes or 0) > 0 and not timing.cached for timing in first.timings.values())
    assert records[0].artefacts.augmented != records[1].artefacts.augmented
    assert count(store)["policy"] == 2


def test_a_second_run_finds_everything_and_gives_the_same_records(run_smoke: RunSmoke) -> None:
    first, again = run_smoke(), run_smoke()
    assert [comparable(record) for record in first] == [comparable(record) for record in again]
    assert all(timing.cached for record in again for timing in record.timings.values())
    costs = [
        {stage: timing.wall_seconds for stage, timing in record.timings.items()} for record in (first[0], again[0])
    ]
    assert costs[0] == costs[1]  # what making it took when it was made


def test_a_record_names_the_source_that_made_it_not_the_one_that_found_it(
    run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_smoke()[0]
    monkeypatch.setattr("benchmark.choices.source_digest", lambda module: "edited since")
    again = run_smoke()[0]
    assert first.learner == again.learner
    assert first.augmenter == again.augmenter


def test_a_second_learner_reuses_data_and_augmentation(run_smoke: RunSmoke, store: ArtefactStore) -> None:
    run_smoke(learner="bc")
    before = count(store)
    (record, _) = run_smoke(learner="bc50")
    assert record.timings["augmented"].cached
    assert not record.timings["policy"].cached
    assert count(store)["augmented"] == before["augmented"] == 2


def test_seeds_together_equal_seeds_alone(
    run_smoke: RunSmoke, store: ArtefactStore, origin: Origin, tmp_path: Path
) -> None:
    together = run_smoke(seeds=(0, 1, 2))
    alone: list[RunRecord] = []
    run_group(
        plan_group(smoke_group(seeds=(1,))), Context(store=ArtefactStore(tmp_path / "other")), origin, alone.append
    )
    assert together[1].evaluation is not None
    assert alone[0].evaluation is not None
    np.testing.assert_allclose(together[1].evaluation.returns, alone[0].evaluation.returns, rtol=1e-3)
    assert together[1].artefacts == alone[0].artefacts


def test_a_damaged_dataset_is_recorded_again_bit_for_bit(run_smoke: RunSmoke, store: ArtefactStore) -> None:
    first = run_smoke(augmenter="original")
    (dataset,) = [a for a in store.stored("dataset") if a.digest == first[0].artefacts.dataset]
    content = (dataset.folder / "data.safetensors").read_bytes()
    (dataset.folder / "data.safetensors").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    second = run_smoke(augmenter="original", learner="bc50")
    assert second[0].status == "ok"
    assert (dataset.folder / "data.safetensors").read_bytes() == content


def test_more_real_data_is_new_for_every_replicate(run_smoke: RunSmoke, store: ArtefactStore) -> None:
    run_smoke(augmenter="more-real-data", dataset="random[fraction=0.5]")
    plan = plan_group(smoke_group(augmenter="more-real-data", dataset="random[fraction=0.5]"))
    dataset = store.find(plan.dataset_key)
    assert dataset is not None
    original = datasets.load(dataset, plan.spec)
    extras = []
    for seed in (0, 1):
        key = plan.augmented_key(seed)
        artefact = store.find(key) if key else None
        assert artefact is not None
        extras.append(augmentation.load(artefact, original))
    firsts = [
        {episode.tobytes() for episode in data.observations[data.row_starts[:-1]]} for data in (original, *extras)
    ]
    assert original.n_episodes == 8
    assert [len(starts) for starts in firsts[1:]] == [8, 8]  # same volume, no episode twice
    assert not firsts[0] & firsts[1]
    assert not firsts[0] & firsts[2]
    assert not firsts[1] & firsts[2]


def test_what_a_method_sees_has_no_privileged_column(run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    method = plan_group(smoke_group()).augmenter.method_class
    generate = method.generate

    def spy(self: object, data: OfflineDataset, run: Run) -> OfflineDataset:
        seen.append(data.behaviour is None)
        return generate(self, data, run)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "generate", spy)
    run_smoke(seeds=(0,))
    monkeypatch.setattr(method, "privileged", True)
    run_smoke(seeds=(1,))
    assert seen == [True, False]


@pytest.mark.parametrize(("protocol", "kept"), [("smoke", 16), ("smoke[mix=replace]", 0)])
def test_what_a_learner_sees(run_smoke: RunSmoke, monkeypatch: pytest.MonkeyPatch, protocol: str, kept: int) -> None:
    """Nothing privileged, no further real data; the original set apart, so that inputs are scaled by it alone."""
    seen: list[tuple[Sequence[OfflineDataset], Run]] = []
    method = plan_group(smoke_group()).learner.method_class
    fit = method.fit

    def spy(self: object, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        seen.append((data, run))
        return fit(self, data, run)  # type: ignore[arg-type]

    monkeypatch.setattr(method, "fit", spy)
    for augmenter in ("original", "rad-s"):
        run_smoke(augmenter=augmenter, protocol=protocol)
    (plain, plain_run), (augmented, run) = seen
    assert plain_run.seeds == run.seeds
    assert plain_run.original_episodes == (16, 16)
    assert run.original_episodes == (kept, kept)
    for data, one in ((plain, plain_run), (augmented, run)):
        assert one.extra_data is None
        assert one.original is not None
        assert one.original.behaviour is None
        np.testing.assert_array_equal(one.original.observations, plain[0].observations)
        assert all(d.behaviour is None for d in data)
    assert [d.n_episodes for d in plain] == [16, 16]
    assert [d.n_episodes for d in augmented] == [kept + 16, kept + 16]
    assert not np.array_equal(augmented[0].observations, augmented[1].observations)  # a set of its own each


def test_scores_use_the_mean_of_the_data_and_the_deciles_of_expert_data(
    run_smoke: RunSmoke, store: ArtefactStore
) -> None:
    (record, _) = run_smoke(augmenter="original")
    plan, value = plan_group(smoke_group(dataset="exp")), record.scores["return"]
    experts, own = (store.find(plan_group(smoke_group(dataset=name)).dataset_key) for name in ("exp", "random"))
    assert experts is not None
    assert own is not None
    low, high = np.percentile(datasets.load(experts, plan.spec).returns(), [10, 90])
    assert record.scores["madits"] == pytest.approx(100 * (value - low) / (high - low))
    mean, references = datasets.load(own, plan.spec).returns().mean(), plan.spec.score_references
    assert references is not None
    assert record.scores["codi"] == pytest.approx((value - mean) / (references.expert_return - mean))


def test_a_trained_augmenter_is_fitted_once_for_its_variants(
    run_smoke: RunSmoke, store: ArtefactStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    method, fits = plan_group(smoke_group()).augmenter.method_class, []
    monkeypatch.setattr(method, "trains", True)
    monkeypatch.setattr(method, "generation_fields", frozenset({"low"}))

    def fit(self: Any, data: OfflineDataset, run: Run) -> None:
        fits.append(run.seeds)
        self.number = len(fits)

    monkeypatch.setattr(method, "fit", fit)
    monkeypatch.setattr(method, "state", lambda self: {"w": np.array([self.number])})
    loaded: list[int] = []
    monkeypatch.setattr(method, "load_state", lambda self, arrays, spec: loaded.append(int(arrays["w"][0])))
    (record, *_) = run_smoke()
    assert "fit" in record.timings
    run_smoke(augmenter="rad-s[low=0.5]")
    assert len(fits) == 2
    assert loaded == [1, 2, 1, 2]  # the first to generate goes the same way as those that find the fit
    assert count(store)["fit"] == 2


def test_points_of_the_curve_are_copies_of_weights_that_go_on_changing(
    run_smoke: RunSmoke, store: ArtefactStore, misbehaving: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = plan_group(smoke_group(learner="bad-learner-diverges"))
    method = plan.learner.method_class

    def fit(self: Any, data: Sequence[OfflineDataset], run: Run) -> LearnedPolicy:
        values = np.zeros(len(data), dtype=np.float32)
        policy = self.policy(values, data[0].spec)  # whose state is a view of `values`
        for updates in (5, 10):
            values += 0.1
            run.snapshot(updates, policy)
        return policy  # type: ignore[no-any-return]

    monkeypatch.setattr(method, "fit", fit)
    (record, _) = run_smoke(learner="bad-learner-diverges")
    assert record.evaluation is not None
    assert [point.updates for point in record.evaluation.curve] == [5, 10]
    policy = store.find(plan.policy_key(0))
    assert policy is not None
    curve, final = load_states(policy)
    assert (curve[5]["value"][0], final["value"][0]) == pytest.approx((0.1, 0.2))


def test_mixes(small: OfflineDataset) -> None:
    synthetic = small.take([0, 1])
    assert mixed(small, None, Mix("replace")) == (small, small.n_episodes)
    assert mixed(small, OfflineDataset.empty(small.spec), Mix("replace")) == (small, small.n_episodes)
    assert mixed(small, synthetic, Mix("replace")) == (synthetic, 0)
    union, originals = mixed(small, synthetic, Mix())
    assert (union.n_episodes, originals) == (small.n_episodes + 2, small.n_episodes)
    np.testing.assert_array_equal(union.returns()[-2:], small.returns()[:2])
    assert mixed(small, synthetic, Mix("upsample", 5))[0].n_episodes == small.n_episodes + 10


@pytest.fixture
def small() -> OfflineDataset:
    from benchmark.checks import sample_dataset

    return sample_dataset("continuous", episodes=4)


def test_records_are_json_without_nan(run_smoke: RunSmoke) -> None:
    for record in run_smoke():
        json.loads(record.model_dump_json(), parse_constant=lambda name: pytest.fail(name))
