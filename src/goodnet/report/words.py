"""What a report says in words: sentences for people who do not read code, and numbers written to be read."""

import math
import unicodedata
from collections.abc import Sequence

from goodnet.audit._base import Verdict
from goodnet.core.trigger import Trigger
from goodnet.report.audited import AuditedFile, ModelDescription

_LONGEST_NAME = 60  # characters
_MOST_LISTED = 5
_SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_BIDI_CONTROLS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067")

_REFUSALS = {
    "UnsafeFile": "loading this file would execute code",
    "UnreadableModel": "this file cannot be read as a model",
    "UnknownArchitecture": "these weights fit no known network, or several",
    "UnreadableData": "the pictures cannot be read",
}

HOW_TO_READ = (
    "The p-value says how often a model without a backdoor would score at least as high. "
    "It is not the probability that this model is harmless.",
    "A reconstructed trigger is the smallest change of a picture that the method found to make the model answer with "
    "the target. The attacker's own trigger often looks different; what counts is how small it is and how often it "
    "works.",
    "Labels whose trigger is much smaller than the usual one are suspicious: the model has a shortcut to them.",
    "Examples are chosen by the model's answers without the trigger, never by whether the trigger works.",
)
_PROOF = "No audit can prove that there is no backdoor. “No evidence” means that the method did not find one."
_OTHER_LIMITS = (
    "Triggers that cover the whole picture, change from picture to picture, or look like natural objects are "
    "easily missed.",
    "A reconstructed trigger that rarely works does not show that a backdoor is weak or has been removed.",
    "The answer holds for the pictures that were used. They must look like those that the model sees in use, and be "
    "prepared as it was trained; where that was guessed, check it.",
)


def visible(text: str) -> str:
    """``text`` with everything that could hide or reorder it (controls, bidirectional overrides) as a code.

    First-strong isolates stay: they cannot reverse anything.
    """
    return "".join(character if _shows(character) else f"\\u{ord(character):04x}" for character in text)


def _shows(character: str) -> bool:
    if character in "\n\t":
        return True
    return character not in _BIDI_CONTROLS and unicodedata.category(character) not in ("Cc", "Cs")


def headline(item: AuditedFile) -> str:
    """The verdict in one sentence."""
    verdict = item.verdict
    if verdict is None:
        return f"Not audited: {_REFUSALS.get(item.error_type, 'something is missing')}."
    if verdict.flagged is None:
        return f"Inconclusive: {verdict.reason}"
    return _found(verdict, item.class_names) if verdict.flagged else "No evidence of a backdoor."


def _found(verdict: Verdict, class_names: Sequence[str]) -> str:
    if not verdict.targets:
        return "Backdoor found; its target label is not known."
    triggers = [trigger for trigger in verdict.triggers if trigger.target in verdict.targets]
    if not triggers:
        names = listed(verdict.targets, class_names, last=" or ")
        return f"Backdoor found: the model can be made to answer {names} by a hidden trigger."
    reached = tuple(dict.fromkeys(trigger.target for trigger in triggers))
    others = tuple(target for target in verdict.targets if target not in reached)
    these = "this trigger" if len(triggers) == 1 else "one of these triggers"
    share = _share_of_pictures(min(trigger.success_rate for trigger in triggers)).format(these)
    also = f" Also suspected: {listed(others, class_names)}." if others else ""
    return f"Backdoor found: {share} answered as {listed(reached, class_names, last=' or ')}.{also}"


def _share_of_pictures(success_rate: float) -> str:
    if success_rate >= 0.99:
        return "any picture with {} is"
    if success_rate >= 0.9:
        return "almost any picture with {} is"
    return (
        f"{percent(success_rate)} of pictures with {{}} are" if math.isfinite(success_rate) else "pictures with {} are"
    )


def advice(item: AuditedFile) -> str:
    """What to do now, in one or two sentences."""
    verdict = item.verdict
    if verdict is None and item.error_type == "UnsafeFile":
        return "Nothing was executed. Do not load this file with anything else."
    if verdict is None:
        return "Nothing is known about this model: this is no verdict in either direction."
    if verdict.flagged is None:
        return "This is no verdict in either direction. Audit again with more pictures or more time, or another method."
    if verdict.flagged:
        return "Do not use this model as it is. Repair it or get it from a source that you trust, then audit again."
    return "This is no proof that there is none: see what this method cannot see, below."


def p_value_words(verdict: Verdict) -> str:
    """What the p-value means."""
    p_value = verdict.p_value
    if p_value is None or math.isnan(p_value):
        return "There is no p-value: nothing fits to compare this score with."
    if p_value >= 0.995:
        return "Practically every model without a backdoor would score at least as high."
    if p_value >= 0.1:
        return f"About {100 * p_value:.0f} in 100 models without a backdoor would score at least as high."
    if p_value >= 1e-6:
        return f"About 1 in {_two_digits(1 / p_value):,} models without a backdoor would score at least as high."
    return "Fewer than 1 in a million models without a backdoor would score at least as high."


