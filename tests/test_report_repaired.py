"""The page of a repair."""

from dataclasses import replace

from test_repair_look import network, samples, white_corner

from goodnet.repair._look import Look, TriggerPair, activation_maps
from goodnet.repair.proof import Proof, TriggerProof
from goodnet.report._drawing import LIGHT
from goodnet.report.repair_plots import CurvePoint, pruning_plot
from goodnet.report.repaired import render_repair


def test_the_page_tells_counts_with_intervals_and_escapes_what_strangers_named() -> None:
    one = TriggerProof(target=1, before=90, after=0, recovered=80, count=100)
    counts = {"before": 98, "after": 97, "lost": 1, "won": 0, "shifted_before": 90, "shifted_after": 90, "count": 100}
    proof = Proof(labeled=True, triggers=(one,), **counts)
    tried = [{"candidate": "<i>", "accepted": True}, {"candidate": "other", "accepted": False}]
    prices = [{"false_alarms": 0, "stopped": 10}, {"false_alarms": 9, "stopped": 80}]
    record = {
        "file": "<script>.h5",
        "accepted": True,
        "reason": "<b>",
        "seconds": 2.0,
        "method": "auto",
        "evidence": {"tried": tried, "chosen": "<i>"},
        "retuned": [{"target": 1, "regained": 80, "control": 3, "count": 90, "suppressed": True}],
        "goodnet": {
            "rule": "second-opinion",
            "classes": 10,
            "false_alarms": 2,
            "count": 100,
            "stamped": 90,
            "caught": 70,
            "succeeded": 1,
        }
        | {"prices": prices},
    }
    maps = activation_maps(network(), samples(0), white_corner())
    look = Look(triggers=(TriggerPair(before=white_corner(), after=None),), before=maps, after=maps)
    page = render_repair(record, proof, look, ("a", "<img src=x>"))
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<img src=x>" not in page
    assert "0 of 100<small>0% to 3.6%</small>" in page
    assert "every answer is the old model’s own, or 10" in page
    assert "None was found" in page
    assert "<i>" not in page
    assert "&lt;i&gt;: good enough, chosen" in page
    assert "comes back on 80 of 90 images" in page
    assert "suppressed, not removed" in page
    assert "on 70 of 90 under a reconstructed trigger, of which 1 go to its target" in page
    assert "leaves this convolution as it was" in page
    assert page.count("data:image/png") == 10  # mask, pattern, and in four variants maps once and the price curve


def test_the_curve_of_a_pruning_is_drawn_with_its_marks() -> None:
    points = [CurvePoint(0, 0.99, 1.0), CurvePoint(1, 0.98, 1.0), CurvePoint(2, 0.5, 0.2)]
    without = pruning_plot(points, {}, 1, "accuracy", LIGHT)
    marked = pruning_plot(points, {0.02: 1}, 1, "accuracy", LIGHT)
    assert marked == pruning_plot(points, {0.02: 1}, 1, "accuracy", LIGHT)
    alone = pruning_plot([replace(one, success=None) for one in points], {0.02: 1}, 1, "accuracy", LIGHT)
    assert len({without, marked, alone}) == 3
    evidence = {
        "measure": "accuracy",
        "curve": [{"channels": one.channels, "accuracy": one.accuracy} for one in points],
        "marks": [{"accuracy_drop": 0.02, "channels": 1}],
        "pruned": [{"layer": "0", "channel": 0}],
    }
    record = {"file": "a", "accepted": False, "reason": "b", "seconds": 1.0, "method": "pruning", "evidence": evidence}
    page = render_repair(record | {"retuned": [], "goodnet": None}, None, Look(), ())
    assert "1 channels were pruned" in page
    assert "2% (1 channels)" in page
    assert page.count("data:image/png") == 4
