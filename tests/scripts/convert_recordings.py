"""Turns the public recordings into the small text fixtures in tests/data (see the README there).

Usage: convert_recordings.py COMMA2K19_EXAMPLE_DIR MTV_F9K_DIR OUT_DIR
Needs numpy. Runs once by hand; the tests read only its output.
"""
import pathlib
import sys

import numpy as np

comma, mtv, out = (pathlib.Path(p) for p in sys.argv[1:4])


def load(name):
    return np.load(comma / name)


def write(name, header, rows, formats):
    with open(out / name, "w") as f:
        f.write(header + "\n")
        for row in rows:
            f.write(",".join(fmt % v for fmt, v in zip(formats, row)) + "\n")


# comma2k19: everything on the recorder's own clock, in seconds.
start = load("global_pose/frame_times")[0]
t, v = load("GNSS/live_gnss_ublox/t"), load("GNSS/live_gnss_ublox/value")
write(
    "comma2k19/fixes.csv",
    "time_s,latitude_deg,longitude_deg,height_m,speed_mps,track_deg",
    np.column_stack([t - start, v[:, 0], v[:, 1], v[:, 4], v[:, 2], v[:, 5]]),
    ["%.3f", "%.9f", "%.9f", "%.2f", "%.3f", "%.2f"],
)
t, v = load("CAN/wheel_speed/t"), load("CAN/wheel_speed/value")
rows = np.column_stack([t - start, v.mean(axis=1)])[::5]  # 10 Hz is enough
write("comma2k19/wheel_speed.csv", "time_s,mean_wheel_speed_mps", rows, ["%.3f", "%.4f"])
t, v = load("IMU/gyro/t"), load("IMU/gyro/value")
rows = np.column_stack([t - start, v])[::2]  # about 50 Hz; axes forward, right, down
write("comma2k19/gyro.csv", "time_s,forward_rps,right_rps,down_rps", rows, ["%.3f", "%.5f", "%.5f", "%.5f"])
t, p = load("global_pose/frame_times"), load("global_pose/frame_positions")
rows = np.column_stack([t - start, p])[::2]
write("comma2k19/truth_ecef.csv", "time_s,x_m,y_m,z_m", rows, ["%.3f", "%.3f", "%.3f", "%.3f"])

# mtv_f9k: the sentences a receiver's users rely on; satellites in view are left out for size.
keep = (b"$GNRMC", b"$GNGGA", b"$GNGSA")
lines = next(mtv.glob("*.nmea")).read_bytes().splitlines(keepends=True)
(out / "mtv_f9k/receiver.nmea").write_bytes(b"".join(l for l in lines if l.startswith(keep[:2])))
lines = next(mtv.glob("*.gga")).read_bytes().splitlines(keepends=True)
(out / "mtv_f9k/truth.gga").write_bytes(b"".join(l for l in lines if l.startswith(b"$GPGGA")))
