"""The style sheet of the report: readable on a desk, on a phone and on paper, in light and in dark."""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page: #ffffff; --card: #f6f8fa; --ink: #1b1f24; --soft: #59636e; --grid: #d8dee4; --on: #ffffff;
  --right: #1a7f5a; --wrong: #c2410c; --warn: #fff4d6; --warn-edge: #b7791f;
  --series-1: #2563eb; --series-2: #d97706; --series-3: #0f766e; --series-4: #a21caf; }
@media (prefers-color-scheme: dark) { :root {
  --page: #14171b; --card: #1c2127; --ink: #e6e9ed; --soft: #9aa5b1; --grid: #39424c; --on: #10141a;
  --right: #4ade9a; --wrong: #fb923c; --warn: #33290f; --warn-edge: #d9a441;
  --series-1: #6ea8fe; --series-2: #f6b04e; --series-3: #4fd1c5; --series-4: #e08bf0; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink); line-height: 1.5;
  font-family: system-ui, "Noto Sans", "Noto Sans CJK SC", "PingFang SC", "Microsoft YaHei", sans-serif; }
main { max-width: 1060px; margin: 0 auto; padding: 24px 16px 48px; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 12px; overflow-wrap: anywhere; }
h2 { font-size: 1.2rem; margin: 36px 0 10px; padding-bottom: 4px; border-bottom: 1px solid var(--grid); }
h3 { font-size: 1rem; margin: 14px 0 6px; }
p { margin: 6px 0; max-width: 75ch; }
.soft, .none, figcaption { color: var(--soft); font-size: 0.9rem; }
.score { font-size: 2.6rem; font-weight: 650; line-height: 1.1; margin: 4px 0; }
.score small { font-size: 1rem; font-weight: 400; color: var(--soft); white-space: nowrap; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 400px), 1fr)); gap: 20px;
  align-items: start; }
.pair > * { min-width: 0; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 2px 16px; margin: 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
.warnings { list-style: none; padding: 0; margin: 12px 0; }
.warnings li { background: var(--warn); border-left: 4px solid var(--warn-edge); padding: 8px 12px;
  margin: 6px 0; overflow-wrap: anywhere; }
figure { margin: 0; overflow-x: auto; }
svg.chart { max-width: 100%; height: auto; display: block; }
svg.chart.matrix { max-width: none; }
table { border-collapse: collapse; width: 100%; font-size: 0.92rem; }
th, td { text-align: left; vertical-align: top; padding: 5px 10px 5px 0;
  border-bottom: 1px solid var(--grid); }
th { color: var(--soft); font-weight: 600; }
td { overflow-wrap: anywhere; }
.n { text-align: right; white-space: nowrap; font-variant-numeric: tabular-nums; }
.name { min-width: 7.5em; }
.text { min-width: 12em; white-space: pre-line; }
.scroll { overflow-x: auto; }
pre { background: var(--card); padding: 12px; overflow-x: auto; font-size: 0.85rem; border-radius: 6px; }
@media (max-width: 560px) {
  table { font-size: 0.84rem; } th, td { padding-right: 6px; }
  td.n .soft { display: block; } .mistakes .name { min-width: 0; }
  .mistakes tr { display: grid; grid-template-columns: 1fr 1fr auto; border-bottom: 1px solid var(--grid);
    padding: 6px 0; }
  .mistakes td { border: 0; } .mistakes thead { display: none; } .mistakes .text { grid-column: 1 / -1; }
  .mistakes td[data-as]::before { content: attr(data-as) " "; color: var(--soft); } }
@media print {
  :root { --page: #ffffff; --card: #f6f8fa; --ink: #000000; --soft: #444444; --grid: #cccccc; --on: #ffffff;
    --right: #1a7f5a; --wrong: #c2410c; --warn: #ffffff; color-scheme: light; }
  main { max-width: none; padding: 0; } h2 { break-after: avoid; } tr, figure { break-inside: avoid; }
  svg.chart.matrix { max-width: 100%; } pre { white-space: pre-wrap; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; } }
"""
