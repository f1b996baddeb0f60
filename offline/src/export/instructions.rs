//! What a stranger needs to know to run an exported network, in words made of its card: it stands
//! in the ONNX file as the model's `doc_string` and under [`INSTRUCTIONS_KEY`].

use crossfix_onboard::card::{LEFT_BIN_INPUT, OrientationConvention, StudentCard};

/// Key of the instructions in the ONNX `metadata_props`.
pub const INSTRUCTIONS_KEY: &str = "crossfix.instructions";

/// The instructions for the network of `card`.
pub fn instructions(card: &StudentCard) -> String {
    let mut text = vec![
        format!(
            "Crossfix student ({}, {}): finds where a camera is in an aerial image. Batch size 1.",
            card.kind, card.preset
        ),
        ground(card),
        aerial(card),
    ];
    if let Some(bins) = card.ground.orientation_bins {
        text.push(format!(
            "Input `{LEFT_BIN_INPUT}` int64 [1]: which of {bins} equal bins of azimuth begins at the strip's left \
             edge; bin 0 begins at south, bins count clockwise."
        ));
    }
    text.push(format!(
        "Output `heatmap` float32 [1, {0}, {0}]: probability that the camera stands in each cell; sums to 1 \
         (softmax with temperature {1} inside the graph). Row 0 is the {2} edge, column 0 the {3} edge. Cells are \
         {4} m wide and the map's centre is the patch's centre, so the centre of cell (row r, column c) lies \
         (c + 0.5 - {5}) * {4} m {6} and ({5} - r - 0.5) * {4} m {7} of the patch's centre.",
        card.heatmap.side,
        card.temperature,
        if turned(card) { "left" } else { "north" },
        if turned(card) { "rear" } else { "west" },
        card.heatmap.metres_per_cell,
        card.heatmap.side as f64 / 2.0,
        if turned(card) { "ahead" } else { "east" },
        if turned(card) { "left" } else { "north" },
    ));
    if card.orientation == OrientationConvention::YawResidual {
        text.push(format!(
            "Output `orientation` float32 [1, 2, {0}, {0}]: a unit vector for each cell, channel 0 the cosine and \
             channel 1 the sine of d, read at the heatmap's largest cell. d = true yaw - assumed yaw, radians \
             counter-clockwise; in headings, true heading = assumed heading - d in degrees.",
            card.heatmap.side
        ));
    }
    if let Some(error) = &card.error {
        text.push(format!(
            "Error on {} held-out places: mean {:.2} m, median {:.2} m, 90 % within {:.2} m.",
            error.count, error.mean_m, error.median_m, error.p90_m
        ));
    }
    text.push(format!("Licence of the weights: {}.", card.licence));
    text.join("\n")
}

/// Whether the patch is turned so that its right edge is ahead of the vehicle.
fn turned(card: &StudentCard) -> bool {
    card.ground.camera.is_some()
}

fn ground(card: &StudentCard) -> String {
    let ground = &card.ground;
    let shape = format!(
        "Input `ground` float32 [1, 3, {}, {}]: channels red, green, blue, values 0 to 255 (normalised inside the \
         graph), row 0 on top.",
        ground.rows, ground.columns
    );
    if let Some([fx, fy, cx, cy]) = ground.camera {
        return format!(
            "{shape} An undistorted pinhole picture: focal lengths {fx} and {fy}, centre {cx}, {cy}, in pixels."
        );
    }
    let degrees_per_pixel = ground.fov_deg / ground.columns as f64;
    let left = match ground.orientation_bins {
        None => "The left edge looks south (azimuth 180°) by the assumed heading, the middle north, azimuth grows \
                 to the right"
            .to_owned(),
        Some(_) => format!("Azimuth grows to the right; the left edge lies on the bin of `{LEFT_BIN_INPUT}`"),
    };
    format!(
        "{shape} An equirectangular strip of {:.1}° by {:.1}°: each pixel covers {degrees_per_pixel}° of azimuth and \
         of elevation, and the top edge looks {}° above the horizon. {left}.",
        ground.fov_deg,
        degrees_per_pixel * ground.rows as f64,
        ground.top_elevation_deg,
    )
}

fn aerial(card: &StudentCard) -> String {
    let up = if turned(card) {
        "The right edge is ahead of the vehicle, by the assumed heading"
    } else {
        "North is up, east to the right"
    };
    format!(
        "Input `aerial` float32 [1, 3, {0}, {0}]: channels red, green, blue, values 0 to 255. {up}; {1} m a pixel on \
         the ground; centred near the coarse position (crossfixd rounds the centre to a grid of 8 m), with the camera \
         inside.",
        card.aerial.size_px, card.aerial.metres_per_pixel
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::export::{student_card, with_camera};
    use crate::model::named;

    #[test]
    fn each_kind_of_network_says_its_inputs_and_where_north_is() {
        for (name, words) in [
            (
                "compact",
                ["left edge looks south", "North is up", "cosine"],
            ),
            (
                "compact-front",
                ["ground_left_bin", "North is up", "cosine"],
            ),
            (
                "ggcvt-compact",
                ["left edge looks south", "North is up", "sums to 1"],
            ),
        ] {
            let card = student_card(&named(name).unwrap().describe(), 1.5, "MIT");
            let text = instructions(&card);
            for word in words
                .into_iter()
                .chain(["red, green, blue", "temperature 1.5", "MIT"])
            {
                assert!(text.contains(word), "{name}: {word} is not in\n{text}");
            }
        }
        let pinhole = student_card(&named("ggcvt-kitti2").unwrap().describe(), 1.0, "MIT");
        let text = instructions(&with_camera(pinhole, [500.0, 510.0, 512.0, 128.0]));
        assert!(
            text.contains("ahead of the vehicle") && text.contains("focal lengths 500 and 510")
        );
    }
}
