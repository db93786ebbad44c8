"""The programs that run inside an image: packed as one zipapp, copied into a container, never imported by imgbuild.

Everything here must run on Python >= 3.9 with nothing but the standard library; what an image promises on top (torch,
Horovod, …) is imported inside the functions that examine it, so that its absence is a finding and not a crash.

    controller.py   reads the request, runs every group in a process of its own, writes one result
    worker.py       that process: prepares a group, runs its checks one after the other, tells of each in a file
    contract.py     what a check and a group are, and the words of the three files
    processes.py    ends a process with everything below it
    facts.py        what the controller itself can tell of the image
    language.py     a grammar of known entropy and a transformer that can learn it
    training.py     training steps and the error bounds that their results are held against
    ranks.py        what each of two Horovod processes does
    groups/         the checks; every module in it with a `GROUP` is found and run
"""
