"""The page of a report: a jinja2 template, rendered with autoescape by `sweep.report`. It loads nothing from anywhere."""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>EMM of {{ space.name }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; font-size: 1.2rem }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dt { color: #666 } dd { margin: 0 }
div.wide { overflow-x: auto } table { border-collapse: collapse; font-size: 13px }
th, td { padding: .2rem .8rem .2rem 0; text-align: right; vertical-align: top; white-space: nowrap }
th { border-bottom: 1px solid #888; font-weight: 600 }
td { border-bottom: 1px solid #ddd; font-variant-numeric: tabular-nums }
.left { text-align: left } td.key { font-family: monospace }
td.text { white-space: normal; overflow-wrap: anywhere; min-width: 8rem }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(20rem, 1fr)); gap: 1.5rem; align-items: start }
ul.contrasts { columns: 22rem }
img { width: 100%; max-width: 30rem; height: auto } ul.warnings { border-left: 4px solid #D55E00; padding-left: 2rem }
</style>
</head>
<body>
{% macro grid(id, columns, rows) %}
<div class="wide"><table id="{{ id }}">
<thead><tr>{% for c in columns %}<th{% if c in left %} class="left"{% endif %}>{{ c }}</th>{% endfor %}</tr></thead>
<tbody>
{% for row in rows %}
<tr>{% for cell in row %}<td{% if columns[loop.index0] in left %} class="left {{ left[columns[loop.index0]] }}"{% endif %}>\
{{ cell }}</td>{% endfor %}</tr>
{% endfor %}
</tbody></table></div>
{% endmacro %}
<h1>EMM of {{ space.name }}</h1>
<dl>
<dt>question</dt><dd>{{ space.question }}</dd>
<dt>source</dt><dd>{{ space.source }}</dd>
<dt>expectation</dt><dd>{{ space.expectation }}</dd>
<dt>search</dt><dd>target R_mem {{ space.search.target }}, N from {{ space.search.n_low }} to {{ space.search.n_high }},
sd {{ space.search.precision }} of ln EMM, at most {{ space.search.max_trials }} trials per study</dd>
<dt>measurement</dt><dd>{{ space.measurement.n_samples }} generated images per trial, at the best of
{{ space.measurement.snapshots or "the paper's" }} snapshots, k = {{ "%.4g" | format(space.measurement.k) }}</dd>
</dl>
<h2>Configurations</h2>
{{ grid("configurations", configuration_columns, configurations) }}
{% if contrasts %}
<p>Ratios of EMMs; two configurations are told apart if the interval of their ratio excludes 1:</p>
<ul class="contrasts">{% for line in contrasts %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% if seeds %}
<h2>Seeds</h2>
<ul>{% for line in seeds %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% if finals %}
<p>Trials nearest the EMM, measured again with more images; these don't enter the EMM:</p>
<ul>{% for line in finals %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
{% if cautions %}
<h2>Warnings</h2>
<ul class="warnings">{% for line in cautions %}<li>{{ line }}</li>{% endfor %}</ul>
{% endif %}
<h2>Figures</h2>
<p><img src="{{ overview }}" alt="EMM of every configuration, with its 95 % interval"></p>
<div class="figures">
{% for study, image in figures %}
<img src="{{ image }}" alt="R_mem against N of {{ study.name }}">
{% endfor %}
</div>
<p>The same figures lie beside this page as PNG and PDF files, the trials as trials.csv, everything as report.json.</p>
<h2>Trials</h2>
{{ grid("trials", trial_columns, trials) }}
<h2>How to read this</h2>
<p>A generated image is memorized if its nearest training image is closer than k times the second nearest. <b>R_mem</b> is the
share of the generated images that are memorized; it falls as the number N of training images grows. The <b>EMM</b> (effective
model memorization) of a configuration is the N at which R_mem, on average over seeds, falls through the target: up to there
it memorizes, beyond it no longer does. The interval of an R_mem is that of sampling alone (Wilson): the same trained network,
other generated images. The interval of an EMM comes from all complete trials of the configuration and includes the spread
over seeds; noise and shape of the curve are pooled over the configurations of one recipe where at least four were found,
and <i>own trials</i> is the interval without that. <i>found</i>: known as precisely as asked, with trials on both sides;
<i>below_range</i>, <i>above_range</i>: the EMM lies beyond the N that were tried; <i>unresolved</i>: given up, for the
reason shown; <i>searching</i>: not finished. R_mem
with &gt;=: the trial was accepted early, its R_mem is at least that.
To compare two EMMs, use the interval of their ratio, not whether their intervals overlap.</p>
<h2>Provenance</h2>
{{ grid("data", ("data", "images", "duplicates", "digest"), data) }}
<p>A trial's files lie in trials/&lt;training key&gt;/ of the sweep's storage.</p>
{{ grid("provenance", ("configuration", "N", "seed", "N/|D|", "seconds", "finished", "ran on", "training key"), provenance) }}
</body>
</html>
"""
