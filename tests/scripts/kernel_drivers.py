"""Cameras and a CAN bus through real kernel drivers, without any hardware: a machine with Debian's kernel is booted
under QEMU's emulator, with the kernel's virtual camera driver (vivid) and virtual CAN bus (vcan), and crossfixd runs in
it. Frames come from the kernel's test pattern generator, CAN messages from can-utils' cangen, fixes from an awk
script; other programs (v4l2-ctl, ip, sysfs) hold a camera, damage its pictures, make it hang, and unplug it.

Debian packages: qemu-system-x86 busybox-static can-utils v4l-utils; the kernel's is downloaded and only unpacked.

Usage: kernel_drivers.py CROSSFIXD FOLDER
"""
import base64
import io
import json
import lzma
import os
import pathlib
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import time

from mcap.reader import NonSeekingReader
from PIL import Image

from checks import check, failures

HERE = pathlib.Path(__file__).resolve().parent / "kernel_drivers"
MODULES = ["vivid", "vcan", "can-raw"]
PROGRAMS = ["v4l2-ctl", "cangen"]
# What the init script sleeps, several times over, on a slow machine.
LIMIT_S = 600


def kernel(folder):
    """Debian's kernel, unpacked: its image and the folder of its modules."""
    root = folder / "kernel"
    if not list(root.glob("boot/vmlinuz-*")):
        depends = subprocess.run(["apt-cache", "depends", "linux-image-amd64"], check=True, capture_output=True, text=True)
        package = re.search(r"Depends: (linux-image-\S+)", depends.stdout)[1]
        subprocess.run(["apt-get", "download", "-qq", package], cwd=folder, check=True)
        subprocess.run(["dpkg-deb", "--extract", next(folder.glob("linux-image-*.deb")), root], check=True)
    return next(root.glob("boot/vmlinuz-*")), next(root.glob("**/lib/modules/*"))


def load_order(modules):
    """Files of the modules and of what they depend on, each after what it needs, and their bytes."""
    found = {}
    for path in modules.rglob("*.ko*"):
        found[path.name.split(".")[0].replace("-", "_")] = path
    ordered = {}

    def load(name):
        name = name.replace("-", "_")
        if name in ordered:
            return
        data = found[name].read_bytes()
        if found[name].suffix == ".xz":
            data = lzma.decompress(data)
        depends = re.search(rb"\0depends=([^\0]*)\0", data)[1].decode()
        for other in filter(None, depends.split(",")):
            load(other)
        ordered[name] = data

    for name in MODULES:
        load(name)
    return ordered


class Archive:
    """An archive as the kernel unpacks it at its start (cpio, "newc")."""

    def __init__(self):
        self.data = io.BytesIO()
        self.folders = set()
        self.count = 0

    def add(self, path, mode, content=b"", device=(0, 0)):
        for parent in reversed(pathlib.PurePath(path).parents[:-1]):
            if str(parent) not in self.folders:
                self.folders.add(str(parent))
                self.entry(str(parent), stat.S_IFDIR | 0o755, b"", (0, 0))
        self.entry(path, mode, content, device)

    def entry(self, path, mode, content, device):
        self.count += 1
        name = path.encode() + b"\0"
        numbers = [self.count, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(name), 0]
        header = b"070701" + b"".join(b"%08X" % number for number in numbers) + name
        self.data.write(header + b"\0" * (-len(header) % 4))
        self.data.write(content + b"\0" * (-len(content) % 4))

    def program(self, path, target=None):
        """A program with the libraries that it is linked with."""
        self.add(target or f"bin/{os.path.basename(path)}", stat.S_IFREG | 0o755, pathlib.Path(path).read_bytes())
        linked = subprocess.run(["ldd", path], capture_output=True, text=True).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            if library not in self.folders:
                self.folders.add(library)
                self.add(library[1:], stat.S_IFREG | 0o755, pathlib.Path(library).read_bytes())

    def bytes(self):
        self.entry("TRAILER!!!", 0, b"", (0, 0))
        return self.data.getvalue()


def initramfs(crossfixd, folder, modules):
    archive = Archive()
    archive.add("dev/console", stat.S_IFCHR | 0o600, device=(5, 1))
    archive.add("init", stat.S_IFREG | 0o755, (HERE / "init.sh").read_bytes())
    archive.add("etc/crossfixd.toml", stat.S_IFREG | 0o644, (HERE / "crossfixd.toml").read_bytes())
    archive.add("etc/receiver.awk", stat.S_IFREG | 0o644, (HERE / "receiver.awk").read_bytes())
    archive.add("bin/receiver", stat.S_IFREG | 0o755, b"#!/bin/sh\nexec awk -f /etc/receiver.awk\n")
    names = []
    for name, data in load_order(modules).items():
        names.append(f"/modules/{name}.ko")
        archive.add(names[-1][1:], stat.S_IFREG | 0o644, data)
    archive.add("etc/modules", stat.S_IFREG | 0o644, "\n".join(names).encode())
    busybox = shutil.which("busybox")
    archive.program(busybox)
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            archive.add(f"bin/{applet}", stat.S_IFLNK | 0o777, b"busybox")
    for program in PROGRAMS:
        archive.program(shutil.which(program))
    stripped = folder / "crossfixd"
    subprocess.run(["strip", "-o", stripped, crossfixd], check=True)
    archive.program(str(stripped))
    path = folder / "initramfs"
    path.write_bytes(archive.bytes())
    return path


