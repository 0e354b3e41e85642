"""The page's sheet: system fonts, light and dark, narrow and wide, screen and paper.

The colours of the models keep apart in all common kinds of colour blindness (Okabe and Ito's blue
and vermilion against a grey and a purple), and every model has a shape besides.
"""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fafaf8; --card: #fff; --ink: #15181c; --soft: #59626d; --rule: #e1e4e8; --grid: #eceef1;
  --teacher: #4d5966; --student: #0069b4; --control: #d05300; --int8: #9b3f8f;
  --good: #00724f; --bad: #b3261e; --open: #855b00; --flat: #4d5966; --band: #8792a026;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --paper: #0f1215; --card: #171b20; --ink: #eaedf0; --soft: #9ba6b2; --rule: #2b323a;
    --grid: #232930; --teacher: #b5bfca; --student: #5db5f5; --control: #f2934f; --int8: #dd92d0;
    --good: #4bcb9d; --bad: #ff8d84; --open: #e8ba50; --flat: #b5bfca; --band: #8792a033;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0; background: var(--paper); color: var(--ink); font-size: 16px; line-height: 1.5;
  font-family: system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", Arial,
    sans-serif;
  font-variant-numeric: tabular-nums;
}
main { max-width: 1120px; margin: 0 auto; padding: 28px 24px 64px; }
h1, h2, h3, p, ul, ol, dl, figure { margin: 0; padding: 0; }
ul, ol { list-style: none; }
a { color: inherit; }
code { font-family: ui-monospace, "SF Mono", "Cascadia Mono", Menlo, Consolas, monospace; }
svg { display: block; max-width: 100%; height: auto; overflow: visible; }
svg.window { overflow: hidden; }
small { font-size: inherit; }
.quiet { color: var(--soft); font-weight: 400; }
.teacher { --c: var(--teacher); } .student { --c: var(--student); }
.control { --c: var(--control); } .student_int8 { --c: var(--int8); }

.hero { --tone: var(--flat); display: grid; grid-template-columns: 1.25fr 1fr; gap: 40px;
  align-items: center; padding: 44px 40px 36px; border-radius: 20px; background: var(--card);
  border: 1px solid var(--rule); position: relative; overflow: hidden; }
.hero::before { content: ""; position: absolute; inset: 0 0 auto; height: 8px;
  background: var(--tone); }
.hero.helped { --tone: var(--good); } .hero.hurt { --tone: var(--bad); }
.hero.undecided { --tone: var(--open); }
.eyebrow { font-weight: 600; overflow-wrap: anywhere; }
h1 { color: var(--tone); font-size: clamp(2.2rem, 10vw, 3.9rem); font-weight: 800; line-height: 1;
  letter-spacing: -.035em; margin: 14px 0 18px; display: flex; gap: .28em; align-items: baseline; }
h1 .sign { font-size: .6em; letter-spacing: 0; }
.sentence { font-size: 1.2rem; line-height: 1.45; max-width: 34em; overflow-wrap: anywhere; }
.chips { display: flex; flex-wrap: wrap; gap: 8px; margin-top: 20px; }
.chip { border: 1.5px solid var(--c, var(--rule)); color: var(--c, var(--soft)); font-weight: 600;
  border-radius: 99px; padding: 3px 13px; font-size: .9rem; }
.yes { --c: var(--good); } .no { --c: var(--bad); } .open { --c: var(--open); }
.chip a { text-decoration: none; }
.notes { margin-top: 16px; color: var(--soft); font-size: .92rem; }
.notes li { overflow-wrap: anywhere; margin-top: 4px; }
.proof { display: grid; gap: 14px; }
.proof svg { width: 100%; }

.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(200px, 1fr)); gap: 16px;
  margin-top: 16px; }
.tile, .box, .card, .panel { background: var(--card); border: 1px solid var(--rule);
  border-radius: 14px; }
.tile { padding: 18px 20px; }
.big { font-size: 2.5rem; font-weight: 750; letter-spacing: -.03em; line-height: 1.1; }
.what { font-weight: 600; }
.tile .quiet { font-size: .85rem; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 380px), 1fr));
  gap: 16px; margin-top: 16px; }
.box { padding: 18px 20px; min-width: 0; }
.box h2 { font-size: 1rem; margin: 0 0 10px; }
.box p { display: flex; gap: .5em; align-items: baseline; }
.box .at { margin-left: auto; white-space: nowrap; }
.files { display: grid; gap: 12px; }
.files code { display: block; padding: 7px 10px; border-radius: 8px; background: var(--grid);
  font-size: .85rem; overflow-wrap: anywhere; }
