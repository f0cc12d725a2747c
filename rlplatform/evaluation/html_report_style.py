"""How the HTML report looks: one palette as CSS variables, light and dark, which figures share with the text."""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.colors import to_hex, to_rgb

from rlplatform.evaluation.figure_style import ASSETS, BASELINES, CASH, FAINT, INK, MUTED, OTHER, POLICY, RULE, SHADE

_DARK_BASELINES = ("#f2a154", "#4fc3a8", "#b894ea", "#e07a97", "#cdb05a", "#7db9da")
_DARK_ASSETS = ("#4b93dd", "#e39a4e", "#43b3a6", "#a680d8", "#d46d87", "#8fbfec", "#b4c566", "#ab8967")

# Name of the CSS variable → colour on white, colour on the dark page.
_NAMED = {
    "page": ("#ffffff", "#11161e"),
    "ink": (INK, "#e6e9ef"),
    "muted": (MUTED, "#9aa4b2"),
    "rule": (RULE, "#2b3442"),
    "faint": (FAINT, "#4a5666"),
    "shade": (SHADE, "#182231"),
    "policy": (POLICY, "#6fb1f2"),
    "other": (OTHER, "#5d6878"),
    "cash": (CASH, "#28313e"),
    "gain": ("#12876f", "#4fc3a8"),
    "loss": ("#b03a5b", "#e07a97"),
}
PALETTE: dict[str, tuple[str, str]] = {
    **{name: (to_hex(light), to_hex(dark)) for name, (light, dark) in _NAMED.items()},
    **{f"line-{i}": (to_hex(c), d) for i, (c, d) in enumerate(zip(BASELINES, _DARK_BASELINES, strict=True))},
    **{f"asset-{i}": (to_hex(c), d) for i, (c, d) in enumerate(zip(ASSETS, _DARK_ASSETS, strict=True))},
    # Labels of areas are written darker than the areas, see `allocation_plots`; on the dark page they need no change.
    **{
        f"asset-{i}-text": (to_hex([0.8 * part for part in to_rgb(c)]), d)
        for i, (c, d) in enumerate(zip(ASSETS, _DARK_ASSETS, strict=True))
    },
}

_RULES = """
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 66rem; padding: 1.5rem 1rem 4rem; color: var(--ink); background: var(--page);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; overflow-wrap: anywhere; }
h1 { font-size: 1.55rem; line-height: 1.3; margin: .2rem 0 .8rem; text-wrap: balance; }
h2 { font-size: 1.15rem; margin: 3rem 0 .5rem; padding-top: 1rem; border-top: 1px solid var(--rule); }
p { margin: 0 0 .8rem; max-width: 46rem; }
.quiet, .overline, figcaption, li.quiet { color: var(--muted); font-size: .92rem; }
.overline { margin: 0; }
nav { display: flex; flex-wrap: wrap; gap: .2rem 1rem; margin: 1rem 0 0; font-size: .92rem; }
a { color: var(--policy); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .75rem;
  margin: 1.25rem 0; padding: 0; }
.cards div { background: var(--shade); border-radius: .5rem; padding: .6rem .8rem; }
.cards dt { color: var(--muted); font-size: .85rem; }
.cards dd { margin: 0; font-size: 1.3rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.cards small { display: block; color: var(--muted); font-weight: 400; font-size: .8rem; line-height: 1.35; }
.wide { overflow-x: auto; margin: .5rem 0 1rem; }
.wide:focus-visible { outline: 2px solid var(--policy); outline-offset: 2px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th { color: var(--muted); font-weight: 500; text-align: right; vertical-align: bottom; border-bottom: 2px solid var(--rule); }
td { text-align: right; border-bottom: 1px solid var(--rule); vertical-align: top; }
th, td { padding: .35rem .5rem; white-space: nowrap; overflow-wrap: normal; }
th.text, td.text { text-align: left; }
td.long { white-space: normal; min-width: 17rem; color: var(--muted); }
tr.strong td { background: var(--shade); font-weight: 600; }
tr.strong td:first-child { color: var(--policy); }
table.heat td { border: 2px solid var(--page); min-width: 3rem; padding: .3rem .35rem; }
table.heat td.up { background: color-mix(in srgb, var(--gain) var(--share), var(--page)); }
table.heat td.down { background: color-mix(in srgb, var(--loss) var(--share), var(--page)); }
table.heat td:last-child { font-weight: 600; }
figure { margin: 1rem 0 1.5rem; }
figure .wide { margin: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption strong { color: var(--ink); font-size: 1rem; font-weight: 600; }
figure svg * { stroke-linejoin: round; stroke-linecap: butt; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--policy); padding: .3rem 0; }
pre { overflow-x: auto; background: var(--shade); border-radius: .5rem; padding: .8rem; font-size: .8rem;
  overflow-wrap: normal; }
ul { padding-left: 1.2rem; }
@media (max-width: 40rem) {
  h1 { font-size: 1.3rem; }
  .cards { grid-template-columns: 1fr 1fr; }
  table.statistics, table.statistics tbody { display: block; }
  table.statistics thead { display: none; }
  table.statistics tr { display: grid; grid-template-columns: 1fr auto; padding: .4rem 0;
    border-bottom: 1px solid var(--rule); }
  table.statistics td { border: 0; padding: .1rem 0; white-space: normal; }
  table.statistics td.long { grid-column: 1 / -1; font-size: .85rem; min-width: 0; text-align: left; }
  figure .wide { direction: rtl; } figure .wide > * { direction: ltr; } /* the end of the test comes first */
  figure svg { min-width: 42rem; }
  figure .wide::after { content: "← swipe for the rest"; direction: ltr; text-align: right; }
  figure .wide.start { direction: ltr; } figure .wide.start svg { min-width: 36rem; }
  figure .wide.start::after { content: "swipe for the rest →"; text-align: left; }
  .wide.table::after { content: "swipe for the rest →"; }
  figure .wide::after, .wide.table::after { position: sticky; left: 0; display: block;
    color: var(--muted); font-size: .75rem; }
  .wide.whole::after { display: none; }
}
@media print { .wide { overflow: visible; } nav { display: none; } }
"""


def stylesheet() -> str:
    """The whole CSS: both palettes, then the rules."""
    light, dark = (_variables((name, pair[side]) for name, pair in PALETTE.items()) for side in (0, 1))
    scheme = "@media (prefers-color-scheme: dark) {\n:root { " + dark + " }\n}"
    return f":root {{ color-scheme: light dark; {light} }}\n{scheme}{_RULES}"


def _variables(colors: Iterable[tuple[str, str]]) -> str:
    return " ".join(f"--{name}: {color};" for name, color in colors)
