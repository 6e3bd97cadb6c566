//! The readers of `kfactory artifact verify`: whatever the bytes are, there is an answer, soon and in bounded memory.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| kfactory::artifact::verify::exercise(bytes));
