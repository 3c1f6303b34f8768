"""The page of a repair."""

from test_repair_look import network, samples, white_corner

from goodnet.repair._look import Look, TriggerPair, activation_maps
from goodnet.repair.proof import Proof, TriggerProof
from goodnet.report.repaired import render_repair


def test_the_page_tells_counts_with_intervals_and_escapes_what_strangers_named() -> None:
    one = TriggerProof(target=1, before=90, after=0, recovered=80, count=100)
    proof = Proof(labeled=True, before=98, after=97, count=100, triggers=(one,))
    record = {"file": "<script>.h5", "accepted": True, "reason": "<b>", "seconds": 2.0, "method": "auto"}
    maps = activation_maps(network(), samples(0), white_corner())
    look = Look(triggers=(TriggerPair(before=white_corner(), after=None),), before=maps, after=maps)
    page = render_repair(record, proof, look, ("a", "<img src=x>"))
    assert "<script>" not in page
    assert "<b>" not in page
    assert "<img src=x>" not in page
    assert "0 of 100 (0% to 3.6%)" in page
    assert "None was found" in page
    assert page.count("data:image/png") == 4
