# torch-2.13.0-cpu-py3.11-horovod: rendered by imgbuild from pytorch.Dockerfile.j2; edit that, not this.
ARG BASE=debian:bookworm-slim

# System libraries and the distribution's Python: the same layer for every cell on this base.
# hadolint ignore=DL3006
FROM ${BASE} AS system
ENV LANG=C.UTF-8 \
    TZ=Etc/UTC
# Exceptions for hadolint, here and below: the base comes as an argument, which pins it (DL3006); the distribution's
# packages get their versions from its release (DL3008); pip's from the constraints (DL3013), and the pip() of each
# step passes --no-cache-dir (DL3042).
# hadolint ignore=DL3008
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
        ca-certificates \
        python3 \
        tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    && useradd --no-log-init --uid 1000 --user-group --home-dir /home/user --shell /bin/bash user \
    && install -d -m 1777 /home/user /workspace \
    && rm -f /etc/*- \
    && python3 -c 'import sys; assert "%d.%d" % sys.version_info[:2] == "3.11", sys.version'

# pip lives here and is mounted where it is needed.
FROM system AS tools
# hadolint ignore=DL3008
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
        python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=bind,source=constraints/torch-2.13.0-py3.11.txt,target=/run/constraints.txt \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && python3 -m venv /opt/tools \
    && /opt/tools/bin/python -m pip install --no-cache-dir --disable-pip-version-check --progress-bar off \
        --root-user-action ignore --constraint /run/constraints.txt pip

# The framework. Bytecode is kept for what an import needs, not for everything.
FROM system AS framework
ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
# hadolint ignore=DL3013,DL3042
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=constraints/torch-2.13.0-py3.11.txt,target=/run/constraints.txt \
    --mount=type=bind,source=wheels/torch-2.13.0-py3.11,target=/run/wheels \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && channel="${IMGBUILD_CHANNEL_PYTORCH_CPU-https://download.pytorch.org/whl/cpu}" \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --no-cache-dir --disable-pip-version-check --progress-bar off \
        --constraint /run/constraints.txt --find-links /run/wheels \
        ${channel:+--extra-index-url "$channel"}; } \
    && python3 -m venv --without-pip /opt/venv \
    && pip --python /opt/venv/bin/python install --no-compile pip setuptools numpy torch \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} + \
    && python -c 'import torch, torch.nn, torch.optim, torch.utils.data, torch.distributed'

# Horovod publishes no wheels: it is compiled against this framework, in a stage that does not reach the image.
FROM framework AS horovod-build
# hadolint ignore=DL3008
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && apt-get -qq update \
    && DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends \
        cmake \
        g++ \
        make \
        python3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
COPY --chmod=0755 files/c++17 /usr/local/bin/c++17
# hadolint ignore=DL3013,DL3042
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=constraints/torch-2.13.0-py3.11.txt,target=/run/constraints.txt \
    --mount=type=bind,source=wheels/torch-2.13.0-py3.11,target=/run/wheels \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --no-cache-dir --disable-pip-version-check --progress-bar off \
        --constraint /run/constraints.txt --find-links /run/wheels; } \
    && pip --python /opt/venv/bin/python install --no-compile wheel cffi cloudpickle packaging psutil pyyaml \
    && MAKEFLAGS=-j$(nproc) && export MAKEFLAGS CC=gcc CXX=/usr/local/bin/c++17 \
        HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
        HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    && pip --python /opt/venv/bin/python wheel --no-build-isolation --no-deps --wheel-dir /opt/horovod \
        horovod

FROM framework AS horovod
# hadolint ignore=DL3013,DL3042
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=constraints/torch-2.13.0-py3.11.txt,target=/run/constraints.txt \
    --mount=type=bind,source=wheels/torch-2.13.0-py3.11,target=/run/wheels \
    --mount=type=bind,from=horovod-build,source=/opt/horovod,target=/run/horovod \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --no-cache-dir --disable-pip-version-check --progress-bar off \
        --constraint /run/constraints.txt --find-links /run/wheels; } \
    && pip --python /opt/venv/bin/python install --no-compile /run/horovod/*.whl \
    && python -c 'import horovod.torch'

FROM horovod AS extras
# hadolint ignore=DL3013,DL3042
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=constraints/torch-2.13.0-py3.11.txt,target=/run/constraints.txt \
    --mount=type=bind,source=wheels/torch-2.13.0-py3.11,target=/run/wheels \
    --mount=type=bind,source=files/warm-up,target=/run/warm-up \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --no-cache-dir --disable-pip-version-check --progress-bar off \
        --constraint /run/constraints.txt --find-links /run/wheels; } \
    && pip --python /opt/venv/bin/python install --no-compile \
        tensorboard \
        dask \
        distributed \
    && python /run/warm-up tensorboard dask distributed

FROM extras AS image
COPY --chmod=0755 files/entrypoint /opt/imgbuild/entrypoint
COPY --chmod=0644 constraints/torch-2.13.0-py3.11.txt /opt/imgbuild/constraints.txt
ENV HOME=/home/user \
    PIP_CONSTRAINT=/opt/imgbuild/constraints.txt \
    PYTORCH_VERSION=2.13.0
LABEL org.opencontainers.image.title="pytorch" \
      org.opencontainers.image.version="2.13.0"
WORKDIR /workspace
USER 1000:1000
EXPOSE 6006
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/imgbuild/entrypoint"]
CMD ["/bin/bash"]
