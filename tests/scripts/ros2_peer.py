"""ROS 2 without ROS: Eclipse CycloneDDS, the middleware below many ROS 2 systems, drives crossfixd with a drive of the demo,
restamped to now, and reads its positions.

Usage: ros2_peer.py CROSSFIXD DEMO_OUT        CROSSFIXD: built with the feature ros2; DEMO_OUT: what `crossfix demo` wrote

Two daemons run beside each other. The first has everything, in a domain that its config names, and is started after
its peers; the second has no camera model, is in the domain that ROS_DOMAIN_ID names, is started before its peers, and
gets messages that are wrong. All of it goes over the loopback, without multicast.
"""
import atexit
import base64
import glob
import io
import json
import math
import os
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass

import numpy
from mcap.reader import make_reader
from PIL import Image as Picture

os.environ["CYCLONEDDS_URI"] = """<CycloneDDS><Domain><General><Interfaces><NetworkInterface name="lo"/></Interfaces>
<AllowMulticast>false</AllowMulticast></General><Discovery><ParticipantIndex>auto</ParticipantIndex>
<Peers><Peer address="127.0.0.1"/></Peers></Discovery></Domain></CycloneDDS>"""
from cyclonedds.core import Policy, Qos  # noqa: E402
from cyclonedds.domain import DomainParticipant  # noqa: E402
from cyclonedds.idl import IdlStruct  # noqa: E402
from cyclonedds.idl.types import array, float64, int8, int32, sequence, uint8, uint16, uint32  # noqa: E402
from cyclonedds.pub import DataWriter  # noqa: E402
from cyclonedds.sub import DataReader  # noqa: E402
from cyclonedds.topic import Topic  # noqa: E402
from cyclonedds.util import duration  # noqa: E402

SECOND_NS = 1_000_000_000
DOMAIN, OTHER_DOMAIN = 77, 78
# How much of the drive is played, and how long the daemon may take to be lost after it, seconds.
DRIVE_S, LOST_S = 32, 20
UNKNOWN = 1e6
failures = []


def check(name, good, seen=""):
    print(f"{'ok' if good else 'FAILED':<7} {name}" + (f": {seen}" if seen != "" else ""))
    if not good:
        failures.append(name)


# The definitions of ROS 2, under the names that it gives them in DDS.
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
class Image(IdlStruct, typename="sensor_msgs::msg::dds_::Image_"):
    header: Header
    height: uint32
    width: uint32
    encoding: str
    is_bigendian: uint8
    step: uint32
    data: sequence[uint8]


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


@dataclass
class TransformStamped(IdlStruct, typename="geometry_msgs::msg::dds_::TransformStamped_"):
    header: Header
    child_frame_id: str
    translation: Vector3
    rotation: Quaternion


@dataclass
class TFMessage(IdlStruct, typename="tf2_msgs::msg::dds_::TFMessage_"):
    transforms: sequence[TransformStamped]


@dataclass
class String(IdlStruct, typename="std_msgs::msg::dds_::String_"):
    data: str


@dataclass
class CutNavSatFix(IdlStruct, typename="sensor_msgs::msg::dds_::NavSatFix_"):
    """Says that it is a fix, and ends after the latitude."""

    header: Header
    status: NavSatStatus
    latitude: float64


RELIABLE = Qos(Policy.Reliability.Reliable(duration(seconds=1)), Policy.Durability.Volatile, Policy.History.KeepLast(50))
BEST_EFFORT = Qos(Policy.Reliability.BestEffort, Policy.Durability.Volatile, Policy.History.KeepLast(50))
LEVEL = Quaternion(0.0, 0.0, 0.0, 1.0)


