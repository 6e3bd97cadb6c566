//! The loader of stage extensions and the template engine: any text is read or refused, never more.
#![no_main]

libfuzzer_sys::fuzz_target!(|text: &str| kfactory::yip::exercise(text));
