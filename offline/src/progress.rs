//! Progress bars that vanish when nobody watches.

use indicatif::{ProgressBar, ProgressStyle};

/// A bar over `steps`, on standard error; hidden when that is not a terminal.
pub fn bar(what: &'static str, steps: u64) -> ProgressBar {
    let style = "{prefix:>12} {wide_bar} {pos}/{len} {elapsed_precise} left {eta} {msg}";
    let bar = ProgressBar::new(steps).with_prefix(what);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