.checks { display: grid; gap: 8px; }
.meter { position: relative; height: 6px; border-radius: 3px; background: var(--grid);
  margin: 4px 0; }
.meter i { display: block; height: 100%; border-radius: 3px; background: var(--c, var(--soft)); }
.meter b { position: absolute; top: -4px; height: 14px; border-left: 2.5px solid var(--ink); }
.checks .sign { color: var(--c); font-weight: 700; }

main > section { margin-top: 56px; }
main > section > h2 { font-size: 1.55rem; letter-spacing: -.02em; line-height: 1.2; }
.lead { color: var(--soft); max-width: 46em; margin-top: 4px; }
.panels { display: grid; gap: 16px; margin-top: 18px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.panels.three { grid-template-columns: repeat(auto-fill, minmax(min(100%, 300px), 1fr)); }
.panels.four { grid-template-columns: repeat(auto-fill, minmax(min(100%, 220px), 1fr)); }
.panel { padding: 18px 18px 14px; min-width: 0; }
.panel svg { width: 100%; margin: 0 auto; }
.panel h3 { font-size: 1rem; margin-bottom: 10px; }
figcaption { color: var(--soft); font-size: .85rem; line-height: 1.4; margin-top: 6px; }
.keys { display: flex; flex-wrap: wrap; gap: 4px 18px; margin-top: 10px; }
.key { display: inline-flex; align-items: center; gap: 6px; font-weight: 600; font-size: .9rem; }
.key .sign, th .sign { display: inline-block; width: 16px; height: 16px; vertical-align: -2px; }

table { border-collapse: collapse; width: 100%; }
table[role] { margin-top: 18px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 14px; border-spacing: 0; border-collapse: separate; overflow: hidden;
  table-layout: fixed; }
thead td { width: 26%; }
th, td { text-align: right; padding: 9px 18px; vertical-align: baseline; }
table[role] tbody th { text-align: left; font-weight: 500; color: var(--soft); }
table[role] tbody tr > * { border-top: 1px solid var(--grid); }
thead th { font-size: 1.02rem; white-space: nowrap; }
td.student, th.student { background: color-mix(in srgb, var(--student) 7%, transparent); }
.number { display: block; font-weight: 600; overflow-wrap: anywhere; }
td small { display: block; color: var(--soft); font-size: .8rem; line-height: 1.3; }
tbody tr:first-child .number { font-size: 1.2rem; }
table.plain { font-size: .85rem; max-width: 560px; }
table.plain th, table.plain td { padding: 5px 6px; white-space: normal; }
table.plain th { font-weight: 500; } table.plain th:first-child { text-align: left; }

svg text { fill: var(--ink); font-size: 12px; }
svg .tick { fill: var(--soft); font-size: 11px; }
svg .name { fill: var(--ink); }
svg .title { fill: var(--soft); font-size: 11.5px; font-weight: 600; }
svg .label { fill: var(--c); font-weight: 650; }
svg .true { font-weight: 800; }
.grid { stroke: var(--grid); stroke-width: 1; }
.axis, .zero { stroke: var(--soft); stroke-width: 1; }
.zero { stroke: var(--ink); }
.ideal { stroke: var(--soft); stroke-width: 1.2; stroke-dasharray: 2 4; }
.mark { fill: var(--c); stroke: var(--card); stroke-width: 1.5; }
.whisker { stroke: var(--c); stroke-width: 2.5; stroke-linecap: round; opacity: .75; }
.budget { stroke: var(--ink); stroke-width: 1.5; stroke-dasharray: 5 3; }
.outside { fill: var(--band); opacity: .55; }
.curve { fill: none; stroke: var(--c); stroke-linejoin: round; stroke-linecap: round; }
.curve.thin { stroke-width: 1; opacity: .38; }
.curve.mean { stroke-width: 2.8; }
.curve.mean.control { stroke-dasharray: 7 5; }
.dots { fill: none; stroke: var(--c); stroke-width: 4.5; stroke-linecap: round; opacity: .45; }
.bar { fill: var(--c); } .bar.pale { fill-opacity: .3; stroke: var(--c); }
.reach { stroke: var(--ink); stroke-width: 1.2; opacity: .65; }
.track { fill: var(--grid); }
.share { fill: var(--c, var(--soft)); }
.way { fill: var(--student); opacity: .35; stroke: var(--c); stroke-width: 2.5; }
rect.way { stroke: none; }
.measured { stroke: var(--ink); stroke-width: 2; }
.confusion .right { fill: var(--soft); fill-opacity: .12; }
.confusion .wrong { fill: var(--c); }
.confusion .cell { fill: var(--ink); } .confusion .strong { fill: var(--card); font-weight: 700; }
.confusion g:hover > rect { stroke: var(--ink); stroke-width: 1.5; }
.effect .band { fill: var(--band); }
.effect .interval { fill: var(--tone); opacity: .38; }
.effect .estimate { stroke: var(--tone); stroke-width: 5; stroke-linecap: round; }
.effect .value { fill: var(--tone); font-size: 17px; font-weight: 750; }
.effect .seeds { fill: var(--card); stroke: var(--tone); stroke-width: 1.8; }

.gallery { display: grid; gap: 14px; margin-top: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 250px), 1fr)); }
.card { padding: 14px; min-width: 0; break-inside: avoid; }
.card > svg { width: 100%; max-width: 300px; margin-top: 10px; }
.card .row { display: flex; gap: 12px; align-items: flex-start; }
.card img { width: 84px; height: 84px; flex: none; object-fit: contain; border-radius: 8px;
  image-rendering: pixelated; background: var(--grid); }
