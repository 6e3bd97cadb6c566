# The front door; CI calls the same scripts.

target := env_var_or_default("CARGO_TARGET_DIR", "target")

# List the recipes
default:
    @just --list

# Build for development
build:
    cargo build --workspace --locked

# Format, lints, unit tests
check:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets --locked -- -D warnings
    cargo test --workspace --locked --lib

# Everything that must hold, with what it needs installed
test:
    bash .ci/test

# Every family with its own package manager, as a table
test-families:
    bash .ci/families

# Bootstrap a Debian base and convert it
demo:
    bash .ci/demo

# The same work with rootless buildah, side by side, as a table of ratios
bench *ARGS:
    cargo build --release --locked
    bash tests/bench/run {{ARGS}}

# A live medium beside mksquashfs alone, as a table of ratios: `just bench-artifacts --image oci:out:v1.0.0`
bench-artifacts *ARGS:
    cargo build --release --locked
    bash tests/bench/artifacts {{ARGS}}

# Rewrite the golden files; review the difference like code
golden:
    KFACTORY_UPDATE_GOLDEN=1 cargo test --workspace --locked golden

# One static binary: musl, with an allocator that two threads do not fight over; the C parts need musl-gcc (Debian: musl-tools)
dist arch="x86_64":
    rustup target add {{arch}}-unknown-linux-musl
    @command -v musl-gcc >/dev/null || { echo "error: musl-gcc is missing: apt-get install musl-tools" >&2; exit 1; }
    cargo build --release --locked --target {{arch}}-unknown-linux-musl
    @ls -l {{target}}/{{arch}}-unknown-linux-musl/release/kfactory

# Feed a fuzz target (yip, artifact) whatever breaks it, say `just fuzz yip -max_total_time=900`; needs cargo-fuzz and a nightly compiler
fuzz target="yip" *ARGS:
    bash fuzz/run {{target}} {{ARGS}}

# Licences and advisories of every dependency
deny:
    cargo deny check
