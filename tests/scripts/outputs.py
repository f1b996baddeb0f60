"""Programs that are not ours read what crossfixd sends to machines: pymavlink over UDP and over a serial line, pynmea2 over
both, prometheus_client's parser and Python's HTTP client.

Usage: outputs.py CROSSFIXD RECEIVER.nmea
"""
import calendar
import http.client
import json
import math
import os
import pty
import socket
import subprocess
import sys
import tempfile
import threading
import time
import tty

import pynmea2
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from pymavlink.dialects.v20 import common as mavlink

from checks import check, failures

LATITUDE, LONGITUDE = 37.4264, -122.0936
SECONDS = 12


def udp_socket():
    listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    listener.bind(("127.0.0.1", 0))
    listener.settimeout(0.2)
    return listener, listener.getsockname()[1]


def serial_line():
    master, slave = pty.openpty()
    tty.setraw(slave)
    return master, slave, os.ttyname(slave)


def collect(read, into, until):
    while time.monotonic() < until:
        try:
            into.append(read())
        except (TimeoutError, socket.timeout, OSError):
            time.sleep(0.01)


def parse_mavlink(chunks):
    parser = mavlink.MAVLink(None)
    parser.robust_parsing = True
    return [message for chunk in chunks for message in parser.parse_buffer(chunk) or []]


def parse_nmea(chunks):
    lines = b"".join(chunks).decode("ascii").split("\r\n")
    return [pynmea2.parse(line, check=True) for line in lines if line.startswith("$") and "*" in line]


def get(port, path):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    connection.request("GET", path)
    response = connection.getresponse()
    return response.status, response.getheader("Content-Type"), response.read().decode()


def check_gps_input(messages, where):
    fixes = [m for m in messages if m.get_type() == "GPS_INPUT" and m.fix_type >= 2]
    check(f"pymavlink, {where}: GPS_INPUT", len(fixes) >= 10, len(messages))
    if not fixes:
        return
    fix = fixes[-1]
    near = abs(fix.lat / 1e7 - LATITUDE) < 0.01 and abs(fix.lon / 1e7 - LONGITUDE) < 0.01
    check(f"pymavlink, {where}: degrees in 1e7, 3-D, 12 satellites", near and fix.fix_type == 3 and fix.satellites_visible == 12, fix)
    # Recorded on 7 February 2020: 18 leap seconds then as now.
    gps_s = fix.time_usec / 1e6 - calendar.timegm((1980, 1, 6, 0, 0, 0)) + 18
    week_s = fix.time_week * 604800 + fix.time_week_ms / 1000
    check(f"pymavlink, {where}: GPS week and milliseconds", abs(gps_s - week_s) < 0.002 and fix.time_week == 2091, fix)
    check(f"pymavlink, {where}: height above the sea", abs(fix.alt - 4.4) < 6, fix.alt)
    check(f"pymavlink, {where}: accuracy in metres", 0.1 < fix.horiz_accuracy < 10 and 0.1 < fix.vert_accuracy < 30, fix)
    ignored = mavlink.GPS_INPUT_IGNORE_FLAG_VDOP | mavlink.GPS_INPUT_IGNORE_FLAG_VEL_VERT | mavlink.GPS_INPUT_IGNORE_FLAG_SPEED_ACCURACY
    check(f"pymavlink, {where}: only what is not known is ignored", fix.ignore_flags & ~mavlink.GPS_INPUT_IGNORE_FLAG_VEL_HORIZ == ignored, fix.ignore_flags)


def check_mavlink(messages):
    check_gps_input(messages, "UDP")
    kinds = {}
    for message in messages:
        kinds.setdefault(message.get_type(), []).append(message)
    check("pymavlink: nothing that cannot be read", "BAD_DATA" not in kinds, {kind: len(found) for kind, found in kinds.items()})
    beats = kinds.get("HEARTBEAT", [])
    expected = (mavlink.MAV_TYPE_ONBOARD_CONTROLLER, mavlink.MAV_AUTOPILOT_INVALID)
    check("pymavlink: a heartbeat every second", len(beats) >= SECONDS - 4 and (beats[-1].type, beats[-1].autopilot) == expected, beats[-1:])
    check("pymavlink: system and component", beats and beats[-1].get_srcSystem() == 1 and beats[-1].get_srcComponent() == 220)
    sensors = kinds.get("GLOBAL_POSITION_SENSOR", [])
    sensor = sensors[-1] if sensors else None
    good = sensor and sensor.source == mavlink.GLOBAL_POSITION_SRC_ESTIMATOR and abs(sensor.lat / 1e7 - LATITUDE) < 0.01
    check("pymavlink: GLOBAL_POSITION_SENSOR", good and 0.1 < sensor.eph < 10 and abs(sensor.alt_ellipsoid - sensor.alt + 30) < 0.1, sensor)
    odometry = kinds.get("ODOMETRY", [])
    good = odometry and odometry[-1].frame_id == mavlink.MAV_FRAME_LOCAL_NED and odometry[-1].pose_covariance[0] > 0
    check("pymavlink: ODOMETRY", good and math.isfinite(odometry[-1].x) and abs(sum(q * q for q in odometry[-1].q) - 1) < 1e-5, odometry[-1:])
    check("pymavlink: GPS_GLOBAL_ORIGIN", "GPS_GLOBAL_ORIGIN" in kinds)