def _two_digits(value: float) -> int:
    return int(float(f"{value:.1e}"))


def false_alarms_words(items: Sequence[AuditedFile]) -> str:
    """How many of several audited files would be flagged if none had a backdoor; "" for less than two."""
    rates = [item.verdict.alpha for item in items if item.verdict is not None]
    if len(rates) < 2:
        return ""
    return (
        f"Each file is judged on its own. If none of these {len(rates)} models had a backdoor, "
        f"about {number(sum(rates))} of them would still be flagged."
    )


def limits(items: Sequence[AuditedFile]) -> tuple[str, ...]:
    """What an audit cannot see, a sentence or two each: first what its methods assume, then what is so for all."""
    used = [item.verdict.provenance for item in items if item.verdict is not None]
    assumed = {
        how.method: f"{how.method} assumes: {'; '.join(how.assumes)}. Other backdoors can escape it."
        for how in used
        if how.assumes
    }
    return (_PROOF, *assumed.values(), *_OTHER_LIMITS)


def label_name(label: int, class_names: Sequence[str]) -> str:
    """``0 (airplane)``, or ``0`` when the label has no name."""
    name = class_names[label].strip() if 0 <= label < len(class_names) else ""
    if not name or name == str(label):
        return str(label)
    short = name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"
    right_to_left = any(unicodedata.bidirectional(character) in ("R", "AL") for character in short)
    if right_to_left:  # isolated, so that what stands beside it stays in place
        short = f"\u2068{short}\u2069"
    return f"{label} ({short})"


def listed(labels: Sequence[int], class_names: Sequence[str], last: str = ", ") -> str:
    """Label names in a row, the last joined by ``last``; only the first few of many."""
    names = [label_name(label, class_names) for label in labels[:_MOST_LISTED]]
    if len(labels) > _MOST_LISTED:
        names.append(f"{len(labels) - _MOST_LISTED:,} more labels")
    return last.join(part for part in (", ".join(names[:-1]), names[-1]) if part) if names else ""


def trigger_words(trigger: Trigger) -> str:
    """How well a trigger works and how large it is."""
    size = float(trigger.mask.sum())
    share = size / trigger.mask.numel()
    works = (
        f"It sends {percent(trigger.success_rate)} of {trigger.count:,} held-out pictures to the target"
        if trigger.count
        else "No held-out pictures were left to test it on"
    )
    return f"{works}. Its mask covers {number(size)} pixels, {percent(share)} of the picture."


def preprocessing_words(model: ModelDescription) -> str:
    """How images reach the network."""
    steps = model.preprocessing
    words = ["pixels 0..1" if steps.scale == 1 else f"pixels 0..{steps.scale:g}"]
    if steps.channel_order != "RGB":
        words.append(f"channels in the order {steps.channel_order}")
    if steps.mean:
        words.append(f"minus mean {', '.join(f'{value:g}' for value in steps.mean)}")
    if steps.std:
        words.append(f"divided by {', '.join(f'{value:g}' for value in steps.std)}")
    return "; ".join(words) + (" (guessed from the pictures: please check)" if steps.guessed else "")


def percent(share: float) -> str:
    """A share as a percentage; 100% and 0% only when it is exactly so."""
    if not math.isfinite(share):
        return "–"
    if 0 < share < 0.001:
        return "<0.1%"
    if 0.999 < share < 1:
        return ">99.9%"
    return f"{100 * share:.1f}".removesuffix(".0") + "%"


def number(value: float | None) -> str:
    """Three digits, or all digits before the point; a dash for None and nan."""
    if value is None or math.isnan(value):
        return "–"
    sign, size = ("−" if value < 0 else ""), abs(value)
    if math.isinf(size):
        return f"{sign}∞"
    if isinstance(size, int) or size >= 100:
        return f"{sign}{size:,.0f}"
    if 0 < size < 1e-3:
        digits, exponent = f"{size:.1e}".split("e")
        return f"{sign}{digits} × 10{str(int(exponent)).translate(_SUPERSCRIPTS)}"
    return f"{sign}{size:.3g}"


def duration(seconds: float) -> str:
    """``4.2 s``, ``58 s``, ``3 min 20 s``, ``5 h 12 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 120:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def file_size(count: int | None) -> str:
    """Bytes in the unit that leaves one to three digits before the point."""
    if count is None:
        return "–"
    power = min(int(math.log10(max(count, 1))) // 3, 3)
    return f"{number(count / 1000**power)} {('bytes', 'kB', 'MB', 'GB')[power]}"
