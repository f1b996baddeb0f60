"""The Python wheel: built, installed, its types held against it by mypy, its numbers against the program's.

usage: python_wheel.py CROSSFIX TEACHER.safetensors FOLDER    FOLDER: made anew
"""

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy
from PIL import Image

from checks import check, failures

crossfix_program, teacher, work = sys.argv[1], sys.argv[2], Path(sys.argv[3])
root = Path(__file__).resolve().parents[2]
binaries = Path(sys.executable).parent
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)

# The workspace's own target folder, and its feature: everything below the module is compiled already.
wheels = work / "wheels"
subprocess.run(
    [binaries / "maturin", "build", "--release", "--locked", "--quiet", "--features", "ros2", "--compatibility", "linux", "--interpreter", sys.executable,
     "--manifest-path", root / "offline/python/Cargo.toml", "--out", wheels],
    check=True,
)
[wheel] = wheels.glob("crossfix-*-cp39-abi3-*.whl")
install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--force-reinstall", "--no-deps", "--no-index", wheel]
subprocess.run(install, check=True)
print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB", flush=True)

import crossfix  # noqa: E402  installed just now

example = work / "typed.py"
example.write_text(
    "import crossfix\n"
    "pairs = crossfix.Pairs('pairs')\n"
    "student = crossfix.Student('student.onnx')\n"
    "for pair in pairs:\n"
    "    found = student.predict(pair)\n"
    "    east: float = found.mode_m[0] + pair.covariance_m2[0, 0]\n"
    "    latitude: float | None = found.latitude_deg\n",
    encoding="utf-8",
)
typed = subprocess.run([sys.executable, "-m", "mypy", "--strict", example, "--cache-dir", work / "mypy"], capture_output=True, text=True)
check("a typed program passes mypy --strict", typed.returncode == 0, typed.stdout)
example.write_text("import crossfix\nnumber: str = crossfix.Pairs('pairs')[0].time_ns\n", encoding="utf-8")
typed = subprocess.run([sys.executable, "-m", "mypy", "--strict", example, "--cache-dir", work / "mypy"], capture_output=True, text=True)
check("a program of wrong types does not", typed.returncode == 1 and "int" in typed.stdout, typed.stdout)
# The compiled module inside the package has no file of its own.
(work / "allowed").write_text("crossfix\\.crossfix\n", encoding="utf-8")
stubs = subprocess.run([sys.executable, "-m", "mypy.stubtest", "crossfix", "--allowlist", "allowed"], capture_output=True, text=True, cwd=work)
check("the types are the module's", stubs.returncode == 0, stubs.stdout + stubs.stderr)


def run(*words):
    done = subprocess.run([crossfix_program, *map(str, words)], capture_output=True, text=True)
    assert done.returncode == 0, (words, done.stderr)
    return done.stdout


data = work / "pairs"
run("simulate", "--out", data, "--drives", 3, "--districts", 1, "--drive-length-m", 250, "--logs", 0)
rows = [json.loads(line) for line in (data / "pairs.jsonl").read_text(encoding="utf-8").splitlines()]
pairs = crossfix.Pairs(data)
check("as many pairs as lines", len(pairs) == len(rows) == len(list(pairs)), len(pairs))
fields = ["id", "drive", "time_ns", "latitude_deg", "longitude_deg", "heading_deg", "heading_sigma_deg"]
same = all(getattr(pair, field) == row[field] for pair, row in zip(pairs, rows) for field in fields)
check("every field of every line, to the bit", same)
check("covariances", all(pair.covariance_m2.tolist() == row["covariance_m2"] for pair, row in zip(pairs, rows)))
steps = [pair.odometry and {key: getattr(pair.odometry, key) for key in ("forward_m", "left_m", "yaw_rad")} for pair in pairs]
check("odometry, None at first", steps == [row.get("odometry") for row in rows] and steps[0] is None and steps[1] is not None, steps[:2])
check("the manifest with its camera", pairs.manifest["camera"]["kind"] == "equirectangular" and pairs.tiles.is_file(), pairs.manifest)
picture = pairs[3].picture()
with Image.open(data / rows[3]["image"]) as opened:
    pillow = numpy.asarray(opened.convert("RGB"), dtype=int)
apart = numpy.abs(picture.astype(int) - pillow)
check("pictures as Pillow decodes them", picture.dtype == numpy.uint8 and picture.shape == pillow.shape and apart.mean() < 1.0, (picture.shape, apart.mean()))
check("the last pair by -1", pairs[-1].id == rows[-1]["id"])

exported = work / "student.onnx"
run("export", "--weights", teacher, "--out", exported)
truth = crossfix.read_truth(pairs)
check("truth of every pair", truth.keys() == {row["id"] for row in rows})


def error_m(found):
    """Ground distance from the truth, on a sphere of the ellipsoid's radii here."""
    pose = truth[found.id]
    latitude = math.radians(pose.latitude_deg)
    w = math.sqrt(1 - 0.00669437999014 * math.sin(latitude) ** 2)
    east = math.radians(found.longitude_deg - pose.longitude_deg) * math.cos(latitude) * 6378137 / w
    north = math.radians(found.latitude_deg - pose.latitude_deg) * 6378137 * (1 - 0.00669437999014) / w**3
    return math.hypot(east, north)


