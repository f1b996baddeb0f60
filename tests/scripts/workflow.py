"""The Snakemake workflow on three simulated areas: the whole grid, killed in the middle and gone on with, one result deleted,
one value changed, one area refused, wrong configs, and the profile for SLURM.

Usage: workflow.py CROSSFIX TEACHER.safetensors OUT    OUT: a folder that is made anew
"""
import csv
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import yaml

from checks import check, failures

WORKFLOW = Path(__file__).resolve().parents[2] / "offline" / "workflow"
RECIPES = {"paper": {"set": {"fit.epochs": 0.4, "fit.checkpoint_every": 5}}, "agreed": {"recipe": "consensus", "set": {"fit.epochs": 0.4}}}
AREAS = ["one", "two", "three"]
CHAIN = ["adapt", "all", "evaluate", "export", "summary"]


class Grid:
    """The folder that the workflow runs in."""

    def __init__(self, crossfix, teacher, folder):
        self.crossfix, self.folder, self.results = os.path.abspath(crossfix), folder, folder / "results"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        shutil.copy(teacher, folder / "teacher.safetensors")
        for seed, area in enumerate(AREAS, start=1):
            self.simulate(seed, "adapt", 6, f"data/{area}")
            self.simulate(seed, "test", 2, f"data/{area}-test")
        self.settings = {
            "crossfix": self.crossfix,
            "teacher": "teacher.safetensors",
            "areas": {area: {"pairs": f"data/{area}", "test": f"data/{area}-test"} for area in AREAS},
            "recipes": RECIPES,
            "threads": 2,
        }
        del self.settings["areas"]["three"]["test"]
        self.write(self.settings)

    def simulate(self, seed, part, drives, out):
        command = [self.crossfix, "simulate", "--seed", seed, "--part", part, "--districts", 1, "--drives", drives, "--drive-length-m", 300,
                   "--logs", 0, "--out", self.folder / out]
        subprocess.run([str(word) for word in command], check=True, capture_output=True)

    def write(self, settings):
        (self.folder / "config.yaml").write_text(yaml.safe_dump(settings, sort_keys=False), encoding="utf-8")

    def command(self, *words):
        return [sys.executable, "-m", "snakemake", "--snakefile", str(WORKFLOW / "Snakefile"), "--cores", "2", *words]

    def run(self, *words):
        done = subprocess.run(self.command(*words), cwd=self.folder, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    def planned(self):
        """What a dry run would do: rule and cell."""
        text = self.run("--dry-run")[1]
        jobs = re.findall(r"^(?:local)?rule (\w+):\n((?:    .*\n)*)", text, re.MULTILINE)
        wildcards = [(rule, re.search(r"wildcards: (.*)", body)) for rule, body in jobs]
        return sorted((rule, found[1] if found else "") for rule, found in wildcards)

    def times(self, *leave_out):
        """When each result was written."""
        files = [path for path in self.results.rglob("*") if path.is_file() and path.parent != self.results]
        return {str(path): path.stat().st_mtime_ns for path in files if not any(name in str(path) for name in leave_out)}

    def log(self, name):
        path = self.folder / "logs" / name
        return path.read_text(encoding="utf-8") if path.exists() else ""


def kill_in_the_middle(grid):
    """Kills workflow and training with SIGKILL when a checkpoint is there; the cell that was trained."""
    process = subprocess.Popen(grid.command("results/summary.md"), cwd=grid.folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                               start_new_session=True)
    until, checkpoint = time.monotonic() + 120, None
    while checkpoint is None and process.poll() is None and time.monotonic() < until:
        checkpoint = next(grid.folder.glob("work/*/paper/seed-0/*/student.checkpoint.safetensors"), None)
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    check("a training has written a checkpoint, and is killed with the workflow", checkpoint is not None, list(grid.folder.rglob("work/*")))
    if checkpoint is None:
        sys.exit(1)
    cell = str(checkpoint.parents[1].relative_to(grid.folder / "work"))
    check("nothing half is among the results", not list((grid.results / cell).glob("*")), list((grid.results / cell).glob("*")))
    return cell


def tensors(path):
    content = path.read_bytes()
    return content[8 + int.from_bytes(content[:8], "little"):]


def check_same_bits(grid, cell):
    """The student that was killed on its way, against one that was not."""
    settings = [f"--set={name}={value}" for name, value in RECIPES["paper"]["set"].items()]
    command = [grid.crossfix, "adapt", "--recipe", "paper", "--teacher", "teacher.safetensors", "--data", f"data/{cell.split('/')[0]}",
               *settings, "--device", "cpu", "--out", "whole"]
    subprocess.run(command, cwd=grid.folder, check=True, capture_output=True)
    same = tensors(grid.folder / "whole" / "student.safetensors") == tensors(grid.results / cell / "student.safetensors")
    check("a killed training ends with the bits of one that was not killed", same)


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def check_tables(grid):
    """Means, standard errors and differences, worked out again from the evaluations."""
    with (grid.results / "summary.csv").open(encoding="utf-8") as file:
        rows = {row["model"]: row for row in csv.DictReader(file)}
    with (grid.results / "cells.csv").open(encoding="utf-8") as file:
        cells = list(csv.DictReader(file))
    check("cells.csv: every cell, and which are measured", [(row["area"], row["state"]) for row in cells]
          == [("one", "measured")] * 2 + [("two", "measured")] * 2 + [("three", "no test set")] * 2, cells)
    teacher = [read_json(grid.results / area / "teacher.json")["unmasked"]["mean_m"] for area in AREAS[:2]]
    students = [read_json(grid.results / area / "agreed" / "seed-0" / "evaluation.json")["unmasked"]["mean_m"] for area in AREAS[:2]]
    against = [student - of_teacher for student, of_teacher in zip(students, teacher)]
    expected = {"mean_m": statistics.fmean(students), "mean_se_m": statistics.stdev(students) / math.sqrt(2),
                "difference_m": statistics.fmean(against), "difference_se_m": statistics.stdev(against) / math.sqrt(2)}
    right = all(abs(float(rows["agreed"][name]) - value) < 1e-9 for name, value in expected.items())
    check("summary.csv: means, standard errors and paired differences", right, (rows, expected))
    check("summary.csv: the teacher's row", abs(float(rows["teacher"]["mean_m"]) - statistics.fmean(teacher)) < 1e-9, rows)
    text = (grid.results / "summary.md").read_text(encoding="utf-8")
    line = f"| agreed | 2 | 2 | {expected['mean_m']:.2f} ± {expected['mean_se_m']:.2f} |"
    check("summary.md: the same, and what is not measured", line in text and "| three | paper | 0 | no test set |" in text, text)


def check_whole_grid(grid):
    plan = [rule for rule, _ in grid.planned()]
    counts = {rule: plan.count(rule) for rule in plan}
    check("the plan", counts == {"check": 3, "adapt": 6, "evaluate": 4, "evaluate_teacher": 2, "export": 6, "summary": 1, "all": 1}, counts)
    cell = kill_in_the_middle(grid)
    code, text = grid.run()
    check("a killed workflow holds its lock", code != 0 and "--unlock" in text, text[-800:])
    grid.run("--unlock")
    code, text = grid.run()
    check("it goes on to the end", code == 0, text[-1500:])
    check("with --resume", "student: going on after step" in grid.log(f"{cell}/adapt.log"), grid.log(f"{cell}/adapt.log"))
    check("every student is exported", len(list(grid.results.glob("*/*/seed-0/student.onnx"))) == 6)
    check("no unfinished training is left", not [path for path in grid.folder.rglob("work/*") if path.is_file()])
    benchmarks = list(grid.folder.glob("benchmarks/*/*/seed-0/adapt.tsv"))
    check("logs and benchmarks of every job", len(benchmarks) == 6 and all(grid.log(f"{area}/check.json") for area in AREAS), benchmarks)
    check("nothing is left to do", grid.planned() == [], grid.planned())
    check_same_bits(grid, cell)
    check_tables(grid)


def check_deleted(grid):
    before = grid.times("two/agreed")
    (grid.results / "two" / "agreed" / "seed-0" / "student.safetensors").unlink()
    of_chain = {rule for rule, cell in grid.planned() if cell in ("", "area=two, recipe=agreed, seed=0")}
    check("a deleted student: its chain is planned, nothing else", sorted(of_chain) == CHAIN and len(grid.planned()) == 5, grid.planned())
    code, text = grid.run()
    check("a deleted student: it is made again", code == 0 and (grid.results / "two" / "agreed" / "seed-0" / "student.onnx").exists(), text[-800:])
    check("a deleted student: no other result is touched", grid.times("two/agreed") == before)
    (grid.results / "one" / "paper" / "seed-0" / "evaluation.json").unlink()
    rules = [rule for rule, _ in grid.planned()]
    check("a deleted evaluation: it and the tables", rules == ["all", "evaluate", "summary"], grid.planned())


def check_changed(grid):
    recipes = RECIPES | {"agreed": {"recipe": "consensus", "set": {"fit.epochs": 0.6}}}
    grid.write(grid.settings | {"recipes": recipes})
    adapted = [cell for rule, cell in grid.planned() if rule == "adapt"]
    check("a changed value: the cells of that recipe", adapted == [f"area={area}, recipe=agreed, seed=0" for area in sorted(AREAS)], adapted)
    grid.write(grid.settings | {"seeds": [0, 1]})
    adapted = [cell for rule, cell in grid.planned() if rule == "adapt"]
    check("one more seed: the cells of that seed", len(adapted) == 6 and all(cell.endswith("seed=1") for cell in adapted), adapted)
    manifest = grid.folder / "data" / "three" / "dataset.toml"
    written = manifest.read_text(encoding="utf-8")
    manifest.write_text(written.replace("simulated target area", "another area"), encoding="utf-8")
    grid.write(grid.settings)
    areas = {cell.split(",")[0] for _, cell in grid.planned()} - {""}
    check("a changed dataset: that area", areas == {"area=three"}, grid.planned())
    manifest.write_text(written, encoding="utf-8")
    check("and nothing when it is as it was", grid.planned() == [], grid.planned())


def check_shards(grid):
    """One area in two shards: other jobs, the same results."""
    cell = grid.results / "two" / "paper" / "seed-0"
    before = tensors(cell / "student.safetensors"), read_json(cell / "evaluation.json"), read_json(grid.results / "two" / "teacher.json")
    grid.write(grid.settings | {"areas": {"two": grid.settings["areas"]["two"]}, "recipes": {"paper": RECIPES["paper"]}, "shards": 2})
    shutil.rmtree(cell)
    (grid.results / "two" / "teacher.json").unlink()
    planned = [rule for rule, _ in grid.planned()]
    counts = {rule: planned.count(rule) for rule in ("label", "adapt", "evaluate_part", "evaluate_teacher_part", "evaluate", "evaluate_teacher")}
    check("shards: the plan", counts == {"label": 2, "adapt": 1, "evaluate_part": 2, "evaluate_teacher_part": 2, "evaluate": 1, "evaluate_teacher": 1}, counts)
    code, text = grid.run()
    check("shards: labelled and measured in parts", code == 0, text[-1500:])
    after = tensors(cell / "student.safetensors"), read_json(cell / "evaluation.json"), read_json(grid.results / "two" / "teacher.json")
    check("shards: the student has the same bits", before[0] == after[0])
    measured = [[found["unmasked"] == old["unmasked"] and found["masked"] == old["masked"] for old, found in [pair]] for pair in zip(before[1:], after[1:])]
    check("shards: teacher and student measure the same", measured == [[True], [True]], (before[1:], after[1:]))
    check("shards: parts are removed when they are merged", not [path for path in grid.folder.glob("shards/**/*") if path.is_file()])
    grid.write(grid.settings)


def check_refused(grid):
    """An area whose headings are counter-clockwise from east is refused, and what the others lack is made all the same."""
    shutil.copytree(grid.folder / "data" / "one", grid.folder / "data" / "wrong")
    path = grid.folder / "data" / "wrong" / "pairs.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    for row in rows:
        row["heading_deg"] = (90 - row["heading_deg"]) % 360
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    areas = {"wrong": {"pairs": "data/wrong", "test": "data/one-test"}, "one": grid.settings["areas"]["one"]}
    strict = {"strict": {"recipe": "consensus", "set": {"fit.epochs": 0.1, "gate.most_of_teacher": 0.01}}}
    lacking = grid.results / "one" / "paper" / "seed-0" / "evaluation.json"
    lacking.unlink(missing_ok=True)
    grid.write(grid.settings | {"areas": areas, "recipes": RECIPES | strict})
    code, text = grid.run()
    check("a refused area fails the workflow", code != 0, text[-800:])
    check("a refused area: nothing of it is trained", not list(grid.results.glob("wrong/*/*/student.*")) and "Traceback" not in text, text[-1500:])
    check("a refused area: what the others lack is made", lacking.exists())
    told = (grid.results / "incomplete.md").read_text(encoding="utf-8")
    lines = [line for line in told.splitlines() if line.startswith("| wrong |")]
    check("a refused area: the table says so, and why", len(lines) == 3 and all("refused" in line and "counter-clockwise from east" in line for line in lines), told)
    refused = [line for line in told.splitlines() if line.startswith("| one | strict | 0 | refused |")]
    check("a student that the gate refuses: so do they", len(refused) == 1 and "not better than its teacher" in refused[0], told)
    check("a student that the gate refuses: it is not exported", not list(grid.results.glob("one/strict/seed-0/*")))
    check("what is refused is not in the means", "| agreed | 1 | 1 |" in told and "| strict | 0 | 0 |" in told and not (grid.results / "summary.md").exists(), told)
    remaining = [rule for rule, cell in grid.planned() if cell and not cell.startswith("area=wrong") and "strict" not in cell]
    check("nothing else is left to do", remaining == [], grid.planned())
    grid.write(grid.settings)
    code, text = grid.run()
    check("without it: the whole table", code == 0 and (grid.results / "summary.md").exists() and not (grid.results / "incomplete.md").exists(), text[-800:])


def check_configs(grid):
    wrong = grid.settings | {"areas": {"one": {"pairs": "data/one", "tets": "data/one-test"}}, "threads": 0, "recipe": "paper"}
    grid.write(wrong)
    code, text = grid.run("--dry-run")
    named = all(word in text for word in ("areas.one", "'tets'", "threads: 0", "'recipe'"))
    check("a wrong config: all its keys are named", code != 0 and named and "Traceback" not in text, text)
    grid.write(grid.settings | {"areas": {"none": {"pairs": "data/none"}}})
    code, text = grid.run("--dry-run")
    check("pairs that are not there are named", code != 0 and "data/none/pairs.jsonl" in text, text[-600:])
    grid.write(grid.settings)
    example = yaml.safe_load((WORKFLOW / "config.yaml").read_text(encoding="utf-8"))
    grid.write(example)
    check("the example config: only its files are missing", "refused" not in grid.run("--dry-run")[1])
    grid.write(grid.settings)
    pins = [set((path.read_text(encoding="utf-8")).split()) for path in (WORKFLOW / "requirements.txt", Path(__file__).with_name("requirements.txt"))]
    check("the tests run the pinned Snakemake", pins[0] <= pins[1], pins[0])


def check_profiles(grid):
    (grid.results / "two" / "paper" / "seed-0" / "student.safetensors").unlink()
    code, text = grid.run("--dry-run", "--cores", "16", "--workflow-profile", str(WORKFLOW / "profiles" / "slurm"))
    good = code == 0 and "slurm_account=CHANGE-ME" in text and "threads: 16" in text
    check("profile slurm: read, and the jobs have what it says", good, text[-1500:])


def main(crossfix, teacher, out):
    begun = time.monotonic()
    grid = Grid(crossfix, teacher, Path(out).resolve())
    for part in (check_whole_grid, check_changed, check_deleted, check_shards, check_refused, check_configs, check_profiles):
        part(grid)
        print(f"        {part.__name__}: {time.monotonic() - begun:.0f} s since the start")
    print(f"{len(failures)} of the checks failed" if failures else "the workflow does what it says")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
