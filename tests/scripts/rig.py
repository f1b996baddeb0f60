"""Six cameras in place of a panorama, on the demo's first drive: pinhole pictures are rendered from each panorama with numpy, written as six
topics by Python's mcap, and stitched again by crossfixd's [rig]. The fused position must be as good as with the panorama itself, a dead
camera must be told and done without, and what is wrong with a rig must be refused by name.

Usage: rig.py CROSSFIXD DEMO_OUT    DEMO_OUT: what `crossfix demo` wrote
"""
import base64
import bisect
import glob
import io
import json
import math
import os
import re
import subprocess
import sys
import tempfile

import numpy
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from PIL import Image

from checks import check, failures, free_port

# Name, left of the nose, up, right side down; degrees.
CAMERAS = [("front", 0, 0, 0), ("front_left", 60, -4, 0), ("rear_left", 118, 0, 3), ("rear", 180, -2, -2), ("rear_right", -121, 0, 0), ("front_right", -60, 3, 1)]
WIDTH, HEIGHT, FOCAL = 320, 300, 200.0
TOP_DEG, COLUMN_DEG = 28.0, 360.0 / 256.0


def axis_turn(axis, degrees):
    """A turn about x (0), y (1) or z (2) by the right hand."""
    sine, cosine = math.sin(math.radians(degrees)), math.cos(math.radians(degrees))
    one, other = [(1, 2), (2, 0), (0, 1)][axis]
    turn = numpy.eye(3)
    turn[one, one] = turn[other, other] = cosine
    turn[one, other], turn[other, one] = -sine, sine
    return turn


def places(left, up, right_down):
    """Where in the panorama each pixel of a camera looks: rows, columns; and whether it is in it."""
    x, y = numpy.meshgrid((numpy.arange(WIDTH) + 0.5 - WIDTH / 2) / FOCAL, (numpy.arange(HEIGHT) + 0.5 - HEIGHT / 2) / FOCAL)
    # x forward, y left, z up.
    rays = numpy.stack([numpy.ones_like(x), -x, -y], -1) @ (axis_turn(2, left) @ axis_turn(1, -up) @ axis_turn(0, right_down)).T
    azimuth = numpy.degrees(numpy.arctan2(-rays[..., 1], rays[..., 0]))
    elevation = numpy.degrees(numpy.arctan2(rays[..., 2], numpy.hypot(rays[..., 0], rays[..., 1])))
    rows, columns = (TOP_DEG - elevation) / COLUMN_DEG - 0.5, (azimuth + 180.0) / COLUMN_DEG - 0.5
    return rows, columns, (rows >= -0.5) & (rows <= 47.5)


def rendered(panorama, where):
    rows, columns, inside = where
    rows = numpy.clip(rows, 0, 47)
    top, left = numpy.floor(rows).astype(int), numpy.floor(columns).astype(int)
    low, right = numpy.minimum(top + 1, 47), (left + 1) % 256
    down, across = (rows - top)[..., None], (columns - left)[..., None]
    upper = panorama[top, left % 256] * (1 - across) + panorama[top, right] * across
    lower = panorama[low, left % 256] * (1 - across) + panorama[low, right] * across
    picture = numpy.where(inside[..., None], upper * (1 - down) + lower * down, 0)
    coded = io.BytesIO()
    Image.fromarray((picture + 0.5).astype(numpy.uint8)).save(coded, "JPEG", quality=95, subsampling=0)
    return base64.b64encode(coded.getvalue()).decode()


def write_log(path, log, dies_after_s, taken):
    """The drive with six cameras; the fourth dies after so many seconds. `taken` holds the pictures, made once."""
    where = [places(*camera[1:]) for camera in CAMERAS]
    channels, first_ns = {}, None
    with open(log, "rb") as source, open(path, "wb") as out:
        writer = Writer(out, compression=CompressionType.NONE)
        writer.start()
        for schema, channel, message in make_reader(source).iter_messages():
            if schema.name == "crossfix.Camera":
                continue
            pictures = [(channel.topic, message.data)]
            if schema.name == "foxglove.CompressedImage":
                content = json.loads(message.data)
                if message.log_time not in taken:
                    panorama = numpy.asarray(Image.open(io.BytesIO(base64.b64decode(content["data"]))).convert("RGB"), numpy.float32)
                    taken[message.log_time] = [rendered(panorama, table) for table in where]
                first_ns = first_ns or message.log_time
                pictures = []
                for index, camera in enumerate(CAMERAS):
                    if index == 3 and message.log_time - first_ns > dies_after_s * 1e9:
                        continue
                    picture = {**content, "frame_id": camera[0], "format": "jpeg", "data": taken[message.log_time][index]}
                    pictures.append((f"/cameras/{camera[0]}", json.dumps(picture).encode()))
            for topic, data in pictures:
                if topic not in channels:
                    described = writer.register_schema(schema.name, schema.encoding, schema.data)
                    channels[topic] = writer.register_channel(topic, channel.message_encoding, described)
                writer.add_message(channels[topic], message.log_time, data, message.publish_time)
        writer.finish()


