# torch-2.14.1-cuda13.0-py3.11-horovod: rendered by imgbuild from pytorch.Dockerfile.j2; edit that, not this.
ARG BASE=debian:bookworm-slim

# System libraries and the distribution's Python: the same layer for every cell on this base.
# Exception for hadolint, here and below: the base comes as an argument, which pins it (DL3006).
# hadolint ignore=DL3006
FROM ${BASE} AS system
ENV LANG=C.UTF-8 \
    TZ=Etc/UTC
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=bind,source=locked/debian-42c60d52efdd54ad.pref,target=/run/debian.pref \
    --mount=type=bind,source=files/apt-locked,target=/run/apt-locked \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && sh /run/apt-locked /run/debian.pref \
        ca-certificates \
        python3 \
        tini \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log \
    && useradd --no-log-init --uid 1000 --user-group --home-dir /home/user --shell /bin/bash user \
    && install -d -m 1777 /home/user /home/user/.cache /home/user/.config /home/user/.local /workspace \
    && rm -f /etc/*- \
    && python3 -c 'import sys; assert "%d.%d" % sys.version_info[:2] == "3.11", sys.version'

# pip and eu-strip live here and are mounted where they are needed.
FROM system AS tools
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=bind,source=locked/debian-93e595f778d16c9c.pref,target=/run/debian.pref \
    --mount=type=bind,source=files/apt-locked,target=/run/apt-locked \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && sh /run/apt-locked /run/debian.pref \
        elfutils \
        python3-venv \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=bind,source=locked/python-d9804e34f3332142.txt,target=/run/pip/list.txt \
    --mount=type=bind,source=wheels/python-d9804e34f3332142,target=/run/pip/wheels \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && python3 -m venv /opt/tools \
    && mkdir /opt/tools/strip \
    && cp -L /usr/bin/eu-strip /usr/lib/*/libelf.so.1 /usr/lib/*/libdw.so.1 /opt/tools/strip \
    && PIP_ROOT_USER_ACTION=ignore /opt/tools/bin/python -m pip install \
        --disable-pip-version-check --progress-bar off --no-cache-dir --no-deps --require-hashes \
        --find-links /run/pip/wheels --requirement /run/pip/list.txt

# CUDA's libraries, from wheels: the largest layer, and the one that a new release of the framework changes least.
FROM system AS cuda
ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-6d0d06df1389382a.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-6d0d06df1389382a,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && python3 -m venv --without-pip --system-site-packages /opt/venv \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} +

# The framework. Bytecode is kept for what an import and a first optimizer (which imports torch._dynamo) need, not for
# everything.
FROM cuda AS framework
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-58468e72b374f5b2.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-58468e72b374f5b2,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} + \
    && python -c 'import torch; assert torch.version.cuda == "13.0", torch.version.cuda' \
    && python -c 'import torch, torch.distributed, torch.utils.data; torch.optim.AdamW([torch.zeros(1)])'

# Horovod publishes no wheels: it is compiled against this framework, in a stage that does not reach the image.
# What the patch changes, and why, is said at its beginning.
# CUDA's compiler comes from wheels too. CMake looks for the libraries under the names that the toolkit's installer gives
# them. The code is for the GPUs that the framework itself has code for.
FROM framework AS horovod-build
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=bind,source=locked/debian-bc7f6b1b5ef5e09b.pref,target=/run/debian.pref \
    --mount=type=bind,source=files/apt-locked,target=/run/apt-locked \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && sh /run/apt-locked /run/debian.pref \
        cmake \
        g++ \
        make \
        patch \
        python3-dev \
    && rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/cache/apt/archives/*.deb \
        /var/cache/ldconfig/aux-cache /var/cache/debconf/*-old /var/lib/dpkg/*-old \
        /var/log/apt /var/log/dpkg.log /var/log/alternatives.log
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-266811221a4bfa89.txt,target=/run/requirements/list.txt \
    --mount=type=bind,source=wheels/python-266811221a4bfa89,target=/run/requirements/wheels \
    --mount=type=bind,source=locked/python-1aa0d73624e97229.txt,target=/run/horovod/list.txt \
    --mount=type=bind,source=wheels/python-1aa0d73624e97229,target=/run/horovod/wheels \
    --mount=type=bind,source=files/horovod-torch.patch,target=/run/horovod.patch \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/requirements/wheels --requirement /run/requirements/list.txt \
    && ln -s lib /opt/venv/lib/python3.11/site-packages/nvidia/cu13/lib64 \
    && ln -s libcudart.so.13 /opt/venv/lib/python3.11/site-packages/nvidia/cu13/lib/libcudart.so \
    && ln -s libnccl.so.2 /opt/venv/lib/python3.11/site-packages/nvidia/nccl/lib/libnccl.so \
    && HOROVOD_BUILD_CUDA_CC_LIST=$(python -c 'import re, torch; \
        print(",".join(re.findall(r"sm_(\d+)", torch._C._cuda_getArchFlags())))') \
    && test -n "$HOROVOD_BUILD_CUDA_CC_LIST" && export HOROVOD_BUILD_CUDA_CC_LIST \
        CUDA_HOME=/opt/venv/lib/python3.11/site-packages/nvidia/cu13 \
        HOROVOD_CUDA_HOME=/opt/venv/lib/python3.11/site-packages/nvidia/cu13 \
        HOROVOD_NCCL_HOME=/opt/venv/lib/python3.11/site-packages/nvidia/nccl \
        HOROVOD_NCCL_LINK=SHARED HOROVOD_GPU_OPERATIONS=NCCL \
    && MAKEFLAGS=-j$(nproc) && export MAKEFLAGS CC=gcc CXX=g++ \
        HOROVOD_WITH_PYTORCH=1 HOROVOD_WITHOUT_TENSORFLOW=1 HOROVOD_WITHOUT_MXNET=1 \
        HOROVOD_WITH_GLOO=1 HOROVOD_WITHOUT_MPI=1 \
    && pip --python /opt/venv/bin/python download --dest /tmp --no-build-isolation --no-cache-dir --no-deps --require-hashes \
        --find-links /run/horovod/wheels --requirement /run/horovod/list.txt \
    && mkdir /tmp/horovod && tar -xzf /tmp/horovod-*.tar.gz -C /tmp/horovod --strip-components=1 \
    && patch --directory /tmp/horovod --strip 1 --fuzz 0 --input /run/horovod.patch \
    && pip --python /opt/venv/bin/python wheel --wheel-dir /opt/horovod --no-build-isolation --no-cache-dir --no-deps \
        /tmp/horovod

FROM framework AS horovod
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-8d5877d7f17498c7.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-8d5877d7f17498c7,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    --mount=type=bind,from=horovod-build,source=/opt/horovod,target=/run/horovod \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && pip --python /opt/venv/bin/python install --no-cache-dir --no-compile --no-deps --no-index \
        /run/horovod/*.whl \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && python -c 'import horovod.torch'

FROM horovod AS extras
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-7f819735504e86fa.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-7f819735504e86fa,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    --mount=type=bind,source=files/warm-up,target=/run/warm-up \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && python /run/warm-up torchvision tensorboard dask distributed

FROM extras AS image
COPY --chmod=0755 files/entrypoint /opt/imgbuild/entrypoint
COPY --chmod=0644 locked/pins-be503efab81da98c.txt /opt/imgbuild/constraints.txt
COPY --chmod=0755 files/imgcheck.pyz /usr/local/bin/imgcheck
COPY --chmod=0755 files/imginfo /usr/local/bin/imginfo
ENV HOME=/home/user \
    LNAME=user \
    PATH=${PATH}:/home/user/.local/bin \
    PIP_CONSTRAINT=/opt/imgbuild/constraints.txt \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    UV_CONSTRAINT=/opt/imgbuild/constraints.txt \
    NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility \
    PYTORCH_VERSION=2.14.1
LABEL org.opencontainers.image.title="pytorch"
WORKDIR /workspace
USER 1000:1000
EXPOSE 6006
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/imgbuild/entrypoint"]
CMD ["/bin/bash"]
