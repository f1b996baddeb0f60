"""A few seconds of GNSS, then odometry and imagery alone for 2 km, in simulated cities; the same with GNSS throughout, and with
neither. The drives' logs are written again by Python's mcap, replayed by crossfixd, and compared with the truth beside them.

Usage: no_gnss.py CROSSFIX CROSSFIXD OUT [--areas source,target] [--cities 5] [--modes KEY,KEY] [--teacher FILE] [--keep] [--check]
                  [--set fusion.KEY=VALUE]... [--trace PREFIX]
  --cities  so many an area: of the seeds from 11 on those whose drive has 2 km (some routes end at the border of the district before)
  --modes   of MODES below; all by default
  --keep    take the cities that are in OUT already
  --check   exit with 1 when a bound is not kept (of the modes that have bounds, over all drives of an area)
  --set     a setting of the daemon's config, for all replays
  --trace   write what was found at each moment to PREFIX-AREA-SEED-MODE.jsonl

Odometry is the one that the simulator writes (`simulated`: speed scale 1.5 % and gyro bias 0.15 degrees a second, 1 sigma, constant
for a drive, and an inertial heading that wanders by 1.7 degrees) or made from the truth (`1 %`: a speed that is wrong by 1 %, a
gyro with a bias of 0.01 degrees a second, signs by the seed, the noise of the simulator, and no heading at all).
Figures are of the moments of the truth, 10 a second, standing included, from 8.2 s after the first fix on, for all modes alike: 5 s and
`gnss_timeout_s`. A moment belongs to the newest estimate, which is no older than 0.3 s. Lost estimates have no position and no error.
`outside`: the truth is outside of the protection radius. `ok`: and the state is `ok`. `quiet`: and nothing is said but that there
is no GNSS, which without GNSS is as near as the fused state comes to `ok`.
"""
import argparse
import collections
import glob
import json
import math
import os
import random
import shutil
import subprocess
import sys

from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TEACHER = f"{ROOT}/offline/assets/teacher-compact.safetensors"
FIRST_SEED, LENGTH_M, SHORTEST_M = 11, 2000, 1950
SCALE, GYRO_BIAS_DEG_S, SPEED_NOISE_MPS, GYRO_NOISE_DEG_S = 0.01, 0.01, 0.05, 0.1
FIXES_S, SETTLED_S, OLDEST_S = 5.0, 3.2, 0.3
STATES = ["ok", "degraded", "coasting", "lost", "none"]
NO_GNSS = "no recent GNSS fix"
EARTH_M = 6_371_000.0
# The gyro of the odometry `1 %` for the daemon: 0.01 degrees a second are 0.00017 rad/s.
THIS_GYRO = ["fusion.gyro_bias_sigma_rps=0.0003"]
Mode = collections.namedtuple("Mode", "name odometry fixes_s imagery settings")  # fixes_s: 0 one fix, None throughout
MODES = {
    "few": Mode("5 s of fixes, imagery", "1 %", FIXES_S, True, []),
    "few-gyro": Mode("the same, the gyro in the config", "1 %", FIXES_S, True, THIS_GYRO),
    "one": Mode("one fix and heading, imagery", "simulated", 0.0, True, []),
    "gnss": Mode("GNSS throughout, imagery", "1 %", None, True, []),
    "few-blind": Mode("5 s of fixes, no imagery", "1 %", FIXES_S, False, THIS_GYRO),
    "one-blind": Mode("one fix and heading, no imagery", "simulated", 0.0, False, []),
    # Not in the tables: it never starts.
    "one-no-heading": Mode("one fix, no heading, imagery", "1 %", 0.0, True, []),
}
# Bounds of --check, over all drives of an area, for the fused position: what the project promises, and that it is not for nothing.
BOUNDS = {
    "few": [("median_m", 0.0, 1.0), ("p95_m", 0.0, 3.0), ("quiet", 0.0, 0.001), ("ok", 0.0, 0.0)],
    "few-gyro": [("median_m", 0.0, 1.0), ("p95_m", 0.0, 3.0), ("quiet", 0.0, 0.001), ("ok", 0.0, 0.0)],
    "one": [("median_m", 0.0, 1.0), ("p95_m", 0.0, 3.0), ("quiet", 0.0, 0.001), ("ok", 0.0, 0.0)],
    "gnss": [("median_m", 0.0, 0.6), ("p95_m", 0.0, 1.5), ("outside", 0.0, 0.0), ("ok", 0.6, 1.0)],
    "few-blind": [("median_m", 3.0, 50.0), ("quiet", 0.0, 0.0), ("coasting", 0.99, 1.0)],
    "one-blind": [("median_m", 3.0, 50.0), ("quiet", 0.0, 0.0), ("coasting", 0.99, 1.0)],
}


