"""ROS 2 without ROS: Eclipse CycloneDDS (the middleware under many ROS 2 systems), which we did not write, reads the topics of
crossfixd and sends it fixes, motion and pictures.

Usage: ros2_peer.py CROSSFIXD        (built with the feature ros2)
"""
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

from cyclonedds.core import Policy, Qos
from cyclonedds.domain import DomainParticipant
from cyclonedds.idl import IdlStruct
from cyclonedds.idl.types import array, float64, int8, int32, sequence, uint8, uint16, uint32
from cyclonedds.pub import DataWriter
from cyclonedds.sub import DataReader
from cyclonedds.topic import Topic
from cyclonedds.util import duration

DOMAIN = 77
LATITUDE, LONGITUDE = 52.0116, 4.3571
SPEED_MPS = 10.0
failures = []


def check(name, good, seen=None):
    print(f"{'ok' if good else 'FAILED':<7} {name}" + ("" if good else f": {seen!r:.400}"))
    if not good:
        failures.append(name)


@dataclass
class Time(IdlStruct, typename="builtin_interfaces::msg::dds_::Time_"):
    sec: int32
    nanosec: uint32


@dataclass
class Header(IdlStruct, typename="std_msgs::msg::dds_::Header_"):
    stamp: Time
    frame_id: str


@dataclass
class NavSatStatus(IdlStruct, typename="sensor_msgs::msg::dds_::NavSatStatus_"):
    status: int8
    service: uint16


@dataclass
class NavSatFix(IdlStruct, typename="sensor_msgs::msg::dds_::NavSatFix_"):
    header: Header
    status: NavSatStatus
    latitude: float64
    longitude: float64
    altitude: float64
    position_covariance: array[float64, 9]
    position_covariance_type: uint8


@dataclass
class Vector3(IdlStruct, typename="geometry_msgs::msg::dds_::Vector3_"):
    x: float64
    y: float64
    z: float64


@dataclass
class Quaternion(IdlStruct, typename="geometry_msgs::msg::dds_::Quaternion_"):
    x: float64
    y: float64
    z: float64
    w: float64


@dataclass
class Pose(IdlStruct, typename="geometry_msgs::msg::dds_::Pose_"):
    position: Vector3
    orientation: Quaternion


@dataclass
class PoseWithCovariance(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovariance_"):
    pose: Pose
    covariance: array[float64, 36]


@dataclass
class PoseWithCovarianceStamped(IdlStruct, typename="geometry_msgs::msg::dds_::PoseWithCovarianceStamped_"):
    header: Header
    pose: PoseWithCovariance


@dataclass
class Twist(IdlStruct, typename="geometry_msgs::msg::dds_::Twist_"):
    linear: Vector3
    angular: Vector3


@dataclass
class TwistStamped(IdlStruct, typename="geometry_msgs::msg::dds_::TwistStamped_"):
    header: Header
    twist: Twist


@dataclass
class TwistWithCovariance(IdlStruct, typename="geometry_msgs::msg::dds_::TwistWithCovariance_"):
    twist: Twist
    covariance: array[float64, 36]


@dataclass
class Odometry(IdlStruct, typename="nav_msgs::msg::dds_::Odometry_"):
    header: Header
    child_frame_id: str
    pose: PoseWithCovariance
    twist: TwistWithCovariance


@dataclass
class Imu(IdlStruct, typename="sensor_msgs::msg::dds_::Imu_"):
    header: Header
    orientation: Quaternion
    orientation_covariance: array[float64, 9]
    angular_velocity: Vector3
    angular_velocity_covariance: array[float64, 9]
    linear_acceleration: Vector3
    linear_acceleration_covariance: array[float64, 9]


@dataclass
class CompressedImage(IdlStruct, typename="sensor_msgs::msg::dds_::CompressedImage_"):
    header: Header
    format: str
    data: sequence[uint8]


@dataclass
class KeyValue(IdlStruct, typename="diagnostic_msgs::msg::dds_::KeyValue_"):
    key: str
    value: str


@dataclass
class DiagnosticStatus(IdlStruct, typename="diagnostic_msgs::msg::dds_::DiagnosticStatus_"):
    level: uint8
    name: str
    message: str
    hardware_id: str
    values: sequence[KeyValue]


@dataclass
class DiagnosticArray(IdlStruct, typename="diagnostic_msgs::msg::dds_::DiagnosticArray_"):
    header: Header
    status: sequence[DiagnosticStatus]


RELIABLE = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.Durability.Volatile, Policy.History.KeepLast(50))
BEST_EFFORT = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(50))


