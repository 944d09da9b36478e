"""Writes the script that starts a Python program."""

# -P: the directory of `main` is not to be imported from; -S, -s: nor is what is installed on the
# machine. -B: the byte code of sources would be written beside them, in somebody's workspace.
_SCRIPT = """\
#!/bin/sh
# Generated: starts {main} with the Python and the packages among its runfiles.
case $0 in
  /*) self=$0 ;;
  *) self=$PWD/$0 ;;
esac
if [ -d "$self.runfiles" ]; then
  runfiles=$self.runfiles
else
  case $self in
    *.runfiles/*) runfiles=${{self%.runfiles/*}}.runfiles ;;
    *) runfiles=$RUNFILES_DIR ;;
  esac
fi
if [ ! -e "$runfiles/{interpreter}" ]; then
  echo "$0: there are no runfiles in $self.runfiles, nor in \\$RUNFILES_DIR. Build it with" \\
    "--build_runfile_links, or start it with bazel run." >&2
  exit 1
fi
unset PYTHONHOME
export RUNFILES_DIR="$runfiles"
export PYTHONPATH="{python_path}${{PYTHONPATH:+:$PYTHONPATH}}"
exec "$runfiles/{interpreter}" -B -P -S -s "$runfiles/{main}" "$@"
"""

def write_launcher(actions, *, interpreter, main, python_path, out):
    """Declares an action that writes a shell script. Paths are relative to the runfiles' root.

    Args:
      actions: `ctx.actions`.
      interpreter: path of the Python interpreter.
      main: path of the Python file to run.
      python_path: list of paths of the directories to import from.
      out: `File` to write.
    """
    actions.write(
        output = out,
        content = _SCRIPT.format(
            interpreter = interpreter,
            main = main,
            python_path = ":".join(["$runfiles/" + path for path in python_path]),
        ),
        is_executable = True,
    )