def header(time_ns, frame_id):
    return Header(Time(time_ns // SECOND_NS, time_ns % SECOND_NS), frame_id)


def stamp_ns(message):
    return message.header.stamp.sec * SECOND_NS + message.header.stamp.nanosec


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def recorded(path):
    """The messages of a drive with the time from its start, and the camera: (topic, seconds, body)."""
    drive, camera, start = [], None, None
    with open(path, "rb") as file:
        for _, channel, message in make_reader(file).iter_messages():
            body = json.loads(message.data)
            if channel.topic == "/camera/calibration":
                camera = body
                continue
            time_ns = body["timestamp"]["sec"] * SECOND_NS + body["timestamp"]["nsec"]
            start = time_ns if start is None else start
            drive.append((channel.topic, time_ns - start, body))
    with open(path.replace(".mcap", ".truth.jsonl"), encoding="utf-8") as file:
        truth = {one["time_ns"] - start: one for one in map(json.loads, file)}
    return drive, camera, truth


def east_north(one, origin):
    """Metres, close to the origin: (latitude, longitude) in degrees."""
    north = math.radians(one[0] - origin[0]) * 6_371_000
    east = math.radians(one[1] - origin[1]) * 6_371_000 * math.cos(math.radians(origin[0]))
    return east * ELLIPSOID[0], north * ELLIPSOID[1]


# The radii of curvature of WGS 84 at the drive's latitude over the mean radius: east, north.
def curvature(latitude_deg):
    squared = 6.694_379_990_14e-3
    root = 1 - squared * math.sin(math.radians(latitude_deg)) ** 2
    return 6_378_137.0 / math.sqrt(root) / 6_371_000, 6_378_137.0 * (1 - squared) / root**1.5 / 6_371_000


ELLIPSOID = curvature(52.1)


def status(folder):
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(os.path.join(folder, "status"))
        return json.loads(client.makefile().read())


class Daemon:
    """crossfixd with this config, in a folder of its own."""

    def __init__(self, crossfixd, folder, config, **environment):
        self.folder = folder
        os.mkdir(folder)
        path = os.path.join(folder, "crossfixd.toml")
        with open(path, "w", encoding="utf-8") as file:
            file.write('[daemon]\nstatus_socket = "status"\n' + config)
        environment = {**os.environ, **environment}
        done = subprocess.run([crossfixd, "--check", path], capture_output=True, text=True, check=False, env=environment)
        check(f"{os.path.basename(folder)}: the config has no problems", done.returncode == 0, done.stderr if done.returncode else "")
        with open(os.path.join(folder, "log"), "wb") as log:
            self.process = subprocess.Popen([crossfixd, "run", "--config", path], stdout=log, stderr=log, env=environment)
        atexit.register(self.process.kill)

    def log(self):
        with open(os.path.join(self.folder, "log"), encoding="utf-8") as file:
            return file.read()

    def stop(self):
        self.process.terminate()
        check(f"{os.path.basename(self.folder)}: it ends when it is told to", self.process.wait(10) == 0)


class Peers:
    """Writers and readers in one domain."""

    def __init__(self, domain):
        self.participant = DomainParticipant(domain)
        self.writers, self.readers, self.found = {}, {}, {}

    def write(self, topic, qos, message):
        if topic not in self.writers:
            self.writers[topic] = DataWriter(self.participant, Topic(self.participant, f"rt{topic}", type(message)), qos=qos)
        self.writers[topic].write(message)

    def read(self, name, topic, kind, qos):
        self.readers[name] = DataReader(self.participant, Topic(self.participant, f"rt{topic}", kind), qos=qos)
        self.found[name] = []

    def take(self):
        for name, reader in self.readers.items():
            self.found[name].extend((time.time_ns(), message) for message in reader.take(100))


def twist_of(body):
    twist = Twist(Vector3(body["forward_speed_mps"], 0.0, 0.0), Vector3(0.0, 0.0, body["yaw_rate_rps"]))
    covariance = [0.0] * 36
    covariance[0], covariance[35] = body["speed_sigma_mps"] ** 2, body["yaw_rate_sigma_rps"] ** 2
    return TwistWithCovariance(twist, covariance)


def play(first, second, message, time_ns):
    """One message of the drive to the peers of both daemons."""
    topic, _, body = message
    zero = Vector3(0.0, 0.0, 0.0)
    if topic == "/gnss/fix":
        fix = NavSatFix(header(time_ns, "gnss"), NavSatStatus(0, 1), body["latitude"], body["longitude"], body["altitude"],
                        body["position_covariance"], 3)
        first.write("/gnss/fix", RELIABLE, fix)
        second.write("/gnss/fix", BEST_EFFORT, fix)
    elif topic == "/odometry":
        pose = PoseWithCovariance(Pose(zero, LEVEL), [0.0] * 36)
        first.write("/wheel/odometry", BEST_EFFORT, Odometry(header(time_ns, "odom"), "base_link", pose, twist_of(body)))
        # Wheels that know no yaw rate, and a gyro.
        second.write("/can/twist", RELIABLE, TwistStamped(header(time_ns, "base_link"), Twist(Vector3(body["forward_speed_mps"], 0.0, 0.0), zero)))
        second.write("/imu/data", BEST_EFFORT, Imu(header(time_ns, "imu"), LEVEL, [-1.0] + [0.0] * 8, Vector3(0.0, 0.0, body["yaw_rate_rps"]),
                                                   [1e-4, 0.0, 0.0, 0.0, 1e-4, 0.0, 0.0, 0.0, body["yaw_rate_sigma_rps"] ** 2], zero, [-1.0] + [0.0] * 8))
    else:
        picture = base64.b64decode(body["data"])
        first.write("/front/image_raw/compressed", RELIABLE, CompressedImage(header(time_ns, "front"), "jpeg", picture))
        if time_ns // SECOND_NS % 2:
            pixels = numpy.asarray(Picture.open(io.BytesIO(picture)).convert("RGB"))
            rows, columns, _ = pixels.shape
            second.write("/front/image_raw", BEST_EFFORT, Image(header(time_ns, "front"), rows, columns, "rgb8", 0, 3 * columns, pixels.tobytes()))


def configs(demo, camera):
    local = 'interfaces = ["127.0.0.1"]\n'
    whole = (
        f'[tiles]\npath = "{demo}/test/tiles.pmtiles"\n[model]\npath = "{demo}/student.onnx"\n[fusion]\nlost_sigma_m = 12.0\n'
        "[camera]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in camera.items())
        + "".join(
            f'[[source]]\nkind = "ros2"\nname = "{name}"\ndomain_id = {DOMAIN}\n{local}{topic}\n'
            for name, topic in (("roof", 'fix = "/gnss/fix"'), ("wheels", 'odometry = "/wheel/odometry"'),
                                ("front", 'compressed_image = "/front/image_raw/compressed"'))
        )
        + f'[[sink]]\nkind = "ros2"\ndomain_id = {DOMAIN}\n{local}tf = true\nmap_frame = "town"\nvehicle_frame = "bus"\n'
    )
    return whole, local


def main(crossfixd, demo):
    demo = os.path.abspath(demo)
    drive, camera, truth = recorded(sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[1])
    start = next(body for topic, _, body in drive if topic == "/gnss/fix")
    origin = (start["latitude"], start["longitude"])
    whole, local = configs(demo, camera)
    whole += f"origin = {{ latitude_deg = {origin[0]}, longitude_deg = {origin[1]}, height_m = 0.0 }}\n"
    folder = tempfile.mkdtemp()
    bare = (
        f'[[source]]\nkind = "ros2"\nname = "all"\n{local}fix = "/gnss/fix"\ntwist = "/can/twist"\nimu = "/imu/data"\nimage = "/front/image_raw"\n'
        f'[[source]]\nkind = "ros2"\nname = "cut"\n{local}fix = "/cut/fix"\n'
        f'[[source]]\nkind = "ros2"\nname = "text"\n{local}fix = "/text/fix"\n'
        f'[[source]]\nkind = "ros2"\nname = "silent"\n{local}imu = "/nobody"\n'
        f'[[sink]]\nkind = "ros2"\n{local}namespace = "/other"\n'
    )
    second_daemon = Daemon(crossfixd, os.path.join(folder, "started-first"), bare, ROS_DOMAIN_ID=str(OTHER_DOMAIN))
    first = Peers(DOMAIN)
    for name, topic, kind, qos in (
        ("fix", "/crossfix/fix", NavSatFix, RELIABLE), ("fix, best effort", "/crossfix/fix", NavSatFix, BEST_EFFORT),
        ("pose", "/crossfix/pose", PoseWithCovarianceStamped, BEST_EFFORT), ("odometry", "/crossfix/odometry", Odometry, RELIABLE),
        ("diagnostics", "/diagnostics", DiagnosticArray, RELIABLE), ("tf", "/tf", TFMessage, RELIABLE),
        ("other fix", "/other/fix", NavSatFix, RELIABLE),
    ):
        first.read(name, topic, kind, qos)
    time.sleep(2)
    first_daemon = Daemon(crossfixd, os.path.join(folder, "started-last"), whole)
    second = Peers(OTHER_DOMAIN)
    for name, topic, kind in (("other fix", "/other/fix", NavSatFix), ("other odometry", "/other/odometry", Odometry), ("fix", "/crossfix/fix", NavSatFix)):
        second.read(name, topic, kind, RELIABLE)
    time.sleep(2.5)
    first.take()
    began_ns = time.time_ns()
    lost_ns, stopped_ns, seen = None, None, {}
    try:
        for message in drive:
            if message[1] > DRIVE_S * SECOND_NS:
                break
            time_ns = began_ns + message[1]
            while time.time_ns() < time_ns:
                first.take()
                second.take()
                time.sleep(0.005)
            play(first, second, message, time_ns)
            if message[0] == "/gnss/fix":
                second.write("/cut/fix", RELIABLE, CutNavSatFix(header(time_ns, "gnss"), NavSatStatus(0, 1), message[2]["latitude"]))
                second.write("/text/fix", RELIABLE, String("a sentence"))
        seen = {"first": status(first_daemon.folder), "second": status(second_daemon.folder)}
        stopped_ns = time.time_ns()
        while time.time_ns() < stopped_ns + LOST_S * SECOND_NS and not lost_ns:
            first.take()
            second.take()
            lost_ns = next((came for came, fix in first.found["fix"] if came > stopped_ns and fix.status.status == -1), None)
            time.sleep(0.01)
        time.sleep(1.5)
        first.take()
        seen["lost"] = status(first_daemon.folder)
    finally:
        first_daemon.stop()
        second_daemon.stop()
    judge_input(seen, second_daemon.log())
    judge_output(first.found, began_ns, truth, origin, lost_ns, stopped_ns, seen)
    other = [fix for _, fix in second.found["other fix"] if fix.status.status == 0]
    early = [fix.status.status for came, fix in first.found["fix"] if came <= began_ns]
    check("before the first fix there is none, and that is said", early and set(early) == {-1}, early)
    check("ROS_DOMAIN_ID is the domain of the second daemon", len(other) >= 50, len(other))
    check("and the domains do not mix", not first.found["other fix"] and not second.found["fix"])
    if failures:
        print(first_daemon.log()[-2000:], second_daemon.log()[-2000:], json.dumps(seen)[:4000], sep="\n")
    return 1 if failures else 0


def judge_input(seen, log):
    sources = {source["name"]: source for daemon in ("first", "second") for source in seen.get(daemon, {}).get("sources", [])}
    counts = {name: source["events"] for name, source in sources.items()}
    check("NavSatFix from a reliable writer", counts["roof"] >= 0.9 * DRIVE_S, counts["roof"])
    check("Odometry from a best-effort writer", counts["wheels"] >= 9 * DRIVE_S, counts["wheels"])
    check("CompressedImage", counts["front"] >= 1.8 * DRIVE_S, counts["front"])
    check("NavSatFix, TwistStamped, Imu and Image in one source", counts["all"] >= 19 * DRIVE_S, counts["all"])
    clocks = {clock["kind"]: clock for clock in sources["all"]["clocks"]}
    good = all(clock["state"] == "right" and abs(clock["offset_s"]) < 0.3 for clock in clocks.values())
    check("all of it on time", good and len(clocks) == 3, {kind: round(clock["offset_s"], 4) for kind, clock in clocks.items()})
    remark = sources["cut"]["remark"] or ""
    told = [line for line in log.splitlines() if "/cut/fix" in line]
    check("a cut message is counted", "messages on /cut/fix are left out" in remark and int(remark.split()[0]) > 10 and counts["cut"] == 0, remark)
    check("and warned of once", len(told) == 1 and "WARN" in told[0], told[:2])
    remark = sources["text"]["remark"] or ""
    check("a topic of another type is named", "std_msgs/String" in remark and "sensor_msgs/NavSatFix" in remark, remark)
    remark = sources["silent"]["remark"] or ""
    check("a topic that nobody publishes is named, and no error", "/nobody" in remark and sources["silent"]["error"] is None, remark)


def judge_output(found, began_ns, truth, origin, lost_ns, stopped_ns, seen):
    fixes = [fix for came, fix in found["fix"] if began_ns < came < stopped_ns]
    known = [fix for fix in fixes if fix.status.status == 0]
    check("a reliable reader gets NavSatFix", len(known) >= 8 * DRIVE_S / 2, {name: len(messages) for name, messages in found.items()})
    gotten = len(found["fix, best effort"])
    check("a best-effort reader gets the same", abs(gotten - len(found["fix"])) <= 0.05 * len(found["fix"]) + 2, gotten)
    late_ms = sorted((came - stamp_ns(fix)) / 1e6 for came, fix in found["fix"] if fix.status.status == 0)
    check("stamps are of the estimate's time", late_ms and -20 < late_ms[0] and late_ms[len(late_ms) // 2] < 250, f"median age {late_ms[len(late_ms) // 2]:.1f} ms")
    errors, normalized = [], []
    for fix in known:
        # The truth is every 0.1 s; in between it is a line.
        since = stamp_ns(fix) - began_ns
        before = since // 100_000_000 * 100_000_000
        one, other = truth.get(before), truth.get(before + 100_000_000)
        if not one or not other or since < (DRIVE_S - 12) * SECOND_NS:
            continue
        share = (since - before) / 1e8
        place = [one[key] + share * (other[key] - one[key]) for key in ("latitude_deg", "longitude_deg")]
        east, north = (mine - true for mine, true in zip(east_north((fix.latitude, fix.longitude), origin), east_north(place, origin)))
        covariance = numpy.array(fix.position_covariance).reshape(3, 3)
        errors.append(math.hypot(east, north))
        normalized.append(numpy.array([east, north]) @ numpy.linalg.solve(covariance[:2, :2], [east, north]))
    errors.sort()
    normalized.sort()
    median, worst = errors[len(errors) // 2], errors[-1]
    check("positions are near the truth", len(errors) > 50 and median < 2 and worst < 6, f"{len(errors)}, median {median:.2f} m, worst {worst:.2f} m")
    check("and the covariance says how near", normalized[len(normalized) * 9 // 10] < 9.2, f"90th percentile of the squared error over the variance {normalized[len(normalized) * 9 // 10]:.2f}")
    states = {fix.header.frame_id for fix in fixes}
    check("the frame is that of the config", states == {"bus"}, states)
    sound = all(
        numpy.isfinite(matrix).all() and numpy.array_equal(matrix, matrix.T) and (numpy.linalg.eigvalsh(matrix) > 0).all()
        for fix in known for matrix in [numpy.array(fix.position_covariance).reshape(3, 3)]
    ) and all(fix.position_covariance_type in (1, 3) for fix in known)
    check("every covariance of a fix is finite, symmetric and positive", sound)
    poses = {stamp_ns(pose): pose for _, pose in found["pose"]}
    odometry = {stamp_ns(one): one for _, one in found["odometry"]}
    places = {stamp_ns(fix): fix for fix in known}
    common = sorted(places.keys() & odometry.keys() & poses.keys())
    check("Odometry and PoseWithCovarianceStamped of the same times", len(common) >= 0.9 * len(known) - 5, f"{len(common)} of {len(known)}")
    apart, turned = 0.0, []
    for time_ns in common:
        one, fix, pose = odometry[time_ns], places[time_ns], poses[time_ns]
        east, north = east_north((fix.latitude, fix.longitude), origin)
        position, turn = one.pose.pose.position, one.pose.pose.orientation
        apart = max(apart, math.hypot(position.x - east, position.y - north))
        good = pose.pose == one.pose and (one.header.frame_id, one.child_frame_id, pose.header.frame_id) == ("town", "bus", "town")
        matrix = numpy.array(one.pose.covariance).reshape(6, 6)
        good &= bool(numpy.isfinite(matrix).all() and numpy.array_equal(matrix, matrix.T) and (numpy.diag(matrix) > 0).all())
        good &= bool(matrix[3, 3] == matrix[4, 4] == UNKNOWN and numpy.array_equal(matrix[:2, :2], numpy.array(fix.position_covariance).reshape(3, 3)[:2, :2]))
        good &= abs(math.hypot(turn.z, turn.w) - 1) < 1e-9 and turn.x == turn.y == 0
        if not good:
            check("frames, covariance and unit quaternion", False, one)
            break
        true = truth.get((time_ns - began_ns) // 100_000_000 * 100_000_000)
        if true and matrix[5, 5] < 0.1:
            yaw = 2 * math.atan2(turn.z, turn.w)
            turned.append(abs((yaw - math.radians(90 - true["heading_deg"]) + math.pi) % (2 * math.pi) - math.pi))
    else:
        check("frames, covariance with unknown roll and pitch, unit quaternion", bool(common))
    check("places in the map are those of the fixes, east and north of the origin", 0 < apart < 0.02, f"{apart * 1000:.2f} mm at most")
    turned.sort()
    check("the yaw counts from east to north", len(turned) > 50 and turned[len(turned) // 2] < 0.15, f"median off by {math.degrees(turned[len(turned) // 2]) if turned else math.nan:.2f} degrees")
    transforms = {stamp_ns(transform): transform for _, message in found["tf"] for transform in message.transforms}
    same = [time_ns for time_ns in common if time_ns in transforms and transforms[time_ns].translation == odometry[time_ns].pose.pose.position
            and transforms[time_ns].rotation == odometry[time_ns].pose.pose.orientation and transforms[time_ns].child_frame_id == "bus"]
    check("/tf has the same", len(same) >= 0.9 * len(common), len(same))
    check("the state was ok", seen["first"]["status"] == "ok", seen["first"]["status"])
    check("lost is said by a fix without a place", lost_ns is not None, f"after {(lost_ns - stopped_ns) / 1e9:.1f} s" if lost_ns else "never")
    if lost_ns:
        lost = [fix for came, fix in found["fix"] if came >= lost_ns]
        silent = all(fix.status.status == -1 and math.isnan(fix.latitude) and fix.position_covariance_type == 0 for fix in lost)
        check("and goes on to be said, without a pose", len(lost) >= 5 and silent and not [one for came, one in found["pose"] if stamp_ns(one) >= stamp_ns(lost[0])], len(lost))
    levels = [(came, part.level, part.message, {value.key: value.value for value in part.values})
              for came, message in found["diagnostics"] for part in message.status if part.name == "crossfixd: position"]
    final = levels[-1] if levels else None
    ok = [level for came, level, *_ in levels if level == 0]
    check("diagnostics say ok while it drives, and an error while lost", ok and final[1] == 2 and final[2].startswith("lost") and "reset_count" in final[3], final)
    names = {part.name for _, message in found["diagnostics"] for part in message.status}
    check("and every source", {"crossfixd: source roof", "crossfixd: source wheels", "crossfixd: source front"} <= names)


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
