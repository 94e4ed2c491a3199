"""The table of augmenters: a name, the class behind it, what it is, and the parameters that make the variant."""

from __future__ import annotations

from typing import Any

from methods.base import Augmenter
from tasks.common.errors import UsageError
from tasks.common.registry import Registry


def _check(name: str, loaded: object) -> None:
    if not (isinstance(loaded, type) and issubclass(loaded, Augmenter)):
        raise UsageError(f"Augmenter {name!r} is {loaded!r}; expected a subclass of methods.base.Augmenter.")


AUGMENTERS: Registry[type[Augmenter[Any]]] = Registry("augmenter", check=_check, entry_points="augmarl.augmenters")
AUGMENTERS.add("original", "methods.augmenters.original:Original", "control: the data as they are, nothing added")
AUGMENTERS.add("duplicate", "methods.augmenters.duplicate:Duplicate", "control: the same volume added, no information")
AUGMENTERS.add(
    "more-real-data", "methods.augmenters.more_real_data:MoreRealData", "oracle upper line: new real episodes"
)
AUGMENTERS.add("noise", "methods.augmenters.noise:Noise", "Gaussian noise, 5% of each feature's std (INS, App. B)")
AUGMENTERS.add("noise-s4rl", "methods.augmenters.noise:Noise", "Gaussian noise at S4RL's scale, 3e-4", sigma=3e-4)
AUGMENTERS.add("rad-s", "methods.augmenters.rad:RAD", "random amplitude scaling, one factor a row (EAQ, 4.2)")
AUGMENTERS.add("rad-m", "methods.augmenters.rad:RAD", "the same, one factor a dimension", per_dimension=True)
AUGMENTERS.add("dof", "methods.augmenters.dof:DoF", "factorised diffusion of segments (DoF; MASTARS, App. E)")
_MASTARS = "methods.augmenters.mastars:MASTARS"
AUGMENTERS.add("mastars-lov", _MASTARS, "agents inpainted in turn, by last value (MASTARS, Eq. 7)", order="lov")
AUGMENTERS.add("mastars-sg", _MASTARS, "the same, by subgoal (MASTARS, Eq. 8)", order="sg")
AUGMENTERS.add("mastars-reverse", _MASTARS, "ablation: lowest last value first (MASTARS, 4.6)", order="reverse")
AUGMENTERS.add("mastars-random", _MASTARS, "ablation: in a random order (MASTARS, 4.6)", order="random")
AUGMENTERS.add("mastars-no-subgoal", _MASTARS, "ablation: all but the first row is new (MASTARS, 4.4)", subgoal=False)
AUGMENTERS.add("mastars-no-sequence", _MASTARS, "ablation: all agents in one pass (MASTARS, 4.4)", sequential=False)
AUGMENTERS.add("mastars-no-inpainting", _MASTARS, "ablation: agents sampled alone (MASTARS, 4.4)", inpainting=False)
