"""Words of a benchmark's page that belong to no row: how to read it, how it was made, what repairers were worth."""

from goodnet.bench import sentences
from goodnet.bench.repairs import RepairSummary
from goodnet.bench.table import Table
from goodnet.report.words import duration, percent

TONES = {
    "found, right target": "good",
    "rightly not flagged": "good",
    "found": "good",
    "found, wrong target": "fair",
    "repaired": "good",
    "no harm": "good",
    "reverted": "open",
    "nothing done": "open",
    "backdoor left": "bad",
    "harmed": "bad",
    "inconclusive": "open",
    "not run yet": "open",
    "false alarm": "bad",
    "missed": "bad",
    "failed": "bad",
}

REPAIRER_HEADINGS = (
    "repair",
    "removed",
    "and accepted by the proof",
    "attack success left",
    "accuracy, points",
    "DER",
    "lost more than 3 points",
    "and accepted by the proof",
    "accuracy without a backdoor, points",
)

HOW_TO_READ = (
    "Clean accuracy is the share of test images without a trigger that are answered with their label. Attack success "
    "is the share of stamped images, of those that the attack is meant for, that are answered as the attacker wants.",
    "Both stand with their counts and the exact 95 % interval of Clopper and Pearson. It says how much the choice of "
    "test images matters, not how much another seed would. Over several seeds: mean ± standard deviation of one run.",
    "An auditor never sees the truth; its verdict is compared with it here. “Found, right target” means that it "
    "flagged the net and named exactly the labels of the attack. “Inconclusive” is an honest answer, but no help.",
    "A repair is measured before and after on the same images, which its defender does not hold, also where the proof "
    "refuses it. The outcome is what somebody has who goes by the proof: the old model where it says no (“reverted”) "
    "or where there was nothing to work on (“nothing done”). “Repaired” is an attack success of at most 10 % at a loss "
    "of at most three points of accuracy. DER is the defense effectiveness rating: 100 at best, 50 for no change.",
    "A difference is measured minus published, in points of percentage.",
    "Time is that of training and audit together, memory the most that the process held, libraries included.",
)


def repairer_cells(one: RepairSummary) -> list[str]:
    """A line of the table of repairers."""
    return [
        one.repair,
        f"{one.succeeded} of {one.backdoored}",
        f"{one.kept} of {one.backdoored}",
        "–" if one.success is None else percent(one.success),
        "–" if one.drop is None else sentences.points(-one.drop),
        "–" if one.effectiveness is None else f"{100 * one.effectiveness:.1f}",
        f"{one.harmed} of {one.nets}",
        f"{one.harmed_kept} of {one.nets}",
        "–" if one.clean_drop is None else sentences.points(-one.clean_drop),
    ]


def facts(table: Table) -> list[tuple[str, str]]:
    """How the table came about: (name, text)."""
    records = {record.key: record for trial in table.trials for record in trial.records}.values()
    finished = sorted(f"{record.finished[:16].replace('T', ' ')} UTC" for record in records)
    versions = sorted({f"{name} {version}" for record in records for name, version in record.versions.items()})
    commits = sorted({record.git for record in records if record.git})
    known = {
        "Suite": f"{table.name}, size {table.size}",
        **{name.capitalize(): text for name, text in sentences.shared(table).items()},
        "Computed": f"{finished[0]} to {finished[-1]}" if finished else "nothing yet",
        "Computing time": duration(sum(record.seconds for record in records)),
        "Versions": ", ".join(versions),
        "Commit of goodnet": ", ".join(commits),
    }
    return [(name, text) for name, text in known.items() if text]
