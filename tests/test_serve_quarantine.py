"""The quarantine: what it keeps, what it lets go, and that no kill loses or halves a picture; in both databases."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from postgres_server import postgres  # noqa: F401 - a fixture

import goodnet
from goodnet.errors import UsageError
from goodnet.serve._pictures import from_png, key_of, to_png
from goodnet.serve.export import export_folder
from goodnet.serve.quarantine import Caught, Limits, Quarantine

DAY = 86_400.0
Open = Callable[..., Quarantine]


class Clock:
    """A clock that stands until it is moved."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


def caught(seed: int, *, channels: int = 1, predicted: int | None = 3, suspicion: float = 0.9) -> Caught:
    pixels = torch.randint(256, (channels, 6, 5), generator=torch.Generator().manual_seed(seed)).byte()
    return Caught(pixels, predicted, suspicion, 0.4, "m1")


def key(seed: int) -> str:
    return key_of(caught(seed).pixels)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where an empty quarantine may be, in each kind of database."""
    if request.param == "sqlite":
        return str(tmp_path / "q.sqlite3")
    return request.getfixturevalue("postgres")()


@pytest.fixture
def opened(url: str) -> Iterator[Open]:
    """Opens the quarantine at ``url``, and closes it after the test."""
    made: list[Quarantine] = []

    def open_(limits: Limits | None = None, clock: Callable[[], float] | None = None) -> Quarantine:
        made.append(Quarantine(url, limits or Limits(), clock=clock or Clock()))
        return made[-1]

    yield open_
    for one in made:
        one.close()


def test_a_picture_comes_back_as_it_was_after_reopening(opened: Open) -> None:
    for channels in (1, 3):
        one = caught(7, channels=channels)
        assert opened().add([one]) == {key_of(one.pixels)}
        again = opened()
        png = again.png(key_of(one.pixels))
        assert png is not None
        assert torch.equal(from_png(png), one.pixels)
        entry = again.entries(limit=1)[0]
        assert (entry.predicted, entry.suspicion, entry.confidence, entry.model, entry.mark) == (
            3,
            0.9,
            0.4,
            "m1",
            None,
        )


def test_pictures_of_equal_bytes_and_other_shape_have_other_names() -> None:
    pixels = torch.arange(12, dtype=torch.uint8)
    assert key_of(pixels.view(1, 3, 4)) != key_of(pixels.view(1, 4, 3))
    assert key_of(pixels.view(1, 3, 4)) == key_of(pixels.view(3, 1, 4).transpose(0, 1))


def test_a_picture_sent_again_is_one_entry_that_keeps_its_mark(opened: Open) -> None:
    clock = Clock()
    quarantine = opened(clock=clock)
    quarantine.add([caught(1), caught(1)])
    quarantine.mark(key(1), "clean")
    clock.now += 5
    quarantine.add([caught(1, suspicion=0.5)])
    (entry,) = quarantine.entries()
    assert (entry.seen, entry.mark, entry.suspicion) == (3, "clean", 0.5)
    assert entry.last_seen - entry.first_seen == 5


def test_marks_filter_and_can_be_taken_back(opened: Open) -> None:
    quarantine = opened()
    quarantine.add([caught(seed, predicted=seed % 2) for seed in range(4)])
    assert quarantine.mark(key(0), "poisoned")
    assert quarantine.mark(key(1), "unsure")
    assert not quarantine.mark("0" * 64, "clean")
    assert [entry.key for entry in quarantine.entries(marks=["poisoned"])] == [key(0)]
    assert len(quarantine.entries(marks=["unmarked", "unsure"])) == 3
    assert {entry.key for entry in quarantine.entries(predicted=0)} == {key(0), key(2)}
    assert quarantine.contents().counts == {"unmarked": 2, "clean": 0, "poisoned": 1, "unsure": 1}
    quarantine.mark(key(0), None)
    assert quarantine.contents().counts["unmarked"] == 3
    for wrong in ("dirty", "unmarked"):
        with pytest.raises(UsageError, match="a mark is one of"):
            quarantine.mark(key(0), wrong)
    with pytest.raises(UsageError, match="a mark is one of"):
        quarantine.entries(marks=["dirty"])


def test_a_list_goes_on_behind_what_was_seen(opened: Open) -> None:
    clock = Clock()
    quarantine = opened(clock=clock)
    for start in range(0, 6, 2):  # two pictures of one moment each
        quarantine.add([caught(start), caught(start + 1)])
        clock.now += 1
    seen, after = [], None
    while part := quarantine.entries(after=after, limit=4):
        seen += [entry.key for entry in part]
        after = part[-1].first_seen, part[-1].key
    assert sorted(seen) == sorted(map(key, range(6)))
    assert set(seen[:2]) == {key(4), key(5)}, "the newest come first"


def test_of_too_many_the_oldest_without_a_mark_go_first(opened: Open) -> None:
    clock = Clock()
    quarantine = opened(Limits(most_images=3), clock)
    for seed in range(3):
        quarantine.add([caught(seed)])
        clock.now += 1
    quarantine.mark(key(0), "poisoned")
    assert quarantine.add([caught(3)]) == {key(3)}
    assert {entry.key for entry in quarantine.entries()} == {key(0), key(2), key(3)}


def test_what_is_marked_makes_no_room_for_what_is_new(opened: Open) -> None:
    quarantine = opened(Limits(most_images=2))
    quarantine.add([caught(0), caught(1)])
    for seed in range(2):
        quarantine.mark(key(seed), "unsure")
    assert quarantine.add([caught(2)]) == frozenset()
    assert {entry.key for entry in quarantine.entries()} == {key(0), key(1)}


def test_bytes_are_limited_as_well(opened: Open) -> None:
    clock = Clock()
    size = sum(len(to_png(caught(seed).pixels)) for seed in range(5))
    quarantine = opened(Limits(most_bytes=size), clock)
    for seed in range(9):
        quarantine.add([caught(seed)])
        clock.now += 1
    held = quarantine.contents()
    assert held.bytes <= size
    assert 3 <= held.counts["unmarked"] <= 6
    assert quarantine.png(key(8)) is not None
    assert held.bytes == sum(len(quarantine.png(entry.key) or b"") for entry in quarantine.entries())


def test_after_the_days_a_picture_goes_marked_or_not(opened: Open) -> None:
    clock = Clock()
    quarantine = opened(Limits(days=10), clock)
    quarantine.add([caught(0), caught(1), caught(2)])
    quarantine.mark(key(0), "poisoned")
    clock.now += 9 * DAY
    quarantine.add([caught(1)])
    clock.now += 2 * DAY
    quarantine.sweep()
    assert {entry.key for entry in quarantine.entries()} == {key(1)}
    for_ever = opened(Limits(days=0), clock)
    clock.now += 1000 * DAY
    for_ever.sweep()
    assert len(for_ever.entries()) == 1


def test_a_quarantine_opened_with_lower_limits_shrinks(opened: Open) -> None:
    opened().add([caught(seed) for seed in range(20)])
    assert opened(Limits(most_images=4)).contents().counts["unmarked"] == 4


def test_several_writers_lose_nothing(opened: Open) -> None:
    quarantine = opened()
    pictures = [caught(seed) for seed in range(24)]

    def write(seed: int) -> None:
        mine = random.Random(seed).sample(pictures, len(pictures))
        for start in range(0, len(mine), 6):
            quarantine.add(mine[start : start + 6])

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [entry.seen for entry in quarantine.entries()] == [4] * 24


def test_an_export_is_a_folder_that_load_data_reads(opened: Open, tmp_path: Path) -> None:
    quarantine = opened()
    quarantine.add([caught(seed, channels=3) for seed in range(4)])
    keys = [key_of(caught(seed, channels=3).pixels) for seed in range(4)]
    with pytest.raises(UsageError, match="no picture in the quarantine is marked poisoned"):
        export_folder(quarantine, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for number, mark in ((0, "poisoned"), (1, "poisoned"), (2, "clean")):
        quarantine.mark(keys[number], mark)
    assert export_folder(quarantine, tmp_path / "out") == 2
    alone = goodnet.load_data(tmp_path / "out")
    assert alone.class_names == ("poisoned",)
    assert {key_of(pixels) for pixels in alone.images} == set(keys[:2])
    assert export_folder(quarantine, tmp_path / "out", ("poisoned", "clean")) == 3  # takes the place of the first
    both = goodnet.load_data(tmp_path / "out")
    assert both.class_names == ("clean", "poisoned")
    assert both.labels is not None
    assert [key_of(pixels) for pixels in both.images[both.labels == 0]] == [keys[2]]
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "diary.txt").write_text("mine")
    with pytest.raises(UsageError, match="not ours to replace"):
        export_folder(quarantine, tmp_path / "other")


WRITER = """
import sys, torch
from goodnet.serve._pictures import key_of
from goodnet.serve.quarantine import Caught, Quarantine
quarantine, generator = Quarantine(sys.argv[1]), torch.Generator().manual_seed(int(sys.argv[2]))
while True:
    images = torch.randint(256, (3, 3, 40, 40), generator=generator).byte()
    kept = quarantine.add([Caught(pixels, 1, 0.5, 0.5, "m") for pixels in images])
    print(*sorted(kept), flush=True)
