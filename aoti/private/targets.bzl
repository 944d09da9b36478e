"""Targets, as wrapgen/target.py spells them: `sm_90` is machine code, `compute_90` is PTX."""

def capability(target):
    """Returns the compute capability of a target, such as `"90"`, or `None` if it is no target."""
    kind, _, number = target.partition("_")
    if kind in ("sm", "compute") and number.isdigit():
        return number
    return None

def lowering_target(target):
    """Returns the target whose program `target` is compiled from: `sm_90` for `compute_90`."""
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
    """Returns `{"sm_90": ["compute_90", "sm_90"], ...}`, sorted, whatever the order asked for."""
    groups = {}
    for target in sorted(targets):
        groups.setdefault(lowering_target(target), []).append(target)
    return {key: groups[key] for key in sorted(groups)}
