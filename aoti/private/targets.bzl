"""Targets, as wrapgen/target.py spells them.

`sm_90` is machine code of NVIDIA's, `compute_90` is PTX, `gfx942` is machine code of AMD's.
"""

# What wrapgen can build for: the devices of wrapgen/target.py. A test compares the two.
CAPABILITIES = ["80", "86", "89", "90", "100", "120"]
ARCHITECTURES = ["gfx90a", "gfx942"]

# What a platform may have, buildable or not: each is a constraint value of //aoti/gpu.
GPUS = ARCHITECTURES + ["sm_" + number for number in ["75", "80", "86", "89", "90", "100", "103", "120"]]

def capability(target):
    """Parses a target.

    Args:
      target: a string.

    Returns:
      Its compute capability, such as `"90"`, or `None` if it is no target.
    """
    kind, _, number = target.partition("_")
    if kind in ("sm", "compute") and number.isdigit():
        return number
    return None

def is_amds(target):
    """Says whose GPUs a target is for.

    Args:
      target: a string.

    Returns:
      Whether it is the name of an architecture of AMD's, such as `gfx942`, and not NVIDIA's.
    """
    digits = target.removeprefix("gfx")
    return digits != target and digits.isalnum() and digits == digits.lower()

def lowering_target(target):
    """Says which target's program a target is compiled from.

    Args:
      target: a target.

    Returns:
      `sm_90` for `compute_90` and for itself; `gfx942` for itself.
    """
    if is_amds(target):
        return target
    return "sm_" + capability(target)

def check_targets(targets, capabilities, architectures = []):
    """Says what is wrong with a list of targets.

    Args:
      targets: the targets asked for.
      capabilities: the compute capabilities that the toolchain can build for.
      architectures: AMD's architectures that it can build for.

    Returns:
      A message, or `None` if all is well.
    """
    known = ["sm_%s, compute_%s" % (c, c) for c in capabilities] + architectures
    if not targets:
        return ("nothing says what to build for: name targets in the attribute, targets = [\"sm_90\"], or on the command " +
                "line, --@rules_aoti//aoti:targets=sm_90, or build for a platform that has a GPU, such as " +
                "@rules_aoti//aoti/gpu:sm_90 among its constraint values; this toolchain builds for %s") % ", ".join(known)
    for i, target in enumerate(targets):
        if capability(target) not in capabilities and target not in architectures:
            return "unknown target \"%s\": this toolchain builds for %s" % (target, ", ".join(known))
        if target in targets[:i]:
            return "target \"%s\" is named twice" % target
    amds = [target for target in targets if is_amds(target)]
    if amds and len(amds) < len(targets):
        return "targets %s run on NVIDIA's GPUs and %s on AMD's: a library calls one vendor's driver; build one for each" % (
            ", ".join([target for target in targets if not is_amds(target)]),
            ", ".join(amds),
        )
    return None

def group_by_lowering(targets):
    """Groups targets by the program they are compiled from.

    Args:
      targets: targets in any order.

    Returns:
      Such as `{"sm_90": ["compute_90", "sm_90"]}`; keys and values are sorted.
    """
    groups = {}
    for target in sorted(targets):
        groups.setdefault(lowering_target(target), []).append(target)
    return {key: groups[key] for key in sorted(groups)}
