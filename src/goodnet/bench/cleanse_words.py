"""What a person reads about those who own the training set: cleansers and learners."""

from collections.abc import Callable

from goodnet.bench.cleansings import CleanserSummary, CleanseTrial
from goodnet.bench.learnings import LearnerSummary
from goodnet.bench.sentences import points, published_lines, rate_lines
from goodnet.bench.table import TableRow
from goodnet.evaluation import Rate
from goodnet.report.words import percent

_NOTHING = "–"


def auroc_lines(row: TableRow) -> list[str]:
    """AUROC of the scores with its interval, or over seeds."""
    over = row.auroc
    if over.mean is None:
        return [_NOTHING]
    if over.count == 1 and len(row.trials) == 1:
        cleansed = row.trials[0].cleansed
        interval = None if cleansed is None else cleansed.auroc_interval
        return [f"{over.mean:.3f}", *([] if interval is None else [f"[{interval[0]:.3f}–{interval[1]:.3f}]"])]
    deviation = "" if over.standard_deviation is None else f" ± {over.standard_deviation:.3f}"
    return [f"{over.mean:.3f}{deviation}", f"{over.count} seeds"]


def at_1_lines(row: TableRow) -> list[str]:
    """Poison that the best threshold in hindsight would catch at 1 % of the clean samples."""
    return _lines(row, lambda one: one.at_1)


def at_5_lines(row: TableRow) -> list[str]:
    """The same at 5 %."""
    return _lines(row, lambda one: one.at_5)


def poison_removed_lines(row: TableRow) -> list[str]:
    """What the cleanser's own decision removed of the poison; then what was published."""
    return _lines(row, lambda one: one.poison_removed) + _published(
        row, "poison_removed", lambda one: one.poison_removed
    )


def clean_removed_lines(row: TableRow) -> list[str]:
    """The same of the clean samples."""
    return _lines(row, lambda one: one.clean_removed) + _published(row, "clean_removed", lambda one: one.clean_removed)


def cleanser_line(one: CleanserSummary) -> str:
    """What a cleanser was worth over all training sets, in a sentence."""
    said = []
    if one.poisoned:
        auroc = "" if one.auroc is None else f"AUROC {one.auroc:.3f} on average; "
        said.append(
            f"{auroc}95% of the poison at 1% of the clean samples: {one.ranked} of {one.poisoned} sets by the best "
            f"threshold, {one.cleansed} of {one.poisoned} by its own decision"
        )
    if one.lost is not None:
        said.append(
            f"sets without poison: at most 1% removed in {one.harmless} of {one.clean}, {percent(one.lost)} on average"
        )
    return f"{one.cleanse}: {'; '.join(said) or 'no set whose poison was learned, and none without'}."


def learner_line(one: LearnerSummary) -> str:
    """What a learner was worth over all training sets, in a sentence."""
    said = []
    if one.success is not None and one.drop is not None:
        said.append(
            f"no backdoor at no more than 3 points of accuracy in {one.succeeded} of {one.backdoored}; on average "
            f"{points(-one.drop)} points of accuracy, attack success {percent(one.success)}"
        )
    said.append(f"{one.harmed} of {one.nets} nets lost more than 3 points")
    if one.clean_drop is not None:
        said.append(f"without a backdoor: {points(-one.clean_drop)} points on average")
    return f"{one.learn}: {'; '.join(said)}."


def _lines(row: TableRow, rate: Callable[[CleanseTrial], Rate]) -> list[str]:
    rates = [None if trial.cleansed is None else rate(trial.cleansed) for trial in row.trials]
    return rate_lines(rates, row.cleansed(lambda one: rate(one).value))


def _published(row: TableRow, name: str, rate: Callable[[CleanseTrial], Rate]) -> list[str]:
    share = None if row.published is None or row.cleanse == "none" else getattr(row.published, name)
    measured = row.cleansed(lambda one: rate(one).value).mean
    return published_lines(share, None if share is None or measured is None else measured - share)
