"""The pictures of a report."""

import io
import math
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from test_report_examples import findings

from goodnet.audit._base import LabelFinding
from goodnet.report._drawing import DARK, LIGHT, Theme
from goodnet.report.plots import LabelSeries, label_plot, label_series, picture_png


def opened(png: bytes) -> Image.Image:
    assert png.startswith(b"\x89PNG")
    return Image.open(io.BytesIO(png))


def series_of(labels: int, small: dict[int, float]) -> LabelSeries:
    series = label_series(findings(labels, small))
    assert series is not None
    return series


def share_of_color(picture: Image.Image, color: str) -> float:
    wanted = np.array([int(color[start : start + 2], 16) for start in (1, 3, 5)])
    return float((np.abs(np.asarray(picture.convert("RGB")).astype(int) - wanted).max(2) < 8).mean())


@pytest.mark.parametrize("theme", [LIGHT, DARK])
@pytest.mark.parametrize(("labels", "small"), [(10, 5.0), (1283, 0.9)])
def test_flagged_labels_are_drawn_in_their_color_and_only_they(labels: int, small: float, theme: Theme) -> None:
    with_one = opened(label_plot(series_of(labels, {0: small}), theme))
    assert with_one.size == (1720, 660)
    assert share_of_color(with_one, theme.background) > 0.5
    assert share_of_color(with_one, theme.flagged) > 0.0005
    assert share_of_color(opened(label_plot(series_of(labels, {}), theme)), theme.flagged) == 0


def test_a_plot_is_the_same_every_time() -> None:
    series = series_of(43, {8: 4.0})
    assert label_plot(series, LIGHT) == label_plot(series, LIGHT)


def test_a_phone_gets_a_narrow_plot() -> None:
    assert opened(label_plot(series_of(1283, {1282: 2.0}), DARK, width=3.5, height=2.9)).size == (700, 580)


def test_the_axis_is_logarithmic_only_for_a_wide_span_of_positive_numbers() -> None:
    assert series_of(10, {0: 0.5}).logarithmic
    assert not series_of(10, {0: 20.0}).logarithmic
    with_zero = label_series(
        [LabelFinding(label=label, score=0, details={"mask_l1": 50.0 * label}) for label in range(9)]
    )
    assert with_zero is not None
    assert not with_zero.logarithmic


def test_the_band_is_the_median_and_two_deviations_on_the_axis_that_is_drawn() -> None:
    def series(values: list[float]) -> LabelSeries:
        return LabelSeries("mask_l1", np.arange(len(values)), np.array(values), np.zeros(len(values), bool), 0)

    assert series([8, 9, 10, 11, 12]).band == pytest.approx((10 - 2.9652, 10 + 2.9652))
    low, high = series([1, 10, 100, 1000, 10000]).band
    assert (low, high) == pytest.approx((100 / 10**2.9652, 100 * 10**2.9652))


def test_labels_without_a_number_are_left_out_and_counted() -> None:
    made = [
        LabelFinding(label=2, score=1.0, details={"mask_l1": math.nan}),
        LabelFinding(label=0, score=1.0, flagged=True, details={"mask_l1": 3.0}),
        LabelFinding(label=1, score=1.0, details={"mask_l1": None}),
        LabelFinding(label=3, score=math.nan, details={"mask_l1": 9.0}),
        LabelFinding(label=4, score=1.0),
    ]
    series = label_series(made)
    assert series is not None
    assert (series.measure, series.missing) == ("mask_l1", 3)
    assert series.labels.tolist() == [0, 3]
    assert series.values.tolist() == [3.0, 9.0]
    assert series.flagged.tolist() == [True, False]


def test_without_trigger_sizes_the_scores_are_drawn() -> None:
    series = label_series([LabelFinding(label=label, score=label - 1.5) for label in range(4)])
    assert series is not None
    assert series.measure == "score"
    assert opened(label_plot(series, LIGHT)).size == (1720, 660)


def test_equal_numbers_can_be_drawn() -> None:
    series = label_series([LabelFinding(label=label, score=0.0, details={"mask_l1": 7.0}) for label in range(3)])
    assert series is not None
    label_plot(series, LIGHT)


@pytest.mark.parametrize("count", [0, 1])
def test_less_than_two_numbers_are_no_plot(count: int) -> None:
    assert label_series([LabelFinding(label=label, score=1.0) for label in range(count)]) is None


def test_pyplot_and_its_global_state_are_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.pyplot", None)  # importing it fails
    label_plot(series_of(10, {}), LIGHT)


def test_small_images_are_enlarged_pixel_by_pixel() -> None:
    image = torch.rand(3, 4, 8, generator=torch.Generator().manual_seed(0))
    picture = opened(picture_png(image))
    assert (picture.mode, picture.size) == ("RGB", (192, 96))
    pixels = np.asarray(picture)
    assert (pixels.reshape(4, 24, 8, 24, 3) == pixels[::24, ::24].reshape(4, 1, 8, 1, 3)).all()
    assert pixels[0, 0].tolist() == (image[:, 0, 0] * 255).round().int().tolist()


def test_masks_are_gray() -> None:
    picture = opened(picture_png(torch.tensor([[[0.0, 1.0]]])))
    assert (picture.mode, picture.size) == ("L", (192, 96))
    assert sorted(set(np.asarray(picture).ravel().tolist())) == [0, 255]


@pytest.mark.parametrize("shape", [(3, 2000, 1500), (1, 1, 3000), (3, 3000, 1), (4, 5, 5), (2, 5, 5)])
def test_no_shape_makes_a_picture_too_large_or_too_small(shape: tuple[int, int, int]) -> None:
    assert 192 <= max(opened(picture_png(torch.zeros(shape))).size) <= 640


def test_numbers_that_are_no_colors_do_not_break_a_picture() -> None:
    picture = opened(picture_png(torch.tensor([[[math.nan, math.inf, -5.0, 3.0]]])))
    assert np.asarray(picture)[0, 24::48].tolist() == [0, 255, 0, 255]
