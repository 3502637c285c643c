"""Batch norm re-estimated: the statistics of the images take the place of the trained ones.

Source: Li et al., "Revisiting Batch Normalization For Practical Domain Adaptation", 2016, arXiv
1603.04779 (AdaBN).
"""

from uda.adaptation.method import Method, Subject

FEWEST = 4  # images


def _unfit(subject: Subject) -> str:
    if not subject.batch_norms:
        return "this network has no batch norm; use self-training, or tent"
    if subject.images < FEWEST:
        return (
            f"{subject.images} of the images can be read, and statistics of fewer than {FEWEST} "
            "say little; for single images there is uda predict --adapt batch-norm"
        )
    return ""


METHOD = Method(
    name="batch-norm",
    about="Means and variances of the network's batch norm are counted anew on the images. No "
    "weight changes.",
    unfit=_unfit,
)
