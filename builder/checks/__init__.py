"""The programs that run inside an image: packed as one zipapp, copied into a container, never imported by imgbuild.

Everything here must run on Python >= 3.9 with nothing but the standard library; what an image promises on top (torch,
Horovod, …) is imported inside the functions that examine it, so that its absence is a finding and not a crash.

    controller.py   reads the request, runs every group, writes one result
    group_run.py    runs one group in a process of its own, and again when that was lost
    worker.py       that process: prepares a group, runs its checks one after the other, tells of each in a file
    contract.py     what a check and a group are, and the words of the three files
    imgcheck.py     the same suite as a command inside an image, with a table and advice for whoever started it
    advice.py       what of `docker run` would have made a check pass
    processes.py    ends a process with everything below it
    facts.py        what the controller itself can tell of the image
    language.py     a grammar of known entropy and a transformer that can learn it
    training.py     training steps and the error bounds that their results are held against
    rank_training.py what one of two ranks computes with torch and writes down
    pair.py         starts ranks, awaits them, and compares what they left
    groups/         the checks, one in each file; every directory is a group, and its files share one process
"""
