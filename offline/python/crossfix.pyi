"""Pairs datasets, students and runs of Crossfix: cross-view positions from a camera, a coarse position and aerial tiles.

>>> import crossfix
>>> pairs = crossfix.Pairs("pairs")
>>> student = crossfix.Student("student.onnx")
>>> found = student.predict(pairs[0])
>>> found.latitude_deg, found.longitude_deg, found.covariance_m2
"""

import os
from collections.abc import Iterator, Sequence
from typing import Any, final

import numpy
from numpy.typing import NDArray

__all__ = [
    "DatasetError",
    "Error",
    "Odometry",
    "Pair",
    "PairIterator",
    "Pairs",
    "Prediction",
    "Run",
    "RunError",
    "Student",
    "StudentError",
    "TruePose",
    "__version__",
    "read_truth",
]

__version__: str

class Error(Exception):
    """What crossfix refuses: the message names the file, what is wrong with it and what to do."""

class DatasetError(Error):
    """A dataset, or a line, a picture or a tile of it, cannot be used."""

class StudentError(Error):
    """A student cannot be loaded, or what it was given does not fit it."""

class RunError(Error):
    """A run folder or a report input cannot be read."""

@final
class Pairs:
    """A pairs dataset (docs/pairs.md) whose text was read and checked; pictures are read when they are asked for."""

    def __new__(cls, folder: str | os.PathLike[str]) -> Pairs:
        """Opens it. Raises DatasetError with the file, the line and the remedy."""
    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> Pair: ...
    def __iter__(self) -> Iterator[Pair]: ...
    @property
    def folder(self) -> os.PathLike[str]:
        """Its folder."""
    @property
    def tiles(self) -> os.PathLike[str]:
        """The tile set's path."""
    @property
    def manifest(self) -> dict[str, Any]:
        """dataset.toml, with the camera."""

@final
class PairIterator:
    """The pairs of a dataset, one after the other."""

    def __iter__(self) -> PairIterator: ...
    def __next__(self) -> Pair: ...

@final
class Pair:
    """One picture with what the vehicle knew when it was taken. No truth."""

    @property
    def id(self) -> str:
        """Unique in the dataset."""
    @property
    def drive(self) -> str:
        """The drive that it was taken on."""
    @property
    def time_ns(self) -> int:
        """When, nanoseconds UTC since 1970."""
    @property
    def image(self) -> os.PathLike[str]:
        """Path of the picture."""
    @property
    def latitude_deg(self) -> float:
        """Coarse position of the camera, degrees, WGS 84."""
    @property
    def longitude_deg(self) -> float:
        """Coarse position of the camera, degrees, WGS 84."""
    @property
    def covariance_m2(self) -> NDArray[numpy.float64]:
        """Covariance of the coarse position: [[east, cross], [cross, north]], m²."""
    @property
    def heading_deg(self) -> float:
        """Heading of the vehicle, degrees clockwise from true north."""
    @property
    def heading_sigma_deg(self) -> float:
        """Its standard deviation, degrees; 180 where the heading is not known."""
    @property
    def odometry(self) -> Odometry | None:
        """Movement since the drive's pair before; None at its first, and where it is unknown."""
    def picture(self) -> NDArray[numpy.uint8]:
        """Decodes the picture, upright: [rows, columns, 3], RGB. Raises DatasetError when it cannot be read whole."""

@final
class Odometry:
    """Movement since the pair before, in the vehicle's frame there."""

    @property
    def forward_m(self) -> float:
        """Metres forward."""
    @property
    def left_m(self) -> float:
        """Metres to the left."""
    @property
    def yaw_rad(self) -> float:
        """Change of yaw, radians counter-clockwise."""

@final
class TruePose:
    """Where a picture really was taken."""

    @property
    def latitude_deg(self) -> float:
        """Of the camera, degrees, WGS 84."""
    @property
    def longitude_deg(self) -> float:
        """Of the camera, degrees, WGS 84."""
    @property
    def heading_deg(self) -> float:
        """Of the vehicle, degrees clockwise from true north."""

def read_truth(pairs: Pairs) -> dict[str, TruePose]:
    """Reads truth.jsonl of a dataset: the true pose of each pair that has one, by id."""