def stamped(time_ns, frame_id):
    return Header(Time(time_ns // 10**9, time_ns % 10**9), frame_id)


def statuses(socket_path):
    import socket

    with socket.socket(socket.AF_UNIX) as client:
        client.connect(socket_path)
        return json.loads(client.makefile().read())


def main(crossfixd):
    folder = tempfile.mkdtemp()
    config = os.path.join(folder, "crossfixd.toml")
    with open(config, "w", encoding="utf-8") as file:
        file.write(
            '[daemon]\nstatus_socket = "status"\n'
            f'[[source]]\nkind = "ros2"\nname = "roof"\ndomain_id = {DOMAIN}\nfix = "/gnss/fix"\n'
            f'[[source]]\nkind = "ros2"\nname = "wheels"\ndomain_id = {DOMAIN}\nodometry = "/wheel/odometry"\n'
            f'[[source]]\nkind = "ros2"\nname = "can"\ndomain_id = {DOMAIN}\ntwist = "/can/twist"\nimu = "/imu/data"\n'
            f'[[source]]\nkind = "ros2"\nname = "front"\ndomain_id = {DOMAIN}\nimage = "/front/image/compressed"\n'
            f'[[sink]]\nkind = "ros2"\ndomain_id = {DOMAIN}\n'
            f"origin = {{ latitude_deg = {LATITUDE}, longitude_deg = {LONGITUDE}, height_m = 45.0 }}\n"
        )
    checked = subprocess.run([crossfixd, "--check", config], capture_output=True, text=True, check=False)
    check("the config has no problems", checked.returncode == 0, checked.stderr)
    participant = DomainParticipant(DOMAIN)
    readers = {
        name: DataReader(participant, Topic(participant, f"rt{name}", kind), qos=qos)
        for name, kind, qos in (
            ("/crossfix/fix", NavSatFix, RELIABLE),
            ("/crossfix/pose", PoseWithCovarianceStamped, BEST_EFFORT),
            ("/crossfix/odometry", Odometry, RELIABLE),
            ("/diagnostics", DiagnosticArray, RELIABLE),
        )
    }
    write_fix = DataWriter(participant, Topic(participant, "rt/gnss/fix", NavSatFix), qos=RELIABLE)
    write_odometry = DataWriter(participant, Topic(participant, "rt/wheel/odometry", Odometry), qos=BEST_EFFORT)
    write_twist = DataWriter(participant, Topic(participant, "rt/can/twist", TwistStamped), qos=RELIABLE)
    write_imu = DataWriter(participant, Topic(participant, "rt/imu/data", Imu), qos=BEST_EFFORT)
    write_image = DataWriter(participant, Topic(participant, "rt/front/image/compressed", CompressedImage), qos=RELIABLE)
    daemon = subprocess.Popen([crossfixd, "run", "--config", config], stderr=open(os.path.join(folder, "log"), "wb"))
    found = {name: [] for name in readers}
    try:
        start = time.monotonic()
        level = Quaternion(0.0, 0.0, 0.0, 1.0)
        zero = Vector3(0.0, 0.0, 0.0)
        tenth = 0
        while time.monotonic() - start < 16:
            time_ns = time.time_ns()
            gone_m = SPEED_MPS * (time.monotonic() - start)
            if tenth % 10 == 0:
                covariance = [4.0, 0.5, 0.0, 0.5, 3.0, 0.0, 0.0, 0.0, 16.0]
                # Northward.
                write_fix.write(NavSatFix(stamped(time_ns, "gnss"), NavSatStatus(0, 1), LATITUDE + gone_m / 111_267, LONGITUDE, 45.0, covariance, 3))
            pose = PoseWithCovariance(Pose(zero, level), [0.0] * 36)
            twist = Twist(Vector3(SPEED_MPS, 0.0, 0.0), zero)
            write_odometry.write(Odometry(stamped(time_ns, "odom"), "base_link", pose, TwistWithCovariance(twist, [0.01] + [0.0] * 34 + [1e-4])))
            write_twist.write(TwistStamped(stamped(time_ns, "base_link"), twist))
            write_imu.write(Imu(stamped(time_ns, "imu"), level, [-1.0] + [0.0] * 8, zero, [1e-4] * 9, zero, [-1.0] + [0.0] * 8))
            if tenth % 5 == 0:
                write_image.write(CompressedImage(stamped(time_ns, "front"), "jpeg", [0xFF, 0xD8] + [7] * 50_000))
            for name, reader in readers.items():
                found[name].extend(reader.take(100))
            tenth += 1
            time.sleep(0.1)
        status = statuses(os.path.join(folder, "status"))
    finally:
        daemon.terminate()
        check("it ends", daemon.wait(10) == 0)

    counts = {source["name"]: source["events"] for source in status["sources"]}
    check("NavSatFix is read", counts.get("roof", 0) >= 8, counts)
    check("Odometry is read", counts.get("wheels", 0) >= 80, counts)
    check("TwistStamped and Imu are read", counts.get("can", 0) >= 80, counts)
    check("CompressedImage of 50 kB is read", counts.get("front", 0) >= 15, counts)
    fixes = [fix for fix in found["/crossfix/fix"] if fix.status.status >= 0]
    check("CycloneDDS reads NavSatFix", len(fixes) >= 40, {name: len(messages) for name, messages in found.items()})
    if fixes:
        fix = fixes[-1]
        late_m = (time.time_ns() / 1e9 - fix.header.stamp.sec - fix.header.stamp.nanosec / 1e9) * SPEED_MPS
        check("its position, height and frame", abs(fix.longitude - LONGITUDE) < 1e-4 and 0 < fix.latitude - LATITUDE < 0.002 and abs(fix.altitude - 45) < 1 and fix.header.frame_id == "base_link", (fix, late_m))
        check("its covariance is known and east, north, up", fix.position_covariance_type == 3 and 0.05 < fix.position_covariance[0] < 20 and abs(fix.position_covariance[8] - 16) < 1e-6, fix)
    odometry = found["/crossfix/odometry"]
    check("CycloneDDS reads Odometry", len(odometry) >= 40, len(odometry))
    if odometry:
        last = odometry[-1]
        position, turn = last.pose.pose.position, last.pose.pose.orientation
        yaw = 2 * math.atan2(turn.z, turn.w)
        check("its frames", (last.header.frame_id, last.child_frame_id) == ("map", "base_link"), last)
        check("its place is east, north, up of the origin", abs(position.x) < 8 and 50 < position.y < 200 and abs(position.z) < 2, position)
        check("its yaw is counter-clockwise from east", abs(yaw - math.pi / 2) < 0.2, yaw)
        check("its speed", abs(last.twist.twist.linear.x - SPEED_MPS) < 1, last.twist.twist)
        diagonal = [last.pose.covariance[7 * axis] for axis in range(6)]
        check("no variance is zero, and what is not known is 1e6", diagonal[3] == diagonal[4] == 1e6 and all(0 < value < 20 for value in diagonal[:3] + diagonal[5:]), diagonal)
    check("a best-effort reader gets PoseWithCovarianceStamped", len(found["/crossfix/pose"]) >= 40, len(found["/crossfix/pose"]))
    names = {status.name: status for array_ in found["/diagnostics"] for status in array_.status}
    position = names.get("crossfixd: position")
    check("CycloneDDS reads diagnostics", position and "crossfixd: source roof" in names and position.level in (0, 1) and "degraded" in position.message, names)
    if failures:
        print(open(os.path.join(folder, "log"), encoding="utf-8").read()[-3000:])
    print(f"{len(failures)} of the checks failed" if failures else "ROS 2 goes in and out")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