def run(*command):
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(map(str, command))} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def metres(one, other):
    """East and north from `one` to `other`, both (latitude, longitude) in degrees, m."""
    north = math.radians(other[0] - one[0]) * EARTH_M
    return math.radians(other[1] - one[1]) * EARTH_M * math.cos(math.radians(one[0])), north


def turn_deg(one, other):
    return (other - one + 180.0) % 360.0 - 180.0


class Truth:
    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
        self.times_ns = [row["time_ns"] for row in rows]
        self.places = [(row["latitude_deg"], row["longitude_deg"]) for row in rows]
        self.headings_deg = [row["heading_deg"] for row in rows]
        self.steps_m = [math.hypot(*metres(*pair)) for pair in zip(self.places, self.places[1:])]
        self.index = {time_ns: index for index, time_ns in enumerate(self.times_ns)}

    def motion(self, time_ns):
        """Forward speed, m/s, and yaw rate counter-clockwise, rad/s, until the next moment."""
        here = min(self.index[time_ns], len(self.steps_m) - 1)
        span_s = (self.times_ns[here + 1] - self.times_ns[here]) * 1e-9
        return self.steps_m[here] / span_s, -math.radians(turn_deg(*self.headings_deg[here : here + 2])) / span_s

    def describe(self):
        """How far the drive goes, over how much ground, and how it turns."""
        cells, corners, since_m, before = set(), 0, 0.0, self.headings_deg[0]
        origin = self.places[0]
        for place, heading_deg, step_m in zip(self.places, self.headings_deg, self.steps_m):
            cells.add(tuple(round(axis / 10.0) for axis in metres(origin, place)))
            since_m += step_m
            if since_m >= 30.0:
                corners += abs(turn_deg(before, heading_deg)) > 50.0
                since_m, before = 0.0, heading_deg
        sides = [[axis[side] for axis in [metres(origin, place) for place in self.places]] for side in (0, 1)]
        width = [max(side) - min(side) for side in sides]
        return (f"{sum(self.steps_m):.0f} m in {(self.times_ns[-1] - self.times_ns[0]) * 1e-9:.0f} s, within {width[0]:.0f} m x "
                f"{width[1]:.0f} m, {corners} turns, {len(cells)} squares of 10 m")


def rewrite(source, target, truth, seed, mode):
    """The log with other odometry, without the fixes after so many seconds, and without pictures. Returns the first fix's time."""
    dice, sign = random.Random(seed), 1 if seed % 2 else -1
    first_ns = None
    with open(source, "rb") as read, open(target, "wb") as write:
        writer = Writer(write, compression=CompressionType.NONE)
        writer.start()
        channels = {}
        for schema, channel, message in make_reader(read).iter_messages():
            topic, data = channel.topic, message.data
            if topic == "/gnss/fix":
                first_ns = message.log_time if first_ns is None else first_ns
                if mode.fixes_s is not None and message.log_time - first_ns > mode.fixes_s * 1e9:
                    continue
            elif topic.startswith("/camera/") and not mode.imagery:
                continue
            elif topic == "/odometry" and mode.odometry == "1 %":
                body = json.loads(data)
                speed_mps, rate_rps = truth.motion(message.log_time)
                if speed_mps > 0.01:
                    speed_mps = speed_mps * (1.0 + sign * SCALE) + dice.gauss(0.0, SPEED_NOISE_MPS)
                else:
                    speed_mps = 0.0
                bias_rps, noise_rps = math.radians(sign * GYRO_BIAS_DEG_S), math.radians(GYRO_NOISE_DEG_S)
                body["forward_speed_mps"] = speed_mps
                body["yaw_rate_rps"] = rate_rps + bias_rps + dice.gauss(0.0, noise_rps)
                body["speed_sigma_mps"] = SPEED_NOISE_MPS + SCALE * abs(speed_mps)
                body["yaw_rate_sigma_rps"] = math.hypot(bias_rps, noise_rps)
                body.pop("heading_deg", None)
                body.pop("heading_sigma_deg", None)
                data = json.dumps(body).encode()
            if topic not in channels:
                schema_id = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[topic] = writer.register_channel(topic, channel.message_encoding, schema_id)
            writer.add_message(channels[topic], message.log_time, data, message.publish_time)
        writer.finish()
    return first_ns


