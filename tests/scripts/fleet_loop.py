"""The fleet's whole loop, each step by the programs as a fleet would use them: vehicles drive a simulated town and record live
(NMEA over TCP, odometry over UDP, JPEG over a Unix socket), their recordings become pairs, the pairs are checked, a student is
adapted to them, measured, exported, compared in shadow mode and rolled out by SIGHUP. One vehicle's odometry lies: it is found.

Usage: fleet_loop.py CROSSFIX CROSSFIXD TEACHER.safetensors OUT    OUT: a folder that is made anew
"""
import base64
import glob
import hashlib
import json
import math
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

from mcap.reader import make_reader

from checks import check, failures

SEED, VEHICLES, SECONDS = 5, 8, 70
LIAR, LIE = 3, 2.237  # miles an hour, taken as metres a second


def run(*command, expect=0):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    text = done.stdout + done.stderr
    good = done.returncode == expect
    check(f"{os.path.basename(command[0])} {command[1]} ends with {expect}", good, (done.returncode, text[-1200:]))
    if not good:
        sys.exit(1)
    return done.stdout, text


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def sentence(body):
    total = 0
    for letter in body.encode():
        total ^= letter
    return f"${body}*{total:02X}\r\n".encode()


def angle(degrees, width, letters):
    whole = int(abs(degrees))
    return f"{whole:0{width}d}{(abs(degrees) - whole) * 60:010.7f},{letters[degrees < 0]}"


def nmea(fix, now):
    """GGA, RMC and GST of a fix, as a receiver sends them at its epoch."""
    utc = time.gmtime(now)
    clock = time.strftime("%H%M%S", utc) + f".{int(now % 1 * 1000):03d}"
    place = f"{angle(fix['latitude'], 2, 'NS')},{angle(fix['longitude'], 3, 'EW')}"
    sigma = math.sqrt(fix["position_covariance"][0])
    speed, track = fix.get("speed_mps") or 0.0, fix.get("track_deg")
    course = "" if track is None else f"{track:.2f}"
    gga = f"GPGGA,{clock},{place},1,10,1.2,{fix['altitude']:.2f},M,0.0,M,,"
    rmc = f"GPRMC,{clock},A,{place},{speed / 0.514444:.4f},{course},{time.strftime('%d%m%y', utc)},,,A"
    gst = f"GPGST,{clock},{sigma:.2f},{sigma:.2f},{sigma:.2f},0.0,{sigma:.2f},{sigma:.2f},{sigma * 2:.2f}"
    return b"".join(map(sentence, (gga, rmc, gst)))


def no_fix(now):
    """What a receiver says in a tunnel."""
    utc = time.gmtime(now)
    clock = time.strftime("%H%M%S", utc) + f".{int(now % 1 * 1000):03d}"
    return sentence(f"GPGGA,{clock},,,,,0,00,,,M,,M,,") + sentence(f"GPRMC,{clock},V,,,,,,,{time.strftime('%d%m%y', utc)},,,N")


def read(log):
    with open(log, "rb") as file:
        return [(channel.topic, message.publish_time, json.loads(message.data)) for _, channel, message in make_reader(file).iter_messages()]


def camera_toml(manifest):
    """The part of dataset.toml that describes the camera."""
    text = open(manifest, encoding="utf-8").read()
    return text[text.index("[camera]") :]


