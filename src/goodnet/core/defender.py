"""Defender: what a defense may hold, and nothing else."""

from dataclasses import dataclass, replace

from goodnet.core.classifier import Classifier
from goodnet.core.registry import Needs
from goodnet.core.samples import Samples
from goodnet.core.trigger import Trigger
from goodnet.errors import NotHeld


@dataclass(frozen=True)
class Defender:
    """What the defender holds; a field that a method's card did not declare is None inside that method.

    Attributes:
        model: the suspect.
        clean: images without triggers; labels are optional.
        training_set: what the suspect was trained on, poison included.
        triggers: reconstructed by an audit, of every target that it found.
    """

    model: Classifier | None = None
    clean: Samples | None = None
    training_set: Samples | None = None
    triggers: tuple[Trigger, ...] | None = None

    def restricted_to(self, needs: Needs, method: str, uses: Needs = Needs.NOTHING) -> "Defender":
        """What a method may see that ``needs`` this, and ``uses`` that where it is held.

        Raises:
            NotHeld: something that the method needs is missing; the message names it.
        """
        required = {
            Needs.MODEL: (self.model, "a model", "model=..."),
            Needs.CLEAN: (self.clean, "clean images", "clean=..."),
            Needs.TRAINING_SET: (self.training_set, "the training set", "training_set=..."),
            Needs.TRIGGERS: (self.triggers or None, "triggers that an audit found", "triggers=verdict.triggers"),
        }
        for need, (held, words, keyword) in required.items():
            if need in needs and held is None:
                raise NotHeld(f"{method} needs {words}; pass Defender({keyword})")
        if Needs.CLEAN_LABELS in needs and (self.clean is None or self.clean.labels is None):
            raise NotHeld(f"{method} needs the labels of the clean images; these have none")
        if Needs.SOURCES in needs and (self.training_set is None or self.training_set.sources is None):
            raise NotHeld(f"{method} needs the sources of the training set; pass Samples(sources=...)")
        seen = needs | uses
        clean = self.clean if Needs.CLEAN in seen else None
        if clean is not None and Needs.CLEAN_LABELS not in seen:
            clean = clean.without_labels()
        training_set = self.training_set if Needs.TRAINING_SET in seen else None
        if training_set is not None and Needs.SOURCES not in seen:
            training_set = replace(training_set, sources=None)
        return replace(
            self,
            model=self.model if Needs.MODEL in seen else None,
            clean=clean,
            training_set=training_set,
            triggers=self.triggers if Needs.TRIGGERS in seen else None,
        )