Moment = collections.namedtuple("Moment", "time_s way_m state error_m radius_m heading_off_deg reason modes")


def moments(lines, kind, truth, from_ns):
    """The newest estimate of each moment of the truth."""
    estimates, newest, found, way_m = iter(lines), None, [], 0.0
    following = next(estimates, None)
    for index, time_ns in enumerate(truth.times_ns):
        way_m += truth.steps_m[index - 1] if index else 0.0
        while following is not None and following["time_ns"] <= time_ns:
            newest = following if following["kind"] == kind else newest
            following = next(estimates, None)
        if time_ns < from_ns:
            continue
        time_s = (time_ns - truth.times_ns[0]) * 1e-9
        if newest is None or time_ns - newest["time_ns"] > OLDEST_S * 1e9:
            found.append(Moment(time_s, way_m, "none", None, None, None, "", 0))
        elif newest.get("latitude_deg") is None:
            found.append(Moment(time_s, way_m, newest["state"], None, None, None, newest["reason"], 0))
        else:
            # The truth at the estimate's own time.
            share = (time_ns - newest["time_ns"]) / 1e8
            before = truth.places[max(index - 1, 0)], truth.places[index]
            if not 0.0 <= share <= 1.0:
                share = 0.0
            place = [before[1][axis] + share * (before[0][axis] - before[1][axis]) for axis in (0, 1)]
            error_m = math.hypot(*metres(place, (newest["latitude_deg"], newest["longitude_deg"])))
            radius_m = newest["protection_radius_m"]
            off_deg = turn_deg(truth.headings_deg[index], newest["heading_deg"])
            found.append(Moment(time_s, way_m, newest["state"], error_m, math.inf if radius_m is None else radius_m, off_deg,
                                newest["reason"], newest["mode_count"]))
    return found


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, math.ceil(share * len(values)) - 1)] if values else math.nan


def figures(found):
    errors = [one.error_m for one in found if one.error_m is not None]
    outside = [one for one in found if one.error_m is not None and one.error_m > one.radius_m]
    quiet = [one for one in outside if one.state in ("ok", "degraded") and one.reason in ("", NO_GNSS)]
    share = lambda some: len(some) / len(found)  # noqa: E731
    return {
        "moments": len(found),
        "median_m": percentile(errors, 0.5),
        "p95_m": percentile(errors, 0.95),
        "max_m": max(errors, default=math.nan),
        **{state: share([one for one in found if one.state == state]) for state in STATES},
        "outside": share(outside),
        "outside_ok": share([one for one in outside if one.state == "ok"]),
        "quiet": share(quiet),
        "radius_median_m": percentile([one.radius_m for one in found if one.radius_m is not None], 0.5),
        "heading_off_p95_deg": percentile([abs(one.heading_off_deg) for one in found if one.heading_off_deg is not None], 0.95),
    }


def header(area):
    states = " ".join(f"{state[:5]:>5}" for state in STATES)
    print(f"\n{area + ' area':<34}  median     p95     max   {states}   outside     ok  quiet  radius  heading")
    print(f"{'':<34}       m       m       m       %     %     %     %     %         %      %      %       m  p95 deg")


def row(name, said):
    states = " ".join(f"{100 * said[state]:5.1f}" for state in STATES)
    print(f"  {name:<32} {said['median_m']:7.2f} {said['p95_m']:7.2f} {said['max_m']:7.2f}   {states}    {100 * said['outside']:6.2f} "
          f"{100 * said['outside_ok']:6.2f} {100 * said['quiet']:6.2f}  {said['radius_median_m']:6.2f} {said['heading_off_p95_deg']:8.1f}", flush=True)


def toml(settings):
    """`fusion.KEY=VALUE` as TOML, a dotted key each."""
    return "".join(f"{one.replace('=', ' = ', 1)}\n" for one in settings)