class Vehicle:
    """A crossfixd with a receiver, an odometer and a camera, driven along one simulated drive."""

    def __init__(self, crossfixd, folder, name, log, common, scale=1.0):
        self.name, self.folder, self.scale = name, folder, scale
        os.makedirs(folder)
        self.events = sorted(read(log), key=lambda event: event[1])
        self.receiver = socket.create_server(("127.0.0.1", 0))
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            self.udp = ("127.0.0.1", probe.getsockname()[1])
        self.config = write(
            f"{folder}/crossfixd.toml",
            f'[daemon]\nstatus_socket = "status"\n'
            f'[[source]]\nkind = "nmea"\nname = "roof"\ntcp = "127.0.0.1:{self.receiver.getsockname()[1]}"\n'
            f'[[source]]\nkind = "odometry_feed"\nname = "wheels"\nudp = "127.0.0.1:{self.udp[1]}"\n'
            f'[[source]]\nkind = "jpeg_stream"\nname = "ring"\nunix_stream = "camera.sock"\n'
            f'[[sink]]\nkind = "record"\nfolder = "recordings"\nvehicle = "{name}"\nframe_every_m = 4.0\nmin_free_mb = 1\n' + common,
        )
        os.makedirs(f"{folder}/recordings")
        self.log = open(f"{folder}/log", "w", encoding="utf-8")
        self.process = subprocess.Popen([crossfixd, "run", "--config", self.config], stdout=subprocess.DEVNULL, stderr=self.log)

    def drive(self, seconds):
        self.receiver.settimeout(20)
        stream, _ = self.receiver.accept()
        camera = socket.socket(socket.AF_UNIX)
        for _ in range(100):
            try:
                camera.connect(f"{self.folder}/camera.sock")
                break
            except OSError:
                time.sleep(0.1)
        feed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        begun, first = time.time(), self.events[0][1]
        told = begun
        for topic, at, body in self.events:
            due = begun + (at - first) / 1e9
            if due - begun > seconds:
                break
            time.sleep(max(0.0, due - time.time()))
            if topic == "/gnss/fix":
                stream.sendall(nmea(body, due))
                told = due
            elif topic == "/odometry":
                sample = {
                    "time_ns": int(due * 1e9),
                    "speed_mps": self.scale * body["forward_speed_mps"],
                    "yaw_rate_radps": body["yaw_rate_rps"],
                    "speed_sigma_mps": body["speed_sigma_mps"],
                    "yaw_rate_sigma_radps": body["yaw_rate_sigma_rps"],
                }
                feed.sendto(json.dumps(sample).encode(), self.udp)
                if due > told + 1.2:
                    stream.sendall(no_fix(due))
                    told = due
            elif topic == "/camera/image":
                camera.sendall(base64.b64decode(body["data"]))
        time.sleep(0.5)
        self.status = status(self.folder)
        stream.close()
        camera.close()

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        code = self.process.wait(20)
        self.log.close()
        return code


def status(folder):
    with socket.socket(socket.AF_UNIX) as asker:
        asker.connect(f"{folder}/status")
        return json.loads(asker.makefile().readline())


