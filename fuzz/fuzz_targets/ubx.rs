#![no_main]
libfuzzer_sys::fuzz_target!(|bytes: &[u8]| crossfix_fuzz::bodies::ubx(bytes));