for path in (teacher, exported):
    name = Path(path).name
    student = crossfix.Student(path)
    found = student.predict_all(pairs, heatmaps=True)
    measured = json.loads(run("evaluate", "--model", path, "--data", data, "--json"))
    mean_m = sum(map(error_m, found)) / len(found)
    check(f"{name}: the mean error is evaluate's", abs(mean_m - measured["unmasked"]["mean_m"]) < 1e-3, (mean_m, measured["unmasked"]))
    one = student.predict(pairs[5])
    check(f"{name}: one pair as among all", one.mode_m == found[5].mode_m and abs(one.peak_probability - found[5].peak_probability) < 1e-6)
    some = student.predict_all(pairs, [7, 5])
    check(f"{name}: some pairs, without heatmaps", [p.id for p in some] == [rows[7]["id"], rows[5]["id"]] and some[0].heatmap is None)
    ground, aerial = student.images(pairs[5])
    arrays = student.predict_images(ground, aerial)
    check(f"{name}: arrays as their pair", arrays.mode_m == one.mode_m and arrays.id is None and arrays.latitude_deg is None, arrays)
    # Arrays of any strides: mirrored twice.
    twice = numpy.ascontiguousarray(ground[:, ::-1])[:, ::-1]
    other = student.predict_images(ground, aerial[::-1].copy())
    check(f"{name}: another aerial picture is another answer", other.heatmap.tobytes() != arrays.heatmap.tobytes())
    check(f"{name}: strides", student.predict_images(twice, numpy.asfortranarray(aerial)).mode_m == one.mode_m)
    strip, left_bin = student.ground_image(pairs[5].picture(), pairs.manifest["camera"], pairs[5].heading_deg)
    check(f"{name}: the ground image of a picture", numpy.array_equal(strip, ground) and left_bin == 0)
    heatmap, side = one.heatmap, one.heatmap.shape[0]
    row, column = divmod(int(heatmap.argmax()), side)
    offset = ((column + 0.5 - side / 2) * one.metres_per_cell, (side / 2 - row - 0.5) * one.metres_per_cell)
    check(f"{name}: the mode is the heatmap's", heatmap.dtype == numpy.float32 and numpy.allclose(offset, one.mode_m) and abs(heatmap.sum() - 1) < 1e-3, (offset, one))
    cells = (numpy.arange(side) + 0.5 - side / 2) * one.metres_per_cell
    east, north = numpy.meshgrid(cells - one.mode_m[0], -cells - one.mode_m[1])
    moments = [[(heatmap * a * b).sum(dtype=float) for b in (east, north)] for a in (east, north)]
    moments += numpy.eye(2) * one.metres_per_cell**2 / 12
    check(f"{name}: the covariance is the second moment about the mode", numpy.allclose(moments, one.covariance_m2, rtol=1e-3), (moments, one.covariance_m2))
    turned = (one.heading_deg - pairs[5].heading_deg + math.degrees(one.yaw_residual_rad) + 180) % 360 - 180
    check(f"{name}: the heading is the pair's, turned by the residual", abs(turned) < 1e-6, turned)
weights, card = crossfix.Student(teacher), crossfix.Student(exported).card
check("the card", card["aerial"]["size_px"] == weights.spec["aerial_px"] and weights.card is None and weights.provenance is not None, card)

# The lock is released: another thread counts while a pass runs.
counted, stop = [0], threading.Event()


def count():
    while not stop.is_set():
        counted[0] += 1
        time.sleep(0.001)


counter = threading.Thread(target=count)
counter.start()
before, begun = counted[0], time.monotonic()
weights.predict_all(pairs)
seconds, during = time.monotonic() - begun, counted[0] - before
stop.set()
counter.join()
check("other threads run during a pass", during > 50 * seconds, (during, seconds))
# Ctrl-C during a pass raises; a shell's background jobs are started with it ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
endless = [index % len(pairs) for index in range(200_000)]
threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGINT)).start()
begun = time.monotonic()
try:
    weights.predict_all(pairs, endless)
    check("Ctrl-C ends a pass", False)
except KeyboardInterrupt:
    check("Ctrl-C ends a pass", time.monotonic() - begun < 20, time.monotonic() - begun)

trained = work / "run"
run("train", "--data", data, "--init", teacher, "--steps", 4, "--out", trained)
left = crossfix.Run(trained)
curve = [json.loads(line) for line in (trained / "train.curve.jsonl").read_text(encoding="utf-8").splitlines()]
losses = [line["loss"] for line in curve if "loss" in line]
check("curves", left.curves["training"]["loss"].tolist() == losses and len(losses) > 0, left.curves)
check("the record", left.record == json.loads((trained / "run.json").read_text(encoding="utf-8")))
left.write_html(work / "run.html")
run("report", "--input", trained, "--out", work / "same.html")
check("the page is the program's", (work / "run.html").read_bytes() == (work / "same.html").read_bytes())
kept = work / "report-input.json"
kept.write_text(json.dumps({"title": "kept", "summary": [{"models": [["teacher", "teacher"], ["student", "student"]], "rows": [
    {"area": "target", "metric": "mean error", "unit": "m", "values": [4.5, None]}]}],
    "error_curves": [{"caption": "target", "models": [{"name": "student", "role": "student", "errors_m": [1.0, 2.5]}]}]}), encoding="utf-8")
