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
_MADIFF, _MADITS = "methods.augmenters.madiff:MADiff", "methods.augmenters.madits:MADiTS"
AUGMENTERS.add("madiff", _MADIFF, "stitched windows of joint diffusion, unfiltered (MADiff; MADiTS, 5.1)")
AUGMENTERS.add("madiff-segment", _MADIFF, "single windows, filtered (MADiff* of MASTARS, App. B)", emit="segments")
AUGMENTERS.add("madits", _MADITS, "stitching with dynamics constraint and partial noising (MADiTS, 4.3)")
AUGMENTERS.add("madits-no-dc", _MADITS, "ablation: no dynamics constraint (MADiTS, 5.3)", dynamics_constraint=False)
AUGMENTERS.add("madits-no-pn", _MADITS, "ablation: no partial noising (MADiTS, 5.3)", partial_noising=False)
AUGMENTERS.add(
    "madits-no-dc-pn",
    _MADITS,
    "ablation: neither (MADiTS, 5.3)",
    dynamics_constraint=False,
    partial_noising=False,
)
AUGMENTERS.add("dof", "methods.augmenters.dof:DoF", "factorised diffusion of segments (DoF; MASTARS, App. E)")
_MASTARS = "methods.augmenters.mastars:MASTARS"
AUGMENTERS.add("mastars-lov", _MASTARS, "agents inpainted in turn, by last value (MASTARS, Eq. 7)", order="lov")
AUGMENTERS.add("mastars-sg", _MASTARS, "the same, by subgoal (MASTARS, Eq. 8)", order="sg")
AUGMENTERS.add("mastars-reverse", _MASTARS, "ablation: lowest last value first (MASTARS, 4.6)", order="reverse")
AUGMENTERS.add("mastars-random", _MASTARS, "ablation: in a random order (MASTARS, 4.6)", order="random")
AUGMENTERS.add("mastars-no-subgoal", _MASTARS, "ablation: all but the first row is new (MASTARS, 4.4)", subgoal=False)
AUGMENTERS.add("mastars-no-sequence", _MASTARS, "ablation: all agents in one pass (MASTARS, 4.4)", sequential=False)
AUGMENTERS.add("mastars-no-inpainting", _MASTARS, "ablation: agents sampled alone (MASTARS, 4.4)", inpainting=False)
AUGMENTERS.add(
    "mbts", "methods.augmenters.mbts:MBTS", "model-based stitching of joint trajectories (MA-MBTS; MADiTS, 5.1)"
)
_CODI = "methods.augmenters.codi:CODI"
AUGMENTERS.add("codi", _CODI, "composed diffusion on labels of who plays well (CODI, 3)")
AUGMENTERS.add("codi-no-com", _CODI, "ablation: conditioned on all labels at once (CODI, 4.1)", composition=False)
AUGMENTERS.add(
    "codi-priv", "methods.augmenters.codi:PrivilegedCODI", "reference: labels of the true experts (CODI, 4.1)"
)
AUGMENTERS.add("synther", "methods.augmenters.synther:SynthER", "diffused transitions, each agent alone (INS, App. J)")
_INS = "methods.augmenters.ins:INS"
AUGMENTERS.add("ins", _INS, "transitions of a sparse transformer over agents, selected by value (INS, 4)")
AUGMENTERS.add("ins-topk", _INS, "ablation: the best candidates alone (INS, 5.4)", select="topk")
AUGMENTERS.add("ins-no-select", _INS, "ablation: all candidates are kept (INS, 5.3)", select="none")
AUGMENTERS.add("ins-no-sparse", _INS, "ablation: softmax in place of sparsemax (INS, 5.3)", attention="dense")
AUGMENTERS.add("ins-no-attention", _INS, "ablation: agents by themselves (INS, 5.3)", attention="none")
AUGMENTERS.add("vae", "methods.augmenters.vae:VAE", "transitions of an autoencoder, each agent alone (INS, App. B)")
_EAQ = "methods.augmenters.eaq:EAQ"
AUGMENTERS.add("eaq", _EAQ, "whole episodes diffused, pushed towards the best return (EAQ, 3)")
AUGMENTERS.add("eaq-noq", _EAQ, "ablation: plain episode diffusion (EAQ, 4)", lambda_q=0.0)
