"""Service: a model in service with its queue, its quarantine and its counts; what HTTP is put in front of."""

import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from goodnet.errors import GoodnetError, UsageError
from goodnet.guard.fitted import GuardJudgement, Judged
from goodnet.guard.goodnet import Judgement
from goodnet.serve.batching import Batcher
from goodnet.serve.judging import Served, load_served
from goodnet.serve.metrics import Metrics
from goodnet.serve.quarantine import Caught, Quarantine
from goodnet.serve.settings import Settings

_LOG = logging.getLogger("goodnet.serve")


@dataclass(frozen=True)
class Prediction:
    """What is said about one image; ``quarantined`` is its key there, None where it was not kept."""

    label: int
    triggered: bool
    name: str | None
    confidence: float
    suspicion: float
    quarantined: str | None
    model: str


class Service:
    """Judges images in one thread, and keeps what is answered N before anybody hears of it.

    Args:
        served: what judges.
        quarantine: where triggered images go.
        settings: the bounds.
        load: reads a folder, for ``swap``.
    """

    def __init__(
        self,
        served: Served,
        quarantine: Quarantine,
        settings: Settings,
        load: Callable[[Path], Served] = load_served,
    ):
        self.settings, self.quarantine, self.metrics = settings, quarantine, Metrics()
        self._served, self._load = served, load
        self._swapping = threading.Lock()
        self.metrics.model.labels(served.version).set(1)
        self._batcher: Batcher[Prediction] = Batcher(self._judge, most=settings.batch, wait=settings.wait)

    @property
    def served(self) -> Served:
        """What judges now."""
        return self._served

    def submit(self, images: Tensor) -> Future[Sequence[Prediction]]:
        """Predictions to come of uint8 images (M, C, H, W)."""
        return self._batcher.submit(images)

    @property
    def waiting(self) -> int:
        """Images that nobody has looked at yet."""
        return self._batcher.waiting

    def swap(self, name: str | None = None) -> Served:
        """Read the folder again, or the one beside it that is called ``name``, and let it judge from the next batch on.

        Requests that wait are answered all the same, each wholly by the old model or by the new one.

        Raises:
            UsageError: ``name`` leads elsewhere, or what lies there takes other images or knows other classes.
            GoodnetError: it cannot be read; the old model goes on.
        """
        with self._swapping:
            old = self._served
            new = self._load(self._beside(name))
            for what in ("input_shape", "num_classes"):
                had, has = getattr(old.model, what), getattr(new.model, what)
                if had != has:
                    raise UsageError(f"{new.folder} has the {what} {has} where {had} is in service; start it anew")
            self._served = new
            self.metrics.model.labels(old.version).set(0)
            self.metrics.model.labels(new.version).set(1)
            self.metrics.swaps.inc()
        _LOG.info("model %s of %s is in service", new.version, new.folder)
        return new

    def swap_soon(self) -> None:
        """Read the folder again in the background, as a signal wants it; what goes wrong is logged."""
        threading.Thread(target=self._swap_or_say, name="goodnet-swap", daemon=True).start()

    def close(self) -> None:
        """Answer what waits, then let go of the quarantine."""
        self._batcher.close()
        self.quarantine.close()

    def _swap_or_say(self) -> None:
        try:
            self.swap()
        except (GoodnetError, OSError) as error:
            _LOG.error("the old model stays in service: %s", error)

    def _beside(self, name: str | None) -> Path:
        folder = self._served.folder
        if name is None:
            return folder
        if name in ("", ".", "..") or not name.isprintable() or {"/", "\\", "\0"} & set(name):
            raise UsageError("folder is the name of a folder beside the one in service, without a path")
        new = folder.parent / name
        if not new.is_dir() or new.resolve().parent != folder.parent.resolve():
            raise UsageError(f"there is no folder {name!r} beside the one in service")
        return new

    def _judge(self, images: Tensor) -> list[Prediction]:
        served = self._served  # one model for the whole batch, whatever is swapped meanwhile
        said = served.model.judge(images)
        answers, suspicion = said.answers.tolist(), said.suspicion.tolist()
        confidence = said.confidence.tolist()
        predicted = _before_the_guard(said)
        triggered = [row for row, answer in enumerate(answers) if answer == served.model.num_classes]
        caught = [
            Caught(
                images[row],
                None if predicted is None else int(predicted[row]),
                suspicion[row],
                confidence[row],
                served.version,
            )
            for row in triggered
        ]
        keys = dict(zip(triggered, self._keep(caught), strict=True))
        self.metrics.batch.observe(len(images))
        self.metrics.images.labels("triggered").inc(len(triggered))
        self.metrics.images.labels("answered").inc(len(images) - len(triggered))
        return [
            Prediction(
                label=answer,
                triggered=row in keys,
                name=served.name_of(answer),
                confidence=confidence[row],
                suspicion=suspicion[row],
                quarantined=keys.get(row),
                model=served.version,
            )
            for row, answer in enumerate(answers)
        ]

    def _keep(self, caught: Sequence[Caught]) -> list[str | None]:
        """The key of each picture, None for those that are not kept: a full disk must not stop the answers."""
        if not caught:
            return []
        try:
            held = self.quarantine.add(caught)
        except GoodnetError as error:
            _LOG.error("%d triggered images were not kept: %s", len(caught), error)
            held = frozenset()
        keys = [one.key if one.key in held else None for one in caught]
        self.metrics.lost.inc(keys.count(None))
        return keys


def _before_the_guard(said: Judged) -> Tensor | None:
    """int64 (M,), what the model under suspicion answers by itself; None where that is not told."""
    if isinstance(said, Judgement):
        return said.badnet
    return said.predicted if isinstance(said, GuardJudgement) else None
