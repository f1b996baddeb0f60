"""Pairs datasets against programs that are not ours: their lines against the JSON Schema by `jsonschema`, pictures
that Pillow wrote, harmed in ways that cameras and copying harm them, and the image folder as others read it.

usage: pairs_peers.py CROSSFIX FOLDER
"""

import json
import pathlib
import shutil
import subprocess
import sys
import tomllib

import jsonschema
from PIL import Image

crossfix, work = sys.argv[1], pathlib.Path(sys.argv[2])
shutil.rmtree(work, ignore_errors=True)
work.mkdir(parents=True)
whole = work / "whole"
simulate = [crossfix, "simulate", "--out", whole, "--drives", "3", "--districts", "1", "--drive-length-m", "200", "--logs", "0"]
subprocess.run(simulate, check=True, stdout=subprocess.DEVNULL)

schema = json.loads((pathlib.Path(__file__).parents[2] / "docs/pairs.schema.json").read_text())
jsonschema.Draft202012Validator.check_schema(schema)


def validator(part):
    return jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{part}"})


def lines(name):
    return [json.loads(line) for line in (whole / name).read_text().splitlines()]


rows = lines("pairs.jsonl")
for part, values in [
    ("pair", rows),
    ("truth", lines("truth.jsonl")),
    ("dataset", [tomllib.loads((whole / "dataset.toml").read_text())]),
]:
    for value in values:
        validator(part).validate(value)
# The schema can fail.
for change in [{"heading_deg": 400}, {"heading_sigma_deg": 0}, {"image": "../a.jpg"}, {"lever_arm_m": 1}, {"covariance_m2": [[1, 0]]}]:
    assert not validator("pair").is_valid({**rows[0], **change}), change
print(f"{len(rows)} rows fit docs/pairs.schema.json")

# The image folder: metadata.jsonl beside the pictures, each named by file_name.
images = whole / "images"
metadata = [json.loads(line) for line in (images / "metadata.jsonl").read_text().splitlines()]
assert [row["id"] for row in metadata] == [row["id"] for row in rows]
for row in metadata:
    # A column `image` would hide the pictures from those who read the folder.
    assert "image" not in row, row
    with Image.open(images / row["file_name"]) as picture:
        assert picture.size == (256, 48)


def check(folder, *arguments):
    done = subprocess.run([crossfix, "check", folder, "--json", *arguments], capture_output=True, text=True)
    return done.returncode, json.loads(done.stdout)


code, report = check(whole)
assert code == 0 and report["found"] == [], report


def harmed(name, harm, expected, problem=True):
    folder = work / name
    shutil.copytree(whole, folder)
    path = folder / rows[7]["image"]
    with Image.open(path) as opened:
        harm(path, opened.convert("RGB"))
    code, report = check(folder)
    found = {(row["check"], row["line"]) for row in report["found"]}
    assert found == expected and code == int(problem and bool(expected)), (name, code, report["found"])
    shutil.rmtree(folder)
    print(f"{name}: {sorted(found) or 'nothing to say'}")


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3] + b"\xff\xd9")


def saved(**options):
    return lambda path, picture: picture.save(path, "JPEG", **options)


def turned(path, picture):
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.transpose(Image.Transpose.ROTATE_90).save(path, "JPEG", exif=exif, quality=95)


def restarts_cut(path, picture):
    picture.save(path, "JPEG", quality=95, restart_marker_rows=1)
    cut(path)


def progressive_cut(path, picture):
    picture.save(path, "JPEG", quality=95, progressive=True)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def transparent(path, picture):
    alpha = Image.new("L", picture.size, 255)
    alpha.paste(0, (0, 20, 256, 48))
    picture.putalpha(alpha)
    picture.save(path, "PNG")


at = 8  # the line of row 7
harmed("progressive", saved(progressive=True, quality=95), set())
harmed("444-optimized", saved(subsampling=0, optimize=True, quality=95), set())
harmed("420-restarts", saved(subsampling=2, restart_marker_blocks=3, quality=95), set())
harmed("webp", lambda path, picture: picture.save(path, "WEBP", lossless=True), set())
harmed("png", lambda path, picture: picture.save(path, "PNG"), set())
harmed("lying-on-its-side", turned, set())
harmed("restarts-cut", restarts_cut, {("picture-cut", at)})
harmed("progressive-cut", progressive_cut, {("picture-cut", at)})
harmed("cmyk", lambda path, picture: picture.convert("CMYK").save(path, "JPEG"), {("picture-colour", at)})
harmed("grey", lambda path, picture: picture.convert("L").save(path, "JPEG", quality=95), {("picture-grey", at)}, problem=False)
harmed("transparent", transparent, {("picture-transparent", at)})
harmed("tiff", lambda path, picture: picture.save(path, "TIFF"), {("picture-format", at)})
harmed("bmp", lambda path, picture: picture.save(path, "BMP"), {("picture-format", at)})
harmed("small", lambda path, picture: picture.resize((128, 24)).save(path, "JPEG"), {("picture-size", at)})
print("pairs: all as expected")
