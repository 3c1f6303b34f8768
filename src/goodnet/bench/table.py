"""Table: the rows of a suite with what a store knows about them, whoever computed it, and what is still missing."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from pydantic import JsonValue

from goodnet.attacks import attacks
from goodnet.audit._base import auditors
from goodnet.bench import naming
from goodnet.bench.cells import cell_of
from goodnet.bench.changed import Changed
from goodnet.bench.cleansings import CleanseTrial, cleanser_summaries
from goodnet.bench.figures import Figures, figures_of
from goodnet.bench.learnings import learner_summaries
from goodnet.bench.record import Cell, canonical
from goodnet.bench.repairs import repair_summaries
from goodnet.bench.store import Store
from goodnet.bench.suite import Suite
from goodnet.bench.trial import STATUSES, Trial, trial_of
from goodnet.cleanse._base import cleansers
from goodnet.evaluation import Rate, Spread, spread
from goodnet.learn._base import learners
from goodnet.repair._base import repairers


@dataclass(frozen=True, kw_only=True)
class TableRow:
    """A row of the table: what was tried, in short words, and a trial for each seed.

    Attributes:
        values: the row of the suite (of the first trial).
        data, architecture, recipe, attack, audit, repair, cleanse, learn: names, with the parameters that differ from
            their defaults.
        label: what the suite calls it, or "".
        published: figures to compare with, or None.
        trials: one for each seed, at least one.
    """

    values: Mapping[str, JsonValue]
    data: str
    architecture: str
    recipe: str
    attack: str
    audit: str
    repair: str
    cleanse: str
    learn: str
    label: str
    published: Figures | None
    trials: tuple[Trial, ...]

    @property
    def accuracy(self) -> Spread:
        """Clean accuracy over the seeds."""
        return _spread(trial.accuracy for trial in self.trials)

    @property
    def success(self) -> Spread:
        """Attack success over the seeds."""
        return _spread(trial.success for trial in self.trials)

    @property
    def accuracy_after(self) -> Spread:
        """Clean accuracy of what was repaired, accepted by the proof or not, or learned; of nothing without one."""
        return self._changed(lambda one: one.accuracy.after.value)

    @property
    def success_after(self) -> Spread:
        """Attack success, likewise."""
        return self._changed(lambda one: None if one.success is None else one.success.after.value)

    @property
    def final_accuracy(self) -> Spread:
        """Clean accuracy after the defense where the row has one that is done, else as measured."""
        return self.accuracy_after if self.accuracy_after.count else self.accuracy

    @property
    def final_success(self) -> Spread:
        """Attack success, likewise."""
        return self.success_after if self.accuracy_after.count else self.success

    @property
    def accuracy_drop(self) -> Spread:
        """What the defense cost, before minus after on the same images."""
        return self._changed(lambda one: one.accuracy.drop)

    @property
    def effectiveness(self) -> Spread:
        """Defense effectiveness rating of the defense."""
        return self._changed(lambda one: one.effectiveness)

    @property
    def auroc(self) -> Spread:
        """AUROC of a cleanser's scores; of nothing without one."""
        return self.cleansed(lambda one: one.auroc)

    def cleansed(self, value: Callable[[CleanseTrial], float | None]) -> Spread:
        """A number of the cleansings that are done and have it."""
        values = [value(trial.cleansed) for trial in self.trials if trial.cleansed is not None]
        return spread([one for one in values if one is not None])

    def _changed(self, value: Callable[[Changed], float | None]) -> Spread:
        values = [value(trial.changed) for trial in self.trials if trial.changed is not None]
        return spread([one for one in values if one is not None])

    @property
    def accuracy_difference(self) -> float | None:
        """Measured minus published clean accuracy; None where one of the two is not known."""
        return _minus(self.accuracy.mean, self.published.clean_accuracy if self.published else None)

    @property
    def success_difference(self) -> float | None:
        """Measured minus published attack success; None where one of the two is not known."""
        return _minus(self.success.mean, self.published.attack_success_rate if self.published else None)

    def as_json(self) -> dict[str, Any]:
        return {
            "label": self.label,
            "data": self.data,
            "architecture": self.architecture,
            "recipe": self.recipe,
            "attack": self.attack,
            "audit": self.audit,
            "repair": self.repair,
            "cleanse": self.cleanse,
            "learn": self.learn,
            "row": dict(self.values),
            "clean_accuracy": asdict(self.accuracy),
            "attack_success_rate": asdict(self.success),
            "clean_accuracy_after": asdict(self.accuracy_after),
            "attack_success_rate_after": asdict(self.success_after),
            "accuracy_drop": asdict(self.accuracy_drop),
            "defense_effectiveness": asdict(self.effectiveness),
            "auroc": asdict(self.auroc),
            "published": None if self.published is None else self.published.model_dump(),
            "difference": {
                "clean_accuracy": self.accuracy_difference,
                "attack_success_rate": self.success_difference,
            },
            "trials": [trial.as_json() for trial in self.trials],
        }


