"""The report's style sheet: light and dark, narrow and print, no fonts to load."""

from __future__ import annotations

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --paper: #fbfaf7; --card: #fff; --ink: #1d2430; --soft: #5b6472;
  --line: #d9d6cc; --accent: #0b6e69; --second: #a8541a; }
@media (prefers-color-scheme: dark) { :root { --paper: #14181e; --card: #1c222b; --ink: #e8eaee;
  --soft: #a0a9b6; --line: #38414d; --accent: #4fc3b8; --second: #f0a35e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: clamp(1.7rem, 4vw, 2.5rem); line-height: 1.15; margin: 0 0 .5rem;
  letter-spacing: -.02em; }
h2 { font-size: 1.3rem; margin: 0 0 1rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .4rem; }
section { margin-top: 2.75rem; }
.kicker { margin: 0 0 .3rem; color: var(--accent); font-weight: 600; font-size: .85rem;
  letter-spacing: .06em; text-transform: uppercase; }
.note, figcaption { color: var(--soft); font-size: .88rem; max-width: 46rem; }
code { font-size: .85em; overflow-wrap: anywhere; }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem; }
.tiles div, figure, article, details { background: var(--card); border: 1px solid var(--line);
  border-radius: .6rem; padding: 1rem; }
.tiles b { display: block; font-size: 1.7rem; letter-spacing: -.02em; }
.tiles span { color: var(--soft); font-size: .88rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(19rem, 1fr)); gap: .75rem;
  margin-bottom: 1.25rem; }
figure { margin: 0; }
svg { display: block; width: 100%; height: auto; }
svg text { font-family: inherit !important; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .5rem .75rem; border-bottom: 1px solid var(--line);
  white-space: nowrap; font-weight: 400; }
thead th { color: var(--soft); font-size: .85rem; }
th:first-child { text-align: left; }
tbody th { font-weight: 600; }
.bar { width: 8rem; height: .5rem; border-radius: 1rem; background: var(--line); overflow: hidden; }
.bar i { display: block; height: 100%; background: var(--accent); }
article { margin-bottom: .75rem; border-left: 4px solid var(--accent); }
article.none { border-left-color: var(--line); }
article h3 { margin-top: 0; }
article ol { padding-left: 1.4rem; margin: .5rem 0 0; font-size: .92rem; }
article li { margin-top: .5rem; }
cite { display: block; font-style: normal; color: var(--accent); overflow-wrap: anywhere; }
q { color: var(--soft); }
table + details { margin-top: .75rem; }
details { margin-bottom: .5rem; padding: .6rem 1rem; }
summary { cursor: pointer; font-weight: 600; }
details li { font-size: .88rem; margin: .3rem 0; overflow-wrap: anywhere; }
@media (max-width: 44rem) {
  thead { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
  table, tbody, tr, tbody th, td { display: block; }
  tbody tr { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
    padding: .6rem 1rem; margin-bottom: .6rem; }
  th, td { padding: .15rem 0; border: 0; white-space: normal; }
  td { display: flex; justify-content: space-between; align-items: center; gap: 1rem; }
  td::before { content: attr(data-of); color: var(--soft); font-size: .88rem; }
  td[data-of='']::before { content: 'share spent'; }
  .bar { flex: 0 1 8rem; }
}
@media print { .tiles div, figure, article { break-inside: avoid; } }
"""
