"""Shadow mode of crossfixd on the demo's drives: the estimates are those without it, to the byte; the student is told to be
better than the teacher and the teacher worse than the student; a broken shadow is named and harms nothing.

Usage: shadow.py CROSSFIX CROSSFIXD DEMO_OUT    DEMO_OUT: what `crossfix demo` wrote
"""
import glob
import hashlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time

from mcap.reader import make_reader
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from checks import check, failures, free_port


def write(path, text):
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)
    return path


def config(demo, model, shadow=None, more=""):
    text = f'[tiles]\npath = "{demo}/test/tiles.pmtiles"\n[model]\npath = "{model}"\n'
    if shadow:
        text += f'[shadow]\nmodel = "{shadow}"\nevery = 1\n'
    return text + more


def replay(crossfixd, log, path, out=None):
    command = [crossfixd, "replay", log, "--config", path, "--json"] + (["--out", out] if out else [])
    done = subprocess.run(command, capture_output=True, check=False)
    told = [line for line in done.stderr.decode().splitlines() if line.startswith("crossfixd: shadow")]
    return done.returncode, done.stdout, told[-1] if told else ""


def messages(path, topics):
    with open(path, "rb") as file:
        return [(channel.topic, message.log_time, message.data) for _, channel, message in make_reader(file).iter_messages(topics=topics)]


def compare(crossfixd, folder, demo, running, shadow, names, drives=6):
    """Verdicts over so many drives, each replayed with and without the shadow."""
    with_shadow = write(f"{folder}/with.toml", config(demo, running, shadow))
    without = write(f"{folder}/without.toml", config(demo, running))
    verdicts, gains = [], []
    for log in sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[:drives]:
        plain, shadowed = replay(crossfixd, log, without), replay(crossfixd, log, with_shadow)
        same = plain[0] == shadowed[0] == 0 and plain[1] == shadowed[1] and len(plain[1]) > 100_000
        check(f"{names}, {os.path.basename(log)}: the same estimates to the byte", same, (plain[0], shadowed[0], len(plain[1]), len(shadowed[1])))
        found = re.search(r": (\w+) after (\d+) frames .* position ([-+][\d.]+)", shadowed[2])
        verdicts.append(found[1] if found else None)
        gains.append(float(found[3]) if found else 0.0)
        print(f"        {shadowed[2].split('.onnx: ')[-1]}")
    return verdicts, gains


def check_log(crossfixd, folder, demo, student, teacher):
    log = sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[0]
    for name, shadow in (("plain", None), ("shadowed", student)):
        path = write(f"{folder}/{name}.toml", config(demo, teacher, shadow))
        replay(crossfixd, log, path, f"{folder}/{name}.mcap")
    ours = ["/crossfix/fused", "/crossfix/visual_only", "/crossfix/state"]
    plain, shadowed = (messages(f"{folder}/{name}.mcap", ours) for name in ("plain", "shadowed"))
    check("MCAP: the estimates are the same", plain == shadowed and len(plain) > 1000, (len(plain), len(shadowed)))
    told = [json.loads(data) for _, _, data in messages(f"{folder}/shadowed.mcap", ["/crossfix/shadow"])]
    fields = {"timestamp", "camera", "modes_apart_m", "running_mode_off_m", "shadow_mode_off_m", "running_log_likelihood", "shadow_log_likelihood"}
    check("MCAP: each frame that was compared", len(told) > 50 and set(told[0]) == fields, (len(told), told[:1]))
    again = replay(crossfixd, log, f"{folder}/shadowed.toml")[2]
    check("and the same figures each time", again == replay(crossfixd, log, f"{folder}/shadowed.toml")[2] != "", again)


