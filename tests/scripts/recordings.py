"""Recordings of crossfixd, killed at any moment, read by programs that are not ours: the `mcap` package in its default
(strict) mode with every CRC checked, and `jsonschema` against the schemas in the files.

Usage: recordings.py CROSSFIXD RECEIVER.nmea
"""
import base64
import calendar
import io
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time

import jsonschema
from mcap.reader import NonSeekingReader, SeekingReader
from PIL import Image

from checks import check, failures

ROUNDS = 6


def utc_ns(rmc):
    clock, date = rmc[1], rmc[9]
    digits = (2000 + int(date[4:6]), int(date[2:4]), int(date[0:2]), int(clock[0:2]), int(clock[2:4]), int(clock[4:6]))
    return calendar.timegm(digits + (0, 0, 0)) * 10**9


def stage(folder, recording):
    """The part of the drive that moves, and a picture of two colours every 0.2 s of it."""
    lines = open(recording, encoding="ascii").read().splitlines()
    first = next(i for i, line in enumerate(lines) if "RMC" in line and line.split(",")[7] and float(line.split(",")[7]) > 5)
    with open(f"{folder}/drive.nmea", "w", encoding="ascii") as file:
        file.write("\n".join(lines[first - first % 2 : first + 120]) + "\n")
    start_ns = utc_ns(lines[first].split(","))
    os.mkdir(f"{folder}/frames")
    pictures = {}
    for index in range(5 * 40):
        time_ns = start_ns + index * 200_000_000
        picture = io.BytesIO()
        Image.new("RGB", (64, 32), (index % 256, 255 - index % 256, 80)).save(picture, "JPEG")
        pictures[time_ns] = picture.getvalue()
        with open(f"{folder}/frames/{time_ns}.jpg", "wb") as file:
            file.write(picture.getvalue())
    with open(f"{folder}/crossfixd.toml", "w", encoding="utf-8") as file:
        file.write(
            '[[source]]\nkind = "nmea"\nname = "roof"\nfile = "drive.nmea"\n'
            '[[source]]\nkind = "images"\nname = "front"\nfolder = "frames"\nmode = "paced"\n'
            '[camera]\nkind = "equirectangular"\nwidth = 64\nheight = 32\n'
            '[[sink]]\nkind = "record"\nfolder = "recordings"\nvehicle = "bus-7"\nflush_s = 0.1\nmin_free_mb = 1\n'
        )
    return pictures


def recordings(folder):
    names = os.listdir(folder) if os.path.isdir(folder) else []
    return [os.path.join(folder, name) for name in sorted(names) if name.endswith(".mcap")]


def messages(path):
    """Every message, the same from two readers that check every CRC."""
    with open(path, "rb") as stream:
        one = list(NonSeekingReader(stream, validate_crcs=True).iter_messages(log_time_order=False))
    with open(path, "rb") as stream:
        two = list(SeekingReader(stream, validate_crcs=True).iter_messages())
    assert len(one) == len(two), (path, len(one), len(two))
    return one


def main(crossfixd, recording):
    folder = tempfile.mkdtemp()
    pictures = stage(folder, recording)
    command = [crossfixd, "run", "--config", f"{folder}/crossfixd.toml"]
    where = f"{folder}/recordings"
    dice = random.Random(7)
    for round_ in range(ROUNDS):
        daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        time.sleep(1.5 + 3 * dice.random())
        daemon.send_signal(signal.SIGKILL)
        daemon.wait()
        sizes = [len(messages(path)) for path in recordings(where)]
        check(f"kill -9, round {round_ + 1}: every file is whole", len(sizes) == round_ + 1 and min(sizes) > 5, sizes)
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    time.sleep(9)
    # Killed while it runs: what is read now is read from a file that is being written.
    check("a file that is being written is whole", len(messages(recordings(where)[-1])) > 10)
    daemon.terminate()
    check("it ends", daemon.wait(10) == 0)

    last = recordings(where)[-1]
    with open(last, "rb") as stream:
        summary = SeekingReader(stream).get_summary()
    check("a file that was closed has an index", summary is not None and summary.statistics.message_count > 50)
    with open(last, "rb") as stream:
        metadata = {record.name: record.metadata for record in SeekingReader(stream).iter_metadata()}
    check("a file says whose it is", metadata.get("crossfix.recording", {}).get("vehicle") == "bus-7", metadata)

    schemas, topics, invalid, previous_ns = {}, {}, [], 0
    for schema, channel, message in messages(last):
        body = json.loads(message.data)
        topics.setdefault(channel.topic, []).append(body)
        schemas[channel.topic] = schema.name
        try:
            jsonschema.validate(body, json.loads(schema.data))
        except jsonschema.ValidationError as error:
            invalid.append((channel.topic, error.message))
        previous_ns = max(previous_ns, message.log_time)
    check("every message is what its schema says", not invalid, invalid[:3])
    expected = {
        "/gnss/fix": "foxglove.LocationFix",
        "/camera/image": "foxglove.CompressedImage",
        "/camera/calibration": "crossfix.Camera",
        "/crossfix/fused": "foxglove.LocationFix",
        "/crossfix/state": "crossfix.State",
        "/crossfix/selection": "crossfix.Selection",
        "/crossfix/health": "crossfix.Health",
    }
    check("every topic has its schema", expected.items() <= schemas.items(), schemas)
    check("log times are of now", abs(previous_ns / 1e9 - time.time()) < 30, previous_ns)
    images = topics.get("/camera/image", [])
    same = [
        base64.b64decode(image["data"]) == pictures[image["timestamp"]["sec"] * 10**9 + image["timestamp"]["nsec"]]
        for image in images
    ]
    check("pictures are the bytes as they came", len(same) >= 3 and all(same) and images[0]["frame_id"] == "front", len(same))
    ways = [selection["travelled_m"] for selection in topics.get("/crossfix/selection", [])][1:]
    check("pictures are 5 m or more apart", ways and all(5 <= way < 12 for way in ways), ways)
    fix = topics["/gnss/fix"][0]
    check("a fix has its source, covariance and rule", fix["frame_id"] == "roof" and fix["covariance_rule"] == "hdop" and fix["position_covariance"][0] > 0, fix)

    done = subprocess.run([crossfixd, "replay", last, "--json"], capture_output=True, check=False)
    estimates = [json.loads(line) for line in done.stdout.splitlines()]
    near = [abs(e.get("latitude_deg", 0) - fix["latitude"]) < 0.01 for e in estimates]
    check("crossfixd replays it", done.returncode == 0 and len(near) > 20 and all(near), (done.returncode, len(near), done.stderr[-200:]))
    cut = recordings(where)[0]
    done = subprocess.run([crossfixd, "replay", cut, "--json"], capture_output=True, check=False)
    check("crossfixd replays one that was cut by kill -9", done.returncode == 0 and done.stdout.count(b"\n") > 3, done.stderr[-200:])
    print(f"{len(failures)} of the checks failed" if failures else "every recording was read")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
