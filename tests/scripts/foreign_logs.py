"""Logs that programs of others write: a drive of ours is written again by rosbags, Python's mcap with its ROS 2
and Protocol Buffers support, and the Foxglove SDK, and crossfixd must come to the same estimates.

Usage: foreign_logs.py CROSSFIXD DEMO_OUT             DEMO_OUT: what `crossfix demo` wrote
       foreign_logs.py --fixtures DRIVE.mcap FOLDER    writes the first seconds of the drive, for the unit tests

NavSatFix has no speed and no course, and no odometry of ROS has a heading clockwise from north. So the log
that the others are compared with is ours without these, written by Python's mcap.
"""
import base64
import glob
import io
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile

import foxglove
import numpy
from foxglove import messages as foxglove_messages
from google.protobuf.timestamp_pb2 import Timestamp as ProtobufTimestamp
from foxglove_schemas_protobuf.CompressedImage_pb2 import CompressedImage as ProtobufImage
from foxglove_schemas_protobuf.LocationFix_pb2 import LocationFix as ProtobufFix
from mcap.reader import make_reader
from mcap.writer import CompressionType, Writer
from mcap_protobuf.writer import Writer as ProtobufWriter
from mcap_ros2.writer import Writer as Ros2Writer
from PIL import Image
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer as BagWriter
from rosbags.typesys import Stores, get_typestore

SECOND_NS = 1_000_000_000
# The estimates of a foreign log may differ from those of ours by this much, metres and radians.
TOLERANCE_M = 0.001
FIXTURE_S = 3
FIXTURE_IMAGES = 1
failures = []


def check(name, good, seen=""):
    print(f"{'ok' if good else 'FAILED':<7} {name}" + (f": {seen}" if seen else ""))
    if not good:
        failures.append(name)


def read(path):
    """The messages of one of our logs: (topic, log time, body)."""
    with open(path, "rb") as file:
        for schema, channel, message in make_reader(file).iter_messages():
            yield schema, channel.topic, message.log_time, json.loads(message.data)


def stamp_ns(body):
    return body["timestamp"]["sec"] * SECOND_NS + body["timestamp"]["nsec"]


def plain(path, png, seconds=None, images=None):
    """A drive without what others cannot say: (kind, time, body)."""
    start, drive = None, []
    for schema, topic, time_ns, body in read(path):
        start = time_ns if start is None else start
        if seconds and time_ns - start > seconds * SECOND_NS:
            break
        if topic == "/gnss/fix":
            body.pop("speed_mps", None)
            body.pop("track_deg", None)
        elif topic == "/odometry":
            body.pop("heading_deg", None)
            body.pop("heading_sigma_deg", None)
        elif topic == "/camera/image":
            if images is not None and images <= 0:
                continue
            images = None if images is None else images - 1
            if png:
                pixels = Image.open(io.BytesIO(base64.b64decode(body["data"]))).convert("RGB")
                encoded = io.BytesIO()
                pixels.save(encoded, "PNG")
                body["data"], body["format"] = base64.b64encode(encoded.getvalue()).decode(), "png"
        elif topic != "/camera/calibration":
            continue
        drive.append((topic, time_ns, body, schema))
    return drive


def picture(body):
    return base64.b64decode(body["data"])


def pixels(body):
    return numpy.asarray(Image.open(io.BytesIO(picture(body))).convert("RGB"))


def write_own(drive, path, compression):
    with open(path, "wb") as file:
        writer = Writer(file, compression=compression)
        writer.start()
        channels = {}
        for topic, time_ns, body, schema in drive:
            if topic not in channels:
                schema_id = writer.register_schema(schema.name, schema.encoding, schema.data)
                channels[topic] = writer.register_channel(topic, "json", schema_id)
            writer.add_message(channels[topic], time_ns, json.dumps(body).encode(), time_ns)
        writer.finish()


def foxglove_json(drive, path):
    """As Foxglove's JSON schemas have it, without a word of ours; LZ4."""
    plain_fix = ("timestamp", "frame_id", "latitude", "longitude", "altitude", "position_covariance", "position_covariance_type")
    foreign = []
    for topic, time_ns, body, schema in drive:
        if topic == "/gnss/fix":
            body = {key: body[key] for key in plain_fix}
            topic = "/sensors/gnss"
        elif topic == "/camera/image":
            topic = "/sensors/front"
        foreign.append((topic, time_ns, body, schema))
    write_own(foreign, path, CompressionType.LZ4)


