"""The page's style sheet: no assets, both colour schemes, tables that become cards on a phone."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ground: #f6f7f9; --card: #fff; --ink: #16202c; --soft: #556372; --line: #d9dfe6;
  --good: #1a7f37; --warn: #9a6700; --bad: #c0222c; --idle: #6e7781; --going: #0969da; --text-on: #fff; }
@media (prefers-color-scheme: dark) { :root { --ground: #0f141a; --card: #182029; --ink: #e6ebf0; --soft: #9aa7b4;
  --line: #2d3843; --good: #3fb950; --warn: #d29922; --bad: #ff6b68; --idle: #8b949e; --going: #58a6ff;
  --text-on: #0f141a; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif; }
header, main, footer { max-width: 76rem; margin: 0 auto; padding: 1rem; }
h1 { font-size: 1.5rem; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
p { margin: .25rem 0; }
a { color: var(--going); }
.soft, small { color: var(--soft); }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem; padding: 1rem;
  margin: 0 0 1rem; }
.alert { border-left: .4rem solid var(--bad); }
.facts { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .6rem 1.2rem; margin: 0; }
.facts dt { color: var(--soft); font-size: .875rem; }
.facts dd { margin: 0; overflow-wrap: anywhere; }
table { width: 100%; border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: .5rem .6rem; border-top: 1px solid var(--line);
  overflow-wrap: anywhere; }
thead th { color: var(--soft); font-size: .875rem; font-weight: 600; border-top: 0; }
th small { font-weight: 400; }
time { white-space: nowrap; }
.badge { display: inline-block; padding: 0 .55rem; border-radius: 1rem; font-size: .875rem; font-weight: 600;
  white-space: nowrap; color: var(--text-on); background: var(--idle); }
.badge.good { background: var(--good); } .badge.warn { background: var(--warn); }
.badge.bad { background: var(--bad); } .badge.going { background: var(--going); }
svg { display: block; max-width: 100%; }
svg .good { fill: var(--good); } svg .warn { fill: var(--warn); } svg .bad { fill: var(--bad); }
svg .idle { fill: var(--idle); } svg .going { fill: var(--going); } svg .track { fill: var(--line); }
svg .curve { fill: none; stroke: var(--going); stroke-width: 2; vector-effect: non-scaling-stroke; }
@media (max-width: 44rem) {
  header, main, footer { padding: .6rem; }
  table, tbody, tr, th, td { display: block; }
  thead { position: absolute; left: -100rem; }
  tr { border-top: 1px solid var(--line); padding: .5rem 0; }
  tbody th { font-size: 1.05rem; }
  th, td { border: 0; padding: .15rem 0; }
  td[data-label]::before { content: attr(data-label) ": "; color: var(--soft); }
}
"""
