"""Floor 2. The visible area, from whose corner programs count that cut off the masked borders of raws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ...defects import DefectMap
from ...mosaic import Area
from .places import Listed, Places, Sensor
from .text import shape_of

_NO_BORDERS = "assumed that the frames have no masked borders; --like FRAME tells"


def visible(sensor: Sensor, shape: tuple[int, int]) -> tuple[Area, list[str]]:
    """The area that places count from, with a note where it had to be assumed."""
    return (sensor.area, []) if sensor.area is not None else (Area(0, 0, *shape), [_NO_BORDERS])


def cut(plane: DefectMap, area: Area) -> tuple[DefectMap, list[str]]:
    """The plane within the area, and a note on bad pixels outside of it."""
    part = DefectMap(plane.dq[area.slices])
    if lost := len(plane) - len(part):
        return part, [f"lost: {lost} pixels of the masked borders, which have no coordinates there"]
    return part, []


def embedded(listed: Listed, area: Area, shape: tuple[int, int]) -> Listed:
    """Planes of the area as planes of the whole stored frame."""
    planes = []
    for plane in listed.planes:
        whole = np.zeros(shape, np.int32)
        whole[area.slices] = plane.dq
        planes.append(DefectMap(whole))
    return replace(listed, planes=tuple(planes))


def listed_in_area(places: Places, sensor: Sensor) -> Listed:
    """Places that count from the visible area's corner."""
    shape = shape_of(places.path, sensor)
    area, notes = visible(sensor, shape)
    places.notes += notes
    return embedded(places.listed((area.bottom - area.top, area.right - area.left)), area, shape)
