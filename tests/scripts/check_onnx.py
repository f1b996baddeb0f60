"""Runs exported networks with tools that are not ours: check_onnx.py FOLDER [RUNS]

For each NAME.onnx in the folder: onnx.checker accepts it, its cut points can be made outputs, and
ONNX Runtime on one thread answers what the training engine answered (NAME.safetensors) to 1e-4
relative: heatmaps everywhere, directions at the heatmap's mode, where driving reads them. Elsewhere
a direction may differ by three times what the training engine itself moves with other last bits in
its weights (NAME.nudged1 to 3), if that is more: some vectors are all but zero. Prints the least time of
RUNS runs.
"""
import json
import pathlib
import struct
import sys
import time

import numpy as np
import onnx
import onnxruntime


def safetensors(path):
    """The format is an 8-byte length, a JSON header and the raw little-endian values."""
    raw = path.read_bytes()
    (length,) = struct.unpack("<Q", raw[:8])
    header, body = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    return {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], "<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if name != "__metadata__"
    }


def difference(found, expected):
    """Largest difference, relative to the largest value; NaN fails every comparison with a bound."""
    return float(np.abs(found - expected).max() / np.abs(expected).max())


folder, runs = pathlib.Path(sys.argv[1]), int((sys.argv[2:] or ["1"])[0])
failed = False
for path in sorted(folder.glob("*.onnx")):
    model = onnx.load(path)
    onnx.checker.check_model(model, full_check=True)
    card = json.loads(next(entry.value for entry in model.metadata_props if entry.key == "crossfix.card"))
    made = {output for node in model.graph.node for output in node.output}
    cuts = card["aerial_features"] + card["ground_descriptors"]
    parity = safetensors(path.with_suffix(".safetensors"))
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    inputs = {}
    for needed in session.get_inputs():
        value = parity[needed.name]
        inputs[needed.name] = value.astype(np.int64) if "int64" in needed.type else value
    least = float("inf")
    for _ in range(runs):
        start = time.process_time()
        heatmap, orientation = session.run(["heatmap", "orientation"], inputs)
        least = min(least, time.process_time() - start)
    expected = parity["orientation"]
    place, turn = difference(heatmap, parity["heatmap"]), difference(orientation, expected)
    nudged = [safetensors(path.with_suffix(f".nudged{k}"))["orientation"] for k in (1, 2, 3)]
    bound = max(1e-4, 3 * max(difference(other, expected) for other in nudged))
    mode = (..., *np.unravel_index(parity["heatmap"][0].argmax(), parity["heatmap"][0].shape))
    turn_at_mode = float(np.abs(orientation[mode] - expected[mode]).max())
    good = place <= 1e-4 and turn <= bound and turn_at_mode <= 1e-4 and cuts and set(cuts) <= made
    failed |= not good
    print(
        f"{'ok  ' if good else 'FAIL'} {path.stem}: heatmap differs by {place:.1e}, orientation by {turn:.1e} "
        f"(at most {bound:.1e}) and {turn_at_mode:.1e} at the mode, {len(cuts)} cut points, "
        f"{least * 1e3:.1f} ms CPU time"
    )
sys.exit(failed)
