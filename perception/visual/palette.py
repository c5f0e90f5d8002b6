"""One colour a class, the same in every picture; distinct for colour-blind eyes (after Okabe and Ito) and by brightness in grey print."""

Color = tuple[int, int, int]

CLASS_COLORS: dict[str, Color] = {
    "car": (0, 90, 160),
    "truck": (70, 160, 220),
    "bus": (0, 140, 100),
    "trailer": (120, 80, 160),
    "construction_vehicle": (150, 120, 0),
    "pedestrian": (205, 70, 0),
    "motorcycle": (200, 90, 150),
    "bicycle": (225, 150, 0),
    "traffic_cone": (140, 90, 60),
    "barrier": (120, 120, 120),
}
OTHER: Color = (90, 90, 90)
INK: Color = (30, 30, 30)
FAINT: Color = (205, 205, 205)
TRUTH: Color = (60, 60, 60)
PAPER: Color = (252, 252, 250)


def class_color(name: str) -> Color:
    """The colour of a class; grey for one that has none."""
    return CLASS_COLORS.get(name, OTHER)
