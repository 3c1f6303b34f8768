"""A "learn" cell: a learner is given the training set of a net; what it makes of it is measured beside that net."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import JsonValue

from goodnet.attacks import load_attack
from goodnet.bench.kinds._common import held_and_rest
from goodnet.bench.kinds._training_set import training_set_of, with_sources
from goodnet.bench.record import Cell
from goodnet.bench.store import Store
from goodnet.core.defender import Defender
from goodnet.core.params import make
from goodnet.evaluation import evaluate, removal
from goodnet.learn._base import learners
from goodnet.learn._curves import loss_curves
from goodnet.models.load import load_model
from goodnet.models.save import save_model
from goodnet.training import Recipe


def learn(cell: Cell, folder: Path, store: Store, data: Path | None) -> dict[str, JsonValue]:
    """The net of the cell that this one needs was trained plainly; the learner has its recipe. The new net is saved."""
    parameters: Mapping[str, Any] = cell.parameters
    owned, seed = training_set_of(parameters["model"], data), parameters["seed"]
    trained = store.folder(cell.needs[0].key)
    plain, recipe = load_model(trained / "model"), make(Recipe, parameters["model"]["recipe"])
    learner = make(learners[parameters["learn"]["name"]], parameters["learn"]["parameters"])
    held, rest = held_and_rest(owned.test, parameters["held"], seed)
    learned = replace(learner, recipe=recipe).run(
        Defender(
            model=plain,  # says which kind of network; its weights are drawn anew
            clean=held if parameters["labeled"] else held.without_labels(),
            training_set=with_sources(owned, parameters["sources"], seed),
        ),
        seed=seed,
    )
    save_model(learned.model, folder / "model")
    attack = None if parameters["model"]["attack"] is None else load_attack(trained / "attack")
    evaluation, gone = evaluate(plain, learned.model, rest, attack).as_json(), learned.distrusted
    judged = ~owned.covers
    distrusted = None if gone is None else removal(gone[judged].numpy(), owned.poisoned[judged].numpy())
    return {
        "test_images": len(rest),
        **evaluation["before"],
        "learn": {
            "evaluation": evaluation,
            "poison_distrusted": None if distrusted is None else distrusted.recall.as_json(),
            "clean_distrusted": None if distrusted is None else distrusted.false_positive_rate.as_json(),
            "notes": dict(learned.notes),
            "loss_curves": None if learned.losses is None else loss_curves(learned.losses, owned.poisoned),
            "seconds": learned.provenance.seconds,
        },
    }
