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
if [ ! -e "$runfiles/{python}/bin/python3" ]; then
  echo "$0: there are no runfiles in $self.runfiles, nor in \\$RUNFILES_DIR. Build it with" \\
    "--build_runfile_links, or start it with bazel run." >&2
  exit 1
fi
# Source directories, as packages are, are missing from the runfiles in two cases. They reach a remote
# worker as inputs of the action, which lie below external (bazelbuild/bazel#11495, up to 8.3). And a
# worker that serves many sandboxes has links to the files of its runfiles alone: a directory is beside
# what the links to its repository's files lead to.
find() {{
  repository=${{1%%/*}}
  for found in "$runfiles/$1" "$PWD/external/$1"; do
    [ ! -e "$found" ] || return 0
  done
  for link in "$runfiles/$repository"/*.txt "$runfiles/$repository"/bin/*; do
    if [ -L "$link" ]; then
      target=$(readlink -f "$link")
      found=${{target%"${{link#"$runfiles/$repository"}}"}}/${{1#*/}}
      [ ! -e "$found" ] || return 0
    fi
  done
  echo "$0: $1 is not among the runfiles, nor in $PWD/external" >&2
  exit 1
}}
path=
for entry in {python_path}; do
  find "$entry"
  path=$path${{path:+:}}$found
done
unset PYTHONHOME
find "{python}/lib/python3.11"
if [ "$found" != "$runfiles/{python}/lib/python3.11" ]; then
  export PYTHONHOME="${{found%/lib/python3.11}}"
fi
export RUNFILES_DIR="$runfiles"
export PYTHONPATH="$path${{PYTHONPATH:+:$PYTHONPATH}}"
exec "$runfiles/{python}/bin/python3" -B -P -S -s "$runfiles/{main}" "$@"
"""

def write_launcher(actions, *, interpreter, main, python_path, out):
    """Declares an action that writes a shell script. Paths are relative to the runfiles' root.

    Args:
      actions: `ctx.actions`.
      interpreter: path of the Python interpreter, `bin/python3` of a directory with its library.
      main: path of the Python file to run.
      python_path: list of paths of the directories to import from.
      out: `File` to write.
    """
    actions.write(
        output = out,
        content = _SCRIPT.format(
            main = main,
            python = interpreter.removesuffix("/bin/python3"),
            python_path = " ".join(python_path),
        ),
        is_executable = True,
    )
