//! Libraries of others panic where an error would do: tract on some malformed models, the library of cameras on
//! answers of drivers that it does not know. Here that becomes an error.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CAUGHT: Cell<bool> = const { Cell::new(false) };
}

/// Whether a panic on this thread is about to become an error. A panic hook that ends the process
/// lets such a panic pass.
pub fn panic_is_caught() -> bool {
    CAUGHT.get()
}

/// Runs `work` of the library named, turning a panic into its message.
pub(crate) fn quietly<T>(library: &str, work: impl FnOnce() -> T) -> Result<T, String> {
    CAUGHT.set(true);
    let done = catch_unwind(AssertUnwindSafe(work));
    CAUGHT.set(false);
    done.map_err(|payload| {
        let words = payload
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| payload.downcast_ref::<&str>().map(|s| (*s).to_owned()));
        format!("{library} panicked: {}", words.unwrap_or_default())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_becomes_its_words_and_only_that_one_is_caught() {
        let words = quietly("tract", || -> () {
            assert!(panic_is_caught());
            panic!("no such axis");
        });
        assert_eq!(words, Err("tract panicked: no such axis".to_owned()));
        assert!(!panic_is_caught());
        assert_eq!(quietly("tract", || 5), Ok(5));
    }
}
