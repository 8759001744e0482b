"""What the page of a report looks like: colours of the consoles, told apart by those who tell few colours apart too."""

from typing import Final

STYLE: Final = """
:root { color-scheme: light dark; --ink: #1f2328; --quiet: #59636e; --paper: #fff; --card: #f6f8fa; --line: #d1d9e0;
  --s0: #0969da; --s1: #bc4c00; --s2: #1a7f37; --s3: #8250df; --s4: #bf3989; --s5: #1b7c83; --s6: #7d4e00;
  --s7: #57606a; --s8: #a40e26;
  --good: #2da44e; --warn: #bf8700; --bad: #cf222e; --gone: #6e7781; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6edf3; --quiet: #9198a1; --paper: #0d1117; --card: #151b23;
  --line: #3d444d; --s0: #58a6ff; --s1: #f0883e; --s2: #56d364; --s3: #bc8cff; --s4: #f778ba;
  --s5: #56d4dd; --s6: #e3b341;
  --s7: #c9d1d9; --s8: #ffa198;
  --good: #3fb950; --warn: #d29922; --bad: #f85149; --gone: #8b949e; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 15px/1.45 system-ui, sans-serif; }
main { max-width: 96rem; margin: 0 auto; padding: 1.2rem 1.6rem 2rem; }
h1 { font-size: 1.3rem; font-weight: 600; margin: 0 0 0.6rem; overflow-wrap: anywhere; }
.lead { margin: 0 0 0.6rem; } .quiet { color: var(--quiet); font-size: 0.9rem; margin: 0.4rem 0 1.2rem; }
.notes { margin: 0.8rem 0; padding: 0.7rem 1rem 0.7rem 2rem;
  border-left: 4px solid var(--warn); background: var(--card); }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: 0.3rem 0.9rem 0.3rem 0;
  text-align: right; border-bottom: 1px solid var(--line); white-space: nowrap; }
th:first-child, th:nth-child(2), td:nth-child(2) { text-align: left; } th { font-weight: 600; }
thead th { color: var(--quiet); font-weight: 500; font-size: 0.9rem; } tbody th { font-weight: 500; }
.ok { color: var(--s2); } .no { color: var(--bad); }
.charts { display: grid;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 34rem), 1fr)); gap: 1rem; margin: 1.2rem 0; }
figure { margin: 0; padding: 0.9rem 1rem; background: var(--card); border: 1px solid var(--line); border-radius: 8px;
  min-width: 0; break-inside: avoid; }
figcaption { font-weight: 600; }
figcaption small { display: block; font-weight: 400; color: var(--quiet); }
.legend { list-style: none; display: flex; flex-wrap: wrap; gap: 0.1rem 1rem; margin: 0.3rem 0; padding: 0;
  color: var(--quiet); font-size: 0.85rem; }
.legend .key { width: 24px; height: 8px; margin-right: 0.35rem; vertical-align: middle; }
figure > svg { display: block; width: 100%; height: auto; }
svg text { font-size: 12px; fill: var(--quiet); } .m { text-anchor: middle; } .e { text-anchor: end; }
.g { stroke: var(--line); stroke-width: 1; fill: none; opacity: 0.7; }
.l { fill: none; stroke-width: 2; stroke-linejoin: round; stroke: currentColor; } .l.d { stroke-dasharray: 5 4; }
.f { fill: currentColor; } .h { fill: transparent; } .h:hover { fill: currentColor; }
.s0 { color: var(--s0); } .s1 { color: var(--s1); } .s2 { color: var(--s2); }
.s3 { color: var(--s3); } .s4 { color: var(--s4); } .s5 { color: var(--s5); }
.s6 { color: var(--s6); } .s7 { color: var(--s7); } .s8 { color: var(--s8); }
.good { color: var(--good); } .warn { color: var(--warn); } .bad { color: var(--bad); } .gone { color: var(--gone); }
.key .l { stroke-width: 3; }
details { margin: 0.4rem 0; color: var(--quiet); }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0.1rem 1rem; }
dd { margin: 0; overflow-wrap: anywhere; }
@media print { .charts { grid-template-columns: 1fr 1fr; } body { font-size: 11px; } }
"""
