"""Runs exported networks with tools that are not ours: check_onnx.py FOLDER [RUNS]

For each NAME.onnx in the folder: onnx.checker accepts it, its cut points can be made outputs, and
ONNX Runtime on one thread answers what the training engine answered (NAME.safetensors) to 1e-4
relative: heatmaps everywhere and over a few windows where the card announces one, directions (of networks that tell them) at the heatmap's mode, where
driving reads them, and everywhere in proportion to the vector's length before it was normalised (the
longest in full): some vectors are all but zero, and turn with the last bit. Prints the least time of
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


def over_windows(model, card, options, inputs, heatmap):
    """Largest difference of heatmaps over windows, and least CPU time of one. Where the window begins is a constant
    of the graph, and what it makes is no output, so that a network with a window is used like one without."""
    if not card.get("window"):
        return None
    side, last = card["window"]["side"], card["heatmap"]["side"] - card["window"]["side"]
    starts = [(0, 0), (last, last), (last // 2 + 1, last // 3), (1, last - 1)]
    output = onnx.helper.make_tensor_value_info("heatmap_window", onnx.TensorProto.FLOAT, [1, side, side])
    (constant,) = (value for value in model.graph.initializer if value.name == "window_start")
    del model.graph.output[:]
    model.graph.output.append(output)
    worst, least = 0.0, float("inf")
    for row, column in starts:
        constant.raw_data = np.array([row, column], "<i8").tobytes()
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        start = time.process_time()
        (found,) = session.run(None, inputs)
        least = min(least, time.process_time() - start)
        expected = heatmap[:, row : row + side, column : column + side]
        worst = max(worst, difference(found, expected / expected.sum(dtype=np.float64)))
    return worst, least


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
    wanted = ["heatmap"] + ["orientation"] * ("orientation" in parity)
    complete = {output.name for output in session.get_outputs()} == set(wanted)
    least = float("inf")
    for _ in range(runs):
        start = time.process_time()
        outputs = dict(zip(wanted, session.run(wanted, inputs)))
        least = min(least, time.process_time() - start)
    place = difference(outputs["heatmap"], parity["heatmap"])
    good = complete and place <= 1e-4 and cuts and set(cuts) <= made
    told = "no orientation"
    if "orientation" in wanted:
        orientation, expected = outputs["orientation"], parity["orientation"]
        turn = difference(orientation, expected)
        length = parity.get("orientation_length", np.ones_like(expected[:, 0]))[:, None]
        vectors = float((np.abs(orientation - expected) * (length / length.max())).max())
        mode = (..., *np.unravel_index(parity["heatmap"][0].argmax(), parity["heatmap"][0].shape))
        turn_at_mode = float(np.abs(orientation[mode] - expected[mode]).max())
        good &= vectors <= 1e-4 and turn_at_mode <= 1e-4
        told = f"orientation by {vectors:.1e} ({turn_at_mode:.1e} at the mode; directions {turn:.1e})"
    window = over_windows(model, card, options, inputs, parity["heatmap"])
    if window:
        good &= window[0] <= 1e-4
        told += f", window differs by {window[0]:.1e}, {window[1] * 1e3:.1f} ms CPU time with the aerial half"
    failed |= not good
    print(
        f"{'ok  ' if good else 'FAIL'} {path.stem}: heatmap differs by {place:.1e}, {told}, "
        f"{len(cuts)} cut points, {least * 1e3:.1f} ms CPU time"
    )
sys.exit(failed)
