"""The report's page: style sheet, skeleton and small pieces of HTML. Everything given to it as text is escaped here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from trainctl.reporting.plots import safe

STYLE = """
:root{--ground:#fff;--raised:#f6f7f9;--ink:#1c2024;--soft:#60646c;--line:#e3e5e9;--good:#18794e;--bad:#c13515;--warn:#915b00;
--warnbg:#fff7e6;--c0:#3566d6;--c1:#d9622b;--c2:#1d8a5f;--c3:#9a4fc4;--c4:#b8901a;--c5:#607082}
@media(prefers-color-scheme:dark){:root{--ground:#131517;--raised:#1c1f22;--ink:#eceef0;--soft:#9ba1a6;--line:#2f3337;
--good:#4cc38a;--bad:#ff8b6b;--warn:#f1c073;--warnbg:#2c2413;--c0:#7ea3ff;--c1:#ff9d6c;--c2:#5bd0a0;--c3:#cd93ec;
--c4:#e8c55b;--c5:#a3b1c2}}
*{box-sizing:border-box}
body{margin:0;background:var(--ground);color:var(--ink);font:15px/1.55 system-ui,-apple-system,
"Segoe UI",Roboto,sans-serif}
main{max-width:1040px;margin:0 auto;padding:36px 24px 64px}
h1{font-size:26px;line-height:1.25;margin:0 0 4px;letter-spacing:-.01em;overflow-wrap:anywhere}
h2{font-size:17px;margin:38px 0 12px}h3{font-size:14px;font-weight:600;margin:0 0 8px}
.sub{color:var(--soft);margin:0 0 18px}.note{color:var(--soft);font-size:13px;margin:8px 0 0}
.status{font-size:13px;font-weight:600;padding:2px 9px;border-radius:99px;border:1px solid;
vertical-align:4px;margin-left:8px}
.completed{color:var(--good)}.failed,.crashed,.damaged{color:var(--bad)}.running,.stopped{color:var(--warn)}
.tiles{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px;margin:0}
.tile{background:var(--raised);border-radius:10px;padding:11px 14px}.tile dt{color:var(--soft);font-size:13px}
.tile dd{margin:0;font-size:22px;font-weight:600;font-variant-numeric:tabular-nums}
.tile dd small{display:block;font-size:12px;font-weight:400;color:var(--soft)}
.warn{background:var(--warnbg);color:var(--warn);border-radius:10px;padding:10px 16px;margin:18px 0}
.warn ul{margin:0;padding-left:18px}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(460px,100%),1fr));gap:24px}
figure{margin:0;min-width:0}svg{max-width:100%;height:auto;display:block}
.scroll{overflow-x:auto}table{border-collapse:collapse;font-size:14px;font-variant-numeric:tabular-nums}
th,td{padding:6px 14px 6px 0;border-bottom:1px solid var(--line);text-align:left;
vertical-align:top;overflow-wrap:break-word}
th{font-weight:600;color:var(--soft);white-space:nowrap}td.n,th.n{text-align:right;white-space:nowrap}
table.facts td{overflow-wrap:anywhere}table.facts td:first-child{color:var(--soft);white-space:nowrap}
tr.sum td{font-weight:600;border-bottom:0}
details{margin:10px 0;border:1px solid var(--line);border-radius:10px;padding:9px 14px}
summary{cursor:pointer;font-weight:600}
pre{overflow-x:auto;font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,monospace;margin:10px 0 4px}
code{font:13px ui-monospace,SFMono-Regular,Menlo,monospace}
.legend{display:flex;flex-wrap:wrap;gap:4px 16px;margin:4px 0 0 56px;font-size:13px;color:var(--soft)}
.legend i{display:inline-block;width:11px;height:3px;border-radius:2px;margin-right:6px;vertical-align:3px}
text{font-family:inherit}.tick{font-size:11px;fill:var(--soft)}.label{font-size:12px;fill:var(--soft)}
.cell{font-size:12px;fill:var(--ink)}.cell.over{fill:var(--ground);font-weight:600}
.grid{stroke:var(--line)}.axis{stroke:var(--soft)}.ideal{stroke:var(--soft);stroke-dasharray:4 4}
.line{fill:none;stroke-width:1.9;stroke-linejoin:round}.mark{fill-opacity:.5}.bar{fill-opacity:.85}
.tiles+.scroll{margin-top:16px}figure+.plots{margin-top:28px}
.best{fill-opacity:1}.faint{opacity:.35}.halo{paint-order:stroke;stroke:var(--ground);stroke-width:3px}
a{color:var(--c0);text-decoration:none;white-space:nowrap}a:hover{text-decoration:underline}
.hit{fill:var(--c0)}.miss{fill:var(--c1)}
"""
_COLOURS = "".join(
    f".c{i}{{fill:var(--c{i});background:var(--c{i})}}.line.c{i}{{stroke:var(--c{i});fill:none}}" for i in range(6)
)


def page(title: str, body: Iterable[str]) -> str:
    """A whole document that loads nothing: the policy in its head forbids scripts and every outside source."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}"><meta name="color-scheme" content="light dark">'
        f"<title>{safe(title)}</title><style>{STYLE}{_COLOURS}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part)
        + "\n</main></body></html>\n"
    )


