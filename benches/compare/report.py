"""What is made from results: tables on the terminal and in both READMEs, and plots. Measures nothing.

A file of results holds every sample. Medians are taken here, and ratios are to the best peer."""

import json, statistics, sys
from pathlib import Path

from processes import ROOT
from scenarios import SCENARIOS

RESULTS = ROOT / "benches/results"
OURS, PACKAGED, FLOOR, DIRECT = "burdock", "packaged", "floor", "direct"
BEGIN, END = "<!-- made by `python3 benches/compare --report` -->", "<!-- end -->"
# Shown in the project's README: scenario, what its first figure is there.
SHOWN = {letter: "CPU us" for letter in "abcdefhi"} | {
    "g": "bytes", "j": "99th percentile, us", "k": "longest wait, ms", "l": "CPU us"}


def dumped(results):
    """One line for each sample, as a person may read it and a difference be small."""
    text = json.dumps(results, indent=1)
    lines, held = [], None
    for line in text.splitlines():
        # A sample is a map within a list, and nothing else stands as deep.
        if held is None and line == " " * 6 + "{":
            held = []
        if held is None:
            lines.append(line)
            continue
        held.append(line.strip())
        if line.startswith(" " * 6 + "}"):
            lines.append(" " * 6 + " ".join(held))
            held = None
    return "\n".join(lines) + "\n"


def heading(results):
    machine = results["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (f"{results['date']}, {machine['cpu']}, {machine['cores']} cores, {machine['memory_gb']} GB, Linux {machine['kernel']}; "
            f"commit {machine['commit']}; {versions}")


def medians(scenario, points):
    """Rows of figures by point and peer; the peer that is no proxy is taken from the others."""
    found = {}
    for label, samples in points.items():
        rows = {}
        for name, taken in samples.items():
            row = {}
            for key, _ in scenario.figures:
                values = [sample[key] for sample in taken if isinstance(sample.get(key), (int, float))]
                if values:
                    row[key] = statistics.median(values)
            rows[name] = row
        if direct := rows.get(DIRECT):
            for name, row in rows.items():
                if name != DIRECT:
                    row |= {key: row[key] - direct[key] for key in row if key.endswith("_us") and key in direct}
        found[label] = rows
    return found


def ratio(rows, key, name):
    """To the best peer. What is next to nothing has none."""
    best = min((row[key] for peer, row in rows.items() if peer not in (OURS, PACKAGED, FLOOR, DIRECT) and row.get(key) is not None),
               default=None)
    return rows[name][key] / best if best and best > 0 and rows.get(name, {}).get(key) is not None else None


def number(value):
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 100 or value == int(value) else f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"


def ordered(rows, key):
    return sorted(rows, key=lambda name: rows[name].get(key, float("inf")))


def circumstances(samples):
    """How much stands behind a table."""
    counts = sorted({len(taken) for taken in samples.values() if taken}) or [0]
    rounds = f"{counts[0]} to {counts[-1]}" if len(counts) > 1 else counts[0]
    values = [sample["noise"] for taken in samples.values() for sample in taken if "noise" in sample]
    noise = f", others took {statistics.median(values):.0%} of the machine" if values else ""
    return f" ({rounds} round{'s' * (rounds != 1)}{noise})"


def table(scenario, points):
    """For the terminal."""
    lines, key = [], scenario.figures[0][0]
    for label, rows in medians(scenario, points).items():
        lines.append(f"\n({scenario.letter}) {scenario.title}: {label}, per {scenario.unit}{circumstances(points[label])}")
        lines.append(f"{'':12}" + "".join(f"{title:>15}" for _, title in scenario.figures) + f"{'to the best':>13}{'to the floor':>14}")
        for name in ordered(rows, key):
            cells = "".join(f"{number(rows[name].get(each)):>15}" for each, _ in scenario.figures)
            to_floor = rows[name].get(key, 0) / rows[FLOOR][key] if rows.get(FLOOR, {}).get(key) else None
            lines.append(f"{name:12}{cells}{number(ratio(rows, key, name)):>13}{number(to_floor):>14}")
    return "\n".join(lines)


def markdown(scenario, points):
    """For `benches/README.md`: every figure of a scenario."""
    lines, key = [], scenario.figures[0][0]
    lines.append(f"### ({scenario.letter}) {scenario.title}, per {scenario.unit}\n")
    for label, rows in medians(scenario, points).items():
        lines.append(f"{label[0].upper()}{label[1:]}{circumstances(points[label])}:\n")
        lines.append(f"| peer | {' | '.join(title for _, title in scenario.figures)} | to the best |")
        lines.append("|---|" + "---|" * (len(scenario.figures) + 1))
        for name in ordered(rows, key):
            cells = [number(rows[name].get(each)) for each, _ in scenario.figures] + [number(ratio(rows, key, name))]
            lines.append(f"| {name} | {' | '.join(cells)} |")
        lines.append("")
    lines.append(f"![{scenario.title}](results/{scenario.letter}.svg)\n")
    return lines


