"""What a person reads in a table: the lines of a row, what is so in all rows, and what went wrong, in words."""

from collections import Counter
from collections.abc import Callable

from goodnet.bench.repairs import RepairSummary
from goodnet.bench.table import Table, TableRow
from goodnet.bench.trial import Trial
from goodnet.evaluation import Rate, Spread, spread
from goodnet.report.words import duration, file_size, number, percent

STATUS = {"done": "done", "failed": "failed", "missing": "not run yet"}
_NOTHING = "–"
_TRIED: dict[str, Callable[[TableRow], str]] = {
    "data": lambda row: row.data,
    "architecture": lambda row: row.architecture,
    "recipe": lambda row: row.recipe,
    "audit": lambda row: row.audit,
    "repair": lambda row: row.repair,
    "cleanse": lambda row: row.cleanse,
    "learn": lambda row: row.learn,
    "seed": lambda row: ", ".join(str(trial.seed) for trial in row.trials),
}
_DEFENSES = ("audit", "repair", "cleanse", "learn")


def shared(table: Table) -> dict[str, str]:
    """What was tried, as far as it is the same in all rows: name → text. Defenses that no row has are left out."""
    same = {name: text(table.rows[0]) for name, text in _TRIED.items() if _same(table, text)}
    return {name: text for name, text in same.items() if name not in _DEFENSES or text != "none"}


def differing(table: Table) -> dict[str, Callable[[TableRow], str]]:
    """What was tried, as far as rows differ in it: name → text of a row."""
    return {name: text for name, text in _TRIED.items() if not _same(table, text)}


def audited(table: Table) -> bool:
    """Whether any row has an audit."""
    return any(row.audit != "none" for row in table.rows)


def changed(table: Table) -> bool:
    """Whether any row has a repair or a learner, which give another net."""
    return any(row.repair != "none" or row.learn != "none" for row in table.rows)


def cleansed(table: Table) -> bool:
    """Whether any row has a cleansing."""
    return any(row.cleanse != "none" for row in table.rows)


def problems(table: Table) -> list[str]:
    """Why rows failed, or what is wrong with what is there; a sentence each."""
    return [
        f"{title_of(row)}, seed {trial.seed}, {STATUS[trial.status]}: {trial.reason}"
        for row in table.rows
        for trial in row.trials
        if trial.reason
    ]


def progress(table: Table) -> str:
    """How many cells there are of each status; a row has one for each seed."""
    return ", ".join(f"{table.count(name):,} {words}" for name, words in STATUS.items() if table.count(name))


def name_of(row: TableRow) -> str:
    """What the suite calls a row, else its attack."""
    return row.label or row.attack


def title_of(row: TableRow) -> str:
    """The same with the defense, where rows of one net are told apart by it."""
    return ", ".join([name_of(row), *(one for one in (row.repair, row.cleanse, row.learn) if one != "none")])


def accuracy_lines(row: TableRow) -> list[str]:
    """Clean accuracy with counts and interval, or over seeds; then what was published."""
    published = None if row.published is None else row.published.clean_accuracy
    measured = rate_lines([trial.accuracy for trial in row.trials], row.accuracy)
    return measured + published_lines(published, row.accuracy_difference)


def success_lines(row: TableRow) -> list[str]:
    """Attack success, as ``accuracy_lines``."""
    published = None if row.published is None else row.published.attack_success_rate
    measured = rate_lines([trial.success for trial in row.trials], row.success)
    return measured + published_lines(published, row.success_difference)


def rate_lines(rates: list[Rate | None], over: Spread) -> list[str]:
    """A share with counts and interval, or mean and standard deviation over the seeds; a line each."""
    known = [rate for rate in rates if rate is not None]
    if over.mean is None:
        return [_NOTHING]
    if len(rates) == 1:
        return [percent(over.mean), f"{known[0].hits:,}/{known[0].count:,}", _interval(known[0])]
    deviation = "" if over.standard_deviation is None else f" ± {100 * over.standard_deviation:.1f}"
    seeds = f"{over.count}" if over.count == len(rates) else f"{over.count} of {len(rates)}"
    return [f"{percent(over.mean)}{deviation}", f"{seeds} seeds"]


def verdict_lines(row: TableRow) -> list[str]:
    """What the audits said, against the truth."""
    judged = [trial.judged for trial in row.trials if trial.judged is not None]
    if len(judged) == 1:
        p_value = judged[0].p_value
        return [judged[0].outcome, *([] if p_value is None else [f"p={number(p_value)}"])]
    return [f"{count} × {outcome}" for outcome, count in Counter(one.outcome for one in judged).items()] or [_NOTHING]