def check_broken(crossfixd, folder, demo, student):
    log = sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[0]
    bytes_of = open(student, "rb").read()
    expected = replay(crossfixd, log, write(f"{folder}/plain.toml", config(demo, student)))[1]
    for name, content, more in [
        ("cut", bytes_of[: len(bytes_of) // 2], ""),
        ("no ONNX", b"hello", ""),
        ("empty", b"", ""),
        ("missing", None, ""),
        ("of another hash", bytes_of, f'sha256 = "{hashlib.sha256(b"x").hexdigest()}"\n'),
    ]:
        broken = f"{folder}/broken-{name.replace(' ', '-')}.onnx"
        if content is not None:
            with open(broken, "wb") as file:
                file.write(content)
        path = write(f"{folder}/broken.toml", config(demo, student, broken, more))
        code, estimates, told = replay(crossfixd, log, path)
        check(f"a shadow that is {name}: the same estimates", code == 0 and estimates == expected, (code, len(estimates), len(expected)))
        check(f"a shadow that is {name}: named", "does not run" in told and os.path.basename(broken) in told, told)
        run = write(f"{folder}/broken-run.toml", config(demo, student, broken, more + f'[[source]]\nkind = "mcap"\npath = "{log}"\n[[sink]]\nkind = "jsonl"\n'))
        checked = subprocess.run([crossfixd, "--check", run], capture_output=True, text=True, check=False)
        check(f"a shadow that is {name}: refused by --check", checked.returncode == 1 and os.path.basename(broken) in checked.stderr, checked.stderr)
    path = write(f"{folder}/alone.toml", f'[shadow]\nmodel = "{student}"\nevery = 0\n')
    checked = subprocess.run([crossfixd, "--check", path], capture_output=True, text=True, check=False).stderr
    check("--check: every = 0, and nothing to compare with", "shadow.every" in checked and "[model]" in checked, checked)


class Daemon:
    def __init__(self, crossfixd, folder, text):
        self.crossfixd, self.folder = crossfixd, folder
        self.path = write(f"{folder}/live.toml", text)
        self.lines = open(f"{folder}/live.jsonl", "wb+")
        self.process = subprocess.Popen([crossfixd, "run", "--config", self.path], stdout=self.lines, stderr=subprocess.DEVNULL)

    def status(self):
        done = subprocess.run([self.crossfixd, "status", "--config", self.path], capture_output=True, text=True, check=False)
        return json.loads(done.stdout) if done.returncode == 0 and done.stdout.startswith("{") else {}

    def wait_for(self, what, seconds=20):
        until, status = time.monotonic() + seconds, {}
        while time.monotonic() < until:
            status = self.status()
            if what(status.get("shadow") or {}, status):
                return True, status
            time.sleep(0.3)
        return False, status

    def kinds(self):
        with open(self.lines.name, encoding="utf-8") as file:
            return [json.loads(line)["kind"] for line in file if line.endswith("\n")]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    return connection.getresponse().read().decode()


def check_live(crossfixd, folder, demo, student, teacher):
    log = max(glob.glob(f"{demo}/test/logs/*.mcap"), key=os.path.getsize)
    metrics, page = free_port(), free_port()
    more = (f'[daemon]\nstatus_socket = "{folder}/status"\n[[source]]\nkind = "mcap"\npath = "{log}"\n[[sink]]\nkind = "jsonl"\n'
            f'[[sink]]\nkind = "metrics"\nlisten = "127.0.0.1:{metrics}"\n[[sink]]\nkind = "page"\nlisten = "127.0.0.1:{page}"\n')
    broken = f"{folder}/no.onnx"
    write(broken, "hello")
    daemon = Daemon(crossfixd, folder, config(demo, teacher, broken, more))
    try:
        good, status = daemon.wait_for(lambda shadow, status: shadow.get("error") and status["estimates"] > 20)
        check("live, a broken shadow: named, and positions all the same", good and not status["shadow"]["up"] and any("no.onnx" in reason for reason in status["reasons"]), status)
        write(daemon.path, config(demo, teacher, student, more))
        daemon.process.send_signal(signal.SIGHUP)
        good, status = daemon.wait_for(lambda shadow, _: shadow.get("up") and shadow["compared"] > 10)
        check("live, HUP: the one that the config names now", good and status["shadow"]["error"] is None, status.get("shadow"))
        time.sleep(1.5)  # sinks hear of it once a second
        niceness = {}
        for task in glob.glob(f"/proc/{daemon.process.pid}/task/*/stat"):
            with open(task, encoding="ascii", errors="replace") as file:
                name, fields = re.match(r"\d+ \((.*)\) (.*)", file.read()).groups()
            niceness[name] = int(fields.split()[16])
        check("live: it comes after everything else", niceness.pop("shadow", None) == 19 and niceness["core"] < 19, niceness)
        families = {family.name: family for family in text_string_to_metric_families(get(metrics, "/metrics"))}
        compared = [sample.value for sample in families["crossfix_shadow_frames"].samples if sample.labels["use"] == "compared"]
        check("live: metrics", compared and compared[0] > 10 and "crossfix_shadow_log_likelihood" in families, list(families))
        check("live: page", json.loads(get(page, "/now"))["health"]["shadow"]["compared"] > 10)
        check("live: JSON lines", daemon.kinds().count("shadow") > 10, daemon.kinds()[-3:])
        write(daemon.path, config(demo, teacher, broken, more))
        daemon.process.send_signal(signal.SIGHUP)
        good, status = daemon.wait_for(lambda shadow, _: shadow.get("up") and "refused" in (shadow["error"] or "") and shadow["compared"] > 3)
        check("live, HUP with a broken one: the old one goes on, and the new one is named", good, status.get("shadow"))
        write(daemon.path, config(demo, teacher, None, more))
        daemon.process.send_signal(signal.SIGHUP)
        good, status = daemon.wait_for(lambda _, status: status and status["shadow"] is None)
        check("live, HUP without one: it is gone", good, status.get("shadow"))
    finally:
        daemon.process.terminate()
        check("it ends", daemon.process.wait(15) == 0)


def main(crossfix, crossfixd, demo):
    demo = os.path.abspath(demo)
    student = f"{demo}/student.onnx"
    with tempfile.TemporaryDirectory() as folder:
        teacher = f"{folder}/teacher.onnx"
        subprocess.run([crossfix, "export", "--weights", f"{demo}/teacher.safetensors", "--out", teacher], check=True, capture_output=True)
        verdicts, gains = compare(crossfixd, folder, demo, teacher, student, "student behind teacher")
        check("the student is better than the teacher", verdicts.count("better") >= 3 and set(verdicts) <= {"better", "undecided"} and min(gains) > 0, verdicts)
        verdicts, gains = compare(crossfixd, folder, demo, student, teacher, "teacher behind student")
        check("the teacher is worse than the student", verdicts.count("worse") >= 3 and set(verdicts) <= {"worse", "undecided"} and max(gains) < 0, verdicts)
        verdicts, gains = compare(crossfixd, folder, demo, student, student, "student behind itself", 2)
        check("the student is as good as itself", set(verdicts) == {"undecided"} and gains == [0.0] * len(gains), (verdicts, gains))
        check_log(crossfixd, folder, demo, student, teacher)
        check_broken(crossfixd, folder, demo, student)
        check_live(crossfixd, folder, demo, student, teacher)
    print(f"{len(failures)} of the checks failed" if failures else "shadow mode does what it says")
    return 1 if failures else 0


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
