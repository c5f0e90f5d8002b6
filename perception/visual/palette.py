"""One colour a class, the same in every picture.

Searched so that any two differ by 19 or more in colour difference (CIE 76) for normal and for red-green blind eyes, that classes of like
size differ by 6 or more in lightness (CIE L*, grey print), and that all stand out on paper.
"""

Color = tuple[int, int, int]

CLASS_COLORS: dict[str, Color] = {
    "car": (0, 88, 141),
    "truck": (165, 129, 31),
    "bus": (49, 0, 119),
    "trailer": (103, 44, 0),
    "construction_vehicle": (196, 178, 20),
    "pedestrian": (185, 32, 63),
    "motorcycle": (15, 53, 62),
    "bicycle": (22, 168, 124),
    "traffic_cone": (240, 125, 200),
    "barrier": (110, 122, 141),
}
OTHER: Color = (90, 90, 90)
INK: Color = (30, 30, 30)
FAINT: Color = (205, 205, 205)
TRUTH: Color = (60, 60, 60)
PAPER: Color = (252, 252, 250)


def class_color(name: str) -> Color:
    """The colour of a class; grey for one that has none."""
    return CLASS_COLORS.get(name, OTHER)
