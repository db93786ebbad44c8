"""Which combinations of framework, CUDA, Python, driver and GPU can work: facts with sources, and rules over them."""