def known(results):
    return [(SCENARIOS[letter], results["scenarios"][letter]["points"])
            for letter in SCENARIOS if letter in results["scenarios"]]


def figures(results):
    lines = [heading(results) + ".\n"]
    for scenario, points in known(results):
        lines += markdown(scenario, points)
    return "\n".join(lines)


def overview(results):
    """For the project's README: the first figure of each point, and Burdock's ratio to the best."""
    names = [name for name in results["versions"] if name != OURS]
    taken = {f"{scenario.letter}{label}{name}": samples for scenario, points in known(results)
             for label, each in points.items() for name, samples in each.items()}
    ranked = [name for name in [OURS, PACKAGED] if name in results["versions"]]
    lines = [f"{heading(results)}{circumstances(taken)}.\n",
             f"| what | Burdock | {' | '.join(names)} | {' | '.join(f'{name.capitalize()} to the best' for name in ranked)} |",
             "|---|" + "---|" * (len(names) + 1 + len(ranked))]
    for scenario, points in known(results):
        if scenario.letter not in SHOWN:
            continue
        key = scenario.figures[0][0]
        for label, rows in medians(scenario, points).items():
            cells = [number(rows.get(name, {}).get(key)) for name in [OURS, *names]]
            title = f"{scenario.title}: {label} ({SHOWN[scenario.letter]})"
            cells += [number(ratio(rows, key, name)) for name in ranked]
            lines.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def plot(scenario, points):
    """Bars of the first figure, a panel for each point; user time is the darker part of its bar."""
    key, title = scenario.figures[0]
    width, left, right, bar = 720, 110, 90, 22
    parts, top = [], 44
    for label, rows in medians(scenario, points).items():
        names = [name for name in ordered(rows, key) if key in rows[name]]
        most = max((rows[name][key] for name in names), default=0) or 1
        parts.append(f'<text x="8" y="{top}" class="point">{label} ({title})</text>')
        for place, name in enumerate(names):
            row, y = rows[name], top + 8 + place * bar
            whole = max(row[key], 0) / most * (width - left - right)
            kind = {OURS: "ours", PACKAGED: "ours", FLOOR: "floor"}.get(name, "peer")
            parts.append(f'<text x="{left - 8}" y="{y + 14}" class="name">{name}</text>')
            parts.append(f'<rect x="{left}" y="{y + 2}" width="{whole:.1f}" height="{bar - 5}" class="{kind}"/>')
            if key == "cpu_us" and row.get("user_us"):
                part = whole * row["user_us"] / row[key]
                parts.append(f'<rect x="{left}" y="{y + 2}" width="{part:.1f}" height="{bar - 5}" class="user"/>')
            parts.append(f'<text x="{left + whole + 6:.1f}" y="{y + 14}">{number(row[key])}</text>')
        top += 8 + len(names) * bar + 28
    style = ("text{font:12px sans-serif;fill:#333}.title{font-weight:bold;font-size:14px}.point{font-weight:bold}"
             ".name{text-anchor:end}.peer{fill:#9aa7b4}.ours{fill:#7d5ba6}.floor{fill:#d8d2c4}.user{fill:#000;fill-opacity:.25}")
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top - 12}" viewBox="0 0 {width} {top - 12}">'
            f"<style>{style}</style><rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
            f'<text x="8" y="20" class="title">{scenario.title}, per {scenario.unit}</text>\n' + "\n".join(parts) + "\n</svg>\n")


def between(text, made, path):
    if BEGIN not in text or END not in text:
        sys.exit(f"{path} has no place for the tables: {BEGIN} ... {END}")
    before, rest = text.split(BEGIN, 1)
    return f"{before}{BEGIN}\n{made.rstrip()}\n{END}{rest.split(END, 1)[1]}"


def wanted():
    """Paths and what they should hold."""
    files = sorted(RESULTS.glob("*.json"))
    if not files:
        sys.exit("there are no results")
    results = json.loads(files[-1].read_text())
    for path, made in [(ROOT / "README.md", overview(results)), (ROOT / "benches/README.md", figures(results))]:
        yield path, between(path.read_text(), made, path)
    for scenario, points in known(results):
        yield RESULTS / f"{scenario.letter}.svg", plot(scenario, points)


def publish(check=False):
    """Writes, or says what differs; gives an exit code."""
    differs = [(path, text) for path, text in wanted() if not path.exists() or path.read_text() != text]
    for path, text in differs:
        print(f"{'differs from the newest results' if check else 'written'}: {path.relative_to(ROOT)}")
        if not check:
            path.write_text(text)
    return 1 if check and differs else 0
