use super::*;
use proptest::prelude::*;
use std::fs;

const ROW: &str = r#"{"id":"a","drive":"d","time_ns":1,"image":"images/a.jpg","latitude_deg":52.0,"longitude_deg":4.3,"covariance_m2":[[9.0,0.0],[0.0,9.0]],"heading_deg":90.0,"heading_sigma_deg":2.0,"odometry":null}"#;

fn rows(text: &str) -> Result<Vec<PairRow>, DatasetError> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pairs.jsonl");
    fs::write(&path, text).unwrap();
    let rows = read_lines(&path, check_row, |row: &PairRow| &row.id)?;
    check_drives(&path, &rows)?;
    Ok(rows)
}

fn complaint(text: &str) -> String {
    rows(text).unwrap_err().to_string()
}

#[test]
fn a_whole_row_is_read() {
    let rows = rows(ROW).unwrap();
    assert_eq!((rows[0].id.as_str(), rows[0].heading_deg), ("a", 90.0));
}

#[test]
fn complaints_name_the_line_and_the_fix() {
    let second = |change: (&str, &str)| {
        format!(
            "{ROW}\n{}\n",
            ROW.replace("\"a\"", "\"b\"")
                .replace("\"time_ns\":1", "\"time_ns\":2")
                .replace(change.0, change.1)
        )
    };
    for (change, words) in [
        (("52.0", "95.0"), vec!["line 2"]),
        (
            ("90.0", "4000.0"),
            vec!["line 2", "heading_deg", "clockwise from true north"],
        ),
        (
            ("\"heading_sigma_deg\":2.0", "\"heading_sigma_deg\":0"),
            vec!["line 2", "above 0"],
        ),
        (
            ("[[9.0,0.0],[0.0,9.0]]", "[[9.0,9.1],[9.1,9.0]]"),
            vec!["line 2", "positive definite"],
        ),
        (
            ("images/a.jpg", "../a.jpg"),
            vec!["line 2", "below the dataset's folder"],
        ),
        (
            ("images/a.jpg", "/etc/passwd"),
            vec!["line 2", "below the dataset's folder"],
        ),
        (("\"b\"", "\"a\""), vec!["line 2", "also on line 1"]),
        (
            ("\"time_ns\":2", "\"time_ns\":1"),
            vec!["line 2", "sort each drive by time"],
        ),
        (("\"heading_deg\":90.0,", ""), vec!["line 2", "heading_deg"]),
    ] {
        let message = complaint(&second(change));
        for word in words {
            assert!(message.contains(word), "{word:?} not in {message:?}");
        }
    }
}

#[test]
fn odometry_counts_from_the_row_that_was_kept_before() {
    let row = |time: u32, drive: &str, odometry: &str| {
        ROW.replace("\"a\"", &format!("\"{drive}{time}\""))
            .replace("\"d\"", &format!("\"{drive}\""))
            .replace("\"time_ns\":1", &format!("\"time_ns\":{time}"))
            .replace("\"odometry\":null", &format!("\"odometry\":{odometry}"))
    };
    let step = |metres: f64| format!(r#"{{"forward_m":{metres},"left_m":0.0,"yaw_rad":0.0}}"#);
    // Two drives, row by row; of the first every other row is kept, of the second the last.
    let text = [
        row(1, "d", "null"),
        row(1, "e", "null"),
        row(2, "d", &step(1.0)),
        row(2, "e", &step(5.0)),
        row(3, "d", &step(2.0)),
        row(4, "d", "null"),
        row(5, "d", &step(4.0)),
    ];
    let mut pairs = Pairs {
        folder: PathBuf::new(),
        manifest: manifest(),
        rows: rows(&text.join("\n")).unwrap(),
    };
    pairs.retain(|row| ["d1", "d3", "d5", "e2"].contains(&row.id.as_str()));
    let steps = pairs.rows.iter().map(|row| row.odometry);
    let metres: Vec<Option<f64>> = steps.map(|step| Some(step?.forward_m)).collect();
    assert_eq!(metres, [None, None, Some(3.0), None]);
}

fn manifest() -> DatasetManifest {
    let text = format!(
        "format = \"crossfix-pairs\"\nversion = 1\narea = \"x\"\nlicence = \"CC0-1.0\"\nprovenance = \"x\"\n\
         heading_convention = \"{HEADING_CONVENTION}\"\ntiles = \"tiles.pmtiles\"\n\
         [camera]\nkind = \"equirectangular\"\nwidth = 640\nheight = 320\n"
    );
    toml::from_str(&text).unwrap()
}

#[test]
fn a_file_cut_short_is_not_silently_shorter() {
    let text = format!("{ROW}\n{}", &ROW[..40]);
    assert!(complaint(&text).contains("cut short"));
}

#[test]
fn an_endless_line_is_refused() {
    assert!(complaint(&"x".repeat(1 << 20)).contains("longer than"));
}

#[test]
fn the_manifest_must_state_licence_and_heading_convention() {
    let manifest = |licence: &str, convention: &str| {
        let folder = tempfile::tempdir().unwrap();
        let text = format!(
            "format = \"crossfix-pairs\"\nversion = 1\narea = \"x\"\n{licence}provenance = \"x\"\nheading_convention = \"{convention}\"\ntiles = \"tiles.pmtiles\"\n"
        );
        fs::write(folder.path().join("dataset.toml"), text).unwrap();
        Pairs::open(folder.path()).unwrap_err().to_string()
    };
    assert!(manifest("", HEADING_CONVENTION).contains("licence"));
    assert!(manifest("licence = \"CC0-1.0\"\n", HEADING_CONVENTION).contains("camera"));
}

proptest! {
    #[test]
    fn hostile_rows_are_refused_without_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        fs::write(&path, &bytes).unwrap();
        let _ = read_lines(&path, check_row, |row: &PairRow| &row.id);
    }

    #[test]
    fn damaged_rows_are_refused_without_panic(at in 0usize..200, byte: u8, cut in 0usize..200) {
        let mut bytes = ROW.as_bytes().to_vec();
        bytes[at % ROW.len()] = byte;
        bytes.truncate(ROW.len() - cut % ROW.len());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pairs.jsonl");
        fs::write(&path, &bytes).unwrap();
        let _ = read_lines(&path, check_row, |row: &PairRow| &row.id);
    }
}
