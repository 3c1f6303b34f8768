"""What a repair was worth: attack success and accuracy, before and after, in one number or one answer."""

from goodnet.errors import ParameterError
from goodnet.evaluation.rates import Change

_ROUNDING = 1e-12  # 0.91 - 0.88 is a little more than 0.03 in binary; counts of a million cannot differ by so little


def defense_effectiveness(attack: Change, accuracy: Change) -> float | None:
    """Defense effectiveness rating: DER = [max(0, ASR drop) - max(0, ACC drop) + 1] / 2, in [0, 1].

    1: the attack went from always to never and accuracy did not fall; 0.5: nothing changed; 0: accuracy went from 1 to
    0 and the attack is as good as before. A loss of accuracy is subtracted; gains of accuracy and of the attack count
    nothing.

    Args:
        attack: attack success before and after.
        accuracy: clean accuracy before and after.

    Returns:
        None when one of the four rates is of nothing.

    Source: Zhu et al., Enhancing fine-tuning based backdoor defense with sharpness-aware minimization (FT-SAM),
    ICCV 2023, Eq. 7.
    """
    attack_drop, accuracy_drop = attack.drop, accuracy.drop
    if attack_drop is None or accuracy_drop is None:
        return None
    return (max(0.0, attack_drop) - max(0.0, accuracy_drop) + 1) / 2


def repair_succeeded(
    attack: Change, accuracy: Change, *, attack_at_most: float = 0.10, accuracy_drop_at_most: float = 0.03
) -> bool | None:
    """Whether the attack is gone and accuracy is kept: ASR after <= 10 % and accuracy drop <= 3 points, by default.

    A model whose attack never worked passes as well: look at ``attack.before`` beside this answer.

    Args:
        attack: attack success before and after.
        accuracy: clean accuracy before and after.
        attack_at_most: in [0, 1].
        accuracy_drop_at_most: in [0, 1]; 0.03 are three points of percentage.

    Returns:
        None when the attack success after, or one of the accuracies, is of nothing.

    Raises:
        ParameterError: a threshold is out of its range.
    """
    for name, limit in (("attack_at_most", attack_at_most), ("accuracy_drop_at_most", accuracy_drop_at_most)):
        if not 0 <= limit <= 1:
            raise ParameterError(f"{name} must be in [0, 1], got {limit!r}")
    left, lost = attack.after.value, accuracy.drop
    if left is None or lost is None:
        return None
    return left <= attack_at_most and lost <= accuracy_drop_at_most + _ROUNDING
