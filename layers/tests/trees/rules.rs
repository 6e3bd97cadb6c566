//! The rules of applying that random trees do not single out.