.words { min-width: 0; overflow-wrap: anywhere; line-height: 1.35; }
.label b { font-size: 1.05rem; }
.why { font-size: .88rem; margin-top: 4px; text-wrap: pretty; }
.values { display: grid; grid-template-columns: auto 1fr; gap: 1px 12px; font-size: .84rem;
  margin-top: 8px; }
.values dt { color: var(--soft); }
.values dd { margin: 0; text-align: right; overflow-wrap: anywhere; }

details { margin-top: 12px; background: var(--card); border: 1px solid var(--rule);
  border-radius: 14px; padding: 12px 18px; }
summary { cursor: pointer; font-weight: 600; }
details pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: .82rem; line-height: 1.5;
  margin: 12px 0 4px; }
.warnings li { border-left: 4px solid var(--open); padding: 6px 14px; margin-top: 10px;
  background: var(--card); overflow-wrap: anywhere; }
footer { margin-top: 48px; color: var(--soft); font-size: .85rem; overflow-wrap: anywhere; }

@media (max-width: 1030px) {
  .hero { grid-template-columns: minmax(0, 1fr); gap: 24px; }
}
@media (max-width: 600px) {
  main { padding: 12px 12px 40px; }
  .hero { padding: 24px 18px; border-radius: 16px; }
  .tiles { grid-template-columns: 1fr 1fr; gap: 10px; }
  .tile { padding: 14px; } .big { font-size: 1.9rem; }
  main > section { margin-top: 40px; }
  .panel { padding: 14px 10px 10px; }
  .panels.four { grid-template-columns: 1fr 1fr; gap: 10px; }
  table[role], table[role] thead, table[role] tbody { display: block; }
  table[role] tr { display: grid; grid-template-columns: repeat(var(--models), 1fr); }
  table[role] thead td { display: none; }
  table[role] tbody th { grid-column: 1 / -1; padding: 9px 10px 0; font-size: .85rem; }
  table[role] tbody tr > td { border-top: 0; }
  table[role] td, table[role] thead th { padding: 3px 8px 7px; font-size: .9rem; min-width: 0; }
  thead th { font-size: .85rem; white-space: normal; }
  thead th .sign { display: block; margin: 0 0 2px auto; }
  tbody tr:first-child .number { font-size: 1rem; }
  td small { font-size: .7rem; letter-spacing: -.02em; }
  svg.wide text { font-size: 13.5px; }
  svg.wide .tick, svg.wide .title { font-size: 13px; } svg.wide .value { font-size: 18px; }
  svg.small text { font-size: 15px; }
  .gallery { gap: 10px; }
  .gallery.tight { grid-template-columns: 1fr 1fr; }
  .gallery.tight .card { padding: 10px; } .gallery.tight .card .row { display: block; }
  .gallery.tight .words { margin-top: 6px; }
}
@media print {
  :root { color-scheme: light; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  main { max-width: none; padding: 0; }
  .hero, .tile, .panel, .card, .box, tr { break-inside: avoid; }
}
"""
