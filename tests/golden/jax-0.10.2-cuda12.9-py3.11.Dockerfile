# jax-0.10.2-cuda12.9-py3.11: rendered by imgbuild from jax.Dockerfile.j2; edit that, not this.
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

# The framework. Bytecode is kept for what an import and a first compiled function need, not for everything.
FROM system AS framework
ENV VIRTUAL_ENV=/opt/venv \
    PATH=/opt/venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-b9674ed752213bb3.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-b9674ed752213bb3,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && python3 -m venv --without-pip --system-site-packages /opt/venv \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && find /opt/venv -name __pycache__ -prune -exec rm -rf {} + \
    && JAX_PLATFORMS=cpu python -c 'import jax; jax.jit(jax.grad(lambda x: x * x))(1.0)'

FROM framework AS extras
RUN --mount=type=tmpfs,target=/run \
    --mount=type=secret,id=site.env \
    --mount=type=secret,id=ca.crt \
    --mount=type=secret,id=apt.conf \
    --mount=type=secret,id=apt.sources \
    --mount=type=tmpfs,target=/tmp \
    --mount=type=bind,from=tools,source=/opt/tools,target=/run/tools \
    --mount=type=bind,source=locked/python-d558bcc19c54781f.txt,target=/run/packages/list.txt \
    --mount=type=bind,source=wheels/python-d558bcc19c54781f,target=/run/packages/wheels \
    --mount=type=bind,source=files/slim,target=/run/slim \
    --mount=type=bind,source=files/warm-up,target=/run/warm-up \
    if [ -f /run/secrets/site.env ]; then . /run/secrets/site.env; fi \
    && pip() { PIP_ROOT_USER_ACTION=ignore /run/tools/bin/python -m pip "$@" \
        --no-input --disable-pip-version-check --progress-bar off; } \
    && pip --python /opt/venv/bin/python install --no-compile --no-cache-dir --no-deps --require-hashes \
        --find-links /run/packages/wheels --requirement /run/packages/list.txt \
    && python -B /run/slim /opt/venv --strip /run/tools/strip/eu-strip --keep 'nvidia/*.a' \
    && python /run/warm-up tensorboard dask distributed

FROM extras AS image
COPY --chmod=0755 files/entrypoint /opt/imgbuild/entrypoint
COPY --chmod=0644 locked/pins-a212dced8f3a9164.txt /opt/imgbuild/constraints.txt
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
    JAX_VERSION=0.10.2
LABEL org.opencontainers.image.title="jax"
WORKDIR /workspace
USER 1000:1000
EXPOSE 6006
ENTRYPOINT ["/usr/bin/tini", "-s", "-g", "--", "/opt/imgbuild/entrypoint"]
CMD ["/bin/bash"]
