"""The committed configurations and how one is filled: `${name}` is a value, a line with an
`${address}` is repeated for each instance, and what stands between `# when NAME ...` or
`# unless NAME ...` and the next such line or `# end` is there only with or without any such feature."""

import re
from dataclasses import dataclass
from pathlib import Path
from string import Template

FOLDER = Path(__file__).parent / "configs"
MARK = re.compile(r"\s*# (?:(when|unless) ([\w ]+)|end)$")
PER_INSTANCE = ("${address}", "${host}")


@dataclass(frozen=True)
class Wanted:
    """`features`: `sticky` is affinity by cookie and X-Forwarded-For, `tls` is TLS with HTTP/2, `log`
    an access log, affinity and every field that is told. `instances` are pairs of host and port."""

    features: frozenset
    instances: tuple


def fill(name, wanted, **values):
    lines, here = [], True
    for line in (FOLDER / name).read_text().splitlines():
        if mark := MARK.match(line):
            here = mark[1] is None or bool(wanted.features & set(mark[2].split())) == (mark[1] == "when")
        elif here:
            lines += filled(line, wanted, values)
    return "\n".join(lines) + "\n"


def filled(line, wanted, values):
    if not any(each in line for each in PER_INSTANCE):
        # A comment may hold what looks like a value.
        return [line if line.lstrip().startswith("#") else Template(line).substitute(values)]
    return [Template(line).substitute(values, number=number, host=host, instance_port=port, address=f"{host}:{port}")
            for number, (host, port) in enumerate(wanted.instances)]
