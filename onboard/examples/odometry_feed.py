"""Sends odometry to crossfixd: odometry_feed.py HOST PORT [SECONDS]. The source: kind = "odometry_feed", udp, stamps = "boot"."""
import json
import socket
import sys
import time

feed = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
end = time.monotonic() + float(sys.argv[3] if len(sys.argv) > 3 else "inf")
while time.monotonic() < end:
    sample = {"time_ns": time.clock_gettime_ns(time.CLOCK_BOOTTIME), "speed_mps": 10.0, "yaw_rate_radps": 0.0}
    feed.sendto(json.dumps(sample).encode(), (sys.argv[1], int(sys.argv[2])))
    time.sleep(0.02)