def ros_types():
    return get_typestore(Stores.ROS2_HUMBLE)


def ros_header(types, time_ns, frame):
    stamp = types.types["builtin_interfaces/msg/Time"](sec=time_ns // SECOND_NS, nanosec=time_ns % SECOND_NS)
    return types.types["std_msgs/msg/Header"](stamp=stamp, frame_id=frame)


def ros_messages(types, drive, raw, apart):
    """The drive as ROS 2 messages: (topic, type, time, message). `apart`: wheels and gyro by themselves."""
    make = types.types

    def vector(x=0.0, y=0.0, z=0.0):
        return make["geometry_msgs/msg/Vector3"](x=x, y=y, z=z)

    for topic, time_ns, body, _ in drive:
        if topic == "/gnss/fix":
            header = ros_header(types, stamp_ns(body), "gps")
            status = make["sensor_msgs/msg/NavSatStatus"](status=0, service=1)
            covariance = numpy.array(body["position_covariance"])
            yield "/fix", "sensor_msgs/msg/NavSatFix", time_ns, make["sensor_msgs/msg/NavSatFix"](
                header=header, status=status, latitude=body["latitude"], longitude=body["longitude"],
                altitude=body["altitude"], position_covariance=covariance, position_covariance_type=3)
        elif topic == "/camera/image" and raw:
            array = pixels(body)
            height, width, _ = array.shape
            yield "/front/image_raw", "sensor_msgs/msg/Image", time_ns, make["sensor_msgs/msg/Image"](
                header=ros_header(types, stamp_ns(body), "front"), height=height, width=width, encoding="bgr8",
                is_bigendian=0, step=3 * width, data=numpy.ascontiguousarray(array[:, :, ::-1]).reshape(-1))
        elif topic == "/camera/image":
            kind = "sensor_msgs/msg/CompressedImage"
            yield "/front/image_raw/compressed", kind, time_ns, make[kind](
                header=ros_header(types, stamp_ns(body), "front"), format=f"rgb8; {body['format']} compressed bgr8",
                data=numpy.frombuffer(picture(body), dtype=numpy.uint8))
        elif topic == "/odometry":
            speed, rate = body["forward_speed_mps"], body["yaw_rate_rps"]
            covariance = numpy.zeros(36)
            covariance[0], covariance[35] = body["speed_sigma_mps"] ** 2, body["yaw_rate_sigma_rps"] ** 2
            twist = make["geometry_msgs/msg/Twist"](linear=vector(x=speed), angular=vector(z=rate))
            with_covariance = make["geometry_msgs/msg/TwistWithCovariance"](twist=twist, covariance=covariance)
            if apart:
                kind = "geometry_msgs/msg/TwistWithCovarianceStamped"
                yield "/wheels", kind, time_ns, make[kind](
                    header=ros_header(types, stamp_ns(body), "base_link"), twist=with_covariance)
                yield "/imu/data", "sensor_msgs/msg/Imu", time_ns, make["sensor_msgs/msg/Imu"](
                    header=ros_header(types, stamp_ns(body), "imu_link"),
                    orientation=make["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0),
                    orientation_covariance=numpy.array([-1.0] + 8 * [0.0]), angular_velocity=vector(z=rate),
                    angular_velocity_covariance=numpy.diag([1.0, 1.0, body["yaw_rate_sigma_rps"] ** 2]).reshape(-1),
                    linear_acceleration=vector(), linear_acceleration_covariance=numpy.array([-1.0] + 8 * [0.0]))
                continue
            pose = make["geometry_msgs/msg/PoseWithCovariance"](
                pose=make["geometry_msgs/msg/Pose"](
                    position=make["geometry_msgs/msg/Point"](x=0.0, y=0.0, z=0.0),
                    orientation=make["geometry_msgs/msg/Quaternion"](x=0.0, y=0.0, z=0.0, w=1.0)),
                covariance=numpy.zeros(36))
            yield "/odom", "nav_msgs/msg/Odometry", time_ns, make["nav_msgs/msg/Odometry"](
                header=ros_header(types, stamp_ns(body), "odom"), child_frame_id="base_link", pose=pose,
                twist=with_covariance)


def rosbag(drive, folder, raw=False, apart=False, packed=False):
    """A bag as rosbags writes it: a folder with metadata.yaml. `packed`: in chunks with zstd."""
    types = ros_types()
    bag = BagWriter(folder, version=9, storage_plugin=StoragePlugin.MCAP)
    if packed:
        bag.set_compression(CompressionMode.STORAGE, CompressionFormat.ZSTD)
    with bag:
        connections = {}
        for topic, kind, time_ns, message in ros_messages(types, drive, raw, apart):
            if topic not in connections:
                connections[topic] = bag.add_connection(topic, kind, typestore=types)
            bag.write(connections[topic], time_ns, types.serialize_cdr(message, kind))


def as_dictionary(value):
    if isinstance(value, numpy.ndarray):
        return value.tolist()
    if hasattr(value, "__dataclass_fields__"):
        names = (name for name in value.__dataclass_fields__ if not name.startswith("__"))
        return {name: as_dictionary(getattr(value, name)) for name in names}
    return value


def mcap_ros2(drive, path):
    """Python's mcap with ROS 2 support, which encodes messages by itself; zstd."""
    types = ros_types()
    with open(path, "wb") as file:
        writer = Ros2Writer(file, compression=CompressionType.ZSTD)
        schemas = {}
        for topic, kind, time_ns, message in ros_messages(types, drive, raw=False, apart=False):
            if kind not in schemas:
                text, _ = types.generate_msgdef(kind, ros_version=2)
                schemas[kind] = writer.register_msgdef(kind, text)
            writer.write_message(topic, schemas[kind], as_dictionary(message), time_ns, time_ns)
        writer.finish()


def mcap_protobuf(drive, path):
    """Python's mcap with Protocol Buffers support, fixes and pictures; LZ4. Odometry has no schema there."""
    with open(path, "wb") as file, ProtobufWriter(file, compression=CompressionType.LZ4) as writer:
        for topic, time_ns, body, _ in drive:
            stamp = ProtobufTimestamp(seconds=body.get("timestamp", {}).get("sec", 0), nanos=body.get("timestamp", {}).get("nsec", 0))
            if topic == "/gnss/fix":
                message = ProtobufFix(timestamp=stamp, latitude=body["latitude"], longitude=body["longitude"],
                                      altitude=body["altitude"], position_covariance=body["position_covariance"],
                                      position_covariance_type=3)
                writer.write_message("/gnss", message, time_ns, time_ns)
            elif topic == "/camera/image":
                message = ProtobufImage(timestamp=stamp, data=picture(body), format=body["format"], frame_id="front")
                writer.write_message("/front", message, time_ns, time_ns)


def foxglove_sdk(drive, path, raw=False):
    """The Foxglove SDK; with raw pictures or as they were."""
    if os.path.exists(path):
        os.remove(path)
    context = foxglove.Context()
    with foxglove.open_mcap(path, context=context) as _:
        channels = {}

        def log(topic, kind, message, time_ns):
            if topic not in channels:
                channels[topic] = getattr(foxglove.channels, f"{kind}Channel")(topic, context=context)
            channels[topic].log(message, log_time=time_ns)

        for topic, time_ns, body, _ in drive:
            if topic == "/camera/calibration":
                continue
            stamp = foxglove_messages.Timestamp(body["timestamp"]["sec"], body["timestamp"]["nsec"])
            if topic == "/gnss/fix":
                log("/gnss", "LocationFix", foxglove_messages.LocationFix(
                    timestamp=stamp, latitude=body["latitude"], longitude=body["longitude"], altitude=body["altitude"],
                    position_covariance=body["position_covariance"],
                    position_covariance_type=foxglove_messages.LocationFixPositionCovarianceType.Known), time_ns)
            elif topic == "/odometry":
                covariance = 36 * [0.0]
                covariance[0], covariance[35] = body["speed_sigma_mps"] ** 2, body["yaw_rate_sigma_rps"] ** 2
                log("/odom", "Odometry", foxglove_messages.Odometry(
                    timestamp=stamp, frame_id="odom", body_frame_id="base_link",
                    linear_velocity=foxglove_messages.Vector3(x=body["forward_speed_mps"]),
                    angular_velocity=foxglove_messages.Vector3(z=body["yaw_rate_rps"]),
                    velocity_covariance=covariance), time_ns)
            elif raw:
                array = pixels(body)
                height, width, _ = array.shape
                log("/front", "RawImage", foxglove_messages.RawImage(
                    timestamp=stamp, frame_id="front", width=width, height=height, encoding="rgb8", step=3 * width,
                    data=array.tobytes()), time_ns)
            else:
                log("/front", "CompressedImage", foxglove_messages.CompressedImage(
                    timestamp=stamp, frame_id="front", data=picture(body), format=body["format"]), time_ns)


def replay(crossfixd, log, config):
    done = subprocess.run([crossfixd, "replay", log, "--config", config, "--json"], capture_output=True, text=True)
    if done.returncode:
        print(done.stderr[-2000:])
        return None
    return [json.loads(line) for line in done.stdout.splitlines()]


def metres(one, other):
    north = math.radians(one["latitude_deg"] - other["latitude_deg"]) * 6_371_000
    east = math.radians(one["longitude_deg"] - other["longitude_deg"]) * 6_371_000 * math.cos(math.radians(one["latitude_deg"]))
    return math.hypot(north, east)


def toml(value):
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(inner)}" for key, inner in value.items()) + " }"
    return json.dumps(value)


