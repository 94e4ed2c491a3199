"""The contract suite of methods, and the checks that the pipeline applies to what they return.

`augmenter_checks` and `learner_checks` yield named checks; `bench plugin check` and our own tests run them. They use
nothing but `methods.base` and made-up data, so a plugin's tests can run them as well:

    for check in augmenter_checks(MyAugmenter.tiny, "my-augmenter"):
        check.run()
"""

from benchmark.checks.augmenters import augmenter_checks
from benchmark.checks.check import Check
from benchmark.checks.learners import learner_checks
from benchmark.checks.returned import check_generated, check_policy_actions
from benchmark.checks.sample_data import SHAPES, sample_dataset, sample_spec

__all__ = [
    "SHAPES",
    "Check",
    "augmenter_checks",
    "check_generated",
    "check_policy_actions",
    "learner_checks",
    "sample_dataset",
    "sample_spec",
]
