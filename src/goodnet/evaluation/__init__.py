"""Where truth meets a result: metrics that keep their counts. ``docs/metrics.md`` defines each of them."""

from goodnet.core.rates import Rate
from goodnet.evaluation.auroc import Ranking, ranking, roc_points
from goodnet.evaluation.cleansing import CleansingOutcome, measure_cleansing
from goodnet.evaluation.detection import OperatingPoint, Removal, at_false_positive_rate, at_threshold, removal
from goodnet.evaluation.evaluate import Evaluation, Outcome, evaluate, measure
from goodnet.evaluation.files import FileEvaluation, evaluate_file
from goodnet.evaluation.goodnets import GoodNetOutcome, measure_goodnet
from goodnet.evaluation.guards import GuardOutcome, measure_guard
from goodnet.evaluation.plan import Plan, plan_of, read_plan
from goodnet.evaluation.pruned import pruning_rates
from goodnet.evaluation.rates import Change, accuracy_per_class, clean_accuracy, harm_per_class
from goodnet.evaluation.repair import defense_effectiveness, repair_succeeded
from goodnet.evaluation.seeds import Spread, paired_difference, spread
from goodnet.evaluation.stamped import (
    NPlusOneRates,
    attack_success,
    n_plus_one_on_clean,
    n_plus_one_on_stamped,
    recovered_accuracy,
)
from goodnet.evaluation.training_run import TrainingRun, train_run

__all__ = [
    "Change",
    "CleansingOutcome",
    "Evaluation",
    "FileEvaluation",
    "GoodNetOutcome",
    "GuardOutcome",
    "NPlusOneRates",
    "OperatingPoint",
    "Outcome",
    "Plan",
    "Ranking",
    "Rate",
    "Removal",
    "Spread",
    "TrainingRun",
    "accuracy_per_class",
    "at_false_positive_rate",
    "at_threshold",
    "attack_success",
    "clean_accuracy",
    "defense_effectiveness",
    "evaluate",
    "evaluate_file",
    "harm_per_class",
    "measure",
    "measure_cleansing",
    "measure_goodnet",
    "measure_guard",
    "n_plus_one_on_clean",
    "n_plus_one_on_stamped",
    "paired_difference",
    "plan_of",
    "pruning_rates",
    "ranking",
    "read_plan",
    "recovered_accuracy",
    "removal",
    "repair_succeeded",
    "roc_points",
    "spread",
    "train_run",
]
