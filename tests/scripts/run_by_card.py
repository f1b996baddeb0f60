"""Runs the demo's student in ONNX Runtime as a stranger would: run_by_card.py DEMO_OUT_DIR

Everything about the network is read from the ONNX file's own metadata (crossfix.card and
crossfix.instructions); pictures and headings come from the pairs dataset. For each example, the strip is
cut out of the camera's panorama, the network is run, and the position and heading are worked out as
the instructions say. They have to agree with the training engine's answer and lie near the truth.
"""
import json
import math
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime
from PIL import Image

out = pathlib.Path(sys.argv[1])
path = out / "student.onnx"
model = onnx.load(path)
metadata = {entry.key: entry.value for entry in model.metadata_props}
card, words = json.loads(metadata["crossfix.card"]), metadata["crossfix.instructions"]
assert model.doc_string == words
print(words)


def lines(name):
    return {row["id"]: row for row in map(json.loads, (out / name).read_text().splitlines())}


pairs, truth = lines("test/pairs.jsonl"), lines("test/truth.jsonl")
answers = lines("example/answers.jsonl")
session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def strip(picture, heading_deg):
    """The card's strip out of a panorama of the same height whose middle looks ahead."""
    ground = card["ground"]
    rows, columns = ground["rows"], ground["columns"]
    assert ground["fov_deg"] == 360 and picture.shape == (rows, columns, 3)
    # Azimuth of each column's centre: the left edge looks south, azimuth grows to the right.
    azimuth = 180 + (np.arange(columns) + 0.5) * 360 / columns
    # Column of the panorama that looks there: its middle looks along the heading.
    at = ((azimuth - heading_deg + 180) % 360) * columns / 360 - 0.5
    left = np.floor(at).astype(int)
    share = (at - left)[None, :, None]
    return picture[:, left % columns] * (1 - share) + picture[:, (left + 1) % columns] * share


def tensor(image):
    return np.ascontiguousarray(image.transpose(2, 0, 1)[None], dtype=np.float32)


def metres(latitude, longitude, row):
    """East and north of a place from a patch's centre, on a sphere: enough for tens of metres."""
    radius = 6378137.0
    east = math.radians(longitude - row["centre_longitude_deg"]) * radius * math.cos(math.radians(latitude))
    return np.array([east, math.radians(latitude - row["centre_latitude_deg"]) * radius])


side, cell = card["heatmap"]["side"], card["heatmap"]["metres_per_cell"]
errors, failed = [], 0
for name, answer in answers.items():
    picture = np.asarray(Image.open(out / "test" / pairs[name]["image"]).convert("RGB"), dtype=np.float32)
    aerial = np.asarray(Image.open(out / "example" / answer["aerial"]).convert("RGB"), dtype=np.float32)
    assert aerial.shape[0] == card["aerial"]["size_px"]
    inputs = {"ground": tensor(strip(picture, pairs[name]["heading_deg"])), "aerial": tensor(aerial)}
    heatmap, orientation = session.run(["heatmap", "orientation"], inputs)
    assert abs(heatmap.sum() - 1) < 1e-3
    row, column = np.unravel_index(heatmap[0].argmax(), heatmap[0].shape)
    found = np.array([(column + 0.5 - side / 2) * cell, (side / 2 - row - 0.5) * cell])
    apart = float(np.abs(found - answer["mode_offset_m"]).max())
    cosine, sine = orientation[0, :, row, column]
    residual_deg = math.degrees(math.atan2(sine, cosine))
    turned = abs(residual_deg - math.degrees(answer["residual_rad"]))
    true = truth[name]
    errors.append(float(np.hypot(*(found - metres(true["latitude_deg"], true["longitude_deg"], answer)))))
    heading = pairs[name]["heading_deg"] - residual_deg
    heading_error = abs((heading - true["heading_deg"] + 180) % 360 - 180)
    # The strip's interpolation is not ours, so a mode may move to the next cell.
    good = apart <= 1.5 * cell and turned <= 2 and heading_error <= 12
    failed += not good
    print(
        f"{'ok  ' if good else 'FAIL'} {name}: {apart:.2f} m and {turned:.2f}° from the training engine, "
        f"{errors[-1]:.2f} m and {heading_error:.1f}° from the truth"
    )
median = float(np.median(errors))
good = median <= 3
failed += not good
print(f"{'ok  ' if good else 'FAIL'} median error of {len(errors)} places by the card alone: {median:.2f} m")
print(f"{len(errors) + 1 - failed} passed, {failed} failed")
sys.exit(failed > 0)
