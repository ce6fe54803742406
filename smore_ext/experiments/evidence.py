"""The report of the experiments: CSV and PNG of each, and all of them in one Markdown and one HTML page."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

import numpy as np

from smore_ext.environment import versions
from smore_ext.experiments.cells import Records
from smore_ext.experiments.charts import Colours, Interval, Panel, draw
from smore_ext.experiments.significance import LEVEL, POWER
from smore_ext.experiments.studies.common import SAME
from smore_ext.experiments.study import Answer, Contrast, Outcome, Scale, Study, Table, correct
from smore_ext.experiments.tables import csv_of, markdown_of
from smore_ext.experiments.verdicts import CONTRADICTS, PAPER_GAIN, SILENT, SUPPORTS
from smore_ext.training.files import write_text

SIGNIFICANCE = "significance"
PAGE = "evidence"


@dataclass(frozen=True)
class Section:
    """What a study contributes: texts with corrected p-values."""

    study: Study
    outcome: Outcome
    answer: Answer

    @property
    def brief(self) -> str:
        return self.answer.brief


def conclude(studies: Mapping[str, Study], records: Records, scale: Scale) -> list[Section]:
    """Outcomes of studies whose cells are all there, corrected together."""
    done = {
        name: study.conclude(records, scale)
        for name, study in studies.items()
        if not records.missing(study.cells(scale))
    }
    correct(done.values())
    return [Section(studies[name], outcome, outcome.answer()) for name, outcome in done.items()]


def write_report(
    sections: Sequence[Section], records: Records, scale: Scale, folder: Path, command: str, training: float
) -> list[Path]:
    """Writes all files into `folder` and returns them. `training`: seconds that it took, of all runs."""
    colours, files = Colours(SAME), []
    images = folder / "images" / PAGE
    for section in sections:
        name = section.study.name
        if section.outcome.panels:
            draw(section.outcome.panels, images / f"{name}.png", colours)
            files.append(images / f"{name}.png")
        write_text(folder / f"{PAGE}-{name}.csv", csv_text(section, records, scale))
        draw([forest(section.outcome.every)], images / f"{name}-differences.png", colours)
        files += [images / f"{name}-differences.png", folder / f"{PAGE}-{name}.csv"]
    write_text(folder / f"{PAGE}-{SIGNIFICANCE}.csv", significance_csv(sections))
    body = blocks(sections, scale, command, made_of(sections, records, scale, training))
    write_text(folder / f"{PAGE}.md", markdown(body))
    write_text(folder / f"{PAGE}.html", page(body))
    return [folder / f"{PAGE}.md", folder / f"{PAGE}.html", folder / f"{PAGE}-{SIGNIFICANCE}.csv", *files]


def csv_text(section: Section, records: Records, scale: Scale) -> str:
    """One line a cell: what it is, quality, and the figures of its probes."""
    cells = list({cell.key: cell for cell in section.study.cells(scale)}.values())
    timed = ("step_seconds",)  # beside other runs: no two of them are comparable
    figures = sorted({name for cell in cells for name in records[cell].figures if name not in timed})
    head = ["data", "model", "settings", "seed", "recall@20", "ndcg@20", "best_epoch", "epochs"]
    rows = []
    for cell in cells:
        r = records[cell]
        told = [json.dumps(asdict(cell.data), sort_keys=True), cell.model, json.dumps(cell.settings, sort_keys=True)]
        means = [float(r.values[name].mean()) for name in ("recall@20", "ndcg@20")]
        rest = [r.best_epoch, len(r.validation), *(r.figures.get(name) for name in figures)]
        rows.append([*told, cell.seed, *means, *rest])
    return csv_of([*head, *figures], rows)


def forest(contrasts: Sequence[Contrast]) -> Panel:
    """All differences of an experiment; those that are shown in colour."""
    series: dict[str, list[Interval | float | None]] = {
        label: [c.effect[:3] if c.shown == is_shown else None for c in contrasts]
        for label, is_shown in (("difference shown", True), ("no difference shown", False))
    }
    title = "First less second, corrected 95 % intervals"
    over = f"seeds x users: {', '.join(sorted({c.over for c in contrasts}))}"
    return Panel("forest", title, "difference of recall@20", "", [c.label for c in contrasts], series, n=over)


def _contrasts(sections: Sequence[Section]) -> list[tuple[str, Contrast]]:
    return [(section.study.name, each) for section in sections for each in section.outcome.every]


def significance_csv(sections: Sequence[Section]) -> str:
    head = [
        "study",
        "contrast",
        "base",
        "difference",
        "low",
        "high",
        "p",
        "comparisons",
        "p_in_all",
        "detectable",
        "ruled_out",
    ]
    rows = [
        [
            name,
            c.label,
            c.base,
            *c.effect[:3],
            c.p,
            c.family,
            c.in_all,
            c.detectable,
            c.most,
            c.effect.size,
            c.over,
            c.verdict,
        ]
        for name, c in _contrasts(sections)
    ]
    return csv_of([*head, "d", "seeds_x_users", "verdict"], rows)


# A page is a list of blocks, which Markdown and HTML spell each in their way.
Block = tuple[str, object]


def blocks(sections: Sequence[Section], scale: Scale, command: str, made: Sequence[str]) -> list[Block]:
    out: list[Block] = [
        ("title", "Evidence"),
        ("text", "What the parts of the model do. Verdicts and numbers are generated from the runs by one command."),
        (
            "table",
            Table("", ["question", "verdict", "why", "recall@20 (95 %, share), over", "paper"], answers(sections)),
        ),
        ("list", reading(scale, _contrasts(sections))),
        ("heading", "What was run"),
        ("code", command),
        ("list", [*about(scale), *made]),
    ]
    for section in sections:
        name, answer = section.study.name, section.answer
        out += [
            ("heading", f"{name}: {section.study.question}"),
            ("text", f"{answer.verdict.capitalize()}. {answer.brief}"),
        ]
        out += [("text", answer.text)]
        out += [("table", answer.table)] if answer.table else []
        out += [("table", contrasts_table([*section.outcome.head, *answer.said]))]
        if section.outcome.panels:
            out += [("image", (f"images/{PAGE}/{name}.png", section.study.question))]
        out += [("image", (f"images/{PAGE}/{name}-differences.png", f"{name}: all differences with their intervals"))]
        out += [("table", table) for table in section.outcome.tables]
        out += [("link", (f"{PAGE}-{name}.csv", "all runs as CSV"))]
    return [*out, *shown(sections)]


def answers(sections: Sequence[Section]) -> list[list[str]]:
    """A row a question, with the contrasts that its verdict is of."""
    return [
        [
            f"{number}. {s.study.question}",
            s.answer.verdict,
            s.brief,
            "; ".join(f"{c.label}: {c.interval}, {c.over}{_seen(c)}" for c in s.answer.head),
            s.answer.paper,
        ]
        for number, s in enumerate(sections, 1)
    ]


def _seen(c: Contrast) -> str:
    return "" if c.shown else f", detectable {c.detectable:.4f}"


def contrasts_table(contrasts: Sequence[Contrast]) -> Table:
    """Each once, in full."""
    once = list({c.label: c for c in contrasts}.values())
    rows = [[c.label, c.verdict, c.interval, f"{c.p:.2g}", f"{c.detectable:.4f}", c.over] for c in once]
    return Table("", ["comparison", "first is", "difference (95 %)", "p", "detectable", "seeds x users"], rows)


def shown(sections: Sequence[Section]) -> list[Block]:
    """What is significant, over all experiments."""
    every = _contrasts(sections)
    once = {c.identity: (name, c) for name, c in every if c.shown}.values()
    found = [[name, c.label, c.text, "yes" if c.in_all < LEVEL else "no"] for name, c in once]
    number = len({c.identity for _, c in every})
    return [
        ("heading", f"{SIGNIFICANCE}: which differences are shown?"),
        (
            "text",
            f"{len(found)} of {number} different comparisons; {len(every) - number} more are the same as one of them. "
            f"Each is corrected for its own family; {sum(row[-1] == 'yes' for row in found)} of them are also shown "
            f"when it is one of all {number} of this page.",
        ),
        ("table", Table("", ["experiment", "comparison", "recall@20", f"shown as one of {number}"], found)),
        ("link", (f"{PAGE}-{SIGNIFICANCE}.csv", "all comparisons as CSV")),
    ]


def reading(scale: Scale, every: Sequence[tuple[str, Contrast]]) -> list[str]:
    """How to read the table of answers."""
    single = [c.detectable / c.base for _, c in every if c.base and not c.inference and not c.pooled]
    low, middle, high = np.quantile(single, [0.1, 0.5, 0.9]) if single else (0.0, 0.0, 0.0)
    return [
        "An interval is over other users and seeds (3 x 1,000: seeds x users of the sample), or other draws of the "
        "data. Users and seeds are random and crossed (Dorfman, Berbaum and Metz 1992), with the luck of seeds shared "
        "by comparisons of one kind, as variances are in Smyth's moderated t (2004). Percentages are of the recall of "
        "the second of the two that are compared.",
        "Intervals and p-values are corrected (Bonferroni) for the number of comparisons that a verdict is of, and "
        "apart from them for that of its question's other comparisons: a question is a decision of its own, and one "
        f"verdict in twenty may have any false difference. So p is below {LEVEL:g} exactly where the interval leaves 0 "
        "out. Comparisons of the same runs count once.",
        "Not shown is no proof of equality: `at most` is the largest difference, either way, that the interval leaves "
        "possible, in percent of recall. Detectable is "
        f"the smallest true difference that would have been shown with probability {POWER:g}: of two trained "
        f"conditions, half of the comparisons here detect {middle:.1%} of recall (most {low:.1%} to {high:.1%}).",
        f"The paper: what is found {SUPPORTS} what it claims where that is shown, and {CONTRADICTS} it where the "
        f"opposite is shown, or as much as its gain over the next best model ({PAPER_GAIN:.1%}, Recall@20 on Baby) is "
        f"ruled out; otherwise it {SILENT}. All of that on the small data sets below, not on the paper's.",
    ]


def about(scale: Scale) -> list[str]:
    data = ", ".join(f"{name} {value:,}" for name, value in scale.synthetic.items())
    loops = [
        f"{place}: {', '.join(f'{name} {value:g}' for name, value in loop.items())}"
        for place, loop in {"built-in data": scale.loop, **scale.folders}.items()
    ]
    return [
        f"Scale {scale.name}: seeds {', '.join(map(str, scale.seeds))}; built-in data of {data}; data of files: "
        f"{', '.join(scale.folders) or 'none: they were not there'}.",
        f"The loop: {'; '.join(loops)}. {scale.models} Nothing was tuned for any condition.",
        "Recall@20 on test under protocol mmrec, at the epoch that validation chooses. Built-in data are one draw of "
        "their generator, but for the experiment `draws`.",
    ]


def made_of(sections: Sequence[Section], records: Records, scale: Scale, training: float) -> list[str]:
    """With what runs and page were made and how long it took, as far as the records know."""
    cells = {cell.key: cell for section in sections for cell in section.study.cells(scale)}
    made = [records[cell].made for cell in cells.values()]
    known = [each for each in made if each]
    devices = sorted({str(each.get("device", "a CPU, one thread each")) for each in made})
    told = [
        f"{len(made)} runs on {' and '.join(devices)}, two at a time or beside other work. Training took "
        f"{training / 3600:.1f} hours of a process, by the mean time of each run's steps; evaluation and probes come "
        "on top. docs/training.md says what --quick and an audit take."
    ]
    if known:
        by = sorted({f"{m['commit']}, torch {m['torch']}, {m['processor']}" for m in known})
        minutes = sum(float(m["seconds"]) for m in known) / 60
        told.append(f"{len(known)} runs: commit {'; '.join(by)}; {minutes:.1f} minutes with all they take.")
    if len(known) < len(made):
        told.append(f"{len(made) - len(known)} runs: their records do not say with which commit and on what machine.")
    now = date.today().isoformat()
    return [*told, f"This page: {now}, smore_ext {versions()['smore_ext']}."]


def markdown(body: Sequence[Block]) -> str:
    lines: list[str] = []
    for kind, value in body:
        match kind, value:
            case "title", str(text):
                lines += [f"# {text}"]
            case "heading", str(text):
                lines += [f"## {text}"]
            case "text", str(text):
                lines += [text]
            case "code", str(text):
                lines += [f"```bash\n{text}\n```"]
            case "list", list(items):
                lines += ["\n".join(f"- {item}" for item in items)]
            case "image", (str(path), str(alt)):
                lines += [f"![{alt}]({path})"]
            case "link", (str(path), str(text)):
                lines += [f"[{text}]({path})"]
            case "table", Table(title, head, rows):
                lines += [f"{title}:"] if title else []
                lines += [markdown_of(head, rows)]
    return "\n\n".join(lines) + "\n"


_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:1em 0;font-size:13px}td,th{border-bottom:1px solid #ddd;padding:.3em .8em .3em 0;
text-align:left;vertical-align:top}img{max-width:100%}pre{background:#f4f4f4;padding:.6em}h2{margin-top:2em}"""