def city(crossfix, out, area, seed, keep):
    """A simulated city with one drive: its folder, log and truth; nothing when the drive is too short."""
    folder = f"{out}/{area}-{seed}"
    if not (keep and glob.glob(f"{folder}/logs/*.truth.jsonl")):
        shutil.rmtree(folder, ignore_errors=True)
        run(crossfix, "simulate", "--area", area, "--part", "test", "--seed", seed, "--districts", 1, "--drives", 1,
            "--drive-length-m", LENGTH_M, "--out", folder)
    (log,) = glob.glob(f"{folder}/logs/*.mcap")
    truth = Truth(log.replace(".mcap", ".truth.jsonl"))
    return (folder, log, truth) if sum(truth.steps_m) >= SHORTEST_M else None


def cities(args, area):
    seed, count = FIRST_SEED, 0
    while count < args.cities:
        found = city(args.crossfix, args.out, area, seed, args.keep)
        if found:
            count += 1
            yield seed, *found
        else:
            print(f"seed {seed}: its drive ends before {SHORTEST_M} m, not used")
        seed += 1


def replay(args, log, truth, seed, mode, folder, model):
    """The fused and the visual moments of a drive."""
    config, written = f"{args.out}/crossfixd.toml", f"{args.out}/drive.mcap"
    with open(config, "w", encoding="utf-8") as file:
        file.write("".join(f"{one.replace('=', ' = ', 1)}\n" for one in mode.settings + args.set))
        file.write(f'[tiles]\npath = "{folder}/tiles.pmtiles"\n[model]\npath = "{model}"\n')
    first_ns = rewrite(log, written, truth, seed, mode)
    lines = [json.loads(line) for line in run(args.crossfixd, "replay", written, "--config", config, "--json").splitlines()]
    from_ns = first_ns + int((FIXES_S + SETTLED_S) * 1e9)
    return [moments(lines, kind, truth, from_ns) for kind in ("fused", "visual_only")]


def check(area, mode, said):
    """The bounds that were not kept, each as a sentence."""
    wrong = [f"{area}, {mode}: {key} is {said[key]:.4f}, not {low} to {high}" for key, low, high in BOUNDS.get(mode, [])
             if not low <= said[key] <= high]
    for one in wrong:
        print(f"FAILED {one}")
    return wrong


def main(args):
    args.out = os.path.abspath(args.out)
    os.makedirs(args.out, exist_ok=True)
    model = f"{args.out}/teacher.onnx"
    if not (args.keep and os.path.exists(model)):
        for stale in glob.glob(f"{args.out}/teacher.*"):
            os.remove(stale)
        run(args.crossfix, "export", "--weights", args.teacher, "--out", model)
    modes = args.modes.split(",") if args.modes else [key for key in MODES if key != "one-no-heading"]
    summary, wrong = {}, []
    for area in args.areas.split(","):
        pooled = collections.defaultdict(lambda: ([], []))
        header(area)
        for seed, folder, log, truth in cities(args, area):
            print(f"seed {seed}: {truth.describe()}")
            for key in modes:
                fused, visual = replay(args, log, truth, seed, MODES[key], folder, model)
                pooled[key][0].extend(fused)
                pooled[key][1].extend(visual)
                summary[f"{area}/{seed}/{key}"] = figures(fused)
                row(MODES[key].name, figures(fused))
                if args.trace:
                    with open(f"{args.trace}-{area}-{seed}-{key}.jsonl", "w", encoding="utf-8") as file:
                        file.writelines(json.dumps(one._asdict()) + "\n" for one in fused)
        for index, kind in enumerate(("fused", "visual_only")):
            print(f"all drives, {kind}")
            for key, found in pooled.items():
                if kind == "fused" or MODES[key].imagery:
                    said = summary[f"{area}/{kind}/{key}"] = figures(found[index])
                    row(MODES[key].name, said)
                    wrong += check(area, key, said) if args.check and kind == "fused" else []
    with open(f"{args.out}/summary.json", "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1)
    if args.check:
        print(f"{len(wrong)} bounds are not kept" if wrong else "without GNSS it keeps its bounds")
    return 1 if wrong else 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(usage=__doc__)
    for positional in ("crossfix", "crossfixd", "out"):
        parser.add_argument(positional)
    parser.add_argument("--areas", default="source,target")
    parser.add_argument("--cities", type=int, default=5)
    parser.add_argument("--modes")
    parser.add_argument("--teacher", default=TEACHER)
    parser.add_argument("--trace")
    parser.add_argument("--set", action="append", default=[])
    parser.add_argument("--keep", action="store_true")
    parser.add_argument("--check", action="store_true")
    sys.exit(main(parser.parse_args()))
