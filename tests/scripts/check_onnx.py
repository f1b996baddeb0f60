"""Runs exported networks with tools that are not ours: check_onnx.py FOLDER [RUNS]

For each NAME.onnx in the folder: onnx.checker accepts it, its cut points can be made outputs, and
ONNX Runtime on one thread answers what the training engine answered (NAME.safetensors) to 1e-4
relative. Prints the least time of RUNS runs.
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
    errors = [
        float(np.abs(found - parity[name]).max() / np.abs(parity[name]).max())
        for name, found in [("heatmap", heatmap), ("orientation", orientation)]
    ]
    good = max(errors) <= 1e-4 and cuts and set(cuts) <= made
    failed |= not good
    print(
        f"{'ok  ' if good else 'FAIL'} {path.stem}: differs by {errors[0]:.1e} (heatmap) and "
        f"{errors[1]:.1e} (orientation), {len(cuts)} cut points, {least * 1e3:.1f} ms CPU time"
    )
sys.exit(failed)
