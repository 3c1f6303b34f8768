"""What a person reads in the terminal about one audited file."""

from goodnet.core.trigger import Trigger
from goodnet.report.audited import AuditedFile
from goodnet.report.words import headline

_MOST_TRIGGERS = 5


def block(item: AuditedFile) -> str:
    """The verdict in a sentence, then what it rests on, a line each."""
    lines = [item.file, f"  {headline(item)}"]
    lines += [f"  {name:<9}{text}" for name, text in _facts(item)]
    return "\n".join(lines)


def _facts(item: AuditedFile) -> list[tuple[str, str]]:
    verdict = item.verdict
    if verdict is None:
        return []
    facts = [("why", verdict.reason)] if verdict.flagged is not None else []
    facts += [("targets", ", ".join(_label(item, target) for target in verdict.targets))] if verdict.targets else []
    p_value = "none, there is nothing to compare with" if verdict.p_value is None else f"{verdict.p_value:.2g}"
    facts.append(("p-value", f"{p_value} (alpha {verdict.alpha:g})"))
    kind = "trigger" if verdict.flagged else "smallest"
    facts += [(kind, _trigger(item, trigger)) for trigger in verdict.triggers[:_MOST_TRIGGERS]]
    if len(verdict.triggers) > _MOST_TRIGGERS:
        facts.append(("", f"and {len(verdict.triggers) - _MOST_TRIGGERS} more"))
    cost = verdict.provenance
    facts.append(("cost", f"{cost.seconds:.1f} s, {cost.peak_memory_bytes / 2**20:.0f} MiB on {cost.device}"))
    notes = (*(item.model.notes if item.model else ()), *(item.held.notes if item.held else ()))
    return facts + [("note", note) for note in notes]


def _label(item: AuditedFile, label: int) -> str:
    names = item.class_names
    return f"{label} ({names[label]})" if label < len(names) and names[label] != str(label) else str(label)


def _trigger(item: AuditedFile, trigger: Trigger) -> str:
    return (
        f"to {_label(item, trigger.target)}: {float(trigger.mask.sum()):.1f} of {trigger.mask.numel()} pixels, "
        f"works on {trigger.success_rate:.0%} of {trigger.count} held-out images"
    )
