"""Where files are among runfiles."""

def runfiles_path(workspace, file):
    """Says where a file is, relative to the runfiles' root.

    Args:
      workspace: `ctx.workspace_name`, the directory of the main repository's files.
      file: `File`.

    Returns:
      Its path, which begins with its repository's name.
    """
    if file.short_path.startswith("../"):
        return file.short_path.removeprefix("../")
    return workspace + "/" + file.short_path
