"""Reads reports from a gpsd-compatible server with gpsd's own Python client and prints them as JSON lines.

Usage: gpsd_client.py PORT SECONDS
"""
import json
import sys
import time

import gps

port, seconds = sys.argv[1], float(sys.argv[2])
session = gps.gps(host="127.0.0.1", port=port, mode=gps.WATCH_ENABLE | gps.WATCH_NEWSTYLE)
end = time.monotonic() + seconds
while time.monotonic() < end:
    # waiting() keeps read() from blocking past the end when the server falls silent.
    if not session.waiting(0.2):
        continue
    if session.read() != 0:
        break
    report = session.data
    if report.get("class") in ("TPV", "GST"):
        print(json.dumps({key: report[key] for key in report.keys()}), flush=True)
session.close()
