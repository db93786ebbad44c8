"""Images that differ from the usual one in a way that must not matter."""

from __future__ import annotations

from corpus.variant import Base, Cell, Healthy, Settings

HEALTHY = (
    Healthy(id="as-built", differs="Nothing: the image with Horovod, TensorBoard and Dask.", whole=True),
    Healthy(id="plain", differs="The image without Horovod.", base=Base.PLAIN, whole=True),
    Healthy(id="tensorflow", differs="The image with TensorFlow, Keras and Horovod.", base=Base.TENSORFLOW, whole=True),
    Healthy(
        id="tensorflow-more-environment",
        differs="TensorFlow with variables that users set: fewer log lines, threads, another language.",
        base=Base.TENSORFLOW,
        settings=Settings(environment={"TF_CPP_MIN_LOG_LEVEL": "3", "OMP_NUM_THREADS": "1", "LANG": "C"}),
    ),
    Healthy(
        id="another-user",
        differs="The image's user has another id, which no passwd file knows.",
        settings=Settings(user="2000:3000"),
    ),
    Healthy(
        id="another-home",
        differs="HOME is the working directory.",
        settings=Settings(environment={"HOME": "/workspace"}),
    ),
    Healthy(
        id="home-of-root",
        differs="HOME is /root, where nobody but root can write; the entrypoint finds another one.",
        settings=Settings(environment={"HOME": "/root"}),
    ),
    Healthy(
        id="another-workdir",
        differs="The working directory is one where nobody but root can write.",
        settings=Settings(workdir="/srv"),
    ),
    Healthy(
        id="labelled",
        differs="It has one more label.",
        settings=Settings(labels={"org.opencontainers.image.vendor": "Example"}),
    ),
    Healthy(
        id="more-environment",
        differs="Variables that users set: threads, buffering, no bytecode, another language and time zone.",
        settings=Settings(
            environment={
                "OMP_NUM_THREADS": "1",
                "PYTHONUNBUFFERED": "1",
                "PYTHONDONTWRITEBYTECODE": "1",
                "TZ": "Asia/Kathmandu",
                "LANG": "C",
            }
        ),
        whole=True,
    ),
    Healthy(
        id="init-without-groups",
        differs="The init passes signals to the program alone, not to its process group.",
        settings=Settings(entrypoint=("/usr/bin/tini", "-s", "--", "/opt/imgbuild/entrypoint")),
    ),
    Healthy(
        id="another-command",
        differs="What it runs by default is Python, not a shell.",
        settings=Settings(command=("python3",)),
    ),
    Healthy(
        id="one-more-package",
        differs="A small package more, which its cell has pinned.",
        script="""
            mkdir "$SITE/guest" "$SITE/guest-1.0.dist-info"
            echo 'def greet(): return "hello"' > "$SITE/guest/__init__.py"
            printf 'Metadata-Version: 2.1\\nName: guest\\nVersion: 1.0\\n' > "$SITE/guest-1.0.dist-info/METADATA"
            printf 'guest/__init__.py,,\\nguest-1.0.dist-info/METADATA,,\\n' > "$SITE/guest-1.0.dist-info/RECORD"
        """,
        cell=Cell(packages={"guest": "1.0"}),
    ),
    Healthy(
        id="one-more-layer",
        differs="A child image with the user's own code on top, and a welcome for interactive shells.",
        script="""
            mkdir -p /workspace/project
            echo 'print("train")' > /workspace/project/train.py
            echo 'echo Welcome' >> /etc/bash.bashrc
        """,
    ),
    Healthy(
        id="compiled",
        differs="The bytecode of a package is there that the image leaves out.",
        script='"$PYTHON" -m compileall -q "$SITE/torch/optim" "$SITE/torch/amp"',
    ),
)
