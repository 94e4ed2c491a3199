"""Episodes stitched from sampled windows, many slots in one sampler batch (MADiTS, Alg. 1 and 3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from methods.base import Run
from methods.diffusion.known import Known
from methods.synthesis.report import GenerationReport
from methods.synthesis.stitch_ledger import Goal, Ledger, Stitched, TransitionStore
from methods.synthesis.stitch_policy import Jobs, StitchPolicy, Verdict
from tasks.common.errors import MethodError

__all__ = ["AttemptNoise", "Goal", "Stitched", "Stitcher"]

PATIENCE_TICKS, PATIENCE_WINDOWS = 20, 200  # in a row without an accepted one, both, before the engine gives up
PATIENCE_ATTEMPTS, HOPELESS = 1_000, 0.01  # or so many discarded, and fewer than this share finished


class AttemptNoise:
    """Standard normal values, those of each window from the stream of its own attempt: (B, ...) for B generators."""

    def __init__(self, generators: Sequence[np.random.Generator], device: torch.device | str) -> None:
        self._generators, self._device = generators, torch.device(device)

    def __call__(self, shape: tuple[int, ...]) -> Tensor:
        """Values of the shape (B, ...)."""
        values = torch.empty(shape, dtype=torch.float32, pin_memory=self._device.type == "cuda")
        for generator, row in zip(self._generators, values.numpy(), strict=True):
            generator.standard_normal(out=row, dtype=np.float32)
        return values.to(self._device, non_blocking=True)


class Stitcher:
    """Runs a `StitchPolicy` in many slots at once.

    An attempt is one start row and what follows from it. Each has its own random stream (start and noise), and the
    episodes returned are those of the first attempts that together reach the goal: what the sequential algorithm
    gives, whatever the number of slots and however fast single attempts finish.

    Args:
        policy: the method.
        pool: (M, N, D') normalised joint observations that attempts begin from, each as likely as another.
        limit: transitions of the longest episode.
        slots: attempts in flight; decides speed and memory, and nothing else.
        report: filled with the statistics.
    """

    def __init__(
        self, policy: StitchPolicy, pool: Tensor, *, limit: int, report: GenerationReport, slots: int = 1024
    ) -> None:
        self.policy, self.pool, self.limit, self.report, self.slots = policy, pool, limit, report, slots
        device, horizon, row = pool.device, policy.horizon, pool.shape[1:]
        self._attempt = np.full(slots, -1)  # -1: the slot is free
        self._length = np.zeros(slots, dtype=np.int64)
        self._failures = np.zeros(slots, dtype=np.int64)
        self._in_a_row = np.zeros(slots, dtype=np.int64)
        self._kept = np.zeros(slots, dtype=np.int64)  # transitions of a window that waits for its second pass, else 0
        self._current = torch.zeros((slots, *row), device=device)
        self._window = torch.zeros((slots, horizon, *row), device=device)
        self._mask = torch.zeros((slots, horizon, row[0]), dtype=torch.bool, device=device)
        self._condition = torch.zeros(slots, device=device)
        self._generators: list[np.random.Generator] = [np.random.default_rng(0)] * slots  # replaced when a slot is used
        self._store = TransitionStore()
        self._passes = self._second_passes = self._ticks = 0
        self._barren_ticks = self._barren_windows = 0
        self._valid_at = np.zeros(horizon - 1, dtype=np.int64)  # first passes whose prefix reaches beyond a place
        self._usable_at = np.zeros(horizon - 1, dtype=np.int64)

    def run(self, goal: Goal, generator: np.random.Generator, run: Run, owner: str) -> Stitched:
        """Stitches until the goal is reached.

        Raises:
            MethodError: if windows are rejected without end, or nearly all attempts are given up.
            TimeoutError: after the deadline of the run.
        """
        ledger = Ledger(goal, self.limit)
        while not ledger.reached:
            run.report(min(ledger.done, goal.size), goal.size, f"{owner}: {ledger.finished} episodes stitched")
            with self.report.timed("bookkeeping"):
                self._refill(ledger, generator)
                active = np.flatnonzero(self._attempt >= 0)
                jobs = self._jobs(active)
                noise = AttemptNoise([self._generators[slot] for slot in active], self.pool.device)
            with self.report.timed("sampling"):
                windows = self.policy.sample(jobs, noise)
                if windows.is_cuda:
                    torch.cuda.synchronize(windows.device)  # for the clock alone
            with self.report.timed("heads"):
                verdict = self.policy.judge(windows, jobs)
            self._advance(active, jobs, windows, verdict, ledger)
            self._require_progress(ledger, owner)
        run.report(goal.size, goal.size, f"{owner}: {ledger.finished} episodes stitched")
        waiting = (self._kept > 0) & (self._attempt >= 0)
        self._reject(waiting, self._length, "unfinished")
        episodes = self._store.episodes(ledger, self.pool)
        self._tell(ledger, len(episodes.lengths))
        return episodes

    def _refill(self, ledger: Ledger, generator: np.random.Generator) -> None:
        """Begins attempts in free slots, each with a stream of its own, in order."""
        free = np.flatnonzero(self._attempt < 0)
        fresh = free[: ledger.wanted(len(self._attempt) - len(free))]
        if not len(fresh):
            return
        starts = np.empty(len(fresh), dtype=np.int64)
        for i, (slot, stream) in enumerate(zip(fresh, generator.spawn(len(fresh)), strict=True)):
            starts[i] = stream.integers(len(self.pool))
            self._generators[slot], self._attempt[slot] = stream, ledger.begin(int(starts[i]))
        for counter in (self._length, self._failures, self._in_a_row, self._kept):
            counter[fresh] = 0
        rows = self.pool[torch.as_tensor(starts, device=self.pool.device)]  # (B, N, D')
        index = torch.as_tensor(fresh, device=self.pool.device)
        self._current[index], self._condition[index] = rows, self.policy.first_condition(rows)

    def _jobs(self, active: NDArray[np.int64]) -> Jobs:
        """What is to be sampled in these slots."""
        index = torch.as_tensor(active, device=self.pool.device)
        second = self._kept[active] > 0  # (B,)
        again = torch.as_tensor(second, device=self.pool.device)
        values = torch.where(again[:, None, None, None], self._window[index], 0.0)  # (B, H, N, D')
        mask = self._mask[index] & again[:, None, None]  # (B, H, N)
        values[:, 0], mask[:, 0] = self._current[index], True
        left = np.minimum(self.policy.horizon - 1, self.limit - self._length[active])
        return Jobs(
            known=Known(values, mask),
            condition=self._condition[index],
            second=second,
            usable=np.where(second, self._kept[active], left),
        )

    def _advance(self, slots: NDArray[np.int64], jobs: Jobs, windows: Tensor, verdict: Verdict, ledger: Ledger) -> None:
        """Appends, keeps for a second pass, or rejects each window, and frees the slots that are done."""
        last = verdict.terminal.shape[1]
        ends = np.where(verdict.terminal.any(axis=1), verdict.terminal.argmax(axis=1) + 1, last + 1)  # (B,)
        usable = np.minimum(jobs.usable, ends)
        valid = np.minimum(verdict.valid, usable)  # (B,)
        self._count_passes(jobs.second, usable, valid)
        given_up = self._count_failures(slots, jobs.second, usable, valid)
        accepted = (valid > 0) & ~given_up

        with self.report.timed("heads"):
            again = self._second_passes_of(slots, np.flatnonzero(accepted & ~jobs.second), windows, verdict, valid)
        with self.report.timed("bookkeeping"):
            places = self._length[slots]
            appended = accepted & ~again
            self._append(slots, np.flatnonzero(appended), windows, verdict, valid)
            self.report.count(appended[appended], places[appended] // last)
            self._reject((valid == 0) & ~jobs.second, places, "dynamics")
            self._reject((valid == 0) & jobs.second, places, "second pass")
            self._reject((valid > 0) & given_up, places, "failure limit")
            self._watch(int(appended.sum()), int((~again & ~appended).sum()))

            length = self._length[slots]
            terminal = appended & (valid == ends)
            finished = terminal | (appended & (length >= self.limit))
            for i in np.flatnonzero(finished):
                ledger.finish(int(self._attempt[slots[i]]), int(length[i]), bool(terminal[i]))
            for i in np.flatnonzero(given_up):
                ledger.give_up(int(self._attempt[slots[i]]))
            self._attempt[slots[finished | given_up]] = -1
            self._store.compact(ledger)

    def _count_failures(
        self, slots: NDArray[np.int64], second: NDArray[np.bool_], usable: NDArray[np.int64], valid: NDArray[np.int64]
    ) -> NDArray[np.bool_]:
        """(B,) whose episode is given up (MADiTS, Alg. 3, lines 6-16); a second pass fails if nothing is left of it."""
        failed = np.where(second, valid == 0, valid < usable)
        in_a_row = np.where(valid > 0, 1, self._in_a_row[slots] + 1)
        self._failures[slots] += failed
        self._in_a_row[slots] = np.where(failed, in_a_row, np.where(second, self._in_a_row[slots], 0))
        rule = self.policy.failures
        given_up = np.zeros(len(slots), dtype=np.bool_)
        if rule.total is not None:
            given_up |= self._failures[slots] >= rule.total
        if rule.in_a_row is not None:
            given_up |= self._in_a_row[slots] >= rule.in_a_row
        return given_up

    def _second_passes_of(
        self,
        slots: NDArray[np.int64],
        asked: NDArray[np.int64],
        windows: Tensor,
        verdict: Verdict,
        valid: NDArray[np.int64],
    ) -> NDArray[np.bool_]:
        """(B,) which of the windows with numbers `asked` wait for a second pass; it is noted in their slots."""
        again = np.zeros(len(slots), dtype=np.bool_)
        self._kept[slots] = 0
        if not len(asked):
            return again
        rows = torch.as_tensor(asked, device=windows.device)
        mask = self.policy.known_again(windows[rows], verdict.take(asked), valid[asked])
        if mask is None:
            return again
        kept = torch.as_tensor(valid[asked], device=windows.device)
        beyond = torch.arange(windows.shape[1], device=windows.device) > kept[:, None]  # (B', H)
        drawn_again = ~(mask | beyond[..., None]).all(dim=(1, 2))  # (B',)
        again[asked] = drawn_again.cpu().numpy()
        index = torch.as_tensor(slots[asked], device=windows.device)[drawn_again]
        self._window[index], self._mask[index] = windows[rows][drawn_again], mask[drawn_again]
        self._kept[slots[again]] = valid[again]
        return again

    def _append(
        self,
        slots: NDArray[np.int64],
        which: NDArray[np.int64],
        windows: Tensor,
        verdict: Verdict,
        valid: NDArray[np.int64],
    ) -> None:
        """Appends the valid transitions of the windows `which`; their last row is where the episode goes on."""
        if not len(which):
            return
        rows, index = (torch.as_tensor(i, device=windows.device) for i in (which, slots[which]))
        windows, verdict, count = windows[rows], verdict.take(which), valid[which]
        attempts, places = self._attempt[slots[which]], self._length[slots[which]]
        self._store.append(attempts, places, windows, verdict.actions, verdict.rewards, count)
        last = torch.as_tensor(count, device=windows.device)
        self._current[index] = windows[torch.arange(len(which), device=windows.device), last]
        self._condition[index] = self.policy.condition_after(self._condition[index], verdict.rewards, count)
        self._length[slots[which]] += count

    # -- statistics ----------------------------------------------------------------------------------------------

    def _count_passes(self, second: NDArray[np.bool_], usable: NDArray[np.int64], valid: NDArray[np.int64]) -> None:
        self._ticks += 1
        self._passes += len(second)
        self._second_passes += int(second.sum())
        place = np.arange(len(self._valid_at))
        self._usable_at += (usable[~second, None] > place).sum(axis=0)
        self._valid_at += (valid[~second, None] > place).sum(axis=0)

    def _reject(self, which: NDArray[np.bool_], places: NDArray[np.int64], reason: str) -> None:
        if which.any():
            self.report.count(~which[which], places[which] // (self.policy.horizon - 1), reason)

    def _watch(self, accepted: int, rejected: int) -> None:
        if accepted:
            self._barren_ticks = self._barren_windows = 0
        elif rejected:
            self._barren_ticks += 1
            self._barren_windows += rejected

    def _require_progress(self, ledger: Ledger, owner: str) -> None:
        if self._barren_ticks >= PATIENCE_TICKS and self._barren_windows >= PATIENCE_WINDOWS:
            raise self._hopeless(owner, f"none of the last {self._barren_windows} windows was accepted")
        if ledger.given_up >= PATIENCE_ATTEMPTS and ledger.finished < HOPELESS * ledger.given_up:
            raise self._hopeless(owner, f"{ledger.given_up} episodes were given up and {ledger.finished} finished")

    def _hopeless(self, owner: str, what: str) -> MethodError:
        shares = ", ".join(f"{share:.2g}" for share in self._shares()) or "none"
        return MethodError(
            f"{owner}: {what}; {self.report.summary()} Share of first passes valid beyond each step: {shares}. "
            "Raise the threshold, or train longer."
        )

    def _shares(self) -> list[float]:
        """Share of first passes whose valid prefix reaches beyond each place, of those that could use it."""
        seen = self._usable_at > 0
        return [round(float(share), 4) for share in self._valid_at[seen] / self._usable_at[seen]]

    def _tell(self, ledger: Ledger, returned: int) -> None:
        self.report.episodes_discarded = ledger.given_up
        self.report.extra.update(
            episodes_begun=ledger.begun,
            episodes_finished=ledger.finished,
            episodes_returned=returned,
            passes=self._passes,
            second_passes=self._second_passes,
            ticks=self._ticks,
            valid_beyond_step=self._shares(),
        )