def config(demo, rig):
    text = f'[tiles]\npath = "{demo}/test/tiles.pmtiles"\n[model]\npath = "{demo}/student.onnx"\n'
    if not rig:
        return text
    text += "[topics]\ncamera = [%s]\n" % ", ".join(f'"/cameras/{camera[0]}"' for camera in CAMERAS)
    for name, left, up, right_down in CAMERAS:
        text += (f'[[rig.camera]]\nsource = "{name}"\nlens = {{ kind = "pinhole", width = {WIDTH}, height = {HEIGHT}, fx = {FOCAL}, fy = {FOCAL}, '
                 f"cx = {WIDTH / 2}, cy = {HEIGHT / 2}, mount = {{ yaw_left_deg = {left}.0, pitch_up_deg = {up}.0, roll_right_deg = {right_down}.0 }} }}\n")
    return text


def replay(crossfixd, folder, log, text):
    """What it prints, its counters, and what it says."""
    path = f"{folder}/config.toml"
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    done = subprocess.run([crossfixd, "replay", log, "--config", path, "--json"], capture_output=True, text=True, check=False)
    check("the drive is replayed", done.returncode == 0, done.stderr[-1500:])
    return done.stdout.splitlines(), {name: int(count) for name, count in re.findall(r"(\w+): (\d+)", done.stderr.split("CoreCounters")[-1])}, done.stderr


def mean_error_m(lines, truth):
    """Mean fused error while the state is ok, and how many moments that is."""
    times, errors = [row["time_ns"] for row in truth], []
    for line in map(json.loads, lines):
        at = bisect.bisect_left(times, line["time_ns"])
        if line["kind"] == "fused" and line["state"] == "ok" and at < len(times):
            north = (line["latitude_deg"] - truth[at]["latitude_deg"]) * 111_267
            east = (line["longitude_deg"] - truth[at]["longitude_deg"]) * 111_320 * math.cos(math.radians(truth[at]["latitude_deg"]))
            errors.append(math.hypot(east, north))
    return sum(errors) / max(1, len(errors)), len(errors)


def main(crossfixd, demo):
    log = sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[0]
    with open(log.removesuffix(".mcap") + ".truth.jsonl", encoding="utf-8") as file:
        truth = [json.loads(line) for line in file]
    with tempfile.TemporaryDirectory() as folder:
        whole, dead = f"{folder}/whole.mcap", f"{folder}/dead.mcap"
        taken = {}
        write_log(whole, log, math.inf, taken)
        write_log(dead, log, 20.0, taken)
        lines, panorama, _ = replay(crossfixd, folder, log, config(demo, False))
        expected_m, expected_ok = mean_error_m(lines, truth)
        lines, six, words = replay(crossfixd, folder, whole, config(demo, True))
        found_m, found_ok = mean_error_m(lines, truth)
        print(f"        panorama {expected_m:.2f} m over {expected_ok} ok moments, six cameras {found_m:.2f} m over {found_ok}")
        check("as many frames are matched as with the panorama", abs(six["frames"] - panorama["frames"]) <= 3, (six, panorama))
        check("every panorama has all cameras", six["frames_partial"] == 0 and "without" not in words, (six, words[-800:]))
        check("the position is as good", found_m < 1.3 * expected_m + 0.05 and found_ok > 0.9 * expected_ok, (found_m, expected_m, found_ok, expected_ok))
        lines, five, words = replay(crossfixd, folder, dead, config(demo, True))
        found_m, found_ok = mean_error_m(lines, truth)
        print(f"        without the rear camera {found_m:.2f} m over {found_ok}")
        check("a dead camera is told once and done without", five["frames_partial"] > 20 and words.count("made without these cameras") == 1, (five, words[-800:]))
        check("the position is still good", found_m < 2.0 * expected_m + 0.1 and found_ok > 0.4 * expected_ok, (found_m, found_ok))
        run = f'[[source]]\nkind = "mcap"\npath = "{whole}"\n[[sink]]\nkind = "gpsd_server"\nlisten = "127.0.0.1:{free_port()}"\n'
        path = f"{folder}/right.toml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(config(demo, True) + run)
        done = subprocess.run([crossfixd, "--check", path], capture_output=True, text=True, check=False)
        check("--check finds nothing wrong with the rig", done.returncode == 0, done.stderr)
        for change, named in (
            (('source = "rear_left"', 'source = "rear"'), "rig.camera[3].source"),
            (("fx = 200.0", "fx = -1.0"), "rig.camera[0].lens"),
            (("[[rig.camera]]", "[rig]\ntop_elevation_deg = 10.0\n[[rig.camera]]"), "rig.top_elevation_deg"),
        ):
            path = f"{folder}/wrong.toml"
            with open(path, "w", encoding="utf-8") as file:
                file.write(config(demo, True).replace(*change, 1) + run)
            done = subprocess.run([crossfixd, "--check", path], capture_output=True, text=True, check=False)
            check(f"{named} is refused", done.returncode != 0 and named in done.stdout + done.stderr, done.stderr)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*(os.path.abspath(path) for path in sys.argv[1:])))
