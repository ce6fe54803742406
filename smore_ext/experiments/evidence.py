"""The report of the experiments: CSV and PNG of each, and all of them in one Markdown and one HTML page."""

from __future__ import annotations

import html
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from smore_ext.environment import versions
from smore_ext.experiments.cells import Records
from smore_ext.experiments.charts import Colours, Interval, Panel, draw
from smore_ext.experiments.significance import LEVEL
from smore_ext.experiments.study import Answer, Contrast, Outcome, Scale, Study, Table, correct
from smore_ext.experiments.tables import csv_of, markdown_of
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


def write_report(sections: Sequence[Section], records: Records, scale: Scale, folder: Path, command: str) -> list[Path]:
    """Writes all files into `folder` and returns them."""
    colours, files = Colours(), []
    images = folder / "images" / PAGE
    for section in sections:
        name = section.study.name
        draw(section.outcome.panels, images / f"{name}.png", colours)
        write_text(folder / f"{PAGE}-{name}.csv", csv_text(section, records, scale))
        draw([forest(section.outcome.contrasts)], images / f"{name}-differences.png", colours)
        files += [images / f"{name}-differences.png"]
        files += [images / f"{name}.png", folder / f"{PAGE}-{name}.csv"]
    write_text(folder / f"{PAGE}-{SIGNIFICANCE}.csv", significance_csv(sections))
    body = blocks(sections, scale, command)
    write_text(folder / f"{PAGE}.md", markdown(body))
    write_text(folder / f"{PAGE}.html", page(body))
    return [folder / f"{PAGE}.md", folder / f"{PAGE}.html", folder / f"{PAGE}-{SIGNIFICANCE}.csv", *files]


def csv_text(section: Section, records: Records, scale: Scale) -> str:
    """One line a cell: what it is, quality, and the figures of its probes."""
    cells = list({cell.key: cell for cell in section.study.cells(scale)}.values())
    figures = sorted({name for cell in cells for name in records[cell].figures})
    head = ["data", "model", "settings", "seed", "recall@20", "ndcg@20", "best_epoch", "epochs", "seconds_a_step"]
    rows = []
    for cell in cells:
        r = records[cell]
        told = [json.dumps(asdict(cell.data), sort_keys=True), cell.model, json.dumps(cell.settings, sort_keys=True)]
        means = [float(r.values[name].mean()) for name in ("recall@20", "ndcg@20")]
        rest = [r.best_epoch, len(r.validation), r.seconds, *(r.figures.get(name) for name in figures)]
        rows.append([*told, cell.seed, *means, *rest])
    return csv_of([*head, *figures], rows)


def forest(contrasts: Sequence[Contrast]) -> Panel:
    """All differences of an experiment; those that are shown in colour."""
    series: dict[str, list[Interval | float | None]] = {
        label: [c.effect[:3] if c.shown == is_shown else None for c in contrasts]
        for label, is_shown in (("difference shown", True), ("no difference shown", False))
    }
    title = "Paired differences of recall@20, 95 % intervals"
    return Panel("forest", title, "difference of recall@20", "", [c.label for c in contrasts], series)


def _contrasts(sections: Sequence[Section]) -> list[tuple[str, Contrast]]:
    return [(section.study.name, each) for section in sections for each in section.outcome.contrasts]


def significance_csv(sections: Sequence[Section]) -> str:
    head = ["study", "contrast", "base", "difference", "low", "high", "p", "p_corrected", "d", "verdict"]
    rows = [[name, c.label, c.base, *c.effect[:4], c.p, c.effect.size, c.verdict] for name, c in _contrasts(sections)]
    return csv_of(head, rows)


# A page is a list of blocks, which Markdown and HTML spell each in their way.
Block = tuple[str, object]


def blocks(sections: Sequence[Section], scale: Scale, command: str) -> list[Block]:
    every = _contrasts(sections)
    shown = [(name, c) for name, c in every if c.shown]
    out: list[Block] = [
        ("title", "Evidence"),
        (
            "text",
            "What the parts of the model do, asked by experiments that one command repeats. All of it is generated.",
        ),
        ("code", command),
        ("list", about(scale, every)),
        ("heading", "Answers"),
        ("table", Table("", ["question", "answer"], [[s.study.question, s.brief] for s in sections])),
    ]
    for section in sections:
        name = section.study.name
        said = [f"{c.label}: {c.text}" for c in section.answer.said]
        out += [("heading", f"{name}: {section.study.question}"), ("text", section.brief)]
        out += [("text", section.answer.text), ("list", said)] if said else [("text", section.answer.text)]
        out += [("image", (f"images/{PAGE}/{name}.png", section.brief))]
        out += [("image", (f"images/{PAGE}/{name}-differences.png", f"{name}: paired differences with 95 % intervals"))]
        out += [("table", table) for table in section.outcome.tables]
        out += [("link", (f"{PAGE}-{name}.csv", "all runs as CSV"))]
    out += [
        ("heading", f"{SIGNIFICANCE}: which differences are shown?"),
        (
            "text",
            f"{len(shown)} of {len(every)} contrasts are significant at {LEVEL:g} after Holm's correction for all of "
            f"them. No difference shown means that none of this size is proven, not that there is none: the CSV has "
            f"every interval.",
        ),
        ("table", Table("", ["experiment", "contrast", "recall@20"], [[n, c.label, c.text] for n, c in shown])),
        ("link", (f"{PAGE}-{SIGNIFICANCE}.csv", "all contrasts as CSV")),
    ]
    return out


def about(scale: Scale, every: Sequence[tuple[str, Contrast]]) -> list[str]:
    used = versions()
    data = ", ".join(f"{name} {value:,}" for name, value in scale.synthetic.items())
    loops = [
        f"{place}: {', '.join(f'{name} {value:g}' for name, value in loop.items())}"
        for place, loop in {"built-in data": scale.loop, **scale.folders}.items()
    ]
    return [
        f"{date.today().isoformat()}, smore_ext {used['smore_ext']}, torch {used['torch']}, Python "
        f"{platform.python_version()}, {_processor()}, {os.cpu_count()} cores, CPU, one thread a run, backend native.",
        f"Scale {scale.name}: seeds {', '.join(map(str, scale.seeds))}; built-in data of {data}; data of files: "
        f"{', '.join(scale.folders) or 'none: they were not there'}.",
        f"The loop: {'; '.join(loops)}. {scale.models} Nothing was tuned for any condition.",
        "Recall@20 on test under protocol mmrec, at the epoch that validation chooses.",
        "Intervals and tests are over users and seeds, both random and crossed (Dorfman, Berbaum and Metz 1992); the "
        "luck of seeds is shared by contrasts of one kind, as variances are in Smyth's moderated t (2004).",
        f"p-values are corrected by Holm for the {len(every)} contrasts of this page; d is Cohen's of paired values. "
        "The built-in data are one draw of their generator: other draws are the last study.",
    ]


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


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