def main(crossfix, crossfixd, teacher, out):
    begun = time.time()
    crossfix, crossfixd, teacher = map(os.path.abspath, (crossfix, crossfixd, teacher))
    shutil.rmtree(out, ignore_errors=True)
    os.makedirs(out)
    os.chdir(out)
    run(crossfix, "simulate", "--seed", SEED, "--part", "adapt", "--districts", 2, "--drives", VEHICLES, "--out", "town")
    run(crossfix, "simulate", "--seed", SEED, "--part", "test", "--districts", 2, "--drives", 4, "--out", "test")
    run(crossfix, "export", "--weights", teacher, "--out", "teacher.onnx")
    logs = sorted(glob.glob("town/logs/*.mcap"))
    check("a log for each vehicle", len(logs) == VEHICLES, logs)
    camera = camera_toml("town/dataset.toml")
    tiles = os.path.abspath("town/tiles.pmtiles")
    common = f'[model]\npath = "{os.path.abspath("teacher.onnx")}"\n[tiles]\npath = "{tiles}"\n{camera}'

    print(f"-- {VEHICLES} vehicles drive for {SECONDS} s and record", flush=True)
    fleet = [
        Vehicle(crossfixd, os.path.abspath(f"vehicles/bus-{index}"), f"bus-{index}", log, common, LIE if index == LIAR else 1.0)
        for index, log in enumerate(logs)
    ]
    drivers = [threading.Thread(target=vehicle.drive, args=(SECONDS,)) for vehicle in fleet]
    for driver in drivers:
        driver.start()
    for driver in drivers:
        driver.join()
    states = [vehicle.status["estimate"]["state"] for vehicle in fleet]
    check("vehicles know where they are", all(state in ("ok", "degraded", "coasting") for state in states), states)
    told = json.dumps(fleet[LIAR].status)
    check("the lying odometer is named on board", "odometry" in " ".join(fleet[LIAR].status["reasons"]) and states[LIAR] != "ok", told)
    codes = [vehicle.stop() for vehicle in fleet]
    check("all stop when they are asked to", codes == [0] * VEHICLES, codes)

    print("-- recordings become pairs", flush=True)
    folders = [f"vehicles/bus-{index}/recordings" for index in range(VEHICLES)]
    ingest = ["--tiles", tiles, "--area", "loop", "--licence", "CC0-1.0"]
    made = json.loads(run(crossfix, "ingest", *folders, *ingest, "--every-m", 4.5, "--out", "all", "--json")[0])
    print(f"   {made['pairs']} pairs of {made['drives']} drives, {made['travelled_m']:.0f} m, {made['with_odometry']} with odometry")
    check("a drive of each vehicle", made["drives"] == VEHICLES and made["pairs"] > 30 * VEHICLES, made)
    check("headings and odometry", made["with_heading"] > 0.8 * made["pairs"] and made["with_odometry"] > 0.8 * made["pairs"], made)

    print("-- the liar is found", flush=True)
    _, told = run(crossfix, "check", "all", "--model", teacher, expect=1)
    named = sorted({f"bus-{index}" for index in range(VEHICLES) for line in told.splitlines() if f'drive "bus-{index}-' in line})
    check("check names the vehicle whose odometry lies, and no other", named == [f"bus-{LIAR}"], told)
    check("and in what", "odometry" in told and "miles an hour" in told, told)
    _, told = run(crossfix, "adapt", "--teacher", teacher, "--data", "all", "--out", "refused", expect=1)
    check("nothing is trained on it", "bus-3" in told and not os.path.exists("refused/student.safetensors"), told)
    honest = [folder for index, folder in enumerate(folders) if index != LIAR]
    run(crossfix, "ingest", *honest, *ingest, "--every-m", 4.5, "--out", "pairs")
    run(crossfix, "check", "pairs", "--model", teacher)

    print("-- a student", flush=True)
    run(crossfix, "adapt", "--teacher", teacher, "--data", "pairs", "--out", "run")
    errors = {}
    for name, model in (("teacher", teacher), ("student", "run/student.safetensors")):
        measured = json.loads(run(crossfix, "evaluate", "--model", model, "--data", "test", "--json")[0])
        errors[name] = measured
    mean = {name: find(measured, "mean_m") for name, measured in errors.items()}
    print(f"   mean error on other streets: teacher {mean['teacher']:.2f} m, student {mean['student']:.2f} m")
    check("the student is better where nobody drove", mean["student"] < 0.85 * mean["teacher"], mean)
    run(crossfix, "export", "--weights", "run/student.safetensors", "--out", "student.onnx")

    print("-- shadow mode", flush=True)
    test = f'[tiles]\npath = "{os.path.abspath("test/tiles.pmtiles")}"\n'
    shadow = write("shadow.toml", test + '[model]\npath = "teacher.onnx"\n[shadow]\nmodel = "student.onnx"\nevery = 1\n')
    verdicts = []
    for log in sorted(glob.glob("test/logs/*.mcap")):
        done = subprocess.run([crossfixd, "replay", log, "--config", shadow, "--json"], capture_output=True, text=True, check=False)
        verdicts += [line for line in done.stderr.splitlines() if line.startswith("crossfixd: shadow")]
    print("\n".join(f"   {line}" for line in verdicts))
    better, worse = (sum(word in line for line in verdicts) for word in ("better", "worse"))
    check("the shadow is better on recorded drives", len(verdicts) == 4 and better >= 2 and worse == 0, verdicts)

    print("-- rollout", flush=True)
    shutil.copy("teacher.onnx", "model.onnx")
    vehicle = Vehicle(crossfixd, os.path.abspath("vehicles/rollout"), "rollout", logs[0], common.replace("teacher.onnx", "model.onnx"))
    driver = threading.Thread(target=vehicle.drive, args=(40,))
    driver.start()
    time.sleep(10)
    model = [loaded(vehicle.folder)]
    for file in ("town/tiles.pmtiles", "student.onnx"):
        shutil.copy(file, "next.onnx")
        os.replace("next.onnx", "model.onnx")
        vehicle.process.send_signal(signal.SIGHUP)
        time.sleep(6)
        model.append(loaded(vehicle.folder))
    driver.join()
    hashes = [hashlib.sha256(open(name, "rb").read()).hexdigest() for name in ("teacher.onnx", "teacher.onnx", "student.onnx")]
    check("a file that is no model leaves the old one running, and then the student drives", model == hashes, (model, hashes))
    check("positions go on", vehicle.status["estimate"]["state"] in ("ok", "degraded") and vehicle.status["estimate_age_s"] < 1, vehicle.status)
    check("it stops", vehicle.stop() == 0)
    print(f"{len(failures)} failed, {time.time() - begun:.0f} s")
    sys.exit(bool(failures))


def find(tree, name):
    """The first value of this name in a tree of JSON."""
    if isinstance(tree, dict):
        if name in tree:
            return tree[name]
        tree = list(tree.values())
    for part in tree if isinstance(tree, list) else []:
        found = find(part, name)
        if found is not None:
            return found
    return None


def loaded(folder):
    """The SHA-256 of the model that runs, as the status says."""
    return status(folder)["model"]["sha256"]


main(*sys.argv[1:])
