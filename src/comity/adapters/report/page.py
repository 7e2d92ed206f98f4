"""The run report: one HTML file that loads nothing, from the fields that `--json` prints."""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from comity.adapters.report.curves import comparison_svg, history_svg
from comity.adapters.report.style import STYLE


def render(document: Mapping[str, Any]) -> str:
    """The page; every text from outside is escaped, nothing is loaded, no script runs."""
    sections = (
        _header(document),
        _tiles(document),
        _training(document),
        _leaving(document),
        _ledger(document),
        _asking(document),
        _audit(document),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>Comity: run {_text(document['run'])}</title><style>{STYLE}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _text(value: object) -> str:
    return html.escape(str(value))


def _header(document: Mapping[str, Any]) -> str:
    return (
        "<header><p class='kicker'>Comity run report</p>"
        "<h1>Four hospitals, one model, and no record left home</h1>"
        f"<p>Run <code>{_text(document['run'])}</code>, {_text(document['training_s'])} seconds of "
        "training. The hospitals are made up; records, noise and journals are real.</p></header>"
    )


def _tiles(document: Mapping[str, Any]) -> str:
    together = next(row for row in document["comparison"] if row["name"] == "federated")
    spent = max(site["budget"]["epsilon_spent"] for site in document["sites"])
    total = document["sites"][0]["budget"]["epsilon_total"]
    tiles = (
        (f"{together['accuracy']['mean']:.1%}", "accuracy, trained together"),
        (str(document["raw_records_that_left"]), "raw records that left"),
        (f"{spent:.2f} of {total:g}", "epsilon spent at each hospital"),
        (str(sum(len(answer["citations"]) for answer in document["answers"])), "checked citations"),
    )
    cells = "".join(f"<div><b>{_text(big)}</b><span>{small}</span></div>" for big, small in tiles)
    return f"<section class='tiles' aria-label='Summary'>{cells}</section>"


def _training(document: Mapping[str, Any]) -> str:
    rows = [
        (
            row["label"],
            _spread(row["accuracy"]),
            _spread(row["auc"]),
            "none" if row["epsilon"] is None else f"{row['epsilon']:.2f}",
        )
        for row in document["comparison"]
    ]
    table = _table(("trained by", "accuracy", "AUC", "epsilon"), rows)
    return (
        "<section><h2>One diagnosis model</h2>"
        f"<div class='pair'><figure>{comparison_svg(document['comparison'])}"
        f"<figcaption>Accuracy, mean and deviation over {document['seeds']} seeds.</figcaption>"
        f"</figure><figure>{history_svg(document['history'])}"
        "<figcaption>The federated run, scored after each round on held-back records. The scores "
        "left inside secure sums and carry no privacy claim.</figcaption></figure></div>"
        f"{table}<p class='note'>All are scored on the same held-back records. Each hospital alone "
        "and the federation train at the same epsilon. Pooled means all records in one place, "
        "without protection: it is computed outside the federation, as an upper bound that "
        "nobody may reach. The first seed's federated row is the run above; the other seeds are "
        "rehearsals in one process. Which hospital is best alone is not known beforehand, and by "
        "chance it can reach the score of the four.</p></section>"
    )


def _leaving(document: Mapping[str, Any]) -> str:
    rows = []
    for site in document["sites"]:
        budget = site["budget"]
        share = min(1.0, budget["epsilon_spent"] / budget["epsilon_total"])
        bar = (
            f"<div class='bar' role='img' aria-label='{share:.0%} spent'>"
            f"<i style='width:{share:.1%}'></i></div>"
        )
        rows.append(
            (
                site["site"],
                f"{document['records'][site['site']]['train']}",
                f"{site['training_bytes']:,}",
                f"{site['answer_bytes']:,}",
                f"{site['raw_records']}",
                f"{budget['epsilon_spent']:.2f} of {budget['epsilon_total']:g}",
                _Html(bar),
            )
        )
    head = (
        "hospital",
        "patients",
        "training, bytes",
        "answers, bytes",
        "raw records",
        "epsilon spent",
        "",
    )
    delta = document["sites"][0]["budget"]["delta"]
    return (
        f"<section><h2>What left each hospital</h2>{_table(head, rows)}"
        "<p class='note'>Counted from each hospital's audit chain, after the questions, checking "
        "every link. Raw records are patients' records; answers quote documents that the hospital "
        "opened. Epsilon bounds what anyone can learn about one patient from what left in "
        "training: smaller is safer. The claim is (epsilon, delta)-differential privacy with "
        f"delta {delta:g}, for one record added or removed.</p>"
        "</section>"
    )


def _ledger(document: Mapping[str, Any]) -> str:
    rows = []
    for site in document["sites"]:
        budget = site["budget"]
        names = ("total", "plan", "spent", "remaining")
        rows.append((site["site"], *(f"{budget[f'epsilon_{name}']:.3f}" for name in names)))
    head = ("hospital", "total", "reserved", "spent", "remaining for further plans")
    parts = "".join(
        f"<details><summary>{_text(site)}</summary>{_list(lines)}</details>"
        for site, lines in document["ledger"].items()
    )
    return (
        f"<section><h2>The privacy ledger, in epsilon</h2>{_table(head, rows)}{parts}"
        "<p class='note'>A plan is reserved whole before any of it runs, and spent before "
        "anything leaves. Nothing is ever refunded once something left.</p></section>"
    )


def _list(lines: Iterable[str]) -> str:
    return f"<ul>{''.join(f'<li>{_text(line)}</li>' for line in lines)}</ul>"


def _asking(document: Mapping[str, Any]) -> str:
    answers = "".join(_answer(answer) for answer in document["answers"])
    closed = "".join(
        f"<li><b>{_text(one['site'])}, {_text(one['collection'])}</b>: {_text(one['reason'])} "
        f"<code>{_text(one['policy'])}</code></li>"
        for one in document["answers"][-1]["closed"]
    )
    return (
        f"<section><h2>Questions over private documents</h2>{answers}"
        "<h3>Not opened to this asker</h3><p class='note'>Said of every question alike, whatever "
        f"these collections hold.</p><ul>{closed}</ul></section>"
    )


def _answer(answer: Mapping[str, Any]) -> str:
    quotes = "".join(
        f"<li value='{one['number']}'><cite>{_text(one['site'])}, {_text(one['document'])}</cite>"
        f"<q>{_text(one['quote'])}</q></li>"
        for one in answer["citations"]
    )
    kind = "answer none" if answer["abstained"] else "answer"
    return (
        f"<article class='{kind}'><h3>{_text(answer['question'])}</h3>"
        f"<p>{_text(answer['answer'])}</p><ol>{quotes}</ol></article>"
    )


def _audit(document: Mapping[str, Any]) -> str:
    parts = "".join(
        f"<details><summary>{_text(site)}</summary>{_list(lines)}</details>"
        for site, lines in document["audit"].items()
    )
    folder = _text(document["files"]["folder"])
    return (
        f"<section><h2>The last audit records</h2>{parts}<p class='note'>Everything: "
        f"<code>comity audit show --state {folder}/northgate/state</code></p></section>"
    )


class _Html(str):
    """Markup of our own, which `_table` does not escape."""

    __slots__ = ()


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    def cell(value: str) -> str:
        return value if isinstance(value, _Html) else _text(value)

    top = "".join(f"<th scope='col'>{_text(name)}</th>" for name in head)
    body = "".join(
        f"<tr><th scope='row'>{cell(row[0])}</th>"
        + "".join(
            f"<td data-of='{_text(name)}'>{cell(value)}</td>"
            for name, value in zip(head[1:], row[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def _spread(figure: Mapping[str, float]) -> str:
    return f"{figure['mean']:.3f} ± {figure['deviation']:.3f}"