def places(estimates):
    """The fused positions by their times; of several of one time the last."""
    return {one["time_ns"]: one for one in estimates if one["kind"] == "fused" and one.get("latitude_deg") is not None}


def compare(name, expected, found):
    if found is None or len(found) != len(expected):
        check(name, False, f"{0 if found is None else len(found)} estimates, not {len(expected)}")
        return
    pairs = [(one, other) for one, other in zip(expected, found) if one.get("latitude_deg") is not None]
    if any(other.get("latitude_deg") is None for _, other in pairs):
        check(name, False, "a position is missing")
        return
    worst = max(metres(one, other) for one, other in pairs)
    states = sum(one["state"] != other["state"] for one, other in zip(expected, found))
    check(name, worst <= TOLERANCE_M and states == 0, f"{len(pairs)} estimates, {worst * 1000:.4f} mm apart at most, {states} states differ")


def fixtures(drive, folder):
    os.makedirs(folder, exist_ok=True)
    short = plain(drive, png=False, seconds=FIXTURE_S, images=FIXTURE_IMAGES)
    write_own(short, f"{folder}/own_lz4.mcap", CompressionType.LZ4)
    foxglove_json(short, f"{folder}/foxglove_json.mcap")
    for name, apart in [("rosbag", False), ("rosbag_apart", True)]:
        shutil.rmtree(f"{folder}/{name}", ignore_errors=True)
        rosbag(short, f"{folder}/{name}", apart=apart, packed=True)
    mcap_ros2(short, f"{folder}/mcap_ros2.mcap")
    mcap_protobuf(short, f"{folder}/mcap_protobuf.mcap")
    foxglove_sdk(short, f"{folder}/foxglove_sdk.mcap")


