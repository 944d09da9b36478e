"""What repositories do that provide a directory as one input. See stamp.py."""

STAMP_ATTRS = {
    "_stamp": attr.label(
        doc = "What stamps a directory.",
        default = Label("//aoti/private/repositories:stamp.py"),
        allow_single_file = True,
    ),
}

def stamp(rctx, python, directory):
    """Makes a directory's time of modification a digest of its content.

    Args:
      rctx: the repository's context; its rule has `STAMP_ATTRS`.
      python: path of a Python 3.11.
      directory: path of the directory.
    """
    done = rctx.execute([python, rctx.path(rctx.attr._stamp), directory])
    if done.return_code:
        fail("%s cannot be read: %s" % (directory, done.stderr))