def page(body: Sequence[Block]) -> str:
    """The same as HTML, complete but for its images, which lie beside it."""
    e, out = html.escape, []
    for kind, value in body:
        match kind, value:
            case "title", str(text):
                out.append(f"<h1>{e(text)}</h1>")
            case "heading", str(text):
                out.append(f"<h2>{e(text)}</h2>")
            case "text", str(text):
                out.append(f"<p>{e(text)}</p>")
            case "code", str(text):
                out.append(f"<pre>{e(text)}</pre>")
            case "list", list(items):
                out.append(f"<ul>{''.join(f'<li>{e(item)}</li>' for item in items)}</ul>")
            case "image", (str(path), str(alt)):
                out.append(f'<p><img src="{e(path)}" alt="{e(alt)}"></p>')
            case "link", (str(path), str(text)):
                out.append(f'<p><a href="{e(path)}">{e(text)}</a></p>')
            case "table", Table(title, head, rows):
                cells = "".join(f"<th>{e(name)}</th>" for name in head)
                body_ = "".join(f"<tr>{''.join(f'<td>{e(cell)}</td>' for cell in row)}</tr>" for row in rows)
                caption = f"<p>{e(title)}:</p>" if title else ""
                out.append(f"{caption}<table><thead><tr>{cells}</tr></thead><tbody>{body_}</tbody></table>")
    about_ = f'<meta charset="utf-8"><title>smore_ext: evidence</title><style>{_STYLE}</style>'
    return f'<!doctype html><html lang="en"><head>{about_}</head><body>{"".join(out)}</body></html>\n'
