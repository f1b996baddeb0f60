"""The tables of a grid: a row for each cell, and one for each recipe with means over areas and seeds.

Seeds of one area share teacher, data and test set, so they are averaged first; standard errors are over areas. How much
seeds of one area differ stands beside them.
"""
import csv
import json
import math
import statistics
from pathlib import Path

COLUMNS = ["area", "recipe", "seed", "state", "pairs", "mean_m", "median_m", "mean_in_prior_m", "teacher_mean_m", "difference_m", "why"]
SUMMARY = ["model", "areas", "cells", "mean_m", "mean_se_m", "median_m", "median_se_m", "mean_in_prior_m", "mean_in_prior_se_m",
           "difference_m", "difference_se_m", "seed_sd_m", "worse"]


def read(path):
    """A JSON file, or None where it is not (whole)."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def errors(path):
    """Errors of a network as `crossfix evaluate --json` gives them; those in the prior as `crossfix ablate` names them."""
    found = read(path)
    if found is None:
        return None
    return {"pairs": found["unmasked"]["count"], "mean_m": found["unmasked"]["mean_m"], "median_m": found["unmasked"]["median_m"],
            "mean_in_prior_m": found["masked"]["mean_m"]}


def why(results, logs, area, cell):
    """Why a student is not there: what refused or stopped it, as its log says."""
    if not (results / area / "check.json").exists():
        problems = [found for found in (read(logs / area / "check.json") or {}).get("found", []) if found["problem"]]
        if problems:
            return "refused", "; ".join(f"{found['check']}: {found['what']}" for found in problems)
        log = logs / area / "check.log"
    else:
        log = logs / cell / "adapt.log"
    try:
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return "not done", ""
    found = [line.strip().removeprefix("refused").strip() for line in lines if line.startswith("  refused ")]
    if found:
        return "refused", "; ".join(found)
    said = [number for number, line in enumerate(lines) if line.startswith("crossfix: ")]
    text = " ".join(line.strip() for line in lines[said[-1]:]).removeprefix("crossfix: ") if said else "ended without a word"
    return ("refused" if "refused" in text else "failed"), f"{text} ({log})"


def cells(results, logs, config):
    """One row for each cell of the grid."""
    for area, folders in config["areas"].items():
        teacher = errors(results / area / "teacher.json")
        for recipe in config["recipes"]:
            for seed in config["seeds"]:
                cell = f"{area}/{recipe}/seed-{seed}"
                row = {"area": area, "recipe": recipe, "seed": seed}
                measured = errors(results / cell / "evaluation.json")
                if not (results / cell / "student.safetensors").exists():
                    row["state"], row["why"] = why(results, logs, area, cell)
                elif "test" not in folders:
                    row["state"] = "no test set"
                elif measured is None or teacher is None:
                    row["state"] = "not measured"
                else:
                    row |= measured | {"state": "measured", "teacher_mean_m": teacher["mean_m"]}
                    row["difference_m"] = measured["mean_m"] - teacher["mean_m"]
                yield row


def mean_and_error(values):
    """Mean, and its standard error, which a single value does not have."""
    values = list(values)
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else None
    return statistics.fmean(values), error


def summarise(model, rows):
    """The row of a model over its measured cells."""
    areas = {}
    for row in rows:
        areas.setdefault(row["area"], []).append(row)
    summary = {"model": model, "areas": len(areas), "cells": len(rows)}
    if not rows:
        return summary
    for name in ("mean", "median", "mean_in_prior", "difference"):
        of_areas = (statistics.fmean(row[f"{name}_m"] for row in seeds) for seeds in areas.values())
        summary[f"{name}_m"], summary[f"{name}_se_m"] = mean_and_error(of_areas)
    several = [seeds for seeds in areas.values() if len(seeds) > 1]
    if several:
        variances = [statistics.variance(row["mean_m"] for row in seeds) for seeds in several]
        summary["seed_sd_m"] = math.sqrt(statistics.fmean(variances))
    summary["worse"] = sum(row["difference_m"] > 0 for row in rows)
    return summary


def models(results, config, rows):
    """The teacher's row, and that of each recipe."""
    teachers = ((area, errors(results / area / "teacher.json")) for area in config["areas"])
    yield summarise("teacher", [{"area": area, "difference_m": 0.0, **found} for area, found in teachers if found])
    for recipe in config["recipes"]:
        yield summarise(recipe, [row for row in rows if row["recipe"] == recipe and row["state"] == "measured"])


def markdown(summaries, rows):
    def metres(row, name, sign=""):
        if row.get(f"{name}_m") is None:
            return "-"
        error = row.get(f"{name}_se_m")
        return f"{row[f'{name}_m']:{sign}.2f}" + ("" if error is None else f" ± {error:.2f}")

    lines = ["| | areas | cells | mean, m | median, m | mean in prior, m | against the teacher, m | between seeds, m | worse |",
             "|---|---|---|---|---|---|---|---|---|"]
    for row in summaries:
        spread = "-" if row.get("seed_sd_m") is None else f"{row['seed_sd_m']:.2f}"
        against, worse = ("-", "-") if row["model"] == "teacher" else (metres(row, "difference", "+"), row.get("worse", "-"))
        lines.append(f"| {row['model']} | {row['areas']} | {row['cells']} | {metres(row, 'mean')} | {metres(row, 'median')} | "
                     f"{metres(row, 'mean_in_prior')} | {against} | {spread} | {worse} |")
    lines += ["", "±: standard error over areas, the seeds of an area averaged first; none of a single area. Against the teacher: "
              "differences taken area by area. Between seeds: standard deviation of the mean error within an area. Worse: cells whose "
              "student is worse than the teacher."]
    missing = [row for row in rows if row["state"] != "measured"]
    if missing:
        lines += ["", f"Not in the means: {len(missing)} of {len(rows)} cells", "", "| area | recipe | seed | | why |", "|---|---|---|---|---|"]
        for row in missing:
            reason = row.get("why", "").replace("|", "\\|")
            lines.append(f"| {row['area']} | {row['recipe']} | {row['seed']} | {row['state']} | {reason} |")
    return "\n".join(lines) + "\n"


def write_csv(path, columns, rows):
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write(results, logs, name, config):
    """NAME.md and NAME.csv by recipe, and cells.csv, into the folder of results; those of another name are out of date then."""
    rows = list(cells(results, logs, config))
    summaries = list(models(results, config, rows))
    results.mkdir(parents=True, exist_ok=True)
    for old in ("summary", "incomplete"):
        for suffix in (".md", ".csv"):
            Path(results / (old + suffix)).unlink(missing_ok=True)
    write_csv(results / "cells.csv", COLUMNS, rows)
    write_csv(results / f"{name}.csv", SUMMARY, [{key: row[key] for key in SUMMARY if key in row} for row in summaries])
    (results / f"{name}.md").write_text(markdown(summaries, rows), encoding="utf-8")
