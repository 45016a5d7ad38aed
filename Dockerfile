# One image for every service of docker-compose.yml. Both the classic builder and BuildKit take it.
#
#   docker build -t evo:local .                      compiles Evo in the builder stage
#   docker build -t evo:local --target prebuilt .    takes target/release/evo, built on this machine
#
# The classic builder runs every stage above its target, so what compiles comes last.
ARG BASE_IMAGE=debian:bookworm-slim
ARG RUST_IMAGE=rust:1.95-bookworm

# What an image holds besides the binary: certificates, Python for the code of skills, a user, the
# agents, the default configuration. A base that has both already is not asked to fetch them.
FROM ${BASE_IMAGE} AS base
RUN { test -s /etc/ssl/certs/ca-certificates.crt && command -v python3; } \
    || { apt-get update \
      && apt-get install -y --no-install-recommends ca-certificates python3 \
      && rm -rf /var/lib/apt/lists/*; }
RUN groupadd --gid 10001 evo \
    && useradd --uid 10001 --gid 10001 --home-dir /data --no-create-home --shell /usr/sbin/nologin evo
# A runner is called after its folder and its role: evo-learning and so on, as in `evo up`.
COPY config/agents/building /app/agents/building/evo
COPY config/agents/evaluation /app/agents/evaluation/evo
COPY config/agents/learning /app/agents/learning/evo
COPY config/agents/pre-load /app/agents/pre-load/evo
COPY config/agents/skill-manage /app/agents/skill-manage/evo
COPY config/agents/user /app/agents/user/evo
COPY config/*.toml /data/config/
# A new named volume takes its content and its owner from the folder that it is mounted on, a tmpfs
# with some versions of runc its mode.
RUN for agent in /app/agents/*/evo; do mkdir -p "$agent/outbox" "$agent/cache"; done \
    && mkdir -p /secrets \
    && chown -R evo:evo /app /data /secrets \
    && chmod -R a+rX /app /data/config \
    && chmod 1777 /app/agents/*/evo/cache \
    && chmod 700 /data /secrets
ENV EVO_HOME=/data PATH=/app:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
WORKDIR /app
USER 10001:10001
EXPOSE 3000 8080
ENTRYPOINT ["evo"]
CMD ["--help"]

# The binary from outside. It must run on this base: Debian 12 has glibc 2.36. A pattern that matches
# nothing is no error, so that the classic builder passes this stage where nothing was built outside.
FROM base AS prebuilt
COPY LICENSE target/release/ev[o] /app/

FROM ${RUST_IMAGE} AS builder
# They build OpenSSL and libSQL from source; rust:…-bookworm has them.
RUN command -v cc && command -v make && command -v perl \
    || { apt-get update \
      && apt-get install -y --no-install-recommends gcc libc6-dev make perl \
      && rm -rf /var/lib/apt/lists/*; }
WORKDIR /build
# The dependencies alone, behind empty crates, so that a change of Evo's code does not compile them
# again.
COPY Cargo.toml Cargo.lock ./
COPY evo-agents/Cargo.toml evo-agents/
COPY evo-common/Cargo.toml evo-common/
COPY evo-evotown-bridge/Cargo.toml evo-evotown-bridge/
COPY evo-gateway/Cargo.toml evo-gateway/
COPY evo-king/Cargo.toml evo-king/
COPY tests/harness/Cargo.toml tests/harness/
COPY tests/load/Cargo.toml tests/load/
RUN for crate in . evo-* tests/*; do \
      mkdir -p "$crate/src" && touch "$crate/src/lib.rs" && echo 'fn main() {}' > "$crate/src/main.rs"; \
    done \
    && cargo build --release --locked --package evo --bin evo \
    && rm -rf src evo-*/src
COPY config config
COPY evo-agents evo-agents
COPY evo-common evo-common
COPY evo-evotown-bridge evo-evotown-bridge
COPY evo-gateway evo-gateway
COPY evo-king evo-king
COPY src src
# Copied files keep their times, which are older than the empty crates'.
RUN find src evo-* -name '*.rs' -exec touch {} + \
    && cargo build --release --locked --package evo --bin evo

FROM base AS final
COPY LICENSE /app/
COPY --from=builder /build/target/release/evo /app/
