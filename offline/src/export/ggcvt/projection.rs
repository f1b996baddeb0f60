//! The projection of overhead cells into the ground features, and the features sampled there.
//!
//! With a panorama the places are known when the file is written: sampling is four look-ups
//! with known weights, which the daemon's few operators suffice for. With a pinhole camera the graph
//! computes the places from the pose; where the pose is known, runtimes do so once, when they load.

use super::super::graph::Value;
use super::Translation;
use crate::model::ggcvt::GgcvtCamera;
use crate::model::ggcvt::cross_view::COLUMN_NUDGE;
use crate::model::ggcvt::projection::Maps;
use crossfix_kernels::ops::NEAREST_M;
use tract_onnx::pb::tensor_proto::DataType;

/// Where the cells of an overhead map are seen in a ground feature map, row by row.
pub(super) struct Look {
    pub level: usize,
    pub maps: Maps,
    pub places: Places,
}

/// Columns and rows.
pub(super) enum Places {
    Known(Vec<[f32; 2]>),
    /// `[cells]` each.
    Computed([Value; 2]),
}

/// A pinhole camera: focal lengths and centre (fx, fy, cx, cy) in pixels of the ground image, and
/// how it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pinhole {
    pub camera: [f64; 4],
    pub height_m: f64,
    pub metres_per_pixel: f64,
    pub shift_range_m: f64,
    pub heading_range_rad: f64,
}

impl Pinhole {
    /// The network's camera with this matrix; nothing for panoramas.
    pub fn new(camera: &GgcvtCamera, matrix: [f64; 4]) -> Option<Self> {
        match *camera {
            GgcvtCamera::Panorama { .. } => None,
            GgcvtCamera::Pinhole {
                height_m,
                metres_per_pixel,
                shift_range_m,
                heading_range_deg,
                ..
            } => Some(Self {
                camera: matrix,
                height_m,
                metres_per_pixel,
                shift_range_m,
                heading_range_rad: heading_range_deg.to_radians(),
            }),
        }
    }
}

