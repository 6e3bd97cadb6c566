//! Byte code of old Pythons that is the same in every run.
//!
//! Before 3.11 Python writes a set of constants in the order of its hashes, which are random unless `PYTHONHASHSEED` says otherwise.
//! Packages of modules are compiled with the environment that commands get; but Python's own packages compile its library with `-E`,
//! which leaves every variable of Python out, and call it by its absolute path. So what they compiled is compiled again behind them.

/// Compiles again what was compiled since this file was written, by the Pythons that it may matter for.
///
/// The order counts too: whether a name is written once more or referred to depends on what the process has compiled before.
pub(super) const COMPILE_AGAIN: &str = r#"for minor in 8 9 10; do
    python=/usr/bin/python3.$minor
    if [ ! -x "$python" ]; then continue; fi
    find "/usr/lib/python3.$minor" -name "*.cpython-3$minor.pyc" -newer "$0" | LC_ALL=C sort |
        sed "s,__pycache__/\([^/]*\)\.cpython-3$minor\.pyc\$,\1.py," |
        env -i PYTHONHASHSEED=0 SOURCE_DATE_EPOCH="$SOURCE_DATE_EPOCH" "$python" -S -m py_compile - || exit
done
"#;
