"""What Python's cantools decodes from random messages, and a recording by python-can: can_fixtures.py FOLDER.

Writes cantools.json (signals with the columns of the config, data and value) and drive.log (candump's format:
a start, a bend, and some seconds in reverse) for the unit tests of the daemon's CAN source.
"""
import json
import math
import random
import sys

import can
import cantools

UNITS = {"speed": [("m/s", 1.0), ("km/h", 1 / 3.6), ("mph", 0.44704)], "yaw_rate": [("rad/s", 1.0), ("deg/s", math.pi / 180)]}
DBC = """VERSION ""
BU_: car
BO_ 416 Wheels: 8 car
 SG_ Speed : 23|16@0+ (0.01,0) [0|0] "km/h" car
BO_ 417 Gyro: 6 car
 SG_ YawRate : 4|14@1- (0.02,0) [0|0] "deg/s" car
BO_ 2566844672 Gear: 8 car
 SG_ Gear : 56|3@1+ (1,0) [0|0] "" car
"""


def signals(folder):
    rng = random.Random(7)
    cases = []
    while len(cases) < 120:
        big = rng.random() < 0.5
        length, start, signed = rng.randint(1, 64), rng.randint(0, 63), rng.random() < 0.5
        if length == 1 and signed or length == 64 and not signed:
            continue
        factor, offset = rng.choice([1, 0.01, 0.125, -0.02]), rng.choice([0, -40, 3.5])
        text = f'VERSION ""\nBU_: car\nBO_ 291 M: 8 car\n SG_ S : {start}|{length}@{0 if big else 1}{"-" if signed else "+"} ({factor},{offset}) [0|0] "" car\n'
        try:
            database = cantools.database.load_string(text, "dbc")
        except cantools.database.Error:
            continue  # the bits do not fit
        data = bytes(rng.randrange(256) for _ in range(8))
        quantity = rng.choice(list(UNITS))
        unit, in_si = rng.choice(UNITS[quantity])
        value = database.get_message_by_name("M").decode(data)["S"]
        cases.append({"quantity": quantity, "id": 291, "start_bit": start, "length": length,
                      "byte_order": "big_endian" if big else "little_endian", "signed": signed, "factor": factor,
                      "offset": offset, "unit": unit, "data": list(data), "expected": float(value) * in_si})
    with open(f"{folder}/cantools.json", "w", encoding="utf-8") as file:
        file.write("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")


def drive(folder):
    database = cantools.database.load_string(DBC, "dbc")
    start_s = 1_700_000_000.0
    with can.CanutilsLogWriter(f"{folder}/drive.log") as log:
        for step in range(200):  # 10 s at 20 Hz
            time_s = step * 0.05
            reverse = time_s >= 8
            speed_kmh = min(time_s * 2, 8.0) * 3.6 if not reverse else 5.4
            for offset_s, name, values in [
                (0.0, "Wheels", {"Speed": speed_kmh}),
                (0.004, "Gyro", {"YawRate": 10.0 if time_s > 4 else 0.0}),
                (0.005, "Gear", {"Gear": 2 if reverse else 4}),
            ]:
                message = database.get_message_by_name(name)
                log(can.Message(timestamp=start_s + time_s + offset_s, arbitration_id=message.frame_id,
                                is_extended_id=message.is_extended_frame, data=message.encode(values), channel="can0"))


if __name__ == "__main__":
    signals(sys.argv[1])
    drive(sys.argv[1])
