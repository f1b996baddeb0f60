//! The paths a frame takes through this crate, timed: `cargo bench -p crossfix-calibration`.
//! Prints the least and the median of many runs (they part on a busy machine); one core.

use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

use crossfix_calibration::{
    Camera, Distortion, Equirectangular, Geodetic, GridBelief, Heatmap, Mount, PatchGeoreference,
    PatchSpec, Pinhole, RgbImage, StripMapper, StripRemap, StripSpec,
};

fn time<T>(name: &str, mut work: impl FnMut() -> T) {
    let mut times_us: Vec<f64> = (0..200)
        .map(|_| {
            let start = Instant::now();
            black_box(work());
            start.elapsed().as_secs_f64() * 1e6
        })
        .collect();
    times_us.sort_by(f64::total_cmp);
    let (least, median) = (times_us[0], times_us[100]);
    println!("{name:48} least {least:8.1} us   median {median:8.1} us");
}

fn main() {
    let place = Geodetic::new(52.0116, 4.3571, 0.0).expect("a place");
    let spec = PatchSpec {
        size_px: 128,
        metres_per_pixel: 0.5,
    };
    let patch = PatchGeoreference::centred_on(place, spec, 0.5).expect("a patch");
    let tile = Arc::new(RgbImage {
        width: 256,
        height: 256,
        data: (0..256 * 256 * 3).map(|i| (i % 251) as u8).collect(),
    });
    time("patch 128 px from zoom 18 (0.37 m)", || {
        patch.render(18, 256, |_| Some(tile.clone()))
    });
    time("patch 128 px from zoom 17 (0.73 m)", || {
        patch.render(17, 256, |_| Some(tile.clone()))
    });

    let panorama = |width, height| {
        Camera::Equirectangular(Equirectangular {
            width,
            height,
            top_elevation_deg: 28.0,
            bottom_elevation_deg: -39.5,
            mount: Mount::default(),
        })
    };
    for (name, camera, strip) in [
        ("panorama 256x48", panorama(256, 48), StripSpec::panorama()),
        (
            "panorama 2048x384",
            panorama(2048, 384),
            StripSpec::panorama(),
        ),
        (
            "pinhole 640x400",
            Camera::Pinhole(Pinhole::with_horizontal_view(640, 400, 1.75)),
            StripSpec::front(96, 0.3),
        ),
        (
            "distorted pinhole 1280x800",
            Camera::Pinhole(Pinhole {
                distortion: Some(Distortion {
                    k1: -0.2,
                    k2: 0.03,
                    ..Distortion::default()
                }),
                ..Pinhole::with_horizontal_view(1280, 800, 1.4)
            }),
            StripSpec::front(96, 0.3),
        ),
    ] {
        let [width, height] = camera.image_size();
        let image = RgbImage::black(width, height);
        let remap = StripRemap::new(&camera, &strip, 0.3).expect("a remap");
        time(&format!("strip table, {name}"), || {
            StripRemap::new(&camera, &strip, 0.3)
        });
        let mapper = StripMapper::new(&camera, &strip).expect("a mapper");
        time(&format!("strip table of a kept camera, {name}"), || {
            mapper.remap(strip.left_azimuth_rad, 0.3)
        });
        time(&format!("strip apply, {name}"), || remap.apply(&image));
    }

    let heatmap = Heatmap::gaussian(64, 1.0, [1.0, 2.0], 3.0).expect("a heatmap");
    let mut belief = GridBelief::new([0.0, 0.0], 192, 0.5).expect("a grid");
    belief
        .update_gnss([0.0, 0.0], [[4.0, 0.0], [0.0, 4.0]], 4.0)
        .expect("an update");
    time("belief 192x192 predict, sigma 0.3 m", || {
        belief.clone().predict([0.3, 0.1], 0.3)
    });
    time("belief 192x192 predict, sigma 5 m", || {
        belief.clone().predict([0.3, 0.1], 5.0)
    });
    for exponent in [1.0, 0.8] {
        let name = format!("belief 192x192 update by heatmap 64x64 ^ {exponent}");
        time(&name, || {
            belief
                .clone()
                .update_heatmap(&heatmap, [0.3, 0.1], exponent, 0.05)
        });
    }
    time("belief 192x192 update by GNSS", || {
        belief
            .clone()
            .update_gnss([0.3, 0.1], [[4.0, 0.5], [0.5, 4.0]], 4.0)
    });
    time("belief 192x192 update by a filter", || {
        belief
            .clone()
            .update_gaussian([0.3, 0.1], [[4.0, 0.5], [0.5, 4.0]], 0.02)
    });
    time("belief 192x192 mix_uniform", || {
        belief.clone().mix_uniform(0.002)
    });
    time("belief 192x192 estimate", || belief.estimate());
    let flat = GridBelief::new([0.0, 0.0], 192, 0.5).expect("a grid");
    time("belief 192x192 estimate of no idea", || flat.estimate());
}
