"""The page of an audit: one file that loads nothing from anywhere, with the copies beside what they are copies of."""

import base64
import io
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor

from sweep.audit_text import lines
from sweep.copies import Audit
from sweep.image_sets import ImageSet
from trainables.errors import UserError
from trainables.storage import Storage

COPIES, OTHERS = 60, 12  # generated images shown: the nearest copies, and the nearest that are none

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Copies of training images</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2.5rem; font-size: 1.2rem }
li, td { overflow-wrap: anywhere } table { border-collapse: collapse; font-size: 13px }
th, td { padding: .2rem .8rem .2rem 0; text-align: left; border-bottom: 1px solid #ddd }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0; font-size: 12px; overflow-wrap: anywhere } figure img { width: 31%; image-rendering: pixelated }
</style>
</head>
<body>
<h1>Copies of training images</h1>
<p>training images: {{ training.path }} ({{ "{:,}".format(training|length) }}); generated: {{ generated.path }}
({{ "{:,}".format(generated|length) }}){% if held_out %}; held out: {{ held_out.path }}
({{ "{:,}".format(held_out|length) }}){% endif %}; k = {{ "%.4g" | format(k) }}</p>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% for title, cards in galleries if cards %}
<h2>{{ title }}</h2>
<p>Generated image, its nearest training image, the second nearest; d1 and d2 are the distances to the two.</p>
<div class="cards">
{% for card in cards %}
<figure>{% for image in card.images %}<img src="{{ image }}" alt=""> {% endfor %}
<figcaption>{{ card.generated }} | {{ card.nearest }} | {{ card.second }}<br>d1 {{ "%.1f" | format(card.d1) }},
d2 {{ "%.1f" | format(card.d2) }}</figcaption></figure>
{% endfor %}
</div>
{% endfor %}
{% if copied %}
<h2>Copied training images</h2>
<table><thead><tr><th>training image</th><th>copies</th></tr></thead>
<tbody>{% for name, count in copied %}<tr><td>{{ name }}</td><td>{{ count }}</td></tr>{% endfor %}</tbody></table>
{% endif %}
{% for title, groups in duplicates if groups %}
<h2>{{ title }}</h2>
<ul>{% for group in groups %}<li>{{ group | join(", ") }}</li>{% endfor %}</ul>
{% endfor %}
<h2>How to read this</h2>
<p>A generated image counts as a copy if its nearest training image is closer than k times the second nearest, in pixels. The
share of copies is a property of the model; another sample of images gives another count, which is what the bounds are for.
Held-out images show how often an image that can't be a copy counts as one.</p>
</body>
</html>
"""


def write_page(found: Audit, out: Path) -> None:
    """Raises UserError if it can't be written."""
    nearest, memorized = found.distances.found, found.distances.found.memorized(found.k)
    ratio = np.divide(nearest.d1, nearest.d2, out=np.ones_like(nearest.d1), where=nearest.d2 > 0)
    order = np.lexsort((nearest.d1, ratio))
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(PAGE)
    text = page.render(
        training=found.training,
        generated=found.generated,
        held_out=found.held_out,
        k=found.k,
        lines=lines(found),
        galleries=[
            ("Nearest copies", _cards(found, order[memorized[order]][:COPIES])),
            ("Nearest images that are no copies", _cards(found, order[~memorized[order]][:OTHERS])),
        ],
        copied=[(found.training.name(image), count) for image, count in found.copied],
        duplicates=[
            (title, [[found.training.name(index) for index in group] for group in groups])
            for title, groups in (
                ("Equal training images", found.duplicates),
                ("Nearly equal training images", found.near_duplicates),
            )
        ],
    )
    try:
        Storage(str(out.absolute().parent)).write(out.name, text.encode())
    except OSError as error:
        raise UserError(f"--out {out}: can't be written ({error.strerror})") from None


def _cards(found: Audit, shown: Any) -> list[dict[str, Any]]:
    return [_card(found, row) for row in shown.tolist()]


def _card(found: Audit, row: int) -> dict[str, Any]:
    nearest = found.distances.found
    first, second = int(nearest.i1[row]), int(nearest.i2[row])
    return {
        "images": [_uri(found.generated, row), _uri(found.training, first), _uri(found.training, second)],
        "generated": found.generated.name(row),
        "nearest": found.training.name(first),
        "second": found.training.name(second),
        "d1": nearest.d1[row],
        "d2": nearest.d2[row],
    }


def _uri(images: ImageSet, index: int) -> str:
    pixels: Tensor = images.take([index])[0]
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
