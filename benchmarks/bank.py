"""Audit the zoo, make the bank of clean nets from its bank part, and measure on the nets that the bank has never seen.

    python benchmarks/bank.py audit --data DIR --zoo ZOO [--method NAME] [--part K/N]   one JSON per net, resumable
    python benchmarks/bank.py build --zoo ZOO [--method NAME]                           rewrites clean_bank.json
    python benchmarks/bank.py table --zoo ZOO [--method NAME] [--alpha 0.05]            rates with 95 % intervals

ZOO is the folder of benchmarks/zoo.py. Nets are audited with 500 unlabeled test images of their data set;
nets that know faces with 500 faces of people they do not know. ``build`` replaces what the bank holds of the zoo's
data sets.
"""

import argparse
import json
from collections import defaultdict
from pathlib import Path

import torch
from scipy.stats import binomtest
from zoo import NetKind, read

import goodnet
from goodnet.audit import _bank
from goodnet.audit._bank import BankEntry, CleanBank
from goodnet.audit._base import auditors

SHIPPED = Path(_bank.__file__).with_name("clean_bank.json")


def truths(zoo: Path) -> dict[str, dict]:
    return {
        path.name.removesuffix(".truth.json"): json.loads(path.read_text()) for path in sorted(zoo.glob("*.truth.json"))
    }


def results(zoo: Path, method: str) -> dict[str, dict]:
    version = auditors[method].card.version
    return {
        path.name.split("@")[0]: json.loads(path.read_text()) for path in sorted(zoo.glob(f"*@{method}-{version}.json"))
    }


def audit(arguments: argparse.Namespace) -> None:
    part, parts = map(int, arguments.part.split("/"))
    torch.set_num_threads(1)
    auditor = auditors[arguments.method]()
    # the bank first, then the other kinds in turn, and large nets last: a run that is stopped early is still of use
    names = sorted(truths(arguments.zoo), key=lambda name: ("_bn" in name, name[:4] != "bank", name[-2:], name))
    for name in names[part::parts]:
        out = arguments.zoo / f"{name}@{arguments.method}-{auditor.card.version}.json"
        if out.exists():
            continue
        truth = truths(arguments.zoo)[name]
        model = goodnet.load_model(arguments.zoo / name)
        _, _, clean = read(NetKind(**truth["recipe"]), arguments.data, truth["seed"])
        verdict = auditor.run(goodnet.Defender(model, clean=clean), seed=truth["seed"], bank=CleanBank(()))
        readings = verdict.evidence["readings"]
        out.write_text(
            json.dumps(
                {
                    "score": verdict.score,
                    "seconds": verdict.provenance.seconds,
                    **{k: verdict.evidence[k] for k in ("readings", "labels", "excess") if k in verdict.evidence},
                }
            )
        )
        print(name, round(verdict.score, 3), readings[0], round(verdict.provenance.seconds, 1), flush=True)


def build(arguments: argparse.Namespace) -> None:
    card, known = auditors[arguments.method].card, truths(arguments.zoo)
    fresh = [
        BankEntry(
            method=card.name,
            version=card.version,
            score=round(result["score"], 5),
            num_classes=known[name]["num_classes"],
            architecture=known[name]["recipe"]["architecture"],
            data=known[name]["recipe"]["data"],
            seed=known[name]["seed"],
            clean_accuracy=round(known[name]["clean_accuracy"], 4),
        )
        for name, result in results(arguments.zoo, arguments.method).items()
        if known[name]["kind"] == "bank"
    ]
    anew = {entry.data for entry in fresh}
    kept = [entry for entry in CleanBank.read(SHIPPED).entries if entry.method != card.name or entry.data not in anew]
    CleanBank(tuple(kept + fresh)).write(SHIPPED)
    print(f"{len(fresh)} nets for {card.name} version {card.version}")


def table(arguments: argparse.Namespace) -> None:
    card, bank, known = auditors[arguments.method].card, CleanBank.read(SHIPPED), truths(arguments.zoo)
    rows: dict[tuple[str, str], list[tuple[bool, bool]]] = defaultdict(list)
    for name, result in results(arguments.zoo, arguments.method).items():
        truth = known[name]
        if truth["kind"] == "bank" or truth.get("attack_success_rate", 1) < 0.9:
            continue  # a net that its attack did not take is neither clean nor backdoored
        flagged: set[int] = set()
        for score, suspects in result["readings"]:
            p = bank.compare(score, card.name, card.version, truth["num_classes"]).p_value
            flagged |= set(suspects) if p is not None and p <= arguments.alpha else set()
        target = truth.get("parameters", {}).get("target")
        for group in (truth["recipe"]["data"], "all"):
            rows[truth["kind"], group].append((bool(flagged), flagged == {target}))
    print("| nets | data | flagged | 95 % interval | exactly the target |\n|---|---|---|---|---|")
    for (kind, group), hits in sorted(rows.items()):
        count = sum(hit for hit, _ in hits)
        low, high = binomtest(count, len(hits)).proportion_ci(method="exact")
        exact = "" if kind == "clean" else f"{sum(right for _, right in hits)} of {len(hits)}"
        print(f"| {kind} | {group} | {count} of {len(hits)} | {low:.0%} to {high:.0%} | {exact} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("audit", "build", "table"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--zoo", type=Path, required=True)
    parser.add_argument("--method", default="neural-cleanse")
    parser.add_argument("--alpha", type=float, default=0.05)
    parser.add_argument("--part", default="0/1", help="K/N: every N-th net, from the K-th")
    arguments = parser.parse_args()
    {"audit": audit, "build": build, "table": table}[arguments.step](arguments)


if __name__ == "__main__":
    main()