kept = crossfix.Run(kept)
check("a summary's rows", kept.summary[0]["values"] == {"teacher": 4.5, "student": None} and kept.record is None, kept.summary)
check("errors by figure and model", kept.errors_m["target"]["student"].tolist() == [1.0, 2.5], kept.errors_m)


def refuses(name, kind, words, act):
    try:
        act()
        check(name, False, "not refused")
    except kind as error:
        check(name, isinstance(error, (crossfix.Error, LookupError, ValueError, TypeError)) and all(word in str(error) for word in words), error)


def copied(name, harm):
    folder = work / name
    shutil.copytree(data, folder)
    harm(folder)
    return folder


def third_line(folder, line):
    lines = (folder / "pairs.jsonl").read_text(encoding="utf-8").splitlines()
    lines[2] = line
    (folder / "pairs.jsonl").write_text("\n".join(lines), encoding="utf-8")


refuses("no dataset", crossfix.DatasetError, ["dataset.toml"], lambda: crossfix.Pairs(work / "nothing"))
wrong = copied("wrong-heading", lambda folder: third_line(folder, json.dumps({**rows[2], "heading_deg": 400})))
refuses("a wrong heading, by line", crossfix.DatasetError, ["pairs.jsonl, line 3", "heading_deg", "-360 to 360"], lambda: crossfix.Pairs(wrong))
wrong = copied("cut-line", lambda folder: third_line(folder, '{"id": "x'))
refuses("a line cut short", crossfix.DatasetError, ["pairs.jsonl, line 3"], lambda: crossfix.Pairs(wrong))
picture_path = rows[4]["image"]
wrong = copied("cut-picture", lambda folder: (folder / picture_path).write_bytes((data / picture_path).read_bytes()[:900]))
refuses("a cut picture", crossfix.DatasetError, [rows[4]["id"], picture_path], lambda: crossfix.Pairs(wrong)[4].picture())
refuses("a pass over a cut picture", crossfix.DatasetError, [rows[4]["id"], picture_path], lambda: weights.predict_all(crossfix.Pairs(wrong)))
wrong = copied("no-tiles", lambda folder: (folder / "tiles.pmtiles").unlink())
refuses("no tiles", crossfix.DatasetError, ["tiles"], lambda: weights.predict(crossfix.Pairs(wrong)[0]))
wrong = copied("no-truth", lambda folder: (folder / "truth.jsonl").unlink())
refuses("no truth", crossfix.DatasetError, ["truth.jsonl"], lambda: crossfix.read_truth(crossfix.Pairs(wrong)))
refuses("no such pair", IndexError, [str(len(rows))], lambda: pairs[len(rows)])
refuses("no such pair, from the end", IndexError, [], lambda: pairs[-len(rows) - 1])
refuses("no such index", IndexError, [], lambda: weights.predict_all(pairs, [0, len(rows)]))
for name in ("missing.onnx", "missing.safetensors"):
    refuses(name, crossfix.StudentError, [name], lambda name=name: crossfix.Student(work / name))
for name in ("damaged.onnx", "damaged.safetensors"):
    (work / name).write_bytes(b"nothing of the kind")
    refuses(name, crossfix.StudentError, [name], lambda name=name: crossfix.Student(work / name))
refuses("arrays of another size", crossfix.StudentError, ["128"], lambda: weights.predict_images(ground, aerial[:-2, :-2]))
refuses("a picture of other channels", ValueError, ["[rows, columns, 3]"], lambda: weights.predict_images(ground[:, :, :1], aerial))
refuses("a picture of other numbers", TypeError, [], lambda: weights.predict_images(ground.astype(float), aerial))
refuses("another camera", ValueError, ["camera"], lambda: weights.ground_image(picture, {"kind": "none"}, 0.0))
refuses("a camera matrix for a panorama", ValueError, ["no camera matrix"], lambda: weights.predict_images(ground, aerial, camera=(50.0, 50.0, 64.0, 24.0)))
refuses("a left bin for a panorama", ValueError, ["left_bin is 3"], lambda: weights.predict_images(ground, aerial, left_bin=3))
refuses("a heading that is no number", ValueError, ["heading_deg"], lambda: weights.ground_image(picture, pairs.manifest["camera"], float("nan")))
for far in (float("nan"), float("inf"), 1e9):
    refuses(f"an offset of {far}", ValueError, ["offset_m"], lambda far=far: weights.predict(pairs[0]).geodetic((far, 0.0)))
refuses("no run", crossfix.RunError, ["run.json", "finished"], lambda: crossfix.Run(data))
refuses("no report", crossfix.RunError, ["missing.json"], lambda: crossfix.Run(work / "missing.json"))

if failures:
    sys.exit(f"{len(failures)} failed: {', '.join(failures)}")
print("the Python wheel: all as expected")
