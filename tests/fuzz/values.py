"""Values for one key, made from its JSON schema alone: those it takes, edges first,
and those that look like it."""

import json
import math
from collections.abc import Mapping
from typing import Any

from hypothesis import strategies as st

Rule = Mapping[str, Any]
Texts = st.SearchStrategy[str]

ODD_TEXT = [
    "",
    " ",
    "x" * 5000,
    "词.txt",
    "\U0001f600",
    "a\nb",
    "a\x00b",
    "\ud800",
    "a\u2028b",
    "\x1b[31m",
    "'",
    '"',
    "# no comment",
    "%s {0} {x}",
    "null",
    "1e3",
    "auto",
]
# No slash and no tilde: what a key of text names may be read or written.
_TEXT = st.sampled_from(ODD_TEXT) | st.text(
    st.characters(codec="utf-8", exclude_characters="/~"), max_size=20
)
_WHOLE = [
    0,
    1,
    2,
    3,
    5,
    7,
    64,
    1000,
    10**6,
    2**31 - 1,
    2**31,
    2**32,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
]
_REAL = [
    0.0, -0.0, 5e-324, 2.2250738585072014e-308, 1e-300, 1e-45, 1e-30, 1e-8, 1e-3, 0.1, 0.5, 0.99, 0.99999,
    1.0, 1.5, 2.0, 10.0, 1e3, 65504.0, 1e30, 3.5e38, 1e300, 1.7976931348623157e308,
]  # fmt: skip


def valid(rule: Rule) -> st.SearchStrategy[Any]:
    """Values that the schema allows: both ends of each bound, huge, tiny and denormal ones, null."""
    if "anyOf" in rule:
        return st.one_of([valid(option) for option in rule["anyOf"]])
    if "enum" in rule:
        return st.sampled_from(rule["enum"])
    if "const" in rule:
        return st.just(rule["const"])
    kind = rule.get("type")
    if kind == "array":
        if "prefixItems" in rule:
            return st.tuples(*map(valid, rule["prefixItems"])).map(list)
        return st.lists(valid(rule["items"]), max_size=3)
    if kind == "integer":
        return _whole(rule)
    if kind == "number":
        return _real(rule)
    if kind == "string":
        return st.from_regex(rule["pattern"], fullmatch=True) if "pattern" in rule else _TEXT
    if kind == "object":
        return st.just({})
    return {"boolean": st.booleans(), "null": st.none()}[str(kind)]


def spelled(value: Any) -> str:
    """`value` as YAML on one line."""
    if isinstance(value, float):
        if math.isfinite(value):
            return repr(value)
        return ".nan" if math.isnan(value) else ".inf" if value > 0 else "-.inf"
    if isinstance(value, list):
        return f"[{', '.join(map(spelled, value))}]"
    return json.dumps(value)


def almost(rule: Rule) -> Texts:
    """YAML that is near to what the key takes, whether or not it takes it."""
    texts = [st.sampled_from(_ALMOST), valid(rule).map(spelled).flatmap(_disguised)]
    kinds = [option.get("type") for option in rule.get("anyOf", [rule])]
    if "integer" in kinds or "number" in kinds:
        texts.append(st.sampled_from(_WHOLE + [-n for n in _WHOLE]).map(str))
        texts.append(st.sampled_from(_REAL + [-x for x in _REAL]).map(repr))
    return st.one_of(texts)


_ALMOST = [
    "3e-4", "'3e-4'", "off", "on", "no", "Yes", "True", "false", "1.0", "1_000", "_1", "1__0", "0x10",
    "0o7", "0b1",
    "' 5 '", "1e400", "-1e400", "-0.0", "-0", "+1", "1e3", "1E3", "1.", ".5", "1,5", "1 000", "1k", "10%",
    "3/4",
    str(2**63), str(10**30), "9" * 200, ".nan", ".inf", "-.inf", "nan", "NaN", "inf", "Infinity", "''", "' '", "~",
    "null", "Null", "None", "x" * 300, "\u0663", "\uff11", "\u00b2", "[]", "{}", "[1]", "[[1]]", "{a: 1}",
    "[1, 2, 3]",
    "[null]", "[true, false]", "'auto'", "AUTO", "auto ", "-1", "0", "!!int 3", "!!str 3", "*x", "&x 1",
    "<<", "@x", "`x`",
    "2024-01-01", "1:30", "'\\0'", '"\\0"', '"\\ud800"', '"\\ud83d\\ude00"', "|", ">", "? x", "- 1",
    "'unclosed",
]  # fmt: skip


def _disguised(text: str) -> Texts:
    return st.sampled_from(
        [
            text,
            json.dumps(text),
            f"[{text}]",
            f"{{value: {text}}}",
            f"-{text}",
            f"{text}0",
            text.upper(),
            f" {text} ",
        ]
    )


def _whole(rule: Rule) -> st.SearchStrategy[int]:
    least = rule.get("minimum", rule.get("exclusiveMinimum", -1) + 1 if "exclusiveMinimum" in rule else None)
    most = rule.get("maximum", rule["exclusiveMaximum"] - 1 if "exclusiveMaximum" in rule else None)
    edges = [*_WHOLE, -1, -(2**63), *(n for n in (least, most) if n is not None)]
    fitting = [n for n in edges if (least is None or n >= least) and (most is None or n <= most)]
    return st.sampled_from(fitting) | st.integers(
        least if least is not None else -100, min(most, least + 100) if most and least else most or 1000
    )


def _real(rule: Rule) -> st.SearchStrategy[float]:
    least, most = (
        rule.get("minimum", rule.get("exclusiveMinimum")),
        rule.get("maximum", rule.get("exclusiveMaximum")),
    )
    edges = [*_REAL, -1.0, *(float(x) for x in (least, most) if x is not None)]
    if most is not None:
        edges.append(math.nextafter(most, -math.inf))

    def fits(x: float) -> bool:
        return (
            (least is None or x > least or (x == least and "minimum" in rule))
            and (most is None or x < most or (x == most and "maximum" in rule))
        )  # fmt: skip

    return st.sampled_from([x for x in edges if fits(x)]) | st.floats(
        least, most, allow_nan=False, allow_infinity=False
    ).filter(fits)
