"""Trigger inversion: what is kept, what is counted, how the penalty moves, and that batching changes nothing."""

import pytest
import torch
from planted import TARGET, untrained

from goodnet.audit._inversion import Inverter, TriggerBatch, start
from goodnet.audit._paper_schedule import DynamicPenalty, invert_label
from goodnet.core.classifier import Classifier


class Corner(torch.nn.Module):
    """Answers label 1 where the top left pixel is brighter than half, label 2 where the image is black, else 0."""

    def __init__(self):
        super().__init__()
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def forward(self, images):
        corner = 20 * (images[:, 0, 0, 0] - 0.5)
        black = 5 - 100 * images.flatten(1).mean(1)
        return torch.stack([torch.zeros_like(corner), corner, black], dim=1)


def corner_net() -> Classifier:
    return Classifier(Corner(), input_shape=(1, 8, 8), num_classes=3).eval().requires_grad_(False)


def inverter(model: Classifier, images: torch.Tensor, wanted: float = 0.98, rows: int = 1024) -> Inverter:
    generator = torch.Generator().manual_seed(0)
    return Inverter(model, images, generator, success_wanted=wanted, rows=rows, mixed_precision=False)


def batch_of(labels: torch.Tensor, mask_value: float = 0.5, shape=(1, 8, 8), cell: int = 1) -> TriggerBatch:
    mask = torch.full((len(labels), 1, *shape[1:]), mask_value)
    return start(mask, torch.full((len(labels), *shape), 0.6), labels, cell)


def optimize(tool: Inverter, batch: TriggerBatch, steps: int, images: int = 4) -> torch.Tensor:
    return tool.round(batch, steps=steps, images=images, penalty=0.01, adapt=True)


GREY = torch.full((4, 1, 8, 8), 0.3)


def test_success_does_not_count_images_that_are_answered_as_the_label_without_a_trigger():
    images = GREY.clone()
    images[:3, 0, 0, 0] = 1.0  # three of four are label 1 already
    nothing, white = torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)
    label = torch.tensor([1])
    tool = inverter(corner_net(), images)
    assert [value.tolist() for value in tool.success_on(images, nothing, white, label)] == [[0.0], [1]]
    assert [value.tolist() for value in tool.success_on(images, white, white, label)] == [[1.0], [1]]


def test_success_with_no_image_to_count_is_zero_of_zero():
    images = torch.ones(4, 1, 8, 8)
    white = torch.ones(1, 1, 8, 8)
    share, count = inverter(corner_net(), images).success_on(images, white, white, torch.tensor([1]))
    assert (share.item(), count.item()) == (0.0, 0)


def test_the_trigger_of_a_net_that_looks_at_one_pixel_is_that_pixel():
    batch = batch_of(torch.tensor([1]))
    optimize(inverter(corner_net(), GREY), batch, 300)
    assert float(batch.best_size[0]) < 1.5
    assert float(batch.best_mask[0, 0, 0, 0]) > 0.25
    assert int(batch.best_mask.argmax()) == 0


def test_the_best_size_is_that_of_the_best_mask_and_belongs_to_a_trigger_that_works():
    labels = torch.tensor([0, 1, 2])
    batch, tool = batch_of(labels), inverter(corner_net(), GREY)
    optimize(tool, batch, 120)
    found = batch.best_size.isfinite()
    assert found[1]
    torch.testing.assert_close(batch.best_mask.flatten(1).sum(1)[found], batch.best_size[found])
    for row in found.nonzero()[:, 0].tolist():
        one = batch.keep(torch.tensor([row]))
        answers = tool.logits(GREY, one.best_mask, one.best_pattern).argmax(1)
        assert (answers == labels[row]).all()


def test_the_best_size_only_ever_falls():
    batch, tool = batch_of(torch.tensor([1])), inverter(corner_net(), GREY)
    sizes = []
    for _ in range(6):
        optimize(tool, batch, 20)
        sizes.append(float(batch.best_size[0]))
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] < sizes[0]


def test_without_success_there_is_no_best_size():
    class Stubborn(Corner):
        def forward(self, images):
            return torch.tensor([9.0, 0.0, 0.0]).expand(len(images), 3) + 0 * images.flatten(1).sum(1, keepdim=True)

    model = Classifier(Stubborn(), input_shape=(1, 8, 8), num_classes=3).eval()
    batch = batch_of(torch.tensor([1]))
    optimize(inverter(model, GREY), batch, 30)
    assert batch.best_size.isinf().all()


def test_the_penalty_rises_while_the_trigger_works_and_falls_while_it_does_not():
    """The peers' schedule got stuck at its first value; ours passes a hundred times that and comes back."""
    batch, tool = batch_of(torch.tensor([1])), inverter(corner_net(), GREY)
    everything = slice(0, 1)
    batch.success[:] = 1.0
    batch.penalty[:] = 0.001
    seen = []
    for _ in range(60):
        tool._move_penalty(batch, everything, torch.ones(1))
        seen.append(float(batch.penalty[0]))
    assert seen == sorted(seen)
    assert seen[-1] > 20 * seen[0]
    for _ in range(60):
        tool._move_penalty(batch, everything, torch.zeros(1))
    assert float(batch.penalty[0]) < seen[0]


