"""Words of a benchmark's page that belong to no row: how to read it, how it was made, what repairers were worth."""

from goodnet.bench import sentences
from goodnet.bench.cleansings import CleanserSummary
from goodnet.bench.learnings import LearnerSummary
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
    "cleansed": "good",
    "rightly kept": "good",
    "poison left": "fair",
    "clean lost": "bad",
    "learned clean": "good",
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

CLEANSER_HEADINGS = (
    "cleanser",
    "AUROC",
    "95% of the poison at 1% of the clean: best threshold",
    "its own decision",
    "sets without poison: at most 1% removed",
    "removed there",
)

LEARNER_HEADINGS = (
    "learner",
    "learned clean",
    "attack success left",
    "accuracy, points",
    "lost more than 3 points",
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
    "A cleanser never sees the truth. AUROC is how often its score ranks a poisoned sample above a clean one; TPR at "
    "1 % FPR is the poison above the best threshold that flags at most 1 % of the clean samples; it is known in "
    "hindsight only. What it removed is its own decision: “cleansed” is at least 95 % of the poison at no more than "
    "1 % of the clean samples, “poison left” as little loss and less poison, “clean lost” more loss. Covers, stamped "
    "images with true labels, are neither poison nor clean.",
    "A learner is measured beside the net that was trained plainly on the same set. “Learned clean” is an attack "
    "success of at most 10 % at a loss of at most three points.",
    "A difference is measured minus published, in points of percentage.",
    "Time is that of training and defense together, memory the most that the process held, libraries included.",
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


def cleanser_cells(one: CleanserSummary) -> list[str]:
    """A line of the table of cleansers."""
    return [
        one.cleanse,
        "–" if one.auroc is None else f"{one.auroc:.3f}",
        f"{one.ranked} of {one.poisoned}",
        f"{one.cleansed} of {one.poisoned}",
        f"{one.harmless} of {one.clean}",
        "–" if one.lost is None else percent(one.lost),
    ]


def learner_cells(one: LearnerSummary) -> list[str]:
    """A line of the table of learners."""
    return [
        one.learn,
        f"{one.succeeded} of {one.backdoored}",
        "–" if one.success is None else percent(one.success),
        "–" if one.drop is None else sentences.points(-one.drop),
        f"{one.harmed} of {one.nets}",
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