impl Translation<'_> {
    /// A number that many nodes read.
    pub fn number(&mut self, value: f32) -> Value {
        self.graph
            .floats(&format!("number_{value}"), &[1], &[value])
    }

    fn double(&mut self, value: f64) -> Value {
        let name = format!("double_{value}");
        self.graph.doubles(&name, &[1, 1], &[value])
    }

    /// Values moved into [0, most].
    fn clamp(&mut self, x: &Value, most: f32) -> Value {
        let (zero, most) = (self.number(0.0), self.number(most));
        let x = self.graph.combine("Max", x, &zero);
        self.graph.combine("Min", &x, &most)
    }

    /// Cells of `level` for `pinhole` at `pose` `[1, 3]` (normalised shift along the view, shift
    /// across it, heading), and how many metres ahead of the camera each lies, `[side, side]`.
    ///
    /// In doubles, as in training: a column that is rounded to the other side is another column.
    pub fn pinhole_look(&mut self, level: usize, pinhole: &Pinhole, pose: &Value) -> (Look, Value) {
        let maps = self.maps(level);
        let side = maps.side;
        let metres_per_cell = pinhole.metres_per_pixel * self.spec.aerial_px as f64 / side as f64;
        let places = (0..side).map(|index| metres_per_cell * (index as f64 - side as f64 / 2.0));
        let places: Vec<f64> = places.collect();
        let name = |what| format!("cells_{level}_{what}");
        let right = self.graph.doubles(&name("right"), &[side, 1], &places);
        let ahead = self.graph.doubles(&name("ahead"), &[1, side], &places);

        let pose = self.graph.cast(pose, DataType::Double);
        let [along, across, heading] = [0, 1, 2].map(|at| self.graph.slice(&pose, 1, at, at + 1));
        let shift_range = self.double(pinhole.shift_range_m);
        let heading_range = self.double(pinhole.heading_range_rad);
        let [along, across] = [along, across].map(|x| self.graph.combine("Mul", &shift_range, &x));
        let angle = self.graph.combine("Mul", &heading, &heading_range);
        let [sin, cos] = ["Sin", "Cos"].map(|op| self.graph.map(op, &angle));
        let mut turned = |[a, b]: [&Value; 2], op, shift_op, shift| {
            let x = self.graph.combine("Mul", &cos, a);
            let y = self.graph.combine("Mul", &sin, b);
            let x = self.graph.combine(op, &x, &y);
            self.graph.combine(shift_op, &x, shift)
        };
        let across = turned([&right, &ahead], "Add", "Add", &across);
        let depth = turned([&ahead, &right], "Sub", "Sub", &along);

        let stride = (8 >> level) as f64;
        let [fx, fy, cx, cy] = pinhole.camera.map(|value| value / stride);
        let height = self.double(fy * pinhole.height_m);
        let focal = self.double(fx);
        let across = self.graph.combine("Mul", &focal, &across);
        let nearest = self.double(NEAREST_M);
        let divisor = self.graph.combine("Max", &depth, &nearest);
        let places = [(across, cx), (height, cy)].map(|(part, centre)| {
            let centre = self.double(centre);
            let centre = self.graph.combine("Mul", &centre, &depth);
            let x = self.graph.combine("Add", &part, &centre);
            let x = self.graph.combine("Div", &x, &divisor);
            let x = self.graph.cast(&x, DataType::Float);
            self.graph.reshape(&x, &[side * side])
        });
        let places = Places::Computed(places);
        let look = Look {
            level,
            maps,
            places,
        };
        (look, depth)
    }

    /// 1 for cells in front of the camera and 0 for those behind it, `[cells]`.
    pub fn in_front(&mut self, depth: &Value) -> Value {
        let nearest = self.double(NEAREST_M);
        let front = self.graph.combine("Greater", depth, &nearest);
        let front = self.graph.cast(&front, DataType::Float);
        self.graph.reshape(&front, &[depth.shape.iter().product()])
    }

    /// The same cells in another order; `name` is the order's.
    pub fn reordered(&mut self, look: &Look, name: &str, order: &[usize]) -> Look {
        let places = match &look.places {
            Places::Known(places) => {
                Places::Known(order.iter().map(|cell| places[*cell]).collect())
            }
            Places::Computed([columns, rows]) => {
                let order = self.order(name, order);
                Places::Computed([columns, rows].map(|places| self.graph.gather(places, &order, 0)))
            }
        };
        Look { places, ..*look }
    }

    pub fn order(&mut self, name: &str, cells: &[usize]) -> Value {
        let cells: Vec<i64> = cells.iter().map(|cell| *cell as i64).collect();
        self.graph.integers(name, &[cells.len()], &cells)
    }

    /// The two ground columns that each cell attends to, `[cells, 2]`.
    pub fn seen_columns(&mut self, look: &Look) -> Value {
        let last = look.maps.ground[1] - 1;
        let columns = match &look.places {
            Places::Known(places) => {
                let sides = places.iter().flat_map(|[column, _]| {
                    let left = (column + COLUMN_NUDGE).floor();
                    [left, left + 1.0].map(|column| (column.max(0.0) as usize).min(last) as i64)
                });
                let sides: Vec<i64> = sides.collect();
                return self
                    .graph
                    .integers("seen_columns", &[places.len(), 2], &sides);
            }
            Places::Computed([columns, _]) => columns,
        };
        let cells = columns.shape[0];
        let left = self.graph.map("Floor", columns);
        let one = self.number(1.0);
        let right = self.graph.combine("Add", &left, &one);
        let sides = [left, right].map(|side| {
            let side = self.clamp(&side, last as f32);
            self.graph.reshape(&side, &[cells, 1])
        });
        let sides = self.graph.concat(1, &[&sides[0], &sides[1]]);
        self.graph.cast(&sides, DataType::Int64)
    }

    /// What cells see of the ground features `[1, C, H, W]`: `[cells, C]`. A cell of which one of
    /// the four neighbours lies outside sees nothing.
    pub fn seen(&mut self, ground: &Value, look: &Look) -> Value {
        let corners = match &look.places {
            Places::Known(places) => self.known_corners(look, places),
            Places::Computed(places) => self.computed_corners(look, places),
        };
        let pixels = self.tokens(ground);
        let parts = corners.map(|(index, weight)| {
            let part = self.graph.gather(&pixels, &index, 0);
            self.graph.combine("Mul", &part, &weight)
        });
        let [first, others @ ..] = parts;
        let others = others.iter();
        others.fold(first, |sum, part| self.graph.combine("Add", &sum, part))
    }

    /// Pixel `[cells]` and weight `[cells, 1]` of each of the four neighbours.
    fn known_corners(&mut self, look: &Look, places: &[[f32; 2]]) -> [(Value, Value); 4] {
        let [rows, columns] = look.maps.ground;
        let cells = places.len();
        let mut index = [(); 4].map(|()| vec![0i64; cells]);
        let mut weight = [(); 4].map(|()| vec![0.0f32; cells]);
        for (at, [x, y]) in places.iter().enumerate() {
            let (left, top) = (x.floor(), y.floor());
            let inside = |from: f32, length: usize| from >= 0.0 && from + 1.0 < length as f32;
            if !inside(left, columns) || !inside(top, rows) {
                continue;
            }
            let (right_share, low_share) = (x - left, y - top);
            for corner in 0..4 {
                let (right, low) = (corner % 2, corner / 2);
                let across = [1.0 - right_share, right_share][right];
                let down = [1.0 - low_share, low_share][low];
                index[corner][at] = ((top as usize + low) * columns + left as usize + right) as i64;
                weight[corner][at] = across * down;
            }
        }
        [0, 1, 2, 3].map(|corner| {
            let name = |what: &str| format!("seen_{}_{corner}_{what}", look.level);
            let pixel = self
                .graph
                .integers(&name("pixel"), &[cells], &index[corner]);
            let share = self
                .graph
                .floats(&name("weight"), &[cells, 1], &weight[corner]);
            (pixel, share)
        })
    }

    /// The same, computed.
    fn computed_corners(&mut self, look: &Look, places: &[Value; 2]) -> [(Value, Value); 4] {
        let cells = places[0].shape[0];
        let [rows, columns] = look.maps.ground;
        let one = self.number(1.0);
        // First neighbour, shares of the first and the second, and whether both are there.
        let mut axis = |places: &Value, length: usize| {
            let low = self.graph.map("Floor", places);
            let second = self.graph.combine("Sub", places, &low);
            let first = self.graph.combine("Sub", &one, &second);
            let inside = self.clamp(&low, (length - 2) as f32);
            let there = self.graph.combine("Equal", &inside, &low);
            let there = self.graph.cast(&there, DataType::Float);
            (inside, [first, second], there)
        };
        let (left, across, there) = axis(&places[0], columns);
        let (top, down, also) = axis(&places[1], rows);
        let there = self.graph.combine("Mul", &there, &also);
        let width = self.number(columns as f32);
        // Whole numbers of floats: exact up to sixteen million pixels.
        let corner = self.graph.combine("Mul", &top, &width);
        let corner = self.graph.combine("Add", &corner, &left);
        [0, 1, 2, 3].map(|which| {
            let (right, low) = (which % 2, which / 2);
            let step = self.number((low * columns + right) as f32);
            let index = self.graph.combine("Add", &corner, &step);
            let index = self.graph.cast(&index, DataType::Int64);
            let weight = self.graph.combine("Mul", &across[right], &down[low]);
            let weight = self.graph.combine("Mul", &weight, &there);
            (index, self.graph.reshape(&weight, &[cells, 1]))
        })
    }
}