"""


def test_kill_9_loses_nothing_that_was_acknowledged_and_leaves_nothing_half_written(url: str) -> None:
    promised: set[str] = set()
    for attempt in range(3):
        command = [sys.executable, "-c", WRITER, url, str(attempt)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as writer:
            assert writer.stdout is not None
            for _ in range(5 + 7 * attempt):
                promised |= set(writer.stdout.readline().split())
            writer.send_signal(signal.SIGKILL)  # while it writes the next one
            promised |= {word for line in writer.stdout for word in line.split() if len(word) == 64}
    assert len(promised) >= 100
    quarantine = Quarantine(url)
    held = dict(quarantine.pictures(["unmarked"]))
    quarantine.close()
    assert promised <= {entry.key for entry in held}
    for entry, png in held.items():
        assert key_of(from_png(png)) == entry.key
        assert len(png) == entry.size
    assert len(held) % 3 == 0, "a batch is written whole or not at all"


def test_the_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    quarantine = Quarantine(tmp_path / "deep" / "q.sqlite3")
    quarantine.add([caught(0)])
    modes = {path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "deep").iterdir()}
    quarantine.close()
    assert "q.sqlite3" in modes
    assert not any(modes.values())


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("mysql://root@localhost/x", "sqlite or postgresql, not in mysql"),
        ("sqlite://", "in memory"),
        (":memory:", "in memory"),
        ("x:y://z", "give a path"),
        ("postgresql://nobody:secret@127.0.0.1:1/none", "failed"),
        ("/proc/nothing/q.sqlite3", "failed"),
    ],
)
def test_what_cannot_hold_a_quarantine_is_refused_without_the_password(url: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as refused:
        Quarantine(url)
    assert "secret" not in str(refused.value)


def test_a_file_that_is_no_database_is_refused_and_stays(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("my notes, which are longer than a header of SQLite would be" * 10)
    before = path.read_bytes()
    with pytest.raises(UsageError, match="not a database"):
        Quarantine(path)
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["notes.txt"]
    shutil.rmtree(tmp_path)
