# Defaults of this image for Jupyter; the command line, ~/.jupyter and JUPYTER_TOKEN have the last word.
# Without a token from there, every start makes one of its own and prints it: no server of this image is open to all.
c = get_config()  # noqa: F821 (Jupyter's)

# Inside a container, what asks comes from outside of it.
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.open_browser = False
# `docker run -u 0` is root in the container only; Jupyter would refuse to start.
c.ServerApp.allow_root = True
# The trash of a mounted folder would be a directory in it that nobody empties.
c.FileContentsManager.delete_to_trash = False
