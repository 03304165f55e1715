"""The page of a report: a jinja2 template, rendered with autoescape by `sweep.report.files`. It loads
nothing from anywhere."""

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
img { width: 100%; max-width: 30rem; height: auto } img.gallery { max-width: 62rem }
h3 { font-size: 1rem; margin-bottom: .5rem }
ul.warnings { border-left: 4px solid #D55E00; padding-left: 2rem }
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
sd {{ space.search.precision }} of ln EMM, at most {{ space.search.max_trials * space.search.replicates }} trials per study</dd>
<dt>measurement</dt><dd>{{ space.measurement.n_samples }} generated images per trial, at the best of
{{ space.measurement.snapshots or "the paper's" }} snapshots, k = {{ "%.4g" | format(space.measurement.k) }}</dd>
</dl>
<h2>Configurations</h2>
{{ grid("configurations", configuration_columns, configurations) }}
{% if scale %}
<p>Beside each EMM, from the trials near it:</p>
{{ grid("scale", scale_columns, scale) }}
{% for line in halves %}<p>{{ line }}.</p>{% endfor %}

{% endif %}
{% if contrasts %}
<p>Ratios of EMMs; two configurations are told apart if the interval of their ratio excludes 1:</p>
{{ grid("contrasts", contrast_columns, contrasts) }}
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
<div class="figures">
{% for image, words in overviews %}
<img src="{{ image }}" alt="{{ words }}">
{% endfor %}
</div>
{% for name, study, training, gallery in figures %}
<h3>{{ name }}</h3>
<div class="figures">
{% if study %}<img src="{{ study }}" alt="R_mem against N of {{ name }}">{% endif %}

{% if training %}<img src="{{ training }}" alt="R_mem over the trainings of {{ name }}">{% endif %}

</div>
{% if gallery %}<img class="gallery" src="{{ gallery }}" alt="Generated images of {{ name }}">{% endif %}

{% endfor %}
<p>Pictures: {{ {"none": "none, since tracking.images is none; no pixel of the data leaves the sweep's storage",
"generated": "generated images only, since tracking.images is generated; no training image is shown",
"pairs": "generated images, each with its nearest and second nearest training image and their L2 distances d1 and d2 in pixel
values"}[images] }}.{% if images != "none" %} They are the first that the trial nearest to the EMM generated, sorted by d1 / d2.
{% endif %}</p>
<p>The same figures lie beside this page as PNG and PDF files, the tables for LaTeX (booktabs) as configurations.tex, scale.tex,
contrasts.tex and trials.tex, the trials as trials.csv, everything as report.json.
{% if omitted %}{{ omitted }} figures are only there, to keep this page small.{% endif %}</p>
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
<p>The rule compares two distances, so an EMM is to be read beside them.
{% for measure in measures %}
<i>{{ measure.title }}</i>: {{ measure.says }}.
{% endfor %}
<i>N/|D|</i>: the EMM as a share of the data set.
<i>EMM at T/2</i>: had the training ended halfway, the EMM would have been about that; an approximation,
from the fewer images of the snapshot there, and only where the first half is a training of half the length.</p>
<h2>Provenance</h2>
{{ grid("data", ("data", "images", "duplicates", "digest"), data) }}
<p>A trial's files lie in trials/&lt;training key&gt;/ of the sweep's storage.</p>
{{ grid("provenance", ("configuration", "N", "seed", "N/|D|", "seconds", "finished", "ran on", "training key"), provenance) }}
</body>
</html>
"""