def boot(image, archive, folder):
    """Runs the machine to its end; what it sent."""
    sent = folder / "out.tar"
    command = ["qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024", "-nodefaults"]
    command += ["-display", "none", "-no-reboot", "-kernel", image, "-initrd", archive]
    command += ["-append", "console=ttyS0 quiet panic=-1 no_timer_check", "-serial", "stdio", "-serial", f"file:{sent}"]
    with open(folder / "console.txt", "wb") as console:
        subprocess.run(command, stdout=console, stdin=subprocess.DEVNULL, timeout=LIMIT_S, check=True)
    print((folder / "console.txt").read_text(errors="replace"))
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    with tarfile.open(sent) as tar:
        tar.extractall(out)
    return out


def source(out, moment, name):
    """What the status says of a source."""
    text = (out / f"status-{moment}.json").read_text()
    try:
        return next(one for one in json.loads(text)["sources"] if one["name"] == name)
    except (ValueError, KeyError, StopIteration):
        return {"text": text}


def says(entry, words):
    return words in json.dumps(entry, ensure_ascii=False)


def frames_of(out):
    """Recorded frames of each camera: their stamps and when they arrived, nanoseconds on the machine's clock, and the
    pictures. Messages of the bus are stamped 20 ms before they arrive, so they say what the recorder's clock began at."""
    frames = {}
    begun_ns = None
    for path in sorted((out / "recordings").glob("*.mcap")):
        with open(path, "rb") as file:
            for _, channel, message in NonSeekingReader(file).iter_messages(log_time_order=False):
                body = json.loads(message.data)
                stamp = body["timestamp"]["sec"] * 10**9 + body["timestamp"]["nsec"] if "timestamp" in body else None
                if channel.topic == "/odometry":
                    shift_ns = message.log_time - stamp - 20_000_000
                    begun_ns = shift_ns if begun_ns is None else min(begun_ns, shift_ns)
                if "image" in channel.topic:
                    picture = Image.open(io.BytesIO(base64.b64decode(body["data"]))).convert("RGB")
                    frames.setdefault(body["frame_id"], []).append((stamp, message.log_time, picture))
    return {name: [(stamp, arrived - (begun_ns or 0), picture) for stamp, arrived, picture in taken] for name, taken in frames.items()}


# The eight bars of the kernel's test pattern "75% Colorbar": white, yellow, cyan, green, magenta, red, blue, black.
BARS = [(191, 191, 191), (191, 191, 0), (0, 191, 191), (0, 191, 0), (191, 0, 191), (191, 0, 0), (0, 0, 191), (0, 0, 0)]


def worst_bar(picture):
    """How far the middle of any bar is from its colour, in levels."""
    width, height = picture.size
    pixels = [picture.getpixel((int((bar + 0.5) * width / 8), int(0.8 * height))) for bar in range(8)]
    return max(abs(a - b) for pixel, bar in zip(pixels, BARS) for a, b in zip(pixel, bar)), pixels


