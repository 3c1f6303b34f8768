"""What commands that repair a model tell a person."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from goodnet.guard.goodnet import GoodNet
    from goodnet.repair.files import FileRepair

_RETUNED = {True: "suppressed, not removed", False: "not only suppressed", None: "which tells nothing"}


def repair_words(result: "FileRepair", file: Path, out: Path) -> str:
    """All of it for a person."""
    lines = [str(file), "  repaired" if result.accepted else "  not repaired: the old model stays"]
    lines.append(f"  why      {result.reason}")
    if (proof := result.proof) is not None:
        before, after = (f"{hits}{_between(hits, proof.count)}" for hits in (proof.before, proof.after))
        lines.append(f"  right    {before} of {proof.count} images kept aside before, {after} after")
        lines += [
            f"  trigger  to {one.target}: works on {one.before} of {one.count} stamped images before, "
            f"{one.after} after{_between(one.after, one.count)}; {one.recovered} get their right answer"
            for one in proof.triggers
        ]
    lines += [
        f"  retuned  shown again, the trigger to {one.target} comes back on {one.regained} of {one.count}, a new mark "
        f"on {one.control}: {_RETUNED[one.suppressed]}"
        for one in result.retuned
    ]
    if result.repaired is not None:
        name = result.repaired.provenance.method
        chosen = result.repaired.evidence.get("chosen", name)
        lines.append(f"  method   {name}" if chosen == name else f"  method   {name}: {chosen}")
    if result.proof is not None and result.proof.triggers:
        lines.append("  limits   this is proved for reconstructed triggers; the attacker's own may differ")
    notes = result.suspect.origin.notes
    return "\n".join([*lines, *(f"  note     {note}" for note in notes), f"  written  {out / 'model'}"])


def _between(hits: int, count: int) -> str:
    """The 95 % interval of a share in brackets; nothing when nothing was counted."""
    from goodnet.core.rates import Rate

    interval = Rate(hits, count).interval()
    return "" if interval is None else f" (95 % interval {interval[0]:.1%} to {interval[1]:.1%})"


def goodnet_words(goodnet: "GoodNet | None", out: Path) -> list[str]:
    """What the GoodNet does, for a person."""
    if goodnet is None or goodnet.calibration is None:
        return []
    fitted = goodnet.calibration
    caught = (
        f", on {fitted.caught} of {fitted.stamped} under a reconstructed trigger; {fitted.succeeded} go to its target"
        if fitted.stamped
        else ""
    )
    own = "gives the old model's own answers, or" if goodnet.rule.name == "second-opinion" else "answers"
    return [
        f"  goodnet  {out / 'goodnet'} {own} {goodnet.num_classes} for a trigger: on {fitted.false_alarms} of "
        f"{fitted.count} clean images{caught}"
    ]
