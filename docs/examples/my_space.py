"""A search space in Python, where its values are computed: emm run my_space.py --out DIR"""

# ever wider, and ever less deep
SHAPES = {f"{width} x {depth}": (width, depth) for width, depth in ((4, 4), (8, 2), (16, 1))}

SPACE = {
    "question": "Is it the width or the depth that memorizes?",
    "base": "digits",
    "settings": {"trainer.length": 800},
    "vary": {
        "shape": {
            name: {"network.width": width, "network.depth": depth}
            for name, (width, depth) in SHAPES.items()
        },
        "trainer.lr": [1e-2 * 2**step for step in range(-1, 2)],
    },
    "search": {"n_low": 8, "n_high": 256},
}