def section(title: str, *content: str) -> str:
    """A heading with what belongs to it; nothing when there is nothing."""
    inside = "".join(content)
    return f"<section><h2>{safe(title)}</h2>{inside}</section>" if inside else ""


def figure(title: str, picture: str, note: str = "") -> str:
    """A titled chart; nothing when the chart is empty."""
    below = f'<p class="note">{safe(note)}</p>' if note else ""
    return f"<figure><h3>{safe(title)}</h3>{picture}{below}</figure>" if picture else ""


def plots(*figures: str) -> str:
    """Figures side by side where there is room."""
    drawn = "".join(figures)
    return f'<div class="plots">{drawn}</div>' if drawn else ""


def tiles(items: Iterable[tuple[str, str, str]]) -> str:
    """(name, value, small print) as large figures."""
    cells = "".join(
        f'<div class="tile"><dt>{safe(name)}</dt><dd>{safe(value)}<small>{safe(small)}</small></dd></div>'
        for name, value, small in items
    )
    return f'<dl class="tiles">{cells}</dl>' if cells else ""


@dataclass(frozen=True)
class Link:
    """A cell that leads to another page; plain text without an address."""

    text: str
    address: str | None

    def html(self) -> str:
        """The cell's content."""
        return safe(self.text) if self.address is None else f'<a href="{safe(self.address)}">{safe(self.text)}</a>'


def table(
    head: Sequence[str], rows: Iterable[Sequence[str | Link]], numbers_from: int = 1, last_is_sum: bool = False
) -> str:
    """A table whose columns from `numbers_from` on are right-aligned."""

    def line(cells: Sequence[str | Link], tag: str, css: str = "") -> str:
        parts = (
            f"<{tag}{' class=n' if i >= numbers_from else ''}>"
            f"{cell.html() if isinstance(cell, Link) else safe(cell)}</{tag}>"
            for i, cell in enumerate(cells)
        )
        return f"<tr{css}>{''.join(parts)}</tr>"

    lines = list(rows)
    if not lines:
        return ""
    body = "".join(
        line(cells, "td", " class=sum" if last_is_sum and i == len(lines) - 1 else "") for i, cells in enumerate(lines)
    )
    css = "" if head else " class=facts"
    top = f"<thead>{line(head, 'th')}</thead>" if head else ""
    return f'<div class="scroll"><table{css}>{top}<tbody>{body}</tbody></table></div>'


def warnings(sentences: Sequence[str]) -> str:
    """Sentences the reader must see before the figures."""
    items = "".join(f"<li>{safe(sentence)}</li>" for sentence in sentences)
    return f'<div class="warn"><ul>{items}</ul></div>' if items else ""


def details(title: str, text: str) -> str:
    """Folded preformatted text."""
    lines = "\n".join(safe(line) for line in text.splitlines())
    return f"<details><summary>{safe(title)}</summary><pre>{lines}</pre></details>" if text.strip() else ""
