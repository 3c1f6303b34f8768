"""The retuning gate tells a backdoor that is suppressed from one that was never there."""

from dataclasses import replace

import pytest
import torch
from planted import TARGET

from goodnet.core.run import Run
from goodnet.core.trigger import Trigger
from goodnet.repair.retuning import Retuned, _with_stamped, control_of, retune


@pytest.fixture(scope="module")
def trigger(planted) -> Trigger:
    mask = (planted.attack.stamp(torch.zeros(1, 1, 32, 32)) > 0)[0, 0].float()
    return Trigger(target=TARGET, mask=mask, pattern=torch.ones(1, 32, 32), success_rate=1.0, count=10)


def gate(model, planted, trigger: Trigger, labeled: bool = True) -> Retuned:
    clean, aside = (planted.clean.pick(torch.arange(len(planted.clean)) % 2 == part) for part in (0, 1))
    clean = clean if labeled else clean.without_labels()
    (result,) = retune(model, clean, aside, (trigger,), Run(torch.Generator().manual_seed(0)))
    return result


@pytest.mark.parametrize("labeled", [True, False])
def test_a_backdoor_that_is_there_comes_back_at_once_and_one_that_never_was_does_not(planted, trigger, labeled: bool):
    assert gate(planted.badnet, planted, trigger, labeled).suppressed
    assert gate(planted.twin, planted, trigger, labeled).suppressed is False


def test_the_model_that_is_tested_is_untouched(planted, trigger):
    before = [value.clone() for value in planted.badnet.state_dict().values()]
    gate(planted.badnet, planted, trigger)
    assert all(torch.equal(*pair) for pair in zip(before, planted.badnet.state_dict().values(), strict=True))


@pytest.mark.parametrize(
    ("regained", "control", "suppressed"),
    [
        (100, 0, True),
        (45, 40, False),  # 5 points are not notable
        (30, 45, False),  # the control is learned faster
        (100, 51, None),  # anything would be learned
        (12, 0, True),
        (9, 0, False),
        (0, 0, False),
    ],
)
def test_suppressed_means_notably_and_surely_faster_than_the_control(
    regained: int, control: int, suppressed: bool | None
):
    assert Retuned(target=1, regained=regained, control=control, count=100).suppressed is suppressed


def test_few_images_prove_nothing():
    assert not Retuned(target=1, regained=2, control=0, count=4).suppressed
    assert Retuned(target=1, regained=0, control=0, count=0).suppressed is None


def test_the_control_takes_as_many_pixels_and_looks_otherwise(trigger):
    control = control_of(trigger)
    assert control.mask.sum() == trigger.mask.sum()
    assert control.target == trigger.target
    lopsided = replace(trigger, pattern=torch.rand(1, 32, 32))
    torch.testing.assert_close(control_of(lopsided).pattern, 1 - lopsided.pattern.flip(1).flip(2))
    images = torch.rand(3, 1, 32, 32)
    assert not torch.equal(control.stamp(images), trigger.stamp(images))


def test_the_few_images_that_show_a_trigger_again_are_of_other_labels_and_wanted_as_the_target(planted, trigger):
    answers = planted.clean.labels
    samples, wanted = _with_stamped(planted.clean, answers, trigger, 5, torch.Generator().manual_seed(0))
    count = len(planted.clean)
    assert torch.equal(samples.images[:count], planted.clean.images)
    assert torch.equal(wanted[:count], answers)
    assert wanted[count:].tolist() == [TARGET] * 5
    others = planted.clean.pick(answers != TARGET)
    stamped = {bytes(image.numpy()) for image in (trigger.stamp(others.floats()) * 255).round().byte()}
    assert all(bytes(image.numpy()) in stamped for image in samples.images[count:])
