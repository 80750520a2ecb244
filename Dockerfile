# syntax=docker/dockerfile:1.7
# One image with every program: gateway, normalizer, api and wharf. The version of Rust is that of rust-toolchain.toml.
FROM rust:1.95.0-slim-bookworm AS build
# A C compiler for SQLite, ring and zstd.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends build-essential \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# The toolchain of the image is the right one; the file would make rustup fetch clippy and rustfmt.
ENV RUSTUP_TOOLCHAIN=1.95.0
COPY . .
# Dependencies and what they were compiled to stay in the builder's cache from one build to the next.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked -p wharf -p wharf-gateway -p wharf-normalizer -p wharf-api \
    && mkdir /programs \
    && cp target/release/wharf target/release/gateway target/release/normalizer target/release/api /programs/

FROM debian:12.11-slim
LABEL org.opencontainers.image.title="Wharf" \
      org.opencontainers.image.description="WhatsApp webhooks, verified, durable, ordered" \
      org.opencontainers.image.licenses="MIT OR Apache-2.0"
# Roots for connections with TLS.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/*
# A user of its own, with a fixed number so that volumes keep their owner. A new volume takes the owner of these folders.
RUN useradd --system --uid 10001 --user-group --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin wharf \
    && install -d -o wharf -g wharf -m 0700 /var/lib/wharf /var/lib/wharf/keys /var/lib/wharf/blobs
COPY --from=build /programs/ /usr/local/bin/
COPY deploy/healthy /usr/local/bin/healthy
COPY LICENSE-MIT LICENSE-APACHE /usr/share/doc/wharf/
USER 10001:10001
ENV WHARF_DATA_DIR=/var/lib/wharf \
    WHARF__KEYS__FILE=/var/lib/wharf/keys/master.keys
# Nothing is written outside /var/lib/wharf, so the root file system may be read-only. Programs stop on SIGTERM.
CMD ["wharf", "--help"]
