"""The page of an audit: one file that loads nothing from anywhere, with the copies beside what they
are copies of."""

import base64
import io
from pathlib import Path

import jinja2
import numpy as np
from PIL import Image
from torch import Tensor

from sweep.audit.compare import Audit
from sweep.audit.image_sets import ImageSet
from sweep.audit.words import lines
from trainables.errors import UserError
from trainables.storage import Storage

COPIES, OTHERS = 60, 12  # generated images shown: the nearest copies, and the nearest that are none

PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>Copies of training images</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem }
h2 { margin-top: 2.5rem; font-size: 1.2rem } li, figure { overflow-wrap: anywhere } ul.names { columns: 20rem }
.cards { display: grid; grid-template-columns: repeat(auto-fill, minmax(17rem, 1fr)); gap: 1rem }
figure { margin: 0; font-size: 12px } figure img { width: 31%; image-rendering: pixelated }
</style>
<h1>Copies of training images</h1>
<p>{% for one in sets %}{{ one.option }} {{ one.path }} ({{ "{:,}".format(one|length) }} images); {% endfor %}
k = {{ "%.4g" | format(k) }}. A generated image counts as a copy if its nearest training image is closer than k times the
second nearest, in pixels.</p>
<ul>{% for line in lines %}<li>{{ line }}</li>{% endfor %}</ul>
{% for title, cards in galleries if cards %}
<h2>{{ title }}</h2>
<p>Each with its nearest and second nearest training image, and the distances d1 and d2 to them.</p>
<div class="cards">{% for images, names, d1, d2 in cards %}
<figure>{% for image in images %}<img src="{{ image }}" alt=""> {% endfor %}
<figcaption>{{ names | join(" | ") }}<br>d1 {{ "%.1f" | format(d1) }}, d2 {{ "%.1f" | format(d2) }}</figcaption></figure>
{% endfor %}</div>
{% endfor %}
{% for title, names in lists if names %}
<h2>{{ title }}</h2>
<ul class="names">{% for name in names %}<li>{{ name }}</li>{% endfor %}</ul>
{% endfor %}
</html>
"""


def write_page(found: Audit, out: Path) -> None:
    """Raises UserError if it can't be written."""
    nearest, memorized = found.distances.found, found.distances.found.memorized(found.k)
    ratio = np.divide(nearest.d1, nearest.d2, out=np.ones_like(nearest.d1), where=nearest.d2 > 0)
    order = np.lexsort((nearest.d1, ratio))
    copies, others = order[memorized[order]][:COPIES], order[~memorized[order]][:OTHERS]
    content = found.as_json()
    groups = (
        [", ".join(names) for names in content["duplicates"]],
        [", ".join(names) for names in content["near_duplicates"]],
    )
    page = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        PAGE
    )
    text = page.render(
        sets=[one for one in (found.training, found.generated, found.held_out) if one is not None],
        k=found.k,
        lines=lines(content),
        galleries=[
            ("Nearest copies", [_card(found, row) for row in copies.tolist()]),
            ("Nearest images that are no copies", [_card(found, row) for row in others.tolist()]),
        ],
        lists=[
            (
                "Copied training images",
                [f"{one['image']}: {one['copies']} copies" for one in content["copied"]],
            ),
            ("Equal training images", groups[0]),
            ("Nearly equal training images", groups[1]),
        ],
    )
    try:
        Storage(str(out.absolute().parent)).write(out.name, text.encode())
    except OSError as error:
        raise UserError(f"--out {out}: can't be written ({error.strerror})") from None


def _card(found: Audit, row: int) -> tuple[list[str], list[str], float, float]:
    """Pictures, names and distances of a generated image and its two neighbours."""
    near = found.distances.found
    shown = (
        (found.generated, row),
        (found.training, int(near.i1[row])),
        (found.training, int(near.i2[row])),
    )
    return (
        [_uri(one, i) for one, i in shown],
        [one.name(i) for one, i in shown],
        float(near.d1[row]),
        float(near.d2[row]),
    )


def _uri(images: ImageSet, index: int) -> str:
    pixels: Tensor = images.take([index])[0]
    stream = io.BytesIO()
    Image.fromarray(pixels.permute(1, 2, 0).squeeze(-1).numpy()).save(stream, "PNG")
    return f"data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}"
