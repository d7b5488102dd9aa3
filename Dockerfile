# syntax=docker/dockerfile:1
#
# Unstale in a container: `docker build -t unstale .`
#
# Not run where this was written (there is no container runtime there): tell if it fails.
#
# The image holds the program, the default configuration and the caches' queries, and runs as
# nobody (65532), with nothing to write. Give it your configuration as /etc/unstale/config/unstale.toml,
# passwords as UNSTALE_POSTGRES__PASSWORD and UNSTALE_REDIS__PASSWORD, or as mounted files
# (UNSTALE_POSTGRES__PASSWORD_FILE, UNSTALE_REDIS__PASSWORD_FILE).
#
# Probes: GET /healthz (alive: restart it if not) and GET /readyz (the cache can be trusted: tell
# somebody if not; never restart for it, and never take it out of a service for it) on port 9187.
# There is no HEALTHCHECK: the image has no shell to run one.

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --locked --release --bin unstale && cp target/release/unstale /unstale

# libc and libgcc, the certificates of public authorities, and nothing else.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /unstale /usr/local/bin/unstale
COPY config/unstale.toml /etc/unstale/config/unstale.toml
COPY sql /etc/unstale/sql
ENV UNSTALE_CONFIG=/etc/unstale/config/unstale.toml
# No login: reachable within the container's network, never to be published.
ENV UNSTALE_ADMIN__LISTEN=0.0.0.0:9187
EXPOSE 9187
USER nonroot
# SIGTERM finishes what is under way, within pipeline.drain_timeout (10 s).
STOPSIGNAL SIGTERM
ENTRYPOINT ["/usr/local/bin/unstale"]
CMD ["run"]