def test_the_penalty_of_one_label_does_not_depend_on_the_others():
    alone, together = batch_of(torch.tensor([1])), batch_of(torch.tensor([0, 1]))
    one_image = GREY[:1]
    optimize(inverter(corner_net(), one_image), alone, 40, images=1)
    optimize(inverter(corner_net(), one_image), together, 40, images=1)
    torch.testing.assert_close(together.penalty[1:], alone.penalty)
    torch.testing.assert_close(together.best_mask[1:], alone.best_mask)


def test_batching_gives_the_numbers_of_one_batch():
    """With a single image: every part draws its own images, so with several the parts see different ones."""
    image, model = torch.rand(1, 1, 32, 32, generator=torch.Generator().manual_seed(1)), untrained()
    model.requires_grad_(False)
    results = []
    for rows in (2, 1024):
        batch = batch_of(torch.arange(5), shape=(1, 32, 32))
        losses = optimize(inverter(model, image, rows=rows), batch, 10, images=1)
        results.append((losses, batch.mask, batch.pattern, batch.penalty, batch.success, batch.best_size))
    for small, large in zip(*results, strict=True):
        torch.testing.assert_close(small, large, rtol=1e-3, atol=5e-3)  # Adam enlarges rounding


def test_keep_takes_the_same_rows_of_everything():
    batch = batch_of(torch.tensor([7, 8, 9]))
    for place, value in enumerate(vars(batch).values()):
        value[:] = (torch.arange(3) + 10 * place).view(-1, *[1] * (value.ndim - 1))
    kept = batch.keep(torch.tensor([2, 0]))
    assert len(kept) == 2
    for place, value in enumerate(vars(kept).values()):
        assert (value[0] == 2 + 10 * place).all()
        assert (value[1] == 10 * place).all()


@pytest.mark.parametrize("cell", [1, 3, 4])
def test_a_coarse_grid_gives_masks_of_full_size(cell):
    batch = batch_of(torch.tensor([1]), cell=cell)
    assert batch.mask.shape == (1, 1, -(-8 // cell), -(-8 // cell))
    optimize(inverter(corner_net(), GREY), batch, 30)
    assert batch.best_mask.shape == (1, 1, 8, 8)
    assert batch.best_size.isfinite().all()
    assert float(batch.best_mask.min()) >= 0
    assert float(batch.best_mask.max()) <= 1


def test_stamping_happens_in_pixel_space_before_the_models_own_preprocessing(planted):
    images = planted.clean.floats()[:3]
    mask = torch.zeros(1, 1, 32, 32)
    mask[..., 28:31, 28:31] = 1
    logits = inverter(planted.badnet, images).logits(images, mask, torch.ones(1, 1, 32, 32))
    torch.testing.assert_close(logits, planted.badnet(planted.attack.stamp(images)), rtol=1e-4, atol=1e-4)
    assert (logits.argmax(1) == TARGET).all()


# --- the paper's schedule ---


def test_the_papers_penalty_waits_for_five_successes_in_a_row_and_then_doubles_every_five():
    penalty = DynamicPenalty()
    for success in (True, True, True, True, False, True, True, True, True):
        penalty.update(success)
    assert penalty.value == 0
    penalty.update(True)
    assert penalty.value == 1e-3
    for _ in range(195):
        penalty.update(True)
    assert penalty.value == pytest.approx(1e-3 * 2**39)  # a peer's stays at 1e-3 forever
    assert penalty.rose
    assert not penalty.fell


def test_the_papers_penalty_falls_faster_than_it_rises():
    penalty = DynamicPenalty(value=1.0)
    for _ in range(5):
        penalty.update(False)
    assert penalty.value == pytest.approx(2**-1.5)
    assert penalty.fell


def test_the_papers_schedule_keeps_the_smallest_mask_that_works():
    """A peer never updates its best and takes the last mask whether it works or not."""
    tool = inverter(corner_net(), GREY)
    batch = invert_label(tool, 1, 1, steps=40, images=32)
    assert float(batch.best_size[0]) < 20
    assert (tool.logits(GREY, batch.best_mask, batch.best_pattern).argmax(1) == 1).all()
    impossible = inverter(corner_net(), GREY)
    impossible.success_wanted = 1.01
    assert invert_label(impossible, 1, 1, steps=1, images=32).best_size.isinf().all()


def test_all_labels_see_the_same_images_in_a_step_however_many_fit_into_a_pass():
    model = untrained()
    images = torch.rand(40, *model.input_shape, generator=torch.Generator().manual_seed(1))
    losses = []
    for rows in (4, 1024):
        shape = (3, 1, *model.input_shape[1:])
        batch = start(torch.full(shape, 0.5), torch.full((3, *model.input_shape), 0.5), torch.arange(3), 1)
        losses.append(optimize(inverter(model, images, rows=rows), batch, 5, images=4))
    torch.testing.assert_close(losses[0], losses[1])