def judge(out):
    checked = (out / "check.txt").read_text()
    check("--check finds nothing wrong with cameras that are there", "check: 0" in checked, checked)
    wrong = (out / "check-wrong.txt").read_text()
    check("--check names a camera that is not there", '"/dev/video7" is not there' in wrong, wrong)
    check("--check names a size that a camera does not offer, and what it offers",
          "does not offer 320 × 181 px as NV12; it offers" in wrong and "320 × 180" in wrong, wrong)

    log = re.sub(r"\x1b\[[0-9;]*m", "", (out / "log.txt").read_text())
    for words in ['source="front"', "format=YUYV width=320 height=180 rate_hz=2", "format=NV12 width=320 height=180 rate_hz=1"]:
        check(f"the log says {words}", words in log, log)
    check("the log says what the stamps are of", "stamps are the driver's" in log and 'moment="start of exposure"' in log, log)
    check("stamps ahead of the clock are not used, and the log says so", "or ahead of it" in log, log)

    busy = source(out, "busy", "rear")
    check("a camera that another program has is down and says so", says(busy, "in use by another program"), busy)
    for name in ["gnss", "front", "rear", "wheels"]:
        entry = source(out, "steady", name)
        check(f"{name} is up", entry.get("up") is True, entry)
    clocks = [source(out, "hung", name).get("clocks") for name in ["front", "rear"]]
    check("stamps become UTC", all(says(clock, "corrected") for clock in clocks), clocks)
    # Known exactly unless frames are more than half a second late, as on a busy machine.
    check("of at least one camera exactly", any(says(clock, "this machine's own") for clock in clocks), clocks)
    for name, rate_hz in [("front", 2.0), ("rear", 1.0)]:
        before, after = (json.loads((out / f"status-{moment}.json").read_text()) for moment in ["again", "later"])
        count = source(out, "later", name)["events"] - source(out, "again", name)["events"]
        wanted = (after["up_s"] - before["up_s"]) * rate_hz
        check(f"{name}: {count} frames where {wanted:.0f} were asked for", 0.7 * wanted - 2 < count < 1.3 * wanted + 2, count)
    damaged = source(out, "damaged", "front")
    check("a damaged picture is left out and mentioned", damaged.get("up") and says(damaged, "damaged picture"), damaged)
    hanging = source(out, "hanging", "front")
    check("a camera that hangs is down and says so", not hanging.get("up", True) and says(hanging, "delivered nothing usable for 3 s"), hanging)
    check("the other camera goes on meanwhile", source(out, "hanging", "rear").get("up") is True)
    check("a camera that hung is up again", source(out, "hung", "front").get("up") is True, source(out, "hung", "front"))
    for name in ["front", "rear"]:
        entry = source(out, "unplugged", name)
        check(f"{name} unplugged is down and says so", not entry.get("up", True) and says(entry, f"/dev/video{int(name == 'rear')}"), entry)
    wheels = source(out, "unplugged", "wheels")
    check("a CAN bus that is down is named", not wheels.get("up", True) and says(wheels, "vcan0"), wheels)
    for name in ["front", "rear", "wheels"]:
        entry = source(out, "again", name)
        check(f"{name} is up again", entry.get("up") is True, entry)
    ended = re.match(r"crossfixd ended with (\d+) between ([\d.]+) and ([\d.]+) s", (out / "end.txt").read_text())
    took_s = float(ended[3]) - float(ended[2])
    check(f"crossfixd ended within {took_s:.1f} s of TERM", ended[1] == "0" and took_s < 5.0, ended[0])
    print((out / "memory.txt").read_text())

    estimates = [json.loads(line) for line in (out / "estimates.jsonl").read_text().splitlines() if line.startswith("{")]
    speeds = sorted(one["speed_mps"] for one in estimates[len(estimates) // 2 :])
    check(f"{len(estimates)} estimates at the 8 m/s that the bus says", speeds and abs(speeds[len(speeds) // 2] - 8.0) < 0.5, speeds[-5:])

    frames = frames_of(out)
    for name, size, rate_hz in [("front", (320, 180), 2.0), ("rear", (320, 180), 1.0)]:
        taken = frames.get(name, [])
        check(f"{name}: {len(taken)} frames were recorded", len(taken) > 15 * rate_hz, {key: len(value) for key, value in frames.items()})
        if not taken:
            continue
        check(f"{name}: all are {size}", all(picture.size == size for _, _, picture in taken))
        off, pixels = max((worst_bar(picture) for _, _, picture in taken[:: max(1, len(taken) // 10)]), key=lambda one: one[0])
        check(f"{name}: the kernel's colour bars come out within {off} levels", off <= 6, pixels)
        stamps = [stamp for stamp, _, _ in taken]
        steps = sorted((after - before) * 1e-9 for before, after in zip(stamps, stamps[1:]))
        middle_s = steps[len(steps) // 2]
        # The recorder passes frames over, so steps are whole multiples of the interval.
        off = sorted(abs(step * rate_hz - round(step * rate_hz)) for step in steps)
        check(f"{name}: half of the frames are within {off[len(off) // 2]:.3f} intervals of the rate by their stamps",
              middle_s * rate_hz > 0.9 and off[len(off) // 2] < 0.1, steps)
        late = sorted((arrived - stamp) * 1e-9 for stamp, arrived, _ in taken)
        check(f"{name}: half of the frames arrive within {late[len(late) // 2]:.3f} s of their stamps",
              -0.001 < late[0] and late[len(late) // 2] < 0.5, late)


def main(crossfixd, folder):
    folder = pathlib.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    begun = time.monotonic()
    image, modules = kernel(folder)
    archive = initramfs(crossfixd, folder, modules)
    made = time.monotonic()
    out = boot(image, archive, folder)
    print(f"{made - begun:.0f} s to make {archive.stat().st_size / 1e6:.0f} MB for {image.name}, {time.monotonic() - made:.0f} s to run it")
    judge(out)
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main(*sys.argv[1:])
