# The server with the model and the library that it needs, and nothing else: no shell, no package manager, not root.
#
#   docker build --tag doc-server .
#
# Postgres with pgvector is outside: DOC_SERVER_DATABASE_URL, or database_url in the file that DOC_SERVER_CONFIG names. The
# root file system may be read-only. Other models are mounted as a volume that DOC_SERVER_MODEL_DIR names.

# Debian 12 throughout: what is built here runs on the C library of the last stage.
FROM rust:1.95.0-bookworm AS chef
RUN cargo install cargo-chef --version 0.1.78 --locked
WORKDIR /build

FROM chef AS plan
COPY . .
RUN cargo chef prepare --recipe-path recipe.json

# Dependencies are compiled in a layer of their own, which changes with Cargo.lock alone.
FROM chef AS build
COPY --from=plan /build/recipe.json recipe.json
RUN cargo chef cook --release --locked --bin doc-server --recipe-path recipe.json
COPY . .
RUN cargo build --release --locked --bin doc-server

# The same script that `make run` uses, pinned and checked in the same way. int8 is the default precision; f32 keeps the larger
# file too, for model_precision = "f32".
FROM python:3.13-slim-bookworm AS model
ARG MODEL_PRECISION=int8
WORKDIR /build
COPY scripts scripts
ENV DOC_SERVER_DATA_DIR=/opt/doc-server
RUN scripts/setup image && \
    rm -f /opt/doc-server/.setup-lock && \
    if [ "$MODEL_PRECISION" = int8 ]; then rm /opt/doc-server/runtime/models/*/model.onnx; fi

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=model /opt/doc-server /opt/doc-server
COPY --from=build /build/target/release/doc-server /usr/local/bin/doc-server
ENV DOC_SERVER_DATA_DIR=/opt/doc-server \
    DOC_SERVER_BIND=0.0.0.0:8051 \
    DOC_SERVER_ADMIN_BIND=0.0.0.0:9051 \
    DOC_SERVER_LOG_FORMAT=json
# nobody: owns no file of the image.
USER 65534:65534
EXPOSE 8051 9051
# Asks from inside, without curl; kubelet has its own probes.
HEALTHCHECK --interval=10s --timeout=3s --start-period=20s CMD ["/usr/local/bin/doc-server", "healthcheck"]
ENTRYPOINT ["/usr/local/bin/doc-server"]
CMD ["serve"]
