"""Targets, as wrapgen/target.py spells them: `sm_90` is machine code, `compute_90` is PTX."""

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

def lowering_target(target):
    """Says which target's program a target is compiled from.

    Args:
      target: a target.

    Returns:
      `sm_90` for `compute_90` and for itself.
    """
    return "sm_" + capability(target)

def check_targets(targets, capabilities):
    """Says what is wrong with a list of targets.

    Args:
      targets: the targets asked for.
      capabilities: the compute capabilities that the toolchain can build for.

    Returns:
      A message, or `None` if all is well.
    """
    known = ["sm_%s, compute_%s" % (c, c) for c in capabilities]
    if not targets:
        return "targets is empty: name at least one of %s" % ", ".join(known)
    for i, target in enumerate(targets):
        if capability(target) not in capabilities:
            return "unknown target \"%s\": this toolchain builds for %s" % (target, ", ".join(known))
        if target in targets[:i]:
            return "target \"%s\" is named twice" % target
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