@dataclass(frozen=True)
class Table:
    """A suite with what a store knows about each of its rows.

    Attributes:
        name, summary: of the suite.
        size: of the suite; "full" where none was chosen.
        rows: in the order of the suite.
    """

    name: str
    summary: str
    size: str
    rows: tuple[TableRow, ...]

    @property
    def trials(self) -> tuple[Trial, ...]:
        """Those of all rows."""
        return tuple(trial for row in self.rows for trial in row.trials)

    def count(self, status: str) -> int:
        """How many trials are "done", "failed" or "missing"."""
        return sum(trial.status == status for trial in self.trials)

    def gathered(self) -> "Table":
        """The same, rows that differ in nothing but the seed as one; trials that are one cell count once."""
        together: dict[str, TableRow] = {}
        for row in self.rows:
            name = canonical({key: value for key, value in row.values.items() if key != "seed"})
            first = together.setdefault(name, row)
            known = {trial.key for trial in first.trials}
            fresh = (trial for trial in row.trials if trial.key not in known)
            together[name] = replace(first, trials=(*first.trials, *fresh))
        return replace(self, rows=tuple(together.values()))

    def as_json(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "suite": self.name,
            "size": self.size,
            **{status: self.count(status) for status in STATUSES},
            "rows": [row.as_json() for row in self.rows],
            "repairers": [asdict(one) for one in repair_summaries(self)],
            "cleansers": [asdict(one) for one in cleanser_summaries(self)],
            "learners": [asdict(one) for one in learner_summaries(self)],
        }


def table(suite: Suite, size: str, store: Store) -> Table:
    """The rows of a suite with what ``store`` knows, each with one trial.

    Raises:
        UnknownName: the suite has no such size.
        UsageError: a row is wrong; see ``cell_of``.
    """
    rows = tuple(_table_row(values, cell_of(values), store) for values in suite.rows(size))
    return Table(suite.name, suite.summary, size, rows)


def _table_row(values: Mapping[str, JsonValue], cell: Cell, store: Store) -> TableRow:
    parameters: Mapping[str, Any] = cell.parameters
    tried = parameters if cell.kind in ("model", "published") else parameters["model"]
    return TableRow(
        values=values,
        data=naming.data(tried["data"]),
        architecture=tried["architecture"] if "architecture" in tried else tried["model"]["file"],
        recipe=naming.recipe(tried.get("recipe")),
        attack=naming.method(tried["attack"], attacks),
        audit=naming.audit(parameters, auditors) if cell.kind == "audit" else "none",
        repair=naming.repair(parameters, repairers) if cell.kind == "repair" else "none",
        cleanse=naming.cleanse(parameters, cleansers) if cell.kind == "cleanse" else "none",
        learn=naming.learn(parameters, learners) if cell.kind == "learn" else "none",
        label=str(values.get("label", "")),
        published=figures_of(values.get("published")),
        trials=(trial_of(values, cell, store),),
    )


def _minus(ours: float | None, theirs: float | None) -> float | None:
    return None if ours is None or theirs is None else ours - theirs


def _spread(rates: Iterable[Rate | None]) -> Spread:
    return spread([rate.value for rate in rates if rate is not None and rate.value is not None])
