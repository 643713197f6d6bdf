"""The page's HTML and CSS, as one jinja2 template. What is put into it is in `page.py`.

Nothing is loaded from anywhere: no script, no font, no picture that is not in the page. Both colour
schemes are variables; the pictures use the same ones.
"""

PAGE = """\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="generator" content="fairway {{ version }}">
<title>{{ title }}</title>
<style>
:root {
  --page: #f6f7f8; --card: #ffffff; --ink: #1f2328; --quiet: #59636e; --line: #d9dde2;
  --blue: #0072b2; --orange: #d55e00; --green: #00865f; --grey: #8c959f; --pale: #c3c9d0;
  --good: #006b4b; --good-ground: #e3f4ed; --bad: #a73a00; --bad-ground: #fdeadd;
  --open: #59636e; --open-ground: #eceff2;
}
@media (prefers-color-scheme: dark) {
  :root {
    --page: #14171a; --card: #1c2024; --ink: #e6e8eb; --quiet: #a3abb4; --line: #343a41;
    --blue: #56b4e9; --orange: #f28a3c; --green: #35c496; --grey: #828b95; --pale: #4a525b;
    --good: #5fd6ad; --good-ground: #12322a; --bad: #ffab73; --bad-ground: #3d2313;
    --open: #a3abb4; --open-ground: #2a2f35;
  }
}
* { box-sizing: border-box; }
body {
  margin: 0; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", sans-serif;
  -webkit-text-size-adjust: 100%;
}
main { max-width: 70rem; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.6rem; line-height: 1.25; margin: 0 0 .25rem; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 0 0 .75rem; }
h3 { font-size: 1rem; margin: 1.25rem 0 .5rem; }
p { margin: 0 0 .75rem; }
.quiet { color: var(--quiet); }
.small { font-size: .875rem; }
.card {
  background: var(--card); border: 1px solid var(--line); border-radius: 10px;
  padding: 1.25rem; margin: 1rem 0; min-width: 0;
}
.pair { display: grid; gap: 1rem; grid-template-columns: minmax(0, 1fr); margin: 1rem 0; }
.pair > .card { margin: 0; }
@media (min-width: 56rem) { .pair { grid-template-columns: repeat(2, minmax(0, 1fr)); } }
.headline { display: flex; flex-wrap: wrap; gap: 1rem 3rem; align-items: flex-end; }
.score { font-size: 3.25rem; font-weight: 650; line-height: 1; letter-spacing: -.02em; }
.score.void { text-decoration: line-through; text-decoration-thickness: 3px; color: var(--bad); }
.claim { font-size: 1.6rem; font-weight: 600; line-height: 1; color: var(--quiet); }
.score, .claim, td, .chips { font-variant-numeric: tabular-nums; }
.chips {
  display: flex; flex-wrap: wrap; gap: .5rem; list-style: none; padding: 0; margin: 1.25rem 0 0;
}
.chip {
  border-radius: 6px; padding: .2rem .6rem; font-size: .875rem;
  color: var(--open); background: var(--open-ground);
}
.chip b { font-weight: 650; }
.kept { color: var(--good); background: var(--good-ground); }
.broken { color: var(--bad); background: var(--bad-ground); }
.alarm {
  color: var(--bad); background: var(--bad-ground); border-radius: 8px;
  padding: .75rem 1rem; margin: 1.25rem 0 0;
}
.scroll { overflow-x: auto; margin: 0 -.25rem; padding: 0 .25rem; }
table { border-collapse: collapse; width: 100%; font-size: .9375rem; }
caption { text-align: left; font-weight: 650; padding-bottom: .4rem; }
th, td { text-align: right; padding: .4rem .5rem; border-bottom: 1px solid var(--line); }
th { font-weight: 500; font-size: .8125rem; color: var(--quiet); vertical-align: bottom; }
th:first-child, td:first-child, .words th, .words td { text-align: left; }
th:first-child, td:first-child { padding-left: 0; }
th:last-child, td:last-child { padding-right: 0; }
td { white-space: nowrap; }
.words td { white-space: normal; vertical-align: top; overflow-wrap: break-word; }
.words td.mark { white-space: nowrap; }
tr.strong td { font-weight: 650; }
@media (max-width: 36rem) {  /* a line of words beneath its name instead of a narrow column */
  .stack thead { display: none; }
  .stack tr { display: block; padding: .6rem 0; border-bottom: 1px solid var(--line); }
  .stack td { display: inline-block; padding: 0 .5rem 0 0; border: 0; }
  .stack td:last-child { display: block; margin-top: .25rem; }
}
tr:last-child td { border-bottom: 0; }
td.none { color: var(--quiet); }
.notes { color: var(--quiet); font-size: .875rem; margin: .6rem 0 0; padding-left: 1.1rem; }
.notes li { overflow-wrap: anywhere; }
figure { margin: 0; }
figure svg { display: block; width: 100%; max-width: 34rem; height: auto; }
code, pre { font: .8438rem/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
pre {
  overflow-x: auto; background: var(--page); border: 1px solid var(--line); border-radius: 8px;
  padding: .75rem 1rem; margin: 0;
}
td code { overflow-wrap: anywhere; }
summary { cursor: pointer; font-weight: 600; }
details.run { margin: 2rem 0 0; border-top: 1px solid var(--line); padding-top: 1rem; }
details.run > summary { font-size: 1.15rem; overflow-wrap: anywhere; }
.card details { margin-top: 1rem; }
.card details pre { margin-top: .6rem; max-height: 26rem; overflow: auto; }
:focus-visible { outline: 2px solid var(--blue); outline-offset: 2px; }
@media print { body { background: none; } .card { break-inside: avoid; } }
</style>
</head>
<body>
<main>
{%- macro grid(table, caption=True) %}
<div class="scroll" tabindex="0" role="region" aria-label="{{ table.title }}">
<table>
{%- if caption %}<caption>{{ table.title }}</caption>{% endif %}
<thead><tr>{% for name in table.columns %}<th scope="col">{{ name }}</th>{% endfor %}</tr></thead>
<tbody>
{%- for row in table.rows %}
<tr{% if loop.index0 == table.strong %} class="strong"{% endif %}>
{%- for cell in row %}<td{% if cell == "not run" %} class="none"{% endif %}>{{ cell }}</td>
{%- endfor %}</tr>
{%- endfor %}
</tbody>
</table>
</div>
{%- if table.notes %}
<ul class="notes">{% for note in table.notes %}<li>{{ note }}</li>{% endfor %}</ul>
{%- endif %}
{%- endmacro %}

{%- macro head(first, second, third) %}
<thead><tr>{% for name in (first, second, third) %}<th scope="col">{{ name }}</th>{% endfor %}
</tr></thead>
{%- endmacro %}

{%- macro mark(state, words) %}
{#- a green or red label where a promise was kept or broken, a grey one elsewhere -#}
<span class="chip {{ state if state in ("kept", "broken") else "open" }}">{{ words }}</span>
{%- endmacro %}

{%- macro picture(svg) %}
{%- if svg %}<div class="card"><figure>{{ svg }}</figure></div>{% endif %}
{%- endmacro %}

{%- macro one_run(run) %}
<section class="card" aria-label="Score of {{ run.name }}">
<div class="headline">
<div>
{%- if run.score %}
<div class="score{% if run.broken %} void{% endif %}">{{ run.score }}</div>
<div class="quiet">bits per byte over {{ run.scored }}</div>
{%- else %}
<div class="score">no score</div><div class="quiet">the validation text was not scored</div>
{%- endif %}
</div>
<div>
{%- if run.claim %}
<div class="claim">{{ run.claim }}</div><div class="quiet">{{ run.claim_words }}</div>
{%- else %}
<div class="quiet">{{ run.claim_words }}</div>
{%- endif %}
</div>
</div>
<ul class="chips">
{%- for check in run.checks %}
<li class="chip {{ check.state if check.state in ("kept", "broken") else "open" }}">
{{- {"kept": "✓ ", "broken": "✗ "}.get(check.state, "") }}<b>{{ check.name }}</b> {{ check.short -}}
</li>
{%- endfor %}
</ul>
{%- if run.broken %}
<div class="alarm" role="alert"><b>This score does not stand.</b>
{%- for check in run.broken %} {{ check.name }}: {{ check.sentence }}{% endfor %}</div>
{%- endif %}
</section>

<div class="pair">
<section class="card">{{ grid(run.stages) }}</section>
<section class="card">{{ grid(run.baselines) }}</section>
{{ picture(run.pictures.stages) }}
{{ picture(run.pictures.running) }}
{{ picture(run.pictures.chunks) }}
{{ picture(run.pictures.loss) }}
{{ picture(run.pictures.seconds) }}
{{ picture(run.pictures.artifact) }}
<section class="card">{{ grid(run.artifact) }}</section>
</div>

{%- if run.diagnostics %}
<section class="card words">
<h2>Numbers that are not scores</h2>
<div class="scroll"><table class="stack">{{ head("what", "bits per byte", "what it is") }}
<tbody>
{%- for name, value, words in run.diagnostics %}
<tr><td>{{ name }}</td><td class="mark">{{ value }}</td><td>{{ words }}</td></tr>
{%- endfor %}
</tbody></table></div>
</section>
{%- endif %}

<section class="card words">
<h2>What was promised</h2>
<div class="scroll"><table class="stack">{{ head("promise", "kept?", "in words") }}
<tbody>
{%- for check in run.checks %}
<tr><td>{{ check.name }}</td><td class="mark">{{ mark(check.state, check.state) }}</td>
<td>{{ check.sentence }}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- if run.probes %}
<h3>Audit</h3>
<div class="scroll"><table class="stack">{{ head("probe", "held?", "what was done and found") }}
<tbody>
{%- for probe in run.probes %}
<tr><td>{{ probe.name }}</td><td class="mark">
{{- mark("kept", "ok") if probe.ok else mark("broken", "failed") }}</td><td>{{ probe.summary }}
{%- for finding in probe.findings %}<br>{{ finding }}{% endfor %}
{%- for gap in probe.not_covered %}<br><span class="quiet">not covered: {{ gap }}</span>
{%- endfor %}</td></tr>
{%- endfor %}
</tbody></table></div>
{%- endif %}
{%- if run.certificate %}
<details><summary>Certificate</summary><pre>{{ run.certificate }}</pre></details>
{%- endif %}
</section>

<section class="card words">
<h2>Recipe</h2>
<p>{{ run.recipe_words }}</p>
{%- if run.difference %}
<div class="scroll"><table>{{ head("setting", run.parent, "this run") }}
<tbody>
{%- for name, old, new in run.difference %}
<tr><td><code>{{ name }}</code></td><td><code>{{ old }}</code></td>
<td><code>{{ new }}</code></td></tr>
{%- endfor %}
</tbody></table></div>
{%- endif %}
{%- if run.recipe %}
<details><summary>All settings</summary><pre>{{ run.recipe }}</pre></details>
{%- endif %}
</section>

<section class="card">
<h2>Do it again</h2>
<pre>{{ run.commands }}</pre>
</section>
{%- endmacro %}

<header>
<h1>{{ title }}</h1>
<p class="quiet">{{ subtitle }}</p>
</header>
{%- if comparison %}
<section class="card">
<h2>Comparison</h2>
{{ grid(comparison.groups, False) }}
{%- if comparison.sentences %}
<ul>{% for sentence in comparison.sentences %}<li>{{ sentence }}</li>{% endfor %}</ul>
{%- endif %}
<p class="quiet small">Deviation is that of a sample. The field asks a new best to be lower by
{{ comparison.threshold }} nats per token at p &lt; {{ comparison.significance }}.</p>
<h3>Runs</h3>
{{ grid(comparison.runs, False) }}
</section>
{%- for run in runs %}
<details class="run" id="run-{{ loop.index }}"><summary>{{ run.name }}
{%- if run.score %}: {{ run.score }} bits per byte{% endif %}</summary>
<p class="quiet">{{ run.subtitle }}</p>
{{- one_run(run) }}
</details>
{%- endfor %}
{%- else %}
{{- one_run(runs[0]) }}
{%- endif %}
<footer class="quiet small"><p>Made by fairway {{ version }}. A score is a code length: bits per
byte are the bits an arithmetic coder would write with the model's probabilities, over the bytes of
the text.</p></footer>
</main>
</body>
</html>
"""
