"""Where OpenCV sees rays through several lenses: opencv_cameras.py > calibration/src/camera/opencv.json

Needs opencv-python-headless (made with 5.0.0); the table is committed, so only who changes it needs that.
"""
import json
import math
import random

import cv2
import numpy


def rays(rng, largest_deg):
    found = []
    while len(found) < 25:
        angle, turn = math.radians(rng.uniform(0, largest_deg)), rng.uniform(0, 2 * math.pi)
        found.append([math.sin(angle) * math.cos(turn), math.sin(angle) * math.sin(turn), math.cos(angle)])
    return found


def case(rng, kind, size, focal, centre, numbers, largest_deg):
    matrix = numpy.array([[focal[0], 0, centre[0]], [0, focal[1], centre[1]], [0, 0, 1.0]])
    points = numpy.array(rays(rng, largest_deg)).reshape(-1, 1, 3)
    zero = numpy.zeros(3)
    coefficients = numpy.array(list(numbers.values()), dtype=float)
    if kind == "fisheye":
        pixels, _ = cv2.fisheye.projectPoints(points, zero, zero, matrix, coefficients)
    else:
        pixels, _ = cv2.projectPoints(points, zero, zero, matrix, coefficients)
    pairs = [(ray, pixel) for ray, pixel in zip(points.reshape(-1, 3).tolist(), pixels.reshape(-1, 2).tolist())
             if 0 <= pixel[0] <= size[0] - 1 and 0 <= pixel[1] <= size[1] - 1]
    camera = {"kind": kind, "width": size[0], "height": size[1], "fx": focal[0], "fy": focal[1],
              "cx": centre[0] + 0.5, "cy": centre[1] + 0.5}
    camera |= numbers if kind == "fisheye" else {"distortion": numbers}
    return {"camera": camera, "rays": pairs}


def main():
    rng = random.Random(3)
    names = ["k1", "k2", "p1", "p2", "k3", "k4", "k5", "k6"]
    cases = [
        case(rng, "pinhole", (1280, 720), (900.0, 905.0), (640.2, 355.9), dict(zip(names, [-0.28, 0.07, 0.0004, -0.0002, 0.0])), 28),
        case(rng, "pinhole", (1600, 900), (1250.0, 1250.0), (816.3, 491.5), dict(zip(names, [0.05, -0.1, 0.001, 0.002, 0.03])), 24),
        case(rng, "pinhole", (1920, 1080), (700.0, 702.0), (955.0, 540.0), dict(zip(names, [0.9, 0.12, 0.0002, -0.0001, 0.004, 1.15, 0.26, 0.02])), 37),
        case(rng, "fisheye", (1280, 960), (330.0, 331.0), (640.0, 480.0), dict(zip(["k1", "k2", "k3", "k4"], [0.02, -0.005, 0.001, -0.0003])), 75),
        case(rng, "fisheye", (1000, 1000), (290.0, 290.0), (499.5, 499.5), dict(zip(["k1", "k2", "k3", "k4"], [-0.01, 0.003, -0.002, 0.0003])), 88),
        case(rng, "fisheye", (1000, 1000), (290.0, 290.0), (499.5, 499.5), dict(zip(["k1", "k2", "k3", "k4"], [0.0, 0.0, 0.0, 0.0])), 88),
    ]
    print("[\n" + ",\n".join(json.dumps(one) for one in cases) + "\n]")


main()