def accuracy_after_lines(row: TableRow) -> list[str]:
    """Clean accuracy of what the defense made, and the difference to before on the same images."""
    known = [trial.repaired for trial in row.trials if trial.repaired is not None]
    lines = _changed(row.accuracy_after, row.accuracy_drop.mean)
    lines += ["of its own answers"] if any(one.own_answers for one in known) else []
    return lines + _published_after(row, "clean_accuracy_after", row.accuracy_after)


def success_after_lines(row: TableRow) -> list[str]:
    """Attack success on what the defense made."""
    known = [trial.changed.success for trial in row.trials if trial.changed is not None and trial.changed.success]
    before = spread([change.before.value for change in known if change.before.value is not None]).mean
    after = row.success_after.mean
    lines = _changed(row.success_after, None if before is None or after is None else before - after)
    return lines + _published_after(row, "attack_success_rate_after", row.success_after)


def outcome_lines(row: TableRow) -> list[str]:
    """What somebody has who goes by the proof, or takes what was kept or learned; the defense effectiveness rating."""
    made = [trial.repaired or trial.cleansed or trial.learned for trial in row.trials]
    outcomes = [one.outcome for one in made if one is not None]
    if not outcomes:
        return [_NOTHING]
    rating = row.effectiveness.mean
    counted = [f"{count} × {outcome}" for outcome, count in Counter(outcomes).items()]
    return [*(outcomes if len(outcomes) == 1 else counted), *([] if rating is None else [f"DER {100 * rating:.1f}"])]


def reason_of(trial: Trial) -> str:
    """Why an outcome is what it is, as the method says it; empty where it says nothing."""
    if trial.repaired is not None:
        return trial.repaired.reason
    return "" if trial.cleansed is None else trial.cleansed.rule


def summary_line(one: RepairSummary) -> str:
    """What a repairer was worth over all nets, in a sentence."""
    said = []
    if one.backdoored:
        assert one.drop is not None
        assert one.success is not None
        assert one.effectiveness is not None
        said.append(
            f"{one.succeeded} of {one.backdoored} backdoors removed at no more than 3 points of accuracy, {one.kept} "
            f"of them accepted by the proof; on average {points(-one.drop)} points of accuracy, attack success "
            f"{percent(one.success)}, DER {100 * one.effectiveness:.1f}"
        )
    said.append(f"{one.harmed} of {one.nets} nets lost more than 3 points, {one.harmed_kept} of them accepted")
    if one.clean_drop is not None:
        said.append(f"nets without a backdoor: {points(-one.clean_drop)} points on average")
    return f"{one.repair}: {'; '.join(said)}."


def cost_lines(row: TableRow) -> list[str]:
    """Wall time of all trials together, and the most memory that one of them held."""
    seconds = [trial.seconds for trial in row.trials if trial.seconds is not None]
    memory = max((trial.peak_memory_bytes or 0 for trial in row.trials), default=0)
    return [duration(sum(seconds)), *([file_size(memory)] if memory else [])] if seconds else [_NOTHING]


def status(row: TableRow) -> str:
    """Done, failed or not run yet; of several trials how many of each."""
    found = Counter(STATUS[trial.status] for trial in row.trials)
    return next(iter(found)) if len(found) == 1 else ", ".join(f"{count} {words}" for words, count in found.items())


def points(difference: float) -> str:
    """A difference in points of percentage, with its sign."""
    return f"{100 * difference:+z.1f}".replace("-", "−")


def _changed(after: Spread, drop: float | None) -> list[str]:
    """A mean, and how far it is from what was before."""
    if after.mean is None:
        return [_NOTHING]
    deviation = "" if after.standard_deviation is None else f" ± {100 * after.standard_deviation:.1f}"
    return [f"{percent(after.mean)}{deviation}", *([] if drop is None else [f"{points(-drop)} points"])]


def _interval(rate: Rate) -> str:
    interval = rate.interval()
    return "" if interval is None else f"[{100 * interval[0]:.1f}–{100 * interval[1]:.1f}]"


def _published_after(row: TableRow, name: str, measured: Spread) -> list[str]:
    share = None if row.published is None else getattr(row.published, name)
    return published_lines(share, None if share is None or measured.mean is None else measured.mean - share)


def published_lines(share: float | None, difference: float | None) -> list[str]:
    """What was published, and how far ours is from it; nothing where nothing was."""
    if share is None:
        return []
    return [f"published {percent(share)}" + ("" if difference is None else f", {points(difference)}")]


def _same(table: Table, text: Callable[[TableRow], str]) -> bool:
    return len({text(row) for row in table.rows}) == 1