@final
class Student:
    """A network from a file: weights (.safetensors), or an exported student (.onnx), which runs as on the vehicle.

    Runs on the CPU, on all cores; Python's lock is released meanwhile.
    """

    def __new__(cls, path: str | os.PathLike[str]) -> Student:
        """Loads it. Raises StudentError with the file and the remedy."""
    @property
    def spec(self) -> dict[str, Any]:
        """Sizes, scale and camera of its images, its heatmap and its levels."""
    @property
    def card(self) -> dict[str, Any] | None:
        """The card of an exported student; None of weights."""
    @property
    def provenance(self) -> Any:
        """What the weights' file says of how they were made; None of exported students, whose card says it."""
    def images(self, pair: Pair) -> tuple[NDArray[numpy.uint8], NDArray[numpy.uint8]]:
        """The images that the network is given for a pair.

        Ground [rows, columns, 3], aligned with north by the pair's heading; aerial [side, side, 3], north up, around
        the coarse position.
        """
    def ground_image(
        self, picture: NDArray[numpy.uint8], camera: dict[str, Any], heading_deg: float
    ) -> tuple[NDArray[numpy.uint8], int]:
        """The ground image [rows, columns, 3] that the network is given of a picture, and the bin of its left edge.

        `camera` as [camera] of dataset.toml; `heading_deg` of the vehicle, clockwise from true north.
        """
    def predict(self, pair: Pair) -> Prediction:
        """Where a pair was taken.

        Raises DatasetError when a picture or a tile cannot be read, StudentError when the network fails.
        """
    def predict_all(
        self, pairs: Pairs, indices: Sequence[int] | None = None, *, heatmaps: bool = False
    ) -> list[Prediction]:
        """Where the pairs of a dataset were taken, or those at `indices`; raises as predict. Ctrl-C ends it."""
    def predict_images(
        self,
        ground: NDArray[numpy.uint8],
        aerial: NDArray[numpy.uint8],
        *,
        left_bin: int = 0,
        camera: tuple[float, float, float, float] | None = None,
    ) -> Prediction:
        """Where in `aerial` [side, side, 3], north up, `ground` [rows, columns, 3], aligned with north, was taken.

        `left_bin`: the bin of the ground image's left edge, for networks that see part of the circle. `camera`:
        (fx, fy, cx, cy) in pixels of the ground image, for networks that take a pinhole picture.
        """

@final
class Prediction:
    """Where a network finds that a picture was taken.

    Offsets are metres (east, north) from the middle of the aerial image; (ahead, left) for networks that take a
    pinhole picture.
    """

    @property
    def id(self) -> str | None:
        """The pair's id; None of arrays."""
    @property
    def mode_m(self) -> tuple[float, float]:
        """The heatmap's mode: the centre of its largest cell."""
    @property
    def mode_in_prior_m(self) -> tuple[float, float]:
        """The heatmap's mode within the 99 % ellipse of the coarse position."""
    @property
    def peak_m(self) -> tuple[float, float]:
        """The mode between cells."""
    @property
    def mean_m(self) -> tuple[float, float]:
        """The heatmap's mean."""
    @property
    def covariance_m2(self) -> NDArray[numpy.float64]:
        """Expected squared error of the mode by the heatmap: [[east, cross], [cross, north]], m²."""
    @property
    def peak_probability(self) -> float:
        """Probability of the largest cell."""
    @property
    def entropy(self) -> float:
        """Entropy of the heatmap, nats."""
    @property
    def yaw_residual_rad(self) -> float | None:
        """True yaw minus the yaw that the ground image was aligned with, at the mode, radians counter-clockwise."""
    @property
    def heading_deg(self) -> float | None:
        """Heading of the vehicle, degrees clockwise from true north; None where the network does not say."""
    @property
    def latitude_deg(self) -> float | None:
        """Latitude of the mode, degrees, WGS 84; None of arrays."""
    @property
    def longitude_deg(self) -> float | None:
        """Longitude of the mode, degrees, WGS 84; None of arrays."""
    def geodetic(self, offset_m: tuple[float, float]) -> tuple[float, float] | None:
        """Latitude and longitude, degrees, WGS 84, of an offset (east, north); None of arrays.

        Raises ValueError for offsets that are no numbers, or beyond 100 km.
        """
    @property
    def heatmap(self) -> NDArray[numpy.float32] | None:
        """The heatmap [side, side], row 0 north, column 0 west, summing to 1; None where it was not asked for."""
    @property
    def metres_per_cell(self) -> float:
        """Side of a heatmap's cell, metres."""

@final
class Run:
    """What a run of `crossfix train`, `adapt` or `demo` left: its folder, or a report-input.json."""

    def __new__(cls, path: str | os.PathLike[str]) -> Run:
        """Reads it. Raises RunError when it is none, or was not finished."""
    @property
    def title(self) -> str:
        """The page's title."""
    @property
    def verdict(self) -> str:
        """What was done and what came of it, in words."""
    @property
    def record(self) -> Any:
        """run.json: settings, hashes, measurements. None where there is only a report input."""
    @property
    def summary(self) -> list[dict[str, Any]]:
        """The rows of the tables of models against metrics: area, metric, unit, masked, and values by model."""
    @property
    def curves(self) -> dict[str, dict[str, NDArray[numpy.float64]]]:
        """How each model learned: arrays step, loss and validation_error_m (metres), by model."""
    @property
    def errors_m(self) -> dict[str, dict[str, NDArray[numpy.float64]]]:
        """Position errors in metres, one for each pair, by figure and model."""
    @property
    def report(self) -> dict[str, Any]:
        """Everything that the page shows, without its pictures."""
    def write_html(self, path: str | os.PathLike[str]) -> None:
        """Writes the page, one HTML file that needs nothing else."""
