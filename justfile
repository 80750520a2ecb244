# Short names for what is done often. `just` lists them.

set positional-arguments

default:
    @just --list

# Everything that must hold before a change is merged
test:
    scripts/test

# The same without the release build, the demo and the power cut
fast:
    scripts/test --fast

# Format all code
fmt:
    cargo fmt --all

# Lint with warnings denied
clippy:
    cargo clippy --workspace --all-targets --locked -- -D warnings

# Dependencies: advisories, licences, sources, and which crate may lean on which
deny:
    scripts/test --deny

# Build the documentation with warnings denied
docs:
    RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked

# Everything at work with invented secrets; Ctrl-C ends it
demo *args:
    cargo run --release -- demo "$@"

# Cut the power under load: acknowledged must mean stored (--nats: of the bus; --broken, --lazy: see the test fail)
power-cut *args:
    scripts/power-cut "$@"

# Throughput, latency and syncs of `wharf up` (--quick: smaller counts)
bench *args:
    scripts/bench "$@"

# The processes of production on this machine, restarted when sources change (status, down, up --detach)
dev *args:
    scripts/dev "$@"

# Stop what `dev` has started and remove all it has made
dev-down:
    scripts/dev down

# Gateway, normalizer and api on NATS, Redis and PostgreSQL (--quick, --only gateway,redis, --memory)
bench-distributed *args:
    scripts/bench-distributed "$@"

# `wharf up` from the working tree, in development mode with readable logs
up *args:
    WHARF_MODE=development LOG_FORMAT=text LOG_LEVEL=info,wharf=debug,ingress=debug,normalizer=debug \
        cargo run -- up "$@"
