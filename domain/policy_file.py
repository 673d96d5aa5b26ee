"""Policies from YAML text, with the line and the field in every complaint."""

from collections.abc import Mapping, Sequence

import yaml
from pydantic import ValidationError

from domain.errors import Rejected
from domain.policy import Policies, Policy


def parse(texts: Mapping[str, str]) -> Policies:
    """Policies by file name. Raises `Rejected` with `file:line: field: reason` for each complaint."""
    complaints: list[str] = []
    policies: dict[str, Policy] = {}
    owners: dict[tuple[str, str], str] = {}
    for name, text in texts.items():
        try:
            root = yaml.compose(text, Loader=yaml.SafeLoader)
            if twice := _twice(root):
                complaints.append(f"{name}:{twice.start_mark.line + 1}: {twice.value}: is written twice")
                continue
            policy = Policy.model_validate(yaml.safe_load(text), extra="forbid")
        except yaml.MarkedYAMLError as error:
            line = error.problem_mark.line + 1 if error.problem_mark else 1
            complaints.append(f"{name}:{line}: not YAML: {error.problem}")
        except yaml.YAMLError as error:
            complaints.append(f"{name}:1: not YAML: {error}")
        except ValidationError as error:
            for e in error.errors(include_url=False):
                field = ".".join(map(str, e["loc"]))
                complaints.append(f"{name}:{_line(root, e['loc'])}: {field or 'policy'}: {e['msg']}")
        else:
            policies[name] = policy
            other = owners.setdefault((policy.merchant, policy.channel), name)
            if other != name:
                complaints.append(f"{name}:1: merchant, channel: {other} has the same")
    result = Policies(policies)
    if not complaints and not result.covers_everyone():
        complaints.append("no policy is for merchant '*' and channel '*', so some requests would have no rules")
    if complaints:
        raise Rejected("; ".join(complaints), cause="bad_policy")
    return result


def _twice(node: yaml.Node | None) -> yaml.Node | None:
    """A key that stands twice in one mapping; YAML itself would let the last one win."""
    if not isinstance(node, yaml.MappingNode):
        return None
    pairs: list[tuple[yaml.Node, yaml.Node]] = node.value
    seen: set[str] = set()
    for key, value in pairs:
        if key.value in seen:
            return key
        seen.add(key.value)
        if found := _twice(value):
            return found
    return None


def _line(node: yaml.Node | None, path: Sequence[int | str]) -> int:
    """The line (from 1) of the deepest part of `path` that the file has."""
    if node is None:
        return 1
    if path:
        if isinstance(node, yaml.MappingNode):
            for key, value in node.value:
                if key.value == str(path[0]):
                    deeper = _line(value, path[1:])
                    return int(key.start_mark.line) + 1 if len(path) == 1 else deeper
        if isinstance(node, yaml.SequenceNode) and isinstance(path[0], int) and path[0] < len(node.value):
            return _line(node.value[path[0]], path[1:])
    return int(node.start_mark.line) + 1