def main(crossfixd, demo):
    demo = os.path.abspath(demo)
    drive = sorted(glob.glob(f"{demo}/test/logs/*.mcap"))[0]
    with tempfile.TemporaryDirectory() as folder:
        log = lambda name: os.path.join(folder, name)  # noqa: E731
        config = log("crossfixd.toml")
        with open(config, "w", encoding="utf-8") as file:
            file.write(f'[tiles]\npath = "{demo}/test/tiles.pmtiles"\n[model]\npath = "{demo}/student.onnx"\n')
            # Logs of others do not have the camera's calibration, ours do.
            camera = next(body for _, topic, _, body in read(drive) if topic == "/camera/calibration")
            file.write("[camera]\n" + "".join(f"{key} = {toml(value)}\n" for key, value in camera.items()))
        of_jpeg, of_png = plain(drive, png=False), plain(drive, png=True)
        write_own(of_jpeg, log("own.mcap"), CompressionType.NONE)
        expected = replay(crossfixd, log("own.mcap"), config)
        fused = sum(estimate["state"] == "ok" for estimate in expected or [])
        check("our own log gives positions", fused > 0, f"{len(expected or [])} estimates, {fused} of them ok")
        if not expected:
            return
        write_own(of_jpeg, log("lz4.mcap"), CompressionType.LZ4)
        compare("ours, LZ4", expected, replay(crossfixd, log("lz4.mcap"), config))
        write_own(of_jpeg, log("zstd.mcap"), CompressionType.ZSTD)
        compare("ours, zstd", expected, replay(crossfixd, log("zstd.mcap"), config))
        foxglove_json(of_jpeg, log("json.mcap"))
        compare("Foxglove's JSON", expected, replay(crossfixd, log("json.mcap"), config))
        rosbag(of_jpeg, log("bag"))
        compare("rosbags: NavSatFix, CompressedImage, Odometry", expected, replay(crossfixd, log("bag"), config))
        mcap_ros2(of_jpeg, log("ros2.mcap"))
        compare("mcap-ros2-support, zstd", expected, replay(crossfixd, log("ros2.mcap"), config))
        foxglove_sdk(of_jpeg, log("sdk.mcap"))
        compare("Foxglove SDK: LocationFix, CompressedImage, Odometry", expected, replay(crossfixd, log("sdk.mcap"), config))
        # Wheels and gyro as two topics: every moment has two samples, and the estimates after both are those of one.
        rosbag(of_jpeg, log("apart"), apart=True)
        printed = subprocess.run([crossfixd, "--print-config", config], capture_output=True, text=True, check=True).stdout
        with open(log("apart.toml"), "w", encoding="utf-8") as file:
            file.write(printed.replace("[topics]\n", '[topics]\nspeed = "/wheels"\nyaw_rate = "/imu/data"\n', 1))
        apart = replay(crossfixd, log("apart"), log("apart.toml")) or []
        latest, one_topic = places(apart), places(expected)
        off = sorted(metres(one, latest[time_ns]) for time_ns, one in one_topic.items() if time_ns in latest)
        check("rosbags: wheels and gyro apart", len(off) > 0.8 * len(one_topic) and off[-1] < 0.5 and off[len(off) // 2] > 0,
              f"{len(off)} estimates, {off[len(off) // 2]:.3f} m apart by the median, {off[-1]:.3f} m at most" if off else "none")
        write_own(of_png, log("own_png.mcap"), CompressionType.NONE)
        expected = replay(crossfixd, log("own_png.mcap"), config)
        rosbag(of_png, log("raw_bag"), raw=True)
        compare("rosbags: Image", expected, replay(crossfixd, log("raw_bag"), config))
        foxglove_sdk(of_png, log("raw_sdk.mcap"), raw=True)
        compare("Foxglove SDK: RawImage", expected, replay(crossfixd, log("raw_sdk.mcap"), config))
        no_odometry = [message for message in of_jpeg if message[0] != "/odometry"]
        write_own(no_odometry, log("own_no_odometry.mcap"), CompressionType.NONE)
        expected = replay(crossfixd, log("own_no_odometry.mcap"), config)
        mcap_protobuf(no_odometry, log("protobuf.mcap"))
        compare("mcap-protobuf-support, LZ4", expected, replay(crossfixd, log("protobuf.mcap"), config))
        # Nothing that is read: a sentence with the topics, and no success.
        write_own([(topic.replace("/gnss/fix", "/chatter"), time_ns, {"data": "x"}, type("schema", (), {"name": "std_msgs.String", "encoding": "jsonschema", "data": b"{}"}))
                   for topic, time_ns, _, _ in of_jpeg if topic == "/gnss/fix"], log("nothing.mcap"), CompressionType.NONE)
        done = subprocess.run([crossfixd, "replay", log("nothing.mcap")], capture_output=True, text=True)
        check("a log without anything to use is refused", done.returncode == 1 and "/chatter" in done.stderr, done.stderr[-300:].strip())


if __name__ == "__main__":
    if len(sys.argv) == 4 and sys.argv[1] == "--fixtures":
        fixtures(sys.argv[2], sys.argv[3])
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
        sys.exit(f"{len(failures)} of the checks failed" if failures else 0)
    else:
        sys.exit(__doc__)
