"""Batching across requests: one thread owns the model, everybody else leaves images in its queue."""

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from goodnet.errors import UsageError

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class _Asked(Generic[Answer]):
    images: Tensor
    answers: Future[Sequence[Answer]]


class Batcher(Generic[Answer]):
    """Collects images of several requests, and has them judged together.

    Args:
        judge: answers images (M, C, H, W), one answer each; called in the one thread, so it needs no locks.
        most: images of one batch; a single request may bring more.
        wait: seconds that the first image of a batch waits for others.

    How many may wait is the business of whoever admits requests.
    """

    def __init__(self, judge: Callable[[Tensor], Sequence[Answer]], *, most: int, wait: float):
        self._judge, self._most, self._wait = judge, most, wait
        self._asked: deque[_Asked[Answer]] = deque()
        self._changed = threading.Condition()
        self._closing = False
        self._thread = threading.Thread(target=self._work, name="goodnet-judge", daemon=True)
        self._thread.start()

    def submit(self, images: Tensor) -> Future[Sequence[Answer]]:
        """Answers to come; cancel the future, and images that nobody has looked at yet never will be.

        Raises:
            UsageError: it has been closed.
        """
        asked: _Asked[Answer] = _Asked(images, Future())
        with self._changed:
            if self._closing:
                raise UsageError("the service is stopping")
            self._asked.append(asked)
            self._changed.notify()
        return asked.answers

    @property
    def waiting(self) -> int:
        """Images in the queue."""
        with self._changed:
            return self._count()

    def close(self) -> None:
        """Answer everything that waits, then end the thread."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        self._thread.join()

    def _count(self) -> int:
        return sum(len(one.images) for one in self._asked)

    def _work(self) -> None:
        while batch := self._next():
            live = [one for one in batch if one.answers.set_running_or_notify_cancel()]
            if not live:
                continue
            try:
                answers = self._judge(torch.cat([one.images for one in live]))
                start = 0
                for one in live:
                    one.answers.set_result(answers[start : start + len(one.images)])
                    start += len(one.images)
            except Exception as error:  # noqa: BLE001 - those who asked hear of it, and the thread lives on
                for one in live:
                    if not one.answers.done():
                        one.answers.set_exception(error)

    def _next(self) -> list[_Asked[Answer]]:
        """The next batch, once it is full or has waited; none when there is nothing left to do."""
        with self._changed:
            while not self._asked:
                if self._closing:
                    return []
                self._changed.wait()
            end = time.monotonic() + self._wait
            while not self._closing and self._count() < self._most and (left := end - time.monotonic()) > 0:
                self._changed.wait(left)
            batch = [self._asked.popleft()]
            count = len(batch[0].images)
            while self._asked and count + len(self._asked[0].images) <= self._most:
                batch.append(self._asked.popleft())
                count += len(batch[-1].images)
            return batch
