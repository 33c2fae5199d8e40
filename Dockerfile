# The images of all roles: `salamander ROLE --flag…`.
#
#   docker build --target runtime -t salamander:0.1.0 .                               # CPU
#   docker build --target runtime-cuda --build-arg CUDA=13-0 -t salamander:0.1.0-cuda .
#
# Programs that are built already can be taken instead of compiling: tools/image_programs.sh BUILD DIR, and
# `--build-context programs=DIR`; the stage `build` is then left out. `make image` does that with buildah.
ARG BASE=docker.io/library/debian:12-slim

# Compiles everything on Debian 12, with the packages that the Makefile lists.
FROM ${BASE} AS build
RUN apt-get update && apt-get install -y --no-install-recommends make ca-certificates && rm -rf /var/lib/apt/lists/*
COPY Makefile /src/
RUN make -C /src deps && rm -rf /var/lib/apt/lists/*
# A release of the CUDA toolkit as NVIDIA's packages spell it ("13-0"); none: no CUDA backend.
ARG CUDA=""
RUN if [ -n "$CUDA" ]; then \
      apt-get update && apt-get install -y --no-install-recommends curl && \
      curl -fsSLo /tmp/keyring.deb https://developer.download.nvidia.com/compute/cuda/repos/debian12/x86_64/cuda-keyring_1.1-1_all.deb && \
      dpkg -i /tmp/keyring.deb && apt-get update && \
      apt-get install -y --no-install-recommends cuda-nvcc-$CUDA cuda-cudart-dev-$CUDA cuda-cccl-$CUDA libcublas-dev-$CUDA && \
      rm -rf /tmp/keyring.deb /var/lib/apt/lists/*; \
    fi
# Ampere and later, and Hopper's own code.
ARG CUDA_ARCHITECTURES="80;90a-real"
ARG JOBS=""
COPY . /src
RUN PATH="$PATH:/usr/local/cuda/bin" make -C /src build ${JOBS:+JOBS=$JOBS} \
      CMAKE_FLAGS="-DSALAMANDER_TESTS=OFF '-DCMAKE_CUDA_ARCHITECTURES=$CUDA_ARCHITECTURES'" && \
    /src/tools/image_programs.sh /src/build /out

FROM scratch AS programs
COPY --from=build /out/ /

# Each library by its package, so that an inventory of the image (dpkg's status file) is complete.
FROM ${BASE} AS runtime
RUN apt-get update && \
    apt-get install -y --no-install-recommends \
      ibverbs-providers \
      libabsl20220623 \
      libfmt9 \
      libgcc-s1 \
      libgomp1 \
      libgrpc++1.51 \
      libgrpc29 \
      libprometheus-cpp-core1.0 \
      libprometheus-cpp-pull1.0 \
      libprotobuf32 \
      libsentencepiece0 \
      libspdlog1.10 \
      libssl3 \
      libstdc++6 \
      libucx0 \
      libxxhash0 && \
    apt-get clean && rm -rf /var/lib/apt/lists/* /var/cache/debconf/*-old /var/log/apt /var/log/dpkg.log && \
    mkdir /model
COPY --from=programs /cpu/ /opt/salamander/bin/
ENV PATH=/opt/salamander/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# No name is needed for it, and nothing is written: a read-only root file system will do.
USER 65532:65532
WORKDIR /
# The router's and the workers' gRPC, and everyone's metrics.
EXPOSE 7000 7001 7002 9090 9091
ENTRYPOINT ["/opt/salamander/bin/salamander"]
CMD ["help"]
LABEL org.opencontainers.image.title="Salamander" \
      org.opencontainers.image.description="Serving cluster for MiniCPM-SALA models" \
      org.opencontainers.image.licenses="Apache-2.0"

# The CUDA backend beside the programs, and the one library of CUDA that it loads. The driver is the host's.
FROM runtime AS runtime-cuda
COPY --from=programs /cuda/ /opt/salamander/bin/
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
