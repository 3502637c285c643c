"""Target images that several objectives of a step see in the same other colors."""

from dataclasses import replace

from uda.augmentation.jitter import AnyJitter, jitter
from uda.data.batch import Batch
from uda.objectives.base import StepContext

_PURPOSE = "target_jitter"


def jittered_target(batch: Batch, config: AnyJitter | None, context: StepContext) -> Batch:
    """The batch with its target images jittered; itself without a `config`. The random numbers are
    the same for every objective of a step. The batch that the teacher labels is not changed."""
    if config is None:
        return batch
    own, common = context.generators(_PURPOSE), context.batch_generator(_PURPOSE)
    return replace(batch, target_images=jitter(batch.target_images, config, own, common))
