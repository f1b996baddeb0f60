"""Programs that read positions, none of them ours, read those of crossfixd: gpspipe, cgps (libgps), gpsmon,
gpsd-py3, pynmea2, a second gpsd, and the arithmetic of ROS's nmea_navsat_driver.

Usage: consumers.py CROSSFIXD RECEIVER.nmea
Needs Debian's gpsd and gpsd-clients, and gpsd-py3 and pynmea2 from requirements.txt.
"""
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time

import gpsd
import pynmea2

from checks import check, failures, free_port

LATITUDE, LONGITUDE = 37.4264, -122.0936
# The receiver's first fix: 12 satellites, HDOP 0.76, 4.4 m above the sea, which is 30 m below the ellipsoid.
SATELLITES, HDOP, SEA_LEVEL_M, GEOID_M = 12, 0.76, 4.4, -30.0


def wait_for(port, seconds=10):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 0.5).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit(f"nothing listens on port {port}")


def output(*command, seconds=8):
    """What a program writes within some seconds, without the codes that move a cursor."""
    environment = dict(os.environ, TERM="xterm", LINES="40", COLUMNS="120")
    try:
        done = subprocess.run(command, capture_output=True, timeout=seconds, env=environment, stdin=subprocess.DEVNULL)
        return done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace")


def on_a_terminal(command, seconds=6):
    return output("timeout", "-s", "INT", str(seconds - 2), "script", "-qec", f"stty rows 40 cols 120; {command}", "/dev/null", seconds=seconds)


def near(tpv):
    return abs(tpv.get("lat", 0) - LATITUDE) < 0.01 and abs(tpv.get("lon", 0) - LONGITUDE) < 0.01


def of_class(text, name):
    reports = (json.loads(line) for line in text.splitlines() if line.startswith("{"))
    return [report for report in reports if report["class"] == name]


def main(crossfixd, recording):
    gpsd_port, nmea_port, second_port = free_port(), free_port(), free_port()
    folder = tempfile.mkdtemp()
    config = os.path.join(folder, "crossfixd.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f'[[source]]\nkind = "nmea"\nfile = "{os.path.abspath(recording)}"\n'
            f'[[sink]]\nkind = "gpsd_server"\nlisten = "127.0.0.1:{gpsd_port}"\n'
            f'[[sink]]\nkind = "nmea_tcp"\nlisten = "127.0.0.1:{nmea_port}"\n'
        )
    daemon = subprocess.Popen([crossfixd, "run", "--config", config], stderr=subprocess.DEVNULL)
    second = None
    try:
        wait_for(gpsd_port)
        wait_for(nmea_port)
        time.sleep(3)
        here = f"127.0.0.1:{gpsd_port}"

        text = output("gpspipe", "-w", "-n", "40", here)
        tpv = (of_class(text, "TPV") or [{}])[-1]
        keys = {"altHAE", "altMSL", "alt", "geoidSep", "epx", "epy", "eph", "epv", "ept", "mode", "time"}
        check("gpspipe -w: a position with every field", near(tpv) and keys <= tpv.keys(), tpv)
        heights = [tpv.get(key, 0) for key in ("altHAE", "altMSL", "geoidSep")]
        check("gpspipe -w: heights add up", abs(heights[0] - heights[1] - heights[2]) < 0.01 and abs(heights[2] - GEOID_M) < 1e-6, heights)
        check("gpspipe -w: a course is below 360", all(report.get("track", 0) < 360 for report in of_class(text, "TPV")), text)
        sky = (of_class(text, "SKY") or [{}])[-1]
        check("gpspipe -w: satellites", sky.get("uSat") == SATELLITES and abs(sky.get("hdop", 0) - HDOP) < 0.2, sky)

        raw = output("gpspipe", "-r", "-n", "40", here)
        kinds = {line[3:6] for line in raw.splitlines() if line.startswith("$GN")}
        check("gpspipe -r: sentences", {"GGA", "RMC", "GST"} <= kinds, kinds)

        track = output("timeout", "-s", "INT", "6", "gpxlogger", "-i", "1", f"127.0.0.1:{gpsd_port}")
        points = track.count("<trkpt lat=\"37.42")
        check("gpxlogger (libgps): a track", points >= 2, track[-300:])
        screen = on_a_terminal(f"cgps 127.0.0.1:{gpsd_port}", seconds=12)
        check("cgps (libgps): a fix on the screen", "3D FIX" in screen or "37.42" in screen, screen[-600:])
        screen = on_a_terminal(f"gpsmon 127.0.0.1:{gpsd_port}", seconds=12)
        check("gpsmon: positions on the screen", "TPV" in screen or "37.42" in screen, screen[-600:])

        gpsd.connect(host="127.0.0.1", port=gpsd_port)
        time.sleep(1)
        packet = gpsd.get_current()
        check("gpsd-py3: a 3-D fix", packet.mode == 3 and near({"lat": packet.lat, "lon": packet.lon}), packet.__dict__)

        sentences = []
        with socket.create_connection(("127.0.0.1", nmea_port), 5) as stream:
            lines = stream.makefile(encoding="ascii")
            while len(sentences) < 30:
                sentences.append(pynmea2.parse(lines.readline().strip(), check=True))
        gga = [sentence for sentence in sentences if isinstance(sentence, pynmea2.GGA)][-1]
        gst = [sentence for sentence in sentences if isinstance(sentence, pynmea2.GST)][-1]
        check("pynmea2: satellites and HDOP", int(gga.num_sats) == SATELLITES and float(gga.horizontal_dil) < 2, repr(gga))
        check("pynmea2: height above the sea", abs(gga.altitude - SEA_LEVEL_M) < 5 and abs(float(gga.geo_sep) - GEOID_M) < 1e-6, repr(gga))
        # The driver multiplies GST's deviations by GGA's dilution.
        covariance = [(float(gga.horizontal_dil) * float(gst.data[index])) ** 2 for index in (5, 6)]
        check("nmea_navsat_driver's arithmetic: a covariance", all(math.isfinite(value) and value > 0 for value in covariance), covariance)

        second = subprocess.Popen(["/usr/sbin/gpsd", "-N", "-n", "-S", str(second_port), f"tcp://127.0.0.1:{nmea_port}"], stderr=subprocess.DEVNULL)
        wait_for(second_port)
        text = output("gpspipe", "-w", "-n", "60", f"127.0.0.1:{second_port}", seconds=15)
        fixes = [report for report in of_class(text, "TPV") if report.get("mode") == 3]
        check("a second gpsd: a 3-D fix of our sentences", bool(fixes) and near(fixes[-1]), text[-300:])
    finally:
        for process in (second, daemon):
            if process:
                process.terminate()
                process.wait(10)
    print(f"{len(failures)} of the checks failed" if failures else "every consumer read the positions")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
