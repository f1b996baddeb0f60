use super::*;
use crate::data::Pair;
use crate::evaluate::temperature;
use crate::model::{Ccvpe, named, preset};
use crate::recipe::{self, Labeller, Shared, defaults};
use crate::run::{Interrupt, RunContext};
use crate::train::World;
use crate::train::tests::noise_pairs;
use serde_json::{Value, json};
use std::path::Path;

/// Pairs of two drives whose frames alternate, so that shards cut both.
fn pairs(count: usize) -> Vec<Pair> {
    let pairs = noise_pairs(count, "compact").into_iter().enumerate();
    let pairs = pairs.map(|(index, (mut pair, _))| {
        pair.sample.drive = format!("drive-{}", index % 2);
        pair.sample.time_ns = index as i64 * 1_000_000_000;
        pair
    });
    pairs.collect()
}

fn inputs(pairs: &dyn Dataset, settings: Value) -> Inputs {
    Inputs::new("adapt", "ab".into(), None, (pairs, json!("data")), settings)
}

/// Asks the network shard by shard, and writes files.
fn write_shards(
    folder: &Path,
    of: usize,
    (labeller, pairs): (&Labeller, &Vec<Pair>),
    model: &mut dyn CrossViewModel,
) -> Vec<PathBuf> {
    let inputs = inputs(pairs, json!(labeller));
    let file = |index| {
        let path = folder.join(format!("{}-of-{of}", index + 1));
        let (shard, spec) = (Shard { index, of }, model.describe().clone());
        let never = Interrupt::default();
        let ask = |part: &crate::data::Subset| {
            let answers = recipe::answers(labeller, model, part, &never);
            Ok::<_, ShardError>(answers.unwrap())
        };
        keep(&path, &inputs, shard, (pairs, &spec), ask).unwrap();
        path
    };
    (0..of).map(file).collect()
}

#[test]
fn numbers_of_shards_that_cannot_be_are_refused() {
    for text in [
        "0/2",
        "3/2",
        "1/65537",
        "1/18446744073709551615",
        "1",
        "a/b",
    ] {
        assert!(text.parse::<Shard>().is_err(), "{text}");
    }
    let folder = tempfile::tempdir().unwrap();
    let pairs = pairs(4);
    let path = folder.path().join("large");
    for of in [MOST_SHARDS + 1, usize::MAX] {
        let header = json!({
            "format": FORMAT,
            "inputs": inputs(&pairs, json!(1)),
            "shard": Shard { index: 0, of },
        });
        std::fs::write(&path, serde_json::to_vec(&header).unwrap()).unwrap();
        let model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
        let files = std::slice::from_ref(&path);
        let merged = merge(files, &inputs(&pairs, json!(1)), &pairs, model.describe());
        assert!(matches!(merged, Err(ShardError::Damaged { .. })));
    }
}

#[test]
fn shards_count_from_one_and_cover_every_sample_once_in_whole_batches() {
    assert_eq!("1/1".parse(), Ok(Shard::WHOLE));
    assert_eq!("3/4".parse(), Ok(Shard { index: 2, of: 4 }));
    assert_eq!(Shard { index: 2, of: 4 }.to_string(), "3/4");
    for wrong in ["0/4", "5/4", "1", "a/b", "1/0", "0/0"] {
        assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
    }
    let spec = named("compact").unwrap().describe();
    for count in [0, 1, 16, 17, 50] {
        let pairs = pairs(count);
        for of in [1, 2, 3, 7] {
            let shards = (0..of).map(|index| Shard { index, of }.samples(&pairs, &spec));
            let shards: Vec<Vec<usize>> = shards.collect();
            let begins = shards.iter().filter_map(|samples| samples.first());
            assert!(
                begins
                    .into_iter()
                    .all(|first| first % batch_size(&spec) == 0)
            );
            assert_eq!(shards.concat(), (0..count).collect::<Vec<_>>());
        }
    }
}