def check_http(port):
    status, kind, text = get(port, "/metrics")
    families = {family.name: family for family in text_string_to_metric_families(text)}
    check("prometheus_client: /metrics", status == 200 and "openmetrics" in kind and len(families) > 15, (status, kind))
    states = {sample.labels["state"]: sample.value for sample in families["crossfix_state"].samples}
    check("prometheus_client: the state", sum(states.values()) == 1 and states["degraded"] == 1, states)
    sources = families["crossfix_source_events"].samples
    check("prometheus_client: events of a source", sources[0].labels == {"source": "roof"} and sources[0].value >= 5, sources)
    age = families["crossfix_estimate_age_seconds"].samples[0].value
    check("prometheus_client: the age of the estimate", 0 <= age < 2, age)
    status, kind, text = get(port, "/health")
    health = json.loads(text)
    check("/health: a position, and why it is degraded", status == 200 and health["status"] == "pass" and health["reasons"], health)
    check("another path is not found", get(port, "/etc/passwd")[0] == 404)
    squatters = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    time.sleep(0.3)
    check("squatters keep nobody out", get(port, "/health")[0] == 200)
    for squatter in squatters:
        squatter.close()


def main(crossfixd, recording):
    folder = tempfile.mkdtemp()
    mav_udp, mav_port = udp_socket()
    nmea_udp, nmea_port = udp_socket()
    mav_master, mav_slave, mav_tty = serial_line()
    nmea_master, nmea_slave, nmea_tty = serial_line()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        http_port = probe.getsockname()[1]
    config = os.path.join(folder, "crossfixd.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            f'[[source]]\nkind = "nmea"\nname = "roof"\nfile = "{os.path.abspath(recording)}"\n'
            f'[[sink]]\nkind = "mavlink"\nudp = "127.0.0.1:{mav_port}"\nmessages = ["gps_input", "global_position_sensor", "odometry"]\n'
            f'[[sink]]\nkind = "mavlink"\nserial = "{mav_tty}"\n'
            f'[[sink]]\nkind = "nmea"\nudp = "127.0.0.1:{nmea_port}"\n'
            f'[[sink]]\nkind = "nmea"\nserial = "{nmea_tty}"\n'
            f'[[sink]]\nkind = "metrics"\nlisten = "127.0.0.1:{http_port}"\n'
        )
    checked = subprocess.run([crossfixd, "--check", config], capture_output=True, text=True, check=False)
    check("the config has no problems", checked.returncode == 0, checked.stderr)
    daemon = subprocess.Popen([crossfixd, "run", "--config", config], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + SECONDS
        reads = [lambda: mav_udp.recv(4096), lambda: os.read(mav_master, 4096), lambda: nmea_udp.recv(4096), lambda: os.read(nmea_master, 4096)]
        chunks = [[] for _ in reads]
        readers = [threading.Thread(target=collect, args=(read, into, until), daemon=True) for read, into in zip(reads, chunks)]
        for reader in readers:
            reader.start()
        time.sleep(SECONDS - 2)
        check_http(http_port)
        for reader in readers:
            reader.join(3)
        check_mavlink(parse_mavlink(chunks[0]))
        check_gps_input(parse_mavlink(chunks[1]), "serial")
        for where, found in (("UDP", chunks[2]), ("serial", chunks[3])):
            sentences = parse_nmea(found)
            gga = [sentence for sentence in sentences if isinstance(sentence, pynmea2.GGA) and sentence.gps_qual]
            near = gga and abs(gga[-1].latitude - LATITUDE) < 0.01 and abs(gga[-1].longitude - LONGITUDE) < 0.01
            check(f"pynmea2, {where}: sentences", near and {"GGA", "RMC", "GST"} <= {s.sentence_type for s in sentences}, sentences[-3:])
    finally:
        daemon.terminate()
        check("it ends", daemon.wait(10) == 0)
        os.close(mav_slave)
        os.close(nmea_slave)
    print(f"{len(failures)} of the checks failed" if failures else "every output was read")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
