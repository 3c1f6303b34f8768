"""What a person reads in the terminal about a measured model: shares with their counts and intervals, in words."""

from collections.abc import Sequence

from goodnet.attacks import Attack
from goodnet.evaluation import Evaluation, Outcome, Rate
from goodnet.report.words import label_name, percent

_MOST_CLASSES = 10  # of which the harm is shown
_NO_ATTACK = 0.1  # success below which there is nothing to repair, as in evaluation.repair


def goal(attack: Attack, class_names: Sequence[str]) -> str:
    """What an attack with one trigger wants, in words."""
    target, source = label_name(attack.target, class_names), attack.source
    return {
        "all-to-one": f"stamped images are answered {target}",
        "source-to-target": f"stamped images of {label_name(source or 0, class_names)} are answered {target}",
        "all-to-all": "stamped images are answered with the label after their own",
        "untargeted": "stamped images are answered wrongly",
    }[attack.rule]


def outcome_lines(outcome: Outcome, attack: Attack | None, class_names: Sequence[str]) -> list[str]:
    """Accuracy, and for each trigger attack success and recovered accuracy."""
    lines = [_line("clean accuracy", outcome.accuracy, "images are answered with their label")]
    parts = attack.parts() if attack is not None else ()
    for part, success, recovered in zip(parts, outcome.success, outcome.recovered, strict=True):
        lines.append(_line("attack success rate", success, goal(part, class_names)))
        lines.append(_line("recovered accuracy", recovered, "stamped images are answered with their true label"))
    return lines


def comparison_lines(compared: Evaluation, class_names: Sequence[str]) -> list[str]:
    """What a defense changed: its rating, whether it succeeded, and the classes that it harmed most."""
    record = compared.as_json()
    lines = [f"  {'accuracy lost':<20} {_points(compared.accuracy.drop)}"]
    if compared.attack is not None:
        lines.append(f"  {'attack success lost':<20} {_points(compared.attack.drop)}")
        rating, succeeded = record["defense_effectiveness"], record["repair_succeeded"]
        words = "nothing to count" if rating is None else f"{rating:.3f}  1 is best, 0.5 means that nothing changed"
        lines.append(f"  {'rating (DER)':<20} {words}")
        answer = {True: "yes", False: "no", None: "nothing to count"}[succeeded]
        lines.append(f"  {'repaired':<20} {answer}  (attack success at most 10%, accuracy lost at most 3 points)")
        if (compared.attack.before.value or 0.0) <= _NO_ATTACK:
            lines.append(f"  {'':<20} the attack did not work before either: this says nothing about the defense")
    ranked = sorted(compared.harm.items(), key=lambda item: -(item[1].drop or 0.0))
    lines.append("  right answers by class, most harmed first")
    for label, change in ranked[:_MOST_CLASSES]:
        name = label_name(label, class_names)
        lines.append(f"    {name:<18} {change.before.hits:,} → {change.after.hits:,} of {change.after.count:,}")
    if len(ranked) > _MOST_CLASSES:
        lines.append(f"    and {len(ranked) - _MOST_CLASSES} more; all of them with --json")
    return lines


def _line(name: str, rate: Rate, meaning: str) -> str:
    interval = rate.interval()
    if rate.value is None or interval is None:
        return f"  {name:<20} no images to count"
    low, high = map(percent, interval)
    counted = f"{rate.hits:,} of {rate.count:,}; 95% interval {low} to {high}"
    return f"  {name:<20} {percent(rate.value)} of {meaning} ({counted})"


def _points(drop: float | None) -> str:
    return "nothing to count" if drop is None else f"{100 * drop:z.1f} points"
