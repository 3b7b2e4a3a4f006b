"""Keys that had another name once: the config.yaml of an older run is still read, and so are its overrides."""

from minigpt.config.yaml_text import KeyPath, Place, Value, Written

_TO_FP16 = (
    "overflows_before_first_success",
    "overflows_in_a_row",
    "overflow_window",
    "overflows_in_window",
)
RENAMED: dict[KeyPath, KeyPath] = {
    ("monitor", "non_finite", name): ("monitor", "fp16", name) for name in _TO_FP16
}


def with_present_names(written: Written) -> Written:
    """What was written, under the keys of today; where both stand, today's wins."""
    values, places = written.values, written.places
    for old, new in RENAMED.items():
        if old in places:
            values, places = _moved(values, places, old, new)
    return Written(values, places)


def _moved(
    values: dict[str, Value], places: dict[KeyPath, Place], old: KeyPath, new: KeyPath
) -> tuple[dict[str, Value], dict[KeyPath, Place]]:
    """The value of `old` at `new`; sections on the way are copied, or left alone where they are no sections."""
    monitor = values["monitor"]
    assert isinstance(monitor, dict)
    source, target = monitor[old[1]], monitor.get(new[1], {})
    if not isinstance(source, dict) or not isinstance(target, dict):
        return values, places
    rest = {name: value for name, value in source.items() if name != old[2]}
    target = {new[2]: source[old[2]], **target}
    values = {**values, "monitor": {**monitor, old[1]: rest, new[1]: target}}
    return values, {new: places[old], **{path: place for path, place in places.items() if path != old}}