#[test]
fn merged_shards_label_and_adapt_to_the_bits_of_one_run() {
    let pairs = pairs(40);
    let folder = tempfile::tempdir().unwrap();
    let mut teacher = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
    let spec = teacher.describe().clone();
    let mut consensus = defaults::consensus(&spec);
    consensus.fit.steps = Some(1);
    consensus.gate.enforce = false;
    consensus.filter = recipe::Filter::KeepAll;
    let mut heatmaps = recipe::Recipe {
        labeller: Labeller::TeacherHeatmap(recipe::TeacherMode {
            prior: recipe::CoarsePrior::Ignored,
            heading: recipe::HeadingLabels::Given,
            ..recipe::TeacherMode::default()
        }),
        ..consensus.clone()
    };
    heatmaps.fit.augmentation.symmetries = false;
    heatmaps.fit.augmentation.crop_jitter_m = 0.0;
    for recipe in [consensus, heatmaps] {
        let labeller = &recipe.labeller;
        let mut files = write_shards(folder.path(), 3, (labeller, &pairs), &mut teacher);
        files.rotate_left(1);
        let expected = inputs(&pairs, json!(labeller));
        let answers = merge(&files, &expected, &pairs, &spec).unwrap();
        let never = Interrupt::default();
        let run = RunContext {
            seed: 1,
            folder: None,
            resume: false,
            interrupt: &never,
            world: World::alone(),
        };
        let adapted = |shared: &mut Shared| {
            let adapted = recipe::adapt_sharing(&teacher, &pairs, None, &recipe, &run, shared);
            let adapted = adapted.unwrap();
            let arrays = crate::model::weights::arrays_of(adapted.student.as_ref());
            (adapted.labels, adapted.evidence, arrays)
        };
        let merged = adapted(&mut Shared::answered(answers));
        assert!(merged == adapted(&mut Shared::default()));
    }
}

#[test]
fn merged_shards_measure_the_same() {
    let pairs = pairs(20);
    let mut model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
    let spec = model.describe().clone();
    let never = Interrupt::default();
    let whole = crate::predict::predict(&mut model, &pairs, true, &never).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let labeller = Labeller::TeacherHeatmap(recipe::TeacherMode {
        prior: recipe::CoarsePrior::Ignored,
        heading: recipe::HeadingLabels::Given,
        ..recipe::TeacherMode::default()
    });
    let files = write_shards(folder.path(), 2, (&labeller, &pairs), &mut model);
    let expected = inputs(&pairs, json!(labeller));
    let answers = merge(&files, &expected, &pairs, &spec).unwrap();
    let merged = answers.into_iter().map(|answer| answer.prediction);
    let merged: Vec<PairPrediction> = merged.collect();
    assert!(merged == whole);
    let rows = pairs.iter().map(|pair| {
        let place = pair.sample.centre;
        let row = json!({
            "id": pair.sample.id,
            "latitude_deg": place.latitude_deg,
            "longitude_deg": place.longitude_deg,
            "heading_deg": 90.0,
        });
        row.to_string() + "\n"
    });
    std::fs::write(folder.path().join("truth.jsonl"), rows.collect::<String>()).unwrap();
    let truth = crate::data::pairs::truth::Truth::open(folder.path()).unwrap();
    let [merged, whole] = [merged, whole].map(|found| temperature(&pairs, &found, &truth, &spec));
    assert!(merged.is_some() && merged == whole);
}

