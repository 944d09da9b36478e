"""Gives the files of one of several builds of a target names of their own.

These are links, not actions of ours, so they have no mnemonic.
"""

def link_to(actions, *, file, directory):
    """Declares a link to a file or directory.

    Args:
      actions: `ctx.actions`.
      file: `File`, what to link to.
      directory: where to declare the link, relative to the package.

    Returns:
      The link, a `File`.
    """
    path = "%s/%s" % (directory, file.basename)
    link = actions.declare_directory(path) if file.is_directory else actions.declare_file(path)
    actions.symlink(output = link, target_file = file)
    return link