#[test]
fn files_that_are_missing_twice_there_of_another_run_or_damaged_are_named() {
    let pairs = pairs(40);
    let folder = tempfile::tempdir().unwrap();
    let mut model = Ccvpe::new(preset("compact").unwrap(), 4).unwrap();
    let spec = model.describe().clone();
    let labeller = defaults::consensus(&spec).labeller;
    let files = write_shards(folder.path(), 3, (&labeller, &pairs), &mut model);
    let halves = write_shards(folder.path(), 2, (&labeller, &pairs), &mut model);
    let expected = inputs(&pairs, json!(labeller));
    let refused = |files: &[&PathBuf], expected: &Inputs| {
        let files: Vec<PathBuf> = files.iter().map(|path| (*path).clone()).collect();
        merge(&files, expected, &pairs, &spec).unwrap_err()
    };
    let [a, b, c] = [&files[0], &files[1], &files[2]];
    let missing = refused(&[c, a], &expected).to_string();
    assert!(missing.contains("no file has shard 2/3"), "{missing}");
    let twice = refused(&[a, b, a], &expected);
    assert!(matches!(twice, ShardError::Twice { .. }), "{twice}");
    let other_count = refused(&[a, &halves[1]], &expected).to_string();
    assert!(
        other_count.contains("2-of-2 is of another run"),
        "{other_count}"
    );
    let others = [
        (
            "version",
            Inputs {
                version: "0".into(),
                ..expected.clone()
            },
        ),
        (
            "model_sha256",
            Inputs {
                model_sha256: "cd".into(),
                ..expected.clone()
            },
        ),
        (
            "samples_sha256",
            inputs(&pairs[..39].to_vec(), json!(labeller)),
        ),
        ("settings", inputs(&pairs, json!("paper"))),
    ];
    for (name, other) in others {
        let foreign = refused(&[a, b, c], &other).to_string();
        assert!(foreign.contains("1-of-3 is of another run"), "{foreign}");
        assert!(foreign.contains(name), "{foreign}");
    }
    let elsewhere = Inputs {
        device: "a card".into(),
        ..expected.clone()
    };
    assert!(merge(&files, &elsewhere, &pairs, &spec).is_ok());
    let text = std::fs::read_to_string(b).unwrap();
    let here = format!("\"device\":\"{}\"", cpu_kind());
    let on_card = text.replace(&here, "\"device\":\"a card\"");
    std::fs::write(b, on_card).unwrap();
    let mixed = refused(&[a, b, c], &expected).to_string();
    assert!(
        mixed.contains("2-of-3 is of another run: its device"),
        "{mixed}"
    );
    let lines: Vec<&str> = text.lines().collect();
    let with = |change: &dyn Fn(&mut Vec<&str>)| {
        let mut lines = lines.clone();
        change(&mut lines);
        lines.join("\n") + "\n"
    };
    let last = lines.len() - 1;
    let other = text.replacen("\"peak\":0.", "\"peak\":1.", 1);
    let old = text.replacen("{\"format\":2,", "{", 1);
    assert!(other != text && old != text);
    for (damaged, what) in [
        (String::new(), "holds no answers"),
        ("{}\n".into(), "holds no answers"),
        (old, "its format is null, not 2"),
        (text[..text.len() - 4].into(), "line "),
        (with(&|lines| lines.truncate(5)), "it ends after 4 of"),
        (
            with(&|lines| _ = lines.remove(3)),
            "missing, doubled or moved",
        ),
        (
            with(&|lines| lines.insert(3, lines[3])),
            "missing, doubled or moved",
        ),
        (with(&|lines| lines.swap(2, 3)), "missing, doubled or moved"),
        (
            with(&|lines| _ = lines.remove(last - 1)),
            "and shard 2/3 has",
        ),
        (with(&|lines| lines.push("{}")), "follows its last line"),
        (other, "its checksum is"),
    ] {
        std::fs::write(b, damaged).unwrap();
        let message = refused(&[a, b, c], &expected).to_string();
        assert!(
            message.contains("2-of-3") && message.contains(what),
            "{what}: {message}"
        );
    }
    assert_eq!(
        std::fs::read_dir(folder.path()).unwrap().count(),
        5,
        "no part is left"
    );
    std::fs::remove_file(b).unwrap();
    let absent = refused(&[a, b, c], &expected);
    assert!(matches!(absent, ShardError::File { .. }), "{absent}");
}
